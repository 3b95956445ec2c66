r"""Two formulas compared by their values to 45 digits, read by our own reader: no computer algebra, and milliseconds.

A number is evaluated twice, to 60 and to 120 digits: where these disagree, digits were lost and nothing is said. Formulas
are evaluated at points, of which the positive ones alone may tell them apart: elsewhere the branch of a root or logarithm
is anyone's choice. Nothing is evaluated whose size would cost time.

    same(r"\sin(\pi/6)", "1/2")         True
    same(r"\sin(x)", r"\cos(x)")        False
    same(r"\int x dx", "5")             None: not for this file
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from whetstone.verify.exact import Algebra, Scalar, Sum, TooLarge, Unreadable, symbols
from whetstone.verify.reading import Expression, Reader

DIGITS = 60  # evaluated, and twice as many
AGREEING = 45  # of them must agree
LARGEST = 10_000.0  # the natural logarithm of a value, or an argument that a function may be given
POINTS = ((7, 3), (11, 13), (-5, 7))  # numerator and denominator that the first symbol takes; the others follow

FUNCTIONS = {
    name: getattr(mpmath, called)
    for name, called in {
        "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
        "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "ln": "log", "log": "log10",
        "lg": "log10", "abs": "fabs", "factorial": "factorial", "binomial": "binomial",
    }.items()
}  # fmt: skip
OTHERS = re.compile(r"power|root\d+|log_\{?0*(?:[2-9]|[1-9]\d{1,3})\}?")


class NoValue(Exception):
    """This formula, or this point, has none that is told here."""


class Naming(Algebra):
    """Arithmetic that remembers what its opaque parts are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, tuple[str, tuple[Scalar, ...]]] = {}

    def opaque(self, name: str, *arguments: Scalar) -> Scalar:
        value = super().opaque(name, *arguments)
        ((((atom, _),), _),) = value.num.items()
        self.parts[atom] = (name, arguments)
        return value


class Formula:
    """A formula that can be evaluated at points. Raises NoValue where our reader does not read it, and TooLarge."""

    def __init__(self, text: str):
        algebra = Naming()
        try:
            reader = Reader(text)
            reader.algebra = algebra
            found = reader.answer()
        except (Unreadable, RecursionError) as error:
            raise NoValue from error
        if not isinstance(found, Expression) or found.value is None or found.based or "%" in text:
            raise NoValue
        self.value: Scalar = found.value
        self.parts = algebra.parts
        if any(kind not in FUNCTIONS and not OTHERS.fullmatch(kind) for kind, _ in self.parts.values()):
            raise NoValue
        inside = [argument for _, arguments in self.parts.values() for argument in arguments]
        self.names = set().union(*(symbols(value) for value in (self.value, *inside)))

    def at(self, point: dict[str, Fraction]) -> Any:
        """Its value there, of which AGREEING digits are sure."""
        values = []
        for digits in (DIGITS, 2 * DIGITS):
            with mp.workdps(digits):
                values.append(Evaluation(self.parts, point).scalar(self.value))
        with mp.workdps(DIGITS):
            if agree(*values):
                return +values[1]
            if abs(values[0]) < mpmath.mpf(10) ** -AGREEING and abs(values[1]) < mpmath.mpf(10) ** (-DIGITS - AGREEING):
                return mpmath.mpf(0)
            raise NoValue


class Evaluation:
    """One evaluation at one precision."""

    def __init__(self, parts: dict[str, tuple[str, tuple[Scalar, ...]]], point: dict[str, Fraction]):
        self.parts = parts
        self.point = point
        self.powers: dict[tuple[str, Fraction | int], Any] = {}
        self.known: dict[str, Any] = {"~i": mpmath.mpc(0, 1), "pi": +mp.pi, "e": +mp.e}

    def scalar(self, value: Scalar) -> Any:
        below = self.sum(value.den)
        if below == 0:
            raise NoValue
        return self.sum(value.num) / below

    def sum(self, part: Sum) -> Any:
        total = mpmath.mpf(0)
        for term, coefficient in part.items():
            product = as_float(coefficient)
            for atom, exponent in term:
                product *= self.power(atom, exponent)
            total += product
        return total

    def power(self, atom: str, exponent: Fraction | int) -> Any:
        if (atom, exponent) not in self.powers:
            self.powers[atom, exponent] = power(self.atom(atom), as_float(Fraction(exponent)))
        return self.powers[atom, exponent]

    def atom(self, name: str) -> Any:
        if name not in self.known:
            if name in self.parts:
                kind, arguments = self.parts[name]
                found = applied(kind, [self.scalar(argument) for argument in arguments])
            elif name[0] == "#":
                found = mpmath.mpf(int(name[1:]))
            elif name in self.point:
                found = as_float(self.point[name])
            else:
                raise NoValue
            self.known[name] = found
        return self.known[name]


def as_float(value: Fraction) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator


def applied(kind: str, values: list[Any]) -> Any:
    if kind == "power":
        return power(*values)
    if kind.startswith("root"):
        if values[0].imag or values[0] < 0:
            raise NoValue
        return power(values[0], mpmath.mpf(1) / int(kind[4:]))
    if kind not in ("abs", "ln", "lg") and not kind.startswith("log") and any(abs(value) > LARGEST for value in values):
        raise TooLarge(f"{kind} of a large number")
    try:
        if kind.startswith("log_"):
            return mpmath.log(values[0]) / mpmath.log(int(kind[4:].strip("{}")))
        return FUNCTIONS[kind](*values)
    except (ValueError, ZeroDivisionError) as error:
        raise NoValue from error  # a pole


def power(base: Any, exponent: Any) -> Any:
    if exponent == 1:
        return base
    if base == 0:
        if exponent.imag or exponent <= 0:
            raise NoValue
        return base
    if abs(exponent) * (abs(mpmath.log(abs(base))) + 4) > LARGEST:
        raise TooLarge("a power of too many digits")
    if not exponent.imag and exponent == int(exponent):
        return base ** int(exponent)
    return mpmath.power(base, exponent)


def agree(a: Any, b: Any) -> bool:
    """In their leading digits."""
    return bool(abs(a - b) <= max(abs(a), abs(b)) * mpmath.mpf(10) ** -AGREEING)


def values_at(names: Sequence[str], upper: int, lower: int) -> dict[str, Fraction]:
    """What symbols stand for at one of the POINTS."""
    return {name: Fraction(upper * (2 * k + 3) + k, lower * 3 + 2 * k) for k, name in enumerate(names)}


def same(gold: str, given: str) -> bool | None:
    """True: they agree at every point; False: they differ at one; None: nothing is said. Raises TooLarge."""
    try:
        wanted, found = Formula(gold), Formula(given)
    except NoValue:
        return None
    names = sorted(wanted.names | found.names)
    sure = True
    for upper, lower in POINTS if names else POINTS[:1]:
        point = values_at(names, upper, lower)
        try:
            with mp.workdps(DIGITS):
                equal = agree(wanted.at(point), found.at(point))
        except NoValue:
            sure = False
            continue
        if not equal and upper > 0:
            return False
        sure = sure and equal
    return True if sure else None
