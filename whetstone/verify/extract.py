r"""The answer in a completion: the last `\boxed{…}`, a stated final answer, or a text that is nothing but an answer.

Found from the tail, without a guess: a last box that was cut off is no answer, whatever stands in an earlier box, and
no number is taken from prose because it happens to come last. Boxes joined by a comma or "and" are one answer with
several parts; a "final answer is $…$" after the last box replaces it; a sentence with one formula in it says that.
`stated.py` knows how an answer is stated in words.
"""

import re
from typing import NamedTuple

from whetstone.verify.choice import choice_of, mentions_choice
from whetstone.verify.policy import Policy
from whetstone.verify.stated import (
    LONGEST_ANSWER,
    only_formula,
    said_after,
    stated_formula_after,
    statement_end,
    unwrapped,
)

STATEMENT_TAIL = 20_000  # characters at the end of a text in which a stated answer is looked for

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
SIMPLE_BOX = re.compile(r"\\(?:boxed|fbox)\{([^{}\\]{1,100})\}")  # what most are: read at once
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{\s{0,9}(?:\.\.\.|…|\\text\{\}|\\?c?dots)?\s{0,9}\}")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
BETWEEN_BOXES = re.compile(r"\\text\s*\{([^{}]*)\}|\\q?quad|\\[,;: ()\[\]]|[$*]")
NAME = r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?"
JOINED = re.compile(rf"\s*[,;]\s*(?:and|or)?\s*{NAME}|\s*(?:[A-Za-z()]+\s+){{0,5}}(?:and|or)\s*{NAME}")
NAMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*[$\s]*$")
LONGEST_JOINT = 80  # characters between boxes of one answer
MOST_BOXES = 20
PERCENT_AFTER = re.compile(r"\s*(?:\$|\\\)|\*\*)?\s*(?:\\?%|percent\b|pct\b)")
TAGS = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
THINKING = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<thinking>", "</thinking>"))
START, SPECIAL_TAIL, TAG_TAIL = 200, 200, 2_000  # characters in which tags at the start and at the end are looked for
SPECIAL = re.compile(r"(?:\s*<(?:\|[a-z_]+\||/?s|eos|end_of_turn|/answer)>)+\s*\Z")
ENVIRONMENT = re.compile(r"^(?:\$\$?|\\\[|\\\()?\s*\\begin\{")


class Extracted(NamedTuple):
    """`answer` is None where there is none; `how` then says why, else where it was found.

    >>> from whetstone.verify.policy import get_policy
    >>> extract(r"so \\boxed{3} … no: \\boxed{\\frac{1}{2}}", get_policy("math"))
    Extracted(answer='\\\\frac{1}{2}', how='box')
    """

    answer: str | None
    how: str  # box | stated | formula | bare, or the reason for None


def extract(text: str, policy: Policy) -> Extracted:
    """The text's answer under `policy`. Time is linear in the text; never raises on any string."""
    if "<" in text:
        if not policy.thinking_counts and ("think>" in text or "thinking>" in text[:START] or "_of_thought|>" in text):
            thought = _after_thinking(text)
            if thought is None:
                return Extracted(None, "no answer: thinking not finished")
            text = thought
        text = _last_tag(_without_special_end(text)) if "<" in text else text
    at = _last_box_start(text)
    if at >= 0:
        found = _last_boxes(text, at)
        if policy.kind != "choice" or found.answer is None or mentions_choice(found.answer, policy):
            return found
        after = extract(text[at:].partition("}")[2], policy)
        return after if after.answer is not None and choice_of(after.answer, policy) else found
    tail = text[-STATEMENT_TAIL:]
    stated = statement_end(tail)
    if stated >= 0:
        return Extracted(*said_after(tail[stated:], whole_line=policy.kind == "choice"))
    return _bare(text)


def last_box(text: str) -> str | None:
    """The content of the last box that is complete and not empty; None without one.

    >>> last_box(r"so \\boxed{1} and \\boxed{\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    """
    while (at := _last_box_start(text)) >= 0:
        if (answer := _boxed(text, at)[0].answer) is not None:
            return answer
        text = text[:at]
    return None


def percent_after_box(text: str) -> bool:
    r"""Is the last box followed by a percent sign: `\boxed{28}\%`?"""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        return False
    box, end = _boxed(text, at)
    return box.answer is not None and not box.answer.endswith("%") and PERCENT_AFTER.match(text, end) is not None


def _after_thinking(text: str) -> str | None:
    """What follows the thinking; None if that does not end."""
    for opening, closing in THINKING:
        closed = text.rfind(closing)
        if text.rfind(opening) > closed:
            return None
        if closed >= 0:
            text = text[closed + len(closing) :]
    return text


def _without_special_end(text: str) -> str:
    """A text without the special tokens it ends in."""
    end = text[-SPECIAL_TAIL:]
    return text[:-SPECIAL_TAIL] + SPECIAL.sub("", end) if "<" in end else text


def _last_tag(text: str) -> str:
    """What the last `<answer>` holds, unless a box stands behind it."""
    if "nswer>" not in text[-TAG_TAIL:]:
        return text
    tags = list(TAGS.finditer(text, max(0, len(text) - STATEMENT_TAIL)))
    return text if not tags or text.find("\\boxed", tags[-1].end()) >= 0 else tags[-1][1]


# boxes


def _last_box_start(text: str) -> int:
    """Where the last box starts, -1 without one; empty ones, as in "put it in \\boxed{}", are no boxes."""
    at = text.rfind("\\boxed")
    if "\\fbox" in text:
        at = max(at, text.rfind("\\fbox"))
    while at >= 0 and EMPTY_BOX.match(text, at):
        at = max(text.rfind("\\boxed", 0, at), text.rfind("\\fbox", 0, at))
    return at


def _last_boxes(text: str, at: int) -> Extracted:
    """The box whose command starts at `at`, with those joined to it, unless a final answer is stated after it."""
    answer, end = _boxed(text, at)
    if answer.answer is None:
        return answer
    if text[at - 1 : at] == "\\":  # written with each backslash doubled
        return Extracted(answer.answer.replace("\\\\", "\\"), "box")
    if text.find("inal", end) >= 0 and (formula := stated_formula_after(text, end)):
        return Extracted(formula, "stated")
    nearby = max(0, at - LONGEST_ANSWER)
    if text.rfind("\\boxed{", nearby, at) < 0 and text.rfind("\\fbox{", nearby, at) < 0:
        return answer
    boxes = [(answer.answer, _name_before(text, at))]
    while len(boxes) <= MOST_BOXES:
        from_here = max(0, at - LONGEST_ANSWER)
        before = max(text.rfind("\\boxed{", from_here, at), text.rfind("\\fbox{", from_here, at))
        if before < 0:
            break
        earlier, end = _boxed(text, before)
        if earlier.answer is None or not 0 <= at - end <= LONGEST_JOINT or not _joined(text[end:at]):
            break
        boxes.append((earlier.answer, _name_before(text, before)))
        at = before
    if len(boxes) > MOST_BOXES:
        return Extracted(None, "no answer: too many boxes")
    boxes.reverse()
    if len(boxes) > 1 and len({name for _, name in boxes if name}) == len(boxes):
        boxes = [(f"{name}={content}", name) for content, name in boxes]
    joined = ", ".join(dict.fromkeys(content for content, _ in boxes))
    return Extracted(joined, "box") if len(joined) <= LONGEST_ANSWER else Extracted(None, "no answer: box too long")


def _name_before(text: str, at: int) -> str:
    """x of `x = \\boxed{3}`."""
    found = NAMED.search(text[max(0, at - 20) : at])
    return found[1] if found else ""


def _joined(between: str) -> bool:
    """Do these characters between two boxes make one answer of them: nothing, a comma, "and", "apples and"?"""
    return not between or JOINED.fullmatch(BETWEEN_BOXES.sub(r" \1 ", between)) is not None


def _boxed(text: str, at: int) -> tuple[Extracted, int]:
    r"""The content of the box whose command starts at `at`, and where it ends; `\boxed 5` takes the next word."""
    simple = SIMPLE_BOX.match(text, at)
    if simple is not None and (content := simple[1].strip()):
        return Extracted(content, "box"), simple.end()
    opening = BOX.match(text, at)
    if opening is None:
        return Extracted(None, "no answer: unreadable box"), at
    start = opening.end()
    while start < len(text) and text[start].isspace():
        start += 1
    if start == len(text):
        return Extracted(None, "no answer: box cut off"), start
    if text[start] != "{":
        word = re.match(r"[^\s$\\.,;]+|\\frac\{[^{}]*\}\{[^{}]*\}", text[start : start + 200])
        if word is None:
            return Extracted(None, "no answer: unreadable box"), start
        return Extracted(word.group(), "box"), start + word.end()
    close = text.find("}", start)
    content = text[start + 1 : close] if 0 <= close < start + LONGEST_ANSWER else ""
    if close < 0:
        return Extracted(None, "no answer: box cut off"), start
    if not content or "{" in content or "\\" in content:
        content, problem = _braced(text, start)
        if problem:
            return Extracted(None, problem), start
    end = start + len(content) + 2
    content = content.strip()
    return Extracted(content, "box") if content else Extracted(None, "no answer: empty box"), end


def _braced(text: str, start: int) -> tuple[str, str]:
    r"""The content of the brace group at `start`, or the problem with it. `\{` and `\}` are characters, not braces."""
    depth = 0
    for token in BRACES.finditer(text, start, start + LONGEST_ANSWER + 2):
        if token.group() == "{":
            depth += 1
        elif token.group() == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : token.start()], ""
    if len(text) > start + LONGEST_ANSWER + 2:
        return "", "no answer: box too long"
    return "", "no answer: box cut off"


# texts without a box


def _bare(text: str) -> Extracted:
    """A text of one line (or one environment) that is itself the answer."""
    if "\\boxed" in text and not text.replace("\\boxed", "").strip(" {}"):
        return Extracted(None, "no answer: empty box")
    answer = unwrapped(text.strip())
    if not answer:
        return Extracted(None, "no answer")
    formula = only_formula(answer)
    if formula:
        return Extracted(formula, "formula")
    if len(answer) > LONGEST_ANSWER or ("\n" in answer and not ENVIRONMENT.match(answer)):
        return Extracted(None, "no answer: neither a box nor a stated answer")
    return Extracted(answer, "bare")


def reference_sentence(gold: str) -> str:
    """The one formula of a reference that is a sentence: "The mode is $1/3$."; else the reference as it stands."""
    return (only_formula(gold) or gold) if gold.rstrip(" .").endswith(("$", "\\)", "\\]")) else gold
