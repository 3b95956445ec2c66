"""ASDiv (Miao, Liang and Su, ACL 2020): English word problems of grades 1 to 6, each with the formula that solves it.

The recipe names the Solution-Types it wants. Of these a problem is kept if its answer is one number and its formula,
read as plain arithmetic, gives exactly that number, so that a teacher can explain it and a verifier can trust it.

Folds here are *not* the official ones of ASDiv-A: a problem's fold is a hash of its text without numbers, so that
near-identical texts stay together and the folds do not depend on the order or the choice of problems.

The file is `dataset/ASDiv.xml` of github.com/chaochun/nlu-asdiv-dataset, plain or gzipped, under CC BY-NC 4.0. The published
set "asdiv" is the table of it that others score on, without formulas.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from difflib import get_close_matches
from fractions import Fraction

from pydantic import Field, model_validator

from whetstone.arithmetic.expression import decimal_places, evaluate, numbers, program, render, results, write_number
from whetstone.problems.files import find_file
from whetstone.problems.formulas import joined_steps
from whetstone.problems.reading import Drop
from whetstone.problems.table import excerpt, open_bytes
from whetstone.questions.source import Source
from whetstone.questions.splits import hash_fraction, template
from whetstone.records import Problem

LICENCE = "CC BY-NC 4.0"
ANSWER = re.compile(r"\$?\s*(-?\d[\d,]*(?:\.\d+)?)\s*(?:\([^()]*\))?")
MISSPELT = {"Substraction": "Subtraction"}  # once in the file


class AsdivSource(Source):
    """ASDiv's arithmetic problems, cut into folds."""

    path: str = Field("$WHETSTONE_DATA/asdiv/ASDiv.xml.gz", description="dataset/ASDiv.xml, plain or gzipped")
    benchmark: str = Field("asdiv", description="name of the problem set that the test fold is scored in")
    solution_types: tuple[str, ...] = Field(min_length=1, description="which Solution-Types to take")
    folds: int = Field(5, ge=2, description="by hash of the text without its numbers")
    test_fold: int = Field(0, ge=0, description="this fold is the test set")
    validation: float = Field(0.05, ge=0, lt=1, description="share of the other folds")
    limit: int = Field(0, ge=0, description="at most so many problems of the chosen types; 0: all")

    @property
    def splits(self) -> frozenset[str]:
        return frozenset({"test", "train"} | ({"validation"} if self.validation > 0 else set()))

    @property
    def files(self) -> tuple[str, ...]:
        return (self.path,)

    def problems(self, title: str, split: str, seed: int) -> Iterator[Problem | Drop]:
        """Every problem of the chosen types, whatever its split, or why it is left out.

        Raises ValueError for a Solution-Type that the file does not have or a file that is not ASDiv's XML, and
        FileNotFoundError.
        """
        path = find_file(self.path)
        try:
            with open_bytes(path) as content:
                elements = list(ElementTree.parse(content).getroot().iter("Problem"))
        except (ElementTree.ParseError, EOFError, OSError) as error:
            raise ValueError(f"source file {path} is not readable as ASDiv's XML: {error}. Fetch it again.") from error
        present = sorted({_solution_type(element) for element in elements})
        wanted = {MISSPELT.get(name, name) for name in self.solution_types}
        for name in wanted - set(present):
            near = get_close_matches(name, present, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"solution_types names {name!r}, which is not in {path}: it has {', '.join(present)}.{meant}"
            )
        chosen = [(number, element) for number, element in enumerate(elements, 1) if _solution_type(element) in wanted]
        for number, element in chosen[: self.limit or None]:
            yield _problem(element, number, self, title)

    @model_validator(mode="after")
    def test_fold_exists(self) -> "AsdivSource":
        if self.test_fold >= self.folds:
            raise ValueError(
                f"test_fold = {self.test_fold} of folds = {self.folds}: folds are counted from 0. "
                f"Use 0 to {self.folds - 1}."
            )
        return self


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
    number_alone = ANSWER.fullmatch(stated)
    if not number_alone:
        return drop("answer is not one number", stated)
    answer = Fraction(number_alone[1].replace(",", ""))
    try:
        formula = joined_steps(written, question)
        value = evaluate(formula)
    except (ValueError, ZeroDivisionError) as error:
        return drop("formula is not plain arithmetic", f"{written} ({error})")
    if value != answer:
        return drop("formula does not give the answer", f"{written}, but the answer is {stated}")
    steps = results(program(formula), numbers(formula))
    if steps is None or any(decimal_places(step) is None for step in steps):
        return drop("a step is negative or has no end as a decimal", written)
    split = split_by_fold(question, settings)
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


def split_by_fold(question: str, settings: AsdivSource) -> str:
    """The split of a text, from its template alone."""
    place = hash_fraction(template(question)) * settings.folds
    if int(place) == settings.test_fold:
        return "test"
    return "validation" if place % 1 < settings.validation else "train"


SOURCE = AsdivSource
