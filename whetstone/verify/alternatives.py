r"""Another answer beside a box, without a box of its own: `3 or \boxed{4}`, `\boxed{3} and 4`, `\boxed{3}, 4` give no answer.

Only where the other is an answer and nothing more, up to the end of the sentence, and another value: `\frac12 or \boxed{0.5}`
gives one, and `a = \boxed{3} and b = 2` gives a.
"""

import re

from whetstone.verify.answers.reading import read
from whetstone.verify.compare import NOT_SHOWN, compare
from whetstone.verify.refused import PROSE, SPACES

LONGEST_OR = 24  # characters before a box in which "or" joins another answer to it
JOINTS = ("or", "and", "oder", "und", "ou", "et")
OR = r"(?:\\text\w*\s*\{\s*)?(?<![A-Za-z])(?:or|and|oder|und|ou|et|или|и)(?![A-Za-z])\s*\}?|或|和"
ALTERNATIVE = re.compile(r"or|oder|ou|или|或")
NAME = r"(?:([A-Za-z](?:_\{?\w+\}?)?)\s*=[\s$]*)?"
AND_ANOTHER = re.compile(rf"{SPACES}\(?(?:[,;]\s*(?:{OR})?|{OR})\s*([^\n;!?]*?)(?:\.?\s*(?:\n|\Z)|\.\s|[;!?])")
OTHER_OR = re.compile(rf"(?:^|[\s$(])(?<!=\s)(?<!=){NAME}([^\s$=,]+)[\s$*\\()]*({OR})[\s$*\\(]*{NAME}$")
OPERATION = re.compile(r"[-+*/^<>]\s*$|\\(?:times|cdot|div|pm|[gl]eq?|approx)\s*$")  # before what is then only a part
IN_TUPLE = re.compile(r"(?<!\\)[(\[]([^()\[\]{}$]*\d[^()\[\]{}$]*),\s*$")  # (2, \boxed{3})
LISTING = re.compile(r"\banswers\s+are[\s$*\\(:]*$", re.IGNORECASE)
NAMED_VALUE = re.compile(rf"{NAME}([^=]+)")
SOME_VALUE = re.compile(r"\d|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|\\(?:pi|infty|sqrt|frac)")
CONDITION = re.compile(r"[<>≤≥≠∈]|\\(?:in|neq?|[gl]eq?|[gl]t|not|c?dots|ldots|text)(?![A-Za-z])|\.\.\.|…")


def one_of_several(before: str, after: str, content: str) -> bool:
    """Is there another answer before or after a box that holds `content`?"""
    inside = IN_TUPLE.search(before)
    if inside and not PROSE.search(inside[1]) and after.lstrip()[:1] in (")", "]"):
        return True
    return (may_follow_another(before) and _follows_another(before, content)) or _another_follows(
        before, after, content
    )


def may_follow_another(before: str) -> bool:
    """Is there a word or comma that could join another answer to the box from the left?"""
    near = before[-LONGEST_OR:]
    if near.rstrip().endswith(",") and IN_TUPLE.search(before):
        return True
    return not near.isascii() or any(map(near.__contains__, JOINTS))


def _follows_another(before: str, content: str) -> bool:
    """`3 or \\boxed{4}`, `x = 3 or x = \\boxed{4}`; by "and" only where nothing else is said: `3 and \\boxed{4}`."""
    found = OTHER_OR.search(before)
    if found is None:
        return False
    other_name, other, joint, name = found.groups()
    lead = before[: found.start()]
    alone = not lead.strip(" $*\\([") or LISTING.search(lead) is not None
    return (
        (ALTERNATIVE.search(joint) is not None or alone)
        and (not name or other_name == name)
        and re.search(r"\d|\\(?:pi|infty)", other) is not None
        and not PROSE.search(other)
        and other.count("{") == other.count("}")
        and not OPERATION.search(before[: found.start(2)])
        and _differs(other, content)
    )


def _another_follows(before: str, after: str, content: str) -> bool:
    """`\\boxed{3} or 4`, `\\boxed{3}, 4`; `x = \\boxed{3} or x = 4`."""
    found = AND_ANOTHER.match(after)
    if found is None:
        return False
    said = NAMED_VALUE.fullmatch(found[1].strip(" $*\\()[]{}.,"))
    if said is None or (
        said[1] and not re.search(rf"(?<![\w\\]){re.escape(said[1])}\s*=", before[-LONGEST_OR:] + content)
    ):
        return False
    other = said[2]
    return (
        bool(SOME_VALUE.search(other))
        and not PROSE.search(other)
        and not CONDITION.search(other)
        and _differs(other, content)
    )


def _differs(other: str, content: str) -> bool:
    """Is it another value, or unread?"""
    try:
        return not compare(read(content)[0], read(other)[0])
    except NOT_SHOWN:
        return True
