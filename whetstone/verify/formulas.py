r"""Formulas in LaTeX or plain text -> terms: the lower half of the grammar in `reading.py`.

    sum        ["+" | "-" | "\pm"] product {("+" | "-" | "\pm") product}
    product    factor {["*" | "/"] factor}              factors may stand side by side, two numbers may not
    factor     atom {"^" exponent | "!" | "%" | degree}
    atom       number | letter | function | "\frac" … | "|" sum "|" | "(" sum ")" | matrix
"""

import re
from fractions import Fraction
from math import gcd, lcm
from typing import Literal

from whetstone.verify.exact import TooLarge, Unreadable, as_rational
from whetstone.verify.marks import FUNCTION_NAMES
from whetstone.verify.terms import Term, has_matrix, number, product, value_of, walk
from whetstone.verify.tokens import BASED, MOST_DIGITS, WORD, lex
from whetstone.verify.units import CARDINALS, Unit, known

MOST_FACTORS = 1_000
DERIVATIVE = re.compile(r"\\frac\s*\{\s*d\s*\}\s*\{\s*d\s*\\?[A-Za-z]+\s*\}")
FUNCTIONS = frozenset("\\" + name for name in FUNCTION_NAMES)
ANGLED = frozenset("sin cos tan cot sec csc".split())
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
SEVERAL = frozenset("gcd lcm max min".split())
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
CALLS = frozenset("f g h F G O o \\Theta \\Omega".split())
LETTER_UNITS = frozenset("m g s h l L N J W V A K".split())
CURRENCY = {"\\$": "dollar", "€": "euro", "£": "pound-sterling", "¥": "yen", "₹": "rupee"}
BRACKETS = {"(": ")", "[": "]", "{": "}"}
MATRICES = ("matrix", "array")


class Formulas:
    """The tokens of one text, where reading stands, and the grammar's lower half."""

    def __init__(
        self, text: str, percent: Literal["fraction", "unit"] = "fraction", products: frozenset[str] = frozenset()
    ):
        if DERIVATIVE.search(text):
            raise Unreadable("a derivative")
        self.tokens, self.gaps = lex(text)
        self.position = 0
        self.percent = percent
        self.products = products
        self.sign = 1  # which of \pm is being read
        self.split_sign = False  # a \pm was met
        self.bars = 0  # open absolute bars
        self.angles = 0  # open arguments in which a degree is pi/180
        self.matrices = False  # one was met
        self.degrees = False  # a degree sign was met elsewhere
        self.currency: Unit | None = None
        self.began = 0  # the first token of the quantity that is read

    # tokens

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def ahead(self, steps: int) -> str:
        place = self.position + steps
        return self.tokens[place] if place < len(self.tokens) else ""

    def word(self) -> str | None:
        token = self.peek()
        return token[1:] if token is not None and token[0] == WORD else None

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

    def letter_is_unit(self, place: int) -> bool:
        """Is the letter there a unit: `12 m`, `9.8 m/s^2`? With a space before it, a number before that, and no other letter."""
        if self.tokens[place] not in LETTER_UNITS or not self.gaps[place] or place == self.began:
            return False
        before = self.tokens[self.began : place]
        if any(token.isalpha() or token in ("+", "=") for token in before) or "-" in before[1:]:
            return False
        for token in self.tokens[place:]:
            if token in (",", ";", ")", "]", "\\}", "=", "<", ">") or token[0] == WORD:
                break
            if not (token in LETTER_UNITS or token in "/*^{}-" or token == "\\cdot" or token.isdecimal()):
                return False
        return True

    # sums and products

    def sum(self) -> Term:
        self.began = self.position
        terms: list[Term] = []
        while True:
            sign, signed = 1, False
            while (token := self.peek()) in ("+", "-", "\\pm", "\\mp") or (self.word() in ("negative", "minus", "plus")):
                signed = True
                self.position += 1
                if token in ("-", WORD + "negative", WORD + "minus"):
                    sign = -sign
                elif token in ("\\pm", "\\mp"):
                    self.split_sign = True
                    sign *= self.sign if token == "\\pm" else -self.sign
            if terms and not signed:
                return terms[0] if len(terms) == 1 else ("+", *terms)
            term = self.product()
            terms.append(term if sign > 0 else negative(term))
            if len(terms) > MOST_FACTORS:
                raise TooLarge("a long sum")

    def product(self, in_function: bool = False) -> Term:
        factors = [self.factor()]
        while True:
            token = self.peek()
            if token in ("*", "\\cdot", "\\times", "\\ast", "/", "\\div"):
                if self.ahead(1)[:1] == WORD and self.ahead(1)[1:] not in CARDINALS:
                    break
                self.take()
                sign = 1
                while self.peek() in ("-", "+"):
                    sign *= -1 if self.take() == "-" else 1
                right = self.factor()
                right = right if sign > 0 else negative(right)
                if token in ("/", "\\div"):
                    self.divide(factors, right)
                else:
                    factors.append(right)
            elif self.starts_factor(token) and not (in_function and token in FUNCTIONS):
                if self.is_number_ended() and token[0].isdecimal():
                    self.mixed_number(factors)
                elif token in LETTER_UNITS and self.letter_is_unit(self.position):
                    break
                else:
                    factors.append(self.factor())
            else:
                break
            if len(factors) > MOST_FACTORS:
                raise TooLarge("a long product")
        return product(factors)

    def is_number_ended(self) -> bool:
        last = self.tokens[self.position - 1]
        return last[0].isdecimal() or last[0] == BASED

    @staticmethod
    def divide(factors: list[Term], right: Term) -> None:
        last = factors[-1]
        if last[0] == "n" and right[0] == "n" and right[1]:
            factors[-1] = number(last[1] / right[1])
        else:
            factors.append(("i", right))

    def mixed_number(self, factors: list[Term]) -> None:
        r"""`11 5/6`: the fraction is proper, and nothing but the whole number stands before it."""
        whole, upper, slash, lower = (self.ahead(k) for k in (-1, 0, 1, 2))
        plain = all(part.isdecimal() for part in (whole, upper, lower)) and slash == "/"
        if not plain or int(upper) >= int(lower) or not self.gaps[self.position] or len(factors) != 1:
            raise Unreadable("two numbers side by side")
        if factors[0] != number(int(whole)):
            raise Unreadable("a number before a mixed number")
        self.position += 3
        factors[0] = number(int(whole) + Fraction(int(upper), int(lower)))
        if self.peek() in ("%", "\\%"):
            factors[0] = self.postfixed(factors[0])

    def starts_factor(self, token: str | None) -> bool:
        if token is None:
            return False
        if token == "|":
            return self.bars == 0
        if token == "(" and self.ahead(1)[:1] == WORD and len(self.ahead(1)) > 2:
            return False  # a remark
        first = token[0]
        if first.isdecimal() or (first == "." and len(token) > 1) or first == BASED:
            return True
        if first == "\\":
            return token in FUNCTIONS or token in GREEK or token in ACCENTS or token in ATOMS or token in FIGURES or (
                token.startswith("\\begin") and any(kind in token for kind in MATRICES)
            )
        return (len(token) == 1 and token.isalpha()) or token in BRACKETS

    def factor(self) -> Term:
        """An atom with its postfixes: powers, factorials, percent, degrees."""
        return self.postfixed(self.atom())

    def postfixed(self, value: Term) -> Term:
        while True:
            token = self.peek()
            if token == "^":
                self.take()
                if self.matrices and has_matrix(value) and self.exponent_is_transpose():
                    value = ("f", "transpose", value)
                else:
                    value = ("^", value, self.exponent())
            elif token == "!":
                self.take()
                if self.peek() == "!":
                    raise Unreadable("a double factorial")
                value = ("f", "factorial", value)
            elif token in ("%", "\\%"):
                self.take()
                if self.percent == "fraction":
                    value = ("*", value, number(Fraction(1, 100))) if value[0] != "n" else number(value[1] / 100)
            elif token == "\\degree":
                self.take()
                if self.angles:
                    value = ("*", value, number(Fraction(1, 180)), ("s", "pi"))
                else:
                    self.degrees = True
            else:
                return value

    def exponent_is_transpose(self) -> bool:
        for form in (["T"], ["\\top"], ["{", "T", "}"], ["{", "\\top", "}"], [WORD + "T"], ["{", WORD + "T", "}"]):
            if self.tokens[self.position : self.position + len(form)] == form:
                self.position += len(form)
                return True
        return False

    def exponent(self) -> Term:
        sign = 1
        while self.peek() in ("-", "+"):
            sign *= -1 if self.take() == "-" else 1
        self.angles += 1
        value = self.atom() if self.peek() != "{" else self.group("{")
        self.angles -= 1
        while self.peek() == "^":
            self.take()
            value = ("^", value, self.exponent())
        return value if sign > 0 else negative(value)

    # atoms

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
            if unit is not None and unit.powers.keys() & {"cent", "euro", "yen", "rupee"} and self.ahead(0)[:1].isdecimal():
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
        if dotted and self.tokens[self.position : self.position + 1] and self.ahead(0).isdecimal() and self.ahead(1) == "\\dot":
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
    "\\frac": Formulas.fraction,
    "\\sqrt": Formulas.square_root,
    "\\cbrt": lambda reader: ("r", reader.argument() if reader.peek() != "(" else reader.group("("), 3),
    "\\binom": Formulas.binomial,
    "\\dbinom": Formulas.binomial,
    "\\tbinom": Formulas.binomial,
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


def join_tokens(tokens: list[str]) -> str:
    if len(tokens) == 1 and tokens[0].isalnum():
        return tokens[0]
    parts = []
    for token, following in zip(tokens, [*tokens[1:], ""], strict=False):
        parts.append(f"\\text{{{token[1:]}}}" if token[0] == WORD else token[1:].replace("_", "_{") + "}" if token[0] == BASED else token)
        if (token[0] == "\\" and token[-1:].isalpha() and following[:1].isalpha()) or (
            token[-1:].isdecimal() and following[:1].isdecimal()
        ):
            parts.append(" ")
    return "".join(parts)
