"""The formula of a word problem of which only the text and the answer are known: the one way to make it of its numbers.

Every expression of some of its numbers is tried, each number used once. Where several different ones give the answer, nobody
can tell which is meant, and none is taken. What differs in the order of terms or factors alone is one expression:
sums and products are kept as the terms added and taken away, the factors above and below the line.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import reduce
from itertools import combinations
from typing import NamedTuple

from whetstone.arithmetic.expression import Expression, Number, Operation, Value, as_value, decimal_places

MOST_TOLD = 6  # numbers of a text; with more, chance alone makes the answer
MOST_NUMBERS = 4  # of an expression


class _Term(NamedTuple):
    """A number (`sign` is ""), or what is added (multiplied), and what is taken away (divides)."""

    value: Value
    sign: str
    above: tuple["_Term", ...]
    below: tuple["_Term", ...]


def only_formula(told: Sequence[Value], answer: Value) -> Expression | None:
    """The only expression of told numbers whose value is the answer and whose every step is positive; else None.

    >>> from whetstone.arithmetic.expression import render
    >>> render(only_formula([70, 27], 43)), only_formula([2, 2], 4)
    ('70-27', None)
    """
    if not 2 <= len(told) <= MOST_TOLD or answer in told:
        return None
    made: dict[tuple[int, ...], set[_Term]] = {(i,): {_Term(v, "", (), ())} for i, v in enumerate(told) if v > 0}
    for count in range(2, min(len(told), MOST_NUMBERS) + 1):
        for chosen in combinations(range(len(told)), count):
            pairs = ((x, y) for a, b in _halves(chosen) for x in made.get(a, ()) for y in made.get(b, ()))
            made[chosen] = {new for x, y in pairs for new in _joined(x, y)}
    found = {term for terms in made.values() for term in terms if term.value == answer}
    return _written(found.pop(), list(told)) if len(found) == 1 else None


def _halves(chosen: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to part the numbers in two, in both orders."""
    for count in range(1, len(chosen)):
        for left in combinations(chosen, count):
            yield left, tuple(i for i in chosen if i not in left)


def _joined(x: _Term, y: _Term) -> Iterator[_Term]:
    yield _term("+", x.value + y.value, x, y, undone=False)
    yield _term("*", x.value * y.value, x, y, undone=False)
    if x.value > y.value:
        yield _term("+", x.value - y.value, x, y, undone=True)
    quotient = as_value(Fraction(x.value) / y.value)
    if decimal_places(quotient) is not None:
        yield _term("*", quotient, x, y, undone=True)


def _term(sign: str, value: Value, x: _Term, y: _Term, undone: bool) -> _Term:
    above, below = _parts(x, sign)
    more, less = _parts(y, sign)
    if undone:
        more, less = less, more
    return _Term(value, sign, tuple(sorted(above + more)), tuple(sorted(below + less)))


def _parts(term: _Term, sign: str) -> tuple[tuple[_Term, ...], tuple[_Term, ...]]:
    return (term.above, term.below) if term.sign == sign else ((term,), ())


def _written(term: _Term, told: list[Value]) -> Expression:
    """As an expression, the parts in the order in which their first numbers are told."""
    if not term.sign:
        return Number(term.value)
    forth, back = ("+", "-") if term.sign == "+" else ("*", "/")
    above = [_written(part, told) for part in sorted(term.above, key=lambda part: told.index(_first(part, told)))]
    below = [_written(part, told) for part in sorted(term.below, key=lambda part: told.index(_first(part, told)))]
    whole = reduce(lambda left, right: Operation(forth, left, right), above)
    return reduce(lambda left, right: Operation(back, left, right), below, whole)


def _first(term: _Term, told: Sequence[Value]) -> Value:
    if not term.sign:
        return term.value
    return min((_first(part, told) for part in term.above + term.below), key=told.index)
