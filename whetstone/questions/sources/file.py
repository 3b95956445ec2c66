"""A user's own file or files of problems, through a column mapping that the recipe declares."""

from collections.abc import Iterator
from glob import has_magic
from pathlib import Path

from pydantic import Field, model_validator

from whetstone.problems.columns import AnswerFrom, Columns
from whetstone.problems.files import find_files
from whetstone.problems.reading import ProblemSet
from whetstone.problems.row import SURROGATE, BrokenRow, Row
from whetstone.problems.table import read_tables
from whetstone.questions.source import RowSource


class FileSource(RowSource):
    """A file of problems, or several: docs/your_data.md has the formats."""

    columns: Columns = Field(Columns(), description="which column is which")
    answer_from: AnswerFrom = Field(
        "column", description="the column is the answer, or holds it in a box or after ####"
    )

    @property
    def title(self) -> str:
        """The name of the file or folder, with that of the folder above."""
        path = Path(self.path)
        while has_magic(path.name):
            path = path.parent
        name = "/".join(part for part in (path.parent.name, path.name.split(".")[0]) if part)
        return self.name or SURROGATE.sub("\ufffd", name) or self.kind

    @property
    def layout(self) -> ProblemSet:
        return self.columns.layout(self.answer_from)

    @property
    def has_formulas(self) -> bool:
        return self.columns.formula is not None

    @property
    def ships_solutions(self) -> bool:
        return self.columns.solution is not None

    def placed_rows(self) -> Iterator[tuple[str, int, Row | BrokenRow]]:
        return read_tables(find_files(self.path), self.columns.named)

    def check(self) -> None:
        """Its first rows must have the columns, too."""
        next(self.placed_rows(), None)

    @model_validator(mode="after")
    def names_a_file(self) -> "FileSource":
        if not self.path:
            raise ValueError('kind = "file" needs the file: add path = "my_problems.jsonl"')
        return self


SOURCE = FileSource
