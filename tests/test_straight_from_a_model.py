"""`rl` and `dpo` of a model folder, without a training stage, rollouts or a corpus above them."""

import json

import pytest

from tests.tiny_world import SUMS, answer
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import Recipe, read_recipe
from whetstone.records import Pair
from whetstone.run.folder import hash_folder, read_json
from whetstone.run.tables import read_records, read_rows

LONG = "Compute " + "1 + " * 200 + "1."
QUESTIONS = """
[[stage]]
kind = "questions"
[[stage.source]]
kind = "file"
path = "{folder}/sums.jsonl"
columns = {{ id = "id" }}
test = 0.3
benchmark = "sums"
"""
RL = """
[[stage]]
kind = "rl"
steps = 2
prompts_per_step = 4
samples = 4
max_tokens = 40
pool = { samples = 6 }
stabilisers = []
"""
DPO = """
[[stage]]
kind = "dpo"
pool = { samples = 6 }
max_tokens = 40
"""


def recipe(folder, model, stages: str, problems: list[dict] | None = None) -> Recipe:
    """With the sums of the tiny world as a user's own file."""
    rows = (
        problems
        if problems is not None
        else [{"id": f"{a}+{b}", "question": f"Compute {a} + {b}.", "answer": str(a + b)} for a, b in SUMS]
    )
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = f'[run]\nname = "r"\nfolder = "{folder}"\n[parallel]\ndevice = "cpu"\nforks = 1\n'
    head += f'[model]\npath = "{model}"\n' if model else "[model]\nlayers = 1\nhidden = 32\nheads = 2\ncontext = 128\n"
    path = folder / "r.toml"
    path.write_text(head + "[scores]\nsamples = 1\nmax_tokens = 40\n" + QUESTIONS.format(folder=folder) + stages)
    return read_recipe(path)


def test_questions_and_rl_are_a_recipe(tmp_path, adder):
    of = recipe(tmp_path, adder, RL)
    assert {name: str(source) for name, source in of.stage("rl").sources.items()} == {"prompts": "questions/problems"}
    run_recipe(of)
    summary = read_json(of.folder / "02-rl" / "manifest.json")["summary"]
    assert summary["updates"] > 0 and hash_folder(of.folder / "02-rl" / "model") != hash_folder(adder)
    tests = {row["id"] for row in read_rows(of.folder / "01-questions" / "problems") if row["split"] == "test"}
    tried = read_json(of.folder / "02-rl" / "prompts.json")["kept"]
    assert tests and tried and not tests & set(tried), "test problems are never trained on"
    scored = read_json(of.folder / "scores.json")["scores"]
    assert [score["stage"] for score in scored] == ["base", "rl"] and scored[0]["problems"] == len(tests)


def test_questions_and_the_students_dpo_are_a_recipe(tmp_path, adder):
    run_recipe(recipe(tmp_path, adder, DPO))
    pairs = list(read_records(Pair, tmp_path / "r" / "02-dpo" / "pairs"))
    assert pairs and {pair.source for pair in pairs} == {"student"}


def test_a_table_of_pairs_and_the_teachers_dpo_are_a_recipe(tmp_path, adder):
    ready = [
        {"prompt": f"Compute {a} + {b}.", "chosen": answer(a, b), "rejected": answer(a, b, slip=1)} for a, b in SUMS
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ready))
    corpus = f'[[stage]]\nkind = "corpus"\nimported_pairs = [{{ path = "{tmp_path}/pairs.jsonl" }}]\n'
    of = recipe(tmp_path, adder, corpus + '[[stage]]\nkind = "dpo"\nsource = "teacher"\n')
    assert list(of.stage("dpo").sources) == ["pairs"]
    run_recipe(of)
    used = read_json(of.folder / "03-dpo" / "manifest.json")["summary"]["pairs"]
    tests = sum(row["split"] == "test" for row in read_rows(of.folder / "01-questions" / "problems"))
    assert used == len(SUMS) - tests, "pairs of test questions are left out"


@pytest.mark.parametrize("stage", [RL, DPO, '[[stage]]\nkind = "dpo"\nsource = "teacher"\n'])
def test_without_a_model_or_pairs_the_recipe_is_refused_when_it_is_read(tmp_path, stage):
    with pytest.raises(
        ValueError, match=r"reads model .* midtrain or sft or dpo or rl (or distill )?before it, or set \[model\] path"
    ):
        recipe(tmp_path, None, stage)


def test_the_teachers_dpo_needs_pairs(tmp_path, adder):
    with pytest.raises(ValueError, match=r"reads pairs \(pairs\), and no stage above it gives that"):
        recipe(tmp_path, adder, '[[stage]]\nkind = "dpo"\nsource = "teacher"\n')


def test_an_empty_model_is_that_of_the_path_although_a_stage_above_gives_one(tmp_path, adder):
    of = recipe(tmp_path, adder, RL + RL.replace("steps", 'name = "again"\nmodel = ""\nsteps'))
    assert "model" not in of.stage("again").sources


@pytest.mark.parametrize(("stage", "folder"), [(RL, "02-rl"), (DPO, "02-dpo")])
def test_one_question_that_is_too_long_is_named_before_training_and_left_out(tmp_path, adder, capsys, stage, folder):
    rows = [{"id": f"{a}+{b}", "question": f"Compute {a} + {b}.", "answer": str(a + b)} for a, b in SUMS]
    # Texts decide the splits: these lengths fall into training and into the test set
    rows += [{"id": f"long{n}", "question": LONG + " " * n + "?" * n, "answer": "201"} for n in range(1, 6)]
    run_recipe(recipe(tmp_path, adder, stage, rows))
    problems = {row["id"]: row["split"] for row in read_rows(tmp_path / "r" / "01-questions" / "problems")}
    long = {name: split for name, split in problems.items() if "long" in name}
    assert set(long.values()) == {"train", "test"}
    error = capsys.readouterr().err
    before, _, _ = error.partition("parameters")
    trained, tested = ([name for name in long if long[name] == split] for split in ("train", "test"))
    assert f"warning: [scores] on sums: {len(tested)} of" in before and all(name in before for name in long)
    assert "are left out" in before and "exceed the model's context of 256" in before
    dropped = list(read_rows(tmp_path / "r" / folder / "dropped"))
    assert sorted(row["problem_id"] for row in dropped if row["reason"] == "cannot be asked") == sorted(trained)
    tests = sum(split == "test" for split in problems.values())
    for score in read_json(tmp_path / "r" / "scores.json")["scores"]:
        assert (score["problems"], score["not_asked"]) == (tests, len(tested)), "they stay in the denominator"


def test_questions_that_are_all_too_long_stop_the_run_before_training(tmp_path, adder):
    rows = [{"id": f"{n}", "question": f"{n} {LONG}", "answer": "1"} for n in range(12)]
    with pytest.raises(ValueError, match=r"\[scores\] on sums: none of .* problems can be asked"):
        run_recipe(recipe(tmp_path, adder, RL, rows))
    assert not (tmp_path / "r" / "02-rl" / "checkpoints").exists()
