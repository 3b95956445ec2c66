r"""Why the words around a box, or another answer beside it, make it no answer: denied, asked, or one of several.

not \boxed{5}, \boxed{5} is wrong, is it \boxed{5}?, 3 or \boxed{5}, \boxed{5}, 6, \boxed{5} … so there is no answer
"""

import re

LONGEST_JOINT = 80  # characters between boxes of one answer, and beside a box that are looked at
LONGEST_END = 120  # characters at the end of a text in which it may say that there is no answer
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")

BOUNDED = re.compile(
    r"\b(?:(?:more|less|fewer|greater|smaller|larger) than|(?:^|\bis |\bare )at (?:least|most)|between)[\s$*:]*$",
    re.IGNORECASE,
)
DENIED_BEFORE = re.compile(
    r"(?:\bnot(?:\s+(?:necessarily|quite|exactly|equal\s+to))?|n['’]t(?:\s+be)?|\bnever|\bcannot be"
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
    "not", "Not", "ecessarily", "quite", "xactly", "ual to", "n't", "n’t", "ever", "be", "but", "than", "from", "of", "least",
    "most", "etween", "wice", "alf", "ouble", "riple", "times", "plus", "inus", "egative", "{", "%",
)  # fmt: skip
NOT_SO = (
    r"(?:not\s+(?:the|correct|right|true|valid|it)\b|wrong|incorrect|false|invalid|impossible|mistaken"
    r"|a\s+(?:random\s+)?guess)"
)
DENIED_AFTER = re.compile(
    r"(?:\{?[,.]\}?)?\d|_\{?\d|:\d|[\s$]*(?:\\[pb]?mod|mod)\b|(?:\s|\\[,;: ])*d[txyz](?![A-Za-z])"  # what changes it
    r"|[\s$]*(?:\\text\w*\s*\{)?(?<![A-Za-z])(?:\s*to[\s}]*\d|\s*or\s+(?:more|less|fewer|greater|larger|higher|smaller|lower)\b)"
    r"|[\s$]+(?:at\s+(?:least|most)\b|and\s+a\s+half\b|factorial\b"
    r"|(?:plus|minus|times|over|(?:divided|multiplied)\s+by|out\s+of)\s+(?:[$\\(]+-?\w|-?\d|[b-z](?![A-Za-z]))|(?:squared|cubed)\b)"
    r"|[\s$*.,;:\\\])}(\[—-]{0,12}(?:(?:(?:wait|hmm|oops)\b[,.…\s]*)?(?:that|this|it)['’]s\s+(?=wrong|incorrect|false|not\s)"
    r"|(?:which|this|that|it)\s+)?"
    rf"(?:(?:is|was|would\s+be|seems|looks)\s+(?:also\s+|clearly\s+)?{NOT_SO}"
    r"|isn['’]t\b|(?:can\s?not|can['’]t)\s+be|no\b[,.]|wait,?\s+no\b|wrong\b|incorrect\b|fails\b"
    r"|does\s?n[o'’]t\s+(?:work|hold|satisfy)|(?:must|should)\s+be\s+(?:rejected|discarded|excluded)"
    r"|(?:ist|est|es|è|é)\s+(?:falsch|nicht|faux|fausse|incorrect|incorrecto|falso|sbagliat)|no\s+es\b"
    r"|是错|不是|неверн|ではない|じゃない)",
    re.IGNORECASE,
)

# brackets and commands before a box that change it, unless they only say how it looks
STYLE = (
    r"\\(?:boldsymbol|bm|math(?:bf|it|rm|sf|tt|bb|cal|op)|text\w*|mbox|hbox|(?:f|text)?color(?:box)?|underline|underbrace|overbrace"
    r"|boxed|fbox|framebox|emph|ensuremath|(?:display|text|script)style|bf|it|rm|(?:norma)?l(?:arge|size)|Large|LARGE|[hH]uge|centerline"
    r"|section|subsection|answer|ans|q?quad|therefore|implies|approx|equiv|(?:long|Long)?[rR]ightarrow)(?![A-Za-z])"
)
ARGUMENTS = r"(?:\s*(?:\[[^\[\]]*\]|\{[^{}]*\}))*"
IN_ARGUMENT = re.compile(
    rf"\\(?:sqrt|[dt]?frac|[dt]?binom|hat|bar|vec|overline|tilde|widehat|cancel)(?![A-Za-z]){ARGUMENTS}\s*\[?\s*$|(?:[\^_}}]|(?!{STYLE})\\[A-Za-z]+{ARGUMENTS})\s*\{{[\s$]*$"
)
IN_STYLE = re.compile(rf"{STYLE}\*?{ARGUMENTS}\s*\{{[\s$]*$")

# a question, or that there is no answer
SPACES = r"(?:[\s$*~)\]}]|\\[,;: )\]])*"
ASKED_AFTER = re.compile(rf"{SPACES}[?？](?!\W*(?:yes|yeah|yep|indeed|correct|right|true)\b)", re.IGNORECASE)
ASKING_BEFORE = re.compile(
    r"(?:^|[.!?:,;]\s)\W*(?:(?:so|but|and|then|hmm|wait),?\s+)?(?:is|are|could|can|would|might|may|should|does|do|will)\b[^.!?]*$",
    re.IGNORECASE,
)
REST_ASKED = re.compile(r"[^.!?\n]{0,60}[?？]")
CONTRADICTED = re.compile(
    r"[\s$*.,;:\\\])}!…-]{0,12}(?:(?:hmm|hm|wait|but|however|oh|no)\b[\s,.…]*){0,3}(?:this|that|which|it)\s+"
    r"(?:contradicts|violates|is\s+(?:a\s+contradiction|impossible|inconsistent|absurd))\b",
    re.IGNORECASE,
)
NO_ANSWER_AT_END = re.compile(
    r"(?:\A|[.!?\n])\s*(?:(?:so|thus|therefore|hence),?\s+)?(?:there\s+(?:is|are)|the\s+(?:problem|question)\s+has|we\s+have)\s+no\s+"
    r"(?:valid\s+|real\s+|possible\s+|such\s+)?(?:answer|solution)s?[\s.!$*]*\Z",
    re.IGNORECASE,
)


def refused(before: str, after: str) -> str:
    """Why the words around a box make it no answer; "" if they do not."""
    if before.rstrip(" $*\\([:").endswith(WATCHED_ENDS) or any(map(before.__contains__, WATCHED)):
        if PART_OF_MORE.search(before):
            return "no answer: only a part of the formula is in the box"
        if DENIED_BEFORE.search(before) or BOUNDED.search(before):
            return "no answer: what is in the box is denied"
        if "%" in before and re.search(r"(?:^|\})\s*%\s*$", before):
            return "no answer: the box is commented out"
    if ("\\" in before or before.endswith("{")) and IN_ARGUMENT.search(before) and not IN_STYLE.search(before):
        return "no answer: only a part of the formula is in the box"
    if before[-1:].isdecimal() or re.search(r"(?<!\d)0[.,]$", before[-3:]):
        return "no answer: only a part of the number is in the box"
    return refused_after(before, after) if after else ""


def refused_after(before: str, after: str) -> str:
    """Why the words after a box make it no answer."""
    if DENIED_AFTER.match(after) or CONTRADICTED.match(after):
        return "no answer: what is in the box is denied"
    if ASKED_AFTER.match(after) or (REST_ASKED.match(after) and ASKING_BEFORE.search(before)):
        return "no answer: the box is in a question"
    return ""
