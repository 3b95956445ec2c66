"""Files that a recipe names for the corpus: evaluation sets to keep apart from, and ready preference pairs."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from whetstone.problems.chats import asked, completion_of, conversation, one_system, refuse_more
from whetstone.problems.files import expand_path, find_files
from whetstone.problems.row import cell
from whetstone.problems.table import read_tables
from whetstone.problems.values import optional
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
                system, _ = prompt_of(row)
                yield identity, Pair(identity, question, chosen, rejected, source=self.title, system=system)
            except ValueError as error:
                yield identity, error


def preference(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """(question, chosen, rejected) of a preference pair in one of the usual layouts. Raises ValueError("reason: detail").

    {prompt | question, chosen, rejected} as text or as chats, {conversations, chosen, rejected} (ShareGPT), and whole
    dialogues under chosen and rejected, as chats or as text ("\\n\\nHuman: … Assistant: …").
    """
    if "chosen" not in row or "rejected" not in row:
        raise ValueError(f"not a pair: it has {', '.join(map(repr, row))} and lacks chosen or rejected")
    refuse_more(row, "the row", "<think>")  # notes on the preference are no part of it
    prompt = prompt_of(row)
    return prompt[1], _reply(row, "chosen", prompt), _reply(row, "rejected", prompt)


def prompt_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """(system message or "", question) of a pair. Raises ValueError."""
    column = _prompt_column(row)
    if column:
        system, question = asked(row[column], repr(column))
    else:
        system, question, _ = _whole(row["chosen"])
    return one_system(system, optional(row, "system")), question


def _prompt_column(row: Mapping[str, Any]) -> str | None:
    return next((name for name in ("prompt", "question", "conversations") if row.get(name) is not None), None)


def _reply(row: Mapping[str, Any], name: str, prompt: tuple[str, str]) -> str:
    """The text of an answer: plain, a turn of a chat, or what ends with it, which must begin with the question."""
    value = row[name]
    if isinstance(value, dict):
        value = [value if value.get("role") or value.get("from") else value | {"role": "assistant"}]
    if not isinstance(value, str | list):
        raise ValueError(f"not text: {name!r} holds {type(value).__name__}")
    if _prompt_column(row) and (isinstance(value, str) or len(value) < 2):
        return completion_of(value, repr(name))
    system, question, answer = _whole(value)
    if question != prompt[1] or one_system(system, prompt[0]) != prompt[0]:
        raise ValueError(f"not one question: {name!r} answers another one than the row's")
    return answer


def _whole(value: Any) -> tuple[str, str, str]:
    """(system message, question, answer) of a dialogue."""
    if not isinstance(value, str):
        return conversation(value)
    before, mark, answer = value.rpartition("\n\nAssistant:")
    if not mark or before.count("\n\nHuman:") != 1:
        raise ValueError("not one question: a dialogue of several turns is no single problem")
    return "", before.partition("\n\nHuman:")[2].strip(), answer.strip()
