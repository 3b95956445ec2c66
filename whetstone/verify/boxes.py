r"""Boxes: what the last one holds, with the boxes joined to it; of `\boxed{5} or maybe \boxed{6}` neither is the answer.

What stands beside a box is read by `beside.py`.
"""

import re

from whetstone.verify.beside import Extracted, with_surroundings
from whetstone.verify.refused import LONGEST_JOINT, PROSE
from whetstone.verify.stated import LONGEST_ANSWER

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
SIMPLE_BOX = re.compile(r"\\(?:boxed|fbox)\{([^{}\\]{1,100})\}")  # what most are: read at once
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{\s{0,9}(?:\.\.\.|…|\\text\{\}|\\?c?dots)?\s{0,9}\}")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
MOST_BOXES = 20

# between two boxes
BETWEEN_BOXES = re.compile(r"\\text\s*\{([^{}]*)\}|\\q?quad|\\[,;: ()\[\]]|[$*]")
NAME = r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?"
LABEL = r"(?:(?:[Pp]art\s+)?\(?[a-h1-9]\)\s*[:.]?\s*)?"
JOINED = re.compile(
    rf"\s*[,;&]\s*(?:and|or)?\s*{LABEL}{NAME}|\s*(?:[A-Za-z()]+\s+){{0,5}}(?:and|or|und|oder|或|和)\s*{LABEL}{NAME}"
    rf"|[ ]*[;/?]*[ ]*|[\s.;,]*[Pp]art\s+{LABEL}|[.;,]\s+[Tt]he\s+(?:second|other|third)\s+\w+\s+is\s*"
)
ALTERNATIVE = re.compile(
    r"\b(?:or|else|otherwise|alternatively|possibly|perhaps|maybe|either|oder|vs)\b|\A\s*to\s*\Z|[;,.]\s*(?:but\s+)?if\b|或|или",
    re.IGNORECASE,
)
REPLACING = re.compile(
    r"\b(?:wait|actually|instead|correct\w*|wrong|mistake|sorry|no|equivalent\w*|same|simpl\w+)\b", re.IGNORECASE
)
SHORT_BETWEEN = 14  # characters, without a word that leads on, in which two boxes are no derivation
LEADING_ON = re.compile(
    r"\b(?:so|then|thus|hence|therefore|gives?|is|are|i\.e|not|but)\b|[=\n→⇒≈∴!:<>▷/]|\.\s"
    r"|\\(?:[Rr]ight|Long|implies|to|therefore|approx|iff|[gl]eq?)",
    re.IGNORECASE,
)
RELATING = re.compile(
    r"\s*(?::|[<>≤≥/]|\\(?:leq?|geq?|leqslant|geqslant|lt|gt|neq?|lor|cup|times|cdot)(?![A-Za-z]))[^.;=]*"
)

NAMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*[$\s]*$")


def last_box_start(text: str) -> int:
    """Where the last box starts, -1 without one; empty ones, as in "put it in \\boxed{}", are no boxes."""
    at = text.rfind("\\boxed")
    at = max(at, text.rfind("\\fbox", max(at, 0)))
    while at >= 0 and EMPTY_BOX.match(text, at):
        at = _before(text, at)
    while at >= 0 and (outer := _before(text, at, LONGEST_JOINT)) >= 0 and boxed(text, outer)[1] > at:
        at = outer  # the inner box of a box
    return at


def _before(text: str, at: int, within: int = 0) -> int:
    start = max(0, at - within) if within else 0
    return max(text.rfind("\\boxed", start, at), text.rfind("\\fbox", start, at))


def last_boxes(text: str, at: int, surroundings: bool = True) -> tuple[Extracted, int]:
    """The box whose command starts at `at`, with those joined to it and what touches them, and where it ends."""
    answer, end = boxed(text, at)
    if answer.answer is None:
        return answer, end
    if text[at - 1 : at] == "\\":  # written with each backslash doubled
        return Extracted(answer.answer.replace("\\\\", "\\"), "box"), end
    found, start = answer, at
    if _before(text, at, LONGEST_ANSWER) >= 0:
        found, start = _joined_boxes(text, at, answer.answer)
    if surroundings and found.answer is not None:
        found = with_surroundings(text, start, end, found.answer)
    return found, end


def _joined_boxes(text: str, at: int, last: str) -> tuple[Extracted, int]:
    """The boxes that make one answer with the last one, and where the first of them starts."""
    boxes, related = [(last, name_before(text, at))], last
    while len(boxes) <= MOST_BOXES and (before := _before(text, at, LONGEST_ANSWER)) >= 0:
        earlier, end = boxed(text, before)
        if earlier.answer is None or not 0 <= at - end <= LONGEST_JOINT:
            break
        between = BETWEEN_BOXES.sub(r" \1 ", text[end:at])
        if RELATING.fullmatch(between) and not PROSE.search(between) and between.strip() != "/":
            related = f"{earlier.answer} {between} {related}"
        elif not _joined(between):
            break
        else:
            related = ""
        boxes.append((earlier.answer, name_before(text, before)))
        at = before
    if len(boxes) > MOST_BOXES:
        return Extracted(None, "no answer: too many boxes"), at
    boxes.reverse()
    if len(boxes) > 1 and len({name for _, name in boxes if name}) == len(boxes):
        boxes = [(f"{name}={content}", name) for content, name in boxes]
    joined = related if len(boxes) > 1 and related else ", ".join(dict.fromkeys(content for content, _ in boxes))
    return Extracted(joined, "box") if len(joined) <= LONGEST_ANSWER else Extracted(None, "no answer: box too long"), at


def name_before(text: str, at: int) -> str:
    """x of `x = \\boxed{3}`."""
    found = NAMED.search(text[max(0, at - 20) : at])
    return found[1] if found else ""


def _joined(between: str) -> bool:
    """Do these characters between two boxes make one answer, or two to choose from, of them?"""
    if JOINED.fullmatch(between) or (len(between) <= SHORT_BETWEEN and not LEADING_ON.search(between)):
        return True
    return ALTERNATIVE.search(between) is not None and not REPLACING.search(between)


def boxed(text: str, at: int) -> tuple[Extracted, int]:
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
        content, problem = braced(text, start)
        if problem:
            return Extracted(None, problem), start
    end = start + len(content) + 2
    content = content.strip()
    return Extracted(content, "box") if content else Extracted(None, "no answer: empty box"), end


def braced(text: str, start: int) -> tuple[str, str]:
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
