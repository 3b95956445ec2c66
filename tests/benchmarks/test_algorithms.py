"""The recipe that `python -m benchmarks algorithms` writes, and its table; nothing is trained here."""

from benchmarks.algorithms import NEEDS, ROLLOUTS, STABILISERS, VARIANTS, recipe, stage_name, table
from whetstone.recipe import read_recipe


def written(tmp_path, seeds=(0, 1)):
    """The recipe, as it is read; the larger teacher need not be there."""
    path = tmp_path / "algorithms.toml"
    path.write_text(recipe(seeds, "algorithms", tmp_path))
    return read_recipe(path)


def test_every_variant_of_every_seed_starts_from_the_same_model_with_as_many_rollouts(tmp_path):
    read = written(tmp_path)
    for seed in (0, 1):
        for variant, settings in VARIANTS.items():
            stage = read.stage(stage_name(variant, seed))
            assert str(stage.sources["model"]) == "sft/model" and stage.kind == settings["kind"]
            known = stage.settings
            if stage.kind == "rl":
                assert known.rollouts + known.pool.prompts * known.pool.samples == ROLLOUTS
            if stage.kind == "dpo":
                assert known.pool.prompts * known.pool.samples == ROLLOUTS
    assert read.run.name == "algorithms" and read.run.folder == tmp_path


def test_what_a_variant_needs_is_what_it_reads(tmp_path):
    read = written(tmp_path, [0])
    for variant in VARIANTS:
        above = {str(source).partition("/")[0] for source in read.stage(stage_name(variant, 0)).sources.values()}
        stages = {name for name in above if name.endswith("-0") and not variant.startswith("sft_on_right")}
        assert stages == {stage_name(name, 0) for name in NEEDS.get(variant, ()) if name in VARIANTS}


def test_a_seed_more_leaves_the_stages_before_where_they_were(tmp_path):
    one = [stage.folder_name for stage in written(tmp_path, [0]).stages]
    two = [stage.folder_name for stage in written(tmp_path, [0, 1]).stages]
    assert two[: len(one)] == one and len(two) == len(one) + len(VARIANTS)


def test_the_stabilisers_are_tried_one_by_one_and_together():
    assert list(STABILISERS) == ["none", "P", "R", "T", "PR", "PT", "RT", "PRT"]


def test_the_table_says_what_is_above_its_start_and_what_fell():
    def row(variant, difference, low, high):
        numbers = dict.fromkeys(("entropy", "norm_variance", "length_spread"), None)
        return numbers | {
            "variant": variant, "start": 0.5, "means": [0.5 + difference] * 3, "truncated": 0.0, "tokens": 90.0,
            "difference": difference, "low": low, "high": high, "updates": 32, "rollouts": 2048, "cpu_seconds": 60.0,
            "over_grpo": None, "needed_cpu_seconds": 0.0,
        }  # fmt: skip

    lines = list(
        table([row("flat", 0.0, -0.01, 0.01), row("worse", -0.1, -0.15, -0.05), row("better", 0.1, 0.05, 0.15)])
    )
    assert lines[0] == "start: 50.0 %"
    assert [words.split(" | ")[0].strip("| ") for words in lines[4:]] == ["better", "flat", "worse"]
    assert [words.split(" | ")[4] for words in lines[4:]] == ["yes", "no", "falls"]
