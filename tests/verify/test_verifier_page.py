"""docs/verifier.md: its example runs as it says."""

import doctest
from pathlib import Path

import pytest

from whetstone.verify import MathVerifier

PAGE = Path(__file__).parents[2] / "docs" / "verifier.md"


def test_the_example_of_check_many_gives_what_the_page_says():
    text = PAGE.read_text(encoding="utf-8").partition("## What counts as an answer")[0]
    example = doctest.DocTestParser().get_doctest(text, {}, "verifier.md", None, 0)
    assert example.examples and doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example).failed == 0


@pytest.mark.parametrize(
    ("item", "error"), [(("5", "5", "maths"), ValueError), ((None, "5", "math"), TypeError), (("5", "5"), TypeError)]
)
def test_an_item_that_is_no_text_gold_and_known_policy_is_an_error(item, error):
    with MathVerifier() as verifier, pytest.raises(error):
        list(verifier.check_many([item]))


def test_items_are_read_as_verdicts_are_taken_and_numbers_are_allowed():
    taken = []

    def rows():
        for number in range(10_000):
            taken.append(number)
            yield number, float(number), "math"

    with MathVerifier() as verifier:
        verdicts = verifier.check_many(rows())
        assert all(next(verdicts).correct for _ in range(3))
    assert len(taken) < 1_000
