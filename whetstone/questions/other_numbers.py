"""The same question and the same worked solution with other numbers, computed by the solution's own annotated arithmetic.

    Natalia sold clips to 48 of her friends in April, and then half as many in May. How many in all?    48/2=24; 48+24=72
    Natalia sold clips to 62 of her friends in April, and then half as many in May. How many in all?    62/2=31; 62+31=93

A number of the text is changed if an equation computes with it. Every equation is then computed anew, and its result is
written wherever the solution's text had the old one. A number that may stand for two things (24 clips, 24 hours) is not
guessed: such a problem gives no variant. A variant is kept only if every result is as sensible as before: whole if it was
whole, positive, of the same order of size.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from whetstone.arithmetic.equations import Equation, write_equations
from whetstone.arithmetic.expression import (
    Expression,
    Number,
    Operation,
    Value,
    as_value,
    decimal_places,
    evaluate,
    numbers,
    parse,
    write_number,
)
from whetstone.arithmetic.implied_numbers import implied_by_words
from whetstone.arithmetic.number_words import NUMBER, Mention, mentions, read_words
from whetstone.problems.formulas import FRACTION, annotated_formula, is_percent, worked_equations
from whetstone.problems.reading import Shipped
from whetstone.questions.rewriting import rewrite
from whetstone.records import Problem

TRIES = 200  # draws of new numbers before a variant is given up
CENTS = 2  # digits after the point that a new result may always have, if some number had digits there

# Numbers of a text that other numbers must not take the place of: dates, clock times, years, a count that names its members
FIXED_BEFORE = re.compile(
    r"(?:\b(?:January|February|March|April|May|June|July|August|September|October|November|December|Grade|grade|Chapter|chapter"
    r"|Day|day|Week|week|Year|year|Number|number|No\.|Section|section|Room|room|Level|level|Part|part|top|first|last|size|Size)"
    r"\s|#)$"
)
FIXED_AFTER = re.compile(
    r"\s*(?:a\.?m\b|p\.?m\b|o'?clock|st\b|nd\b|rd\b|th\b|-?(?:sided|dimensional|digit|point scale|way|story)\b"
    r"|(?:of them|others?)\b|times as old)",
    re.IGNORECASE,
)
NAMED_MEMBERS = re.compile(
    r"\s+[\w\s'-]{1,40}?(?::|,)\s+[A-Z][a-z]+,(?: [A-Z][a-z]+,)* and "
)  # "three friends, Al, Bo, and Cy"
YEARS = range(1900, 2101)
SPELLED_FIXED = 3  # words up to "three" count the people and parts of a story, which are told one by one
BOUNDS = (  # (what follows a number, largest sensible value)
    (re.compile(r"\s*(?:%|percent)"), 99),
    (re.compile(r"\s+days?\s+(?:a|per|each|every|of the|in a|out of the)\s+week"), 7),
    (
        re.compile(r"\s+hours?\s+(?:a|per|each|every|in a)\s+(?:day|night|work\s?day)|\s+hours?\s+(?:daily|of sleep)"),
        16,
    ),
    (re.compile(r"\s+months?\s+(?:a|per|each|every|of the|in a)\s+year"), 12),
    (re.compile(r"\s+weeks?\s+(?:a|per|each|every|of the|in a)\s+(?:month|year)"), 50),
    (re.compile(r"\s+days?\s+(?:a|per|each|every|of the|in a)\s+(?:month|year)"), 30),
    (re.compile(r"[\s-]+(?:years?[\s-]+old|years? of age)"), 90),
)
GEOMETRY = re.compile(r"\b(?:triangles?|triangular|diagonals?|angles?|trapezoid|Pythagorean)\b", re.IGNORECASE)
SHOWN_NUMBER = re.compile(rf"(?<![\d.])\.\d+|{NUMBER.pattern}", re.IGNORECASE)
ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
ARITHMETIC = re.compile(r"[\d.,$%()+\-*/×÷x\s]*\d[\d.,$%()+\-*/×÷x\s]*")
PERCENT_SHARES = (
    (Fraction(1, 100), 0),
    (Fraction(-1, 100), 1),
    (Fraction(1, 100), 1),
    (Fraction(-1), 100),
    (Fraction(1), 100),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number comes from: an earlier equation's result, `scale` times a number of the text plus `shift`, or itself."""

    constant: Value
    equation: int | None = None
    given: Value | None = None
    scale: Fraction = Fraction(1)
    shift: Value = 0

    def value(self, new: Mapping[Value, Value], done: Sequence[Equation]) -> Value:
        if self.equation is not None:
            return done[self.equation].value
        if self.given is not None:
            return as_value(Fraction(self.scale * new[self.given] + self.shift))
        return self.constant


@dataclass(frozen=True, slots=True)
class Worked:
    """A problem whose solution can be computed with other numbers."""

    problem: Problem
    equations: tuple[Equation, ...]
    operands: tuple[tuple[Source, ...], ...]  # per equation, its numbers from left to right
    variables: tuple[tuple[Value, tuple[Mention, ...]], ...]  # values that change, with their places in the text
    sources: Mapping[Value, Source]  # of every value that the solution's text may show
    solutions: tuple[tuple[str, tuple[tuple[Mention, Value], ...]], ...]  # each text with its numbers


def other_numbers(problem: Problem, solutions: Sequence[str], count: int, rng: random.Random) -> Iterator[Shipped]:
    """Up to `count` variants of a problem with its worked solutions.

    Raises ValueError("reason: detail") if the problem allows none.
    """
    worked = understand_solution(problem, solutions)
    used = {tuple(value for value, _ in worked.variables)}
    made = tries = 0
    while made < count and tries < TRIES * (made + 1):
        tries += 1
        values = tuple(_draw(rng, value, places, problem.question) for value, places in worked.variables)
        if values in used or len(set(values)) < len(values):
            continue
        if any(
            isinstance(value, int) != isinstance(old, int)
            for value, (old, _) in zip(values, worked.variables, strict=True)
        ):
            continue  # "3.0 times"
        used.add(values)
        new = dict(zip((value for value, _ in worked.variables), values, strict=True))
        try:
            equations = recomputed(worked, new)
        except ZeroDivisionError:
            continue
        if (
            not _sensible(equations, worked.equations)
            or (shipped := _written(worked, new, equations, made + 1)) is None
        ):
            continue
        made += 1
        yield shipped


def understand_solution(problem: Problem, solutions: Sequence[str]) -> Worked:
    """Ties every number of the equations and of the solutions to its source. Raises ValueError("reason: detail")."""
    equations = worked_equations(problem)
    question = problem.question
    if GEOMETRY.search(question):
        raise ValueError("its numbers must fit a figure, which equations do not say")
    mentioned = mentions(question)
    candidates = _changeable(question, mentioned)
    known = _percent_sources(question, mentioned, candidates) | {
        value: Source(value, given=value) for value in candidates
    }
    fixed = {mention.value for mention in mentioned} - candidates
    operands: list[tuple[Source, ...]] = []
    for place, equation in enumerate(equations):
        operands.append(tuple(_source_of(number, known, fixed) for number in numbers(equation.left)))
        if equation.value in known or equation.value in fixed - {0, 1}:
            raise ValueError(f"a number may stand for two things: {write_number(equation.value)}")
        known[equation.value] = Source(equation.value, equation=place)
    used = {source.given for sources in operands for source in sources if source.given is not None}
    if not used:
        raise ValueError("no equation computes with a number of the text that may change")
    variables = tuple((value, tuple(m for m in mentioned if m.value == value)) for value in sorted(used))
    sources = {value: source for value, source in known.items() if source.given is None or source.given in used}
    constants = {
        source.constant for row in operands for source in row if source.given is None and source.equation is None
    }
    unchanged = fixed | constants | (candidates - used) | {0, 1, 100}
    texts = tuple((text, _numbers_of(text, sources, unchanged)) for text in solutions)
    return Worked(problem, equations, tuple(operands), variables, sources, texts)


def _source_of(number: Value, known: Mapping[Value, Source], fixed: set[Value]) -> Source:
    return Source(number) if number in fixed else known.get(number, Source(number))


def _changeable(question: str, mentioned: Sequence[Mention]) -> set[Value]:
    """The values of a text that may change: all of their mentions are numbers of their own, and no word implies them."""
    kept = implied_by_words(question) | {0, 1} | {int(part) for pair in FRACTION.findall(question) for part in pair}
    kept |= {mention.value for mention in mentioned if not mention.free or _stays(question, mention)}
    return {mention.value for mention in mentioned} - kept


def _stays(question: str, mention: Mention) -> bool:
    before, after = question[max(0, mention.start - 12) : mention.start], question[mention.end : mention.end + 120]
    return bool(
        FIXED_BEFORE.search(before)
        or FIXED_AFTER.match(after)
        or NAMED_MEMBERS.match(after)
        or (mention.spelled and mention.value <= SPELLED_FIXED)
        or (
            mention.value in YEARS
            and not mention.places
            and "$" not in before[-1:]
            and "," not in question[mention.start : mention.end]
        )
    )


def _percent_sources(question: str, mentioned: Sequence[Mention], candidates: set[Value]) -> dict[Value, Source]:
    """What equations may write for the text's percentages: 0.2, 0.8, 1.2, 80 and 120 for 20 %."""
    sources: dict[Value, Source] = {}
    for mention in mentioned:
        if is_percent(question, mention) and mention.value in candidates:
            for scale, shift in PERCENT_SHARES:
                source = Source(0, given=mention.value, scale=scale, shift=shift)
                value = source.value({mention.value: mention.value}, ())
                if value > 0:
                    sources.setdefault(value, source)
    return sources


def _numbers_of(text: str, sources: Mapping[Value, Source], unchanged: set[Value]) -> tuple[tuple[Mention, Value], ...]:
    """The numbers of a solution that change, with their old values. Raises ValueError for one of unknown source."""
    if _false_equations(text):
        raise ValueError("the text of the solution has an equation that is not true")
    changing: list[tuple[Mention, Value]] = []
    for match in SHOWN_NUMBER.finditer(text):
        mention = _mention(match, text)
        if mention is None:
            continue
        if mention.value in sources:
            changing.append((mention, mention.value))
        elif mention.value not in unchanged:
            raise ValueError(f"the text of the solution has a number that no equation gives: {match[0]}")
    return tuple(changing)


def _mention(match: re.Match[str], text: str) -> Mention | None:
    """A number that a solution shows; None for an ordinal such as 2nd."""
    if ORDINAL.match(text, match.end()):
        return None
    if match["words"]:
        return Mention(match.start(), match.end(), read_words(match["words"]), True, 0, True)
    digits = match[0].replace(",", "")
    return Mention(match.start(), match.end(), as_value(Fraction(digits)), False, len(digits.partition(".")[2]), True)


# --- new numbers ---


def _draw(rng: random.Random, value: Value, places: Sequence[Mention], question: str) -> Value:
    """A value between half and twice the old one, as round as it was, within what its unit allows."""
    decimals = max(mention.places for mention in places)
    units = int(value * 10**decimals)
    step = _roundness(units)
    low, high = max(2 * step, units // 2), max(2 * units, 9 if units < 10 else 0)
    for mention in places:
        bound = next((most for pattern, most in BOUNDS if pattern.match(question, mention.end)), None)
        if bound is not None and value <= bound:
            high = min(high, bound * 10**decimals)
    low = min(low, high)
    return as_value(Fraction(step * rng.randint(max(1, -(-low // step)), max(1, high // step)), 10**decimals))


def _roundness(units: int) -> int:
    """The power of ten, or five times it, that the new number is a multiple of: two leading digits of a round number change.

    >>> [_roundness(units) for units in (7, 48, 20, 45, 120, 500, 1250)]
    [1, 1, 5, 5, 10, 10, 10]
    """
    if units >= 100:
        tens = 1
        while units % (tens * 10) == 0 and tens * 100 <= units:
            tens *= 10
        return min(tens, 10 ** (len(str(units)) - 2))
    return 5 if units % 5 == 0 and units >= 15 else 1


def recomputed(worked: Worked, new: Mapping[Value, Value]) -> list[Equation]:
    """The equations with other numbers. Raises ZeroDivisionError."""
    done: list[Equation] = []
    for equation, sources in zip(worked.equations, worked.operands, strict=True):
        values = iter([source.value(new, done) for source in sources])
        left = _replaced(equation.left, values)
        done.append(Equation(left, evaluate(left)))
    return done


def _replaced(node: Expression, values: Iterator[Value]) -> Expression:
    if isinstance(node, Number):
        return Number(next(values))
    left = _replaced(node.left, values)
    return Operation(node.sign, left, _replaced(node.right, values))


def _sensible(new: Sequence[Equation], old: Sequence[Equation]) -> bool:
    """Whether every number and every part of a left side is as sensible as before."""
    values = [(value, before) for one, other in zip(new, old, strict=True) for value, before in _values(one, other)]
    whole = all(isinstance(before, int) for _, before in values)
    most_places = 0 if whole else max(CENTS, *(decimal_places(before) or 0 for _, before in values))
    return all(_alike(value, before, most_places) for value, before in values)


def _values(new: Equation, old: Equation) -> Iterator[tuple[Value, Value]]:
    """(new, old) of every number and every part of an equation's left side."""
    stack = [(new.left, old.left)]
    while stack:
        node, before = stack.pop()
        yield evaluate(node), evaluate(before)
        if isinstance(node, Operation):
            stack += [(node.left, before.left), (node.right, before.right)]


def _alike(value: Value, before: Value, most_places: int) -> bool:
    places = decimal_places(value)
    old_places = decimal_places(before)
    if (places is None) != (old_places is None) or (places is not None and places > max(most_places, old_places or 0)):
        return False
    if isinstance(before, int) and not isinstance(value, int):
        return False
    if before > 0:
        return (
            value > 0
            and (value < 1) == (before < 1)
            and (value <= 1) == (before <= 1)
            and before / 10 < value < before * 10
        )
    return value == before  # a difference of 0 stays one


# --- the texts ---


def _written(worked: Worked, new: Mapping[Value, Value], equations: Sequence[Equation], number: int) -> Shipped | None:
    """The variant; None if a number cannot be written, or an equation of the text would no longer be true."""
    problem, answer = worked.problem, equations[-1].value
    values = {value: source.value(new, equations) for value, source in worked.sources.items()}
    if any(decimal_places(value) is None for value in values.values()):
        return None
    question = rewrite(
        problem.question, [(mention, new[value]) for value, places in worked.variables for mention in places]
    )
    texts = [
        rewrite(text, [(mention, values[value]) for mention, value in changing]) for text, changing in worked.solutions
    ]
    if any(map(_false_equations, texts)):
        return None
    written = write_equations(equations)
    made = Problem(
        f"{problem.id}/resampled-{number}",
        question,
        write_number(answer),
        level=problem.level,
        domain=problem.domain,
        source=problem.source,
        licence=problem.licence,
        policy=problem.policy,
        formula=annotated_formula(written.split("; "), question, write_number(answer)),
        origin=problem.id,
        system=problem.system,
        equations=written,
    )
    return Shipped(made, tuple(texts))


def _false_equations(text: str) -> bool:
    """Whether a text shows an equation of plain arithmetic that is not true.

    >>> _false_equations("She has 2 x $3 = $6."), _false_equations("so 5+5 = 11 pens")
    (False, True)
    """
    for line in text.splitlines():
        parts = line.split("=")
        for left, right in pairwise(parts):
            before, after = _value_before(left), _value_after(right)
            if before is not None and after is not None and before != after:
                return True
    return False


def _value_before(text: str) -> Value | None:
    """The value of the arithmetic that a text ends with; None if it ends with words."""
    run = next((run for run in ARITHMETIC.finditer(text) if run.end() == len(text)), None)
    return _value(run[0]) if run else None


def _value_after(text: str) -> Value | None:
    """The value of the arithmetic that a text begins with; None if it begins with words."""
    run = ARITHMETIC.match(text)
    return _value(run[0]) if run else None


def _value(written: str) -> Value | None:
    plain = re.sub(r"[$,\s]", "", written.replace("x", "*")).strip(" .(")
    try:
        return evaluate(parse(re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", plain)))
    except (ValueError, ZeroDivisionError):
        return None
