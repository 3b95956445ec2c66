"""A teacher that needs no download: it explains arithmetic as school does, in a long chain of thought.

Given a problem's formula it copies the formula, works one operation at a time in columns (`arithmetic/columns.py`), writes
the shorter formula that is left, checks the last step by the inverse operation, and boxes the answer:

    <think>
    12+(345-67)+8
    345-67:5-7=b8,4-6-1=b7,3-0-1=2 so 278
    12+278+8
    12+278:2+8=c0,1+7+1=9,0+2=2 so 290
    290+8:0+8=8,9+0=9,2+0=2 so 298
    Check 298-8:8-8=0,9-0=9,2-0=2 so 290
    </think>
    The answer is \\boxed{298}.

`given`            it begins with the numbers of the question in digits, `Given 7, 2`: reading them is a step of its own
`shortcut_rate`    it writes an operation without columns, `345-67=278`: right, but a small student that imitates it guesses.
                   A verifier sees no difference; DPO and RL see it in the student's success
`correction_rate`  it slips in a column, says "Wait" and works the step again
`wrong_rate`       it slips and does not notice: the conclusion is wrong (the rejected side of the paper's Rollout DPO)
"""

import random

from pydantic import Field

from whetstone.arithmetic.columns import Slip, work
from whetstone.arithmetic.expression import (
    INVERSE,
    Expression,
    Number,
    Operation,
    Value,
    numbers,
    parse,
    render,
    write_number,
)
from whetstone.arithmetic.number_words import mentions
from whetstone.records import Problem, Trace
from whetstone.run.settings import Settings

MOST_NUMBERS = 100  # of a formula
Step = tuple[str, Value, Value]  # sign, left, right


class Procedural(Settings):
    """How the procedural teacher explains, and how often it errs."""

    wrong_rate: float = Field(0.2, ge=0, le=1, description="share of rollouts that end in a wrong conclusion")
    correction_rate: float = Field(0.2, ge=0, le=1, description="share of rollouts that slip and correct it")
    shortcut_rate: float = Field(0.0, ge=0, le=1, description="share of operations written without columns")
    check_rate: float = Field(0.5, ge=0, le=1, description="share of rollouts that check the last step")
    given: bool = Field(False, description="write down the numbers of the question first")


class ProceduralTeacher:
    """Writes `n` different traces for one problem, unverified. Deterministic in (seed, problem id, index)."""

    name = "procedural"

    def __init__(self, settings: Procedural | None = None, seed: int = 0):
        self.settings = settings or Procedural()
        self.seed = seed

    def traces(self, problem: Problem, n: int) -> list[Trace]:
        """Raises ValueError if the problem has no formula, or one that columns cannot explain."""
        if not problem.formula:
            raise ValueError("it has no formula, and the procedural teacher can only explain formulas")
        formula = parse(problem.formula)
        if (count := _operations(formula) + 1) > MOST_NUMBERS:
            raise ValueError(f"formula of {count} numbers: the procedural teacher explains at most {MOST_NUMBERS}.")
        opening = "<think>\n"
        if self.settings.given:
            free = [write_number(mention.value) for mention in mentions(problem.question) if mention.free]
            opening += f"Given {', '.join(free)}\n" if free else ""
        draws = [random.Random(f"{self.seed}/{problem.id}/{index}") for index in range(n)]
        return [Trace(problem.id, i, opening + self._text(formula, rng), self.name) for i, rng in enumerate(draws)]

    def _text(self, formula: Expression, rng: random.Random) -> str:
        """What follows the opening of the thoughts."""
        draw, wrong_rate = rng.random(), self.settings.wrong_rate
        if draw < wrong_rate:
            for _ in range(10):
                try:
                    return self._write(formula, rng, wrong=True, corrects=False)
                except ValueError:  # columns cannot hold a step after this slip: slip elsewhere
                    continue
        return self._write(formula, rng, wrong=False, corrects=draw < wrong_rate + self.settings.correction_rate)

    def _write(self, formula: Expression, rng: random.Random, wrong: bool, corrects: bool) -> str:
        operations = _operations(formula)
        slip_at = rng.randrange(operations) if operations and (wrong or corrects) else operations
        lines = [render(formula)] if operations != 1 else []
        for number in range(operations):
            step = _first_step(formula)
            text, true = work(*step)
            result = true
            if number == slip_at:
                slipped, bad = _slip(step, true, rng)
                if corrects:
                    lines += [f"{_written(step)}:{slipped}", "Wait, a digit slipped."]
                else:
                    text, result = slipped, bad
            rate = self.settings.shortcut_rate
            shortcut = rate > 0 and rng.random() < rate and number != slip_at
            lines.append(f"{_written(step)}={write_number(result)}" if shortcut else f"{_written(step)}:{text}")
            formula = _replace_first(formula, result)
            if _operations(formula) > 1:  # a single operation is written as it is worked
                lines.append(render(formula))
        if operations and rng.random() < self.settings.check_rate:
            lines += _check(step, result, true)
        return "\n".join(lines) + f"\n</think>\nThe answer is \\boxed{{{render(formula)}}}."


def _slip(step: Step, true: Value, rng: random.Random) -> tuple[str, Value]:
    """The step with one wrong digit: its text and result."""
    _, a, b = step
    for _ in range(20):
        slip = Slip(rng.randrange(max(len(str(int(a))), len(str(int(b))))), rng.choice((1, 9, 2, 8)))
        text, result = work(*step, slip)
        if result != true:
            return text, result
    return work(*step)


def _check(step: Step, result: Value, true: Value) -> list[str]:
    """The step undone. After an unnoticed slip the check is as careless as the step was: it sees what it expects."""
    sign, a, b = step
    try:
        text, back = work(INVERSE[sign], true, b)
    except ValueError:
        return []
    if result == true and back != a:
        return []
    return [f"Check {_written((INVERSE[sign], result, b))}:{text}"]  # a wrong result beside the expected columns


def _written(step: Step) -> str:
    sign, a, b = step
    return f"{write_number(a)}{sign}{write_number(b)}"


def _operations(formula: Expression) -> int:
    return len(numbers(formula)) - 1


def _first_step(formula: Operation) -> Step:
    """The leftmost operation between two numbers."""
    for side in (formula.left, formula.right):
        if isinstance(side, Operation):
            return _first_step(side)
    return formula.sign, formula.left.value, formula.right.value


def _replace_first(formula: Operation, result: Value) -> Expression:
    """The formula with its leftmost operation between two numbers replaced by a result."""
    if isinstance(formula.left, Operation):
        return Operation(formula.sign, _replace_first(formula.left, result), formula.right)
    if isinstance(formula.right, Operation):
        return Operation(formula.sign, formula.left, _replace_first(formula.right, result))
    return Number(result)
