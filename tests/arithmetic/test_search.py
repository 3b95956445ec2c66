"""Formula search: what it finds gives the answer, and what is not the only way is not taken."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.arithmetic.expression import evaluate, numbers, render
from whetstone.arithmetic.search import MOST_TOLD, only_formula


@pytest.mark.parametrize(
    ("told", "answer", "formula"),
    [
        ([70, 27], 43, "70-27"),
        ([28, 54], 26, "54-28"),
        ([8, 2, 5], 18, "8+2*5"),
        ([3, 17, 4], 24, "3+17+4"),
        ([40, 4, 7], 17, "40/4+7"),
        ([12, 3], 4, "12/3"),
        ([17, 100, 23], 60, "100-17-23"),
        ([2, 2], 4, None),  # 2+2 or 2*2
        ([5, 3], 5, None),  # it is told
        ([9], 9, None),
        ([3, 5], 7, None),
        (list(range(2, 10)), 44, None),  # too many numbers
    ],
)
def test_worked_examples(told, answer, formula):
    found = only_formula(told, answer)
    assert (found and render(found)) == formula


@given(st.lists(st.integers(1, 60), min_size=2, max_size=4), st.integers(1, 400))
@settings(deadline=None, max_examples=150)
def test_what_is_found_gives_the_answer_by_told_numbers_each_used_once(told, answer):
    found = only_formula(told, answer)
    if found is not None:
        assert evaluate(found) == answer
        left = list(told)
        for number in numbers(found):
            left.remove(number)  # ValueError where it is not told, or not so often


@given(st.lists(st.integers(1, 60), min_size=2, max_size=4), st.integers(1, 400), st.randoms())
@settings(deadline=None, max_examples=60)
def test_the_order_in_which_numbers_are_told_does_not_matter_for_whether_there_is_one(told, answer, rng):
    other = list(told)
    rng.shuffle(other)
    assert (only_formula(told, answer) is None) == (only_formula(other, answer) is None)


def test_many_numbers_end_soon():
    assert only_formula([97, 89, 83, 79, 73, 71][:MOST_TOLD], 10**9) is None
