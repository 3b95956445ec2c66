r"""Flexible extraction: the last number or expression of a text, for a text that gives no answer in a box or in words.

It serves a second figure beside a score, which tells a gain in reasoning from a gain in writing the answer as it is read. The
main score and every reward take answers as `extract.py` finds them. lm-evaluation-harness calls such a figure
`flexible-extract`. Differs from it: a text that does give an answer keeps that one.
"""

import re
from collections import deque

from whetstone.verify.extract import STATEMENT_TAIL
from whetstone.verify.policy import Policy
from whetstone.verify.stated import LONGEST_ANSWER
from whetstone.verify.thinking import THINKING

NUMBER = re.compile(r"(?:(?<![\w.)}\]])[-−])?(?:\\[dt]?frac\{\d{1,20}\}\{\d{1,20}\}|\d[\d,]*(?:\.\d+)?(?:/\d+)?)")
INTEGER = re.compile(r"(?:(?<![\w.)}\]])[-−])?\d[\d,]*")
FORMULA = re.compile(r"\$([^$\n]{1,500})\$|\\\(([^\n]{1,500}?)\\\)|\\\[(.{1,500}?)\\\]", re.DOTALL)
LETTER = re.compile(r"\(([A-J])\)|(?<![A-Za-z'’])([A-J])(?![A-Za-z'’])(?!(?<=[AI])\s+[a-z])")


def last_answer(text: str, policy: Policy) -> str | None:
    r"""What flexible extraction takes as the answer, None for none. Time is linear in the text.

    >>> from whetstone.verify.policy import get_policy
    >>> math, choice = get_policy("math"), get_policy("choice")
    >>> last_answer("12 + 30 = 42, and 42 - 7 = 35 apples.", math), last_answer("so (B) is too long: C", choice)
    ('35', 'C')
    >>> last_answer("Hence $x = \\frac{1}{2}$ holds.", math), last_answer("It is not known.", math)
    ('x = \\frac{1}{2}', None)
    """
    tail = _after_thinking(text)[-STATEMENT_TAIL:]
    if policy.kind == "choice":
        return _last(LETTER, tail)
    if policy.kind == "integer":
        return _last(INTEGER, tail)
    if policy.kind == "word":
        return None
    formula = last_match(FORMULA, tail)
    number = last_match(NUMBER, tail)
    if formula and (number is None or number.end() <= formula.end()):
        return next(group for group in formula.groups() if group is not None).strip()[:LONGEST_ANSWER] or None
    return number and number[0].rstrip(",")


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = last_match(pattern, text)
    return found and (found[found.lastindex or 0]).rstrip(",")


def _after_thinking(text: str) -> str:
    """What follows the thinking; the whole text if nothing does."""
    for _, closing in THINKING:
        text = text.rpartition(closing)[2].strip() or text
    return text
