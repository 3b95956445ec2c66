"""The table of the subset rules says of a run what its tables hold."""

import json

import pytest

from benchmarks.subset_rules import chosen_prompts, furthest, gaps, main, rules, table
from tests.scripted import rollout
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import read_recipe
from whetstone.records import to_row
from whetstone.run.tables import count_rows


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    found = read_recipe("recipes/smoke.toml", [f"run.folder={tmp_path_factory.mktemp('runs')}"])
    run_recipe(found, last="corpus")
    return found


def test_counts_are_those_of_the_tables(recipe):
    found, folder = rules(recipe), recipe.folder / recipe.stage("corpus").folder_name
    assert found["sft"]["kept"]["rows"] == count_rows(folder / "subset")
    assert found["dpo"]["pairs"] == count_rows(folder / "pairs") <= found["dpo"]["problems_with_both"]
    assert found["prompts"]["kept"] == count_rows(folder / "prompts")
    assert found["sft"]["of"]["rows"] <= found["midtrain"]["of"]["right"] <= found["midtrain"]["of"]["rows"]
    assert found["student_pairs"] == found["rl"] == {}, "they have not run"


def test_the_table_has_a_line_for_each_rule_and_the_command_prints_it(recipe, capsys, tmp_path):
    main(["recipes/smoke.toml", "--folder", str(recipe.run.folder), "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["recipes"]["smoke"]
    said = table("smoke", found)
    assert said in capsys.readouterr().out
    lines = said.splitlines()
    assert [line.split(":")[0] for line in lines[2:]] == [
        "| mid-training",
        "| fine-tuning",
        "| DPO on the teacher's text",
        "| RL",
    ]
    assert {line.count(" | ") for line in lines} == {3}


def test_gaps_by_hand():
    pairs = [
        {"problem_id": "p", "chosen": "four", "rejected": "sixsix"},
        {"problem_id": "q", "chosen": "ab", "rejected": "c"},
    ]
    assert gaps(pairs, {"p": 2.0, "q": 5.0}) == {
        "pairs": 2,
        "problems": 2,
        "chosen": 3.0,
        "rejected": 3.5,
        "gap": 1.5,
        "gap_at_random": 3.5,
    }
    assert gaps([], {}) == {"pairs": 0, "problems": 0}
    assert furthest({"1": 0.5, "2": 0.5}, {"1": 0.6, "3": 0.4}) == pytest.approx(50)


def test_prompts_of_rl_before_and_after_the_choice(tmp_path):
    tried = {"kept": (True, False), "easy": (True, True), "never": (False, False)}
    lines = [
        json.dumps(to_row(rollout(name, index, correct, tokens=2 + 2 * index)))
        for name, verdicts in tried.items()
        for index, correct in enumerate(verdicts)
    ]
    (tmp_path / "candidates.jsonl").write_text("\n".join(lines) + "\n")
    facts = {"candidates": {"kept": 1, "too easy": 1, "never solved": 1}}
    (tmp_path / "prompts.json").write_text(json.dumps({"kept": ["kept"], "facts": facts}))
    found = chosen_prompts(tmp_path)
    assert found["before"]["rates"] == {"never": 1, "sometimes": 1, "always": 1}
    assert (found["before"]["pass_rate"], found["after"]["pass_rate"]) == (0.5, 0.5)
    assert found["after"]["rates"] == {"never": 0, "sometimes": 1, "always": 0}
    assert found["after"]["spread"] == pytest.approx(1 / 3)  # lengths 2 and 4: deviation 1, mean 3
