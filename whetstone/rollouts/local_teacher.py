"""A teacher in this process: asked once per problem, for all its rollouts."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from whetstone.records import Problem, Trace, Verifier
from whetstone.rollouts.journal import Line, verified_lines
from whetstone.rollouts.mammoth import ProgramGrader


class Teacher(Protocol):
    def traces(self, problem: Problem, n: int) -> list[Trace]:
        """`n` unverified traces; none, or a ValueError with the reason, if the teacher cannot explain the problem."""
        ...


class LocalTeacher:
    """The lines of a teacher in this process. Without one, only shipped solutions are kept."""

    stopped = ""
    synced = 1 << 30  # lines that are written and synced together: a whole block

    def __init__(self, teacher: Teacher | None, samples: int, verifier: Verifier, programs: ProgramGrader | None):
        self.teacher, self.samples, self.verifier, self.programs = teacher, samples, verifier, programs

    def lines(self, problems: Sequence[Problem], done: Collection[str]) -> Iterator[Line]:
        answered = [(problem, *self._ask(problem)) for problem in problems]
        yield from verified_lines(answered, self.verifier, self.programs)

    def _ask(self, problem: Problem) -> tuple[list[Trace], str]:
        if self.teacher is None:
            return [], "it ships no worked solution, and no teacher is asked"
        try:
            traces = self.teacher.traces(problem, self.samples)
        except ValueError as error:
            return [], f"the teacher cannot explain it: {error}"
        return traces, "" if traces else "the teacher cannot explain it"

    def cost(self) -> dict[str, str]:
        return {}

    def summary(self) -> dict[str, Any]:
        return {}
