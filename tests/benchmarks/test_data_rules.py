"""The scripts that measure rules of data and make the final scores."""

import json

import pytest

from benchmarks import data_rules, final_scores
from whetstone.recipe import read_recipe
from whetstone.records import Problem
from whetstone.run.folder import write_json
from whetstone.run.tables import write_records


@pytest.mark.parametrize("variant", data_rules.VARIANTS)
def test_every_variant_is_a_recipe_that_trains_on_gsm8k_alone_with_the_same_tokens(variant, tmp_path):
    recipe = read_recipe(data_rules.RECIPE, data_rules.sets_of(variant, 1000, "a/model", tmp_path))
    sources = recipe.stage("questions").settings.source
    assert [source.title for source in sources if source.splits != {"test"}] == ["gsm8k"]
    assert recipe.stage("midtrain").settings.tokens == 1000 and recipe.scores.sets == (
        "gsm8k_held_out",
        "asdiv_held_out",
    )


def test_a_test_run_is_listed_before_it_is_made_and_with_its_score_after(tmp_path, monkeypatch, capsys):
    listed = tmp_path / "test_runs.jsonl"
    monkeypatch.setattr(final_scores, "LIST", listed)
    run = tmp_path / "run"
    problems = [Problem(f"p{i}", f"What is {i}+1?", str(i + 1), "test", "gsm8k") for i in range(5)]
    write_records(run / "01-questions" / "problems", problems)
    write_json(run / "01-questions" / "manifest.json", {"kind": "questions", "name": "questions"})
    write_json(run / "run.json", {"recipe": {"model": {"path": "m"}, "run": {"seed": 3}}})
    row = final_scores.Row("gsm8k", 1, 0.0, 2)

    def evaluate(*command):
        assert [json.loads(text)["stage"] for text in listed.read_text().splitlines()] == ["base"]
        asked = (run / "test_scores/base/gsm8k-greedy-2/gsm8k.jsonl").read_text().splitlines()
        assert len(asked) == 2 and command[command.index("--temperature") + 1] == "0.0"
        write_json(
            run / "test_scores/base/gsm8k-greedy-2/scores.json",
            {"scores": [{"stage": "m", "mean": 0.5, "low": 0.1, "high": 0.9}]},
        )

    monkeypatch.setattr(final_scores, "evaluate", evaluate)
    monkeypatch.setattr(final_scores, "git_revision", lambda: "abc")
    for _ in range(2):  # the second time nothing is scored
        assert final_scores.score(run, "base", final_scores.models(run)["base"], row)["mean"] == 0.5
    assert len(listed.read_text().splitlines()) == 2
    final_scores.main(["--list"])
    assert "| base | gsm8k | greedy | 2 | 50.0 [10.0, 90.0] | abc |" in capsys.readouterr().out
