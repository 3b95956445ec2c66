"""Formulas as published sets write them, read as one expression that gives the answer.

A step joins a later one if its result occurs there once and is not a number of the question. Otherwise it is unclear which 24
is meant, or a result would remain in the formula as if the question gave it.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from whetstone.arithmetic.equations import Equation, equations_of, read_equations, unexplained
from whetstone.arithmetic.expression import (
    Expression,
    Number,
    Operation,
    Value,
    as_value,
    evaluate,
    numbers,
    parse,
    render,
    write_number,
)
from whetstone.arithmetic.implied_numbers import explained_by_words
from whetstone.arithmetic.number_words import Mention, mentions
from whetstone.arithmetic.search import only_formula
from whetstone.records import Problem

IMPLIED = frozenset({0, 1, 2, 24, 30, 52, 60, 100, 365, 1000})  # numbers that everyday words stand for, in any text
# Parts that words stand for: a half, a quarter, a nickel, one percent
IMPLIED_PARTS = frozenset(map(Fraction, ("0.5", "1.5", "2.5", "0.25", "0.75", "0.1", "0.05", "0.01")))
PERCENT = re.compile(r"\s*(?:%|percent\b)")
FRACTION = re.compile(r"(\d+)/(\d+)")
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


def annotated_steps(solution: str) -> list[str]:
    """What GSM8K writes between << and >>: `48/2=24`."""
    return [step[2:-2] for step in CALCULATOR.findall(solution)]


def annotated_formula(steps: Sequence[str], question: str, answer: str) -> str:
    """GSM8K's annotated steps (48/2=24, 48+24=72) as one formula that gives the answer; "" if they do not join.

    The formula may not hold a number that comes from nowhere: such a number is the result of a step that is not annotated.
    """
    try:
        written = [list(numbers(parse(step.partition("=")[0]))) for step in steps]
        values = [as_value(Fraction(step.rpartition("=")[2])) for step in steps]
        for place, value in enumerate(values):
            if sum(later.count(value) for later in written[place + 1 :]) > 1:
                return ""
        formula = joined_steps("; ".join(steps), question)
        explained = set(numbers(formula)) <= given_numbers(question)
        return render(formula) if evaluate(formula) == Fraction(answer) and explained else ""
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


def worked_equations(problem: Problem) -> tuple[Equation, ...]:
    """The equations that lead from a problem's numbers to its answer: those of its solution, or else of its formula.

    Raises ValueError("reason: detail") if there are none, if one is not true, if the last one does not give the answer, or if
    one has a number that comes from nowhere: a step before it is not annotated.
    """
    if not problem.equations:
        if not problem.formula:
            raise ValueError("it has no formula, and its solution annotates no equations")
        return equations_of(problem.formula)
    equations = read_equations(problem.equations)
    if not equations:
        raise ValueError("its equations compute nothing")
    answer = problem.answer.replace(",", "")
    if not re.fullmatch(r"\d+(?:\.\d+)?", answer) or equations[-1].value != Fraction(answer):
        raise ValueError(
            f"its last equation does not give the answer: {equations[-1]}, but the answer is {problem.answer}"
        )
    if (number := unexplained(equations, given_numbers(problem.question))) is not None:
        raise ValueError(f"an equation has a number that comes from nowhere: {write_number(number)}")
    return equations


def given_numbers(question: str) -> set[Value]:
    """The numbers that equations may have without an equation for them: of the text, implied by a word, or parts of these."""
    written = {mention.value for mention in mentions(question)}
    fractions = {Fraction(int(a), int(b)) for a, b in FRACTION.findall(question) if int(b)}
    percents = {
        value for mention in mentions(question) if is_percent(question, mention) for value in shares_of(mention.value)
    }
    parts = {Fraction(part) for pair in FRACTION.findall(question) for part in pair}
    shares = fractions | {1 - fraction for fraction in fractions} | percents
    return written | parts | shares | explained_by_words(question) | IMPLIED | IMPLIED_PARTS


def is_percent(text: str, mention: Mention) -> bool:
    return PERCENT.match(text, mention.end) is not None


def shares_of(percent: Value) -> list[Value]:
    """What equations write for 20 %: 0.2, 0.8, 1.2, 80, 120."""
    part = Fraction(percent) / 100
    return [as_value(value) for value in (part, 1 - part, 1 + part, 100 - percent, 100 + percent) if value > 0]
