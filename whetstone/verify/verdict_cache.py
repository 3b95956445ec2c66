"""Verdicts by question, in bounded memory."""

from typing import NamedTuple

from whetstone.records import Verdict

MOST_BYTES = 32 << 20
BYTES_PER_CHARACTER = 4  # at most
OVERHEAD_BYTES = 400  # of a question, its verdict and their place in the table, beside the texts


class Question(NamedTuple):
    """What a verdict depends on."""

    answer: str
    gold: str
    policy: str


class VerdictCache(dict[Question, Verdict]):
    """The verdicts of the latest questions. When they might take more than `most_bytes`, all are forgotten."""

    def __init__(self, most_bytes: int | None = None):
        super().__init__()
        self.most_bytes = MOST_BYTES if most_bytes is None else most_bytes
        self.bytes = 0

    def clear(self) -> None:
        super().clear()
        self.bytes = 0

    def put(self, question: Question, verdict: Verdict) -> None:
        answer, gold, _ = question
        size = OVERHEAD_BYTES + BYTES_PER_CHARACTER * (len(answer) + len(gold) + len(verdict.answer))
        if self.bytes + size > self.most_bytes:
            self.clear()
        if size <= self.most_bytes:
            self.bytes += size
            self[question] = verdict
