"""Pairs of quantities, ratios, tuples, lists, sets and intervals, two deep."""

import random
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from benchmarks._answer_grammar.values import Number, Pair, box, numbers, production, spelled, truth

UNITS = {  # spellings of one unit, and its size in a base unit
    "length": [(("cm", "centimeters"), Fraction(1, 100)), (("m", "meters", "metres"), Fraction(1)), (("km",
    "kilometers"), Fraction(1000))],
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
