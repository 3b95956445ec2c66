r"""Formulas in LaTeX or plain text -> terms: the lower half of the grammar in `reading.py`.

sum        ["+" | "-" | "\pm"] product {("+" | "-" | "\pm") product}
product    factor {["*" | "/"] factor}              factors may stand side by side, two numbers may not
factor     atom {"^" exponent | "!" | "%" | degree}
"""

from fractions import Fraction
from math import prod

from whetstone.verify.answers.atoms import (
    ACCENTS,
    ATOMS,
    BRACKETS,
    FIGURES,
    FUNCTIONS,
    GREEK,
    MATRICES,
    Atoms,
    negative,
)
from whetstone.verify.answers.terms import Term, has_matrix, number, product
from whetstone.verify.answers.tokens import BASED, WORD
from whetstone.verify.answers.units import CARDINALS
from whetstone.verify.exact import TooLarge, Unreadable

MOST_FACTORS = 1_000
LARGEST_DOUBLE_FACTORIAL = 100
LETTER_UNITS = frozenset("mgshlLNJWVAK")


class Formulas(Atoms):
    """Sums, products and powers."""

    def letter_is_unit(self, place: int) -> bool:
        """Is the letter there a unit: `12 m`, `9.8 m/s^2`? There are a space and a number before it, and no other letter."""
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

    def sum(self) -> Term:
        self.began = self.position
        terms: list[Term] = []
        while True:
            sign, signed = 1, False
            while (token := self.peek()) in ("+", "-", "\\pm", "\\mp") or (
                self.word() in ("negative", "minus", "plus")
            ):
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
                token = self.take()
                sign = 1
                while self.peek() in ("-", "+"):
                    sign *= -1 if self.take() == "-" else 1
                right = self.factor()
                right = right if sign > 0 else negative(right)
                if token == "\\times" and is_vector(right) and is_vector(factors[-1]):
                    factors[-1] = ("f", "cross", factors[-1], right)
                elif token in ("/", "\\div"):
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
            return (
                token in FUNCTIONS
                or token in GREEK
                or token in ACCENTS
                or token in ATOMS
                or token in FIGURES
                or (token.startswith("\\begin") and any(kind in token for kind in MATRICES))
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
                    self.take()
                    value = double_factorial(value)
                else:
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


def double_factorial(term: Term) -> Term:
    """5!! is 5 * 3 * 1."""
    if term[0] != "n" or term[1].denominator != 1 or not 0 <= term[1] <= LARGEST_DOUBLE_FACTORIAL:
        raise Unreadable("a double factorial of no small number")
    return number(prod(range(int(term[1]), 0, -2)))


def is_vector(term: Term) -> bool:
    return (term[0] == "s" and term[1].startswith(("\\vec", "\\overrightarrow"))) or term[:2] == ("f", "cross")
