"""A teacher in this process: asked once per problem, for all its rollouts."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from whetstone.records import Problem, Trace, Verifier
from whetstone.rollouts.equations_teacher import EquationsTeacher
from whetstone.rollouts.journal import Line, verified_lines
from whetstone.rollouts.mammoth import ProgramGrader
from whetstone.rollouts.procedural_teacher import ProceduralTeacher


@dataclass(frozen=True)
class LocalTeacher:
    """The lines of a teacher in this process. Without one, only shipped solutions are kept."""

    stopped: ClassVar = ""
    synced: ClassVar = 1 << 30  # lines that are written and synced together: a whole block

    teacher: ProceduralTeacher | EquationsTeacher | None
    samples: int
    verifier: Verifier
    programs: ProgramGrader | None

    def lines(self, problems: Sequence[Problem], done: Collection[str]) -> Iterator[Line]:
        answered = [(problem, *self._ask(problem)) for problem in problems]
        yield from verified_lines(answered, self.verifier, self.programs)

    def beside(self, problem: Problem, shipped: Sequence[Trace]) -> tuple[Problem, list[Trace], str]:
        """A problem with the teacher's traces and, after them, the solutions that it ships; or why there are only these."""
        traces, reason = self._ask(problem)
        return problem, [*traces, *(replace(trace, index=trace.index + len(traces)) for trace in shipped)], reason

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
