"""A conversation: what next-token training reads from a row of a table. Loads no torch, so that `plan` can read tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whetstone.prompting import Prompting
from whetstone.records import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question and its answer from a row of a table. Their types are not checked yet.

    If a student sampled the ids, they are given and used as they are; the text is not tokenised again.
    """

    problem_id: str | None
    question: Any
    answer: Any
    split: str = "train"
    prompt_ids: Sequence[int] = ()
    answer_ids: Sequence[int] = ()
    system: str = ""  # what a system turn before the question says
    policy: str = "math"  # which form of the answer a prompt asks for

    @property
    def size(self) -> int:
        """Its length in characters, or in ids if these are given. It must have no fault."""
        return len(self.system) + len(self.prompt_ids or self.question) + len(self.answer_ids or self.answer)

    def turns(self, prompting: Prompting) -> tuple[Message, ...]:
        """What the answer answers. It must have no fault."""
        return prompting.messages(self.question, self.system, self.policy, self.answer)

    @property
    def fault(self) -> str:
        """Why it cannot be trained on; empty if it can."""
        for name, text, ids in (("question", self.question, self.prompt_ids), ("answer", self.answer, self.answer_ids)):
            if ids:
                continue
            if text is None or (isinstance(text, str) and not text.strip()):
                return f"no {name}"
            if not isinstance(text, str):
                return f"its {name} is not text"
        return ""


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """A row of a corpus; or of a student's rollouts; or of pairs, then the chosen side, as the sampled ids if there are any."""
    problem_id, question = row.get("problem_id"), row.get("question")
    if "ids" in row:
        return Conversation(problem_id, question, row["text"], prompt_ids=row["prompt_ids"], answer_ids=row["ids"])
    said = {"system": row.get("system") or "", "policy": row.get("policy") or "math"}
    if "chosen" not in row:
        return Conversation(problem_id, question, row.get("text"), row.get("split", "train"), **said)
    ids = {"prompt_ids": row["prompt_ids"] or (), "answer_ids": row["chosen_ids"] or ()}
    return Conversation(problem_id, question, row["chosen"], **ids, **said)
