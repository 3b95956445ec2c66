"""Exact numbers and expressions: sums of rational multiples of products of powers, and their quotients.

A term is `coefficient * product of atom ** exponent`. Atoms are

    "#p"     a prime under a root; the exponent is a fraction between 0 and 1 (8 ** (1/2) is 2 * #2 ** (1/2))
    "~i"     the imaginary unit, exponent 0 or 1
    "x"      a symbol; pi, e and oo are symbols too
    "x:…"    e to the power of the product that is named; sin and cos are sums of these (`elementary.py`)
    "l:…"    the logarithm of a prime or symbol
    "w:"     e^(i pi), the exponent a fraction between 0 and 1: a root of unity
    "f:…"    something that is not looked into (a root of a sum, |x|, f(x)), named by its canonical text

Products of powers of different primes with exponents in [0, 1) are linearly independent over the rationals (Besicovitch
1940), so two sums without "f:" atoms are equal exactly if their terms are: the answer is a proof both ways, with no
floating point. Sums with an atom that has a colon can be shown equal, never different.

Everything is bounded before it is computed: the bits of a coefficient, the number of terms, the exponent, and the total
work of one `Algebra`.
"""

from fractions import Fraction
from math import comb, factorial
from typing import NamedTuple

from whetstone.verify.primes import factor_integer

MOST_BITS = 65_536  # of a numerator or denominator: about 19,700 decimal digits
MOST_WORK_BITS = 500_000  # added up over the large operations of one expression
MOST_TERMS = 400
MOST_TERM_PRODUCTS = 3_000
MOST_FACTORIAL = 4_000
LONGEST_NAME = 20_000  # characters of an atom that is named by what it holds
SMALL_BITS = 1_024  # below this an operation is not counted

Exponent = Fraction | int
Monomial = tuple[tuple[str, Exponent], ...]
Sum = dict[Monomial, Fraction]

ONE: Sum = {(): Fraction(1)}


class TooLarge(ValueError):
    """Evaluating this would take more than the bounds allow."""


class Unreadable(ValueError):
    """Not an expression of the kind handled here."""


class Scalar(NamedTuple):
    """`num / den`; `den` is ONE unless the denominator has several terms."""

    num: Sum
    den: Sum


def rational(value: Fraction | int) -> Scalar:
    value = Fraction(value)
    return Scalar({(): value} if value else {}, ONE)


def symbol(name: str) -> Scalar:
    return Scalar({((name, 1),): Fraction(1)}, ONE)


def as_rational(value: Scalar) -> Fraction | None:
    """The rational number that it is, else None."""
    if value.den is not ONE:
        return None
    if not value.num:
        return Fraction(0)
    if len(value.num) == 1 and () in value.num:
        return value.num[()]
    return None


def atoms(value: Scalar) -> set[str]:
    return {atom for part in value for term in part for atom, _ in term}


def symbols(value: Scalar) -> set[str]:
    """Its free symbols: no primes under roots, constants or opaque parts."""
    return {a for a in atoms(value) if a[0] != "#" and ":" not in a and a not in ("~i", "pi", "e", "oo")}


def is_opaque(value: Scalar) -> bool:
    return any(":" in atom for atom in atoms(value))


def sum_key(part: Sum) -> str:
    terms = (
        f"{coefficient.numerator:x}/{coefficient.denominator:x}*" + "*".join(f"{atom}^{power}" for atom, power in term)
        for term, coefficient in part.items()
    )
    return "+".join(sorted(terms))


def bounded(name: str) -> str:
    """The name of an atom. Names hold names, so they could double in length with each nesting."""
    if len(name) > LONGEST_NAME:
        raise TooLarge("a long expression inside a function")
    return name


def key(value: Scalar) -> str:
    """A text that equal expressions share, as long as the denominator has one term."""
    if value.den is ONE:
        return sum_key(value.num)
    lead = value.den[min(value.den, key=repr)]
    num = {term: coefficient / lead for term, coefficient in value.num.items()}
    den = {term: coefficient / lead for term, coefficient in value.den.items()}
    return f"({sum_key(num)})/({sum_key(den)})"


class Algebra:
    """Arithmetic on scalars with one budget; raises TooLarge when it is spent."""

    def __init__(self) -> None:
        self.bits = 0
        self.products = 0

    def _weigh(self, value: Fraction) -> None:
        bits = value.numerator.bit_length() + value.denominator.bit_length()
        if bits > SMALL_BITS:
            if bits > 2 * MOST_BITS:
                raise TooLarge(f"a number of {bits} bits")
            self.bits += bits
            if self.bits > MOST_WORK_BITS:
                raise TooLarge("many large numbers")

    def add_sums(self, a: Sum, b: Sum) -> Sum:
        total = dict(a)
        for term, coefficient in b.items():
            new = total.get(term, 0) + coefficient
            self._weigh(new)
            if new:
                total[term] = new
            else:
                total.pop(term, None)
        if len(total) > MOST_TERMS:
            raise TooLarge(f"a sum of {len(total)} terms")
        return total

    def multiply_sums(self, a: Sum, b: Sum) -> Sum:
        if a is ONE:
            return b
        if b is ONE:
            return a
        self.products += len(a) * len(b)
        if self.products > MOST_TERM_PRODUCTS:
            raise TooLarge("a product of long sums")
        total: Sum = {}
        for left, c in a.items():
            for right, d in b.items():
                term, factor = self.join(left, right)
                new = total.get(term, 0) + c * d * factor
                self._weigh(new)
                if new:
                    total[term] = new
                else:
                    total.pop(term, None)
        if len(total) > MOST_TERMS:
            raise TooLarge(f"a sum of {len(total)} terms")
        return total

    def join(self, left: Monomial, right: Monomial) -> tuple[Monomial, Fraction]:
        """The product of two monomials: whole powers of primes and of i move into the factor."""
        if not left:
            return right, Fraction(1)
        if not right:
            return left, Fraction(1)
        powers: dict[str, Exponent] = dict(left)
        for atom, power in right:
            powers[atom] = powers.get(atom, 0) + power
        return self.tidy(powers)

    def tidy(self, powers: dict[str, Exponent]) -> tuple[Monomial, Fraction]:
        factor = Fraction(1)
        kept = []
        squared = [
            atom for atom, power in powers.items() if atom.startswith("f:abs(") and power >= 2 and "^" not in atom
        ]
        for atom in squared:  # |x|^2 is x^2
            even = powers[atom] - powers[atom] % 2
            powers = {**powers, atom: powers[atom] - even, atom[6:-1]: powers.get(atom[6:-1], 0) + even}
        for atom, power in powers.items():
            if atom[0] == "#":
                whole = power.numerator // power.denominator
                if whole:
                    factor *= self.rational_power(Fraction(int(atom[1:])), whole)
                    power -= whole
            elif atom == "~i":
                power %= 4
                if power >= 2:
                    factor, power = -factor, power - 2
            elif atom == "w:":
                power %= 2
                if power >= 1:
                    factor, power = -factor, power - 1
            if power:
                kept.append((atom, power))
        return tuple(sorted(kept)), factor

    def rational_power(self, base: Fraction, power: int) -> Fraction:
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size > 1 and (size - 1) * abs(power) > MOST_BITS:
            raise TooLarge("a power of too many digits")
        if base == 0 and power < 0:
            raise Unreadable("division by zero")
        return base**power

    def quotient(self, num: Sum, den: Sum) -> Scalar:
        if not den:
            raise Unreadable("division by zero")
        if len(den) == 1 and den is not ONE:
            ((term, coefficient),) = den.items()
            inverse, factor = self.tidy({atom: -power for atom, power in term})
            num = self.multiply_sums(num, {inverse: factor / coefficient})
            den = ONE
        return Scalar(num, den if num else ONE)

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        if a.den is b.den or a.den == b.den:
            return self.quotient(self.add_sums(a.num, b.num), a.den)
        cross = self.add_sums(self.multiply_sums(a.num, b.den), self.multiply_sums(b.num, a.den))
        return self.quotient(cross, self.multiply_sums(a.den, b.den))

    def negate(self, a: Scalar) -> Scalar:
        return Scalar({term: -coefficient for term, coefficient in a.num.items()}, a.den)

    def subtract(self, a: Scalar, b: Scalar) -> Scalar:
        return self.add(a, self.negate(b))

    def multiply(self, a: Scalar, b: Scalar) -> Scalar:
        return self.quotient(self.multiply_sums(a.num, b.num), self.multiply_sums(a.den, b.den))

    def divide(self, a: Scalar, b: Scalar) -> Scalar:
        if not b.num:
            raise Unreadable("division by zero")
        return self.quotient(self.multiply_sums(a.num, b.den), self.multiply_sums(a.den, b.num))

    def opaque(self, name: str, *arguments: Scalar) -> Scalar:
        """Something named by its arguments' canonical texts and not looked into."""
        return symbol(bounded(f"f:{name}({','.join(key(argument) for argument in arguments)})"))

    def power(self, base: Scalar, exponent: Scalar) -> Scalar:
        power = as_rational(exponent)
        if power is None:
            return self.opaque("power", base, exponent)
        if power.denominator == 1:
            return self.whole_power(base, int(power))
        number = as_rational(base)
        if number is not None and number < 0 and power.denominator != 2:
            return self.opaque("power", base, exponent)  # which of the complex roots is meant is not said
        return self.root(base, power.denominator, power.numerator)

    def whole_power(self, base: Scalar, power: int) -> Scalar:
        if power == 0:
            if not base.num:
                raise Unreadable("0 to the power 0")
            return rational(1)
        if power < 0:
            return self.divide(rational(1), self.whole_power(base, -power))
        if len(base.num) == 1 and base.den is ONE:
            ((term, coefficient),) = base.num.items()
            powers, factor = self.tidy({atom: exponent * power for atom, exponent in term})
            new = self.rational_power(coefficient, power) * factor
            self._weigh(new)
            return Scalar({powers: new}, ONE)
        if not base.num:
            return base
        if power > MOST_TERMS:
            raise TooLarge(f"a sum to the power {power}" if power < 10**9 else "a sum to a large power")
        result, square = rational(1), base
        while power:
            if power & 1:
                result = self.multiply(result, square)
            power >>= 1
            if power:
                square = self.multiply(square, square)
        return result

    def root(self, base: Scalar, degree: int, power: int = 1) -> Scalar:
        """The real `degree`-th root of `base`, to the `power`; of a negative number only for odd degrees and 2."""
        if not 1 <= degree <= 64 or abs(power) > 10_000:
            raise TooLarge("a root or power of high degree")
        if degree == 1:
            return self.whole_power(base, power)
        if not base.num:
            if power < 0:
                raise Unreadable("division by zero")
            return base
        named = self.opaque(f"root{degree}", base)
        if len(base.num) != 1 or base.den is not ONE:
            return self.whole_power(named, power)
        ((term, coefficient),) = base.num.items()
        free = [(atom, exponent) for atom, exponent in term if atom[0] != "#"]
        known_positive = all(atom in ("pi", "e") for atom, _ in free)
        if not known_positive and not (len(free) == 1 and free[0][1] == 1 and free[0][0] not in ("~i", "oo")):
            return self.whole_power(named, power)
        sign = rational(1)
        if coefficient < 0:
            if degree % 2 and not free:
                sign = rational(-1)
            elif degree == 2 and known_positive:
                sign = Scalar({(("~i", 1),): Fraction(1)}, ONE)
            else:
                return self.whole_power(named, power)
            coefficient = -coefficient
        powers: dict[str, Exponent] = {atom: Fraction(exponent) / degree for atom, exponent in term}
        for number, direction in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
            factors = factor_integer(number)
            if factors is None:
                return self.whole_power(named, power)
            for prime, count in factors.items():
                powers[f"#{prime}"] = powers.get(f"#{prime}", 0) + Fraction(direction * count, degree)
        monomial, factor = self.tidy(powers)
        return self.whole_power(self.multiply(sign, Scalar({monomial: factor}, ONE)), power)

    def factorial(self, value: Scalar) -> Scalar:
        number = as_rational(value)
        if number is None:
            return self.opaque("factorial", value)
        if number.denominator != 1 or number < 0:
            raise Unreadable("factorial of what is no natural number")
        if number > MOST_FACTORIAL:
            raise TooLarge("a large factorial")
        return rational(factorial(int(number)))

    def binomial(self, upper: Scalar, lower: Scalar) -> Scalar:
        n, k = as_rational(upper), as_rational(lower)
        if n is None or k is None:
            return self.opaque("binomial", upper, lower)
        if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
            raise Unreadable("binomial of what are no natural numbers")
        if n > 100_000 or min(k, n - k) > MOST_FACTORIAL:
            raise TooLarge("a large binomial coefficient")
        return rational(comb(int(n), int(k)))


def equal_scalars(a: Scalar, b: Scalar) -> bool | None:
    """True or False is a proof; None: not decided (functions, roots of sums, too much work)."""
    if a == b:
        return True
    algebra = Algebra()
    try:
        same = algebra.multiply_sums(a.num, b.den) == algebra.multiply_sums(b.num, a.den)
    except TooLarge:
        return None
    if same:
        return True
    return None if is_opaque(a) or is_opaque(b) else False


def proportion(a: Scalar, b: Scalar) -> Fraction | bool | None:
    """`a = c * b` for a constant c: c where it is rational, True for another one, False if none, None if not decided.

    Both without denominators in symbols; a constant is a number, roots, pi and i included. Functions are taken for symbols
    that no others equal, so that "none" is a proof only without them.
    """
    if a.den is not ONE or b.den is not ONE:
        return Fraction(1) if a == b else None
    left, right = _by_symbols(a.num), _by_symbols(b.num)
    if left.keys() != right.keys() or not left:
        return not left and not right
    lead = min(left, key=repr)
    algebra = Algebra()
    for term in left:
        if algebra.multiply_sums(left[term], right[lead]) != algebra.multiply_sums(right[term], left[lead]):
            return False
    ratio = as_rational(algebra.divide(Scalar(left[lead], ONE), Scalar(right[lead], ONE)))
    return True if ratio is None else ratio


def _by_symbols(part: Sum) -> dict[Monomial, Sum]:
    """A sum sorted into coefficients (numbers with roots, pi, i) of monomials of symbols."""
    groups: dict[Monomial, Sum] = {}
    for term, coefficient in part.items():
        constant = tuple(p for p in term if p[0][0] == "#" or p[0] in ("~i", "pi"))
        free = tuple(p for p in term if p not in constant)
        groups.setdefault(free, {})[constant] = coefficient
    return groups
