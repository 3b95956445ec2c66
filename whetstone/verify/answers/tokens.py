r"""A clean text -> tokens. Words are told from products of letters here.

A token is LaTeX as it stands, except that a word begins with WORD and a number in another base is BASED + "digits_base".
Letters inside `\text{…}` are words. Elsewhere a run of letters is the name of a function, a unit after a number, a word if
it looks like one, else a product of letters.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from whetstone.verify.answers.marks import END, FUNCTION_NAMES, TEXT
from whetstone.verify.answers.units import CARDINALS, CHANGING, known, multipliers
from whetstone.verify.exact import TooLarge, Unreadable

MOST_TOKENS = 3_000
MOST_DIGITS = 4_000
WORD, BASED = "\x04", "\x05"

TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<mode>[\x02\x03])|\\begin\s*\{(?:[A-Za-z]+\*?)\}(?:\s*\{[lcr| ]*\})?|\\end\s*\{[A-Za-z]+\*?\}"
    r"|(?P<based>(?:\d[0-9A-Z]*|[A-Z][0-9A-Z]+)\s*_\s*(?:\{\s*\d{1,2}\s*\}|\d(?!\d))|0x[0-9a-fA-F]+|0b[01]+(?!\d))"
    r"|(?:\d+(?:\.(?!\s+[A-Z][a-z])\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\w.]))?|\\[A-Za-z]+|\\\\|\\.|\.\.+|!=|<=|>=|==|\*\*|=>|->"
    r"|(?P<letters>°[CF]|[^\W\d_]{2,}'[a-z]{1,2}(?![A-Za-z])|[^\W\d_]+)|.",
    re.DOTALL,
)
NAMES = {name: "\\" + name for name in FUNCTION_NAMES} | {
    "asin": "\\arcsin", "acos": "\\arccos", "atan": "\\arctan", "pi": "\\pi", "sqrt": "\\sqrt", "infinity": "\\infty",
    "Infinity": "\\infty", "inf": "\\infty", "infty": "\\infty", "oo": "\\infty", "theta": "\\theta", "binom": "\\binom",
    "alpha": "\\alpha", "lambda": "\\lambda", "cosec": "\\csc", "Sin": "\\sin", "Cos": "\\cos", "cbrt": "\\cbrt",
    "frac": "\\frac", "beta": "\\beta", "gamma": "\\gamma", "delta": "\\delta",
    "omega": "\\omega", "sigma": "\\sigma", "epsilon": "\\epsilon",
}  # fmt: skip
CALLED = sorted((name for name in NAMES if (len(name) > 2 and name.islower()) or name == "ln"), key=len, reverse=True)
JOINING = {"and": "and", "or": "or", "und": "and", "oder": "or", "et": "and", "ou": "or", "и": "and", "или": "or"}
GLUED_UNITS_TEXT = """
cm mm km kg mg nm ml mL kW kWh MHz GHz kHz Hz kJ kPa Pa mol eV keV MeV GeV lb lbs ft mi oz min hr sec mph
"""
GLUED_UNITS = frozenset(GLUED_UNITS_TEXT.split())
ARGUMENT = re.compile(r"[\s\x03]*[\w(\\^{]")  # of a function, after its name
VOWELS = frozenset("aeiouyAEIOUY")


class Tokens(NamedTuple):
    texts: list[str]
    gaps: list[bool]  # is there a space before it?


def lex(text: str) -> Tokens:
    """Raises TooLarge, and Unreadable for a number with a digit beyond its base."""
    found = Tokens([], [])
    worded = gap = False
    for match in TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "space":
            gap = True
        elif kind == "mode":
            worded = token == TEXT
            gap = gap or token == END
        else:
            if kind == "letters":
                before = context(found.texts[-1]) if found.texts else ""
                if token == "sec" and before and not ARGUMENT.match(text, match.end()):
                    tokens = [WORD + token]  # seconds
                else:
                    tokens = [word(token)] if worded else letters(token, gap, before)
            elif kind == "based":
                tokens = [based(token)] if based(token) else relexed(token, worded)
            else:
                tokens = [
                    {"==": "=", "<=": "\\le", ">=": "\\ge", "!=": "\\ne", "**": "^", "=>": "\\implies"}.get(
                        token, token
                    )
                ]
                if token.startswith(".."):
                    tokens = ["\\ldots"]
                if token[0].isdecimal() and len(token) > MOST_DIGITS:
                    raise TooLarge("too many digits")
            found.texts.extend(tokens)
            found.gaps.extend([gap, *[False] * (len(tokens) - 1)])
            gap = False
    if len(found.texts) > MOST_TOKENS:
        raise TooLarge("too many tokens")
    return found


def word(token: str) -> str:
    if token in NAMES and token not in ("min", "max", "det", "inf", "oo", "tr", "arg"):
        return NAMES[token]
    return WORD + token


def based(token: str) -> str:
    """BASED + "1F_16" for `1F_{16}` and `0x1F`; "" for a symbol with a subscript."""
    if token[:2] in ("0x", "0b"):
        return f"{BASED}{token[2:].upper()}_{16 if token[1] == 'x' else 2}"
    digits, _, base = token.replace(" ", "").replace("{", "").replace("}", "").partition("_")
    if not 2 <= int(base) <= 36:
        if digits.isdecimal():
            raise Unreadable("a subscript on a number that is no base")
        return ""
    try:
        int(digits, int(base))
    except ValueError:
        if digits.isdecimal():
            raise Unreadable(f"a digit beyond base {base}") from None
        return ""
    return f"{BASED}{digits}_{base}"


def relexed(token: str, worded: bool) -> list[str]:
    head = re.match(r"\d*", token).group()
    rest = token[len(head) :]
    return ([head] if head else []) + [c for c in rest if not c.isspace()]


def context(before: str) -> str:
    """What of the token before a run of letters matters: is it a number, a word, or a sign between units?"""
    if before[0].isdecimal() or before in (")", "}", "\\pi", "\\degree", "%"):
        return "number"
    return "unit" if before[0] == WORD or before in "/*" else ""


@lru_cache(maxsize=4096)
def letters(run: str, gap: bool, before: str) -> list[str]:
    """The tokens of a run of letters outside `\\text`, after what `context` tells."""
    if run in NAMES and not (run == "min" and before == "number"):
        return [NAMES[run]]
    if len(run) == 1:
        return [run] if run.isascii() else [WORD + run]
    after_number = before == "number"
    spelled = run.casefold() in CHANGING or run.casefold() in CARDINALS
    if before == "unit" and run == "old":  # years old
        return [WORD + run]
    if run in JOINING or (spelled and not (run.isupper() and len(run) < 3)):
        return [WORD + run]
    if known(run) and (before == "unit" or (after_number and (gap or run in GLUED_UNITS))):
        return [WORD + run]
    if after_number and run.casefold() in multipliers():
        return [WORD + run]
    if looks_like_a_word(run, gap and after_number):
        return [WORD + run]
    for name in CALLED:
        if run.startswith(name) and len(run) - len(name) < 3:
            return [NAMES[name], *letters(run[len(name) :], False, "")] if run != name else [NAMES[name]]
        if run.endswith(name) and len(run) - len(name) < 3:
            return [*letters(run[: -len(name)], gap, before), NAMES[name]]
    return list(run)


def looks_like_a_word(run: str, counted: bool) -> bool:
    """`apples`, `Monday`, `men` after a number; not `xyz`, `ABCD`, `sinx`."""
    if not run.isascii():
        return True
    if run.isupper() or (len(run) < 4 and not counted) or not VOWELS.intersection(run):
        return len(run) > 5 and bool(VOWELS.intersection(run))
    steps = {ord(b) - ord(a) for a, b in pairwise(run)}
    if steps == {1}:
        return False
    return len(run) > 3 or counted or False if not any(_named(run, name) for name in CALLED) else len(run) > 6


def _named(run: str, name: str) -> bool:
    return len(run) - len(name) < 3 and (run.startswith(name) or run.endswith(name))
