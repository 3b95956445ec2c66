"""ASDiv (Miao, Liang and Su, ACL 2020): English word problems of grades 1 to 6, each with the formula that solves it.

The recipe names the Solution-Types it wants. Of these a problem is kept if its answer is one number and its formula,
read as plain arithmetic, gives exactly that number, so that a teacher can explain it and a verifier can trust it.

Folds here are *not* the official ones of ASDiv-A: the hash of a text without its numbers decides, so that near-identical texts
stay together.

The file is `dataset/ASDiv.xml` of github.com/chaochun/nlu-asdiv-dataset, plain or gzipped, under CC BY-NC 4.0. The published
set "asdiv" is the table of it that others score on, without formulas.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import ClassVar

from pydantic import Field, model_validator

from whetstone.arithmetic.expression import decimal_places, evaluate, numbers, program, render, results, write_number
from whetstone.problems.files import find_file
from whetstone.problems.formulas import joined_steps
from whetstone.problems.published import ProblemSet
from whetstone.problems.reading import Drop, Reading, read_problem
from whetstone.problems.row import Row
from whetstone.problems.text import open_bytes
from whetstone.problems.values import level_of, optional
from whetstone.questions.source import PlacedItem, Source
from whetstone.questions.splits import SPLITS, hash_fraction, template
from whetstone.records import Problem
from whetstone.run.mistakes import suggestion

ANSWER = re.compile(r"\$?\s*(-?\d[\d,]*(?:\.\d+)?)\s*(?:\([^()]*\))?")
MISSPELT = {"Substraction": "Subtraction"}  # once in the file
VALIDATION = 0.05  # share of the folds that are not the test set


class AsdivSource(Source):
    """ASDiv's arithmetic problems, cut into folds: one is the test set, and a twentieth of the others is for validation."""

    path: str = Field("$WHETSTONE_DATA/asdiv/ASDiv.xml.gz", description="dataset/ASDiv.xml, plain or gzipped")
    solution_types: tuple[str, ...] = Field(min_length=1, description="which Solution-Types to take")
    folds: int = Field(5, ge=2, description="by hash of the text without its numbers")
    test_fold: int = Field(0, ge=0, description="this fold is the test set")
    teach: bool = Field(True, description="whether the other folds are for training and validation")

    MOVED: ClassVar[Mapping[str, str]] = {
        "validation": f"gone: it is {VALIDATION} of the folds that are not the test set",
        "limit": "gone: all problems of the chosen types are read",
    }

    @property
    def splits(self) -> frozenset[str]:
        return frozenset(SPLITS if self.teach else ("test",))

    def problems(self, title: str, split: str, seed: int) -> Iterator[Problem | Drop]:
        return (item for _, _, item in self.placed_problems(title, split, seed))

    def placed_problems(self, title: str, split: str, seed: int) -> Iterator[PlacedItem]:
        """Every problem of the chosen types, whatever its split, or why it is left out.

        Raises ValueError for a Solution-Type that the file does not have or a file that is not ASDiv's XML, and
        FileNotFoundError.
        """
        path = find_file(self.path)
        try:
            with open_bytes(path) as content:
                rows = [_row(element) for element in ElementTree.parse(content).getroot().iter("Problem")]
        except (ElementTree.ParseError, EOFError, OSError) as error:
            raise ValueError(f"source file {path} is not readable as ASDiv's XML: {error}. Fetch it again.") from error
        present = sorted({row["Solution-Type"] for row in rows})
        wanted = {MISSPELT.get(name, name) for name in self.solution_types}
        for name in wanted - set(present):
            known = f"{suggestion(name, present)} It has {', '.join(present)}."
            raise ValueError(f"solution_types names {name!r}, which is not in {path}{known}")
        for number, row in enumerate(rows, 1):
            if row["Solution-Type"] in wanted:
                item = read_problem(row, number, ASDIV, title)
                kept = self.placed(item, self.split_of(item.question)) if isinstance(item, Problem) else item
                yield "", number, kept

    def split_of(self, question: str) -> str:
        """The split of a text, from its template alone."""
        place = hash_fraction(template(question)) * self.folds
        if int(place) == self.test_fold:
            return "test"
        return "validation" if place % 1 < VALIDATION else "train"

    @model_validator(mode="after")
    def test_fold_exists(self) -> "AsdivSource":
        if self.test_fold >= self.folds:
            fold = f"test_fold = {self.test_fold} of folds = {self.folds}"
            raise ValueError(f"{fold}: folds are counted from 0. Use 0 to {self.folds - 1}.")
        return self


def _row(element: ElementTree.Element) -> Row:
    """The attributes and children of a problem's element."""
    row = element.attrib | {child.tag: child.text or "" for child in element}
    name = row.get("Solution-Type", "").strip()
    return row | {"Solution-Type": MISSPELT.get(name, name)}


def _read(row: Row) -> Reading:
    stated, written = optional(row, "Answer"), optional(row, "Formula")
    question = " ".join(f"{optional(row, 'Body')} {optional(row, 'Question')}".split())
    domain, level = row["Solution-Type"].lower(), level_of(row.get("Grade"), "'Grade'")
    if not question or not stated:
        return Reading(question, stated)  # which is refused
    number_alone = ANSWER.fullmatch(stated)
    if not number_alone:
        raise ValueError(f"answer is not one number: {stated}")
    answer = Fraction(number_alone[1].replace(",", ""))
    try:
        formula = joined_steps(written, question)
        value = evaluate(formula)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"formula is not plain arithmetic: {written} ({error})") from error
    if value != answer:
        raise ValueError(f"formula does not give the answer: {written}, but the answer is {stated}")
    steps = results(program(formula), numbers(formula))
    if steps is None or any(decimal_places(step) is None for step in steps):
        raise ValueError(f"a step is negative or has no end as a decimal: {written}")
    return Reading(
        question, write_number(answer), level=level, domain=domain, formula=render(formula), id=row.get("ID", "")
    )


ASDIV = ProblemSet(_read, "CC BY-NC 4.0")
SOURCE = AsdivSource
