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

HALF_DENSITY = 0.01  # words of a group per word of text at which its term is 1/2

_VERIFICATION = re.compile(r"\b(?:check(?:s|ed|ing)?|verif(?:y|ies|ied|ication)|confirm(?:s|ed)?)\b", re.I)
_EXPLORATION = re.compile(r"\b(?:perhaps|might|maybe|wait|alternatively|suppose|possibly|consider|let me|try)\b", re.I)
_CONNECTIVES = re.compile(r"\b(?:therefore|since|because|thus|hence|so|then|which means|it follows)\b", re.I)


def quality(text: str, half_length: float = 200) -> float:
    """LIMO's weighted score, 0 to 1."""
    words = len(text.split())
    if not words:
        return 0.0

    def density(group: re.Pattern[str]) -> float:
        return _saturating(len(group.findall(text)) / words, HALF_DENSITY)

    return (
        0.30 * _saturating(words, half_length)
        + 0.20 * density(_VERIFICATION)
        + 0.25 * density(_EXPLORATION)
        + 0.25 * density(_CONNECTIVES)
    )


def _saturating(value: float, half: float) -> float:
    return value / (value + half)
