r"""The answer in a completion: the last `\boxed{…}`, a stated final answer, or a text that is nothing but an answer.

Found from the tail, without a guess: a last box that was cut off is no answer, whatever stands in an earlier box, and
no number is taken from prose because it happens to come last. Boxes joined by a comma or "and" are one answer with
several parts; a "final answer is $…$" after the last box replaces it; a sentence with one formula in it says that.
"""

import re
from typing import NamedTuple

from whetstone.verify.policy import Policy

LONGEST_ANSWER = 10_000  # characters; a longer one is not an answer
STATEMENT_TAIL = 20_000  # characters at the end of a text in which a stated answer is looked for

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
SIMPLE_BOX = re.compile(r"\\(?:boxed|fbox)\{([^{}\\]{1,100})\}")  # what most are: read at once
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
STATED = re.compile(r"(?<!\w)answer\b[*_\s]*(?:\bis\b\s*:?|:|=)[*_]*", re.IGNORECASE)
HASHES = re.compile(r"(?m:^[ \t]*)####")
LAST_LINE = re.compile(r"\nA:(?=[^\n]+\s*\Z)")  # Q: … A: …
FINAL = re.compile(r"\bfinal\s+answer\b[*_\s]*(?:\bis\b\s*:?|:|=)[*_]*(?=\s*(?:\$|\\[(\[]))", re.IGNORECASE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
CHANGED_BY_WORDS = re.compile(  # words and signs that could make another answer of the formula beside them
    r"[\d=<>+*/^\\]|n[o'’]t\b|\b(?:no|never|neither|nor|or|and|unless|except|wrong|false|incorrect|impossible|if|half|third|"
    r"quarter|twice|thrice|double|triple|times|plus|minus|less|more|than|over|under|above|below|least|most|square[ds]?|"
    r"cube[ds]?|root|roots|power|mod|modulo|percent|factorial|negative|opposite|inverse|reciprocal|approximately|about|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million|billion)\b",
    re.IGNORECASE,
)
LONGEST_SENTENCE = 200  # characters around a formula that is the whole answer
BETWEEN_BOXES = re.compile(r"\\text\s*\{([^{}]*)\}|\\q?quad|\\[,;: ()\[\]]|[$*]")
JOINED = re.compile(r"\s*[,;]\s*(?:and|or)?\s*|\s*(?:[A-Za-z()]+\s+){0,5}(?:and|or)\s*")
LONGEST_JOINT = 80  # characters between boxes of one answer
MOST_BOXES = 20
PERCENT_AFTER = re.compile(r"\s*(?:\$|\\\)|\*\*)?\s*(?:\\?%|percent\b|pct\b)")
DELIMITED = re.compile(r"\s*(?:\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)
AFTER_DELIMITED = re.compile(r"\s*(?:\*\*)?\s*(?:[.;!\n]|$|,?\s+(?:because|since|so|as|which|where|I hope)\b)")
SENTENCE_END = re.compile(r"[.!?;](?=\s|$|\*)|,?\s+(?:because|since|which|where|I hope)\b")
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
    if "think>" in text and not policy.thinking_counts:
        closed = text.rfind("</think>")
        if text.rfind("<think>") > closed:
            return Extracted(None, "no answer: thinking not finished")
        if closed >= 0:
            text = text[closed + len("</think>") :]
    at = text.rfind("\\boxed")
    if "\\fbox" in text:
        at = max(at, text.rfind("\\fbox"))
    if at >= 0:
        return _last_boxes(text, at)
    tail = text[-STATEMENT_TAIL:]
    stated = _statement_end(tail)
    if stated >= 0:
        return _stated(tail[stated:])
    return _bare(text)


def percent_after_box(text: str) -> bool:
    r"""Is the last box followed by a percent sign: `\boxed{28}\%`?"""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        return False
    box, end = _boxed(text, at)
    return box.answer is not None and not box.answer.endswith("%") and PERCENT_AFTER.match(text, end) is not None


def _last_boxes(text: str, at: int) -> Extracted:
    """The box whose command starts at `at`, with those joined to it, unless a final answer is stated after it."""
    answer, end = _boxed(text, at)
    if answer.answer is None:
        return answer
    if text.find("inal", end) >= 0:
        stated = [found.end() for found in FINAL.finditer(text, end)]
        formula = DELIMITED.match(text, stated[-1]) if stated else None
        if formula and AFTER_DELIMITED.match(text, formula.end()):
            return Extracted(_inside(formula), "stated")
    nearby = max(0, at - LONGEST_ANSWER)
    if text.rfind("\\boxed{", nearby, at) < 0 and text.rfind("\\fbox{", nearby, at) < 0:
        return answer
    boxes = [answer.answer]
    while len(boxes) <= MOST_BOXES:
        from_here = max(0, at - LONGEST_ANSWER)
        before = max(text.rfind("\\boxed{", from_here, at), text.rfind("\\fbox{", from_here, at))
        if before < 0:
            break
        earlier, end = _boxed(text, before)
        if earlier.answer is None or not 0 <= at - end <= LONGEST_JOINT or not _joined(text[end:at]):
            break
        boxes.append(earlier.answer)
        at = before
    if len(boxes) > MOST_BOXES:
        return Extracted(None, "no answer: too many boxes")
    joined = ", ".join(dict.fromkeys(reversed(boxes)))
    return Extracted(joined, "box") if len(joined) <= LONGEST_ANSWER else Extracted(None, "no answer: box too long")


def _joined(between: str) -> bool:
    """Do these characters between two boxes make one answer of them: nothing, a comma, "and", "apples and"?"""
    return not between or JOINED.fullmatch(BETWEEN_BOXES.sub(r" \1 ", between)) is not None


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()[:LONGEST_ANSWER]


def _boxed(text: str, at: int) -> tuple[Extracted, int]:
    r"""The content of the box whose command starts at `at`, and where it ends; `\boxed 5` takes the next word."""
    simple = SIMPLE_BOX.match(text, at)
    if simple is not None and (inside := simple[1].strip()):
        return Extracted(inside, "box"), simple.end()
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
    inside = text[start + 1 : close] if 0 <= close < start + LONGEST_ANSWER else ""
    if close < 0:
        return Extracted(None, "no answer: box cut off"), start
    if not inside or "{" in inside or "\\" in inside:
        inside, problem = _braced(text, start)
        if problem:
            return Extracted(None, problem), start
    end = start + len(inside) + 2
    inside = inside.strip()
    return Extracted(inside, "box") if inside else Extracted(None, "no answer: empty box"), end


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


def _statement_end(tail: str) -> int:
    """Where the last "the answer is" ends, -1 without one. Searched for by its letters first: that is much faster."""
    end = -1
    for letters in ("nswer", "NSWER"):
        at = tail.find(letters)
        while at >= 0:
            found = STATED.match(tail, at - 1) if at else None
            end = max(end, found.end() if found else -1)
            at = tail.find(letters, at + len(letters))
    for sign, pattern in (("####", HASHES), ("\nA:", LAST_LINE)):
        if sign in tail:
            end = max([end, *(found.end() for found in pattern.finditer(tail))])
    return end


def _stated(rest: str) -> Extracted:
    """What follows "the answer is": a delimited formula, else the rest of the sentence."""
    rest = rest.lstrip(" \t*_:=")
    rest = rest.lstrip()
    formula = DELIMITED.match(rest)
    if formula and AFTER_DELIMITED.match(rest, formula.end()):
        inside = _inside(formula)
        if inside:
            return Extracted(inside, "stated")
    line = rest.split("\n", 1)[0]
    end = SENTENCE_END.search(line)
    answer = (line[: end.start()] if end else line).strip().strip("*_").strip()
    if not answer or len(answer) > LONGEST_ANSWER:
        return Extracted(None, "no answer: statement cut off")
    return Extracted(answer, "stated")


def _bare(text: str) -> Extracted:
    """A text of one line (or one environment) that is itself the answer."""
    answer = text.strip()
    for opening, closing in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"), ("**", "**")):
        inner = answer[len(opening) : len(answer) - len(closing)]
        if answer.startswith(opening) and answer.endswith(closing) and len(answer) > len(opening) + len(closing):
            if opening not in inner:
                answer = inner.strip()
            break
    if not answer:
        return Extracted(None, "no answer")
    formula = _only_formula(answer)
    if formula:
        return Extracted(formula, "formula")
    if len(answer) > LONGEST_ANSWER or ("\n" in answer and not ENVIRONMENT.match(answer)):
        return Extracted(None, "no answer: neither a box nor a stated answer")
    return Extracted(answer, "bare")


def _only_formula(text: str) -> str | None:
    """The formula of a short text of words with one formula in it: there is nothing to choose between."""
    if not any(sign in text for sign in ("$", "\\(", "\\[")) or len(text) > LONGEST_ANSWER:
        return None
    found = FORMULA.search(text)
    if found is None:
        return None
    words = text[: found.start()] + " " + text[found.end() :]
    if len(words) > LONGEST_SENTENCE or "$" in words or CHANGED_BY_WORDS.search(words):
        return None
    return _inside(found) if re.search(r"[A-Za-z]", words) else None


def reference_sentence(gold: str) -> str:
    """The one formula of a reference that is a sentence: "The mode is $1/3$."; else the reference as it stands."""
    return _only_formula(gold) or gold
