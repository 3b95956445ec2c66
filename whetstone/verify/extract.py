r"""The answer in a completion: the last `\boxed{…}`, a stated final answer, or a text that is nothing but an answer.

Found from the tail, without a guess: a last box that was cut off is no answer, whatever stands in an earlier box, and
no number is taken from prose because it happens to come last. Boxes joined by a comma or "and" are one answer with
several parts; a "final answer is $…$" after the last box replaces it; a sentence with one formula in it says that.
`stated.py` knows how an answer is stated in words.
"""

import re

from whetstone.verify.beside import Extracted
from whetstone.verify.boxes import boxed, last_box_start, last_boxes, name_before
from whetstone.verify.choice import choice_of, mentions_choice
from whetstone.verify.plain import plain_ending
from whetstone.verify.policy import Policy
from whetstone.verify.stated import (
    LONGEST_ANSWER,
    answer_after,
    concluded,
    denied,
    only_formula,
    said_after,
    statement_end,
    unwrapped,
)
from whetstone.verify.thinking import after_thinking

STATEMENT_TAIL = 20_000  # characters at the end of a text in which a stated answer is looked for

TAGS = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
STRUCK = re.compile(
    r"<!--.{0,500}?-->|(?<![\w}\\~])~~(?=\S)[^~\n]{1,500}~~(?!\w)|\\iffalse\b.{0,500}?\\fi\b", re.DOTALL
)
NAMED_FIRST = re.compile(r"[\s$]*([A-Za-z](?:_\{?\w+\}?)?)\s*=[^=]*\Z")
SPECIAL_TAIL, TAG_TAIL = 200, 2_000  # characters in which tags at the end are looked for
SPECIAL = re.compile(r"(?:\s*<(?:\|[A-Za-z_]+\||/?s|eos|end_of_turn|/answer)>)+\s*\Z")
ENVIRONMENT = re.compile(r"^(?:\$\$?|\\\[|\\\()?\s*\\begin\{")


def extract(text: str, policy: Policy) -> Extracted:
    """The text's answer under `policy`. Time is linear in the text; never raises on any string."""
    if not policy.thinking_counts:
        said = after_thinking(text)
        if said is None:
            return Extracted(None, "no answer: thinking not finished")
        text = said
    if "<" in text:
        text = _last_tag(_without_special_end(text))
    if policy.kind in ("math", "integer") and (plain := plain_ending(text)):
        return plain
    text = _without_struck(text)
    at = last_box_start(text)
    if at >= 0:
        found, end = last_boxes(text, at, surroundings=policy.kind in ("math", "integer"))
        if policy.kind != "choice" and (later := answer_after(text[end:][-STATEMENT_TAIL:])):
            return Extracted(later, "stated")
        if policy.kind != "choice" or found.answer is None or mentions_choice(found.answer, policy):
            return found
        after = extract(text[at:].partition("}")[2], policy)
        return after if after.answer is not None and choice_of(after.answer, policy) else found
    tail = text[-STATEMENT_TAIL:]
    stated = statement_end(tail)
    if stated >= 0:
        if denied(tail[:stated], tail[stated:]):
            return Extracted(None, "no answer: what is stated is denied")
        return Extracted(*said_after(tail[stated:], whole_line=policy.kind == "choice"))
    return _bare(text)


def last_box(text: str) -> str | None:
    """The content of the last box that is complete and not empty; None without one.

    >>> last_box(r"so \\boxed{1} and \\boxed{\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    """
    while (at := last_box_start(text)) >= 0:
        if (answer := boxed(text, at)[0].answer) is not None:
            return answer
        text = text[:at]
    return None


def other_name(text: str, gold: str) -> str:
    """y of `y = \\boxed{5}` where the reference is `x = 5`; "" where they have one name, or none."""
    named = NAMED_FIRST.match(gold)
    name = name_before(text, last_box_start(text)) if named else ""
    return name if named and name != named[1] else ""


def _has(text: str, part: str) -> bool:
    """`part in text`, for long texts: searching from the end is several times as fast."""
    return text.rfind(part) >= 0


def _without_special_end(text: str) -> str:
    """A text without the special tokens it ends in."""
    end = text[-SPECIAL_TAIL:]
    return text[:-SPECIAL_TAIL] + SPECIAL.sub("", end) if "<" in end and end.rstrip().endswith(">") else text


def _without_struck(text: str) -> str:
    """A text without comments and what is struck out, in its tail."""
    tail = text[-STATEMENT_TAIL:]
    if not (_has(tail, "~~") or _has(tail, "<!--") or _has(tail, "\\iffalse")):
        return text
    return text[:-STATEMENT_TAIL] + STRUCK.sub(" ", tail)


def _last_tag(text: str) -> str:
    """What the last `<answer>` holds, unless a box stands behind it."""
    if "nswer>" not in (end := text[-TAG_TAIL:]) and "NSWER>" not in end:
        return text
    tags = list(TAGS.finditer(text, max(0, len(text) - STATEMENT_TAIL)))
    return text if not tags or text.find("\\boxed", tags[-1].end()) >= 0 else tags[-1][1]


# texts without a box


def _bare(text: str) -> Extracted:
    """A text of one line (or one environment) that is itself the answer."""
    if "\\boxed" in text and not text.replace("\\boxed", "").strip(" {}"):
        return Extracted(None, "no answer: empty box")
    answer = unwrapped(text.strip())
    if not answer:
        return Extracted(None, "no answer")
    if said := concluded(answer):
        return Extracted(said, "stated")
    formula = only_formula(answer)
    if formula:
        return Extracted(formula, "formula")
    if len(answer) > LONGEST_ANSWER or ("\n" in answer and not ENVIRONMENT.match(answer)):
        return Extracted(None, "no answer: neither a box nor a stated answer")
    return Extracted(answer, "bare")


def reference_sentence(gold: str) -> str:
    """The one formula of a reference that is a sentence: "The mode is $1/3$."; else the reference as it stands."""
    return (only_formula(gold) or gold) if gold.rstrip(" .").endswith(("$", "\\)", "\\]")) else gold
