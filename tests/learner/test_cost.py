"""What the plan says is what happens."""

import pytest

from tests.scripted import TINY, stage
from tests.tiny_world import SUMS
from whetstone import midtrain, sft
from whetstone import model as models
from whetstone.dpo import rollout_dpo
from whetstone.learner.cost import shaped_parameters, stored_parameters, training_cost
from whetstone.rl import loop
from whetstone.run.settings import ModelSettings, ParallelSettings

TEXTS = [f"Compute {a} + {b}. word{a} words{b}" for a in range(40) for b in range(40)]


@pytest.mark.parametrize("vocabulary", [100, 265])
def test_the_parameters_of_a_shape_are_those_of_the_model_made_from_it(vocabulary, tmp_path):
    shape = ModelSettings(layers=2, hidden=64, mlp=96, heads=4, kv_heads=2, vocabulary=vocabulary, context=64)
    model, tokenizer = models.build_tiny(shape, TEXTS, seed=0)
    assert shaped_parameters(shape) == models.parameters(model)
    models.save(model, tokenizer, tmp_path)
    assert stored_parameters(tmp_path) == models.parameters(model)


def test_a_hub_name_is_not_guessed_at():
    assert training_cost("some/model", ModelSettings(path="some/model"), ParallelSettings(), 512, 2) == {}


def number(text: str) -> int:
    return int(text.split()[-1].replace(",", ""))


def test_before_anything_is_there_only_what_follows_from_the_settings_is_said(tmp_path):
    absent = {name: tmp_path / name for name in ("corpus", "data", "model", "problems", "pairs", "prompts")}
    for room, kind in ((midtrain, "midtrain"), (sft, "sft")):
        told = room.plan(stage(tmp_path / kind, room.Settings(kind=kind), **absent))
        assert list(told) == ["model", "memory", "disk"]
    limited = midtrain.Settings(kind="midtrain", tokens=10_000, batch_tokens=100)
    assert midtrain.plan(stage(tmp_path / "m", limited, **absent))["steps"] == "about 100"
    told = rollout_dpo.plan(stage(tmp_path / "d", rollout_dpo.Settings(kind="dpo", source="teacher"), **absent))
    assert "pairs" not in told and "rollouts" not in told
    told = loop.plan(stage(tmp_path / "r", loop.Settings(kind="rl", steps=7), **absent))
    assert told["steps"] == 7 and told["rollouts a step"].startswith("256, at most 512")


def test_with_data_and_tokenizer_the_tokens_are_about_those_spent(tmp_path, world):
    settings = sft.Settings(kind="sft", batch_tokens=100, epochs=2)
    room = stage(tmp_path / "s", settings, data=world["subset"], model=world["model"])
    told, done = sft.plan(room), sft.run(room)
    assert number(told["tokens"]) == pytest.approx(done["tokens"], rel=0.15)
    assert abs(number(told["steps"]) - done["steps"]) <= 3
    assert told["model"] == f"{models.parameters(models.load(world['model'])[0]):,} parameters"


def test_the_students_pairs_stay_below_the_bound(tmp_path, world, adder):
    settings = rollout_dpo.Settings(kind="dpo", samples=6, max_tokens=40, sample_problems=len(SUMS), batch_pairs=4)
    inputs = {"model": adder, "prompts": world["prompts"], "pairs": world["pairs"]}
    room = stage(tmp_path / "d", settings, **inputs)
    told, done = rollout_dpo.plan(room), rollout_dpo.run(room)
    assert 0 < done["pairs"] <= number(told["pairs"]) == 32
    assert done["steps"] <= number(told["steps"]) == 8
    taught = rollout_dpo.Settings(kind="dpo", source="teacher", batch_pairs=3)
    assert rollout_dpo.plan(stage(tmp_path / "t", taught, **inputs))["pairs"] == "8"


def test_an_unused_shape_is_what_the_model_above_will_have():
    told = training_cost("not/made/yet", TINY, ParallelSettings(), 512, 2)
    assert told["model"] == f"at most {shaped_parameters(TINY):,} parameters"
