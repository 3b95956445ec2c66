r"""The commonest endings of a completion, read at once: `… \boxed{5}.` and `The answer is 5.` at the very end.

Most answers, and the reward of every step of RL, end so. What is found here is what `extract` finds; anything that could
make it another answer, or none (words and signs beside the box, an earlier box close by, a comment), is left to it.
"""

import re
from functools import lru_cache

from whetstone.verify.alternatives import may_follow_another
from whetstone.verify.beside import Extracted, left_of
from whetstone.verify.refused import LONGEST_JOINT, refused
from whetstone.verify.stated import LONGEST_ANSWER

BOX_AT_END = re.compile(
    r"\\boxed\{\s*((?:[-\w]|\\[dt]?frac(?=\{))(?:[^{}\\]|\\(?=[A-Za-z])|\{[^{}\\]*\}){0,200})\}"
    r"(?:[ $*.,;:)\]}\n]|\\(?=[)\]]))*\Z"
)
STATED_AT_END = re.compile(
    r"(?:\A|[.!?\n])\s*(?:(?:so|thus|therefore|hence),?\s)?the\s(?:final\s|correct\s)?answer\sis:?"
    r"\s(\$?)(-?\d[\d,]*(?:\.\d+|/\d+)?)\1\.?\s*\Z",
    re.IGNORECASE,
)
COMMENTS = ("~", "-->", "\\fi")  # close to the box: they end something struck out
OPENINGS = ("(", "[", "{", ">", "\\")  # of an interval, a group, a tag, a box with doubled backslashes
DELIMITERS = ("\\(", "\\[")  # of a formula
NEAR_END = 240  # characters at the end in which such an ending is looked for


def plain_ending(text: str) -> Extracted | None:
    """The answer of a text that ends in a plain box or a plain statement; None if it has to be read with care."""
    start = max(0, len(text) - NEAR_END)
    at = text.rfind("\\boxed{", start)
    if at < 0:
        stated = STATED_AT_END.search(text, start) if text.find("nswer is", start) >= 0 else None
        return Extracted(stated[2], "stated") if stated else None
    box = BOX_AT_END.match(text, at)
    if box is None:
        return None
    if at and not _stands_alone(text, at):
        return None
    return Extracted(box[1].rstrip(), "box")


def _stands_alone(text: str, at: int) -> bool:
    """Is there nothing before the box at `at` that belongs to it: no earlier box close by, no sign, no word, no comment?"""
    before = text[max(0, at - LONGEST_JOINT) : at]
    start = max(0, at - LONGEST_ANSWER)
    return (
        not any(map(before.__contains__, COMMENTS))
        and text.rfind("\\boxed", start, at) < 0
        and text.rfind("\\fbox", start, at) < 0
        and _adds_nothing(before.rpartition("\n")[2])
    )


@lru_cache(maxsize=4096)
def _adds_nothing(before: str) -> bool:
    """Do the characters before a box, in its line, leave it as it is?"""
    opened = before.endswith(OPENINGS) and not before.endswith(DELIMITERS)
    return not opened and not refused(before, "") and not left_of(before) and not may_follow_another(before)
