r"""What stands beside a box: a part of the answer, another answer, or its denial.

`-\boxed{5}`, `\boxed{5}\%`, `x < \boxed{5}`, `\ln(\boxed{5})` and `\boxed{5} million` are other answers than 5, and
`\boxed{5} = 6` is none. `refused.py` has the words that make it none, `alternatives.py` other answers beside it.
"""

import re
from typing import NamedTuple

from whetstone.verify.alternatives import one_of_several
from whetstone.verify.answers.forms import Chain
from whetstone.verify.answers.marks import FUNCTION_NAMES
from whetstone.verify.answers.reading import read
from whetstone.verify.answers.units import known, multipliers
from whetstone.verify.compare import NOT_SHOWN, compare
from whetstone.verify.refused import (
    IN_STYLE,
    LONGEST_END,
    LONGEST_JOINT,
    NO_ANSWER_AT_END,
    PROSE,
    refused,
)
from whetstone.verify.relations import contradicts

OPERATED = re.compile(
    r"(?:^|[\s$=,;:()\[\]{}])([^\s$=,;:()\[\]{}]*\s*(?:\\(?:cdot|times|pm|mp|neq?|lt|gt|leq?|geq?|leqslant|geqslant|div)"
    r"|[<>≤≥≠/^_])\s*|[^\s$=,;:()\[\]{}&]*[-+−])$"
    r"|(?:^|\$|\\\(|=)\s*(\d+|[A-Za-z]|[\w^{}\\]+\s+[-+]\s+)$"
)
FACTOR = re.compile(
    r"(?:\s|\\[,;: ]|~)*((?:\^|\\(?:cdot|times|pi|sqrt|frac|div|pm|ln|log|sin|cos|tan|binom|cup|cap|setminus|lor|vee)"
    r"(?![A-Za-z])|π|\d+/\d+(?![\d.])"
    r"|(?:(?<=\s)\*(?=\s)|\*(?=[\w(\\]))\s*|–(?=\d)|-\s+(?:\d[\d.]*|[a-z])(?=[\s$]*(?:\Z|[.,;$=*/^+-]))|i(?=[\s$]*(?:\Z|\\[)\]]|\$))"
    r"|[+/]\s*[\w\\(]|-(?:[\d\\(]|[A-Za-z]\b))[^$,;=\n]*|\A[A-Za-z](?![A-Za-z])[^\s$,;=]*|\A(?:\\left\s*)?\([^()]*\))"
)
MEASURE = re.compile(
    r"(?:[\s$*~]|\\[,;: )]|\{\})*(\\?%|\^\s*\{?\\circ\}?[\s$]*(?:\\(?:text|mathrm)\{)?[CFK]?"
    r"|(?:\\(?:text(?:rm|bf)?|mathrm|mbox)\s*\{\s*)?"
    r"(?:(sq\.?|square|cubic|cu\.?)\s+)?([^\W\d_]{2,})(?:\s*\}?\s*\^\{?\d\}?|(?=\W|\Z)))"
)
NO_UNITS = frozenset(
    ("in", "second", "minute", "degree", "score", "half", "quarter", "third", "mine")
)  # of plain prose
SIGNED = re.compile(  # -$\boxed{3}$, $-$\boxed{3}, = - \boxed{3}; "- \boxed{3}" at the start of a line has a bullet
    r"(?:(?<!-)[-−](?:\$+|\\[(\[])\s*|−[\s$]*|=\s*-\$\s+\$+|\{\s*[-−]\s*\}[\s$]*|\$[-−]\$+\s*|(?:[=({\[,<>≤≥]|\\[(\[]|(?:^|\s)\$+)\s*-\s+)$"
)
PLAIN_FUNCTIONS = ("sin", "cos", "tan", "cot", "ln", "log", "exp", "gcd", "lcm", "sqrt")  # without a backslash
FUNCTION = re.compile(
    r"((?:\\(?:operatorname\*?\s*\{\s*\w+\s*\}|(?:"
    + "|".join(sorted(FUNCTION_NAMES, key=len, reverse=True))
    + r"|lim|sum|prod|int|iint|oint|Pr|inf|sup|nabla|partial|Delta)(?![A-Za-z]))"
    r"|(?<![A-Za-z\\])(?:" + "|".join(PLAIN_FUNCTIONS) + r"))(?:\s*[_^]\s*(?:\{[^{}]*\}|\\?\w))*\s*)$"
)
MULTIPLIED = re.compile(
    r"(?:\([^()]*[-+*/^][^()]*\)|[\w)]\^(?:\{[^{}]*\}|\w)|\\(?:pi|theta|alpha|beta))$"
)  # (1+x)\boxed{5}
CALLING = re.compile(r"(?<![A-Za-z])[A-Za-z]'*$|[)}\]]$")  # f(\boxed{5}), (x+1)(\boxed{5})
OF_TEXT = re.compile(r"\\text\w*\s*\{[^{}]*\}$")

# brackets around a box: their spelling before it and after it, and what they are in the answer
SIZE = r"(?:\\(?:left|right|[bB]igg?[lrm]?)\s*)?"
GROUPS = (
    (re.compile(rf"{SIZE}(?<!\\)\([\s$]*$"), re.compile(rf"[\s$]*{SIZE}\)"), "(", ")"),
    (re.compile(rf"{SIZE}(?<!\\)\[[\s$]*$"), re.compile(rf"[\s$]*{SIZE}\]"), "[", "]"),
    (re.compile(rf"(?:{SIZE}\\lfloor|⌊)[\s$]*$"), re.compile(rf"[\s$]*{SIZE}(?:\\rfloor|⌋)"), r"\lfloor ", r"\rfloor "),
    (re.compile(rf"(?:{SIZE}\\lceil|⌈)[\s$]*$"), re.compile(rf"[\s$]*{SIZE}(?:\\rceil|⌉)"), r"\lceil ", r"\rceil "),
    (re.compile(r"\\left\s*\|\s*$"), re.compile(r"\s*\\right\s*\|"), "|", "|"),
    (re.compile(rf"{SIZE}\\l?vert\s*$"), re.compile(rf"\s*{SIZE}\\r?vert"), "|", "|"),
    (re.compile(r"(?<!\|)\|$"), re.compile(r"\|(?!\|)"), "|", "|"),  # with spaces they are those of a table
)
CLOSINGS = tuple(")]}|\\⌋⌉")  # what a bracket after a box begins with
MOST_BRACKETS = 5
BRACE = re.compile(r"\{[\s$]*$")
CLOSED = re.compile(r"[\s$]*\}")

# a relation after a box
RELATED = re.compile(
    r"(?:[\s$*~)\]}]|\\[,;: )\]])*(?P<relation>=(?!>)|≈|\\(?:approx|simeq|doteq)(?![A-Za-z])"
    r"|\\(?:neq?|[gl]eq?(?:slant|q)?|[gl]t|ll|gg|not\s*=)(?![A-Za-z])|!=|<=|>=|[>≤≥≠]|<(?![/|!]|[A-Za-z][^<>\n]*>)"
    r"|(?P<arrow>\\(?:long)?(?:rightarrow|to|mapsto)(?![A-Za-z])|->|→))"
    r"[\s$]*(?P<rest>(?:[^$;\n\\.,]|[.,](?!\s|\Z)|\\(?![)\]])(?!q?quad))+)"
)


class Extracted(NamedTuple):
    """`answer` is None where there is none; `how` then says why, else where it was found.

    >>> from whetstone.verify.extract import extract
    >>> from whetstone.verify.policy import get_policy
    >>> extract(r"so \\boxed{3} … no: \\boxed{\\frac{1}{2}}", get_policy("math"))
    Extracted(answer='\\\\frac{1}{2}', how='box')
    """

    answer: str | None
    how: str  # box | stated | formula | bare, or the reason for None


def with_surroundings(text: str, start: int, end: int, content: str) -> Extracted:
    """The content of a box with what belongs to it in the formula around it, or why it is no answer."""
    before, after = text[max(0, start - LONGEST_JOINT) : start].rpartition("\n")[2], text[end : end + LONGEST_JOINT]
    if before.endswith(">"):
        before = re.sub(r"<[^<>]*>\s*$", " ", before)  # <solution>\\boxed{5}
    if reason := refused(before, "" if _ended(after) else after):
        return Extracted(None, reason)
    last = text[max(end, len(text) - LONGEST_END) :]
    if "no " in last and NO_ANSWER_AT_END.search(last):
        return Extracted(None, "no answer: what is in the box is denied")
    grouped = False
    if after.lstrip(" $")[:1] in CLOSINGS:
        before, after, content, grouped = without_brackets(before, after, content)
        if reason := refused(before, ""):
            return Extracted(None, reason)
    if grouped and CALLING.search(before) and not OF_TEXT.search(before) and not FUNCTION.search(before):
        return Extracted(None, "no answer: only a part of the formula is in the box")
    if one_of_several(before, after, content):
        return Extracted(None, "no answer: one of several is in the box")
    return _joined(before, after, content, grouped)


def _ended(after: str) -> bool:
    return not after.strip(" $*.,;:\\])}\n")


def _joined(before: str, after: str, content: str, grouped: bool) -> Extracted:
    """The content with the sign, factor or relation before it and the factor, unit or relation after it."""
    left, right = left_of(before), ""
    factor = None if _ended(after) else FACTOR.match(after)
    if factor and not PROSE.search(factor[1]):
        right = factor[1].split(". ")[0].rstrip(". ")
        right = f" {right}" if right[:1].isdecimal() else right
    elif not _ended(after):
        right = _measure(after, content)
    bracket = grouped or FUNCTION.search(before) or ((left or factor) and re.search(r"(?<=.)[-+]", content))
    inside = f"({content})" if bracket and (left or right) else content
    joined = f"{left}{inside}{right}"
    related = None if _ended(after) or factor else RELATED.match(after, _measured(after) if right else 0)
    if related is None or not related["rest"].strip():
        return Extracted(joined, "box")
    whole = f"{joined} {related['relation']} {related['rest'].strip()}"
    if related["relation"].startswith(("=", "≈", "\\approx", "\\simeq", "\\doteq")):
        return (
            Extracted(None, "no answer: the box is said to be equal to another value")
            if _false(whole)
            else Extracted(joined, "box")
        )
    if related["arrow"] and PROSE.search(related["rest"]):
        return Extracted(joined, "box")
    return Extracted(whole, "box")


def _false(equation: str) -> bool:
    """Is it shown that the sides of an equation differ?"""
    try:
        value = read(equation)[0]
        return isinstance(value, Chain) and contradicts(value, compare)
    except NOT_SHOWN:
        return False


def without_brackets(before: str, after: str, content: str) -> tuple[str, str, str, bool]:
    """What stands around the brackets that enclose just the box; the content with those that change it; were there others?"""
    grouped = False
    for _ in range(MOST_BRACKETS):
        if (style := IN_STYLE.search(before) or BRACE.search(before)) and (closed := CLOSED.match(after)):
            before, after = before[: style.start()], after[closed.end() :]
            continue
        pairs = ((opening.search(before), closing.match(after), *signs) for opening, closing, *signs in GROUPS)
        opened, closed, left, right = next((pair for pair in pairs if pair[0] and pair[1]), (None, None, "", ""))
        if opened is None:
            break
        before, after = before[: opened.start()], after[closed.end() :]
        if left not in "([" or "," in content:
            content, grouped = left + content + right, False
        else:
            grouped = True
    return before, after, content, grouped


def left_of(before: str) -> str:
    """The sign, factor or relation that touches a box from the left."""
    end = before.rstrip(" $")
    touching = end and (end[-1] in "<>≤≥≠/^_-+−})" or before[-1].isalnum() or "\\" in end[-9:])
    if not touching and not end.endswith(PLAIN_FUNCTIONS):
        return ""
    if SIGNED.search(before):
        return "-"
    if end.endswith(("\\(", "\\[")):
        return ""
    if product := MULTIPLIED.search(before):
        return product[0]
    if function := FUNCTION.search(before):
        return function[1]
    found = OPERATED.search(before)
    return (found[1] or found[2] or "") if found else ""


def _measure(after: str, content: str) -> str:
    """The unit, percent sign or multiplier that follows a box."""
    found = MEASURE.match(after.partition("\n")[0])
    if found is None or content.endswith("%"):
        return ""
    dimension, word = found[2], found[3]
    if word is None:
        degrees = found[1].startswith("^")
        return "\\%" if not degrees else "^\\circ" + (found[1][-1] if found[1][-1] in "CFK" else "")
    if word.casefold() in ("percent", "pct"):
        return "\\%"
    if not dimension and word.casefold() in multipliers() and word.casefold() not in NO_UNITS:
        return f"\\text{{ {word}}}"
    plain = re.fullmatch(r"[-+\d.,/ ]*|[-+]?\\[dt]?frac\{\d+\}\{\d+\}", content) is not None
    measured = (known(word) and word not in NO_UNITS) or word in ("unit", "units")
    if not plain or not measured:
        return ""
    if dimension:
        return f"\\text{{ {dimension} {word}}}"
    power = found[0].rpartition(word)[2].partition("^")
    return f"\\text{{ {word}}}{power[1]}{power[2]}"


def _measured(after: str) -> int:
    """Where the unit after a box ends."""
    found = MEASURE.match(after)
    return found.end() if found else 0
