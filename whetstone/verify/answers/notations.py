r"""Other ways to write what the grammar knows: each row is a mark that a text must contain, a pattern and what stands for it.

x<1\lor x>2      x<1 or x>2                 ]0,1[               (0,1)
\Rightarrow 57   57                          \text{ is to }      :
12\text{,}500    12{,}500                    8\text{ choose }3   \binom{8}{3}
"""

import re
from fractions import Fraction

from whetstone.verify.answers.number_words import number_of

WORDED = r"(?:\\(?:text|mathrm|textrm|mbox)\s*\{\s*)"
SPACES = r"(?:\\[,;: ]|\\q?quad|\s|~|\{\})*"
NO_SOLUTION = rf"\A{WORDED}?\s*(?i:(?:there (?:is|are) )?no solutions?)\s*\}}?\Z"
COMPARED = (("greater|more|larger|bigger", ">", r"\ge "), ("less|smaller|fewer|lower", "<", r"\le "))

ROWS = (
    # signs without meaning before and after an answer
    ("\\", r"\A\s*\\(?:[Rr]ightarrow|Longrightarrow|implies|therefore|to|because)(?![A-Za-z])", ""),
    ("\\", r"\\(?:checkmark|blacksquare|square|qed)(?![A-Za-z])\s*\Z", ""),
    ("(", r"(?:\\q?quad|\s)*\\text\s*\{\s*\((?:by|using|from|via|see)\b[^{}]*\)\s*\}\.?\s*\Z", ""),
    ("\\text", r"(?:\\q?quad|\s)*\\text\s*\{\s*[,(]?\s*\(?(?:since|because|as (?:required|desired|claimed))\b[^{}]*\}.*\Z", ""),
    (
        "\\text",
        r"\A\\text\s*\{(?![^{}]*\b(?:not|isn't|wrong|incorrect|unlikely|false|about|approximately|least|most|than)\b)[^{}]*"
        r"\b(?i:answer|result|solution|total|value)\b[^{}]*(?:\bis|:|=)\s*\}",
        "",
    ),
    ('\\"', r'\\"', '"'),
    # numbers
    ("Rational", r"(?<![A-Za-z\\])Rational\s*\(([^(),]+),([^(),]+)\)", r"\\frac{\1}{\2}"),
    ("binomial", r"(?<![A-Za-z\\])binomial\s*\(([^(),]+),([^(),]+)\)", r"\\binom{\1}{\2}"),
    ("\\text{,}", r"\\text\{,\}", "{,}"),
    ("frac", r"(\\[dt]?frac\s*\{|\}\s*\{)([1-9]\d{0,2}(?:,\d{3})+)(?=\})", lambda m: m[1] + m[2].replace(",", "")),
    ("\u0305", r"((?:\d\u0305)+)", lambda m: r"\overline{" + m[1].replace("\u0305", "") + "}"),
    ("_", r"\A-?\d{1,3}(?:_\d{3})+\Z", lambda m: m[0].replace("_", "")),
    ("\\tag", r"\\tag\s*\*?\s*\{[^{}]*\}\s*\Z", ""),
    ("M", r"\A\s*(\\?\$|€|£)\s*(\d[\d,.]*)M\Z", r"\1\2\\text{ million}"),
    ("bmod", r"\A\s*(\d{1,18})\s*\\bmod\s*([1-9]\d{0,17})\s*\Z", lambda m: str(int(m[1]) % int(m[2]))),
    ("\\{", r"\\(max|min|gcd|lcm)\s*(?:\\left\s*)?\\\{([^{}|:]*?)(?:\\right\s*)?\\\}", r"\\\1(\2)"),
    ("+", r"\+\s*/\s*-\s*(?=[\w\\.(])", r"\\pm "),
    ("+-", r"\A\s*\+-(?=\s*[\d\\])", r"\\pm "),
    ("answer", r"\A\s*(?i:(?:so |thus )?the (?:final |correct )?answer is):?\s+(?=[-+\d$\\(\[{])", ""),
    ("not ", r"\A\s*not\s+(\S+)\s+but\s+(\S*\d\S*)\s*\Z", r"\2"),
    ("(not ", r"\(not\s+[-+\d.,/$\\{} ]{1,40}\)\s*\Z", ""),
    ("US", rf"\A{WORDED}?\s*USD?\s*\}}?\s*(?:\\?\$)?\s*(?=\d)", r"\\$ "),
    ("Rs", rf"\A{WORDED}?\s*Rs\.?\s*\}}?\s*(?=\d)", "₹ "),
    (",", r"\A(-?\d+),(\d{1,2})(?=\s*(?:\\?%|€)\s*\Z)", r"\1.\2"),
    ("_", rf"{WORDED}([0-9A-Z]+)\s*\}}(?=\s*_)", r"\1"),
    ("choose", rf"\A(\d+)\s*{WORDED}?\s*choose\s*\}}?\s*(\d+)\Z", r"\\binom{\1}{\2}"),
    ("\\choose", r"\A\s*([^{}]+?)\s*\\choose\s*([^{}]+?)\s*\Z", r"\\binom{\1}{\2}"),
    ("10^", r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\cdot "),
    ("Abs", r"(?<![A-Za-z\\])Abs(?=\s*\()", "abs"),
    ("log", r"(?<![A-Za-z\\])log(2|10)(?=\s*\()", r"\\log_{\1}"),
    ("C", r"\A\s*(?:\{\s*\})?\s*[\^_]\s*\{?(\d+)\}?\s*C\s*_\s*\{?(\d+)\}?\s*\Z", r"\\binom{\1}{\2}"),
    ("C", r"\A\s*C\s*_\s*\{?(\d{1,6})\}?\s*\^\s*\{?(\d{1,6})\}?\s*\Z", lambda m: chosen(m[1], m[2]) or m[0]),
    ("C", r"\A\s*C\s*\^\s*\{?(\d{1,6})\}?\s*_\s*\{?(\d{1,6})\}?\s*\Z", lambda m: chosen(m[2], m[1]) or m[0]),
    ("cis", r"\\?(?:(?:operatorname|text|mathrm)\s*\{\s*cis\s*\}|(?<![A-Za-z])cis)\s*((?:\\left\s*)?\([^()]*\)|\{[^{}]*\}"
     r"|\d+\s*\^\s*\{?\s*\\circ\s*\}?|\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\})", r"(\\cos{\1}+i\\sin{\1})"),
    # units
    ("cent", rf"\A{WORDED}?(\d+)\s*dollars?(?:\s*,?\s*and)?\s*(\d\d?)\s*cents?\s*\}}?\Z",
     lambda m: rf"\${m[1]}.{m[2]:0>2}"),
    ("Ω", r"(?<=\d)\s*([kM]?)\s*[ΩΩ]\s*\Z", r"\\text{ \1ohm}"),
    ("sq", r"(?<![A-Za-z])sq\.?\s*(cm|km|mm|m|ft|in|mi|yd)(?![A-Za-z^])", r"\1^2"),
    ("sq.", r"\bsq\.\s*", "sq "),
    ("\\mu", rf"\\mu\s*{WORDED}([A-Za-z]+)\s*\}}", r"\\text{ μ\1}"),
    ("\\mu", rf"{WORDED}\{{?\\mu\}}?\s*([A-Za-z]+)\s*\}}", r"\\text{ μ\1}"),
    ("\\Omega", rf"{WORDED}([kMm]?)\s*\\Omega\s*\}}", r"\\text{ \1ohm}"),
    ("\\Omega", rf"(?<=\d){SPACES}([kM]?)\\Omega(?![A-Za-z_])(?=\s*\Z)", r"\\text{ \1ohm}"),
    ("\\AA", r"\\AA(?![A-Za-z])", "Å"),
    ("\\odot", rf"(?<=\d){SPACES}([MRL])_\{{?\\odot\}}?", r"\\text{ solar\1}"),
    ("'", r"\A\s*(\d{1,6})\s*(?:\^\s*\{?\\circ\}?|°|\\degree)\s*(\d{1,6})\s*'(?:\s*(\d{1,6})\s*(?:''|\"))?\s*\Z",
     lambda m: degrees(*m.groups())),
    ("\\circ", r"\\ (?=\^\s*\{?\s*\\circ)", " "),
    # sets and relations
    ("[", r"\A(?=[^\[\]]*[\[\]][^\[\]]*[\[\]][^\[\]]*\Z)(\[|\])([^\[\]()]*,[^\[\]()]*)(\[|\])",
     lambda m: {"[": "[", "]": "("}[m[1]] + m[2] + {"[": ")", "]": "]"}[m[3]]),
    ("<>", r"(?<=\w)\s*<>\s*(?=[-\w\\])", r"\\ne "),
    ("\\not", r"\\not\s*=", r"\\ne "),
    ("\\not", r"\\not\s*\\in(?![A-Za-z])", r"\\notin "),
    ("\\", r"\\(?:lor|vee)(?![A-Za-z])(?=.*(?:[<>=]|\\(?:[gl]e|ne)))", r"\\text{ or }"),
    ("\\", r"\\(?:land|wedge)(?![A-Za-z])(?=.*(?:[<>=]|\\(?:[gl]e|ne)))", r"\\text{ and }"),
    (" U", r"(?<=[)\]])\s+U\s+(?=\\?(?:left)?\s*[(\[])", r"\\cup "),
    ("\\mathbb ", r"\\mathbb\s+([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
    ("\\mathbb{R}", r"\\mathbb\{R\}\s*_\s*\{?\s*\\(?:ge|geq|geqslant)\s*0\s*\}?\s*\Z", r"[0,\\infty)"),
    ("\\mathbb{R}", r"\\mathbb\{R\}\s*(?:\^\s*\{?\+\}?|_\s*\{?(?:\+|>\s*0)\}?)\s*\Z", r"(0,\\infty)"),
    ("\\mathbb{R}", r"\\mathbb\{R\}\s*[-−]\s*(?=\\\{)", r"\\mathbb{R}\\setminus "),
    ("is to", rf"{WORDED}?\s*\bis to\s*\}}?", ":"),
    ("integers", rf"\A{WORDED}?\s*(?:the set of )?all integers\s*\}}?\Z", r"\\mathbb{Z}"),
    ("empty set", rf"\A{WORDED}?\s*(?:the )?empty set\s*\}}?\Z", r"\\emptyset"),
    ("olution", NO_SOLUTION, r"\\emptyset"),
    ("OLUTION", NO_SOLUTION, r"\\emptyset"),
    ("DNE", rf"\A{WORDED}?\s*DNE\s*\}}?\Z", r"\\text{does not exist}"),
    ("infinity", rf"\A{WORDED}?\s*(?:positive|plus) infinity\s*\}}?\Z", r"\\infty"),
    ("infinity", rf"\A{WORDED}?\s*(?:negative|minus) infinity\s*\}}?\Z", r"-\\infty"),
    # matrices, vectors and systems
    ("\\\\", r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]", r"\\\\\\\\"),
    ("\\cr", r"\\cr(?![A-Za-z])", r"\\\\"),
    ("^", r"(?<=[)\]])\s*\^\s*\{?\s*(?:T|\\top|\\mathsf\{T\}|\\text\{T\})\s*\}?\s*\Z", ""),
    ("\\", r"\\(?:mathbf|boldsymbol|bm|hat|vec|widehat)\s*\{\s*(?:\\mathbf\{)?\\?([ijk])(?:math)?\}?\s*\}", r"\\hat{\1}"),
    ("align", r"\\begin\{align(?:ed)?\*?\}(.*?)\\end\{align(?:ed)?\*?\}", lambda m: m[1].replace("&", "")),
    ("cases", r"\\text\s*\{\s*,?\s*(?:if|when|for)\s*\}(?=.*\\end\{cases\})", ""),
    ("cases", r"[,;]\s*&", "&"),
)  # fmt: skip
PATTERNS = tuple((mark, re.compile(pattern, re.DOTALL), other) for mark, pattern, other in ROWS)
PLAIN = re.compile(r"[-+\w./*()=, ]*")
WORDS_OF_TEXT = re.compile(rf"{WORDED}([^{{}}]*)\}}|\$")
REAL = re.compile(
    r"\s*(?:the set of )?(?:all )?real (?:numbers?|values?)?\s*(?:of )?(?:([a-z])(?![A-Za-z]))?\s*"
    r"(?:that are |which are |such that )?",
    re.IGNORECASE,
)
EXCEPT = re.compile(r"(?:except|but|other than|excluding|without|not equal to)(?: for)?\s+([^A-Za-z]+|\\.+)\Z")
SPELLED = re.compile(r"(?:\\text\s*\{)?\s*(?:[A-Za-z]{3}|an? [a-z]{4})|\d+\s*(?:\\text\s*\{)?\s*and\b")
WORDED_MARKS = (
    " is ", " than ", "hundred", "US", "Rs", "choose", "set", "infinity", "Rational", "binomial", "Abs", "log2", "log10", "DNE",
    "cents", "sq", "_", "C_", "+/-", "+-", ") U (", "olution", "OLUTION", "not ", "Ω", "integers", "at least", "at most",
)  # fmt: skip


def chosen(whole: str, part: str) -> str:
    """C_5^2 as \\binom{5}{2}, "" if there are not so many."""
    return rf"\binom{{{whole}}}{{{part}}}" if int(part) <= int(whole) else ""


def degrees(whole: str, minutes: str, seconds: str | None) -> str:
    """30° 30' as a fraction of degrees."""
    angle = Fraction(int(whole)) + Fraction(int(minutes), 60) + Fraction(int(seconds or 0), 3600)
    return rf"\frac{{{angle.numerator}}}{{{angle.denominator}}}^\circ"


def usual(text: str) -> str:
    """A text in the notation of the grammar."""
    if SPELLED.match(text) and (number := spelled(text)) != text:
        return number
    if PLAIN.fullmatch(text) and not any(map(text.__contains__, WORDED_MARKS)):
        return text
    for mark, pattern, other in PATTERNS:
        if mark in text:
            text = pattern.sub(other, text)
    if " than " in text or "real" in text or "at least" in text or "at most" in text:
        text = compared(text)
    return text


def compared(text: str) -> str:
    r"""`all real numbers greater than 3` and `x is at least 3` as set and inequality."""
    plain = " ".join(WORDS_OF_TEXT.sub(lambda found: f" {found[1] or ''} ", text).split())
    relation = plain
    for words, strict, wide in COMPARED:
        relation = re.sub(rf"(?:\bis |\bare )?(?:{words}) than or equal to ", lambda _, sign=wide: sign, relation)
        relation = re.sub(rf"(?:\bis |\bare )?(?:strictly )?(?:{words}) than ", strict, relation)
    for words, wide in (("at least ", r"\ge "), ("at most ", r"\le ")):
        relation = re.sub(rf"(?:\bis |\bare ){words}", lambda _, sign=wide: sign, relation)
    real = REAL.match(relation)
    if real and (real[0].strip().startswith(("all", "real", "the"))):
        rest, name = relation[real.end() :], real[1] or "x"
        if excepted := EXCEPT.match(rest):
            return rf"\{{{name}|{name}\ne {excepted[1]}\}}"
        if re.match(r"[<>]|\\(?:[gl]e|neq?)(?![A-Za-z])", rest) and not re.search(r"(?<![\\A-Za-z])[A-Za-z]{2}", rest):
            return rf"\{{{name}|{name}{rest}\}}"
        return text
    named = re.fullmatch(r"([a-z]) ((?:[<>]|\\[gl]e) ?[^A-Za-z]+)", relation)
    return named[1] + named[2] if named else text


def spelled(text: str) -> str:
    """`one hundred and five` as 105, `5 and a half` as 11/2; other texts as they are."""
    number = number_of(" ".join(WORDS_OF_TEXT.sub(lambda found: f" {found[1] or ''} ", text).split()))
    if number is None:
        return text
    return str(number) if number.denominator == 1 else rf"\frac{{{number.numerator}}}{{{number.denominator}}}"
