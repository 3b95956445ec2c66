"""[controls]: what is derived from a stage, when it runs, what it costs when off, and how it stands beside its stage."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scripted import Killed, kill_after, stage
from tests.test_straight_from_a_model import DPO, RL, recipe
from whetstone import choose_prompt, measure
from whetstone.model_folder import find_model
from whetstone.pipeline.running import estimate, run_recipe, select
from whetstone.pipeline.staleness import plan_recipe
from whetstone.recipe import Recipe, read_recipe
from whetstone.records import Problem
from whetstone.report.numbers import signed
from whetstone.rl.tripwires import beyond_limits
from whetstone.run.control import conclusion, is_control
from whetstone.run.folder import Stage, hash_folder, read_json
from whetstone.run.prompt_settings import PromptSettings
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_records, read_rows, write_records
from whetstone.terminal import print_results

WHOLE = """
[model]
path = "{model}"
[[stage]]
kind = "questions"
[[stage.source]]
kind = "procedural"
train = 4
[[stage]]
kind = "rollouts"
[[stage]]
kind = "corpus"
[[stage]]
kind = "midtrain"
max_length = 300
loss_on = "response"
curriculum = 0.4
[[stage]]
kind = "sft"
optimizer = {{ learning_rate = 7e-4, schedule = "linear" }}
checkpoint_every = 7
[[stage]]
kind = "dpo"
optimizer = {{ learning_rate = 3e-5 }}
max_tokens = 200
[[stage]]
kind = "rl"
reward = {{ plus_minus_one = 1.0, format = 0.2 }}
tripwires = {{ actions = {{ entropy = "rollback" }}, sampler_gap = 0.03 }}
[[stage]]
kind = "evaluate"
[[stage]]
kind = "report"
"""
ALL = "[controls]\nmidtraining = true\nrejection = true\nrandom_reward = true\n"


def whole(folder: Path, controls: str = "", text: str = WHOLE) -> Recipe:
    (folder / "whole.toml").write_text(controls + text.format(model=folder / "model"))
    return read_recipe(folder / "whole.toml")


def sources(of: Recipe, name: str) -> dict[str, str]:
    return {name: str(source) for name, source in of.stage(name).sources.items()}


# --- what is derived


def test_controls_stand_after_the_last_stage_that_trains_and_change_no_other_stage(tmp_path):
    off, on = whole(tmp_path), whole(tmp_path, ALL)
    assert [stage.folder_name for stage in on.stages if stage.control] == [
        "05-sft-control-midtraining",
        "06-dpo-control-rejection",
        "07-rl-control-rejection",
        "07-rl-control-random_reward",
    ]
    assert [stage.name for stage in on.stages][-6:-1] == [
        *(stage.name for stage in on.stages if stage.control),
        "evaluate",
    ]
    assert tuple(stage for stage in on.stages if not stage.control) == off.stages
    assert not [source for stage in off.stages for source in stage.sources.values() if is_control(source.stage)]
    assert off.longest == on.longest and not on.notes
    assert [stage.name for stage in select(on, "rl", "dpo-control-rejection", ())] == [
        *("rl", "sft-control-midtraining", "dpo-control-rejection")
    ]


def test_midtraining_instead_takes_the_rows_of_midtraining_and_the_optimizer_tokens_and_steps_of_its_stage(tmp_path):
    on = whole(tmp_path, ALL)
    control = on.stage("sft-control-midtraining").settled({"tokens": 5000, "steps": 40})
    assert control.kind == "midtrain" and sources(on, control.name) == {
        "corpus": "corpus/corpus",
        "model": "midtrain/model",
    }
    settings = control.settings
    assert (settings.max_length, settings.loss_on) == (300, "response")
    assert settings.optimizer == on.stage("sft").settings.optimizer and settings.checkpoint_every == 7
    assert (settings.tokens, settings.steps) == (5000, 40)
    assert (settings.curriculum, settings.patience) == (0, 0)


def test_rejection_trains_on_the_right_rollouts_of_its_stage(tmp_path):
    on = whole(tmp_path, ALL + "learning_rate = { rejection = 1e-4 }\n")
    assert sources(on, "dpo-control-rejection") == {"data": "dpo/right_rollouts", "model": "sft/model"}
    assert sources(on, "rl-control-rejection") == {"data": "rl/right_rollouts", "model": "dpo/model"}
    control = on.stage("rl-control-rejection").settled({"tokens": 900, "updates": 3, "steps": 20})
    assert (control.kind, control.settings.tokens, control.settings.steps) == ("sft", 900, 3)
    assert control.settings.optimizer.learning_rate == 1e-4
    assert on.stage("dpo-control-rejection").settings.max_length == on.stage("dpo").room.longest(
        on.stage("dpo").settings
    )
    assert on.wanted(on.stage("rl")) == ("right_rollouts",) and on.wanted(on.stage("dpo")) == (
        "model",
        "right_rollouts",
    )
    teachers = whole(tmp_path, ALL, WHOLE.replace('kind = "dpo"', 'kind = "dpo"\nsource = "teacher"'))
    assert sources(teachers, "dpo-control-rejection")["data"] == "dpo/pairs"


def test_random_rewards_change_the_verdicts_and_silence_the_tripwires_of_learning(tmp_path):
    on = whole(tmp_path, ALL)
    control, rl = on.stage("rl-control-random_reward").settled({"right": 0.125}), on.stage("rl")
    assert control.sources == rl.sources
    ours, theirs = control.settings.model_dump(), rl.settings.model_dump()
    changed = {name for name in ours if ours[name] != theirs[name]}
    assert changed == {"name", "reward", "random_verdicts", "tripwires"}
    assert (control.settings.reward, control.settings.random_verdicts) == ("plus_minus_one", 0.125)
    terrible = {"entropy": 9.0, "repetition": 1.0, "truncated": 1.0, "zero_advantage": 1.0, "response_length": 1.0}
    first = {"entropy": 0.1, "response_length": 100.0}
    beyond = beyond_limits(control.settings.tripwires, terrible | {"sampler_gap": 0.04}, first)
    assert beyond == {"sampler_gap": (0.04, True)}


# --- what cannot be


def test_true_says_where_a_control_cannot_be_and_a_name_is_refused(tmp_path):
    lone = WHOLE.partition('[[stage]]\nkind = "rollouts"')[0] + '[[stage]]\nkind = "rl"\n'
    on = whole(tmp_path, ALL, lone)
    assert [stage.name for stage in on.stages if stage.control] == ["rl-control-rejection", "rl-control-random_reward"]
    assert on.warnings() == ["note: no control midtraining: the recipe has no stage of kind sft."]
    for controls, why in {
        'midtraining = ["rl"]': r"whole\.toml:2: \[controls\] midtraining cannot question 'rl': no stage above",
        'rejection = ["questions"]': r"cannot question 'questions', which is of kind questions: name stages",
        'random_reward = ["rll"]': r"names 'rll', and there is no such stage: did you mean",
        "learning_rate = { prompts = 1 }": r"prompts",
        'prompt = ["rl"]': r"prompts are compared on held-out problems, and questions gives none \(validation\)",
    }.items():
        with pytest.raises(ValueError, match=why):
            whole(tmp_path, f"[controls]\n{controls}\n", lone)


def test_a_stage_of_the_users_cannot_have_a_controls_name_nor_read_a_control(tmp_path):
    with pytest.raises(ValueError, match=r'"-control-" is in the names of the stages that \[controls\] adds'):
        whole(tmp_path, "", WHOLE.replace('kind = "sft"', 'kind = "sft"\nname = "my-control-sft"'))
    with pytest.raises(ValueError, match="there is no stage 'sft-control-midtraining' above it"):
        whole(tmp_path, ALL, WHOLE.replace('kind = "rl"', 'kind = "rl"\nmodel = "sft-control-midtraining"'))


def test_a_control_without_the_number_it_needs_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"needs the number of right from the manifest of rl, which says 0\.0\. Leave"):
        whole(tmp_path, ALL).stage("rl-control-random_reward").settled({"right": 0.0})


# --- a run

CONTROLS = """
[controls]
prompt = true
rejection = true
random_reward = true
problems = 3
[[controls.prompts]]
before = "Compute this."
[[stage]]
kind = "report"
"""
MODELS = ("02-rl", "02-rl-control-rejection", "02-rl-control-random_reward")
CHOICE = "02-rl-control-prompt/prompt/choice.json"


def small(folder: Path, model: Path, stages: str) -> Recipe:
    """In a folder of one name, which becomes part of the problems' source, and with held-out problems."""
    (folder / "small").mkdir(exist_ok=True)
    path = recipe(folder / "small", model, stages).path
    path.write_text(path.read_text().replace("test = 0.3", "test = 0.3\nvalidation = 0.2"))
    return read_recipe(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, adder) -> Recipe:
    """RL of a small model with two controls, undisturbed."""
    of = small(tmp_path_factory.mktemp("controls"), adder, RL + CONTROLS)
    run_recipe(of)
    return of


def manifest(of: Recipe, folder: str) -> dict:
    return read_json(of.folder / folder / "manifest.json")


def test_controls_spend_what_their_stage_spent_and_draw_its_random_numbers(finished):
    rl, rejection, random_reward = (manifest(finished, name) for name in MODELS)
    assert (rejection["control_of"], rejection["control"]) == ("rl", "rejection") and "control_of" not in rl
    assert rejection["summary"]["steps"] == rl["summary"]["updates"]
    rows = list(read_rows(finished.folder / "02-rl" / "right_rollouts"))
    longest = max(len(row["prompt_ids"]) + len(row["ids"]) for row in rows)
    assert 0 <= rejection["summary"]["tokens"] - rl["summary"]["tokens"] < longest
    assert rejection["summary"]["samples"] == len(rows) == round(rl["summary"]["right"] * rl["summary"]["rollouts"])
    assert rl["seed"] == rejection["seed"] == random_reward["seed"]
    assert random_reward["settings"]["random_verdicts"] == rl["summary"]["right"]
    kept = [read_json(finished.folder / name / "prompts.json")["kept"] for name in (MODELS[0], MODELS[2])]
    assert kept[0] == kept[1], "the same prompts, chosen before anything is random"
    models = {hash_folder(finished.folder / name / "model") for name in MODELS}
    assert len(models) == 3


def test_a_control_stands_beside_its_stage_in_scores_and_terminal_and_is_not_the_runs_model(finished, capsys):
    scores = {score["stage"]: score for score in read_json(finished.folder / "scores.json")["scores"]}
    control = scores["rl-control-rejection"]
    assert control["control_of"] == "rl" and control["problems"] == 3 < scores["rl"]["problems"]
    shared = {row["problem_id"] for row in read_rows(finished.folder / "scores/rl-control-rejection/sums")}
    marks = [row for row in read_rows(finished.folder / "scores/rl/sums") if row["problem_id"] in shared]
    by_hand = sum(row["correct"] for row in marks) / 3 - control["mean"]
    assert control["stage_minus_control"]["difference"] == pytest.approx(by_hand)
    assert control["stage_minus_control"]["problems"] == 3
    assert "stage_minus_control" not in scores["rl"]
    print_results(finished)
    shown = capsys.readouterr().out
    assert "control: rejection" in shown
    said = control["stage_minus_control"]["reading"]
    assert f"on 3 problems: {said}" in shown and "rl, beside fine-tuning on the right rollouts: " in shown
    assert find_model(finished.folder) == finished.folder / "02-rl" / "model"


@pytest.mark.parametrize("killed_in_step", [3, 5], ids=["rejection", "random_reward"])
def test_a_killed_control_ends_with_the_bits_of_an_undisturbed_one(
    finished, tmp_path, adder, monkeypatch, killed_in_step
):
    """Steps of the run: two of rl, as many of the first control, then those of the second."""
    text = RL + "checkpoint_every = 1\n" + CONTROLS
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, killed_in_step)
        run_recipe(small(tmp_path, adder, text))
    of = small(tmp_path, adder, text)
    assert "half done" in [state.status for _, state in plan_recipe(of)]
    run_recipe(of)
    for name in MODELS:
        assert hash_folder(of.folder / name / "model") == hash_folder(finished.folder / name / "model")
    assert read_json(of.folder / CHOICE) == read_json(finished.folder / CHOICE)


def test_a_prompt_is_chosen_on_held_out_problems_and_the_start_is_scored_with_it(finished, adder):
    choice, folder = read_json(finished.folder / CHOICE), finished.folder / "02-rl-control-prompt"
    own, other = choice["candidates"]
    assert (own["prompt"], other["prompt"]) == ({}, {"before": "Compute this."})
    best = max((own, other), key=lambda row: row["mean"])
    assert choice["prompt"] == best["prompt"] and manifest(finished, folder.name)["summary"]["mean"] == best["mean"]
    problems = {row["id"]: row["split"] for row in read_rows(finished.folder / "01-questions" / "problems")}
    asked = {row["problem_id"] for number in (0, 1) for row in read_rows(folder / f"candidate-{number}" / "held_out")}
    assert asked and {problems[name] for name in asked} == {"validation"}
    scores = {score["stage"]: score for score in read_json(finished.folder / "scores.json")["scores"]}
    scored = scores["rl-control-prompt"]
    assert scored["control_of"] == "rl" and scored["prompt"]["before"] == best["prompt"].get("before", "")
    assert scores["base"]["prompt"]["before"] == ""
    texts = [row["text"] for row in read_rows(finished.folder / "scores/rl-control-prompt/sums")]
    base = [row["text"] for row in read_rows(finished.folder / "scores/base/sums")]
    assert (texts == base[:3]) == (best is own), "the model that RL starts from, and not RL's"


def test_candidates_are_the_recipes_own_prompt_with_changes_and_by_default_a_box_and_examples(tmp_path, world, adder):
    settings = choose_prompt.Settings(kind="choose_prompt", shots=2)
    problems = {"problems": world["problems"], "model": adder}
    own = PromptSettings(system="Be brief.")
    of = replace(stage(tmp_path / "c", settings, **problems, data=world["subset"]), prompt=own)
    first, box, shown = choose_prompt.candidates(of)
    assert first == own and box.system == shown.system == "Be brief." and "boxed" in box.after
    taught = {(row["question"], row["text"]) for row in read_rows(world["subset"])}
    assert len(shown.examples) == 2 and {(shot.question, shot.answer) for shot in shown.examples} <= taught
    listed = settings.model_copy(update={"prompts": (PromptSettings(system=""), own, PromptSettings(before="Q: "))})
    assert choose_prompt.candidates(replace(of, settings=listed)) == [
        *(own, PromptSettings(system=""), PromptSettings(system="Be brief.", before="Q: "))
    ]
    with pytest.raises(
        ValueError, match=r"chooses a prompt on held-out problems, and .* has none\. Give the questions"
    ):
        choose_prompt.run(of)


def test_a_killed_choice_of_a_prompt_goes_on_with_the_candidate_that_was_under_way(tmp_path, world, adder, monkeypatch):
    rows = [replace(problem, split="validation") for problem in read_records(Problem, world["problems"])][:4]
    write_records(tmp_path / "problems", rows)
    settings = choose_prompt.Settings(kind="choose_prompt", prompts=(PromptSettings(before="Q: "),))

    def prepared(folder: Path) -> Stage:
        of = stage(folder, settings, problems=tmp_path / "problems", model=adder)
        return replace(of, scores=ScoreSettings(samples=2, max_tokens=40))

    summary = choose_prompt.run(prepared(tmp_path / "a" / "c"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        scored = measure.score_model
        calls = iter([scored])
        patch.setattr(measure, "score_model", lambda *given: next(calls, killed)(*given))
        choose_prompt.run(prepared(tmp_path / "b" / "c"))
    first = (tmp_path / "b" / "c" / "candidate-0" / "score.json").stat().st_mtime_ns
    assert choose_prompt.run(prepared(tmp_path / "b" / "c")) == summary
    assert (tmp_path / "b" / "c" / "candidate-0" / "score.json").stat().st_mtime_ns == first, "it is not asked again"
    assert read_json(tmp_path / "b/c/prompt/choice.json") == read_json(tmp_path / "a/c/prompt/choice.json")


def killed(*_):
    raise Killed


def test_off_a_run_has_the_same_bits_and_controls_can_be_added_to_it(finished, tmp_path, adder):
    off = small(tmp_path, adder, RL)
    run_recipe(off)
    depends_on = ("settings", "shared", "inputs", "seed", "summary")
    ours, theirs = manifest(off, "02-rl"), manifest(finished, "02-rl")
    assert [ours[key] for key in depends_on] == [theirs[key] for key in depends_on]
    assert ours["outputs"].items() <= theirs["outputs"].items()
    only_random = small(tmp_path, adder, RL + "[controls]\nrandom_reward = true\n")
    assert [state.status for _, state in plan_recipe(only_random)] == ["done", "done", "to do"]
    both = small(tmp_path, adder, RL + CONTROLS)
    (state,) = [state for stage, state in plan_recipe(both) if stage.name == "rl"]
    assert state.status == "stale"
    assert state.reasons == (
        "it kept no right_rollouts, which rl-control-rejection reads (leave that control out to keep the stage)",
    )


def test_plan_tells_what_a_control_costs_before_its_stage_has_run(tmp_path, adder):
    of = small(tmp_path, adder, DPO + RL + ALL)
    rl, control = (estimate(of, of.stage(name)) for name in ("rl", "rl-control-rejection"))
    assert (control.tokens, control.steps) == (rl.tokens, rl.steps) and control.bound == rl.bound
    assert estimate(of, of.stage("rl-control-random_reward")).tokens == rl.tokens
    assert json.dumps(of.resolved(), default=str)


def test_few_problems_are_named_beside_a_difference_and_enough_are_not():
    found = {"difference": 0.1, "low": 0.01, "high": 0.2}
    words = "of 29 problems a bootstrap interval is too narrow"
    assert conclusion(found | {"problems": 29}).endswith(f"; {words}") and words in signed(**found, problems=29)
    assert all("narrow" not in said for said in (conclusion(found | {"problems": 30}), signed(**found, problems=30)))
