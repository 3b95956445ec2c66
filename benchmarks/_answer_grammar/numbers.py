"""Pairs of plain numbers: fractions, thousands, percent, powers of ten, repeating decimals, bases."""

import random
from fractions import Fraction

from benchmarks._answer_grammar.values import Pair, box, decimal, number, production, truth, whole


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
