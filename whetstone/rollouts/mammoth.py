r"""MAmmoTH's hybrid set (Yue et al. 2023, arXiv 2309.05653): a chain of thought and a program of thought for one problem.

A program is asked for by adding " Let's write a program." to the question, and kept as right when what it computes is the
reference answer; it runs in the sandbox (`verify/program.py`) or not at all. The traces of both kinds lie side by side, the
programs under the augmentation "program": the corpus teaches them as answers to the question with those words added.

Problems that carry a formula need no model for it:

    (2*3+2)*2    ```python
                 def solution():
                     x1 = 2 * 3
                     x2 = x1 + 2
                     x3 = x2 * 2
                     return x3
                 ```
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import count

from whetstone.records import PROGRAM_REQUEST, Message, Problem, Prompt, Trace, Verdict, Verifier
from whetstone.rollouts.procedural_teacher import Operation, parse
from whetstone.verify.program import Outcome, Sandbox

AUGMENTATION = "program"


def program_trace(problem: Problem, index: int) -> Trace:
    """The program that computes a problem's formula, one operation a line. Raises ValueError without a formula."""
    if not problem.formula:
        raise ValueError("it has no formula.")
    lines: list[str] = []
    names = (f"x{number}" for number in count(1))

    def write(node: Operation | Fraction) -> str:
        if isinstance(node, Fraction):
            return str(node.numerator) if node.denominator == 1 else f"Fraction({node.numerator}, {node.denominator})"
        left, right = write(node.left), write(node.right)
        if node.symbol == "/" and not right.startswith("Fraction"):
            right = f"Fraction({right})"  # exact: 1 / 3 is no decimal
        name = next(names)
        lines.append(f"    {name} = {left} {node.symbol} {right}")
        return name

    last = write(parse(problem.formula))
    body = "\n".join([*lines, f"    return {last}"])
    exact = "from fractions import Fraction\n\n\n" if "Fraction" in body else ""
    text = f"```python\n{exact}def solution():\n{body}\n```"
    return Trace(problem.id, index, text, "procedural", augmentation=AUGMENTATION)


def program_prompts(
    problems: Iterable[Problem], programs: int, first: int, done: dict[str, set[int]]
) -> Iterator[Prompt]:
    """`programs` prompts a problem, with indices from `first` on, except those that are done."""
    for problem in problems:
        for index in range(first, first + programs):
            if index not in done.get(problem.id, ()):
                yield Prompt(problem.id, index, (Message("user", problem.question + PROGRAM_REQUEST),))


class ProgramGrader:
    """Runs programs and compares what they compute. Raises ValueError if this machine offers no isolation for them."""

    def __init__(self, sandbox: Sandbox, verifier: Verifier):
        self.isolation = sandbox.require()
        self.sandbox, self.verifier = sandbox, verifier

    def verdicts(self, items: list[tuple[Problem, str]]) -> list[Verdict]:
        """On (problem, completion with a program)."""
        return [self._verdict(problem, self.sandbox.run_text(text)) for problem, text in items]

    def _verdict(self, problem: Problem, outcome: Outcome) -> Verdict:
        if outcome.reason == "refused":
            raise ValueError(f"programs can no longer be run isolated: {outcome.detail}")
        if outcome.answer is None:
            return Verdict(False, f"program: {outcome.reason}")
        verdict = self.verifier.check(f"\\boxed{{{outcome.answer}}}", problem.answer, problem.policy)
        return replace(verdict, reason=f"program: {verdict.reason}")
