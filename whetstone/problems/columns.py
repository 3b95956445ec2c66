"""The layout of a user's own file: which column is which field of a problem, and where in its column the answer is."""

from typing import Literal, TypeAlias

from pydantic import Field

from whetstone.problems.reading import (
    ProblemSet,
    Reading,
    after_hashes,
    answer_of,
    last_box,
    level_of,
    optional,
    question_of,
)
from whetstone.problems.table import EXCERPT, Row, cell, excerpt
from whetstone.run.settings import Settings

AnswerFrom: TypeAlias = Literal["column", "boxed", "after_hashes"]
FINDERS = {"column": str, "boxed": last_box, "after_hashes": after_hashes}
OPTIONAL = ("id", "level", "domain", "policy", "formula")


class Columns(Settings):
    """Which column of the file is which field of a problem. A dotted name looks into nested columns."""

    question: str | tuple[str, ...] = Field("question", description="a list of columns is joined with spaces")
    answer: str = Field("answer", description="as it stands, or the text that `answer_from` finds it in")
    id: str | None = Field(None, description="None: the line number")
    level: str | None = Field(None, description='a number, or text with one in it ("Level 3")')
    domain: str | None = Field(None, description="subject, by which scores are grouped")
    policy: str | None = Field(None, description="the answer policy of the row; None: the source's")
    formula: str | None = Field(None, description="an arithmetic expression that the procedural teacher can explain")

    @property
    def questions(self) -> tuple[str, ...]:
        return (self.question,) if isinstance(self.question, str) else self.question

    @property
    def named(self) -> tuple[str, ...]:
        """Every column that is named, once."""
        optional = (getattr(self, field) for field in OPTIONAL)
        return tuple(dict.fromkeys((*self.questions, self.answer, *(name for name in optional if name is not None))))

    def layout(self, answer_from: AnswerFrom = "column") -> ProblemSet:
        """How the rows of the file are read."""

        def read(row: Row) -> Reading:
            """Raises KeyError for a missing column, ValueError for a value that is no text or an answer that is not found."""
            text = answer_of(cell(row, self.answer), repr(self.answer))
            answer = FINDERS[answer_from](text) if text else ""
            if answer is None:
                raise ValueError(f'no answer found: answer_from = "{answer_from}": {excerpt(text[-EXCERPT:])}')
            parts = (question_of(cell(row, column), repr(column)) for column in self.questions)
            fields = {field: optional(row, getattr(self, field)) for field in OPTIONAL}
            return Reading(" ".join(filter(None, parts)), answer, **fields | {"level": level_of(fields["level"])})

        return ProblemSet(read, licence="")
