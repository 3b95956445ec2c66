r"""Elementary functions as sums of products, so that identities between them are identities of polynomials.

e^(a+b)      e^a e^b; a rational power of e to a product of symbols is one atom to that power
sin x        (e^(ix) - e^(-ix)) / 2i, and so on: sin 2x = 2 sin x cos x is then exact arithmetic
ln 12        2 ln 2 + ln 3, and log_b a = ln a / ln b
a^b          e^(b ln a) for a positive number or a symbol a: 4^x = (2^x)^2
(n+2)!       (n+2)(n+1) n!, and binomials are quotients of factorials
|x|          its square is x^2; sqrt(x^2) is |x|: symbols are real numbers
"""

from fractions import Fraction

from whetstone.verify.exact import (
    ONE,
    Algebra,
    Monomial,
    Scalar,
    TooLarge,
    Unreadable,
    as_rational,
    bounded,
    key,
    rational,
    symbol,
)
from whetstone.verify.primes import factor_integer

IMAGINARY = Scalar({(("~i", 1),): Fraction(1)}, ONE)
HALF = rational(Fraction(1, 2))
INVERSES = {  # of sin, cos and tan in units of pi, by the square of the value
    "arcsin": {0: 0, Fraction(1, 4): (1, 6), Fraction(1, 2): (1, 4), Fraction(3, 4): (1, 3), 1: (1, 2)},
    "arctan": {0: 0, Fraction(1, 3): (1, 6), 1: (1, 4), 3: (1, 3)},
}
MOST_SHIFT = 20  # of a factorial's argument: (n+20)!


def is_name(atom: str) -> bool:
    """Is it a symbol, which stands for a real number?"""
    return ":" not in atom and atom[0] not in "#~" and atom not in ("pi", "e", "oo")


class Elementary(Algebra):
    """An Algebra that knows them."""

    def function(self, name: str, *arguments: Scalar) -> Scalar:
        """`name` of the arguments; what is not known here stays a name."""
        method = getattr(self, "f_" + name, None)
        return self.opaque(name, *arguments) if method is None else method(*arguments)

    def power(self, base: Scalar, exponent: Scalar) -> Scalar:
        if base == symbol("e"):
            return self.f_exp(exponent)
        if (power := as_rational(exponent)) is not None:
            return super().power(base, exponent) if power.denominator <= 64 else self.opaque("power", base, exponent)
        number = as_rational(base)
        one_term = len(base.num) == 1 and base.den is ONE
        if one_term and (number is None or number > 0):
            return self.f_exp(self.multiply(exponent, self.f_ln(base)))
        return self.opaque("power", base, exponent)

    def whole_power(self, base: Scalar, power: int) -> Scalar:
        """A power of a sum that is too large to multiply out stays a power."""
        products, bits = self.products, self.bits
        try:
            return super().whole_power(base, power)
        except TooLarge:
            if len(base.num) < 2 or base.den is not ONE or abs(power) > 10**6:
                raise
            self.products, self.bits = products, bits
            return self.opaque("power", base, rational(power))

    def root(self, base: Scalar, degree: int, power: int = 1) -> Scalar:
        if degree == 2 and len(base.num) == 1 and base.den is ONE:
            ((term, coefficient),) = base.num.items()
            even = [(atom, count) for atom, count in term if is_name(atom) and count % 2 == 0]
            rest = tuple(pair for pair in term if pair not in even)
            if even:
                outside = [self.whole_power(self.f_abs(symbol(atom)), int(count) // 2) for atom, count in even]
                inside = super().root(Scalar({rest: coefficient}, ONE), 2)
                for factor in outside:
                    inside = self.multiply(inside, factor)
                return self.whole_power(inside, power)
        return super().root(base, degree, power)

    # e to a power, and what is made of it

    def f_exp(self, value: Scalar) -> Scalar:
        if value.den is not ONE:
            return self.exponential(f"x:{key(value)}", Fraction(1))
        result = rational(1)
        for term, coefficient in value.num.items():
            result = self.multiply(result, self.exp_of_term(term, coefficient))
        return result

    def exp_of_term(self, term: Monomial, coefficient: Fraction) -> Scalar:
        if not term:
            return self.exponential("e", coefficient)
        if term == (("pi", 1), ("~i", 1)):
            return self.root_of_unity(coefficient)
        if len(term) == 1 and term[0][0].startswith("l:") and term[0][1] == 1:
            name = term[0][0][2:]
            if name[0] == "#":
                return self.root(rational(int(name[1:])), coefficient.denominator, coefficient.numerator)
            return self.exponential(name, coefficient)
        return self.exponential("x:" + "*".join(f"{atom}^{power}" for atom, power in term), coefficient)

    def exponential(self, atom: str, power: Fraction) -> Scalar:
        if abs(power.numerator) > 10**6:
            raise TooLarge("an exponent of many digits")
        return Scalar({((bounded(atom), power),): Fraction(1)}, ONE) if power else rational(1)

    def root_of_unity(self, angle: Fraction) -> Scalar:
        """e^(i pi angle): in radicals for the angles of a regular 24-gon."""
        angle %= 2
        if 12 % angle.denominator:
            return Scalar({self.tidy({"w:": angle})[0]: self.tidy({"w:": angle})[1]}, ONE)
        third = self.add(HALF, self.multiply(IMAGINARY, self.multiply(HALF, self.root(rational(3), 2))))
        quarter = self.multiply(self.root(HALF, 2), self.add(rational(1), IMAGINARY))
        twelfths = int(12 * angle)
        quarters = 3 * twelfths % 4
        thirds = (twelfths - 3 * quarters) // 4 % 6
        return self.multiply(self.whole_power(third, thirds), self.whole_power(quarter, quarters))

    def f_sin(self, value: Scalar) -> Scalar:
        up, down = self.both_ways(self.multiply(IMAGINARY, value))
        return self.divide(self.subtract(up, down), self.multiply(rational(2), IMAGINARY))

    def f_cos(self, value: Scalar) -> Scalar:
        up, down = self.both_ways(self.multiply(IMAGINARY, value))
        return self.multiply(HALF, self.add(up, down))

    def f_sinh(self, value: Scalar) -> Scalar:
        return self.multiply(HALF, self.subtract(*self.both_ways(value)))

    def f_cosh(self, value: Scalar) -> Scalar:
        return self.multiply(HALF, self.add(*self.both_ways(value)))

    def both_ways(self, value: Scalar) -> tuple[Scalar, Scalar]:
        up = self.f_exp(value)
        return up, self.divide(rational(1), up)

    def f_tan(self, value: Scalar) -> Scalar:
        return self.divide(self.f_sin(value), self.f_cos(value))

    def f_cot(self, value: Scalar) -> Scalar:
        return self.divide(self.f_cos(value), self.f_sin(value))

    def f_sec(self, value: Scalar) -> Scalar:
        return self.divide(rational(1), self.f_cos(value))

    def f_csc(self, value: Scalar) -> Scalar:
        return self.divide(rational(1), self.f_sin(value))

    def f_tanh(self, value: Scalar) -> Scalar:
        return self.divide(self.f_sinh(value), self.f_cosh(value))

    def f_arcsin(self, value: Scalar, name: str = "arcsin") -> Scalar:
        square = as_rational(self.multiply(value, value)) if len(value.num) < 2 else None
        angle = INVERSES[name].get(square) if square is not None else None
        if angle is None:
            return self.opaque(name, value)
        sign = -1 if any(coefficient < 0 for coefficient in value.num.values()) else 1
        return self.multiply(rational(sign * (Fraction(*angle) if angle else 0)), symbol("pi"))

    def f_arctan(self, value: Scalar) -> Scalar:
        return self.f_arcsin(value, "arctan")

    def f_arccos(self, value: Scalar) -> Scalar:
        return self.subtract(self.multiply(HALF, symbol("pi")), self.f_arcsin(value))

    # logarithms

    def f_ln(self, value: Scalar) -> Scalar:
        if value.den is not ONE:
            return self.subtract(self.f_ln(Scalar(value.num, ONE)), self.f_ln(Scalar(value.den, ONE)))
        if not value.num:
            raise Unreadable("the logarithm of 0")
        if len(value.num) > 1:
            return self.opaque("ln", value)
        ((term, coefficient),) = value.num.items()
        if coefficient < 0:
            return self.opaque("ln", value)
        result = rational(0)
        for number, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
            factors = factor_integer(number)
            if factors is None:
                return self.opaque("ln", value)
            for prime, count in factors.items():
                result = self.add(result, Scalar({((f"l:#{prime}", 1),): Fraction(sign * count)}, ONE))
        for atom, power in term:
            result = self.add(result, self.multiply(rational(power), self.ln_of_atom(atom, Fraction(power))))
        return result

    def ln_of_atom(self, atom: str, power: Fraction) -> Scalar:
        if atom == "e":
            return rational(1)
        if is_name(atom) and power.denominator == 1 and power % 2 == 0:
            return self.opaque("ln", self.f_abs(symbol(atom)))
        if atom.startswith("x:") and "~i" not in atom and "/" not in atom and ":" not in atom[2:]:
            parts = (part.rpartition("^") for part in atom[2:].split("*"))
            return Scalar({tuple((name, Fraction(count)) for name, _, count in parts): Fraction(1)}, ONE)
        if ":" in atom or atom == "~i":
            return self.opaque("ln", symbol(atom))
        return symbol(f"l:{atom}")

    def f_log(self, value: Scalar, base: Scalar | None = None) -> Scalar:
        below = self.f_ln(rational(10) if base is None else base)
        return self.divide(self.f_ln(value), below)

    def f_lg(self, value: Scalar) -> Scalar:
        return self.f_log(value)

    # others

    def f_abs(self, value: Scalar) -> Scalar:
        if value.den is ONE and value.num.keys() == {(), (("~i", 1),)}:
            return self.root(rational(sum(part**2 for part in value.num.values())), 2)
        if len(value.num) != 1 or value.den is not ONE:
            lead = value.num[min(value.num, key=repr)] if value.num else 0
            return self.opaque("abs", self.negate(value) if lead < 0 else value)
        ((term, coefficient),) = value.num.items()
        result = rational(abs(coefficient))
        for atom, power in term:
            plain = symbol(atom) if power == 1 else Scalar({((atom, power),): Fraction(1)}, ONE)
            positive = atom[0] == "#" or atom in ("pi", "e") or atom.startswith("f:abs") or power % 2 == 0
            if atom == "~i":
                continue
            if not positive and is_name(atom) and power.denominator == 1:
                name = Scalar({((f"f:abs({atom})", 1),): Fraction(1)}, ONE)
                result = self.multiply(result, self.whole_power(name, int(power)))
            else:
                result = self.multiply(result, plain if positive else self.opaque("abs", plain))
        return result

    def f_factorial(self, value: Scalar) -> Scalar:
        if as_rational(value) is not None or value.den is not ONE:
            return self.factorial(value)
        shift = value.num.get((), Fraction(0))
        if shift.denominator != 1 or not 0 < abs(shift) <= MOST_SHIFT:
            return self.opaque("factorial", value)
        base = self.subtract(value, rational(shift))
        result = self.opaque("factorial", base)
        for k in range(1, int(abs(shift)) + 1):
            if shift > 0:
                result = self.multiply(result, self.add(base, rational(k)))
            else:
                result = self.divide(result, self.add(base, rational(1 - k)))
        return result

    def f_binomial(self, upper: Scalar, lower: Scalar) -> Scalar:
        n, k = as_rational(upper), as_rational(lower)
        if n is not None and k is not None:
            return self.binomial(upper, lower)
        if k is not None and k.denominator == 1 and 0 <= k <= MOST_SHIFT:
            product = rational(1)
            for j in range(int(k)):
                step = self.divide(self.subtract(upper, rational(j)), rational(j + 1))
                product = self.multiply(product, step)
            return product
        below = self.multiply(self.f_factorial(lower), self.f_factorial(self.subtract(upper, lower)))
        return self.divide(self.f_factorial(upper), below)
