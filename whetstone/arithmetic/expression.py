"""Arithmetic expressions: parse, evaluate exactly, replace numbers, solve for one. Parsed by hand, never by `eval`.

    expression = term {(+|-) term}      term = factor {(*|/) factor}      factor = number | ( expression )

Numbers are non-negative, whole or decimal (`.5` is `0.5`); values are exact (`int`, or `Fraction` for what is not whole).
"""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

Value: TypeAlias = int | Fraction

MAX_BRACKETS = 40  # nested; deeper text is not an arithmetic problem and would use up the stack
MAX_CHARACTERS = 2000

TOKEN = re.compile(r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<sign>[-+*/()]))")
SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "·": "*", "[": "(", "]": ")", "{": "(", "}": ")"})
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": lambda a, b: Fraction(a) / b}


@dataclass(frozen=True, slots=True)
class Number:
    value: Value


@dataclass(frozen=True, slots=True)
class Operation:
    """`left sign right`.

    >>> render(parse("12 + (345 - 67) * 8"))
    '12+(345-67)*8'
    """

    sign: str
    left: "Expression"
    right: "Expression"


Expression: TypeAlias = Number | Operation


def parse(text: str) -> Expression:
    """Raises ValueError, naming the place, for anything that is not an expression of non-negative numbers."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a formula of {len(text)} characters is longer than the {MAX_CHARACTERS} that are read")
    tokens = _tokens(text.translate(SIGNS))
    node, position = _chain(tokens, 0, 0)
    if tokens[position] != "":
        raise ValueError(f"{text!r}: {tokens[position]!r} is left over after a complete expression")
    return node


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match:
            raise ValueError(f"{text!r}: {text[position:].strip()[:1]!r} is not part of an arithmetic expression")
        tokens.append(match["number"] or match["sign"])
        position = match.end()
    return [*tokens, ""]


def _chain(tokens: list[str], position: int, depth: int, rank: int = 1) -> tuple[Expression, int]:
    """A sum (rank 1), a product (rank 2) or a factor (rank 3)."""
    if rank > PRECEDENCE["*"]:
        return _factor(tokens, position, depth)
    node, position = _chain(tokens, position, depth, rank + 1)
    while PRECEDENCE.get(tokens[position]) == rank:
        right, after = _chain(tokens, position + 1, depth, rank + 1)
        node, position = Operation(tokens[position], node, right), after
    return node, position


def _factor(tokens: list[str], position: int, depth: int) -> tuple[Expression, int]:
    token = tokens[position]
    if token == "(":
        if depth >= MAX_BRACKETS:
            raise ValueError(f"more than {MAX_BRACKETS} nested brackets")
        node, position = _chain(tokens, position + 1, depth + 1)
        if tokens[position] != ")":
            raise ValueError(f"a bracket is not closed before {tokens[position] or 'the end'!r}")
        return node, position + 1
    if not token[-1:].isdigit():
        raise ValueError(f"a number or a bracket is expected at {token or 'the end'!r}")
    return Number(as_value(Fraction(token))), position + 1


def as_value(value: Value) -> Value:
    """A whole Fraction as an int, so that whole-number arithmetic stays fast."""
    return value.numerator if value.denominator == 1 else value


def numbers(node: Expression) -> list[Value]:
    """The written numbers from left to right."""
    values: list[Value] = []
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, Number):
            values.append(top.value)
        else:
            stack += (top.right, top.left)
    return values


def replace_numbers(node: Expression, values: Sequence[Value]) -> Expression:
    """The same expression with other numbers, given from left to right."""
    rest = iter(values)

    def rebuilt(part: Expression) -> Expression:
        if isinstance(part, Number):
            return Number(next(rest))
        left = rebuilt(part.left)
        return Operation(part.sign, left, rebuilt(part.right))

    return rebuilt(node)


Program: TypeAlias = tuple[str, ...]  # postfix: "" takes the next number, a sign combines the two results before it


def program(node: Expression) -> Program:
    """The shape of an expression without its numbers, for evaluating it with many choices of them."""
    if isinstance(node, Number):
        return ("",)
    return (*program(node.left), *program(node.right), node.sign)


def results(shape: Program, values: Sequence[Value], whole: bool = False) -> list[Value] | None:
    """The result of every operation in the order of computing; the last one is the value of the expression.

    None if an operation is negative or divides by 0 (or, with `whole`, is not whole): no step of a word problem is. An
    expression that is one number gives that number.
    """
    rest = iter(values)
    stack: list[Value] = []
    steps: list[Value] = []
    for sign in shape:
        if not sign:
            stack.append(next(rest))
            continue
        b, a = stack.pop(), stack.pop()
        if (sign == "-" and a < b) or (sign == "/" and (b == 0 or (whole and a % b))):
            return None
        value = as_value(OPERATORS[sign](a, b))
        stack.append(value)
        steps.append(value)
    return steps or stack


def evaluate(node: Expression) -> Value:
    """The exact value. Raises ZeroDivisionError."""
    if isinstance(node, Number):
        return node.value
    return as_value(OPERATORS[node.sign](evaluate(node.left), evaluate(node.right)))


def decimal_places(value: Value) -> int | None:
    """How many digits after the point a value needs; None if the decimals never end.

    >>> decimal_places(Fraction(5, 4)), decimal_places(Fraction(1, 3)), decimal_places(7)
    (2, None, 0)
    """
    denominator = value.denominator
    twos = fives = 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    return max(twos, fives) if denominator == 1 else None


def write_number(value: Value, places: int = 0) -> str:
    """The value as digits, with at least `places` after the point. Raises ValueError if the decimals never end.

    >>> write_number(Fraction(5, 2)), write_number(Fraction(5, 2), places=2)
    ('2.5', '2.50')
    """
    needed = decimal_places(value)
    if needed is None:
        raise ValueError(f"{value} has no finite decimal form")
    places = max(places, needed)
    scaled = value.numerator * 10**places // value.denominator
    digits = f"{abs(scaled):0{places + 1}d}"
    sign = "-" if scaled < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def render(node: Expression) -> str:
    """Text with the brackets that the order of computing needs; `parse` gives the same expression back."""
    if isinstance(node, Number):
        return write_number(node.value)
    rank = PRECEDENCE[node.sign]
    left, right = render(node.left), render(node.right)
    if isinstance(node.left, Operation) and PRECEDENCE[node.left.sign] < rank:
        left = f"({left})"
    if isinstance(node.right, Operation) and PRECEDENCE[node.right.sign] <= rank:
        right = f"({right})"
    return f"{left}{node.sign}{right}"


def solve_for(node: Expression, index: int, result: Value) -> Expression | None:
    """The expression for the `index`-th number of `node`, given that the value of `node` is `result`.

    It undoes one operation after the other, so the steps are those of solving by hand: `(5*9)+(2*x) = 47` gives
    `(47-5*9)/2`. None if the number is not determined: it is multiplied by 0, or divides 0.

    >>> render(solve_for(parse("(5*9)+(2*1)"), 3, 47))
    '(47-5*9)/2'
    """
    known: Expression = Number(result)
    while isinstance(node, Operation):
        on_left = len(numbers(node.left))
        if index < on_left:
            other, node, sign = node.right, node.left, node.sign
            if sign == "*" and evaluate(other) == 0:
                return None
            known = Operation(INVERSE[sign], known, other)
        else:
            other, node, sign, index = node.left, node.right, node.sign, index - on_left
            if (sign == "*" and evaluate(other) == 0) or (sign == "/" and evaluate(known) == 0):
                return None
            known = Operation(INVERSE[sign], known, other) if sign in "+*" else Operation(sign, other, known)
    return known
