"""Column arithmetic: it arrives at the true result, and a slip changes one digit."""

import doctest
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.arithmetic import columns
from whetstone.arithmetic.columns import Slip, work


def test_docstring_examples_are_true():
    assert doctest.testmod(columns).failed == 0
    for line in columns.__doc__.split("\n\n")[1].splitlines():
        formula, text = line.split(None, 1)
        sign = next(sign for sign in "-*/" if sign in formula)
        assert work(sign, *map(int, formula.split(sign)))[0] == text


@given(st.sampled_from("+-*"), st.integers(0, 9999), st.integers(0, 9999))
@settings(deadline=None)
def test_columns_arrive_at_the_true_result(sign: str, a: int, b: int):
    if sign == "-" and b > a:
        a, b = b, a
    text, result = work(sign, a, b)
    assert result == eval(f"{a}{sign}{b}") and text.endswith(f" so {result}")


@given(st.integers(0, 9999), st.integers(1, 99), st.sampled_from([1, 2, 4, 5, 8, 10, 20]))
@settings(deadline=None)
def test_long_division_ends_at_the_true_decimal(quotient: int, b: int, parts: int):
    exact = Fraction(quotient, parts)
    assert work("/", exact * b, b)[1] == exact


def test_decimals_are_worked_as_whole_numbers_and_the_point_is_set_afterwards():
    assert work("*", Fraction("2.5"), Fraction("1.2")) == (
        "5*2=c0,2*2+1=5,so 50,5*1=5,2*1=2,so 250,0+0=0,5+5=c0,0+2+1=3,so 300 so 300p2 so 3",
        3,
    )


def test_a_slip_changes_one_digit():
    assert work("+", 12, 34, Slip(column=1, shift=2)) == ("2+4=6,1+3=6 so 66", 66)
    assert work("+", 12, 34, Slip(column=9, shift=2))[1] == 46


@pytest.mark.parametrize(
    ("sign", "a", "b", "reason"),
    [
        ("-", 3, 4, "3-4 is negative"),
        ("/", 3, 0, "division by zero"),
        ("/", 1, 3, "1/3 has more than 6 decimals"),
        ("+", Fraction(1, 3), 1, "more than 6 decimals"),
    ],
)
def test_what_columns_cannot_hold_is_refused_with_the_reason(sign, a, b, reason):
    with pytest.raises(ValueError, match=reason):
        work(sign, a, b)
