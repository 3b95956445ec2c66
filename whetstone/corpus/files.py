"""Files that a recipe names for the corpus: evaluation sets to keep apart from, and ready preference pairs."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from whetstone.problems.chats import asked, completion_of, conversation
from whetstone.problems.files import expand_path, find_files
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
        for file, line, row in read_tables(find_files(self.path)):
            identity = f"{self.title}/{file}/{line}" if file else f"{self.title}/{line}"
            try:
                if not isinstance(row, dict):
                    raise ValueError(f"broken row: {row}")
                question, chosen, rejected = preference(row)
                if not question:
                    raise ValueError("no question")
                if chosen == rejected:
                    raise ValueError("both sides are equal")
                yield identity, Pair(identity, question, chosen, rejected, source=self.title)
            except ValueError as error:
                yield identity, error


def preference(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """(question, chosen, rejected) of a preference pair in one of the usual layouts. Raises ValueError("reason: detail").

    {prompt | question, chosen, rejected} as text or as chats, {conversations, chosen, rejected} (ShareGPT), and whole
    dialogues under chosen and rejected, as chats or as text ("\\n\\nHuman: … Assistant: …").
    """
    if "chosen" not in row or "rejected" not in row:
        raise ValueError(f"not a pair: it has {', '.join(map(repr, row))} and lacks chosen or rejected")
    chosen, rejected = row["chosen"], row["rejected"]
    column = next((name for name in ("prompt", "question", "conversations") if row.get(name) is not None), None)
    if column:
        system, question = asked(row[column], repr(column))
    elif isinstance(chosen, str) and isinstance(rejected, str):
        return _dialogue(chosen, rejected)
    else:
        system, question, _ = conversation(chosen)
    if system or row.get("system"):
        raise ValueError("a system message: a pair is a question and two answers")
    return question, _reply(chosen, "'chosen'", question), _reply(rejected, "'rejected'", question)


def _reply(value: Any, name: str, question: str) -> str:
    """The text of an answer: plain, a turn of a chat, or a chat that ends with it, which must begin with the question."""
    if isinstance(value, list) and len(value) > 1:
        system, first, answer = conversation(value)
        if system or first != question:
            raise ValueError(f"not one question: {name} answers another one than the row's")
        return answer
    if isinstance(value, dict):
        value = [value if value.get("role") or value.get("from") else value | {"role": "assistant"}]
    if not isinstance(value, str | list):
        raise ValueError(f"not text: {name} holds {type(value).__name__}")
    return completion_of(value, name)


def _dialogue(chosen: str, rejected: str) -> tuple[str, str, str]:
    before, mark, answer = chosen.rpartition("\n\nAssistant:")
    other_before, _, other = rejected.rpartition("\n\nAssistant:")
    if not mark or before != other_before or before.count("\n\nHuman:") != 1:
        raise ValueError("not one question: a dialogue of several turns is no single problem")
    return before.partition("\n\nHuman:")[2].strip(), answer.strip(), other.strip()
