"""The equations of a worked solution, in the order of computing, written as `48/2=24; 48+24=72`.

They say how an answer is computed even if they do not join into one formula: a result may be used twice, or a step may not
be annotated.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from whetstone.arithmetic.expression import (
    Expression,
    Number,
    Operation,
    Value,
    as_value,
    evaluate,
    numbers,
    parse,
    render,
    write_number,
)

VALUE = re.compile(r"\s*(?:\d+(?:\.\d+)?|\.\d+)\s*")


@dataclass(frozen=True, slots=True)
class Equation:
    """`left = value`, which is true."""

    left: Expression
    value: Value

    def __str__(self) -> str:
        """Raises ValueError for a number without an end as a decimal."""
        return f"{render(self.left)}={write_number(self.value)}"


def read_equations(written: str | Iterable[str]) -> tuple[Equation, ...]:
    """The equations that compute something; `10=10` does not. Raises ValueError for one that is not arithmetic or not true.

    >>> [str(equation) for equation in read_equations("10=10; 10*.5=5.00")]
    ['10*0.5=5']
    """
    parts = written.split(";") if isinstance(written, str) else written
    equations = (_read(part.strip()) for part in parts)
    return tuple(equation for equation in equations if isinstance(equation.left, Operation))


def _read(part: str) -> Equation:
    left, equals, right = part.rpartition("=")
    if not equals or not VALUE.fullmatch(right):
        raise ValueError(f"not an equation: {part!r}")
    try:
        node, value = parse(left), as_value(Fraction(right.strip()))
        true = evaluate(node) == value
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"not an equation: {part!r} ({error})") from error
    if not true:
        raise ValueError(f"an equation is not true: {part!r}")
    return Equation(node, value)


def write_equations(equations: Iterable[Equation]) -> str:
    return "; ".join(map(str, equations))


def equations_of(formula: str) -> tuple[Equation, ...]:
    """One equation per operation of a formula.

    >>> [str(equation) for equation in equations_of("(47-5*9)/2")]
    ['5*9=45', '47-45=2', '2/2=1']
    """
    equations: list[Equation] = []

    def computed(node: Expression) -> Number:
        if isinstance(node, Number):
            return node
        step = Operation(node.sign, computed(node.left), computed(node.right))
        equations.append(Equation(step, evaluate(step)))
        return Number(equations[-1].value)

    try:
        computed(parse(formula))
    except ZeroDivisionError as error:
        raise ValueError(f"the formula divides by 0: {formula}") from error
    return tuple(equations)


def unexplained(equations: Iterable[Equation], given: Iterable[Value]) -> Value | None:
    """The first number of the equations that is neither given nor the result of an earlier one; None if there is none."""
    known = set(given)
    for equation in equations:
        for number in numbers(equation.left):
            if number not in known:
                return number
        known.add(equation.value)
    return None
