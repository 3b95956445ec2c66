"""A formula as a tree, and its exact value: what the parser builds and everything else reads.

A term is a tuple whose first item says what it is:

    ("n", Fraction)  ("s", name)                         a number, a symbol (pi, e, ~i and oo are symbols)
    ("+", a, b, …)  ("*", a, b, …)  ("-", a)  ("i", a)   sum, product, negative, reciprocal
    ("^", a, b)  ("r", a, degree)                        power, real root
    ("f", name, a, …)                                    a function of a, …
    ("m", ((a, …), …))                                   a matrix, by rows
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from whetstone.verify.elementary import Elementary
from whetstone.verify.exact import Scalar, TooLarge, Unreadable, as_rational, rational, symbol

Term = tuple[Any, ...]
Grid = list[list[Scalar]]

CONSTANTS = frozenset(("pi", "e", "~i", "oo"))
LARGEST_MATRIX = 8
MOST_POWER = 64  # of a matrix


def number(value: Fraction | int) -> Term:
    return "n", Fraction(value)


def product(factors: list[Term]) -> Term:
    return factors[0] if len(factors) == 1 else ("*", *factors)


def subterms(term: Term) -> Iterator[Term]:
    """The terms that it is made of, one level down."""
    if term[0] == "m":
        yield from (entry for row in term[1] for entry in row)
    elif term[0] not in "ns":
        yield from (part for part in term[1:] if isinstance(part, tuple))


def walk(term: Term) -> Iterator[Term]:
    waiting = [term]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(subterms(found))


def names(term: Term) -> set[str]:
    """Its free symbols."""
    return {part[1] for part in walk(term) if part[0] == "s"} - CONSTANTS


def replaced(term: Term, old: Term, new: Term) -> Term:
    """The term with `new` wherever `old` stands."""
    if term == old:
        return new
    if term[0] in "nsm":
        return term
    return tuple(replaced(part, old, new) if isinstance(part, tuple) else part for part in term)


def has_matrix(term: Term) -> bool:
    return any(part[0] == "m" for part in walk(term))


def evaluate(term: Term, algebra: Elementary) -> Scalar:
    """Its exact value. Raises Unreadable where it has none, TooLarge beyond the bounds of `exact.py`."""
    kind = term[0]
    if kind == "n":
        return rational(term[1])
    if kind == "s":
        return symbol(term[1])
    if kind == "f" and term[1] in ("det", "tr"):
        return determinant(term[2], algebra) if term[1] == "det" else trace(term[2], algebra)
    if kind == "m":
        raise Unreadable("a matrix where a number is expected")
    if kind == "r":
        return algebra.root(evaluate(term[1], algebra), term[2])
    values = [evaluate(part, algebra) for part in term[1:] if isinstance(part, tuple)]
    if kind == "+":
        total = values[0]
        for value in values[1:]:
            total = algebra.add(total, value)
        return total
    if kind == "*":
        total = values[0]
        for value in values[1:]:
            total = algebra.multiply(total, value)
        return total
    if kind == "-":
        return algebra.negate(values[0])
    if kind == "i":
        return algebra.divide(rational(1), values[0])
    if kind == "^":
        return algebra.power(*values)
    return algebra.function(term[1], *values)


def value_of(term: Term) -> Scalar:
    """The exact value of a whole formula; infinity is only read alone, with a sign."""
    if term[0] == "n":
        return rational(term[1])
    if term[0] == "s" and term[1] != "oo":
        return symbol(term[1])
    if any(part == ("s", "oo") for part in walk(term)) and term not in (("s", "oo"), ("-", ("s", "oo"))):
        raise Unreadable("arithmetic with infinity")
    return evaluate(term, Elementary())


# matrices


def grid(term: Term, algebra: Elementary) -> Grid | Scalar:
    """The entries of a term with matrices in it, or its value where it is a number after all."""
    if term[0] == "m":
        return [[evaluate(entry, algebra) for entry in row] for row in term[1]]
    if term[0] == "f" and term[1] == "transpose":
        return [list(column) for column in zip(*matrix(term[2], algebra), strict=True)]
    if term[0] == "-":
        return scaled(rational(-1), grid(term[1], algebra), algebra)
    if term[0] == "i":
        return power(term[1], -1, algebra) if has_matrix(term[1]) else evaluate(term, algebra)
    if term[0] == "^" and has_matrix(term[1]):
        exponent = as_rational(evaluate(term[2], algebra))
        if exponent is None or exponent.denominator != 1:
            raise Unreadable("a power of a matrix that is no integer")
        return power(term[1], int(exponent), algebra)
    if term[0] in "+*":
        total = grid(term[1], algebra)
        for part in term[2:]:
            other = grid(part, algebra)
            total = added(total, other, algebra) if term[0] == "+" else multiplied(total, other, algebra)
        return total
    return evaluate(term, algebra)


def matrix(term: Term, algebra: Elementary) -> Grid:
    found = grid(term, algebra)
    if not isinstance(found, list) or max(len(found), len(found[0])) > LARGEST_MATRIX:
        raise Unreadable("no matrix, or a large one")
    return found


def scaled(factor: Scalar, value: Grid | Scalar, algebra: Elementary) -> Grid | Scalar:
    if isinstance(value, list):
        return [[algebra.multiply(factor, entry) for entry in row] for row in value]
    return algebra.multiply(factor, value)


def added(a: Grid | Scalar, b: Grid | Scalar, algebra: Elementary) -> Grid | Scalar:
    if isinstance(a, list) and isinstance(b, list):
        if [len(row) for row in a] != [len(row) for row in b]:
            raise Unreadable("a sum of matrices of different sizes")
        return [[algebra.add(x, y) for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    if isinstance(a, list) or isinstance(b, list):
        raise Unreadable("a matrix plus a number")
    return algebra.add(a, b)


def multiplied(a: Grid | Scalar, b: Grid | Scalar, algebra: Elementary) -> Grid | Scalar:
    if not isinstance(a, list):
        return scaled(a, b, algebra)
    if not isinstance(b, list):
        return scaled(b, a, algebra)
    if any(len(row) != len(b) for row in a):
        raise Unreadable("a product of matrices that do not fit")
    return [[dot(row, column, algebra) for column in zip(*b, strict=True)] for row in a]


def dot(row: list[Scalar], column: tuple[Scalar, ...], algebra: Elementary) -> Scalar:
    total = rational(0)
    for x, y in zip(row, column, strict=True):
        total = algebra.add(total, algebra.multiply(x, y))
    return total


def power(term: Term, exponent: int, algebra: Elementary) -> Grid:
    base = matrix(term, algebra)
    if any(len(row) != len(base) for row in base):
        raise Unreadable("a power of a matrix that is not square")
    if abs(exponent) > MOST_POWER:
        raise TooLarge("a high power of a matrix")
    if exponent < 0:
        base = inverse(base, algebra)
    size = range(len(base))
    result: Grid = [[rational(int(i == j)) for j in size] for i in size]
    for _ in range(abs(exponent)):
        result = multiplied(result, base, algebra)
    return result


def minor(rows: Grid, i: int, j: int) -> Grid:
    return [row[:j] + row[j + 1 :] for k, row in enumerate(rows) if k != i]


def expanded(rows: Grid, algebra: Elementary) -> Scalar:
    """The determinant along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    if len(rows) > 5:
        raise TooLarge("the determinant of a large matrix")
    total = rational(0)
    for j, entry in enumerate(rows[0]):
        part = algebra.multiply(entry, expanded(minor(rows, 0, j), algebra))
        total = algebra.add(total, algebra.negate(part) if j % 2 else part)
    return total


def determinant(term: Term, algebra: Elementary) -> Scalar:
    rows = matrix(term, algebra)
    if any(len(row) != len(rows) for row in rows):
        raise Unreadable("the determinant of a matrix that is not square")
    return expanded(rows, algebra)


def trace(term: Term, algebra: Elementary) -> Scalar:
    rows = matrix(term, algebra)
    total = rational(0)
    for i, row in enumerate(rows):
        total = algebra.add(total, row[i])
    return total


def inverse(rows: Grid, algebra: Elementary) -> Grid:
    below = expanded(rows, algebra)
    if len(rows) == 1:
        return [[algebra.divide(rational(1), below)]]
    size = range(len(rows))
    cofactors = [[expanded(minor(rows, j, i), algebra) for j in size] for i in size]
    return [
        [algebra.divide(algebra.negate(c) if (i + j) % 2 else c, below) for j, c in enumerate(row)]
        for i, row in enumerate(cofactors)
    ]
