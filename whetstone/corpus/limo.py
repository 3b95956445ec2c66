"""LIMO (Ye et al. 2025, arXiv 2502.03387, version 2): few, hard, well-argued problems.

Two models decide what is hard: a problem that the weak one solves within its tries (4 in the paper) is too easy, and of the
rest those are kept that the strong one solves 1 to 3 times of 32. How well a trace is argued is a score:

    elaborated reasoning   length                               30 %
    self-verification      "check", "verify", …                 20 %
    exploration            "perhaps", "might", "wait", …        25 %
    connectives            "therefore", "since", …              25 %

LIMO normalises word counts by length and does not publish how the four terms are brought to one scale. Here each becomes
x / (x + half): 0 for none, 1/2 at `half`, always below 1. `half` is 200 words for the length, and one such word in a hundred
for each group.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from whetstone.records import Trace

HALF_LENGTH = 200  # words of a text at which the term of its length is 1/2
HALF_DENSITY = 0.01  # words of a group per word of the text at which its term is 1/2


@dataclass(frozen=True)
class Solved:
    """How many rollouts of a weak and a strong model were right; None if there is no such model."""

    weak: int | None = None
    strong: int | None = None


def solved(traces: Sequence[Trace]) -> int:
    return sum(trace.correct is True for trace in traces)


def why_not_limo(rated: Solved, wanted: tuple[int, int]) -> str:
    """Why a problem is too easy or too hard for LIMO; "" if it is neither.

    >>> why_not_limo(Solved(0, 2), (1, 3)), why_not_limo(Solved(1, 2), (1, 3))
    ('', 'too easy: the weak model solves it')
    """
    fewest, most = wanted
    if rated.weak:
        return "too easy: the weak model solves it"
    if rated.strong is not None and rated.strong > most:
        return "too easy: the strong model solves it often"
    if rated.strong is not None and rated.strong < fewest:
        return "too hard: the strong model hardly ever solves it"
    return ""


# (single words, phrases) of each group
_VERIFICATION = ("check checks checked checking verify verifies verified verification confirm confirms confirmed", ())
_EXPLORATION = ("perhaps might maybe wait alternatively suppose possibly consider try", ("let me",))
_CONNECTIVES = ("therefore since because thus hence so then", ("which means", "it follows"))
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=256)  # called when traces are ordered and again when their problem is offered
def quality(text: str) -> float:
    """LIMO's weighted score, 0 to 1."""
    lowered = text.lower()
    words = len(lowered.split())
    if not words:
        return 0.0
    counts = Counter(_WORD.findall(lowered))

    def density(group: tuple[str, tuple[str, ...]]) -> float:
        singles, phrases = group
        occurrences = sum(counts[word] for word in singles.split())
        # The left boundary is checked last: a pattern that begins with letters is searched for much faster.
        occurrences += sum(len(re.findall(rf"{phrase}\b(?<!\w{phrase})", lowered)) for phrase in phrases)
        return _saturating(occurrences / words, HALF_DENSITY)

    return (
        0.30 * _saturating(words, HALF_LENGTH)
        + 0.20 * density(_VERIFICATION)
        + 0.25 * density(_EXPLORATION)
        + 0.25 * density(_CONNECTIVES)
    )


def _saturating(value: float, half: float) -> float:
    return value / (value + half)
