"""ASDiv (Miao, Liang and Su, ACL 2020): English word problems of grades 1 to 6, each with the formula that solves it.

The recipe names the Solution-Types it wants; of these a problem is kept where its answer is one number and its formula,
read as plain arithmetic, gives exactly that number, so that a teacher can explain it and a verifier can trust it.

Folds here are *not* the official ones of ASDiv-A: a problem's fold is a hash of its text without numbers, so that
near-identical texts stay together and the folds do not depend on the order or the choice of problems.

The file is `dataset/ASDiv.xml` of github.com/chaochun/nlu-asdiv-dataset, plain or gzipped, under CC BY-NC 4.0.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from difflib import get_close_matches
from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from whetstone.arithmetic.expression import (
    Expression,
    Number,
    Operation,
    decimal_places,
    evaluate,
    numbers,
    parse,
    program,
    render,
    results,
    write_number,
)
from whetstone.arithmetic.number_words import mentions
from whetstone.questions.sources import (
    Drop,
    excerpt,
    hash_fraction,
    open_bytes,
    require_benchmark,
    template,
)
from whetstone.records import Problem
from whetstone.run.settings import Settings
from whetstone.run.tables import find_file

LICENCE = "CC BY-NC 4.0"
ANSWER = re.compile(r"\$?\s*(-?\d[\d,]*(?:\.\d+)?)\s*(?:\([^()]*\))?")
UNIT = re.compile(r"\([^()\d]*[A-Za-z][^()\d]*\)")  # "(min/hour)"
MISSPELT = {"Substraction": "Subtraction"}  # once in the file


class AsdivSource(Settings):
    """ASDiv's arithmetic problems, cut into folds."""

    kind: Literal["asdiv"]
    path: str = "$WHETSTONE_DATA/asdiv/ASDiv.xml.gz"  # dataset/ASDiv.xml, plain or gzipped
    name: str = "asdiv"  # of the source
    solution_types: tuple[str, ...] = Field(min_length=1)  # which Solution-Types to take
    folds: int = Field(default=5, ge=2)  # by hash of the text without its numbers
    test_fold: int = Field(default=0, ge=0)  # this fold is the test set
    validation: float = Field(default=0.05, ge=0, lt=1)  # share of the other folds
    benchmark: str = "asdiv"  # name of the problem set that the test fold is scored in
    limit: int = Field(default=0, ge=0)  # at most so many problems of the chosen types; 0: all

    @property
    def title(self) -> str:
        return self.name

    @property
    def splits(self) -> frozenset[str]:
        return frozenset({"test", "train"} | ({"validation"} if self.validation > 0 else set()))

    @model_validator(mode="after")
    def test_fold_exists(self) -> "AsdivSource":
        if self.test_fold >= self.folds:
            raise ValueError(
                f"test_fold = {self.test_fold} of folds = {self.folds}: folds are counted from 0. "
                f"Use 0 to {self.folds - 1}."
            )
        require_benchmark(True, self.benchmark, "kind = 'asdiv'")
        return self


def read_asdiv(settings: AsdivSource, title: str) -> Iterator[Problem | Drop]:
    """Every problem of the chosen types as a Problem (with its split) or a Drop.

    Raises ValueError for a Solution-Type that the file does not know or a file that is not ASDiv's XML, and
    FileNotFoundError.
    """
    path = find_file(settings.path)
    try:
        with open_bytes(path) as content:
            elements = list(ElementTree.parse(content).getroot().iter("Problem"))
    except (ElementTree.ParseError, EOFError, OSError) as error:
        raise ValueError(f"source file {path} is not readable as ASDiv's XML: {error}. Fetch it again.") from error
    known = sorted({_solution_type(element) for element in elements})
    wanted = {MISSPELT.get(name, name) for name in settings.solution_types}
    for name in wanted - set(known):
        near = get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"solution_types names {name!r}, which is not in {path}: it has {', '.join(known)}.{meant}")
    chosen = [(number, element) for number, element in enumerate(elements, 1) if _solution_type(element) in wanted]
    for number, element in chosen[: settings.limit or None]:
        yield _problem(element, number, settings, title)


def _solution_type(element: ElementTree.Element) -> str:
    name = (element.findtext("Solution-Type") or "").strip()
    return MISSPELT.get(name, name)


def _problem(element: ElementTree.Element, number: int, settings: AsdivSource, title: str) -> Problem | Drop:
    question = " ".join(f"{element.findtext('Body') or ''} {element.findtext('Question') or ''}".split())
    identity = f"{title}/{element.get('ID') or number}"
    stated = (element.findtext("Answer") or "").strip()
    written = (element.findtext("Formula") or "").strip()

    def drop(reason: str, detail: str) -> Drop:
        return Drop(title, number, identity, reason, detail, excerpt(question))

    if not question:
        return drop("empty question", "")
    if not stated:
        return drop("empty answer", "")
    found = ANSWER.fullmatch(stated)
    if not found:
        return drop("answer is not one number", stated)
    answer = Fraction(found[1].replace(",", ""))
    try:
        formula = read_formula(written, question)
        value = evaluate(formula)
    except (ValueError, ZeroDivisionError) as error:
        return drop("formula is not plain arithmetic", f"{written} ({error})")
    if value != answer:
        return drop("formula does not give the answer", f"{written}, but the answer is {stated}")
    steps = results(program(formula), numbers(formula))
    if steps is None or any(decimal_places(step) is None for step in steps):
        return drop("a step is negative or has no end as a decimal", written)
    _, split = split_by_fold(question, settings)
    grade = element.get("Grade") or ""
    return Problem(
        id=identity,
        question=question,
        answer=write_number(answer),
        split=split,
        benchmark=settings.benchmark if split == "test" else "",
        level=int(grade) if grade.isdigit() else None,
        domain=_solution_type(element).lower(),
        source=title,
        licence=LICENCE,
        formula=render(formula),
    )


def split_by_fold(question: str, settings: AsdivSource) -> tuple[int, str]:
    """The fold of a text, from its template alone, and the split that this fold is."""
    place = hash_fraction(template(question)) * settings.folds
    fold, rest = int(place), place % 1
    if fold == settings.test_fold:
        return fold, "test"
    return fold, "validation" if rest < settings.validation else "train"


def read_formula(written: str, question: str) -> Expression:
    """ASDiv's formula field as one expression, units left aside and steps joined: `8/2=4; 8+4+36=48` is 8+8/2+36.

    A step joins where its result occurs once in the next ones and is not itself a number of the question; otherwise
    nothing says which 4 is meant. Raises ValueError.
    """
    given = [mention.value for mention in mentions(question)]
    waiting: list[Expression] = []  # steps whose result has not been used yet
    for part in UNIT.sub(" ", written).split(";"):
        left, equals, right = part.partition("=")
        if not left.strip():
            continue
        step = parse(left)
        right = re.sub(r"\s*(?:r\s*0|[A-Za-z][A-Za-z ]*)\s*$", "", right)  # "90 r0", "198 cents"
        if equals and not re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", right):
            raise ValueError(f"{right.strip()!r} is not the value of a step")
        if equals and evaluate(step) != Fraction(right.strip()):
            raise ValueError(f"{part.strip()!r} is not true")
        for earlier in list(waiting):
            value = evaluate(earlier)
            if value in numbers(step):
                if numbers(step).count(value) > 1 or value in given:
                    raise ValueError(f"which {write_number(value)} a step means is not clear")
                step = substitute(step, value, earlier)
                waiting.remove(earlier)
        waiting.append(step)
    if len(waiting) != 1:
        raise ValueError("its steps do not join into one expression")
    return waiting[0]


def substitute(node: Expression, value: int | Fraction, by: Expression) -> Expression:
    if isinstance(node, Number):
        return by if node.value == value else node
    return Operation(node.sign, substitute(node.left, value, by), substitute(node.right, value, by))
