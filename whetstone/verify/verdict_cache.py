"""Verdicts by question, in bounded memory."""

import sys
from typing import NamedTuple

from whetstone.records import Verdict

MOST_BYTES = 32 << 20
OVERHEAD_BYTES = 300  # of a question, its verdict and their place in the table, beside the texts


class Question(NamedTuple):
    """What a verdict depends on."""

    answer: str
    gold: str
    policy: str


class VerdictCache:
    """The verdicts of the latest questions. When they would take more than `most_bytes`, all are forgotten."""

    def __init__(self, most_bytes: int | None = None):
        self.most_bytes = MOST_BYTES if most_bytes is None else most_bytes
        self.clear()

    def clear(self) -> None:
        self.bytes = 0
        self._verdicts: dict[Question, Verdict] = {}

    def get(self, question: Question) -> Verdict | None:
        return self._verdicts.get(question)

    def put(self, question: Question, verdict: Verdict) -> None:
        texts = (question.answer, question.gold, verdict.answer, verdict.reason)
        size = OVERHEAD_BYTES + sum(map(sys.getsizeof, texts))
        if self.bytes + size > self.most_bytes:
            self.clear()
        if size <= self.most_bytes:
            self.bytes += size
            self._verdicts[question] = verdict
