"""Numbers whose equality is that of their parts, and the ways to write them; how a production is registered."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple


class Pair(NamedTuple):
    answer: str
    gold: str
    equal: bool
    policy: str = "math"


@dataclass(frozen=True)
class Production:
    kinds: tuple[str, ...]
    make: Callable[[random.Random], Pair]


PRODUCTIONS: list[Production] = []


def production(*kinds: str) -> Callable[[Callable[[random.Random], Pair]], Callable[[random.Random], Pair]]:
    def register(make: Callable[[random.Random], Pair]) -> Callable[[random.Random], Pair]:
        PRODUCTIONS.append(Production(kinds, make))
        return make

    return register


def pairs(count: int, seed: int) -> list[tuple[Production, Pair]]:
    """So many pairs, the productions in turn."""
    rng = random.Random(seed)
    return [(each, each.make(rng)) for each in (PRODUCTIONS[k % len(PRODUCTIONS)] for k in range(count))]


def box(text: str) -> str:
    return f"\\boxed{{{text}}}"


def boxed_first(texts: tuple[str, str]) -> tuple[str, str]:
    return box(texts[0]), texts[1]


def rational(rng: random.Random, most: int = 60) -> Fraction:
    return Fraction(rng.randint(-most, most), rng.choice((1, 1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 25)))


def nudged(rng: random.Random, value: Fraction) -> Fraction:
    """Another number: a digit, the sign, or the two halves of the fraction changed."""
    others = [value + 1, value - 1, -value, value + Fraction(1, 10), value * 10, value + Fraction(1, value.denominator)]
    others += [1 / value] if value else []
    return rng.choice([other for other in others if other != value])


def decimal(value: Fraction) -> str | None:
    for places in range(1, 7):
        if (value * 10**places).denominator == 1:
            whole = abs(int(value * 10**places))
            digits = str(whole).rjust(places + 1, "0")
            return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    return None


def fraction_spellings(value: Fraction, scale: int) -> list[str]:
    sign, top, below = "-" if value < 0 else "", abs(value.numerator) * scale, value.denominator * scale
    found = [f"{sign}\\frac{{{top}}}{{{below}}}", f"{sign}\\dfrac{{{top}}}{{{below}}}", f"{sign}{top}/{below}"]
    found += [
        f"\\frac{{{sign}{top}}}{{{below}}}",
        f"{sign}{{{top} \\over {below}}}",
        f"{sign}\\nicefrac{{{top}}}{{{below}}}",
    ]
    if top < 10 and below < 10:
        found += [f"{sign}\\frac{top}{below}", f"{sign}\\frac {top} {below}"]
    whole, rest = divmod(abs(value.numerator), value.denominator)
    if whole and rest and scale == 1:
        found += [f"{sign}{whole}\\frac{{{rest}}}{{{below}}}", f"{sign}{whole} {rest}/{below}"]
    return found


def spelled(rng: random.Random, value: Fraction) -> str:
    """A rational number in a notation that holds inside brackets, too."""
    if value.denominator == 1:
        n = value.numerator
        found = [str(n)] * 4 + [f"{n}.0", f"\\frac{{{2 * n}}}{{2}}", f"{{{n}}}", f"\\mathbf{{{n}}}"]
        return rng.choice(found + ([f"\\sqrt{{{n * n}}}"] if n >= 0 else [f"- {-n}"]))
    found = fraction_spellings(value, rng.choice((1, 1, 1, 2, 3)))
    if (written := decimal(value)) is not None:
        found += [written, written + "0", written.replace("0.", ".", 1) if written.startswith("0.") else written]
    return rng.choice(found)


class Number(NamedTuple):
    """p + q r, r one of sqrt(n), pi, or nothing."""

    p: Fraction
    q: Fraction = Fraction(0)
    r: str = ""  # "sqrt 2", "pi"

    def text(self, rng: random.Random) -> str:
        if not self.q:
            return spelled(rng, self.p)
        product = self._product(rng)
        if not self.p:
            return product
        plain = spelled(rng, self.p)
        if self.p < 0 and not plain.startswith(("-", "(")):
            plain = f"-{spelled(rng, -self.p)}"
        if rng.random() < 0.5 and not product.startswith("-"):
            return f"{plain}+{product}"
        return f"{product}{'+' if self.p >= 0 else ''}{plain}"

    def _product(self, rng: random.Random) -> str:
        q, name = self.q, self.r
        root = "\\pi" if name == "pi" else f"\\sqrt{{{name[5:]}}}"
        plain = rng.choice((root, root, {"pi": "π"}.get(name, "√" + name[5:])))
        if abs(q) == 1:
            return ("-" if q < 0 else "") + plain
        if q.denominator == 1 and name != "pi" and rng.random() < 0.3:
            return ("-" if q < 0 else "") + f"\\sqrt{{{q.numerator**2 * int(name[5:])}}}"
        if q.denominator == 1:
            return f"{q.numerator}{rng.choice(('', '', chr(92) + 'cdot ', '*'))}{plain}"
        sign, top = "-" if q < 0 else "", "" if abs(q.numerator) == 1 else str(abs(q.numerator))
        return f"{sign}\\frac{{{top}{root}}}{{{q.denominator}}}"

    def other(self, rng: random.Random) -> "Number":
        if self.q and rng.random() < 0.5:
            q = nudged(rng, self.q)
            return self._replace(q=q)
        return self._replace(p=nudged(rng, self.p))


def number(rng: random.Random) -> Number:
    shape = rng.random()
    if shape < 0.6:
        return Number(rational(rng))
    root = rng.choice(("sqrt 2", "sqrt 3", "sqrt 5", "sqrt 7", "sqrt 10", "pi"))
    q = Fraction(rng.choice((-3, -2, -1, 1, 2, 3, 5)), rng.choice((1, 1, 2, 3)))
    return Number(rational(rng, 9) if shape > 0.8 else Fraction(0), q, root)


def numbers(rng: random.Random, low: int = 2, high: int = 4) -> list[Number]:
    """Different ones."""
    found: list[Number] = []
    count = rng.randint(low, high)
    while len(found) < count:
        new = number(rng)
        if new not in found:
            found.append(new)
    return found


def whole(rng: random.Random, low: int = 2, high: int = 99) -> int:
    return rng.randint(low, high)


def truth(rng: random.Random) -> bool:
    return rng.random() < 0.5
