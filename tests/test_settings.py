"""Keys that moved, and nested tables that are given in part."""

from typing import ClassVar

import pytest
from pydantic import ValidationError

from whetstone.recipe import read_recipe
from whetstone.run.settings import OptimizerSettings, Settings, SpikeSettings, TrainingSettings

RECIPE = """
[[stage]]
kind = "questions"
source = [{ kind = "procedural", families = ["chain"], level = 1, train = 4 }]
[[stage]]
kind = "rollouts"
[[stage]]
kind = "corpus"
[[stage]]
kind = "sft"
"""


class Stage(TrainingSettings):
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-5, schedule="linear", warmup=0.1)
    spikes: SpikeSettings = SpikeSettings(spike="ignore")


def test_a_table_given_in_part_keeps_the_other_defaults_of_its_stage():
    settings = Stage(kind="x", optimizer={"warmup": 0.5}, spikes={"window": 32})
    assert settings.optimizer == OptimizerSettings(learning_rate=3e-5, schedule="linear", warmup=0.5)
    assert settings.spikes == SpikeSettings(spike="ignore", window=32)


def test_tables_within_tables_keep_their_defaults_too():
    class Outer(Settings):
        stage: Stage = Stage(kind="x", spikes=SpikeSettings(spike="stop", not_finite="go_back"))

    assert Outer(stage={"spikes": {"window": 32}}).stage.spikes == SpikeSettings(
        spike="stop", not_finite="go_back", window=32
    )


def test_a_plain_string_names_the_optimizer_and_keeps_the_other_defaults():
    assert Stage(kind="x", optimizer="muon").optimizer == Stage(kind="x").optimizer.model_copy(update={"name": "muon"})


def test_setting_a_key_below_a_name_keeps_the_name(tmp_path):
    recipe = tmp_path / "named.toml"
    recipe.write_text(
        '[model]\npath = "base"\n'
        + RECIPE
        + """optimizer = "muon"
[[stage]]
kind = "rl"
algorithm = "dapo"
stabilisers = ["temperature_annealing"]
"""
    )
    sets = ["sft.optimizer.learning_rate=1e-2", "rl.algorithm.clip_high=0.3", "rl.stabilisers.0.to=0.5"]
    sft, rl = (read_recipe(recipe, sets).stage(name).settings for name in ("sft", "rl"))
    assert (sft.optimizer.name, sft.optimizer.learning_rate) == ("muon", 1e-2)
    assert (rl.algorithm.name, rl.algorithm.clip_high) == ("dapo", 0.3)
    assert (rl.stabilisers[0].name, rl.stabilisers[0].to) == ("temperature_annealing", 0.5)


def test_what_is_written_to_a_manifest_reads_back_as_the_same_settings():
    settings = Stage(kind="x", optimizer={"warmup": 0.5})
    assert Stage.model_validate(settings.model_dump(mode="json")) == settings


def test_all_moved_keys_of_a_table_are_named_with_their_new_places():
    class Moved(Settings):
        MOVED: ClassVar[dict[str, str]] = {"old": "new.place", "older": "gone: leave it out"}

    with pytest.raises(ValidationError) as error:
        Moved.model_validate({"old": 1, "older": 2})
    messages = {entry["loc"]: entry["msg"] for entry in error.value.errors()}
    assert messages == {("old",): "this key is now new.place", ("older",): "this key is now gone: leave it out"}


def test_a_recipe_with_a_key_of_an_earlier_version_is_refused_with_the_line_and_the_new_key(tmp_path):
    recipe = tmp_path / "old.toml"
    recipe.write_text(RECIPE + "epochs = 2\nlearning_rate = 1e-4\n")
    with pytest.raises(
        ValueError, match=r"old.toml:12: .*sft.* learning_rate = 0.0001: this key is now optimizer.learning_rate\."
    ):
        read_recipe(recipe)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("optimizer = { learning_rat = 1.0 }", r"'optimizer.learning_rat': did you mean 'learning_rate'\?"),
        ("optimizer = { learning_rate = -1.0 }", r"optimizer.learning_rate = -1.0: .*The default is 0.001"),
        ("optimizer = { warmup = 2.0 }", r"optimizer.warmup = 2.0: .*The default is 0.05"),
        ('optimizer = "sgd"', r"optimizer = 'sgd': .*'adamw' or 'muon'"),
    ],
)
def test_a_mistake_in_a_nested_table_is_named_with_the_default_of_its_stage(tmp_path, written, message):
    recipe = tmp_path / "bad.toml"
    recipe.write_text(RECIPE + written + "\n")
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe)
