r"""MAmmoTH's hybrid set (Yue et al. 2023, arXiv 2309.05653): a chain of thought and a program of thought for one problem.

A program is asked for by adding " Let's write a program." to the question. It is right if what it computes is the reference
answer, and it runs in the sandbox (`verify/program.py`) or not at all. Traces of both kinds are rows of one table, programs
with the augmentation "program"; the corpus teaches a program as the answer to the question with those words added.

Problems that carry a formula, or whose solution annotates its equations, need no model for it:

    (2*3+2)*2    ```python
    or           def solution():
    2*3=6;           x1 = 2 * 3
    6+2=8;           x2 = x1 + 2
    8*2=16           x3 = x2 * 2
                     return x3
                 ```
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from whetstone.arithmetic.expression import PRECEDENCE, Expression, Number, Operation, Value
from whetstone.arithmetic.number_words import mentions
from whetstone.problems.formulas import worked_equations
from whetstone.prompting import BARE, Prompting
from whetstone.records import PROGRAM, PROGRAM_REQUEST, Generator, Problem, Sampling, Trace, Verifier
from whetstone.verify.program import Sandbox


def program_trace(problem: Problem, index: int) -> Trace:
    """The program that computes a problem's equations, a line each, or its formula, an operation per line.

    A number that one earlier equation gave, and the question does not, is that equation's name; with any doubt it stays a
    number. Raises ValueError("reason: detail") without either.
    """
    lines: list[str] = []
    results: dict[Value, str] = {}
    doubtful = {mention.value for mention in mentions(problem.question)}
    for number, equation in enumerate(worked_equations(problem), 1):
        names = {value: name for value, name in results.items() if value not in doubtful}
        lines.append(f"    x{number} = {_in_python(equation.left, names)}")
        doubtful |= {equation.value} & results.keys()
        results[equation.value] = f"x{number}"
    body = "\n".join([*lines, f"    return x{len(lines)}" if lines else f"    return {problem.formula}"])
    exact = "from fractions import Fraction\n\n\n" if "Fraction" in body else ""
    text = f"```python\n{exact}def solution():\n{body}\n```"
    return Trace(problem.id, index, text, "procedural", augmentation=PROGRAM)


def _in_python(node: Expression, results: Mapping[Value, str]) -> str:
    """An expression, exact: 1 / 3 has no decimal."""
    if isinstance(node, Number):
        value = node.value
        written = str(value) if value.denominator == 1 else f"Fraction({value.numerator}, {value.denominator})"
        return results.get(value, written)
    left, right = _in_python(node.left, results), _in_python(node.right, results)
    if isinstance(node.left, Operation) and PRECEDENCE[node.left.sign] < PRECEDENCE[node.sign]:
        left = f"({left})"
    if isinstance(node.right, Operation) and PRECEDENCE[node.right.sign] <= PRECEDENCE[node.sign]:
        right = f"({right})"
    if node.sign == "/" and not right.startswith("Fraction"):
        right = f"Fraction{right}" if right.startswith("(") else f"Fraction({right})"
    return f"{left} {node.sign} {right}"


class ProgramGrader:
    """Programs of problems, `count` per problem, run and compared. Their rollouts' indices begin at `first`.

    Raises ValueError if this machine offers no isolation for programs.
    """

    def __init__(self, sandbox: Sandbox, verifier: Verifier, first: int = 0, count: int = 1):
        self.isolation = sandbox.require()
        self.sandbox, self.verifier, self.first, self.count = sandbox, verifier, first, count

    def of_formula(self, problem: Problem) -> Trace | None:
        """The graded program of the problem's equations or formula; None if it has none that can be read."""
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
