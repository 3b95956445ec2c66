"""Files that a recipe names for the corpus: evaluation sets to keep apart from, and ready preference pairs."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from whetstone.problems.files import expand_path, find_file
from whetstone.problems.table import cell, has_cell, read_table
from whetstone.records import Pair, Problem
from whetstone.run.settings import Settings


class OutsideFile(Settings):
    path: str = Field(description=".jsonl, .json, .csv, .tsv (also .gz) or .parquet; may contain $VARIABLES and ~")
    name: str = Field("", description="of the set; default: the name of the file's folder")

    @property
    def title(self) -> str:
        return self.name or expand_path(self.path).parent.name


class EvaluationSet(OutsideFile):
    """A file of questions that training problems must not be taken from, besides the recipe's own test problems."""

    question: str = Field("question", description="the column of the question; a dotted name looks into nested ones")

    def questions(self) -> Iterator[Problem]:
        """Raises FileNotFoundError, and ValueError for a row without a question."""
        path = find_file(self.path)
        for number, row in read_table(path):
            question = cell(row, self.question) if isinstance(row, dict) and has_cell(row, self.question) else None
            if not isinstance(question, str):
                why = f"it has {', '.join(map(repr, row))}" if isinstance(row, dict) else row
                raise ValueError(
                    f"{path}, row {number}, has no text in the column {self.question!r}: {why}. A question that cannot be "
                    'read cannot be kept out of training. Name the column, as in against = [{ path = "…", question = '
                    '"problem" }].'
                )
            yield Problem(f"{self.title}/{number}", question, "", "test", self.title)


class PairFile(OutsideFile):
    """A file of ready preference pairs: a question with a chosen and a rejected answer, in one of the usual layouts."""

    MOVED: ClassVar[Mapping[str, str]] = {"limit": "gone: shorten the file"}

    def pairs(self) -> Iterator[tuple[str, Pair | ValueError]]:
        """(identity of the row, its pair or why it gives none). Raises FileNotFoundError."""
        for number, row in read_table(find_file(self.path)):
            identity = f"{self.title}/{number}"
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
    dialogues under chosen and rejected ("\\n\\nHuman: … Assistant: …").
    """
    if "chosen" not in row or "rejected" not in row:
        raise ValueError(f"not a pair: it has {', '.join(map(repr, row))} and lacks chosen or rejected")
    chosen, rejected = _reply(row["chosen"]), _reply(row["rejected"])
    prompt = row.get("prompt") or row.get("question") or row.get("conversations")
    if prompt is None and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        return _dialogue(row["chosen"], row["rejected"])
    if prompt is None and isinstance(row["chosen"], list):
        prompt = row["chosen"][:-1]
    if isinstance(prompt, list):
        turns = [turn for turn in prompt if isinstance(turn, dict) and turn.get("role", turn.get("from")) != "system"]
        if len(turns) != 1:
            raise ValueError("not one question: a chat of several turns is no single problem")
        prompt = turns[0].get("content") or turns[0].get("value")
    return _text(prompt), chosen, rejected


def _reply(value: Any) -> str:
    """The text of an answer: plain, a turn of a chat, or the last turn of a list."""
    if isinstance(value, list):
        value = value[-1] if value else None
    return _text((value.get("content") or value.get("value")) if isinstance(value, dict) else value)


def _dialogue(chosen: str, rejected: str) -> tuple[str, str, str]:
    before, mark, answer = chosen.rpartition("\n\nAssistant:")
    other_before, _, other = rejected.rpartition("\n\nAssistant:")
    if not mark or before != other_before or before.count("\n\nHuman:") != 1:
        raise ValueError("not one question: a dialogue of several turns is no single problem")
    return before.partition("\n\nHuman:")[2].strip(), answer.strip(), other.strip()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not text: {type(value).__name__} where text should be")
    return value.strip()
