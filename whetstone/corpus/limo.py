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
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from whetstone.corpus import text_kernels

HALF_LENGTH = 200  # words of a text at which the term of its length is 1/2
HALF_DENSITY = 0.01  # words of a group per word of the text at which its term is 1/2


@dataclass(frozen=True)
class Solved:
    """How many rollouts of a weak and a strong model were right; None if there is no such model."""

    weak: int | None = None
    strong: int | None = None


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


# single words and phrases of two words
_GROUPS = (
    ("check checks checked checking verify verifies verified verification confirm confirms confirmed", ()),
    ("perhaps might maybe wait alternatively suppose possibly consider try", ("let me",)),
    ("therefore since because thus hence so then", ("which means", "it follows")),
)
_WEIGHTS = 0.20, 0.25, 0.25
_LENGTH_WEIGHT = 0.30
_PHRASES = [(*phrase.split(), group) for group, (_, phrases) in enumerate(_GROUPS) for phrase in phrases]


@lru_cache(maxsize=256)  # called when traces are ordered and again when their problem is offered
def quality(text: str) -> float:
    """LIMO's weighted score, 0 to 1."""
    counts = np.zeros(len(_GROUPS) + 1, np.int64)  # the last: words that only phrases have
    words = text_kernels.tally_words(*_points(text.lower()), *_vocabulary(), counts)
    if not words:
        return 0.0
    score = _LENGTH_WEIGHT * _saturating(words, HALF_LENGTH)
    for weight, count in zip(_WEIGHTS, counts.tolist(), strict=False):
        score += weight * _saturating(count / words, HALF_DENSITY)
    return score


def _points(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(code points, the kind of each code point that there may be)."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8), _kinds(128)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), _kinds(sys.maxunicode + 1)


@lru_cache
def _kinds(size: int) -> np.ndarray:
    """(size,) 1 for white space, 2 for what a word of a regular expression may hold, 0 for the others."""
    kinds, every = np.zeros(size, np.uint8), "".join(map(chr, range(size)))
    for kind, pattern in ((1, r"\s+"), (2, r"\w+")):
        for found in re.finditer(pattern, every):
            kinds[found.start() : found.end()] = kind
    return kinds


@lru_cache
def _vocabulary() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, groups, phrases) for `tally_words`."""
    only = len(_GROUPS)
    groups = {word: only for first, second, _ in _PHRASES for word in (first, second)}
    groups |= {word: group for group, (words, _) in enumerate(_GROUPS) for word in words.split()}
    code = text_kernels.word_code
    phrases = np.array([(code(first), code(second), group) for first, second, group in _PHRASES], np.uint64)
    return *text_kernels.vocabulary(groups), phrases


def _saturating(value: float, half: float) -> float:
    return value / (value + half)
