"""The distillation room: the student comes nearer to its teacher, on its own text or a corpus's, and resumes to the bit."""

import shutil
from dataclasses import replace

import pytest
import torch

from tests.scripted import Killed, kill_after, problem, rollout, stage
from tests.tiny_world import logged, teach
from whetstone.batch import Row, collate
from whetstone.distill import majority
from whetstone.distill import train as distill
from whetstone.model import build_tiny, load, parameters, save
from whetstone.pipeline.staleness import differences, fingerprint
from whetstone.recipe import read_recipe
from whetstone.records import Verdict
from whetstone.run.folder import hash_folder
from whetstone.run.settings import ModelSettings


@pytest.fixture(scope="module")
def pupil(world, tmp_path_factory):
    """The adder's own younger self: the same start, fewer epochs."""
    return teach(tmp_path_factory.mktemp("pupil") / "m", world, epochs=4)


def room(folder, world, student, teacher, **settings):
    known = {"steps": 4, "prompts_per_step": 4, "samples": 2, "max_tokens": 40, "checkpoint_every": 2}
    known |= {"optimizer": {"learning_rate": 2e-3, "warmup": 0}, "teacher_model": str(teacher)} | settings
    inputs = {"model": student, "prompts": world["prompts"], "data": world["corpus"]}
    return stage(folder, distill.Settings(kind="distill", **known), **inputs)


@pytest.mark.parametrize("kind", ["reverse", "forward", "jensen_shannon"])
def test_the_student_comes_nearer_to_its_teacher(tmp_path, world, adder, pupil, kind):
    summary = distill.run(room(tmp_path / "d", world, pupil, adder, divergence=kind, steps=6))
    losses = logged(tmp_path / "d", "loss")
    assert summary["divergence_at_last"] == losses[-1] < losses[0] and min(losses) > 0
    assert max(logged(tmp_path / "d", "sampler_gap")) < 1e-4
    assert hash_folder(tmp_path / "d" / "model") != hash_folder(pupil)


def test_a_model_is_at_no_distance_from_itself(tmp_path, world, adder):
    with pytest.raises(ValueError, match="has trained nothing"):
        distill.run(room(tmp_path / "d", world, adder, adder, steps=1))
    assert logged(tmp_path / "d", "loss")[0] == pytest.approx(0.0, abs=1e-6)


def test_after_a_kill_the_model_is_that_of_an_undisturbed_run_to_the_bit(tmp_path, world, adder, pupil, monkeypatch):
    settings = {"on_policy": 0.5, "steps": 6}
    summary = distill.run(room(tmp_path / "one", world, pupil, adder, **settings))
    assert len(logged(tmp_path / "one", "accuracy")) == 3, "the other steps are on the corpus"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        distill.run(room(tmp_path / "two" / "one", world, pupil, adder, **settings))
    assert distill.run(room(tmp_path / "two" / "one", world, pupil, adder, **settings)) == summary
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")


def test_a_stage_is_stale_if_its_teacher_has_other_weights(tmp_path, adder, pupil):
    teacher, path = tmp_path / "teacher", tmp_path / "r.toml"
    path.write_text(
        '[[stage]]\nkind = "questions"\n[[stage.source]]\nkind = "procedural"\ntrain = 4\n'
        f'[[stage]]\nkind = "corpus"\n[[stage]]\nkind = "midtrain"\n[[stage]]\nkind = "distill"\nteacher_model = "{teacher}"\n'
    )
    recipe = read_recipe(path)
    shutil.copytree(pupil, teacher)
    then = fingerprint(recipe, recipe.stage("distill"))
    assert differences(then, fingerprint(recipe, recipe.stage("distill")), recipe.stage("distill").settings) == []
    shutil.copytree(adder, teacher, dirs_exist_ok=True)
    (changed,) = differences(then, fingerprint(recipe, recipe.stage("distill")), recipe.stage("distill").settings)
    assert "teacher) has other content" in changed


def test_a_teacher_with_another_vocabulary_is_refused_with_what_to_do(tmp_path, world, adder):
    other = ModelSettings(layers=1, hidden=32, mlp=32, heads=1, kv_heads=1, vocabulary=280, context=256)
    save(*build_tiny(other, ["quite another text"], seed=0), tmp_path / "other")
    with pytest.raises(ValueError, match=r"another vocabulary than the student .* then sft"):
        distill.run(room(tmp_path / "d", world, adder, tmp_path / "other"))


def test_a_stage_without_a_teacher_says_how_to_name_one(tmp_path, world, adder):
    with pytest.raises(ValueError, match=r'has no teacher: set teacher_model = "FOLDER", teacher = "STAGE"'):
        distill.run(room(tmp_path / "d", world, adder, ""))
    with pytest.raises(FileNotFoundError):
        distill.check(distill.Settings(kind="distill", teacher_model="nowhere/at/all"))


def test_draws_walk_over_all_prompts_and_depend_on_seed_and_step_alone():
    items = list(range(10))
    seen = [item for step in range(5) for item in distill.drawn(items, 4, seed=3, step=step)]
    assert sorted(seen) == sorted(items * 2)
    assert distill.drawn(items, 4, 3, 1) == distill.drawn(items, 4, 3, 1) != distill.drawn(items, 4, 4, 1)


def test_the_teacher_is_neither_trained_nor_saved(tmp_path, world, adder, pupil):
    before = hash_folder(adder)
    distill.run(room(tmp_path / "d", world, pupil, adder, steps=1))
    assert hash_folder(adder) == before
    names = {name for name, _ in load(tmp_path / "d" / "model")[0].named_parameters()}
    assert names == {name for name, _ in load(adder)[0].named_parameters()}


class Votes:
    """A verifier for which equal texts in a box are the same answer."""

    def check_many(self, items):
        return [Verdict(text == f"\\boxed{{{gold}}}", "", text) for text, gold, _ in items]


def test_only_rollouts_of_a_majority_that_agrees_enough_are_learnt():
    """Of six: three say 3, one says 4, one is cut off, one has no answer. The agreement is 3/6: what is cut off counts."""
    texts = ["3", "4", "3", None, "3", "3"]
    group = [
        replace(
            rollout("a", i, text == "4", stop="length" if i == 4 else "end"),
            text=f"so \\boxed{{{text}}}" if text else "no idea",
        )
        for i, text in enumerate(texts)
    ]
    found = majority.elect([problem("a")], [group], Votes(), agreement=0.5)
    assert [r.index for r in found.rollouts] == [0, 2, 5]
    assert found.metrics == {"agreement": 0.5, "elected": 1.0, "majority_right": 0.0}
    assert majority.elect([problem("a")], [group], Votes(), agreement=0.6).rollouts == []
    alone = majority.elect([problem("a")], [group[1:2]], Votes(), agreement=0.1)
    assert alone.rollouts == [] and "majority_right" not in alone.metrics


def test_the_majoritys_loss_is_the_cross_entropy_of_its_rollouts():
    rows = [Row([1, 2, 3], 1, 0.25, {"sampler": [-1.0, -2.0]}), Row([1, 4, 5], 1, 0.25, {"sampler": [-1.0, -1.0]})]
    logprobs = torch.tensor([-1.0, -2.5, -0.5, -1.0], requires_grad=True)
    loss, sums = majority.loss(logprobs, torch.ones(4), collate(rows))
    assert loss.item() == pytest.approx(5.0 / 4) and sums["sampler_gap"] == pytest.approx(1.0 / 4)
    loss.backward()
    assert logprobs.grad.tolist() == [-0.25] * 4


def test_the_student_learns_what_most_of_its_answers_say(tmp_path, world, adder):
    settings = {
        "target": "majority",
        "samples": 8,
        "prompts_per_step": 8,
        "agreement": 0.4,
        "steps": 3,
        "temperature": 0.8,
    }
    known = {"optimizer": {"learning_rate": 2e-3, "warmup": 0}, "max_tokens": 40, "checkpoint_every": 2} | settings
    made = stage(tmp_path / "d", distill.Settings(kind="distill", **known), model=adder, prompts=world["prompts"])
    summary = distill.run(made)
    agreement = logged(tmp_path / "d", "agreement")
    assert len(agreement) == 3 and agreement[-1] > agreement[0]
    assert summary["loss_at_last"] > 0 and max(logged(tmp_path / "d", "sampler_gap")) < 1e-4


def test_a_student_that_never_agrees_with_itself_is_told_what_to_change(tmp_path, world):
    known = {"target": "majority", "samples": 3, "prompts_per_step": 2, "steps": 2, "max_tokens": 8}
    made = stage(
        tmp_path / "d", distill.Settings(kind="distill", **known), model=world["model"], prompts=world["prompts"]
    )
    with pytest.raises(ValueError, match=r"no prompt had an answer that 50% of its 3 rollouts gave. Lower agreement"):
        distill.run(made)
    with pytest.raises(ValueError, match="at least 3 rollouts"):
        distill.Settings(kind="distill", target="majority", samples=2)


def test_a_plan_counts_the_teacher_of_this_process(tmp_path, world, pupil):
    """4 bytes a weight; a forward pass is a third of a training pass of as many weights."""
    larger = ModelSettings(layers=2, hidden=96, mlp=96, heads=2, kv_heads=1, vocabulary=280, context=256)
    model, tokenizer = build_tiny(larger, ["a larger one"], seed=0)
    save(model, tokenizer, tmp_path / "teacher")
    taught = distill.plan(room(tmp_path / "d", world, pupil, tmp_path / "teacher", samples=3))
    alone = distill.plan(room(tmp_path / "d", world, pupil, "", target="majority", samples=3))
    assert taught.memory - alone.memory == 4 * parameters(model)
    assert f"teacher {4 * parameters(model) / 1e6:.1f} MB" in taught.lines["memory"]
    assert "teacher" not in alone.lines["memory"]
