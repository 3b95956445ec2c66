"""The variants of `python -m benchmarks word_problem_means`, and its table; nothing is trained here."""

import pytest

from benchmarks.word_problem_means import EVERY, RECIPE, TOKENS, VARIANTS, difference, table
from whetstone.recipe import read_recipe


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_recipe_with_as_many_tokens_and_changes_something(name):
    read, plain = read_recipe(RECIPE, [*EVERY, *VARIANTS[name]]), read_recipe(RECIPE, EVERY)
    assert read.stage("midtrain").settings.tokens == TOKENS and read.stage("midtrain").settings.patience == 0
    changed = [s.name for s, p in zip(read.stages, plain.stages, strict=True) if s.settings != p.settings]
    assert bool(changed) == (name != "all") and not set(changed) - {"questions", "rollouts", "corpus", "midtrain"}


def test_the_table_pairs_problems_of_the_seeds_that_both_have():
    def run(right, seeds=1):
        marks = [{"problem_id": str(i), "correct": float(i < right), "samples": 1} for i in range(100)]
        more = {"augmented": {"fobar": 1000}, "conversations": 1234, "midtrain": 0.3, "sft": right / 100}
        return [more | {"marks": marks} for _ in range(seeds)]

    found = {"all": run(50, seeds=2), "no_given": run(30)}
    gap, low, high = difference(found["no_given"], found["all"])
    assert gap == pytest.approx(-0.2) and low < -0.1 < high + 0.1 < 0.1
    lines = list(table(found))
    assert lines[2] == "| all | 1,000 | 1,234 | 30.0 | 50.0 |  |"
    assert lines[3].startswith("| no given | 1,000 | 1,234 | 30.0 | 30.0 | -20.0 [-")
