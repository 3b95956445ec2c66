"""What the stage `questions` remembers: which questions have a place, which solutions were shipped, what was left out."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from whetstone.problems.reading import Drop
from whetstone.problems.row import excerpt
from whetstone.questions.splits import normalise
from whetstone.records import Problem, Trace, to_row
from whetstone.run.tables import TableWriter

DUPLICATE = "duplicate question"


class Register:
    """Which questions and ids are taken, and by which split.

    Problems of the sources in `own_formulas` that are in two splits do not share their formula either: "Compute 12 + 3." and
    "What is 12 + 3?" are one.
    """

    def __init__(self, own_formulas: frozenset[str] = frozenset()) -> None:
        self._own_formulas = own_formulas
        self._splits: dict[bytes, str] = {}  # of a text, or of a domain and a formula
        self._ids: set[bytes] = set()

    def admit(self, problem: Problem) -> Drop | None:
        """Take the problem's place, or say why it has none."""
        key, identity = _digest(normalise(problem.question)), _digest(problem.id)
        holder = self._splits.get(key)
        if holder == problem.split:
            return refusal(problem, DUPLICATE)
        if holder is not None:
            return refusal(problem, f"question is in the {holder} split", f"it would have been {problem.split}")
        if identity in self._ids:
            return refusal(problem, "duplicate id", f"another question, which came first, has the id {problem.id!r}")
        if problem.source in self._own_formulas:
            same_formula = _digest(f"{problem.domain}\0{problem.formula}")
            holder = self._splits.setdefault(same_formula, problem.split)
            if holder != problem.split:
                return refusal(problem, f"question is in the {holder} split", "in other words")
        self._splits[key] = problem.split
        self._ids.add(identity)
        return None


def refusal(problem: Problem, reason: str, detail: str = "") -> Drop:
    return Drop(problem.source, None, problem.id, reason, detail, excerpt(problem.question))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class ShippedTraces:
    """The worked solutions of published sets, one row each; a repeated question adds its solutions to the first one's.

    They are written in the order in which they come, which need not be that of the problems. Memory: a hash and an id for every
    problem that has some.
    """

    def __init__(self, table: TableWriter):
        self.table = table
        self._holders: dict[bytes, tuple[str, int]] = {}  # question -> problem id and how many traces it has

    def add(self, problem: Problem, texts: Sequence[str]) -> None:
        """The traces of a problem that was admitted."""
        self._write(_digest(normalise(problem.question)), problem.id, 0, texts, problem.source)

    def kept_of(self, drop: Drop, problem: Problem, texts: Sequence[str]) -> Drop:
        """Why a problem was refused, whose traces go to the problem that has the same question, if that ships some itself."""
        key = _digest(normalise(problem.question))
        if drop.reason != DUPLICATE or not texts or key not in self._holders:
            return drop
        self._write(key, *self._holders[key], texts, problem.source)
        return replace(drop, detail="its worked solutions are kept")

    def _write(self, key: bytes, problem_id: str, first: int, texts: Sequence[str], teacher: str) -> None:
        for index, text in enumerate(texts, first):
            self.table.add(to_row(Trace(problem_id, index, text, teacher)))
        self._holders[key] = problem_id, first + len(texts)


class Dropped:
    """What is left out, one row each, and how often for which reason."""

    def __init__(self, table: TableWriter):
        self.table = table
        self.reasons = Counter[str]()

    def add(self, drop: Drop) -> None:
        self.reasons[drop.reason] += 1
        self.table.add(to_row(drop))
