r"""An answer's text without what carries no meaning: delimiters, styles, spacing, separators of thousands.

What remains is LaTeX in ASCII. The content of `\text{…}` stands between TEXT and END, so that the reader knows its letters
are words; degree signs of any spelling are `\degree`.
"""

import re
import unicodedata

from whetstone.verify.answers.notations import usual
from whetstone.verify.exact import TooLarge

MOST_CHARACTERS = 10_000
MOST_WRAPPERS = 10  # groups and styles around an answer
DEEPEST = 40
TEXT, END = "\x02", "\x03"

SIGNS = str.maketrans(
    {
        "−": "-", "–": "-",  "﹣": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "∕": "/",
        "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "≈": r"\approx ", "≡": r"\equiv ", "±": r"\pm ",
        "∓": r"\mp ", "∅": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "∧": r"\land ", "∨": r"\lor ", "¬": r"\neg ",
        "→": r"\to ", "⇒": r"\implies ", "∠": r"\angle ", "△": r"\triangle ", "∼": r"\sim ", "≅": r"\cong ",
        "∥": r"\parallel ", "⊥": r"\perp ", "∣": r"\mid ", "∑": r"\sum ", "∫": r"\int ", "∏": r"\prod ",
        "°": r"\degree ", "˚": r"\degree ", "≧": r"\ge ", "≦": r"\le ", "ϵ": r"\epsilon ", "ε": r"\varepsilon ",
        "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "ψ": r"\psi ", "ϕ": r"\phi ",
        "º": r"\degree ", "℃": r"\degree C", "℉": r"\degree F", "度": r"\degree ", "…": r"\ldots ",
        "—": "-", "‑": "-", "‐": "-", "∶": ":",
        "’": "'", "′": "'", "″": "''", "“": '"', "”": '"', "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ",
        "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "‰": r"/1000 ", "、": ",", "。": ".", "｡": ".", "，": ",",
        "【": "(", "】": ")", "〜": "~", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
        "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ", "δ": r"\delta ", "Δ": r"\Delta ",
    }
)  # fmt: skip
UP = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ", "-+0123456789n")
DOWN = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋ₙ", "0123456789-n")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SUPERSCRIPTS = re.compile("[⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]+")
SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉₋ₙ]+")
ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z])?")
PLAIN_ROOT = re.compile(r"(?:\\|(?<![\\A-Za-z]))sqrt\s*(?=\d\d|\d\.\d)(\d+(?:\.\d+)?)|(?<![\\A-Za-z])sqrt(?![A-Za-z])")
NOISE = re.compile(
    r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|"
    r"boldsymbol|mathbf|mathit|mathsf|mathtt|bm|underline|boxed|fbox|bf|it|rm|large|Large|huge|emph|"
    r"(?:text)?color\s*\{[^{}]*\}|phantom\s*\{[^{}]*\})(?![A-Za-z])|\\[()]|(?<!\\)\\[\[\]]|`|^\s*\*\*|\*\*\s*$"
)
WRAPPER = re.compile(
    r"(?P<style>\\(?:boldsymbol|math(?:bf|it|sf|tt|rm)|bm|underline|boxed|fbox|emph|displaystyle|textstyle|text(?:bf|it|rm)?|mbox"
    r"|(?:text)?color\s*\{[^{}]*\}|colorbox\s*\{[^{}]*\}|ensuremath|bf|large|Large|huge|rm)(?![A-Za-z]))?\s*(?P<brace>\{)?\s*"
)
RELATED = re.compile(r"[=<>]|\\(?:[gl]eq?|ne|in)(?![A-Za-z])")
LIST_OF_SET = re.compile(r"(?![(\[{\\])(?!.*(?:\\frac|\\sqrt|\s(?:and|or)\s)).*,", re.DOTALL)
BUILT = re.compile(r"[A-Za-z]\s*(?:(?:\\in(?![A-Za-z])|∈)[^|:]*)?(?:\||:|\\mid|\\vert)")
BOLD = r"\\(?:mathbf|boldsymbol|bm)\s*\{\s*([A-Za-z])\s*\}"
BOLD_CROSS = re.compile(rf"{BOLD}\s*\\times\s*{BOLD}")
LONE_SIGN = re.compile(r"(?<![\\A-Za-z}^_])\{\s*([-+]|\\?%)\s*\}|(?<=\d)\{\s*(\\?%)\s*\}")
TEXTS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|sc)?|mathrm|mbox|hbox|textrm|operatorname\*?|unit|ensuremath)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
LETTER = re.compile(r"\s*(?:[eidI]|[A-Z])\s*")
SPACE = re.compile(r"\\q?quad|\\(?:thinspace(?![A-Za-z])|hspace\*?\{[^{}]*\})|(?<!\\)\\[;:, >]|~|\s+")
DEGREES = re.compile(
    r"(?:\{\s*\})?\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\}|\\degree(?![A-Za-z])|\{\s*\\degree\s*\}|o(?![A-Za-z]))"
    r"|\\(?:degrees?|textdegree)(?![A-Za-z])"
)
SCALE = re.compile(rf"\\degree\s*{TEXT}?\s*([CF])(?![A-Za-z])\s*{END}?")
ORDINAL = re.compile(rf"(?<=\d)\s*(?:\^\s*)?\{{?\s*{TEXT}?\s*(?:st|nd|rd|th)\s*{END}?\s*\}}?(?![A-Za-z])")
DOTS = re.compile(r"\.\.\.+|\\c?dots(?![A-Za-z])")
JOINED = re.compile(r"(?<=\d)(?:\{(?:,|\\[,!])\}|,?\\!\s*,?|\\,|,\\,)\s*(?=\d{3}(?!\d))")
THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
SPACED_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:[.,]\d+)?")
POINTED = re.compile(r"[-+]?\d{1,3}(?:(?:\.\d{3}){2,}(?:,\d+)?|(?:\.\d{3})+,\d+)")
APOSTROPHES = re.compile(r"[-+]?\d{1,3}(?:'\d{3})+")
MONEY = re.compile(r"(?:\\\$|[€£¥₹])\s*")
REPEATED = re.compile(r"([-+]?\d+\.\d*)\((\d+)\)")
DIGIT_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
BASE = re.compile(
    rf"([0-9A-Z]+)\s*(?:,\s*)?{TEXT}?\s*\(?\s*{TEXT}?(?:in\s+)?base[-\s]*{END}?\s*\$?(\d+|{'|'.join(DIGIT_WORDS)}){END}?\)?{END}?$"
)
BASED = re.compile(rf"(?<![A-Za-z\d.])\(([0-9A-Z]+)\)(?=_)|_\s*\{{\s*[({TEXT}]*\s*(\d+|[a-z]+)\s*[){END}]*\s*\}}")
BRACED_WORD = re.compile(
    r"(?:(?<![A-Za-z\\}^_])\{\s*([A-Za-z]{2,})\s*\}|(?<=\d)\{\s*([A-Za-z])\s*\})(?=(?:\s*\^\s*\{?\d\}?)?$)"
)
SYSTEM = re.compile(r"\\\{\s*\\begin\s*\{(?:array|aligned|matrix)\}(?:\s*\{[lcr| ]*\})?(.*?)\\end\s*\{\w+\}", re.DOTALL)
OTHER_COMMANDS = (
    ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac"), ("\\nicefrac", "\\frac"), ("\\sfrac", "\\frac"),
    ("\\lbrace", "\\{"), ("\\rbrace", "\\}"), ("\\backslash", "\\setminus "),
    ("\\pounds", "£"), ("\\textsterling", "£"), ("\\euro", "€"), ("\\texteuro", "€"), ("\\textdollar", "\\$"),
)  # fmt: skip


def clean(answer: str) -> str:
    """Raises TooLarge where it is too long or too deep to look at."""
    if len(answer) > MOST_CHARACTERS:
        raise TooLarge("too many characters")
    text = usual((answer if answer.isprintable() else CONTROL.sub(" ", answer)).strip())
    if not text.isascii():
        text = _ascii(text)
    _measure_depth(text)
    if "sqrt" in text:
        text = PLAIN_ROOT.sub(lambda found: rf"\sqrt{{{found[1]}}}" if found[1] else r"\sqrt", text)
    if "," in text or "\\" in text:
        text = JOINED.sub("", text)
    text = _without_dollars(text)
    if "\\" in text:
        text = _without_commands(text)
    if "*" in text or "`" in text:
        text = NOISE.sub(" ", text)
    if "^" in text or "\\deg" in text:
        text = DEGREES.sub(r"\\degree ", text)
    if "\\degree" in text:
        text = SCALE.sub(rf"{TEXT}°\1{END}", text)
    if ".." in text or "dots" in text:
        text = DOTS.sub(r"\\ldots ", text)
    text = SPACE.sub(" ", text).rstrip(' .,;:"').lstrip(' ,;:"')
    text = ORDINAL.sub("", text).strip()
    if text[-1:] == "}" or "}^" in text:
        text = BRACED_WORD.sub(rf"{TEXT}\1\2{END}", text)
    return _numbers(text.removeprefix("=").strip())


def peeled(text: str) -> str:
    """A text without the groups and style commands around all of it: `\\mathbf{(1, 2)}`, `{x = 3}`; `{1, 2}` is a set."""
    text = LONE_SIGN.sub(lambda found: found[1] or found[2], text.strip()) if "{" in text else text.strip()
    for _ in range(MOST_WRAPPERS):
        if text[:1] not in ("{", "\\"):
            break
        found = WRAPPER.match(text)
        if not (found["style"] or found["brace"]):
            break
        inside = text[found.end() :]
        if found["brace"]:
            if not _closes_at_end(text, found.start("brace")):
                break
            inside = inside[:-1].strip()
        style = found["style"] or ""
        words = style.startswith(("\\text", "\\mbox", "\\mathrm")) and "color" not in style
        listed = not style and LIST_OF_SET.match(inside) and not THOUSANDS.fullmatch(inside)
        if not style and BUILT.match(inside):  # {x | x > 3}
            break
        if ((words or listed) and not RELATED.search(inside)) or "\\over" in inside or "\\choose" in inside:
            break
        text = inside.strip()
    return text


def _closes_at_end(text: str, start: int) -> bool:
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if not depth and token[0] == "}":
            return start + token.end() == len(text)
    return False


def _without_commands(text: str) -> str:
    """LaTeX without styles, delimiters and other spellings of one command; text between TEXT and END."""
    for other, command in OTHER_COMMANDS:
        text = text.replace(other, command)
    if "\\times" in text:
        text = BOLD_CROSS.sub(r"\\vec{\1}\\times \\vec{\2}", text)
    text = NOISE.sub(" ", text).replace("\\!", "")
    if "\\begin" in text:
        text = SYSTEM.sub(r"\\begin{cases}\1\\end{cases}", text)
    for _ in range(4):
        if (new := TEXTS.sub(_marked, text)) == text:
            break
        text = new
    return text.removesuffix("\\") if not text.endswith("\\\\") else text


def _ascii(text: str) -> str:
    """Digits, fractions, powers and signs of other scripts; letters stay as they are."""
    text = "".join(_character(c) for c in text if unicodedata.category(c) != "Cf")
    text = SUPERSCRIPTS.sub(lambda found: "^{" + found.group().translate(UP) + "}", text)
    text = SUBSCRIPTS.sub(lambda found: "_{" + found.group().translate(DOWN) + "}", text)
    return ROOT.sub(_root, text.translate(SIGNS))


def _character(c: str) -> str:
    if c.isascii() or UP.get(ord(c)) or DOWN.get(ord(c)):
        return c
    if c.isdecimal():
        return str(unicodedata.decimal(c))
    if "！" <= c <= "～":  # full width
        return chr(ord(c) - 0xFEE0)
    if unicodedata.category(c) == "Zs":
        return " "
    parts = unicodedata.normalize("NFKC", c).split("\u2044")
    return rf"\frac{{{parts[0]}}}{{{parts[1]}}}" if len(parts) == 2 and all(p.isdecimal() for p in parts) else c


def _measure_depth(text: str) -> None:
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth -= 1
    if deepest > DEEPEST:
        raise TooLarge("nested too deeply")


def _root(found: re.Match[str]) -> str:
    """A root sign takes all the digits after it."""
    sign = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}[found[1]]
    return f"{sign}{{{found[2]}}}" if found[2] else sign + " "


def _without_dollars(text: str) -> str:
    r"""Pairs of dollar signs are delimiters; one alone is money, `\$`."""
    if "$" not in text:
        return text
    plain = re.sub(r"\\\$", "\x05", text)
    if plain.count("$") % 2:
        plain = plain.replace("$", "\x05", 1)
    return plain.replace("$", " ").replace("\x05", r"\$ ")


def _marked(found: re.Match[str]) -> str:
    content = found[1]
    called = found.string[found.end() :].lstrip()[:1] in "({\\_" and found.end() < len(found.string)
    if content.strip() == "pi":
        return "\\pi "
    if content.strip() in ("min", "max", "sec") and not called:
        return f"{TEXT}{content}{END}"
    if (name := OTHER_NAMES.get(content.strip(), content.strip())) in FUNCTION_NAMES:
        return f"\\{name} "
    if found[0].startswith(("\\mathrm", "\\operatorname")) and LETTER.fullmatch(content):
        return f" {content} "
    return f"{TEXT}{content}{END}"


def _numbers(text: str) -> str:
    """Groups of thousands that stand alone, repeating decimals and bases in one spelling each."""
    plain = text.replace(TEXT, "").replace(END, "").strip()
    if (money := MONEY.match(plain)) and (amount := _numbers(plain[money.end() :])) != plain[money.end() :]:
        return money[0] + amount
    if SPACED_THOUSANDS.fullmatch(plain) or APOSTROPHES.fullmatch(plain):
        return plain.replace(" ", "").replace("'", "").replace(",", ".")
    if POINTED.fullmatch(plain):
        return plain.replace(".", "").replace(",", ".")
    if repeated := REPEATED.fullmatch(plain):
        return rf"{repeated[1]}\overline{{{repeated[2]}}}"
    if "base" in text:
        text = BASE.sub(lambda found: f"{found[1]}_{{{_digits(found[2])}}}", text)
    if "_" in text:
        text = BASED.sub(lambda found: found[1] or f"_{{{_digits(found[2])}}}", text)
    return text


def _digits(word: str) -> str:
    return str(DIGIT_WORDS.index(word) + 2) if word in DIGIT_WORDS else word


FUNCTION_NAMES_TEXT = """
sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp gcd lcm max min det arg Re Im
"""
FUNCTION_NAMES = frozenset(FUNCTION_NAMES_TEXT.split()) | {
    "tr",
    "abs",
    "floor",
    "ceil",
    "arcsinh",
    "arccosh",
    "arctanh",
}
OTHER_NAMES = {"arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh", "asinh": "arcsinh", "atanh": "arctanh"}
