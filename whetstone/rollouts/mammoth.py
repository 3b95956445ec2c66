r"""MAmmoTH's hybrid set (Yue et al. 2023, arXiv 2309.05653): a chain of thought and a program of thought for one problem.

A program is asked for by adding " Let's write a program." to the question. It is right if what it computes is the reference
answer, and it runs in the sandbox (`verify/program.py`) or not at all. Traces of both kinds are rows of one table, programs
with the augmentation "program"; the corpus teaches a program as the answer to the question with those words added.

Problems that carry a formula need no model for it:

    (2*3+2)*2    ```python
                 def solution():
                     x1 = 2 * 3
                     x2 = x1 + 2
                     x3 = x2 * 2
                     return x3
                 ```
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import count

from whetstone.arithmetic.expression import Expression, Number, parse
from whetstone.prompting import BARE, Prompting
from whetstone.records import PROGRAM, PROGRAM_REQUEST, Generator, Problem, Sampling, Trace, Verifier
from whetstone.verify.program import Sandbox


def program_trace(problem: Problem, index: int) -> Trace:
    """The program that computes a problem's formula, one operation per line. Raises ValueError without a formula."""
    if not problem.formula:
        raise ValueError("it has no formula.")
    lines: list[str] = []
    names = (f"x{number}" for number in count(1))

    def write(node: Expression) -> str:
        if isinstance(node, Number):
            value = node.value
            return str(value) if value.denominator == 1 else f"Fraction({value.numerator}, {value.denominator})"
        left, right = write(node.left), write(node.right)
        if node.sign == "/" and not right.startswith("Fraction"):
            right = f"Fraction({right})"  # exact: 1 / 3 has no decimal
        name = next(names)
        lines.append(f"    {name} = {left} {node.sign} {right}")
        return name

    last = write(parse(problem.formula))
    body = "\n".join([*lines, f"    return {last}"])
    exact = "from fractions import Fraction\n\n\n" if "Fraction" in body else ""
    text = f"```python\n{exact}def solution():\n{body}\n```"
    return Trace(problem.id, index, text, "procedural", augmentation=PROGRAM)


class ProgramGrader:
    """Programs of problems, `count` per problem, run and compared. Their rollouts' indices begin at `first`.

    Raises ValueError if this machine offers no isolation for programs.
    """

    def __init__(self, sandbox: Sandbox, verifier: Verifier, first: int = 0, count: int = 1):
        self.isolation = sandbox.require()
        self.sandbox, self.verifier, self.first, self.count = sandbox, verifier, first, count

    def of_formula(self, problem: Problem) -> Trace | None:
        """The graded program of the problem's formula; None if it has none that can be read."""
        try:
            trace = program_trace(problem, self.first)
        except ValueError:
            return None
        return self._graded(problem, trace)

    def asked(
        self,
        problems: Sequence[Problem],
        generator: Generator,
        sampling: Sampling,
        teacher: str,
        done: Collection[tuple[str, int]],
        prompting: Prompting = BARE,
    ) -> Iterator[tuple[Trace, tuple[int, int]]]:
        """Graded programs that the generator writes, with their usage; (problem id, index) in `done` are left out."""
        by_id = {problem.id: problem for problem in problems}
        prompts = (
            prompting.prompt(problem, index, PROGRAM_REQUEST)
            for problem in problems
            for index in range(self.first, self.first + self.count)
            if (problem.id, index) not in done
        )
        for completion in generator.generate(prompts, sampling):
            trace = Trace(completion.problem_id, completion.index, completion.text, teacher, augmentation=PROGRAM)
            yield self._graded(by_id[trace.problem_id], trace), completion.usage

    def _graded(self, problem: Problem, trace: Trace) -> Trace:
        outcome = self.sandbox.run_text(trace.text)
        if outcome.reason == "refused":
            raise ValueError(f"programs can no longer be run isolated: {outcome.detail}")
        if outcome.answer is None:
            return replace(trace, correct=False, reason=f"program: {outcome.reason}")
        verdict = self.verifier.check(f"\\boxed{{{outcome.answer}}}", problem.answer, problem.policy)
        return replace(trace, correct=verdict.correct, reason=f"program: {verdict.reason}")
