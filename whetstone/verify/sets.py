r"""Sets of real numbers: intervals, inequalities in one unknown, set builder and their combinations are one thing.

    x < -2 or x > 7       (-oo, -2) u (7, oo)
    x \ne 2               (-oo, 2) u (2, oo)
    \{x | 1 < x \le 3\}   (1, 3]
    |x - 1| < 2           (-1, 3)

Ends must be constants, so that they have an order. What is no such set is None: it is compared in another way.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from whetstone.verify.answers.forms import Bracket, Builder, Chain, Combined, Expression, Items, Statement, Value
from whetstone.verify.answers.terms import Term, names, number, walk
from whetstone.verify.exact import ONE, Scalar, TooLarge, as_rational

MOST_PIECES = 40
LOW: Term = ("-", ("s", "oo"))
HIGH: Term = ("s", "oo")
LINE = frozenset(("\\mathbb{R}", "\\mathcal{R}"))
DOMAINS = {"\\mathbb{Z}": "Z", "\\mathbb{N}": "N", "\\mathbb{Q}": "Q", "\\mathbb{C}": "C"}
ALL_TEXT = ("all real numbers", "all reals", "all real x", "real numbers", "the set of all real numbers", "reals")
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class NoSet(Exception):
    """Not a set of real numbers, or one whose ends have no known order."""


class Piece(NamedTuple):
    """An interval; a point is closed at both of its equal ends."""

    low: Term
    low_closed: bool
    high: Term
    high_closed: bool


class RealSet(NamedTuple):
    pieces: tuple[Piece, ...]  # apart from each other, in order
    variable: str | None = None  # the unknown that lies in it, if it was named
    domain: str = "R"


WHOLE = (Piece(LOW, False, HIGH, False),)


def same_set(gold: RealSet, given: RealSet) -> bool:
    """Raises NoSet where an end's place is not decided."""
    if gold.domain != given.domain or (None not in (gold.variable, given.variable) and gold.variable != given.variable):
        return False
    return len(gold.pieces) == len(given.pieces) and all(
        a.low_closed == b.low_closed
        and a.high_closed == b.high_closed
        and order(a.low, b.low) == 0
        and order(a.high, b.high) == 0
        for a, b in zip(gold.pieces, given.pieces, strict=True)
    )


def real_set(value: Value) -> RealSet | None:
    """The set that a value says; None where it says no set of real numbers."""
    try:
        return _made(value)
    except (NoSet, TooLarge):
        return None


def says_relation(value: Value) -> bool:
    """Is it an inequality, a set builder, or a combination of them, so that it is certainly a set?"""
    if isinstance(value, Items) and not value.braces:
        return any(says_relation(item) for item in value.items)
    if isinstance(value, Combined | Builder):
        return True
    if isinstance(value, Expression):
        return value.text in LINE
    if isinstance(value, Statement):
        return " ".join(part.casefold() for part in value.parts if isinstance(part, str)) in ALL_TEXT
    if isinstance(value, Chain) and "in" in value.relations:
        return isinstance(value.items[-1], Bracket | Combined | Builder) or says_relation(value.items[-1])
    return isinstance(value, Chain) and bool({"<", ">", "<=", ">=", "!="} & {*value.relations})


# ends


def order(a: Term, b: Term) -> int:
    """-1, 0 or 1: the first end is below, at or above the other."""
    if a == b:
        return 0
    for side, sign in ((a, 1), (b, -1)):
        if side in (LOW, HIGH):
            return sign if side == HIGH else -sign
    if a[0] == "n" and b[0] == "n":
        return 1 if a[1] > b[1] else -1
    from whetstone.verify import numeric

    difference = ("+", a, ("-", b))
    try:
        if numeric.is_zero(difference, {}):
            return 0
        with numeric.precision(60):
            value = numeric.Evaluation({}).of(difference)
            near = abs(value) < 1e-30
    except (numeric.NoValue, TooLarge) as problem:
        raise NoSet from problem
    if near or value.imag:
        raise NoSet
    return 1 if value > 0 else -1


def constant_end(value: Value) -> Term:
    if not isinstance(value, Expression) or names(value.term):
        raise NoSet
    from whetstone.verify import numeric

    if any(part == HIGH for part in walk(value.term)) and value.term not in (LOW, HIGH):
        raise NoSet
    if any(
        part == ("s", "~i") or part[0] == "m" or (part[0] == "f" and part[1] not in numeric.FUNCTIONS)
        for part in walk(value.term)
    ):
        raise NoSet
    return value.term


# operations


def union(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    if len(pieces) > MOST_PIECES:
        raise NoSet
    rest = sorted((piece for piece in pieces if not empty(piece)), key=_By)
    found: list[Piece] = []
    for piece in rest:
        if not found:
            found.append(piece)
            continue
        last = found[-1]
        gap = order(piece.low, last.high)
        if gap > 0 or (gap == 0 and not (piece.low_closed or last.high_closed)):
            found.append(piece)
            continue
        end = order(piece.high, last.high)
        high_closed = piece.high_closed if end > 0 else last.high_closed or (end == 0 and piece.high_closed)
        found[-1] = Piece(last.low, last.low_closed, piece.high if end > 0 else last.high, high_closed)
    return tuple(found)


class _By:
    """Sorts pieces by their low ends; a closed one comes first."""

    def __init__(self, piece: Piece):
        self.piece = piece

    def __lt__(self, other: "_By") -> bool:
        place = order(self.piece.low, other.piece.low)
        return place < 0 or (place == 0 and self.piece.low_closed and not other.piece.low_closed)


def empty(piece: Piece) -> bool:
    place = order(piece.low, piece.high)
    return place > 0 or (place == 0 and not (piece.low_closed and piece.high_closed))


def meet(a: Sequence[Piece], b: Sequence[Piece]) -> tuple[Piece, ...]:
    return union([_common(x, y) for x in a for y in b])


def _common(x: Piece, y: Piece) -> Piece:
    low, high = order(x.low, y.low), order(x.high, y.high)
    low_closed = (x.low_closed or low < 0) and (y.low_closed or low > 0)
    high_closed = (x.high_closed or high > 0) and (y.high_closed or high < 0)
    return Piece(x.low if low >= 0 else y.low, low_closed, x.high if high <= 0 else y.high, high_closed)


def complement(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    found, low, closed = [], LOW, False
    for piece in pieces:
        found.append(Piece(low, closed, piece.low, not piece.low_closed))
        low, closed = piece.high, not piece.high_closed
    found.append(Piece(low, closed and low != HIGH, HIGH, False))
    return tuple(piece for piece in found if (piece.low != piece.high and not empty(piece)) or _point(piece))


def _point(piece: Piece) -> bool:
    return piece.low == piece.high and piece.low_closed and piece.high_closed and piece.low not in (LOW, HIGH)


# from values


def _made(value: Value) -> RealSet:
    maker = _MAKERS.get(type(value))
    if maker is None:
        raise NoSet
    return maker(value)


def _from_bracket(value: Bracket) -> RealSet:
    if len(value.items) != 2 or value.opening not in "([" or value.closing not in ")]":
        raise NoSet
    low, high = map(constant_end, value.items)
    if order(low, high) > 0:
        raise NoSet
    piece = Piece(low, value.opening == "[", high, value.closing == "]")
    return RealSet(union([piece]))


def _from_expression(value: Expression) -> RealSet:
    if value.text in LINE:
        return RealSet(WHOLE)
    if value.text in DOMAINS:
        return RealSet(WHOLE, domain=DOMAINS[value.text])
    raise NoSet


def _from_statement(value: Statement) -> RealSet:
    if not all(isinstance(part, str) for part in value.parts):
        raise NoSet
    if " ".join(part.casefold() for part in value.parts) not in ALL_TEXT:
        raise NoSet
    return RealSet(WHOLE)


def _from_combined(value: Combined) -> RealSet:
    sets = [_points(item) if isinstance(item, Items) else _made(item) for item in value.items]
    return _joined(sets, {"\\cup": "or", "\\cap": "and", "\\setminus": "without"}[value.operation])


def _points(value: Items) -> RealSet:
    ends = [constant_end(item) for item in value.items]
    return RealSet(union([Piece(end, True, end, True) for end in ends]))


def _from_items(value: Items) -> RealSet:
    if value.braces:
        return _points(value)
    first, *rest = value.items
    if isinstance(first, Chain) and first.relations == ("!=",) and all(isinstance(item, Expression) for item in rest):
        sets = [_made(first), *(_made(Chain((first.items[0], item), ("!=",))) for item in rest)]
        return _joined(sets, "and")
    if not all(says_relation(item) or is_point(item) for item in value.items):
        raise NoSet
    sets = [_made(item) for item in value.items]
    if value.joint != ",":
        return _joined(sets, value.joint)
    both = _joined(sets, "and")
    return both if both.pieces else _joined(sets, "or")


def is_point(value: Value) -> bool:
    """`x = 3`."""
    return (
        isinstance(value, Chain)
        and value.relations == ("=",)
        and isinstance(value.items[0], Expression)
        and value.items[0].term[0] == "s"
    )


def _joined(sets: list[RealSet], how: str) -> RealSet:
    variables = {each.variable for each in sets} - {None}
    domains = {each.domain for each in sets} - {"R"}
    if len(variables) > 1 or len(domains) > 1:
        raise NoSet
    pieces = sets[0].pieces
    for each in sets[1:]:
        if how == "or":
            pieces = union([*pieces, *each.pieces])
        else:
            pieces = meet(pieces, each.pieces if how == "and" else complement(each.pieces))
    return RealSet(pieces, next(iter(variables), None), next(iter(domains), "R"))


def _from_builder(value: Builder) -> RealSet:
    condition = value.condition
    found = (
        _made(condition)
        if not isinstance(condition, Items)
        else _joined([_made(c) for c in condition.items], condition.joint.replace(",", "and"))
    )
    if isinstance(value.element, Chain):
        return _joined([_made(value.element), found], "and")._replace(variable=None)
    if not isinstance(value.element, Expression) or value.element.term != ("s", found.variable):
        raise NoSet
    return found._replace(variable=None)


def _from_chain(value: Chain) -> RealSet:
    if value.relations in (("in",), ("not in",)) and isinstance(value.items[0], Expression):
        term = value.items[0].term
        if term[0] != "s":
            raise NoSet
        inside = _points(value.items[1]) if isinstance(value.items[1], Items) else _made(value.items[1])
        if value.relations == ("not in",):
            inside = RealSet(complement(inside.pieces))
        return inside._replace(variable=term[1])
    if is_point(value):
        return _points(Items(value.items[1:], True))._replace(variable=value.items[0].term[1])
    if value.relations and {*value.relations} <= {"<", ">", "<=", ">=", "!="}:
        links = zip(value.items, value.relations, value.items[1:], strict=False)
        return _joined([_from_relation(*link) for link in links], "and")
    raise NoSet


def _from_relation(left: Value, relation: str, right: Value) -> RealSet:
    """One inequality, linear in one unknown or in its absolute value."""
    if not isinstance(left, Expression) or not isinstance(right, Expression):
        raise NoSet
    if left.unit != right.unit and left.unit and right.unit:
        raise NoSet
    free = names(left.term) | names(right.term)
    if len(free) != 1:
        raise NoSet
    (name,) = free
    for one, other, sign in ((left, right, relation), (right, left, FLIPPED[relation])):
        if one.term == ("s", name):
            return RealSet(_ray(sign, constant_end(other)), name)
        if one.term[:2] == ("f", "abs") and names(one.term) and not names(other.term):
            return RealSet(_around(one.term[2], name, sign, other), name)
    slope, offset = _linear(left, right, name)
    end = number(-offset / slope)
    return RealSet(_ray(relation if slope > 0 else FLIPPED[relation], end), name)


def _linear(left: Expression, right: Expression, name: str) -> tuple[Fraction, Fraction]:
    """a and b of left - right = a x + b."""
    from whetstone.verify.elementary import Elementary

    return _coefficients(Elementary().subtract(left.value, right.value), name)


def _coefficients(difference: Scalar, name: str) -> tuple[Fraction, Fraction]:
    if difference.den is not ONE or not difference.num.keys() <= {(), ((name, 1),)}:
        raise NoSet
    slope = difference.num.get(((name, 1),), Fraction(0))
    if not slope:
        raise NoSet
    return slope, difference.num.get((), Fraction(0))


def _ray(relation: str, end: Term) -> tuple[Piece, ...]:
    if relation == "!=":
        return complement([Piece(end, True, end, True)])
    closed = relation in ("<=", ">=")
    if end in (LOW, HIGH):
        closed = False
    if relation[0] == "<":
        return union([Piece(LOW, False, end, closed)])
    return union([Piece(end, closed, HIGH, False)])


def _around(inside: Term, name: str, relation: str, radius: Expression) -> tuple[Piece, ...]:
    """|a x + b| < r as an interval, |a x + b| > r as what is outside one."""
    from whetstone.verify.answers.terms import value_of

    slope, offset = _coefficients(value_of(inside), name)
    size = as_rational(radius.value)
    if size is None:
        if (slope, offset) != (1, 0) or order(constant_end(radius), number(0)) <= 0:
            raise NoSet
        low, high = ("-", radius.term), radius.term
    else:
        if size <= 0:
            raise NoSet
        ends = sorted(((-size - offset) / slope, (size - offset) / slope))
        low, high = map(number, ends)
    closed = relation in ("<=", ">=")
    if relation[0] == "<":
        return (Piece(low, closed, high, closed),)
    if relation == "!=":
        return complement([Piece(low, True, low, True), Piece(high, True, high, True)])
    return (Piece(LOW, False, low, closed), Piece(high, closed, HIGH, False))


_MAKERS: dict[type, Callable[..., RealSet]] = {
    Bracket: _from_bracket,
    Expression: _from_expression,
    Statement: _from_statement,
    Combined: _from_combined,
    Items: _from_items,
    Builder: _from_builder,
    Chain: _from_chain,
}
