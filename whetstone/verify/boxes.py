r"""Boxes: what the last one holds, with the boxes joined to it and the signs and words that touch it.

`-\boxed{5}`, `\boxed{5}\%`, `x < \boxed{5}` and `\boxed{5} million` are other answers than 5, `\boxed{5} is wrong` is none,
and of `\boxed{5} or maybe \boxed{6}` neither is the answer.
"""

import re
from typing import NamedTuple

from whetstone.verify.answers.units import known, multipliers
from whetstone.verify.stated import LONGEST_ANSWER

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
SIMPLE_BOX = re.compile(r"\\(?:boxed|fbox)\{([^{}\\]{1,100})\}")  # what most are: read at once
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{\s{0,9}(?:\.\.\.|…|\\text\{\}|\\?c?dots)?\s{0,9}\}")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
LONGEST_JOINT = 80  # characters between boxes of one answer, and beside a box that are looked at
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
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")

# beside a box
NAMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*[$\s]*$")
OPERATED = re.compile(
    r"(?:^|[\s$=,;:()\[\]{}])([^\s$=,;:()\[\]{}]*\s*(?:\\(?:cdot|times|pm|mp|neq?|lt|gt|leq?|geq?|leqslant|geqslant|div)"
    r"|[<>≤≥≠/^])\s*|[^\s$=,;:()\[\]{}&]*[-+−])$"
    r"|(?:^|\$|\\\(|=)\s*(\d+|[A-Za-z]|[\w^{}\\]+\s+[-+]\s+)$"
)
BOUNDED = re.compile(
    r"\b(?:(?:more|less|fewer|greater|smaller|larger) than|(?:^|\bis |\bare )at (?:least|most)|between)[\s$*:]*$",
    re.IGNORECASE,
)
DENIED_BEFORE = re.compile(
    r"(?:\bnot|n['’]t(?:\s+be)?|\bnever|\bcannot be"
    r"|(?:reject|discard|exclud|eliminat|rul)(?:e|ed|es|ing|s)?(?:\s+out)?"
    r"|anything but|other than|different from|rather than|instead of"
    r"|(?:false|not true|untrue|wrong|mistake)\s+(?:to\s+\w+\s+)?(?:that\s+)?(?:the\s+(?:final\s+)?answer\s+is)?)"
    r"[\s$*\\(\[:]*$",
    re.IGNORECASE,
)
PART_OF_MORE = re.compile(
    r"\\(?:sqrt(?:\[\d+\])?|[dt]?frac(?:\s*\{[^{}]*\})?|[xb]?cancel|sout|st)\s*\{\s*$"
    r"|\b(?:twice|half(?:\s+of)?|double|triple|times|plus|minus|negative|(?:square|cube|root|third|quarter|percent)\s+of)[\s$*(\\]*$",
    re.IGNORECASE,
)
WATCHED = (
    "eject",
    "iscard",
    "xclud",
    "liminat",
    "alse",
    "true",
    "rong",
    "istake",
    "rul",
)  # what the patterns above find has
WATCHED_ENDS = (  # one of these in it, or ends in one of these
    "not", "Not", "n't", "n’t", "ever", "be", "but", "than", "from", "of", "least", "most", "etween", "wice", "alf", "ouble",
    "riple", "times", "plus", "inus", "egative", "{", "%",
)  # fmt: skip
NOT_SO = (
    r"(?:not\s+(?:the|correct|right|true|valid|it)\b|wrong|incorrect|false|invalid|impossible|mistaken"
    r"|a\s+(?:random\s+)?guess)"
)
DENIED_AFTER = re.compile(
    r"(?:\{?[,.]\}?)?\d|_\{?\d|:\d|[\s$]*(?:\\[pb]?mod|mod)\b"  # what changes it
    r"|[\s$]+(?:to\s+\d|or\s+(?:more|less|fewer)\b|and\s+a\s+half\b|factorial\b"
    r"|(?:plus|minus|over|(?:divided|multiplied)\s+by|out\s+of)\s+[$\\]*\(?-?\d|(?:squared|cubed)\b)"
    r"|[\s$*.,;:\\\])}(\[—-]{0,12}(?:(?:which|this|that|it)\s+)?"
    rf"(?:(?:is|was|would\s+be|seems|looks)\s+(?:also\s+|clearly\s+)?{NOT_SO}"
    r"|isn['’]t\b|(?:can\s?not|can['’]t)\s+be|no\b[,.]|wait,?\s+no\b|wrong\b|incorrect\b|fails\b"
    r"|does\s?n[o'’]t\s+(?:work|hold|satisfy)|(?:must|should)\s+be\s+(?:rejected|discarded|excluded)"
    r"|(?:ist|est|es|è|é)\s+(?:falsch|nicht|faux|fausse|incorrect|incorrecto|falso|sbagliat)|no\s+es\b"
    r"|是错|不是|неверн|ではない|じゃない)",
    re.IGNORECASE,
)
FACTOR = re.compile(
    r"(?:\s|\\[,;: ]|~)*((?:\^|\\(?:cdot|times|pi|sqrt|frac|div|pm)(?![A-Za-z])|π|[+/]\s*[\w\\(]|-(?:[\d\\(]|[A-Za-z]\b))"
    r"[^$,;=\n]*|\A[A-Za-z](?![A-Za-z])[^\s$,;=]*)"
)
MEASURE = re.compile(
    r"(?:[\s$*~]|\\[,;: )]|\{\})*(\\?%|\^\s*\{?\\circ\}?[\s$]*(?:\\(?:text|mathrm)\{)?[CFK]?"
    r"|(?:\\(?:text(?:rm|bf)?|mathrm|mbox)\s*\{\s*)?([^\W\d_]{2,})(?:\s*\}?\s*\^\{?\d\}?|(?=\W|\Z)))"
)
NO_UNITS = frozenset(
    ("in", "second", "minute", "degree", "score", "half", "quarter", "third", "mine")
)  # of plain prose


class Extracted(NamedTuple):
    """`answer` is None where there is none; `how` then says why, else where it was found.

    >>> from whetstone.verify.extract import extract
    >>> from whetstone.verify.policy import get_policy
    >>> extract(r"so \\boxed{3} … no: \\boxed{\\frac{1}{2}}", get_policy("math"))
    Extracted(answer='\\\\frac{1}{2}', how='box')
    """

    answer: str | None
    how: str  # box | stated | formula | bare, or the reason for None


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
        found = _with_surroundings(text, start, end, found.answer)
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


def _with_surroundings(text: str, start: int, end: int, content: str) -> Extracted:
    before, after = text[max(0, start - LONGEST_JOINT) : start].rpartition("\n")[2], text[end : end + LONGEST_JOINT]
    if before.endswith(">"):
        before = re.sub(r"<[^<>]*>\s*$", " ", before)  # <solution>\\boxed{5}
    ended = not after.strip(" $*.,;:\\])}\n")
    if reason := refused(before, "" if ended else after):
        return Extracted(None, reason)
    for opening, closing in ("[]", "()"):
        if before.endswith(opening) and after.startswith(closing) and "," in content and before[-2:-1] != "\\":
            return Extracted(opening + content + closing, "box")
    left = left_of(before)
    factor = None if ended else FACTOR.match(after)
    if factor and not PROSE.search(factor[1]):
        right = factor[1].split(". ")[0].rstrip(". ")
    else:
        right = "" if ended else _measure(after, content)
    inside = f"({content})" if (left or factor) and re.search(r"(?<=.)[-+]", content) else content
    return Extracted(f"{left}{inside}{right}" if left or right else content, "box")


def refused(before: str, after: str) -> str:
    """Why the words around a box make it no answer; "" if they do not."""
    if before.rstrip(" $*\\([:").endswith(WATCHED_ENDS) or any(map(before.__contains__, WATCHED)):
        if PART_OF_MORE.search(before):
            return "no answer: only a part of the formula is in the box"
        if DENIED_BEFORE.search(before) or BOUNDED.search(before):
            return "no answer: what is in the box is denied"
        if "%" in before and re.search(r"(?:^|\})\s*%\s*$", before):
            return "no answer: the box is commented out"
    if before[-1:].isdecimal():
        return "no answer: only a part of the number is in the box"
    return "no answer: what is in the box is denied" if after and DENIED_AFTER.match(after) else ""


def left_of(before: str) -> str:
    """The sign, factor or relation that touches a box from the left."""
    end = before.rstrip()
    if (
        not end
        or end.endswith(("\\(", "\\["))
        or not (end[-1] in "<>≤≥≠/^-+−" or before[-1].isalnum() or "\\" in end[-9:])
    ):
        return ""
    found = OPERATED.search(before)
    return (found[1] or found[2] or "") if found else ""


def _measure(after: str, content: str) -> str:
    """The unit, percent sign or multiplier that follows a box."""
    found = MEASURE.match(after.partition("\n")[0])
    if found is None or content.endswith("%"):
        return ""
    word = found[2]
    if word is None:
        degrees = found[1].startswith("^")
        return "\\%" if not degrees else "^\\circ" + (found[1][-1] if found[1][-1] in "CFK" else "")
    if word.casefold() in ("percent", "pct"):
        return "\\%"
    if word.casefold() in multipliers() and word.casefold() not in NO_UNITS:
        return f"\\text{{ {word}}}"
    plain = re.fullmatch(r"[-+\d.,/ ]*|[-+]?\\[dt]?frac\{\d+\}\{\d+\}", content) is not None
    power = found[0].rpartition(word)[2].partition("^")
    return f"\\text{{ {word}}}{power[1]}{power[2]}" if plain and known(word) and word not in NO_UNITS else ""


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
