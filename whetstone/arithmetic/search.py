"""The formula of a word problem of which only the text and the answer are known: the only one that gives the answer.

Every expression of some of the text's numbers is tried, each number used at most once. If several different ones give the
answer, nothing says which is meant, and none is taken. Expressions that differ only in the order of terms or factors count as
one: a sum is kept as the terms that are added and subtracted, a product as the factors that multiply and divide.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import reduce
from itertools import combinations
from typing import NamedTuple

from whetstone.arithmetic.expression import Expression, Number, Operation, Value, as_value, decimal_places

MOST_GIVEN = 6  # numbers of a text; with more of them, some expression gives the answer by chance
MOST_NUMBERS = 4  # of an expression


class _Term(NamedTuple):
    """A number (`sign` is ""), a sum ("+") or a product ("*")."""

    value: Value
    sign: str
    above: tuple["_Term", ...]  # terms that are added, or factors that multiply
    below: tuple["_Term", ...]  # terms that are subtracted, or factors that divide


def only_formula(given: Sequence[Value], answer: Value) -> Expression | None:
    """The only expression of given numbers whose value is the answer and whose every step is positive; else None.

    >>> from whetstone.arithmetic.expression import render
    >>> render(only_formula([70, 27], 43)), only_formula([2, 2], 4)
    ('70-27', None)
    """
    if not 2 <= len(given) <= MOST_GIVEN or answer in given:
        return None
    # by the places of the numbers that a term uses
    terms: dict[tuple[int, ...], set[_Term]] = {(i,): {_Term(v, "", (), ())} for i, v in enumerate(given) if v > 0}
    for count in range(2, min(len(given), MOST_NUMBERS) + 1):
        for places in combinations(range(len(given)), count):
            pairs = ((x, y) for a, b in _halves(places) for x in terms.get(a, ()) for y in terms.get(b, ()))
            terms[places] = {new for x, y in pairs for new in _joined(x, y)}
    matches = {term for some in terms.values() for term in some if term.value == answer}
    return _written(matches.pop(), list(given)) if len(matches) == 1 else None


def _halves(places: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to divide the places in two, in both orders."""
    for count in range(1, len(places)):
        for left in combinations(places, count):
            yield left, tuple(i for i in places if i not in left)


def _joined(x: _Term, y: _Term) -> Iterator[_Term]:
    """x + y, x * y, and x - y and x / y if they are positive and have an end."""
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


def _written(term: _Term, given: list[Value]) -> Expression:
    """As an expression, the parts in the order in which their first numbers are given."""
    if not term.sign:
        return Number(term.value)
    forth, back = ("+", "-") if term.sign == "+" else ("*", "/")
    above = [_written(part, given) for part in sorted(term.above, key=lambda part: given.index(_first(part, given)))]
    below = [_written(part, given) for part in sorted(term.below, key=lambda part: given.index(_first(part, given)))]
    start = reduce(lambda left, right: Operation(forth, left, right), above)
    return reduce(lambda left, right: Operation(back, left, right), below, start)


def _first(term: _Term, given: Sequence[Value]) -> Value:
    """The number of the term that is given first."""
    if not term.sign:
        return term.value
    return min((_first(part, given) for part in term.above + term.below), key=given.index)
