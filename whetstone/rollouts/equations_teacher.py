"""The shortest chain of thought: a problem's equations, one a line, then the answer in a box.

    Natalia sold clips to 48 friends in April, and half as many in May. How many in all?

    48/2=24
    48+24=72
    The answer is \\boxed{72}.

Small models learn short, equation-like chains better than long ones (arXiv 2502.12143). The equations are those that a
published solution annotates (GSM8K), else one for each operation of the problem's formula.
"""

from typing import ClassVar

from whetstone.problems.formulas import worked_equations
from whetstone.records import Problem, Trace


class EquationsTeacher:
    """One trace per problem, unverified: there is only one way of writing it."""

    name: ClassVar[str] = "equations"

    def traces(self, problem: Problem, n: int) -> list[Trace]:
        """Raises ValueError("reason: detail") if the problem's equations do not lead to its answer."""
        lines = [str(equation) for equation in worked_equations(problem)]
        text = "\n".join([*lines, f"The answer is \\boxed{{{problem.answer}}}."])
        return [Trace(problem.id, 0, text, self.name)]
