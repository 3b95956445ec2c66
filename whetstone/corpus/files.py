"""Files that a recipe names for the corpus: evaluation sets to keep apart from, and ready preference pairs."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field

from whetstone.problems.chats import asked
from whetstone.problems.files import expand_path, find_files
from whetstone.problems.preferences import read_preferences
from whetstone.problems.row import cell
from whetstone.problems.table import read_tables
from whetstone.records import Pair, Problem
from whetstone.run.settings import Settings

NAME_IT = 'Name the column, as in against = [{ path = "…", question = "problem" }].'


class OutsideFile(Settings):
    path: str = Field(description="a file, a folder of parts or a pattern (docs/your_data.md); may hold $VARIABLES, ~")
    name: str = Field("", description="of the set; default: the name of the file's folder")

    @property
    def title(self) -> str:
        return self.name or expand_path(self.path).parent.name


class EvaluationSet(OutsideFile):
    """A file of questions that training problems must not be taken from, besides the recipe's own test problems."""

    question: str = Field("question", description="the column of the question; a dotted name looks into nested ones")

    def questions(self) -> Iterator[Problem]:
        """Raises FileNotFoundError, and ValueError for a row without a question."""
        for file, line, row in read_tables(find_files(self.path)):
            place = f"{file}/{line}" if file else f"{line}"
            try:
                if not isinstance(row, dict):
                    raise ValueError(str(row))
                _, question = asked(cell(row, self.question), repr(self.question))
                if not question:
                    raise ValueError("it is empty")
            except (ValueError, KeyError) as error:
                why = f"it has {', '.join(map(repr, row))}" if isinstance(error, KeyError) else error
                raise ValueError(
                    f"{self.path}, row {place}, has no text in the column {self.question!r}: {why}. A question that cannot be "
                    f"read cannot be kept out of training. {NAME_IT}"
                ) from error
            yield Problem(f"{self.title}/{place}", question, "", "test", self.title)


class PairFile(OutsideFile):
    """A file of ready preference pairs: a question with a chosen and a rejected answer, in one of the usual layouts."""

    MOVED: ClassVar[Mapping[str, str]] = {"limit": "gone: shorten the file"}

    def pairs(self) -> Iterator[tuple[str, Pair | ValueError]]:
        """(identity of the row, its pair or why it gives none). Raises FileNotFoundError."""
        for identity, found in read_preferences(self.path, self.title):
            if isinstance(found, ValueError):
                yield identity, found
                continue
            try:
                system, question = found.question
            except ValueError as error:
                yield identity, error
                continue
            yield identity, Pair(identity, question, found.chosen, found.rejected, source=self.title, system=system)
