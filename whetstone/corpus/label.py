"""Labels of a corpus row: level, domain, the teacher's pass rate, repetition.

The paper labels each sample with domain, difficulty level and whether it repeats itself. What the source says holds;
where it says nothing, the level comes from the teacher's pass rate and the domain from the words of the question.
"""

import re

from whetstone.records import Problem, Trace

WINDOW = 16  # words in a window of `repetition`

# Lowest pass rate of levels 1 to 4; below the last one a problem is level 5.
LEVEL_PASS_RATES = (0.95, 0.75, 0.5, 0.25)

# First match wins, so the more special subject stands first.
DOMAIN_WORDS = {
    "geometry": r"triangle|circle|angle|rectangle|polygon|radius|perimeter|area of|volume of|diameter|parallel",
    "probability": r"probability|dice|die is|coin|at random|expected value|how many ways|permutation",
    "calculus": r"derivative|integral|\\int|limit|differentiable|\\lim",
    "number theory": r"divisor|divisible|prime|remainder|modulo|\\pmod|greatest common|least common|integer",
    "algebra": r"equation|polynomial|solve for|function|root|\\sqrt|matrix|vector|[a-z]\s*=|logarithm",
}


def pass_rate(traces: list[Trace]) -> float | None:
    """The share of right traces among those the verifier could decide on; None where it decided on none."""
    decided = [trace.correct for trace in traces if trace.correct is not None]
    return sum(decided) / len(decided) if decided else None


def level(problem: Problem, rate: float | None) -> int | None:
    """The source's level; else 1 (the teacher nearly always solves it) to 5 (hardly ever)."""
    if problem.level is not None or rate is None:
        return problem.level
    return next((i for i, lowest in enumerate(LEVEL_PASS_RATES, start=1) if rate >= lowest), 5)


def domain(problem: Problem) -> str:
    if problem.domain:
        return problem.domain
    question = problem.question.lower()
    return next((name for name, words in DOMAIN_WORDS.items() if re.search(words, question)), "other")


def repetition(text: str) -> float:
    """The share of 16-word windows that stand earlier in the text too: 0 for fresh text, near 1 for a loop.

    Writing a whole argument twice gives about one half, so a limit of 0.6 lets a check in the same words pass.
    """
    words = text.split()
    windows = len(words) - WINDOW + 1
    if windows <= 0:
        return 0.0
    return 1 - len(set(zip(*(words[i : windows + i] for i in range(WINDOW)), strict=True))) / windows
