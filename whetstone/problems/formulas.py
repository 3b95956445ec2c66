"""Formulas as published sets write them, read as one expression that gives the answer.

A step joins a later one if its result occurs there once and is not a number of the question. Otherwise it is unclear which 24
is meant, or a result would remain in the formula as if the question gave it.
"""

import re
from fractions import Fraction

from whetstone.arithmetic.expression import (
    Expression,
    Number,
    Operation,
    as_value,
    evaluate,
    numbers,
    parse,
    render,
    write_number,
)
from whetstone.arithmetic.number_words import mentions
from whetstone.arithmetic.search import only_formula

IMPLIED = frozenset({*range(13), 24, 30, 52, 60, 100, 365, 1000})  # numbers that everyday words stand for
CALCULATOR = re.compile(r"<<[^<>]*>>")
UNIT = re.compile(r"\([^()\d]*[A-Za-z][^()\d]*\)")  # "(min/hour)"
TRAILING_UNIT = re.compile(r"\s*(?:r\s*0|[A-Za-z][A-Za-z ]*)\s*$")  # "90 r0", "198 cents"


def joined_steps(written: str, question: str) -> Expression:
    """Steps as one expression, units left aside: `8/2=4; 8+4+36=48` is 8+8/2+36. Raises ValueError, ZeroDivisionError."""
    given = [mention.value for mention in mentions(question)]
    unused: list[Expression] = []  # steps whose result no later step has used yet
    for part in UNIT.sub(" ", written).split(";"):
        if not part.partition("=")[0].strip():
            continue
        step = _true_step(part)
        for earlier in list(unused):
            value = evaluate(earlier)
            if value in numbers(step):
                if numbers(step).count(value) > 1 or value in given:
                    raise ValueError(f"which {write_number(value)} a step means is not clear")
                step = substitute(step, value, earlier)
                unused.remove(earlier)
        unused.append(step)
    if len(unused) != 1:
        raise ValueError("its steps do not join into one expression")
    return unused[0]


def _true_step(part: str) -> Expression:
    """The left side of `left = value`. Raises ValueError if it is false."""
    left, equals, right = part.partition("=")
    step = parse(left)
    right = TRAILING_UNIT.sub("", right)
    if equals and not re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", right):
        raise ValueError(f"{right.strip()!r} is not the value of a step")
    if equals and evaluate(step) != Fraction(right.strip()):
        raise ValueError(f"{part.strip()!r} is not true")
    return step


def substitute(node: Expression, value: int | Fraction, by: Expression) -> Expression:
    if isinstance(node, Number):
        return by if node.value == value else node
    return Operation(node.sign, substitute(node.left, value, by), substitute(node.right, value, by))


def annotated_formula(solution: str, question: str, answer: str) -> str:
    """GSM8K's annotated steps (<<48/2=24>><<48+24=72>>) as one formula that gives the answer; "" if they do not join.

    The formula may not hold a large number that the question does not have: such a number is the result of a step that is
    not annotated.
    """
    steps = [step[2:-2] for step in CALCULATOR.findall(solution)]
    try:
        written = [list(numbers(parse(step.partition("=")[0]))) for step in steps]
        values = [as_value(Fraction(step.rpartition("=")[2])) for step in steps]
        for place, value in enumerate(values):
            if sum(later.count(value) for later in written[place + 1 :]) > 1:
                return ""
        formula = joined_steps("; ".join(steps), question)
        given = {mention.value for mention in mentions(question)} | IMPLIED
        return render(formula) if evaluate(formula) == Fraction(answer) and set(numbers(formula)) <= given else ""
    except (ValueError, ZeroDivisionError):
        return ""


def searched_formula(question: str, answer: str) -> str:
    """The only formula that makes the answer of the question's numbers, "" if there is none or more than one."""
    number = re.fullmatch(r"\d+(?:\.\d+)?", answer.replace(",", ""))
    if not number:
        return ""
    given = [mention.value for mention in mentions(question) if mention.free]
    formula = only_formula(given, as_value(Fraction(number[0])))
    return "" if formula is None else render(formula)
