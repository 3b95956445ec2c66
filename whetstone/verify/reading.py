r"""An answer's text -> what it says: numbers, expressions, tuples, sets, intervals, equations, matrices, words.

`tidy` sets aside what carries no meaning (delimiters, spacing commands, currency, units, degree signs, thousands
separators), `read` parses the rest by recursive descent. Nothing is evaluated beyond the bounds of `exact.py`; what is
no expression of a known kind raises Unreadable.
"""

import re
from fractions import Fraction
from typing import Literal, NamedTuple

from whetstone.verify.exact import (
    Algebra,
    Scalar,
    TooLarge,
    Unreadable,
    as_rational,
    rational,
    symbol,
)

MOST_CHARACTERS = 10_000
MOST_TOKENS = 3_000
MOST_DIGITS = 4_000
DEEPEST = 40
MOST_ITEMS = 100


class Word(NamedTuple):
    """Prose, compared without case."""

    words: str


class Expression(NamedTuple):
    """A number or formula; `value` None: only readable by the computer algebra of the workers."""

    value: Scalar | None
    text: str
    based: tuple[str, int] | None = None  # digits and base of 204_5


class Bracket(NamedTuple):
    """Ordered: tuple, interval, ratio or bracketed list, told apart by their ends."""

    opening: str
    items: tuple["Value", ...]
    closing: str


class Items(NamedTuple):
    """Unordered: a set in braces, or several answers with commas, "and" or "or" between them."""

    items: tuple["Value", ...]
    braces: bool


class Union(NamedTuple):
    items: tuple["Value", ...]


class Chain(NamedTuple):
    """`a = b`, `a < x \\le b`, `x \\in S`: items with relations between them."""

    items: tuple["Value", ...]
    relations: tuple[str, ...]
    label: bool  # the left end only names what the rest is: x, f(2), (p, q), AB


class Matrix(NamedTuple):
    rows: tuple[tuple["Value", ...], ...]


Value = Word | Expression | Bracket | Items | Union | Chain | Matrix

# --- tidy -----------------------------------------------------------------------------------------------------------

CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
        "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∈": r"\in ", "≈": r"\approx ", "±": r"\pm ",
        "°": r"^\circ ", "√": r"\sqrt ", "’": "'", "′": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
        "（": "(", "）": ")", "，": ",", "：": ":", "⟨": "(", "⟩": ")", "％": "%",
    }
)  # fmt: skip
SUPERSCRIPTS = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
NOISE = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathstrut|phantom\{\})(?![A-Za-z])"
    r"|\\[()]|(?<!\\)\\[\[\]]|(?<!\\)\$"
)
SPACE = re.compile(r"\\q?quad|\\(?:thinspace(?![A-Za-z])|hspace\{[^{}]*\})|(?<!\\)\\[;: ]|~|\s+")
DERIVATIVE = re.compile(r"\\frac\s*\{\s*d\s*\}\s*\{\s*d\s*\\?[A-Za-z]+\s*\}")
THIN = re.compile(r"(?<!\\)\\,")
CURRENCY = re.compile(r"\\\$|\bUS\s*\$|[€£¥₹]|\\(?:euro|pounds)(?![A-Za-z])|^(?:USD|EUR|GBP|Rs\.?)\s*(?=[\d.])")
JOINED = re.compile(r"(?<=\d)(?:\{,\}|,?\\!\s*,?|\\,|,\\,)(?=\d{3}(?!\d))")
THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)")
WHOLE_THOUSANDS = re.compile(r"(?<![\d./^])\d{1,3}(?:,\d{3})+(?![\d/^])")  # not 100/3,100 nor 3,100/17: two items
SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
DEGREES = re.compile(r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])")
TRIGONOMETRY = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
SHORT_FRACTION = re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)")
HALF_SHORT_FRACTION = re.compile(r"\\frac\s*(\d)\s*(?=\{)")
OTHER_SHORT_FRACTION = re.compile(r"\\frac\s*(\{[^{}]*\})\s*(\d)")
MIXED = re.compile(r"(?<![\d.^_}])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
PLAIN_MIXED = re.compile(r"(?<![\d.^_}/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
TEXT = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|hbox|rm|operatorname)\s*\{([^{}]*)\}"
TEXT_ANYWHERE = re.compile(TEXT)
TEXT_AT_END = re.compile(TEXT + r"(?:\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d))?\s*$")
PLAIN_UNIT = re.compile(
    r"(?<=[\d})%])(?P<gap>\s*)(?<![\\A-Za-z])"
    r"(?P<unit>[A-Za-z]+\.?(?:\s*\^\s*\{?\d\}?)?(?:\s*[ /*]\s*[A-Za-z]+\.?(?:\s*\^\s*\{?-?\d\}?)?){0,4})$"
)
SHORT_UNITS_TEXT = """
m g s h l L N J W V A K km cm mm nm kg mg hr hrs min mins sec secs ms ft in yd mi lb lbs oz mph kph kmh rpm Hz
kHz MHz GHz kJ kW MW Pa kPa mol mL ml dL cL eV keV MeV GeV cc sq cal kcal deg rad pm am
"""
SHORT_UNITS = frozenset(SHORT_UNITS_TEXT.split())
NOT_UNITS_TEXT = """
not mod modulo is isn are was or and to if for when but except factorial squared cubed choose times plus minus
over dozen score half halves third thirds quarter quarters fourth fourths fifth fifths tenth tenths hundredth
hundredths thousandth thousandths hundred hundreds thousand thousands million millions billion billions
trillion trillions lakh crore sin cos tan cot sec csc log ln exp pi sqrt root roots where with wrong base
power divided multiplied less more than approximately about infinity frac remainder maybe either neither nor
"""
NOT_UNITS = frozenset(NOT_UNITS_TEXT.split())
MULTIPLIERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
MULTIPLIED = re.compile(r"^(.*\d)\s*(hundred|thousand|million|billion|trillion)\b(.*)$", re.IGNORECASE)
BRACED_WORD = re.compile(r"(?<![A-Za-z\\}^_])\{\s*([A-Za-z]{2,})\s*\}$|(?<=\d)\{\s*([A-Za-z])\s*\}$")
PERCENT_WORD = re.compile(r"(?<=[\d})])\s*(?:percent(?:age)?|pct)(?:\s+points?)?\.?$", re.IGNORECASE)
PROSE = re.compile(r"[A-Za-z][A-Za-z'’.\- ]*")
PROSE_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?![A-Za-z])")
SPELLED = re.compile(r"(?<![\\A-Za-z])(pi|sqrt|infinity|inf|infty)(?![A-Za-z])")
JOINING_WORDS = frozenset(("and", "or"))
JOINING = re.compile(r"(?<![\\A-Za-z])(?:and|or)(?![A-Za-z])")


def tidy(answer: str) -> str:
    """The answer without what carries no meaning. Raises TooLarge where it is too long or too deep to look at."""
    if len(answer) > MOST_CHARACTERS:
        raise TooLarge("too many characters")
    text = answer.strip()
    if not text.isascii():
        text = SUPERSCRIPTS.sub(_superscript, text.translate(CHARACTERS))
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth -= 1
    if deepest > DEEPEST:
        raise TooLarge("nested too deeply")
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        text = text[2:-2]
    if "\\boxed{" in text and text.endswith("}"):
        text = text[text.rindex("\\boxed{") + 7 : -1]
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cfrac", "\\frac")
    text = JOINED.sub("", text)
    text = CURRENCY.sub("", text)
    text = NOISE.sub(" ", text).replace("\\!", "")
    text = SPACE.sub(" ", THIN.sub(" ", text)).strip()
    text = text.rstrip(" .,;:")
    text = DEGREES.sub(r"\\cdot\\frac{\\pi}{180}" if TRIGONOMETRY.search(text) else " ", text)
    text = BRACED_WORD.sub(r"\\text{\1\2}", text.strip())  # 4{cm}: a \text whose command was lost
    text = _set_aside_units(text)
    text = SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = HALF_SHORT_FRACTION.sub(r"\\frac{\1}", text)
    text = OTHER_SHORT_FRACTION.sub(r"\\frac\1{\2}", text)
    text = PLAIN_MIXED.sub(_mixed_number, MIXED.sub(_mixed_number, text))
    if SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    return SPELLED.sub(lambda found: "\\" + {"inf": "infty", "infinity": "infty"}.get(found[1], found[1]), text).strip()


def _superscript(found: re.Match[str]) -> str:
    return "^{" + found.group().translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) + "}"


def _mixed_number(found: re.Match[str]) -> str:
    """`1\\frac{1}{2}` is a sum, unless the fraction is improper: then it was a product."""
    whole, upper, lower = found.groups()
    joint = "+" if (len(upper), upper) < (len(lower), lower) else "*"
    return f"({whole}{joint}\\frac{{{upper}}}{{{lower}}})"


def _set_aside_units(text: str) -> str:
    for _ in range(3):
        found = TEXT_AT_END.search(text)
        if not found or not text[: found.start()].strip():
            break
        content = found.group(1).strip()
        before = text[: found.start()].rstrip()
        if content.lower() in MULTIPLIERS or content.lower().strip(" .") in ("percent", "pct", "%", "\\%"):
            text = before + " " + content
        elif re.search(r"[\d})!%A-Za-z]$", before) and not means_something(content):
            text = before
        else:
            break
    text = re.sub(r"\s*\\%", "%", text)
    text = PERCENT_WORD.sub("%", text)
    multiplied = MULTIPLIED.match(text)
    if multiplied:
        number, word, rest = multiplied.groups()
        text = f"{number}*10^{MULTIPLIERS[word.lower()]}{rest}"
        if rest.strip() and not means_something(rest) and PROSE.fullmatch(rest.strip()):
            return f"{number}*10^{MULTIPLIERS[word.lower()]}"
        return text
    found = PLAIN_UNIT.search(text)
    if found and not PROSE_WORD.search(text[: found.start()]):
        words = re.findall(r"[A-Za-z]+", found["unit"])
        known = all(word in SHORT_UNITS for word in words)
        spelled = all(len(word) >= 3 or word in SHORT_UNITS or word in ("a", "of", "per") for word in words)
        wide = any(len(word) >= 3 for word in words)
        lone_letter = len(words) == 1 and len(words[0]) == 1
        if not means_something(found["unit"]) and (
            (known and (found["gap"] or not lone_letter)) or (found["gap"] and spelled and wide)
        ):
            text = text[: found.start()].rstrip()
    return text


def means_something(words: str) -> bool:
    """Would the answer be another one without these words?"""
    found = re.findall(r"[A-Za-z]+", words.lower())
    return (
        any(word in NOT_UNITS for word in found) or bool(re.search(r"[=<>\d]{2}|[=<>]", words)) or words in ("i", "e")
    )


# --- read -----------------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"\s+|\\begin\s*\{([A-Za-z]+\*?)\}(?:\s*\{[lcr| ]*\})?|\\end\s*\{[A-Za-z]+\*?\}"
    r"|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\w.]))?|\\[A-Za-z]+|\\\\|\\.|!=|<=|>=|==|\*\*|.",
    re.DOTALL,
)
RELATIONS = {
    "=": "=", "==": "=", "\\equiv": "=", "<": "<", "\\lt": "<", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=",
    "<=": "<=",
    ">": ">", "\\gt": ">", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", ">=": ">=", "\\ne": "!=", "\\neq": "!=",
    "!=": "!=", "\\approx": "~", "\\simeq": "~", "\\in": "in",
}  # fmt: skip
FUNCTIONS_TEXT = r"""
\sin \cos \tan \cot \sec \csc \arcsin \arccos \arctan \sinh \cosh \tanh \ln \log \lg \exp \gcd \max \min \Re
\Im \arg \det
"""
FUNCTIONS = frozenset(FUNCTIONS_TEXT.split())
GREEK_TEXT = r"""
\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \rho \sigma
\tau \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega \ell \hbar
"""
GREEK = frozenset(GREEK_TEXT.split())
ACCENTS_TEXT = r"""
\overline \vec \hat \bar \tilde \overrightarrow \widehat \mathbf \mathbb \mathcal
"""
ACCENTS = frozenset(ACCENTS_TEXT.split())
LABEL = re.compile(
    r"(?:[A-Za-z]|\\(?!pi\b)[A-Za-z]+|[A-Z][A-Za-z]+)'*(?:_\{?\w+\}?)?"  # x, x_1, AB, \theta
    r"|\\?[A-Za-z]'*(?:_\{?\w+\}?)?(?:\^\{?-1\}?)?\([^()]*\)"  # f(2), P(x)
    r"|\((?:[A-Za-z](?:_\{?\w+\}?)?,)+[A-Za-z](?:_\{?\w+\}?)?\)"  # (p,q)
    r"|(?:\\angle|\\triangle|\\overline|\\vec)\{?[A-Za-z]+\}?|\|?\\?[A-Z]{2,3}\|?"
    r"|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}|[A-Za-z]_\{?\w+\}?:[A-Za-z]_\{?\w+\}?|[A-Z]{1,2}:[A-Z]{1,2}|\\sum\w*"
)


def read(answer: str, percent: Literal["fraction", "unit"] = "fraction", gold: bool = False) -> list[Value]:
    """The readings of an answer, the likeliest first.

    There is a second one only where a comma can separate thousands or items: `(1,234)`. A bare `1,234` of the reference
    is a number.
    """
    text = tidy(answer)
    if not text:
        raise Unreadable("nothing but signs without meaning")
    prose = _as_prose(text)
    if prose is not None:
        return [Word(prose)]
    bracketed = bool(re.match(r"\\?[({\[]", text))
    thousands = WHOLE_THOUSANDS if bracketed else THOUSANDS
    joined = thousands.sub(lambda found: found.group().replace(",", ""), text)
    texts = [text] if joined == text else [text, joined] if bracketed else [joined] if gold else [joined, text]
    return [Reader(t, percent).answer() for t in texts]


def _as_prose(text: str) -> str | None:
    unwrapped = TEXT_ANYWHERE.sub(r"\1", text).strip(" .")
    letters = re.sub(r"[^A-Za-z]", "", unwrapped)
    if PROSE.fullmatch(unwrapped) and len(letters) >= 2:
        wrapped = TEXT_ANYWHERE.search(text) is not None
        words = unwrapped.split()
        if wrapped or len(letters) >= 4 or letters.lower() in ("yes", "no", "odd", "all", "two", "one", "six", "ten"):
            if len(words) > 1 and all(word in JOINING_WORDS or len(word) == 1 for word in words):
                return None
            return " ".join(unwrapped.casefold().split())
    words = [word for word in PROSE_WORD.findall(unwrapped) if word.lower() not in JOINING_WORDS]
    if len(words) >= 3 and not re.search(r"\\(?:begin|sum|int|lim|frac|sqrt)", text):
        return " ".join(unwrapped.casefold().split())
    return None


class Reader:
    """Recursive descent over one answer's tokens; `position` moves forward only, except to read a ± twice."""

    def __init__(self, text: str, percent: Literal["fraction", "unit"] = "fraction"):
        if DERIVATIVE.search(text):
            raise Unreadable("a derivative")
        self.tokens: list[str] = []
        text = JOINING.sub(",", TEXT_ANYWHERE.sub(_text_as_tokens, text))
        for found in TOKEN.finditer(text):
            token = found.group()
            if not token.isspace():
                if token[0].isdecimal() and len(token) > MOST_DIGITS:
                    raise TooLarge("too many digits")
                self.tokens.append(token)
        if len(self.tokens) > MOST_TOKENS:
            raise TooLarge("too many tokens")
        self.position = 0
        self.percent = percent
        self.algebra = Algebra()
        self.sign = 1  # which of ± is being read
        self.split_sign = False  # a ± was met
        self.bars = 0  # open absolute bars

    def answer(self) -> Value:
        value = self.items(until=None)
        if self.position < len(self.tokens):
            raise Unreadable(f"{self.tokens[self.position][:20]!r} where an expression ends")
        return value

    # tokens

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise Unreadable("the expression breaks off")
        self.position += 1
        return token

    def expect(self, wanted: str) -> None:
        if self.take() != wanted:
            raise Unreadable(f"{wanted!r} is missing")

    def source(self, start: int) -> str:
        """The tokens read since `start`, with spaces only where LaTeX needs them."""
        return join_tokens(self.tokens[start : self.position])

    # structure

    def items(self, until: str | None) -> Value:
        """Elements with separators between them; one alone is itself, several are Items."""
        found: list[Value] = []
        while True:
            found.extend(self.element())
            if len(found) > MOST_ITEMS:
                raise TooLarge("too many items")
            token = self.peek()
            if token in (",", ";"):
                while self.peek() in (",", ";"):
                    self.take()
                if self.peek() is None or self.peek() == until:
                    break
                continue
            break
        return found[0] if len(found) == 1 else Items(tuple(found), braces=False)

    def element(self) -> list[Value]:
        """One element, or the two that a ± stands for."""
        start, outer = self.position, self.split_sign
        self.split_sign = False
        values = [self.relation()]
        if self.split_sign and self.sign == 1:
            self.position, self.sign = start, -1
            values.append(self.relation())
            self.sign = 1
        self.split_sign = outer
        return values

    def relation(self) -> Value:
        start = self.position
        items, relations = [self.union()], []
        label = False
        while (token := self.peek()) in RELATIONS:
            if not relations:
                label = LABEL.fullmatch(self.source(start).replace(" ", "")) is not None
            self.take()
            relations.append(RELATIONS[token])
            items.append(self.union())
            if len(items) > MOST_ITEMS:
                raise TooLarge("too many relations")
        if not relations:
            return items[0]
        return Chain(tuple(items), tuple(relations), label)

    def union(self) -> Value:
        parts = [self.ratio()]
        while self.peek() == "\\cup":
            self.take()
            parts.append(self.ratio())
        return parts[0] if len(parts) == 1 else Union(tuple(parts))

    def ratio(self) -> Value:
        parts = [self.whole()]
        while self.peek() in (":", "\\colon"):
            self.take()
            parts.append(self.whole())
        return parts[0] if len(parts) == 1 else Bracket(":", tuple(parts), ":")

    def whole(self) -> Value:
        """A bracket with several items, a set, a matrix, or an expression."""
        start = self.position
        token = self.peek()
        if token == "\\{":
            self.take()
            return self.set_until("\\}")
        if token in ("\\emptyset", "\\varnothing"):
            self.take()
            return Items((), braces=True)
        if token is not None and token.startswith("\\begin"):
            return self.matrix()
        if token in ("(", "[", "\\langle", "{"):
            bracket = self.bracket()
            if bracket is not None:
                return bracket
            self.position = start + 1
            if token in ("(", "[") and (self.peek() or "").startswith("\\begin"):
                matrix = self.matrix()
                self.expect({"(": ")", "[": "]"}[token])
                return matrix
            self.position = start
        value = self.sum()
        based = None
        tokens = self.tokens[start : self.position]
        if len(tokens) >= 3 and tokens[0].isdecimal() and tokens[1] == "_":
            digits = "".join(tokens[2:]).strip("{}")
            if digits.isdecimal() and 2 <= int(digits[:4]) <= 36:
                based = (tokens[0], int(digits[:4]))
        return Expression(value, join_tokens(tokens), based)

    def set_until(self, closing: str) -> Items:
        if self.peek() == closing:
            self.take()
            return Items((), braces=True)
        inside = self.items(until=closing)
        self.expect(closing)
        return Items(inside.items if isinstance(inside, Items) and not inside.braces else (inside,), braces=True)

    def bracket(self) -> Value | None:
        """A tuple, interval or set in plain braces; None where the bracket only groups a factor of an expression."""
        opening = self.take()
        depth, commas, end = 1, 0, self.position
        while end < len(self.tokens) and depth:
            token = self.tokens[end]
            if token in ("(", "[", "{", "\\{", "\\langle"):
                depth += 1
            elif token in (")", "]", "}", "\\}", "\\rangle"):
                depth -= 1
            elif depth == 1 and token in (",", ";"):
                commas += 1
            end += 1
        if depth or not commas:
            return None
        if opening == "{":
            return self.set_until("}")
        inside = self.items(until=None)
        closing = self.take()
        if closing not in (")", "]", "\\rangle"):
            raise Unreadable("brackets that do not fit")
        items = inside.items if isinstance(inside, Items) and not inside.braces else (inside,)
        angle = {"\\langle": "(", "\\rangle": ")"}
        return Bracket(angle.get(opening, opening), items, angle.get(closing, closing))

    def matrix(self) -> Matrix:
        name = self.take()
        if "matrix" not in name and "array" not in name:
            raise Unreadable(f"{name[:30]} is not read here")
        rows: list[tuple[Value, ...]] = []
        row: list[Value] = []
        while True:
            row.append(self.relation())
            token = self.take()
            if token == "&":
                continue
            rows.append(tuple(row))
            row = []
            if len(rows) > MOST_ITEMS:
                raise TooLarge("too many rows")
            if token == "\\\\" and not (self.peek() or "").startswith("\\end"):
                continue
            if token == "\\\\":
                token = self.take()
            if not token.startswith("\\end"):
                raise Unreadable("a matrix that does not end")
            return Matrix(tuple(rows))

    # expressions

    def sum(self) -> Scalar:
        algebra = self.algebra
        total: Scalar | None = None
        while True:
            sign = 1
            signed = False
            while self.peek() in ("+", "-", "\\pm", "\\mp"):
                signed = True
                token = self.take()
                if token == "-":
                    sign = -sign
                elif token != "+":
                    self.split_sign = True
                    sign *= self.sign if token == "\\pm" else -self.sign
            if total is not None and not signed:
                return total
            term = self.product()
            if sign < 0:
                term = algebra.negate(term)
            total = term if total is None else algebra.add(total, term)

    def product(self, in_function: bool = False) -> Scalar:
        algebra = self.algebra
        value = self.factor()
        after_number = self.tokens[self.position - 1][0].isdecimal()
        while True:
            token = self.peek()
            if token in ("*", "\\cdot", "\\times", "\\ast", "/", "\\div"):
                self.take()
                sign = 1
                while self.peek() in ("-", "+"):
                    sign *= -1 if self.take() == "-" else 1
                right = self.factor()
                if sign < 0:
                    right = algebra.negate(right)
                value = algebra.divide(value, right) if token in ("/", "\\div") else algebra.multiply(value, right)
            elif self.starts_factor(token) and not (in_function and token in FUNCTIONS):
                if after_number and token[0].isdecimal():
                    raise Unreadable("two numbers side by side")
                value = algebra.multiply(value, self.factor())
            else:
                return value
            after_number = self.tokens[self.position - 1][0].isdecimal()

    def starts_factor(self, token: str | None) -> bool:
        if token is None:
            return False
        if token == "|":
            return self.bars == 0
        if token[0].isdecimal() or token[0] == ".":
            return True
        if token[0] == "\\":
            return token in FUNCTIONS or token in GREEK or token in ACCENTS or token in ATOMS
        return (len(token) == 1 and token.isalpha()) or token in ("(", "{", "[")

    def factor(self) -> Scalar:
        """An atom with its postfixes: powers, factorials, percent."""
        algebra = self.algebra
        value = self.atom()
        while True:
            token = self.peek()
            if token in ("^", "**"):
                self.take()
                value = algebra.power(value, self.exponent())
            elif token == "!":
                self.take()
                if self.peek() == "!":
                    raise Unreadable("a double factorial")
                value = algebra.factorial(value)
            elif token in ("%", "\\%"):
                self.take()
                if self.percent == "fraction":
                    value = algebra.divide(value, rational(100))
            else:
                return value

    def exponent(self) -> Scalar:
        sign = 1
        while self.peek() in ("-", "+"):
            sign *= -1 if self.take() == "-" else 1
        value = self.atom() if self.peek() != "{" else self.group("{", "}")
        while self.peek() in ("^", "**"):
            self.take()
            value = self.algebra.power(value, self.exponent())
        return value if sign > 0 else self.algebra.negate(value)

    def group(self, opening: str, closing: str) -> Scalar:
        self.expect(opening)
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.bars = bars
        self.expect(closing)
        return value

    def argument(self) -> Scalar:
        """A LaTeX argument: a group in braces, one digit of a number, or one token."""
        token = self.peek()
        if token == "{":
            return self.group("{", "}")
        if token is not None and token.isdecimal() and len(token) > 1:
            self.tokens[self.position : self.position + 1] = [token[0], token[1:]]
        return self.atom()

    def raw_group(self) -> str:
        """The text of a group or token that is not evaluated."""
        if self.peek() != "{":
            return self.take()
        self.take()
        start, depth = self.position, 1
        while depth:
            token = self.take()
            depth += {"{": 1, "}": -1}.get(token, 0)
        return join_tokens(self.tokens[start : self.position - 1])

    def atom(self) -> Scalar:
        token = self.take()
        if token[0].isdecimal() or (token[0] == "." and len(token) > 1):
            return self.number(token)
        if token in ("(", "[", "{"):
            self.position -= 1
            return self.group(token, {"(": ")", "[": "]", "{": "}"}[token])
        if len(token) == 1 and token.isalpha():
            return self.letter(token)
        if token == "|" or token == "\\lvert":
            return self.absolute("|" if token == "|" else "\\rvert")
        if token in FUNCTIONS:
            return self.function(token)
        if token in GREEK:
            return self.letter(token)
        if token in ACCENTS:
            return symbol(token + self.raw_group())
        reader = ATOMS.get(token)
        if reader is None:
            raise Unreadable(f"{token[:30]!r} is not read here")
        return reader(self)

    def number(self, token: str) -> Scalar:
        if "e" in token or "E" in token:
            mantissa, power = re.split("[eE]", token)
            if len(power) > 6:
                raise TooLarge("a power of ten of too many digits")
            return self.algebra.multiply(
                rational(Fraction(mantissa)), rational(self.algebra.rational_power(Fraction(10), int(power)))
            )
        value = Fraction(token) if "." in token else Fraction(int(token))
        following = self.peek()
        if following == "\\overline" and "." in token:
            self.take()
            repeated = self.raw_group()
            if not repeated.isdecimal():
                raise Unreadable("a bar over what are no digits")
            places = len(token) - token.index(".") - 1
            if places + len(repeated) > MOST_DIGITS:
                raise TooLarge("too many digits")
            value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**places)
        elif following == "_":
            self.take()
            base = self.raw_group()
            if not token.isdecimal() or not base.isdecimal() or not 2 <= int(base[:4]) <= 36:
                raise Unreadable("a subscript on a number that is no base")
            try:
                value = Fraction(int(token, int(base)))
            except ValueError:
                raise Unreadable(f"a digit beyond base {base}") from None
        return rational(value)

    def letter(self, token: str) -> Scalar:
        name = token
        if self.peek() == "_":
            self.take()
            name += "_" + self.raw_group().replace(" ", "")
        while self.peek() == "'":
            name += self.take()
        if name in ("f", "g", "h", "F", "G") and self.peek() == "(":
            self.position += 1
            inside = [self.sum()]
            while self.peek() == ",":
                self.take()
                inside.append(self.sum())
            self.expect(")")
            return self.algebra.opaque(name, *inside)
        return symbol("~i" if name == "i" else name)

    def absolute(self, closing: str) -> Scalar:
        self.bars += 1
        value = self.sum()
        self.expect(closing)
        self.bars -= 1
        number = as_rational(value)
        return rational(abs(number)) if number is not None else self.algebra.opaque("abs", value)

    def function(self, token: str) -> Scalar:
        name = token[1:]
        power: Scalar | None = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                name += "_" + self.raw_group()
            else:
                power = self.exponent()
        if power is not None and as_rational(power) == -1:
            raise Unreadable("an inverse function")
        if self.peek() in ("(", "[") and name.split("_")[0] in ("gcd", "max", "min"):
            raise Unreadable(f"{name} is not read here")
        if self.peek() in ("(", "[", "{"):
            opening = self.peek()
            value = self.group(opening, {"(": ")", "[": "]", "{": "}"}[opening])
        else:
            sign = 1
            while self.peek() == "-":
                self.take()
                sign = -sign
            value = self.product(in_function=True)
            value = value if sign > 0 else self.algebra.negate(value)
        result = self.algebra.power(symbol("e"), value) if name == "exp" else self.algebra.opaque(name, value)
        return result if power is None else self.algebra.power(result, power)

    def fraction(self) -> Scalar:
        numerator = self.argument()
        return self.algebra.divide(numerator, self.argument())

    def square_root(self) -> Scalar:
        degree = 2
        if self.peek() == "[":
            number = as_rational(self.group("[", "]"))
            if number is None or number.denominator != 1 or not 2 <= number <= 64:
                raise Unreadable("a root whose degree is no small number")
            degree = int(number)
        return self.algebra.root(self.argument() if self.peek() != "(" else self.group("(", ")"), degree)

    def binomial(self) -> Scalar:
        upper = self.argument()
        return self.algebra.binomial(upper, self.argument())

    def rounded(self, closing: str) -> Scalar:
        value = self.sum()
        self.expect(closing)
        number = as_rational(value)
        if number is None:
            return self.algebra.opaque(closing[1:], value)
        return rational(number.__floor__() if closing == "\\rfloor" else number.__ceil__())


ATOMS = {
    "\\frac": Reader.fraction,
    "\\sqrt": Reader.square_root,
    "\\binom": Reader.binomial,
    "\\dbinom": Reader.binomial,
    "\\tbinom": Reader.binomial,
    "\\pi": lambda reader: symbol("pi"),
    "\\infty": lambda reader: symbol("oo"),
    "\\lfloor": lambda reader: reader.rounded("\\rfloor"),
    "\\lceil": lambda reader: reader.rounded("\\rceil"),
    "\\lvert": lambda reader: reader.absolute("\\rvert"),
}


def _text_as_tokens(found: re.Match[str]) -> str:
    """`\\text{ and }` separates; a single letter is a symbol; other words inside a formula are not read."""
    content = found.group(1).strip()
    if content.lower() in JOINING_WORDS:
        return ","
    return f" {content} " if len(content) <= 1 or re.fullmatch(r"\([A-Za-z]\)", content) else "\\unreadable "


def join_tokens(tokens: list[str]) -> str:
    parts = []
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        parts.append(token)
        if token[0] == "\\" and token[-1:].isalpha() and following[:1].isalpha():
            parts.append(" ")
    return "".join(parts)
