"""A teacher that is a program: asked once per problem, for all its rollouts, in any process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whetstone.records import Problem, Trace, Verifier
from whetstone.rollouts.equations_teacher import EquationsTeacher
from whetstone.rollouts.journal import Line, verified_lines
from whetstone.rollouts.mammoth import ProgramGrader
from whetstone.rollouts.procedural_teacher import ProceduralTeacher


@dataclass(frozen=True)
class LocalTeacher:
    """Problems, each with the solutions that it ships -> a verified line of each (`fan_out`'s work).

    A problem that ships solutions keeps them; with `beside_shipped` the teacher's come before them. Without a teacher, only
    shipped solutions are kept.
    """

    teacher: ProceduralTeacher | EquationsTeacher | None
    samples: int
    beside_shipped: bool
    verifier: Verifier
    programs: ProgramGrader | None

    def __call__(self, block: Sequence[tuple[Problem, Sequence[Trace]]]) -> list[Line]:
        answered = [(problem, *self._answers(problem, shipped)) for problem, shipped in block]
        return verified_lines(answered, self.verifier, self.programs)

    def _answers(self, problem: Problem, shipped: Sequence[Trace]) -> tuple[list[Trace], str]:
        """Its traces; and why the teacher gave none, though it was asked."""
        if shipped and not self.beside_shipped:
            return list(shipped), ""
        own, reason = self._asked(problem)
        return [*own, *(replace(trace, index=trace.index + len(own)) for trace in shipped)], reason

    def _asked(self, problem: Problem) -> tuple[list[Trace], str]:
        if self.teacher is None:
            return [], "it ships no worked solution, and no teacher is asked"
        try:
            traces = self.teacher.traces(problem, self.samples)
        except ValueError as error:
            return [], f"the teacher cannot explain it: {error}"
        return traces, "" if traces else "the teacher cannot explain it"
