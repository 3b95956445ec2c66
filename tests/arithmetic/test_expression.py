import doctest
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.arithmetic import expression, number_words, search
from whetstone.arithmetic.expression import (
    MAX_BRACKETS,
    Expression,
    Number,
    Operation,
    evaluate,
    numbers,
    parse,
    program,
    render,
    replace_numbers,
    results,
    solve_for,
    write_number,
)

trees = st.recursive(
    st.integers(0, 999).map(Number),
    lambda parts: st.builds(Operation, st.sampled_from("+-*/"), parts, parts),
    max_leaves=8,
)


def test_docstring_examples_are_true():
    assert doctest.testmod(expression).failed == 0
    assert doctest.testmod(number_words).failed == 0
    assert doctest.testmod(search).failed == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7+2", 9),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("20-5-3", 12),
        ("100/5/2", 10),
        ("12-(8-3)", 7),
        ("13.30/5", Fraction("2.66")),
        ("3×4÷6−1", 1),
        ("[2+{3*4}]", 14),
        ("1/3+1/6", Fraction(1, 2)),
    ],
)
def test_value_by_hand(text: str, value: Fraction):
    assert evaluate(parse(text)) == value


@pytest.mark.parametrize(
    "text", ["", "7+", "(7+2", "7+2)", "7 2", "-7", "7+-2", "x+2", "__import__('os')", "7**2", "1e5"]
)
def test_what_is_no_arithmetic_is_refused(text: str):
    with pytest.raises(ValueError):
        parse(text)


def test_brackets_nested_without_end_are_refused_not_recursed_into():
    with pytest.raises(ValueError, match=str(MAX_BRACKETS)):
        parse("(" * 500 + "1" + ")" * 500)


@given(trees)
def test_rendered_text_parses_to_the_same_expression(tree: Expression):
    assert parse(render(tree)) == tree


@given(trees)
def test_results_agree_with_evaluate_and_refuse_negative_steps(tree: Expression):
    def smallest(node: Expression) -> Fraction:
        if isinstance(node, Number):
            return Fraction(node.value)
        return min(Fraction(evaluate(node)), smallest(node.left), smallest(node.right))

    try:
        proper = smallest(tree) >= 0
    except ZeroDivisionError:
        proper = False
    steps = results(program(tree), numbers(tree))
    assert (steps is not None) == proper
    if steps:
        assert steps[-1] == evaluate(tree)


@given(trees, st.data())
def test_solving_for_any_number_gives_that_number(tree: Expression, data: st.DataObject):
    try:
        result = evaluate(tree)
    except ZeroDivisionError:
        return
    written = numbers(tree)
    index = data.draw(st.integers(0, len(written) - 1))
    try:
        solved = solve_for(tree, index, result)
    except ZeroDivisionError:
        pytest.fail(f"{render(tree)} for its number {index}")
    if solved is None:  # not determined: some other number gives the same result
        other = replace_numbers(tree, [*written[:index], written[index] + 1, *written[index + 1 :]])
        more = replace_numbers(tree, [*written[:index], written[index] + 2, *written[index + 1 :]])
        values = []
        for changed in (other, more):
            try:
                values.append(evaluate(changed))
            except ZeroDivisionError:
                continue
        assert result in values or not values
    else:
        assert evaluate(solved) == written[index]


def test_a_number_multiplied_by_zero_is_not_determined():
    assert solve_for(parse("5*(3-3)+2"), 0, 2) is None
    assert solve_for(parse("(3-3)/5"), 2, 0) is None


@given(st.decimals(0, 10**6, places=3))
def test_numbers_are_written_exactly(number):
    value = Fraction(number)
    assert Fraction(write_number(value)) == value


def test_a_third_has_no_decimal_text():
    with pytest.raises(ValueError, match="1/3"):
        write_number(Fraction(1, 3))
