r"""Whether two formulas have the same value, where exact arithmetic alone does not tell: a proof, or nothing.

Different is proved by values: two constants whose difference stays away from 0 while the precision grows are different.
Equal is proved for algebraic numbers (roots, and sines of rational multiples of pi) by a bound: such a number is 0 if it is
smaller than a bound that its making sets (Burnikel, Fleischer, Mehlhorn, Schirra 2001, "A strong and easily computable
separation bound for arithmetic expressions involving radicals"). A formula in symbols is compared at rational points: it is
taken as equal if it is proved equal at all of them, and different if it is at one. A point where a root, logarithm or power
of a negative number is met says nothing: the branch is anyone's choice.

    same(sin(pi/5)^2, (5-sqrt(5))/8)       True
    same(tanh(60), 1)                      False
    same(f(x+1), f(x)+f(1))                False, as f is any function
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from math import gcd, log2
from typing import Any

from mpmath import MPContext

from whetstone.verify.answers.terms import Term, names, walk
from whetstone.verify.exact import TooLarge

mp = MPContext()  # our own: mpmath's has one precision for the whole process
TURN = threading.RLock()  # this one has one for all our threads
os.register_at_fork(before=TURN.acquire, after_in_parent=TURN.release, after_in_child=TURN.release)

DIGITS = (60, 120, 500, 2_000)  # at which a difference is looked at
MOST_DIGITS = 4_000  # for a bound
MOST_TERMS = 300  # of a formula that is looked at with so many digits
LARGEST = 10_000.0  # the natural logarithm of a value, or an argument that a function may be given
POINTS = ((7, 3), (11, 13), (29, 17), (-5, 7))  # numerator and denominator of the first symbol; the others follow
SIGNED_POINTS = 16  # with other signs and orders of the symbols, for formulas in which these decide

FUNCTIONS = {
    name: getattr(mp, called)
    for name, called in {
        "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
        "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "ln": "log", "log": "log10",
        "lg": "log10", "abs": "fabs", "factorial": "factorial", "binomial": "binomial", "exp": "exp", "gamma": "gamma",
        "floor": "floor", "ceil": "ceil", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    }.items()
}  # fmt: skip
STEPS = frozenset(("floor", "ceil"))  # never evaluated beside a jump
SLOW = frozenset(("factorial", "binomial", "gamma"))  # with many digits
ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))


class NoValue(Exception):
    """This formula, or this point, has none that is told here."""


@contextmanager
def precision(digits: int) -> Iterator[None]:
    """Everything that is evaluated within has so many digits. One thread at a time."""
    with TURN, mp.workdps(digits):
        yield


def same(gold: Term, given: Term) -> bool | None:
    """True and False are proofs (see above); None: nothing is said. Raises TooLarge."""
    difference = ("+", gold, ("-", given))
    if any(part[0] == "m" for part in walk(difference)):
        return None
    symbols = sorted(names(difference))
    if not symbols and far_apart(gold, given):
        return False
    sure = True
    for upper, lower in POINTS if symbols else POINTS[:1]:
        point = values_at(symbols, upper, lower)
        try:
            outcome = is_zero(difference, point)
        except NoValue:
            outcome = None
        if outcome is False:
            return False
        sure = sure and outcome is True
    if differs_by_sign(difference, symbols):
        return False
    return True if sure else None


def differs_by_sign(difference: Term, symbols: Sequence[str]) -> bool:
    """Is it not 0 for some signs and some order of the symbols: |a| + |b| - |a + b|?"""
    if not symbols or not any(part[0] == "r" or part[:2] == ("f", "abs") for part in walk(difference)):
        return False
    for count in range(SIGNED_POINTS):
        point = {
            name: Fraction((-1) ** (count >> k % 4 & 1) * (3 + 7 * (count + 2 * k + 1) % 23), 2 + k)
            for k, name in enumerate(symbols)
        }
        try:
            if is_zero(difference, point) is False:
                return True
        except NoValue:
            continue
    return False


def far_apart(a: Term, b: Term) -> bool:
    """Do two constants differ in their first 40 digits? Each is evaluated once, however many it is compared with."""
    try:
        (first, size), (second, other) = constant_value(a), constant_value(b)
    except NoValue:
        return False
    with precision(DIGITS[0]):
        return bool(abs(first - second) > (size + other) * mp.mpf(10) ** -40)


@lru_cache(maxsize=1024)
def constant_value(term: Term) -> tuple[Any, Any]:
    with precision(DIGITS[0]):
        return sized(term, {})


def values_at(names: Sequence[str], upper: int, lower: int) -> dict[str, Fraction]:
    """What symbols stand for at one of the POINTS."""
    return {name: Fraction(upper * (2 * k + 3) + k, lower * 3 + 2 * k) for k, name in enumerate(names)}


def is_zero(term: Term, point: dict[str, Fraction]) -> bool | None:
    """Is its value there 0? None where neither is shown. Raises NoValue, TooLarge."""
    bound = needed_digits(term, point)
    parts = list(walk(term))
    slow = sum(part[0] == "f" and part[1] in SLOW for part in parts)
    for digits in DIGITS[: 2 if slow > 2 or len(parts) > MOST_TERMS else 3 if slow else 4]:
        with precision(digits):
            value, size = sized(term, point)
            noise = size * mp.mpf(10) ** (15 - digits)
            if abs(value) > noise:
                with precision(2 * digits):
                    again, _ = sized(term, point)
                if abs(again - value) < abs(value) / 1000:
                    return False if not point or not branched(term, point) else None
            elif bound is not None and digits - 15 - max(0, magnitude(size)) > bound:
                return True
    if bound is None or bound > MOST_DIGITS:
        return None
    with precision(int(bound) + 40):
        value, size = sized(term, point)
        if magnitude(size) > 20:
            return None
        return bool(abs(value) < mp.mpf(10) ** -(int(bound) + 1))


def branched(term: Term, point: dict[str, Fraction]) -> bool:
    """Does a value there depend on which branch of a root, logarithm or power of a negative number is meant?"""
    evaluation = Evaluation(point)
    for part in walk(term):
        chosen = part[0] == "r" or (part[0] == "f" and part[1] in ("ln", "log", "lg", "arcsin", "arccos"))
        inside = part[2] if part[0] == "f" and chosen else part[1] if chosen else None
        if inside is not None:
            value = evaluation.of(inside)
            if value.imag or value.real < 0 or (part[1:2] in (("arcsin",), ("arccos",)) and abs(value) > 1):
                return True
    return False


def magnitude(value: Any) -> int:
    """Decimal digits before the point."""
    return int(mp.log10(value)) + 1 if value > 1 else 0


# values


def sized(term: Term, point: dict[str, Fraction]) -> tuple[Any, Any]:
    """Its value, and the largest value met in a sum on the way: what rounding errors are measured by."""
    evaluation = Evaluation(point)
    value = evaluation.of(term)
    return value, evaluation.largest


class Evaluation:
    """One evaluation at one precision."""

    def __init__(self, point: dict[str, Fraction]):
        self.point = point
        self.largest = mp.mpf(1)
        self.known: dict[Term, Any] = {}
        self.constants = {"~i": mp.mpc(0, 1), "pi": +mp.pi, "e": +mp.e}

    def of(self, term: Term) -> Any:
        kind = term[0]
        if kind == "n":
            return as_float(term[1])
        if kind == "s":
            if term[1] in self.constants:
                return self.constants[term[1]]
            if term[1] not in self.point:
                raise NoValue
            return as_float(self.point[term[1]])
        if term not in self.known:
            self.known[term] = value = self.made(kind, term)
            self.largest = max(self.largest, abs(value))
        return self.known[term]

    def made(self, kind: str, term: Term) -> Any:
        values = [self.of(part) for part in term[1:] if isinstance(part, tuple)]
        if kind == "+":
            return mp.fsum(values)
        if kind == "*":
            return mp.fprod(values)
        if kind == "-":
            return -values[0]
        if kind == "i":
            if abs(values[0]) <= mp.mpf(10) ** (20 - mp.dps):
                raise NoValue
            inverse = 1 / values[0]
            self.largest = max(self.largest, abs(inverse) ** 2)
            return inverse
        if kind == "^":
            return power(*values)
        if kind == "r":
            return real_root(values[0], term[2])
        return applied(term[1], values)


def as_float(value: Fraction) -> Any:
    return mp.mpf(value.numerator) / value.denominator


def applied(name: str, values: list[Any]) -> Any:
    if name not in ("abs", "ln", "lg", "log", *STEPS) and any(abs(value) > LARGEST for value in values):
        raise TooLarge(f"{name} of a large number")
    if name in STEPS and (values[0].imag or abs(values[0] - mp.nint(values[0])) < mp.mpf(10) ** (20 - mp.dps)):
        raise NoValue
    if name in ("ln", "log", "lg") and not values[0]:
        raise NoValue
    try:
        if name not in FUNCTIONS:  # any function will do: what differs for it is different
            return mp.sin(sum(map(ord, name)) + sum(k * value for k, value in enumerate(values, 2)))
        if name == "log" and len(values) == 2:
            return mp.log(values[0]) / mp.log(values[1])
        return FUNCTIONS[name](*values)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        raise NoValue from error  # a pole


def real_root(value: Any, degree: int) -> Any:
    if not value.imag and value < 0:
        if degree % 2:
            return -mp.root(-value, degree)
        if degree > 2:
            raise NoValue
    elif value.imag and degree > 2:
        raise NoValue
    return mp.sqrt(value) if degree == 2 else mp.root(value, degree)


def power(base: Any, exponent: Any) -> Any:
    if exponent == 1:
        return base
    if base == 0:
        if exponent.imag or exponent <= 0:
            raise NoValue
        return base
    if abs(exponent) * (abs(mp.log(abs(base))) + 4) > LARGEST:
        raise TooLarge("a power of too many digits")
    if not exponent.imag and exponent == int(exponent.real):
        return base ** int(exponent.real)
    if not base.imag and base < 0:
        raise NoValue  # which of the roots is meant is not said
    return mp.power(base, exponent)


# the bound


def needed_digits(term: Term, point: dict[str, Fraction]) -> float | None:
    """Decimal places at which an algebraic number that is not 0 shows; None where it may be none."""
    radicals: dict[Term, int] = {}
    try:
        upper, lower = bounds(term, point, radicals)
    except (NoValue, ValueError):
        return None
    degree = 1
    for each in radicals.values():
        degree *= each
    places = ((degree - 1) * upper + lower) * log2(2) * 0.30103
    return places if places < 1e9 else None


def bounds(term: Term, point: dict[str, Fraction], radicals: dict[Term, int]) -> tuple[float, float]:
    """Binary logarithms of u and l: the term is U / L, algebraic integers whose conjugates are at most u and l."""
    kind = term[0]
    if kind == "s":
        if term[1] == "~i":
            radicals[term] = 2
            return 0.0, 0.0
        if term[1] not in point:
            raise NoValue
        return bounds(("n", point[term[1]]), point, radicals)
    if kind == "n":
        return bits(abs(term[1].numerator)), bits(term[1].denominator)
    if kind == "f":
        return bounds_of_function(term, point, radicals)
    first = bounds(term[1], point, radicals)
    if kind == "-":
        return first
    if kind == "i":
        return first[1], first[0]
    if kind == "r":
        return rooted(first, term, term[2], radicals)
    if kind == "^":
        return raised(first, term, point, radicals)
    for part in term[2:]:
        other = bounds(part, point, radicals)
        if kind == "*":
            first = first[0] + other[0], first[1] + other[1]
        else:
            first = max(first[0] + other[1], other[0] + first[1]) + 1, first[1] + other[1]
    return first


def bits(number: int) -> float:
    return log2(number) if number > 1 else 0.0


def rooted(base: tuple[float, float], key: Term, degree: int, radicals: dict[Term, int]) -> tuple[float, float]:
    radicals[key] = degree
    return (base[0] + (degree - 1) * base[1]) / degree, base[1]


def raised(
    base: tuple[float, float], term: Term, point: dict[str, Fraction], radicals: dict[Term, int]
) -> tuple[float, float]:
    exponent = constant(term[2], point)
    if abs(exponent) > 10_000:
        raise NoValue
    if exponent < 0:
        base, exponent = base[::-1], -exponent
    if exponent.denominator > 1:
        base = rooted(base, ("r", term[1], exponent.denominator), exponent.denominator, radicals)
    return base[0] * exponent.numerator, base[1] * exponent.numerator


def constant(term: Term, point: dict[str, Fraction]) -> Fraction:
    """The rational number that a term is; NoValue where it is none."""
    kind = term[0]
    if kind == "n":
        return term[1]
    if kind == "s" and term[1] in point:
        return point[term[1]]
    if kind in "+*-i":
        values = [constant(part, point) for part in term[1:]]
        if kind == "-":
            return -values[0]
        if kind == "i" and values[0]:
            return 1 / values[0]
        total = values[0]
        for value in values[1:] if kind in "+*" else ():
            total = total + value if kind == "+" else total * value
        return total
    raise NoValue


def bounds_of_function(term: Term, point: dict[str, Fraction], radicals: dict[Term, int]) -> tuple[float, float]:
    name = term[1]
    if name == "abs" and not any(part == ("s", "~i") for part in walk(term)):
        return bounds(term[2], point, radicals)
    if name not in ANGLES:
        raise NoValue
    turns = constant(without_pi(term[2]), point) / 2
    order = turns.denominator
    radicals["order", order] = max(1, totient(order))  # type: ignore[index]
    radicals["s", "~i"] = 2
    return (2.0, 1.0) if name in ("sin", "cos") else (3.0, 2.0)


def without_pi(term: Term) -> Term:
    """The multiple of pi that a term is, divided by pi."""
    if term == ("s", "pi"):
        return "n", Fraction(1)
    if term[0] == "-":
        return "-", without_pi(term[1])
    if term[0] == "+":
        return ("+", *(without_pi(part) for part in term[1:]))
    if term[0] == "*":
        for place, part in enumerate(term[1:], start=1):
            try:
                return (*term[:place], without_pi(part), *term[place + 1 :])
            except NoValue:
                continue
    if term == ("n", Fraction(0)):
        return term
    raise NoValue


def totient(number: int) -> int:
    if number > 10_000:
        raise NoValue
    return sum(1 for k in range(1, number + 1) if gcd(k, number) == 1)
