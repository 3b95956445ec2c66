r"""Atoms of formulas: numbers, letters, functions, fractions, roots, absolute values, groups and matrices.

atom       number | letter | function | "\frac" … | "|" sum "|" | "(" sum ")" | matrix
"""

import re
from fractions import Fraction
from math import gcd, lcm

from whetstone.verify.answers.cursor import Cursor, join_tokens
from whetstone.verify.answers.marks import FUNCTION_NAMES
from whetstone.verify.answers.terms import Term, has_matrix, number, value_of
from whetstone.verify.answers.tokens import BASED, MOST_DIGITS, WORD
from whetstone.verify.answers.units import CARDINALS, known
from whetstone.verify.exact import TooLarge, Unreadable, as_rational

FUNCTIONS = frozenset("\\" + name for name in FUNCTION_NAMES)
ANGLED_TEXT = "sin cos tan cot sec csc"
ANGLED = frozenset(ANGLED_TEXT.split())
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
SEVERAL_TEXT = "gcd lcm max min"
SEVERAL = frozenset(SEVERAL_TEXT.split())
GREEK_TEXT = r"""
\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda \mu \nu \xi \rho \sigma
\tau \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega \Xi \Pi \ell \hbar
"""
GREEK = frozenset(GREEK_TEXT.split())
ACCENTS_TEXT = r"""
\overline \vec \hat \bar \tilde \overrightarrow \widehat \mathbb \mathcal \dot \ddot \overleftrightarrow \overset
"""
ACCENTS = frozenset(ACCENTS_TEXT.split())
FIGURES = frozenset(("\\angle", "\\triangle", "\\square", "\\odot"))
OPERATORS = frozenset(("\\neg", "\\lnot", "\\nabla", "\\partial"))
CALLS = frozenset(["f", "g", "h", "F", "G", "O", "o", "\\Theta", "\\Omega"])
CURRENCY = {"\\$": "dollar", "€": "euro", "£": "pound-sterling", "¥": "yen", "₹": "rupee"}
BRACKETS = {"(": ")", "[": "]", "{": "}"}
MATRICES = ("matrix", "array")


class Atoms(Cursor):
    """What a factor begins with."""

    def group(self, opening: str) -> Term:
        self.expect(opening)
        bars, began, self.bars = self.bars, self.began, 0
        value = self.sum()
        if opening == "{" and self.peek() in ("\\over", "\\choose"):
            name = self.take()
            below = self.sum()
            value = quotient(value, below) if name == "\\over" else ("f", "binomial", value, below)
        self.bars, self.began = bars, began
        self.expect(BRACKETS[opening])
        return value

    def argument(self) -> Term:
        """A LaTeX argument: a group in braces, one digit of a number, or one token."""
        token = self.peek()
        if token == "{":
            return self.group("{")
        if token is not None and token.isdecimal() and len(token) > 1:
            self.tokens[self.position : self.position + 1] = [token[0], token[1:]]
            self.gaps[self.position : self.position + 1] = [False, False]
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

    def atom(self) -> Term:
        token = self.take()
        first = token[0]
        if first.isdecimal() or (first == "." and len(token) > 1):
            return self.number(token)
        if token in BRACKETS:
            self.position -= 1
            return self.group(token)
        if len(token) == 1 and token.isalpha():
            return self.letter(token)
        if first == BASED:
            digits, base = token[1:].split("_")
            return number(int(digits, int(base)))
        if first == WORD:
            return self.spelled(token[1:])
        if token in ("|", "\\lvert", "\\vert"):
            return self.absolute({"|": "|", "\\vert": "\\vert"}.get(token, "\\rvert"))
        if token in FUNCTIONS:
            return self.function(token)
        if token in GREEK:
            return self.letter(token)
        if token in ACCENTS:
            return "s", token + "{" + self.raw_group().replace(" ", "") + "}"
        if token in FIGURES:
            return "s", token + self.corners()
        if token in OPERATORS:
            return "f", token, self.factor()
        if token in CURRENCY:
            self.currency = known(CURRENCY[token])
            return negative(self.factor()) if self.peek() == "-" and self.take() else self.factor()
        if token.startswith("\\begin") and any(kind in token for kind in MATRICES):
            return self.matrix(token)
        reader = ATOMS.get(token)
        if reader is None:
            raise Unreadable(f"{token[:30]!r} is not read here")
        return reader(self)

    def spelled(self, word: str) -> Term:
        """A number in words, a letter of text, or the name of a currency."""
        if len(word) == 1:
            return self.letter(word)
        value = CARDINALS.get(word.casefold())
        if value is None:
            unit = known(word)
            if (
                unit is not None
                and unit.powers.keys() & {"cent", "euro", "yen", "rupee"}
                and self.ahead(0)[:1].isdecimal()
            ):
                self.currency = unit
                return self.factor()
            raise Unreadable(f"the word {word[:30]!r} is no number")
        ones = CARDINALS.get(self.ahead(1)[1:], 0) if self.peek() == "-" else 0
        if value >= 20 and 0 < ones < 10:
            self.position += 2
            value += ones
        return number(value)

    def corners(self) -> str:
        """The letters of a triangle or angle."""
        if self.peek() == "{":
            return self.raw_group()
        start = self.position
        while (token := self.peek()) is not None and len(token) == 1 and token.isalpha():
            self.position += 1
        return self.source(start)

    def number(self, token: str) -> Term:
        if "e" in token or "E" in token:
            mantissa, power = re.split("[eE]", token)
            if len(power) > 6:
                raise TooLarge("a power of ten of too many digits")
            return "*", number(Fraction(mantissa)), ("^", number(10), number(int(power)))
        value = Fraction(token) if "." in token else Fraction(int(token))
        following = self.peek()
        if following in ("\\overline", "\\bar", "\\dot") and "." in token:
            return number(value + self.repeated(token))
        if following == "\\ldots" and "." in token:
            self.take()
            return number(repeating(token))
        if following == "\\frac" and "." not in token and self.is_small_fraction():
            self.take()
            upper, lower = self.argument(), self.argument()
            proper = 0 <= upper[1] < lower[1]
            return number(value + upper[1] / lower[1]) if proper else ("*", number(value), quotient(upper, lower))
        if following == "_":
            raise Unreadable("a subscript on a number that is no base")
        return number(value)

    def is_small_fraction(self) -> bool:
        """Does `\\frac` with two natural numbers follow?"""
        text = "".join(self.tokens[self.position + 1 : self.position + 7])
        return re.match(r"\{\d+\}\{\d*[1-9]\d*\}|\{\d+\}[1-9]|\d[1-9]|\d\{\d*[1-9]\d*\}", text) is not None

    def repeated(self, token: str) -> Fraction:
        r"""The rest of `0.1\overline{6}`, or of `0.\dot{1}4\dot{2}`."""
        dotted = self.take() == "\\dot"
        digits = self.raw_group()
        if (
            dotted
            and self.tokens[self.position : self.position + 1]
            and self.ahead(0).isdecimal()
            and self.ahead(1) == "\\dot"
        ):
            digits += self.take()
        if dotted and self.peek() == "\\dot":
            self.take()
            digits += self.raw_group()
        if not digits.isdecimal():
            raise Unreadable("a bar over what are no digits")
        places = len(token) - token.index(".") - 1
        if places + len(digits) > MOST_DIGITS:
            raise TooLarge("too many digits")
        return Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)

    def letter(self, token: str) -> Term:
        name = token
        if self.peek() == "_":
            self.take()
            name += "_" + self.raw_group().replace(" ", "").replace(WORD, "")
        while self.peek() == "'":
            name += self.take()
        of_number = self.ahead(1).isdecimal() and self.ahead(2) == ")"
        if self.peek() == "(" and name not in self.products and (of_number or name.rstrip("'") in CALLS):
            self.position += 1
            inside = [self.sum()]
            while self.peek() == ",":
                self.take()
                inside.append(self.sum())
            self.expect(")")
            return ("f", "call " + name, *inside)
        return "s", "~i" if name == "i" else name

    def absolute(self, closing: str) -> Term:
        self.bars += 1
        value = self.sum()
        self.expect(closing)
        self.bars -= 1
        return "f", "det" if has_matrix(value) else "abs", value

    def function(self, token: str) -> Term:
        name = token[1:]
        power: Term | None = None
        base: list[Term] = []
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = [self.argument()]
            else:
                power = self.exponent()
        if base and name != "log":
            raise Unreadable("a function with a subscript")
        if power == number(-1):
            if name not in INVERSE:
                raise Unreadable("an inverse function")
            name, power = INVERSE[name], None
        self.angles += name in ANGLED
        inside = self.inside()
        self.angles -= name in ANGLED
        if name in SEVERAL:
            value = several(name, inside)
        elif name in ("det", "tr") and not has_matrix(inside[0]):
            raise Unreadable(f"{name} of no matrix")
        elif len(inside) != 1:
            raise Unreadable("a function of several values")
        else:
            value = ("^", ("s", "e"), *inside) if name == "exp" else ("f", name, *inside, *base)
        return value if power is None else ("^", value, power)

    def inside(self) -> list[Term]:
        """The arguments of a function, in brackets or without."""
        opening = self.peek()
        if opening in BRACKETS:
            self.take()
            bars, self.bars = self.bars, 0
            found = [self.sum()]
            while self.peek() == ",":
                self.take()
                found.append(self.sum())
            self.bars = bars
            self.expect(BRACKETS[opening])
            return found
        sign = 1
        while self.peek() == "-":
            self.take()
            sign = -sign
        value = self.product(in_function=True)
        return [value if sign > 0 else negative(value)]

    def fraction(self) -> Term:
        if self.peek() == "(":  # frac(1)(2), frac(1, 2)
            found = self.inside()
            return quotient(*(found if len(found) == 2 else [*found, *self.inside()]))
        numerator = self.argument()
        return quotient(numerator, self.argument())

    def square_root(self) -> Term:
        degree = 2
        if self.peek() == "[":
            found = as_rational(value_of(self.group("[")))
            if found is None or found.denominator != 1 or not 2 <= found <= 64:
                raise Unreadable("a root whose degree is no small number")
            degree = int(found)
        return "r", self.argument() if self.peek() != "(" else self.group("("), degree

    def binomial(self) -> Term:
        if self.peek() == "(":
            return ("f", "binomial", *self.inside())
        upper = self.argument()
        return "f", "binomial", upper, self.argument()

    def rounded(self, closing: str) -> Term:
        value = self.sum()
        self.expect(closing)
        found = as_rational(value_of(value))
        if found is None:
            return "f", "floor" if closing == "\\rfloor" else "ceil", value
        return number(found.__floor__() if closing == "\\rfloor" else found.__ceil__())

    def matrix(self, begin: str) -> Term:
        self.matrices = True
        rows: list[tuple[Term, ...]] = []
        row: list[Term] = []
        while True:
            row.append(self.sum())
            token = self.take()
            if token == "&":
                continue
            rows.append(tuple(row))
            row = []
            while token == "\\\\" and (self.peek() in ("\\\\", "\\hline")):
                self.take()
            if token == "\\\\" and (self.peek() or "").startswith("\\end"):
                token = self.take()
            if token.startswith("\\end"):
                break
            if token != "\\\\" or len(rows) > 100:
                raise Unreadable("a matrix that does not end")
        if len({len(each) for each in rows}) != 1:
            raise Unreadable("rows of different lengths")
        grid: Term = ("m", tuple(rows))
        return ("f", "det", grid) if "vmatrix" in begin else grid


ATOMS = {
    "\\frac": Atoms.fraction,
    "\\sqrt": Atoms.square_root,
    "\\cbrt": lambda reader: ("r", reader.argument() if reader.peek() != "(" else reader.group("("), 3),
    "\\binom": Atoms.binomial,
    "\\dbinom": Atoms.binomial,
    "\\tbinom": Atoms.binomial,
    "\\pi": lambda reader: ("s", "pi"),
    "\\infty": lambda reader: ("s", "oo"),
    "\\lfloor": lambda reader: reader.rounded("\\rfloor"),
    "\\lceil": lambda reader: reader.rounded("\\rceil"),
    "\\lvert": lambda reader: reader.absolute("\\rvert"),
    "\\vert": lambda reader: reader.absolute("\\vert"),
}
for _name in FIGURES | OPERATORS:
    ATOMS.setdefault(_name, None)  # type: ignore[arg-type]


def negative(term: Term) -> Term:
    return number(-term[1]) if term[0] == "n" else ("-", term)


def quotient(above: Term, below: Term) -> Term:
    if above[0] == "n" and below[0] == "n" and below[1]:
        return number(above[1] / below[1])
    return "*", above, ("i", below)


def several(name: str, values: list[Term]) -> Term:
    """gcd, lcm, max and min: of rational numbers at once."""
    numbers = [as_rational(value_of(value)) for value in values]
    if None in numbers:
        return ("f", name, *sorted(values, key=repr))
    if name in ("gcd", "lcm"):
        below = lcm(*(n.denominator for n in numbers))
        whole = gcd if name == "gcd" else lcm
        return number(Fraction(whole(*(int(n * below) for n in numbers)), below))
    return number(max(numbers) if name == "max" else min(numbers))


def repeating(token: str) -> Fraction:
    """0.1666… whose last digits repeat: at least three digits, and a period twice. Others have no value."""
    digits = token.partition(".")[2]
    for period in range(1, len(digits) // 2 + 1):
        times = 1
        tail = digits[-period:]
        while digits.endswith(tail * (times + 1)):
            times += 1
        if times >= 2 and times * period >= 3:
            start = len(digits) - times * period
            value = Fraction(int(token.partition(".")[0] or 0)) + Fraction(int(digits[:start] or 0), 10**start)
            return value + Fraction(int(tail), (10**period - 1) * 10**start)
    raise Unreadable("dots after digits that do not repeat")
