"""What an answer can be: the values that the parser gives and `compare.py` compares."""

from fractions import Fraction
from typing import NamedTuple

from whetstone.verify.answers.terms import Term
from whetstone.verify.answers.units import Unit
from whetstone.verify.exact import Scalar


class Expression(NamedTuple):
    """A number, quantity or formula.

    >>> # 5 cm: Expression(("n", Fraction(5)), Scalar(…), "5", Unit(Fraction(1, 100), {"m": 1}))
    """

    term: Term
    value: Scalar
    text: str
    unit: Unit | None = None
    based: tuple[str, int] | None = None  # digits and base of 204_5

    @property
    def number(self) -> Fraction | None:
        return self.term[1] if self.term[0] == "n" else None


class Statement(NamedTuple):
    """Words, and the values between them: "Monday", "increasing on (0, 1)", "n is odd"."""

    parts: tuple["str | Value", ...]


class Bracket(NamedTuple):
    """Ordered: a tuple, an interval, or a list in brackets, told apart by their ends."""

    opening: str
    items: tuple["Value", ...]
    closing: str


class Ratio(NamedTuple):
    items: tuple["Value", ...]


class Items(NamedTuple):
    """Unordered: a set in braces, or several answers with commas, "and" or "or" between them."""

    items: tuple["Value", ...]
    braces: bool
    joint: str = ","  # "," | "and" | "or"


class Combined(NamedTuple):
    """Sets joined by one operation: A u B, A n B, or A without B."""

    operation: str  # the LaTeX command
    items: tuple["Value", ...]


class Builder(NamedTuple):
    """`{element | condition}`."""

    element: "Value"
    condition: "Value"


class Chain(NamedTuple):
    """`a = b`, `a < x \\le b`, `x \\in S`, `n \\equiv 1 \\pmod 3`: items with relations between them."""

    items: tuple["Value", ...]
    relations: tuple[str, ...]
    label: bool = False  # the left end only names what the rest is: x, f(2), (p, q), AB
    modulus: Expression | None = None


class Matrix(NamedTuple):
    rows: tuple[tuple[Expression, ...], ...]


Value = Expression | Statement | Bracket | Ratio | Items | Combined | Builder | Chain | Matrix
