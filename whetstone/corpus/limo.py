"""How well argued a trace is: the score of LIMO (Ye et al. 2025, arXiv 2502.03387, version 2).

    elaborated reasoning   length                               30 %
    self-verification      "check", "verify", …                 20 %
    exploration            "perhaps", "might", "wait", …        25 %
    connectives            "therefore", "since", …              25 %

LIMO normalises word counts by length and does not publish how the four terms come onto one scale. Here each becomes
x / (x + half): 0 for none, 1/2 at `half`, below 1 always. For the length `half` is a setting (words), for the word
groups it is one such word in a hundred.
"""

import re
from collections import Counter
from functools import lru_cache

HALF_DENSITY = 0.01  # words of a group per word of text at which its term is 1/2

# Single words and phrases of each group
_VERIFICATION = ("check checks checked checking verify verifies verified verification confirm confirms confirmed", ())
_EXPLORATION = ("perhaps might maybe wait alternatively suppose possibly consider try", ("let me",))
_CONNECTIVES = ("therefore since because thus hence so then", ("which means", "it follows"))
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=256)  # asked for when traces are ordered and when a problem is offered
def quality(text: str, half_length: float = 200) -> float:
    """LIMO's weighted score, 0 to 1."""
    words = len(text.split())
    if not words:
        return 0.0
    lowered = text.lower()
    said = Counter(_WORD.findall(lowered))

    def density(group: tuple[str, tuple[str, ...]]) -> float:
        singles, phrases = group
        found = sum(said[word] for word in singles.split())
        found += sum(len(re.findall(rf"\b{phrase}\b", lowered)) for phrase in phrases)
        return _saturating(found / words, HALF_DENSITY)

    return (
        0.30 * _saturating(words, half_length)
        + 0.20 * density(_VERIFICATION)
        + 0.25 * density(_EXPLORATION)
        + 0.25 * density(_CONNECTIVES)
    )


def _saturating(value: float, half: float) -> float:
    return value / (value + half)
