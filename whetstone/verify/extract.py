r"""The answer in a completion: the last `\boxed{…}`, a stated final answer, or a text that is nothing but an answer.

Found from the tail, without a guess: a last box that was cut off is no answer, whatever stands in an earlier box, and
no number is taken from prose because it happens to come last.
"""

import re
from typing import NamedTuple

from whetstone.verify.policy import Policy

LONGEST_ANSWER = 10_000  # characters; a longer one is not an answer
STATEMENT_TAIL = 20_000  # characters at the end of a text in which a stated answer is looked for

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
STATED = re.compile(
    r"(?:\bfinal\s+answer\b|\banswer\b)[*_\s]*(?:\bis\b\s*:?|:|=)[*_]*|(?m:^[ \t]*)####",
    re.IGNORECASE,
)
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
    how: str  # box | stated | bare, or the reason for None


def extract(text: str, policy: Policy) -> Extracted:
    """The text's answer under `policy`. Time is linear in the text; never raises on any string."""
    if "think>" in text and not policy.thinking_counts:
        closed = text.rfind("</think>")
        if text.rfind("<think>") > closed:
            return Extracted(None, "no answer: thinking not finished")
        if closed >= 0:
            text = text[closed + len("</think>") :]
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if at >= 0:
        return _boxed(text, at)
    tail = text[-STATEMENT_TAIL:]
    lowered = tail.lower()
    if "answer" in lowered or "####" in tail:
        ends = [found.end() for found in STATED.finditer(tail)]
        if ends:
            return _stated(tail[ends[-1] :])
    return _bare(text)


def _boxed(text: str, at: int) -> Extracted:
    r"""The content of the box whose command starts at `at`; `\boxed 5` takes the next word."""
    opening = BOX.match(text, at)
    if opening is None:
        return Extracted(None, "no answer: unreadable box")
    start = opening.end()
    while start < len(text) and text[start].isspace():
        start += 1
    if start == len(text):
        return Extracted(None, "no answer: box cut off")
    if text[start] != "{":
        word = re.match(r"[^\s$\\.,;]+|\\frac\{[^{}]*\}\{[^{}]*\}", text[start : start + 200])
        return Extracted(word.group(), "box") if word else Extracted(None, "no answer: unreadable box")
    close = text.find("}", start)
    inside = text[start + 1 : close] if 0 <= close < start + LONGEST_ANSWER else ""
    if close < 0:
        return Extracted(None, "no answer: box cut off")
    if not inside or "{" in inside or "\\" in inside:
        inside, problem = _braced(text, start)
        if problem:
            return Extracted(None, problem)
    inside = inside.strip()
    return Extracted(inside, "box") if inside else Extracted(None, "no answer: empty box")


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


def _stated(rest: str) -> Extracted:
    """What follows "the answer is": a delimited formula, else the rest of the sentence."""
    rest = rest.lstrip(" \t*_:=")
    rest = rest.lstrip()
    formula = DELIMITED.match(rest)
    if formula and AFTER_DELIMITED.match(rest, formula.end()):
        inside = next(group for group in formula.groups() if group is not None).strip()
        if inside:
            return Extracted(inside[:LONGEST_ANSWER], "stated")
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
    if len(answer) > LONGEST_ANSWER or ("\n" in answer and not ENVIRONMENT.match(answer)):
        return Extracted(None, "no answer: neither a box nor a stated answer")
    return Extracted(answer, "bare")
