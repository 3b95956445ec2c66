"""Formula search: what it finds gives the answer, and what is not the only way is not taken."""

import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.arithmetic.expression import decimal_places, evaluate, numbers, render, results
from whetstone.arithmetic.search import MOST_GIVEN, only_formula


@pytest.mark.parametrize(
    ("operands", "answer", "formula"),
    [
        ([70, 27], 43, "70-27"),
        ([28, 54], 26, "54-28"),
        ([8, 2, 5], 18, "8+2*5"),
        ([3, 17, 4], 24, "3+17+4"),
        ([40, 4, 7], 17, "40/4+7"),
        ([12, 3], 4, "12/3"),
        ([17, 100, 23], 60, "100-17-23"),
        ([2, 2], 4, None),  # 2+2 or 2*2
        ([5, 3], 5, None),  # it is an operand
        ([9], 9, None),
        ([3, 5], 7, None),
        (list(range(2, 10)), 44, None),  # too many numbers
    ],
)
def test_worked_examples(operands, answer, formula):
    only = only_formula(operands, answer)
    assert (only and render(only)) == formula


def worlds(count: int) -> Iterator[tuple[list[int], int]]:
    """(operands, answer): the answer is the value of a random chain of all of them."""
    rng = random.Random(0)
    while count:
        operands = [rng.randint(1, 60) for _ in range(rng.randint(2, 4))]
        steps = results(("", *(part for _ in operands[1:] for part in ("", rng.choice("+-*/")))), operands, whole=True)
        if steps and steps[-1]:
            count -= 1
            yield operands, steps[-1]


def test_what_is_found_gives_the_answer_by_operands_each_used_once():
    formulas = 0
    for operands, answer in worlds(150):
        formula = only_formula(operands, answer)
        if formula is not None:
            formulas += 1
            assert evaluate(formula) == answer
            assert not Counter(numbers(formula)) - Counter(operands)
    assert formulas > 75, "of 150 answers that a formula gives, most have only that one"


@given(st.integers(1, 60), st.integers(1, 60), st.data())
@settings(deadline=None, max_examples=100)
def test_of_two_numbers_a_formula_is_found_if_just_one_operation_gives_the_answer(a, b, data):
    quotients = {Fraction(a, b), Fraction(b, a)}
    values = [a + b, a * b, abs(a - b), *(value for value in quotients if decimal_places(value) is not None)]
    answer = data.draw(st.sampled_from([value for value in values if value > 0]))
    formula = only_formula([a, b], answer)
    assert (formula is not None) == (values.count(answer) == 1 and answer not in (a, b))


def test_the_order_of_the_operands_does_not_matter_for_whether_there_is_one():
    rng = random.Random(1)
    for operands, answer in worlds(60):
        other = rng.sample(operands, len(operands))
        assert (only_formula(operands, answer) is None) == (only_formula(other, answer) is None)


def test_many_numbers_end_soon():
    assert only_formula([97, 89, 83, 79, 73, 71][:MOST_GIVEN], 10**9) is None
