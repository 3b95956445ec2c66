r"""Pairs of an answer and a reference whose truth is known by construction: equal in another notation, or different by one step.

Nothing here knows the verifier. A number is a Fraction, or p + q sqrt(n) with n square-free, or a multiple of pi, so that two are
equal exactly if their parts are; a polynomial is its coefficients; a compound is its parts. Each production makes one pair and
names the kinds of the shared cases that it stands for. Compounds hold numbers or compounds of numbers: two deep.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import NamedTuple

import sympy


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


# numbers


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


@production(
    "fraction spellings", "plain mixed numbers", "constants inside fractions", "\\div and mixed order", "signed answers"
)
def plain_number(rng: random.Random) -> Pair:
    value, equal = number(rng), truth(rng)
    shown = value if equal else value.other(rng)
    text = shown.text(rng)
    text = text if rng.random() < 0.8 or "over" in text else text.replace("-", "−")
    return Pair(box(text), value.text(rng), equal)


@production("thousands separators with currency", "base subscript, thin-space thousands")
def thousands(rng: random.Random) -> Pair:
    value, equal = rng.randint(10**4, 10**8), truth(rng)
    shown = value if equal else rng.choice((value + 1, value * 10, value // 1000, value + 1000))
    groups = f"{shown:,}"
    styles = [",", "{,}", ",\\!", "\\,", "\\ ", " ", "~", "."] if shown >= 10**6 else [",", "{,}", ",\\!", "\\,", " "]
    text = groups.replace(",", rng.choice(styles))
    return Pair(box(rng.choice(("", "", "\\$", "€")) + text), rng.choice((str(value), f"{value:,}")), equal)


@production("list without spaces against decimal")
def list_or_decimal(rng: random.Random) -> Pair:
    a, b = sorted(rng.sample(range(1, 40), 2))
    if truth(rng):
        return Pair(box(rng.choice((f"{b}, {a}", f"{a},{b}", f"{a} and {b}"))), f"{a},{b}", True)
    return Pair(box(f"{a}.{b}"), f"{a},{b}", False)


@production("leading zeros")
def leading_zeros(rng: random.Random) -> Pair:
    n, equal, policy = whole(rng, 1, 99), truth(rng), rng.choice(("math", "aime"))
    shown = n if equal else rng.choice((n * 10, n + 1, 100 - n if n != 50 else 3))
    return Pair(box(rng.choice((str(shown), f"{shown:03d}", f"{shown}.0", f"{shown}."))), f"{n:03d}", equal, policy)


@production("scientific notation")
def scientific(rng: random.Random) -> Pair:
    mantissa, power, equal = rng.randint(11, 99), rng.choice((-7, -4, -3, 3, 5, 8)), truth(rng)
    shown = power if equal else rng.choice((power + 1, -power))
    text = f"{mantissa // 10}.{mantissa % 10}"
    styles = (f"{text} \\times 10^{{{shown}}}", f"{text}\\cdot10^{{{shown}}}", f"{text}e{shown}", f"{text}E{shown}")
    value = Fraction(mantissa, 10) * Fraction(10) ** power
    return Pair(
        box(rng.choice(styles)), rng.choice((decimal(value) or str(value), f"{text}\\times 10^{{{power}}}")), equal
    )


@production("repeating decimals")
def repeating(rng: random.Random) -> Pair:
    lead, period = rng.choice(("", "1", "05")), str(rng.choice((3, 6, 12, 27, 142857, 45)))
    scale = 10 ** len(lead)
    value = Fraction(int(lead or 0), scale) + Fraction(int(period), (10 ** len(period) - 1) * scale)
    equal = truth(rng)
    styles = [f"0.{lead}\\overline{{{period}}}", f"0.{lead}({period})", f"0.{lead}{period * 3}..."]
    wrong = [f"0.{lead}{period * 3}", f"0.{lead}\\overline{{{int(period) + 1}}}"]
    return Pair(
        box(rng.choice(styles if equal else wrong)), f"\\frac{{{value.numerator}}}{{{value.denominator}}}", equal
    )


@production("percent sign", "decimal percent")
def percent(rng: random.Random) -> Pair:
    value = Fraction(rng.randint(1, 999), 10)
    shown = decimal(value) or str(value)
    good = [
        f"{shown}\\%",
        f"{shown}%",
        f"{shown} \\%",
        f"{shown}\\text{{ percent}}",
        f"{shown} per cent",
        f"{shown} ％",
    ]
    good += [decimal(value / 100) or "", f"\\frac{{{value.numerator}}}{{{100 * value.denominator}}}"]
    wrong = [shown, f"{decimal(value / 10)}\\%", f"{decimal(value + 1)}\\%", f"{shown}‰"]
    equal = truth(rng)
    text = rng.choice(good if equal else wrong)
    return Pair(rng.choice((box(text), f"The answer is {text}.")), f"{shown}\\%", equal)


@production("base subscript, thin-space thousands")
def based(rng: random.Random) -> Pair:
    base, value, equal = rng.choice((2, 3, 5, 8, 16)), rng.randint(20, 400), truth(rng)

    def digits(n: int, b: int) -> str:
        return (digits(n // b, b) if n >= b else "") + "0123456789ABCDEF"[n % b]

    shown = digits(value if equal else value + rng.choice((1, base)), base)
    if not equal and rng.random() < 0.3:
        return Pair(box(f"{digits(value, base)}_{{{base + 1}}}"), f"{digits(value, base)}_{{{base}}}", False)
    forms = [f"{shown}_{{{base}}}", f"{shown}_{{({base})}}", f"{shown}_{{\\text{{{base}}}}}"]
    return Pair(box(rng.choice(forms)), f"{digits(value, base)}_{{{base}}}", equal)


# what stands around an answer

WRAPPERS: dict[str, list[str]] = {
    "Markdown bold answers": ["**Answer:** {}", "**Answer: {}**", "__Answer__: {}", "### Final Answer\n\n{}", "Answer: ***{}***"],
    "box in prose, display maths": ["The value is \\boxed{{{}}}.", "Thus \\[ \\boxed{{{}}} \\]", "Thus the answer is \\( {} \\)."],
    "several boxes / instruction repeated": ["I put the answer in \\boxed{{}}.\n\nSo \\boxed{{{}}}", "\\boxed{{7}} is wrong; \\boxed{{{}}}"],
    "odd closings after the box": ["\\(\\boxed{{{}}}\\)</answer><|im_end|>", "\\boxed{{{}}}<|endoftext|>", "$\\boxed{{{}}}$</s>"],
    "<answer> tags": ["<think>it is 7</think><answer>{}</answer>", "<think>a</think><answer>7</answer> no <answer> ${}$ </answer>"],
    "no think tags / other tags": ["so \\boxed{{7}} </think> \\boxed{{{}}}"],
    "Answer: with code/latex ticks": ["Answer: `{}`", "Answer: ${}$", "```\n{}\n```", "JSON"],
    "answer phrases in other languages": [
        "Die Antwort lautet ${}$.", "La réponse est ${}$.", "La respuesta es ${}$.", "答案是 ${}$。", "答えは ${}$ です。",
        "정답은 ${}$입니다.", "Ответ: ${}$.",
    ],
    "the-answer-is phrasings": ["The answer is ${}$.", "My final answer is ${}$", "answer = {}", "Hence the final answer is ${}$."],
    "answer followed by a comma clause": ["The answer is ${}$, in total, so we are done.", "The answer is ${}$ — no more.", "#### {}"],
    "fraction after marker": ["The answer is {}"],
    "decorated boxes": [
        "\\boxed {{{}}}", "\\boxed{{\\underline{{{}}}}}", "\\boxed{{{{\\bf {}}}}}", "\\boxed{{= {}}}", "\\boxed{{${}$}}",
        "\\boxed{{\\mathbf{{{}}}}}", "\\boxed{{{}.}}", "\\boxed{{\\color{{red}}{{{}}}}}", "\\boxed{{N = {}}}",
    ],
    "number inside \\text": ["\\boxed{{\\text{{{}}}}}", "\\boxed{{\\textbf{{{}}}}}"],
    "long boxed answer": ["xxxxxxxx " * 300 + "\\boxed{{{}}}"],
    "statement after the box": ["\\boxed{{7}}\n\nCorrection: the final answer is ${}$."],
}  # fmt: skip


@production(*WRAPPERS)
def wrapped(rng: random.Random) -> Pair:
    value, equal = Fraction(rng.randint(8, 400), rng.choice((1, 1, 1, 3))), truth(rng)
    shown = value if equal else nudged(rng, value)
    plain = str(shown) if shown.denominator == 1 else f"{shown.numerator}/{shown.denominator}"
    wrapper = rng.choice(WRAPPERS[rng.choice(list(WRAPPERS))])
    text = json.dumps({"answer": plain}) if wrapper == "JSON" else wrapper.format(plain)
    return Pair(text, str(value), equal)


@production("truncated mid-derivation", "roots given where an interval is asked")
def cut_off(rng: random.Random) -> Pair:
    n = whole(rng)
    text = rng.choice(
        (
            f"so \\boxed{{{n}",
            f"We get {n} + 1 = {n + 1}, then",
            f"The answer is $\\frac{{{n}}}{{",
            f"\\boxed{{{n}}} and \\boxed{{{n + 1}",
            "The answer is",
        )
    )
    return Pair(text, str(n), False) if truth(rng) else Pair(box(f"-{n}, {n}"), f"[-{n},{n}]", False)


CHANGES = (
    "not {}", "half of {}", "the square of {}", "{} squared", "{} less than 100", "{} to 1", "{} thousand", "{} over 2", "at most {}",
    "{} out of 100", "between {} and 900", "wrong: {}", "{} or more", "{} to the 4", "{} tens", "{} eighths", "twice {}",
)  # fmt: skip


@production(
    "the-answer-is phrasings", "stated answer changed by a word", "prose around one number in a box", "words that multiply",
    "formulas that differ only in \\text{}",
)  # fmt: skip
def changed_by_words(rng: random.Random) -> Pair:
    n = whole(rng)
    change = rng.choice(CHANGES)
    if truth(rng):
        noun = rng.choice(("apples", "marbles", "pairs of shoes", "ways", "square units", "cubic feet", "red balls"))
        text = rng.choice((box(f"{n}\\text{{ {noun}}}"), f"The answer is {n} {noun}."))
        return Pair(text, str(n), True)
    before, _, after = change.partition("{}")
    boxed = (f"\\text{{{before}}}" if before else "") + str(n) + (f"\\text{{{after}}}" if after else "")
    return Pair(rng.choice((f"The answer is {change.format(n)}.", box(boxed))), str(n), False)


MULTIPLIERS = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}


@production("words that multiply")
def multiplied(rng: random.Random) -> Pair:
    n, equal, word = whole(rng, 2, 30), truth(rng), rng.choice(list(MULTIPLIERS))
    gold = n * MULTIPLIERS[word] if equal else rng.choice((n, n * MULTIPLIERS[word] * 10))
    return Pair(rng.choice((box(f"{n}\\text{{ {word}}}"), f"{n} {word}")), str(gold), equal)


# quantities

UNITS = {  # spellings of one unit, and its size in a base unit
    "length": [(("cm", "centimeters"), Fraction(1, 100)), (("m", "meters", "metres"), Fraction(1)), (("km", "kilometers"), Fraction(1000))],
    "mass": [(("g", "grams"), Fraction(1)), (("kg", "kilograms"), Fraction(1000))],
    "time": [(("s", "seconds"), Fraction(1)), (("minutes", "min"), Fraction(60)), (("hours", "hr"), Fraction(3600))],
    "imperial": [(("inches", "in"), Fraction(1)), (("feet", "ft"), Fraction(12)), (("yards", "yd"), Fraction(36))],
    "area": [(("cm^2", "square centimeters"), Fraction(1, 10**4)), (("m^2", "square meters"), Fraction(1))],
    "speed": [(("m/s", "meters per second"), Fraction(1)), (("km/h", "kilometers per hour"), Fraction(5, 18))],
}  # fmt: skip


def with_unit(rng: random.Random, value: Fraction, unit: str) -> str:
    shown = spelled(rng, value)
    name, _, power = unit.partition("^")
    tail = f"^{power}" if power else ""
    styles = [f"{shown}\\text{{ {name}}}{tail}", f"{shown}\\,\\mathrm{{{name}}}{tail}"]
    return rng.choice(styles if " " not in unit else [f"{shown}\\text{{ {unit}}}"])


@production("different units", "'ft' in \\infty and \\left", "MATH-500 format list")
def quantity(rng: random.Random) -> Pair:
    dimension = rng.choice(list(UNITS))
    value, way = Fraction(rng.randint(1, 90)), rng.random()
    (names, size), (others, other_size) = (rng.choice(UNITS[dimension]) for _ in range(2))
    gold = with_unit(rng, value, rng.choice(names))
    if way < 0.2:
        return Pair(box(spelled(rng, value)), gold, True)
    if way < 0.35:
        return Pair(box(gold), spelled(rng, value), True)
    if way < 0.6:
        return Pair(box(with_unit(rng, value * size / other_size, rng.choice(others))), gold, True)
    if way < 0.8 and size != other_size:
        return Pair(box(with_unit(rng, value, rng.choice(others))), gold, False)
    if way < 0.9:
        foreign = rng.choice([d for d in UNITS if d not in (dimension, "imperial", "length")])
        return Pair(box(with_unit(rng, value, rng.choice(rng.choice(UNITS[foreign])[0]))), gold, False)
    return Pair(box(with_unit(rng, value + 1, rng.choice(names))), gold, False)


THINGS = ("chickens", "rabbits", "apples", "coins", "boys", "girls")


@production("amounts of different things")
def amounts(rng: random.Random) -> Pair:
    (a, b), (first, second), equal = rng.sample(range(2, 40), 2), rng.sample(THINGS, 2), truth(rng)
    parts = [(a, first), (b, second)] if equal else [(b, first), (a, second)]
    rng.shuffle(parts)
    joint = rng.choice((" and ", ", "))
    text = joint.join(f"{n} {thing}" for n, thing in parts)
    boxed = (f"\\text{{{joint}}}" if "and" in joint else joint).join(f"{n}\\text{{ {thing}}}" for n, thing in parts)
    return Pair(rng.choice((box(boxed), box(text), f"The answer is {text}.")), f"{a} {first} and {b} {second}", equal)


@production("ratios", "ratio read as a clock")
def ratio(rng: random.Random) -> Pair:
    parts = rng.sample(range(1, 12), rng.choice((2, 2, 3)))
    shrink = gcd(*parts)
    parts = [part // shrink for part in parts]
    k, equal = rng.choice((1, 2, 3, 5)), truth(rng)
    shown = [k * part for part in parts] if equal else [k * part for part in parts[:-1]] + [k * parts[-1] + 1]
    if not equal and rng.random() < 0.4 and parts[0] != parts[-1]:
        shown = parts[::-1]
    joint = rng.choice((":", " : ", "\\text{ to }" if len(parts) == 2 else ":"))
    return Pair(box(joint.join(map(str, shown))), ":".join(map(str, parts)), equal)


# lists, tuples, sets, intervals


def changed(rng: random.Random, items: list[Number]) -> list[Number]:
    k = rng.randrange(len(items))
    new = items[k].other(rng)
    while new in items:
        new = new.other(rng)
    return [*items[:k], new, *items[k + 1 :]]


def joined(rng: random.Random, items: list[Number], joint: str = ", ") -> str:
    return joint.join(item.text(rng) for item in items)


@production("points with \\left \\right", "words and relations beside formulas")
def ordered(rng: random.Random) -> Pair:
    items, way = numbers(rng, 2, 3), rng.random()
    gold = f"\\left({joined(rng, items)}\\right)"
    if way < 0.5:
        return Pair(box(f"({joined(rng, items, rng.choice((', ', ',', '; ')))})"), gold, True)
    if way < 0.7:
        return Pair(box(f"({joined(rng, items[::-1])})"), gold, False)
    if way < 0.85:
        return Pair(box(f"\\{{{joined(rng, items)}\\}}"), gold, False)
    return Pair(box(f"({joined(rng, changed(rng, items))})"), gold, False)


@production("find-all, subset", "multi-slot as several boxes", "MATH-500 format list")
def unordered(rng: random.Random) -> Pair:
    items, way = numbers(rng, 2, 4), rng.random()
    gold = rng.choice(("{}", "\\{{{}\\}}")).format(joined(rng, items))
    shuffled = rng.sample(items, len(items))
    if way >= 0.5:
        shuffled = rng.choice((items[:-1], changed(rng, items), [*items, Number(Fraction(997))]))
    styles = [box(joined(rng, shuffled)), box(f"\\{{{joined(rng, shuffled)}\\}}")]
    if "{" not in gold[:2]:
        styles += [
            ", ".join(box(item.text(rng)) for item in shuffled),
            box(" \\text{ or } ".join(f"x={i.text(rng)}" for i in shuffled)),
        ]
        styles += [box(joined(rng, shuffled, " \\text{ and } "))]
    if len(shuffled) == 1 and way >= 0.5:
        styles = styles[:1]
    return Pair(rng.choice(styles), gold, way < 0.5)


@production("IMO-AnswerBench answers", "find-all, subset")
def nested(rng: random.Random) -> Pair:
    """Points in a list or set."""
    points, equal = [numbers(rng, 2, 2) for _ in range(rng.randint(2, 3))], truth(rng)
    shown = [list(point) for point in points]
    if not equal:
        k = rng.randrange(len(shown))
        shown[k] = shown[k][::-1] if rng.random() < 0.5 and shown[k][::-1] not in shown else changed(rng, shown[k])
        if (
            sorted(map(tuple, shown)) == sorted(map(tuple, points))
            or any(point not in points for point in shown) is False
        ):
            shown[k] = [Number(Fraction(991)), shown[k][1]]
    rng.shuffle(shown)
    frame = rng.choice(("{}", "\\{{{}\\}}"))
    written = [", ".join(f"({joined(rng, point)})" for point in side) for side in (shown, points)]
    return Pair(box(frame.format(written[0])), frame.format(written[1]), equal)


class Span(NamedTuple):
    low: Number | None
    closed: bool
    high: Number | None
    closed_too: bool

    def interval(self, rng: random.Random) -> str:
        low = self.low.text(rng) if self.low else rng.choice(("-\\infty", "-∞"))
        high = self.high.text(rng) if self.high else rng.choice(("\\infty", "+\\infty", "∞"))
        return f"{'[' if self.closed else '('}{low}, {high}{']' if self.closed_too else ')'}"

    def inequality(self, rng: random.Random, name: str = "x") -> str:
        below = rng.choice(("\\le", "\\leq", "≤")) + " " if self.closed else "<"
        above = rng.choice(("\\le", "\\leq", "≤")) + " " if self.closed_too else "<"
        if self.low and self.high:
            return f"{self.low.text(rng)}{below}{name}{above}{self.high.text(rng)}"
        if self.low:
            more = rng.choice(("\\ge", "\\geq")) + " " if self.closed else ">"
            return rng.choice((f"{name}{more}{self.low.text(rng)}", f"{self.low.text(rng)}{below}{name}"))
        return f"{name}{above}{self.high.text(rng)}" if self.high else "x \\in \\mathbb{R}"


def span(rng: random.Random) -> Span:
    low = Number(Fraction(rng.randint(-30, 0), rng.choice((1, 2))))
    high = rng.choice(
        (Number(Fraction(rng.randint(1, 30), rng.choice((1, 3)))), Number(Fraction(1), Fraction(1), "sqrt 2"))
    )
    way = rng.random()
    if way < 0.25:
        return Span(None, False, high, truth(rng))
    if way < 0.5:
        return Span(low, truth(rng), None, False)
    return Span(low, truth(rng), high, truth(rng))


def other_span(rng: random.Random, given: Span) -> Span:
    if given.low and (not given.high or truth(rng)):
        return given._replace(closed=not given.closed) if truth(rng) else given._replace(low=Number(given.low.p - 1))
    return (
        given._replace(closed_too=not given.closed_too) if truth(rng) else given._replace(high=Number(given.high.p + 9))
    )


def as_set(rng: random.Random, given: Span) -> str:
    builder = f"\\{{x {rng.choice(('|', chr(92) + 'mid', ':'))} {given.inequality(rng)}\\}}"
    return rng.choice((given.interval(rng), given.inequality(rng), f"x\\in {given.interval(rng)}", builder))


@production("interval against inequality, both ways", "'ft' in \\infty and \\left", "box in prose, display maths")
def interval(rng: random.Random) -> Pair:
    given, equal = span(rng), truth(rng)
    return Pair(box(as_set(rng, given if equal else other_span(rng, given))), as_set(rng, given), equal)


@production("interval against inequality, both ways", "words and relations beside formulas")
def union(rng: random.Random) -> Pair:
    a, b = sorted(rng.sample(range(-20, 20), 2))
    left, right = Span(None, False, Number(Fraction(a)), truth(rng)), Span(Number(Fraction(b)), truth(rng), None, False)
    way = rng.random()
    shown = (left, right) if way < 0.5 else rng.choice(((other_span(rng, left), right), (left, other_span(rng, right))))
    gold = f"{left.interval(rng)}\\cup{right.interval(rng)}"
    if 0.5 <= way < 0.65:
        return Pair(box(f"x<{b} \\text{{ or }} x>{a}"), f"x<{b} \\text{{ and }} x>{a}", False)
    styles = [f"{shown[1].interval(rng)}\\cup {shown[0].interval(rng)}"]
    styles += [f"{shown[0].inequality(rng)} \\text{{ or }} {shown[1].inequality(rng)}"]
    return Pair(box(rng.choice(styles)), gold, way < 0.5)


@production("interval against inequality, both ways", "words and relations beside formulas")
def one_point_less(rng: random.Random) -> Pair:
    a, equal = rng.randint(-9, 9), truth(rng)
    shown = a if equal else a + 1
    styles = (
        f"x\\ne {shown}",
        f"x \\neq {shown}",
        f"(-\\infty,{shown})\\cup({shown},\\infty)",
        f"\\mathbb{{R}}\\setminus\\{{{shown}\\}}",
    )
    return Pair(box(rng.choice(styles)), f"(-\\infty,{a})\\cup({a},\\infty)", equal)


# labels, equations, formulas


@production(
    "other variable, other order of labels", "several boxes / instruction repeated", "determinant is not its matrix"
)
def labelled(rng: random.Random) -> Pair:
    (a, b), way = numbers(rng, 2, 2), rng.random()
    names = rng.choice((("x", "y"), ("a", "b"), ("m", "n"), ("p", "q")))
    shown = [f"{names[0]}={a.text(rng)}", f"{names[1]}={b.text(rng)}"]
    if way >= 0.5:
        shown = [f"{names[0]}={b.text(rng)}", f"{names[1]}={a.text(rng)}"] if truth(rng) else shown[:1]
    rng.shuffle(shown)
    gold = rng.choice((f"({a.text(rng)}, {b.text(rng)})", f"{names[0]}={a.text(rng)}, {names[1]}={b.text(rng)}"))
    cases = box("\\begin{cases}" + "\\\\".join(shown) + "\\end{cases}")
    boxes = ", ".join(f"{text.split('=')[0]} = \\boxed{{{text.split('=')[1]}}}" for text in shown)
    return Pair(
        rng.choice([box(", ".join(shown)), cases, boxes] if len(shown) == 2 else [box(shown[0])]), gold, way < 0.5
    )


@production("other variable, other order of labels", "AIME: m+n=33 in the box", "decorated boxes")
def one_label(rng: random.Random) -> Pair:
    value, way = number(rng), rng.random()
    if way < 0.4:
        name = rng.choice(("x", "n", "k", "f(2)", "P(A)", "\\angle A", "AB"))
        return Pair(
            box(f"{name} = {value.text(rng)}"), rng.choice((value.text(rng), f"{name}={value.text(rng)}")), True
        )
    n = whole(rng)
    if way < 0.55:
        a = rng.randint(1, n - 1) if n > 1 else 1
        return Pair(
            box(rng.choice((f"m+n = {n}", f"p+q+r={n}", f"{a}+{n - a}={n}", f"m+n={a}+{n - a}={n}"))), str(n), True
        )
    wrong = [
        (f"x={n}", f"y={n}"),
        (f"m+n={n}", str(n + 1)),
        (f"x={n}={n + 1}", str(n + 1)),
        (f"x={n + 1}={n}", str(n + 1)),
    ]
    wrong += [(f"{n}={n}", f"{n + 1}={n + 1}"), ("1=2", f"{n}"), (f"x={n}", f"x\\ne {n}"), ("0=0", "\\log_2(8)=3")]
    return Pair(*_boxed_first(rng.choice(wrong)), False)


def _boxed_first(texts: tuple[str, str]) -> tuple[str, str]:
    return box(texts[0]), texts[1]


@production("equation, solved for y", "ellipse equations", "matrices, trailing \\\\, radicals")
def line(rng: random.Random) -> Pair:
    a, b, c = (rng.choice((-7, -5, -3, -2, 2, 3, 4, 6)) for _ in range(3))
    k, equal = rng.choice((-3, -1, 1, 2, 5)), truth(rng)
    d = c if equal else c + rng.choice((1, -1)) if abs(c) != 1 else c + 1
    slope, offset = Fraction(-a, b), Fraction(-d, b)
    styles = [
        f"{k * a}x{k * b:+d}y{k * d:+d}=0",
        f"{k * a}x{k * b:+d}y={-k * d}",
        f"y={spelled(rng, slope)}x+({spelled(rng, offset)})",
    ]
    text = styles[rng.randrange(2)] if slope.denominator > 1 else rng.choice(styles)
    return Pair(box(text), f"{a}x{b:+d}y{c:+d}=0", equal)


@production("ellipse equations")
def circle(rng: random.Random) -> Pair:
    a, b, r, equal = rng.randint(-5, 5), rng.randint(-5, 5), rng.randint(1, 6), truth(rng)
    s = r if equal else r + 1
    return Pair(
        box(f"(x{-a:+d})^2+(y{-b:+d})^2={s * s}"), f"x^2+y^2{-2 * a:+d}x{-2 * b:+d}y{a * a + b * b - r * r:+d}=0", equal
    )


@production(
    "plain (program-style) formulas",
    "reference with a variable after a space",
    "h(a+b)/2",
    "constants inside fractions",
)
def polynomial(rng: random.Random) -> Pair:
    x = sympy.Symbol(rng.choice("xnt"))
    roots = [rng.randint(-6, 6) for _ in range(rng.choice((2, 2, 3)))]
    lead, equal = rng.choice((1, 1, 2, -3)), truth(rng)
    expanded = sympy.expand(lead * sympy.prod([x - root for root in roots]))
    shown = expanded if equal else sympy.expand(expanded + rng.choice((1, x, -x, 2)))
    factored = "".join(f"({x}{-root:+d})" for root in roots)
    lead_text = {1: "", -1: "-"}.get(lead, str(lead))
    styles = [sympy.latex(shown), str(shown), str(shown).replace("**", "^").replace("*", " ")]
    if equal:
        styles += [lead_text + factored, sympy.latex(sympy.horner(shown))]
    return Pair(box(rng.choice(styles)), sympy.latex(expanded), equal)


IDENTITIES = [  # equal, and different, with x and y for letters, a and b for numbers
    ("sin(2{x})", "2\\sin {x}\\cos {x}", True), ("\\cos^2 {x}+\\sin^2 {x}", "1", True), ("\\sec^2({x})", "\\tan^2 {x}+1", True),
    ("-sin({x})", "\\sin(-{x})", True), ("exp({a}{x})", "e^{{{a}{x}}}", True), ("{a}*exp({b})", "{a}e^{{{b}}}", True),
    ("ln({ab})", "\\ln {a}+\\ln {b}", True), ("{a}ln({b})", "ln({b}^{a})", True), ("\\frac{{\\ln {b}}}{{\\ln {a}}}", "\\log_{{{a}}} {b}", True),
    ("\\operatorname{{sin}}({x})", "\\sin {x}", True), ("\\mathrm{{ln}}\\,{a}", "\\ln {a}", True), ("sqrt({x}^2)", "|{x}|", True),
    ("\\frac{{{x}+{a}}}{{{b}}}", "\\frac{{{x}}}{{{b}}}+\\frac{{{a}}}{{{b}}}", True), ("\\ln({x}^2)", "2\\ln|{x}|", True),
    ("\\sqrt[3]{{{x}}}", "{x}^{{1/3}}", True), ("({x}+{a})!", "({x}+{a})({x}+{a}-1)!", True), ("\\max({a},{b})", "{b}", True),
    ("\\sin 2{x}", "2\\sin {x}", False), ("ln({a})+ln({b})", "ln({a}+{b})", False), ("cos(0)", "0", False), ("{a}exp({x})", "exp({a}{x})", False),
    ("\\arctan(1)/{a}", "arctan(1/{a})", False), ("\\log_{{{a}}} {x}", "\\log_{{{b}}} {x}", False), ("f({x}+{a})", "f({x})+f({a})", False),
    ("{x}", "|{x}|", False), ("f''({x})={a}", "f'({x})={a}", False), ("\\sqrt{{{x}+{a}}}", "\\sqrt{{{x}}}+\\sqrt{{{a}}}", False),
    ("tan({x})/{a}", "\\tan({x}/{a})", False), ("{a}{x}-{b}", "{a} {x}-{b} m", False), ("{a}^{{{x}}}", "{x}^{a}", False),
    ("√{aa}", "{a}", True), ("√{aa}", "{last}", False), ("{b}√{aa}", "{b}0", False), ("sqrt({aa})", "{a}", True),
    ("\\tanh({big})", "1", False), ("\\sin(10^{{-{big}}})", "10^{{-{big}}}", False), ("\\sqrt{{10^{{{big2}}}+1}}", "10^{{{big}}}", False),
    ("e^{{i\\pi}}", "-1", True), ("2\\sin 18^\\circ", "\\frac{{\\sqrt5-1}}{{2}}", True), ("\\binom{{{b}}}{{2}}", "{choose}", True),
    ("\\sqrt{{{nest}+2\\sqrt{{{ab}}}}}", "\\sqrt{{{a}}}+\\sqrt{{{b}}}", True), ("{a}+{b}i", "{b}i+{a}", True), ("{a}+{b}i", "{a}-{b}i", False),
]  # fmt: skip


@production(
    "plain function names on both sides", "absolute values, roots, integer exponents", "unicode root of two digits",
    "symbol case and real identities", "root with round brackets", "plain (program-style) formulas",
)  # fmt: skip
def identity(rng: random.Random) -> Pair:
    a = rng.randint(4, 9)
    b = a + rng.randint(1, 9)
    big = rng.randint(50, 300)
    values = {
        "x": rng.choice("xty"),
        "a": a,
        "b": b,
        "ab": a * b,
        "aa": a * a,
        "big": big,
        "big2": 2 * big,
        "nest": a + b,
    }
    values |= {"last": str(a * a)[-1], "choose": b * (b - 1) // 2}
    first, second, equal = rng.choice(IDENTITIES)
    if first == "√{aa}" and not equal and values["last"] == str(a):
        second = "1"
    texts = first.format(**values), second.format(**values)
    texts = texts[::-1] if truth(rng) and "√" not in first else texts
    return Pair(box(texts[0]), texts[1], equal)


@production("decimals of integrals, sums", "unevaluated or malformed answer to an integer")
def sums(rng: random.Random) -> Pair:
    n, equal = rng.randint(3, 12), truth(rng)
    value = sum(Fraction(1, k) for k in range(1, n + 1))
    gold = f"\\sum_{{k=1}}^{{{n}}} \\frac{{1}}{{k}}"
    if equal:
        return Pair(box(f"\\frac{{{value.numerator}}}{{{value.denominator}}}"), gold, True)
    rounded = f"{float(value):.12f}" if 10**9 % value.denominator else f"{float(value) + 1e-12:.12f}"
    wrong = [(rounded, gold), (f"\\int_0^{n} x^x\\,dx", str(n)), ("x_{}", str(n)), (f"{n}...{n + 1}", str(n))]
    return Pair(*_boxed_first(rng.choice(wrong)), False)


@production("roots given where an interval is asked", "root with round brackets")
def surd(rng: random.Random) -> Pair:
    n, k, equal = rng.choice((2, 3, 5, 6, 7, 10, 11)), rng.randint(2, 9), truth(rng)
    shown = k if equal else k + 1
    styles = (
        f"{shown}\\sqrt({n})",
        f"{shown}√{n}",
        f"\\sqrt{{{shown * shown * n}}}",
        f"{shown}*sqrt({n})",
        f"\\frac{{{shown * n}}}{{\\sqrt{{{n}}}}}",
    )
    return Pair(box(rng.choice(styles)), f"{k}\\sqrt{{{n}}}", equal)


@production(
    "matrices, trailing \\\\, radicals", "determinant is not its matrix", "reference against itself, odd references"
)
def matrix(rng: random.Random) -> Pair:
    rows = [[rng.randint(-9, 9) for _ in range(2)] for _ in range(2)]
    k, way = rng.choice((2, 3)), rng.random()

    def written(entries: list[list], kind: str = "pmatrix") -> str:
        body = "\\\\".join("&".join(map(str, row)) for row in entries)
        return f"\\begin{{{kind}}}{body}\\end{{{kind}}}"

    gold = written([[k * e for e in row] for row in rows])
    if way < 0.25:
        return Pair(box(f"{k}{written(rows)}"), gold, True)
    if way < 0.5:
        return Pair(box(written([[f"\\frac{{{2 * k * e}}}{{2}}" for e in row] for row in rows], "bmatrix")), gold, True)
    determinant = rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    if way < 0.6 and determinant:
        inverse = sympy.Matrix(rows).inv()
        return Pair(box(f"{written(rows)}^{{-1}}"), written(inverse.tolist()), True)
    if way < 0.7:
        return Pair(box(str(determinant)), written(rows), False)
    transposed = [list(column) for column in zip(*rows, strict=True)]
    if way < 0.85 and transposed != rows:
        return Pair(box(written(transposed)), written(rows), False)
    rows[rng.randrange(2)][0] += 1
    return Pair(box(written([[k * e for e in row] for row in rows])), gold, False)


# words, statements, choices

WORDS = (
    "even", "odd", "increasing", "decreasing", "Monday", "Tuesday", "convergent", "not convergent", "always true", "never true", "profit",
    "loss", "no solution", "parabola", "ellipse", "Navin", "isosceles", "rational", "irrational",
)  # fmt: skip


@production("text answers", "reference against itself, odd references", "MATH-500 format list")
def words(rng: random.Random) -> Pair:
    (a, b), equal = rng.sample(WORDS, 2), truth(rng)
    shown = a if equal else b
    text = rng.choice((f"\\text{{{shown}}}", f"\\textbf{{{shown}}}", shown.capitalize(), f"\\text{{{shown.upper()}}}"))
    return Pair(box(text), f"\\text{{{a}}}", equal)


@production("words and relations beside formulas", "formulas that differ only in \\text{}", "IMO-AnswerBench answers")
def statements(rng: random.Random) -> Pair:
    n, (a, b) = whole(rng), rng.sample(("even", "odd", "prime", "composite", "positive", "irrational"), 2)
    value = f"({n},{n + 3})"
    same = [
        (f"n\\text{{ is {a}}}", f"n \\text{{ is {a}}}"), (f"\\text{{{a} }}n", f"n\\text{{ {a}}}"), (f"\\text{{increasing on }}{value}",) * 2,
        (f"f(x)={n}x \\text{{ for any constant }} c", f"f(x)={n}x"), (f"n\\equiv {n % 7} \\pmod 7", f"n\\equiv {n % 7 + 7}\\pmod{{7}}"),
        ("p \\lor q", "p\\lor q"), (f"x=2k \\text{{ ({a})}}",) * 2,
    ]  # fmt: skip
    wrong = [
        (f"n\\text{{ is {a}}}", f"n \\text{{ is {b}}}"), (f"\\text{{{a} }}n", f"\\text{{{b} }}n"), ("\\text{A wins}", "\\text{B wins}"),
        (f"\\text{{increasing on }}{value}", f"\\text{{increasing on }}({n},{n + 4})"), (f"\\text{{Day }}{n}", f"\\text{{Week }}{n}"),
        (f"n\\equiv {n % 7} \\pmod 7", f"n\\equiv {n % 7}\\pmod{{5}}"), ("p \\lor q", "p \\land q"), ("A\\setminus B", "B\\setminus A"),
        ("\\neg p", "p"), ("\\mathbb{Q}", "\\mathbb{R}"), ("\\overline{AB}", "\\overline{AC}"), (f"\\angle A={n}", f"\\angle B={n}"),
        (f"\\{{x\\in\\mathbb{{Z}}\\mid x>{n}\\}}", f"\\{{x\\in\\mathbb{{R}}\\mid x>{n}\\}}"), (f"\\text{{{a}}}, {n}", f"\\text{{{b}}}, {n}"),
        (f"x=2k \\text{{ ({a})}}", f"x=2k \\text{{ ({b})}}"), (f"{n}\\text{{ left}}", f"{n}\\text{{ right}}"), (f"{n}", f"n={n}k"),
    ]  # fmt: skip
    equal = truth(rng)
    return Pair(*_boxed_first(rng.choice(same if equal else wrong)), equal)


@production(
    "choice: boxed formula then Answer: D", "choice: letter in prose", "choice: no choice made", "several letters, first one credited",
)  # fmt: skip
def choice(rng: random.Random) -> Pair:
    right, other = rng.sample("ABCDEFG", 2)
    good = [
        "\\boxed{{{}}}", "The answer is ({}).", "Answer: {}", "The correct option is {}.", "\\boxed{{\\text{{({})}}}}", "It is 5.\n\nAnswer: {}",
        "The energy is \\boxed{{5}}.\n\nAnswer: {}", "The answer is {} because it fits.", "答案：{}", "\\boxed{{{}. 12 m}}", "The answer is **({})**.",
    ]  # fmt: skip
    none = [
        f"\\boxed{{{right}, {other}}}", f"The answer is {right}/{other}", f"\\boxed{{({right})({other})}}", f"Answer: ({right}) and ({other})",
        f"\\boxed{{{right}}} or \\boxed{{{other}}}", f"The answer is ({right}) is wrong", f"Answer: {right}. no. {other}. yes", "Answer: none",
        f"\\boxed{{\\text{{({right}) or ({other})}}}}", f"Answer: rules out {right}, leaving {other}",
    ]  # fmt: skip
    if truth(rng):
        return Pair(rng.choice(good).format(right), right, True, "choice")
    wrong = [text.format(other) for text in good] + none
    return Pair(rng.choice(wrong), right, False, "choice")


@production("choice text under math")
def choice_in_math(rng: random.Random) -> Pair:
    right, other = rng.sample("ABCDE", 2)
    equal = truth(rng)
    shown = right if equal else other
    texts = [
        box(shown),
        box(f"\\text{{({shown})}}"),
        f"The answer is ({shown}).",
        f"Answer: {shown}",
        box(f"({shown})"),
    ]
    texts += [] if equal else [box(f"{right}, {other}")]
    return Pair(rng.choice(texts), rng.choice((f"\\text{{({right})}}", right, f"({right})")), equal)
