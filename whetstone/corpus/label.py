"""Labels of a corpus row: level, domain, school, the teacher's pass rate, repetition, language.

The paper labels each sample with domain, difficulty level and whether it repeats itself. Labels of the source are kept. If
there are none, the level comes from the teacher's pass rate and the domain from the words of the question.
"""

import re
from functools import lru_cache

from whetstone.corpus.shingles import count_distinct, runs, word_codes
from whetstone.records import PROGRAM, Problem, Trace

WINDOW = 16  # words in a window of `repetition`

# Lowest pass rate of levels 1 to 4; below the last of them a problem has level 5
LEVEL_PASS_RATES = (0.95, 0.75, 0.5, 0.25)

# The first match wins, so more special subjects come first
DOMAIN_WORDS = {
    "geometry": r"triangle|circle|angle|rectangle|polygon|radius|perimeter|area of|volume of|diameter|parallel",
    "probability": r"probability|dice|die is|coin|at random|expected value|how many ways|permutation",
    "calculus": r"derivative|integral|\\int|limit|differentiable|\\lim",
    "number theory": r"divisor|divisible|prime|remainder|modulo|\\pmod|greatest common|least common|integer",
    "algebra": r"equation|polynomial|solve for|function|root|\\sqrt|matrix|vector|[a-z]\s*=|logarithm",
}

SCHOOL_WORDS = {  # highest first; "elementary" if none matches
    "graduate": r"manifold|homolog|cohomolog|galois|banach|hilbert space|lebesgue|measurable|functor|martingale|"
    r"noetherian|\bsheaf|riemannian|sobolev|compact operator",
    "college": r"derivative|integral|\\int|\\lim|differential equation|eigenvalue|matrix|matrices|determinant|\\partial|"
    r"\bgroup of order|\bring\b.*\bideal|convergen|taylor|laplace|random variable|vector space|linear map|basis of",
    "high school": r"logarithm|\\log|\\sin|\\cos|\\tan|polynomial|complex number|\\sqrt|quadratic|parabola|ellipse|"
    r"\\binom|permutation|probability|modulo|\\pmod|inscribed|circumscribed|tangent|vector|asymptote|sequence|"
    r"relatively prime|function",
    "middle school": r"percent|%|ratio|proportion|equation|solve for|negative|perimeter|area|volume|angle|average|mean\b|"
    r"fraction|prime|divisor|divisible|remainder|\\frac|interest",
}
# First and last letter of a language's script
SCRIPTS = {"ja": "\u3040\u30ff", "zh": "\u4e00\u9fff", "ko": "\uac00\ud7a3", "ru": "\u0400\u04ff", "ar": "\u0600\u06ff"}
_COMMON_ENGLISH = (
    "the a an of is are what how find and if in to for many let that with each has have evaluate compute solve"
)
ENGLISH = frozenset(_COMMON_ENGLISH.split())
FEW_WORDS = 4  # fewer different words than this are taken for names of variables


def pass_rate(traces: list[Trace]) -> float | None:
    """The share of right traces among those that the verifier decided; None if it decided none.

    Programs of thought count only if there are no others: a program says little about how hard thinking is.
    """
    thoughts = [trace for trace in traces if trace.augmentation != PROGRAM] or traces
    decided = [trace.correct for trace in thoughts if trace.correct is not None]
    return sum(decided) / len(decided) if decided else None


def level(problem: Problem, rate: float | None) -> int | None:
    """The source's level, else 1 (the teacher nearly always solves it) to 5 (hardly ever); None without a rate."""
    if problem.level is not None or rate is None:
        return problem.level
    return next((i for i, lowest in enumerate(LEVEL_PASS_RATES, start=1) if rate >= lowest), 5)


def domain(problem: Problem) -> str:
    question = problem.question.lower()
    return problem.domain or next((name for name, words in DOMAIN_WORDS.items() if re.search(words, question)), "other")


def school(question: str) -> str:
    """The highest level of schooling, elementary to graduate, that a word of the question belongs to."""
    text = question.lower()
    return next((stage for stage, words in SCHOOL_WORDS.items() if re.search(words, text)), "elementary")


def language(text: str) -> str:
    """en, zh, ja, ko, ru, ar or other: by script, and for Latin letters by the most common English words.

    >>> language("How many apples are in the basket?"), language("小明有五个苹果")
    ('en', 'zh')
    """
    letters = [letter for letter in text[:2000] if letter.isalpha()]
    if not letters:
        return "en"  # only numbers and signs
    for name, (low, high) in SCRIPTS.items():
        if sum(low <= letter <= high for letter in letters) >= 0.2 * len(letters):
            return name
    words = set(re.findall(r"[a-z]+", text[:2000].lower()))
    return "en" if words & ENGLISH or len(words) < FEW_WORDS else "other"


@lru_cache(maxsize=256)  # called when a trace is accepted and again when its row is written
def repetition(text: str) -> float:
    """The share of 16-word windows that also occur earlier in the text: 0 for fresh text, near 1 for a loop.

    Writing a whole argument twice gives about one half, so a limit of 0.6 accepts a check in the same words.
    """
    words = word_codes(text)
    windows = len(words) - WINDOW + 1
    if windows <= 0:
        return 0.0
    return 1 - count_distinct(runs(words, WINDOW)) / windows
