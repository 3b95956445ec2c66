r"""MetaMath's augmentations that need no model (Yu et al. 2023, arXiv 2309.12284), for problems whose formula is known.

resample           other numbers, as large as the old, in the text and in the formula; the new answer is computed;
                   with `retell`, about other people and things as well (`retell.py`). A problem whose solution annotates
                   its equations is computed by these, and its solution is rewritten too (`other_numbers.py`)
FOBAR              one number becomes x, the answer is given, the question asks for x
self-verification  the same, with the question and its answer rewritten as one statement

           Seven red and two green apples are in the basket. How many apples are in the basket?         7+2 = 9
    FOBAR  x red and two green apples are in the basket. How many apples are in the basket?
           If we know the answer to the above question is 9, what is the value of unknown variable x?   9-2 = 7
    SV     x red and two green apples are in the basket. 9 apples are in the basket.
           What is the value of unknown variable x?                                                     9-2 = 7

Differs from the paper: MetaMath masks any token with a digit, lets a language model rewrite the question for SV, and
never asks whether x is determined. Here a number is changed only if the formula has it too. x occurs once in the formula,
so that undoing one operation after the other gives x, the only solution, as a formula that a teacher can explain.
SV uses a few rules of English grammar (`statements.py`) and gives up if none fits.

The formula cannot tell whether a 2 in it is the 2 of the text or the 2 of "half". Numbers that a word of the text may stand for
are therefore left as they are.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import TypeAlias

from pydantic import Field, model_validator

from whetstone.arithmetic.expression import (
    Expression,
    Operation,
    Program,
    Value,
    as_value,
    decimal_places,
    numbers,
    parse,
    program,
    render,
    replace_numbers,
    results,
    solve_for,
    write_number,
)
from whetstone.arithmetic.implied_numbers import implied_by_words
from whetstone.arithmetic.number_words import Mention, mentions
from whetstone.decode.server_generator import Server
from whetstone.problems.reading import Drop, Shipped
from whetstone.questions.other_numbers import other_numbers
from whetstone.questions.register import refusal
from whetstone.questions.retell import retell
from whetstone.questions.rewriting import rewrite
from whetstone.questions.statements import UNKNOWN, as_statement
from whetstone.records import Problem
from whetstone.run.settings import Settings

TRIES = 300  # draws of new numbers before a variant is given up
PLACES = 2  # digits after the point that a new result may always have, if the old ones had some
ASK = "What is the value of unknown variable x?"

AVERAGE = re.compile(r"\b(?:average|mean)\b", re.IGNORECASE)


class MetamathSettings(Settings):
    """How many new problems are made from each training problem: by rules if it has a formula, or by a model."""

    resample: int = Field(0, ge=0, le=10**4, description="the same text with other numbers")
    retell: float = Field(0, ge=0, le=1, description="share of these that are about other people and things, too")
    fobar: int = Field(0, ge=0, le=10**4, description="inverse questions")
    self_verification: int = Field(0, ge=0, le=10**4, description="inverse questions, rewritten as a statement")
    rephrase: int = Field(0, ge=0, le=10**4, description="the same problem in other words, by a model")
    model: Server | None = Field(None, description="the server whose model rephrases")

    @model_validator(mode="after")
    def rephrasing_needs_a_model(self) -> "MetamathSettings":
        if self.rephrase and self.model is None:
            raise ValueError(
                f"rephrase = {self.rephrase} without a model: rules cannot say a question in other words. Name a server, "
                'as in model = { server = "http://localhost:8000/v1", model = "name" }.'
            )
        return self


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that the text and the formula share.

    Everything with that value changes together: "2 red and 2 green" stays right whether or not both are the same 2.
    """

    value: Value
    mentions: tuple[Mention, ...]  # in the text
    places: tuple[int, ...]  # which written numbers of the formula, from left to right


@dataclass(frozen=True, slots=True)
class Understood:
    problem: Problem
    formula: Expression
    shape: Program
    numbers: tuple[Value, ...]  # of the formula, from left to right
    results: tuple[Value, ...]  # of its operations; the answer is last
    variables: tuple[Variable, ...]


Augmented: TypeAlias = tuple[
    str, Problem | Shipped | Drop
]  # name of the augmentation; a new problem or why there is none


def augment(
    problem: Problem, settings: MetamathSettings, seed: int, solutions: Sequence[str] = ()
) -> Iterator[Augmented]:
    """New training problems from one; a Drop for each augmentation that gave fewer than the settings ask for.

    A function of the problem, its worked solutions, the settings and the seed: other problems do not change it.
    """
    assert problem.split == "train", f"{problem.id} is a {problem.split} problem: only training problems are augmented"
    variants: list[Problem] = []
    if problem.equations and settings.resample:
        for name, item in _with_other_numbers(problem, solutions, settings.resample, seed):
            variants += [item.problem] if isinstance(item, Shipped) and item.problem.formula else []
            yield name, item
        settings = settings.model_copy(update={"resample": 0})
    yield from _by_formula(problem, settings, seed, variants)


def _with_other_numbers(problem: Problem, solutions: Sequence[str], count: int, seed: int) -> Iterator[Augmented]:
    """Variants by the solution's own equations, with the solution; without one, of the question alone."""
    made, why = 0, "no draw gave other numbers that keep every step as sensible as before"
    try:
        for variant in other_numbers(problem, solutions, count, random.Random(f"{seed}/{problem.id}/resample")):
            made += 1
            yield "resampled", variant
    except ValueError as error:
        why = str(error)
    if made < count:
        yield _short(problem, "resampled", made, count, why)


def _by_formula(
    problem: Problem, settings: MetamathSettings, seed: int, variants: Sequence[Problem]
) -> Iterator[Augmented]:
    """What the formula allows; inverse questions are asked of the `variants`, too."""
    asked = {"resampled": settings.resample, "fobar": settings.fobar, "self_verification": settings.self_verification}
    try:
        original = understand(problem)
    except ValueError as error:
        yield from (
            _short(problem, augmentation, 0, count, str(error)) for augmentation, count in asked.items() if count
        )
        return
    rng = random.Random(f"{seed}/{problem.id}/resample")
    made = list(resampled(original, settings.resample, rng, settings.retell))
    yield from (("resampled", variant) for variant in made)
    if len(made) < settings.resample:
        reason = _cannot_resample(original) or f"{TRIES} draws gave no new numbers that keep every step a proper number"
        yield _short(problem, "resampled", len(made), settings.resample, reason)
    for augmentation in ("fobar", "self_verification"):
        if asked[augmentation]:
            rng = random.Random(f"{seed}/{problem.id}/{augmentation}")
            yield from inverse_questions(augmentation, asked[augmentation], original, [*variants, *made], rng)


def _short(problem: Problem, augmentation: str, made: int, asked: int, why: str) -> Augmented:
    return augmentation, refusal(problem, f"metamath: fewer {augmentation} than asked", f"{made} of {asked}: {why}")


def _variant(original: Problem, name: str, question: str, answer: Value, formula: Expression) -> Problem:
    return replace(
        original,
        id=f"{original.id}/{name}",
        question=question,
        answer=write_number(answer),
        formula=render(formula),
        equations="",
        origin=original.id,
    )


def understand(problem: Problem) -> Understood:
    """Tie the numbers of the text to those of the formula. Raises ValueError if the formula does not give the answer."""
    if not problem.formula:
        raise ValueError("its equations do not join into one formula")
    formula = parse(problem.formula)
    shape, written = program(formula), tuple(numbers(formula))
    if len(written) == 1:
        raise ValueError(f"the formula {problem.formula} computes nothing")
    steps = results(shape, written)
    if steps is None:
        raise ValueError(f"a step of {problem.formula} is negative or divides by 0")
    if write_number(steps[-1]) != problem.answer:
        raise ValueError(f"{problem.formula} does not give the answer {problem.answer}")
    mentioned = mentions(problem.question)
    fixed = _implied(problem.question, formula) | {mention.value for mention in mentioned if not mention.free} | {0, 1}
    variables = []
    for value in dict.fromkeys(mention.value for mention in mentioned):
        places = tuple(place for place, number in enumerate(written) if number == value)
        if places and value not in fixed:
            same = tuple(mention for mention in mentioned if mention.value == value)
            variables.append(Variable(value, same, places))
    return Understood(problem, formula, shape, written, tuple(steps), tuple(variables))


def _implied(question: str, formula: Expression) -> set[Value]:
    values = implied_by_words(question)
    if AVERAGE.search(question):
        values |= _divisors(formula)  # the text need not write how many numbers an average is of
    return values


def _divisors(node: Expression) -> set[Value]:
    if not isinstance(node, Operation):
        return set()
    own = set(numbers(node.right)) if node.sign == "/" else set()
    return own | _divisors(node.left) | _divisors(node.right)


# --- resampled numbers ---


def _cannot_resample(original: Understood) -> str:
    if not original.variables:
        return "the text has no number of the formula as a number of its own"
    changed = {variable.value for variable in original.variables}
    kept = {mention.value for mention in mentions(original.problem.question)} - changed
    if kept & set(original.results):
        return "the text tells a result of the formula, which would no longer be true"
    return ""


def resampled(original: Understood, count: int, rng: random.Random, retold: float = 0.0) -> Iterator[Problem]:
    """Up to `count` variants with other numbers. Positive steps stay positive; if all steps are whole, they stay whole.

    A share of `retold` is about other people and things.
    """
    if not count or _cannot_resample(original):
        return
    variables = original.variables
    spans = [_span(variable) for variable in variables]
    used = {tuple(variable.value for variable in variables)}
    whole = all(isinstance(value, int) for value in (*original.numbers, *original.results))
    most_places = 0 if whole else max(PLACES, *(decimal_places(value) or 0 for value in original.results))
    made = tries = 0
    while made < count and tries < TRIES * (made + 1):
        tries += 1
        values = tuple(as_value(Fraction(rng.randint(low, high), 10**places)) for low, high, places in spans)
        if values in used or len(set(values)) < len(values):
            continue
        written = list(original.numbers)
        for variable, value in zip(variables, values, strict=True):
            for place in variable.places:
                written[place] = value
        steps = results(original.shape, written, whole)
        if steps is None or not _alike(steps, original.results, most_places):
            continue
        used.add(values)
        made += 1
        new = [
            (mention, value) for variable, value in zip(variables, values, strict=True) for mention in variable.mentions
        ]
        question = rewrite(original.problem.question, new)
        if retold:
            stream = random.Random(f"{original.problem.id}/{made}/{values}")  # numbers do not change with the share
            question = retell(question, stream) if stream.random() < retold else question
        formula = replace_numbers(original.formula, written)
        yield _variant(original.problem, f"resampled-{made}", question, steps[-1], formula)


def _span(variable: Variable) -> tuple[int, int, int]:
    """(smallest, largest, places) of a new number, in units of 10^-places: as many digits as the old one, never 0 or 1."""
    places = max(mention.places for mention in variable.mentions)
    digits = len(str(int(variable.value * 10**places)))
    return 10 ** (digits - 1) if digits > 1 else 1 if places else 2, 10**digits - 1, places


def _alike(steps: Sequence[Value], old: Sequence[Value], most_places: int) -> bool:
    for new, before in zip(steps, old, strict=True):
        places = decimal_places(new)
        if places is None or places > most_places or (before > 0 and new == 0):
            return False
        if len(str(int(new))) > len(str(int(before))) + 1:
            return False
    return True


# --- inverse questions ---


def inverse_questions(
    augmentation: str, count: int, original: Understood, variants: Sequence[Problem], rng: random.Random
) -> Iterator[Augmented]:
    """Up to `count` questions for a masked number, first of the original, then of its variants with other numbers."""
    if UNKNOWN.search(original.problem.question):
        yield _short(original.problem, augmentation, 0, count, "the text already has an x")
        return
    made, why = 0, "no number occurs once in the text and once in the formula"
    for version in chain((original,), map(understand, variants)):
        maskable = [v for v in version.variables if len(v.mentions) == 1 and len(v.places) == 1]
        for variable in rng.sample(maskable, len(maskable)):
            if made == count:
                return
            try:
                question, formula = inverse(version, variable, augmentation)
            except ValueError as error:
                why = str(error)
                continue
            made += 1
            yield augmentation, _variant(original.problem, f"{augmentation}-{made}", question, variable.value, formula)
    if made < count:
        yield _short(original.problem, augmentation, made, count, why)


def inverse(version: Understood, variable: Variable, augmentation: str) -> tuple[str, Expression]:
    """The question for one masked number, and the formula that gives it. Raises ValueError if there is none."""
    answer, place = version.results[-1], variable.places[0]
    formula = solve_for(version.formula, place, answer)
    if formula is None:
        raise ValueError("the masked number is not determined: another one gives the same answer")
    steps = results(program(formula), numbers(formula))
    if steps is None or any(decimal_places(step) is None for step in steps):
        raise ValueError("a step of the way back is negative or has no end as a decimal")
    back = [*version.numbers[:place], steps[-1], *version.numbers[place + 1 :]]
    assert steps[-1] == variable.value and results(version.shape, back)[-1] == answer, (
        f"{render(formula)} does not undo {version.problem.formula}"
    )
    masked = rewrite(version.problem.question, [(variable.mentions[0], "x")])
    if augmentation == "fobar":
        known = f"If we know the answer to the above question is {version.problem.answer}, "
        return f"{masked} {known}{ASK[0].lower()}{ASK[1:]}", formula
    statement = as_statement(masked, version.problem.answer)
    if statement is None:
        raise ValueError("no rule makes a statement of the question")
    return f"{statement} {ASK}", formula
