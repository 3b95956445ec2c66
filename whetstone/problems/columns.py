"""The layout of a user's own file: which column is which field of a problem, and where in its column the answer is."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator

from whetstone.problems.chats import asked, completion_of, one_system
from whetstone.problems.reading import (
    ProblemSet,
    Reading,
    after_hashes,
    last_box,
    with_box,
)
from whetstone.problems.row import EXCERPT, Row, cell, excerpt, has_cell
from whetstone.problems.thoughts import thinking
from whetstone.problems.values import answer_of, level_of, optional
from whetstone.run.settings import Settings

AnswerFrom: TypeAlias = Literal["column", "boxed", "after_hashes"]
FINDERS = {"column": str, "boxed": last_box, "after_hashes": after_hashes}
OPTIONAL = ("id", "level", "domain", "policy", "formula", "system")


def read_mapping(pairs: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
    """Columns as a command line names them: "question=prompt"; question may be there several times, which joins them.

    Raises ValueError for another column that is named twice.

    >>> read_mapping(["question=body", "question=ask", "answer=a.b"])
    {'question': ('body', 'ask'), 'answer': 'a.b'}
    """
    named: dict[str, list[str]] = {}
    for pair in pairs:
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not equals or not theirs:
            raise ValueError(f"--column {pair}: write OURS=THEIRS, for instance --column question=prompt.")
        named.setdefault(ours, []).append(theirs)
    twice = next((ours for ours, theirs in named.items() if len(theirs) > 1 and ours != "question"), None)
    if twice is not None:
        raise ValueError(
            f"--column {twice} is there twice: {' and '.join(named[twice])}. Only question may be several."
        )
    return {ours: theirs[0] if len(theirs) == 1 else tuple(theirs) for ours, theirs in named.items()}


def answer_in(value: Any, name: str, answer_from: AnswerFrom) -> str:
    """The answer in the value of a column; "" if that is empty. Raises ValueError."""
    text = answer_of(value, name)
    answer = FINDERS[answer_from](text) if text else ""
    if answer is None:
        raise ValueError(f'no answer found: answer_from = "{answer_from}": {excerpt(text[-EXCERPT:])}')
    return answer


class Columns(Settings):
    """Which column of the file is which field of a problem. A dotted name looks into nested columns."""

    question: str | tuple[str, ...] = Field("question", description="a list of columns is joined with spaces")
    answer: str = Field("answer", description="as it stands, or the text that `answer_from` finds it in")
    id: str | None = Field(None, description="None: the line number")
    level: str | None = Field(None, description='a number, or text with one in it ("Level 3")')
    domain: str | None = Field(None, description="subject, by which scores are grouped")
    policy: str | None = Field(None, description="the answer policy of the row; None: the source's")
    formula: str | None = Field(None, description="an arithmetic expression that the procedural teacher can explain")
    system: str | None = Field(None, description="a system message before the question")
    solution: str | None = Field(
        None, description="a worked solution, which is verified and taught; the answer is put in a box if it is in none"
    )

    @field_validator("question")
    @classmethod
    def question_is_named(cls, question: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not question or not all(question):
            raise ValueError('no column. Name one, as in question = "problem"')
        return question

    @property
    def questions(self) -> tuple[str, ...]:
        return (self.question,) if isinstance(self.question, str) else self.question

    @property
    def named(self) -> tuple[str, ...]:
        """Every column that is named, once."""
        optional = (getattr(self, field) for field in (*OPTIONAL, "solution"))
        return tuple(dict.fromkeys((*self.questions, self.answer, *(name for name in optional if name is not None))))

    def layout(self, answer_from: AnswerFrom = "column") -> ProblemSet:
        """How the rows of the file are read."""

        def read(row: Row) -> Reading:
            """Raises KeyError for a missing column, ValueError for a value that is no text or an answer that is not found."""
            answer = answer_in(cell(row, self.answer), repr(self.answer), answer_from)
            parts = [asked(cell(row, column), repr(column)) for column in self.questions]
            fields = {field: optional(row, getattr(self, field)) for field in OPTIONAL}
            fields["system"] = one_system(fields["system"], *(system for system, _ in parts))
            question = " ".join(filter(None, (question for _, question in parts)))
            fields["level"] = level_of(fields["level"], repr(self.level))
            return Reading(question, answer, _worked(row, self.solution, answer), **fields)

        return ProblemSet(read, licence="")


def _worked(row: Row, column: str | None, answer: str) -> tuple[str, ...]:
    """The worked solution of a row as a completion, if it has one. Raises ValueError."""
    if column is None or not has_cell(row, column):
        return ()
    solution = thinking(completion_of(cell(row, column), repr(column)), repr(column))
    return (with_box(solution, answer) if answer else solution,) if solution else ()
