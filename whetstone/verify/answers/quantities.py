"""Numbers and formulas with currency, unit, or words that multiply them.

quantity   [currency] sum [unit]
"""

import re
from fractions import Fraction

from whetstone.verify.answers.cursor import RELATIONS
from whetstone.verify.answers.forms import Expression, Matrix, Value
from whetstone.verify.answers.formulas import Formulas
from whetstone.verify.answers.terms import Term, grid, has_matrix, names, number, value_of, walk
from whetstone.verify.answers.tokens import BASED, JOINING, WORD
from whetstone.verify.answers.units import GENERIC, NO_UNIT, PERCENT, Unit, known, measure, multipliers
from whetstone.verify.elementary import Elementary

CURRENCY = {"\\$": "dollar", "€": "euro", "£": "pound-sterling", "¥": "yen", "₹": "rupee", "¢": "cent"}


class Quantities(Formulas):
    """Formulas with what measures them."""

    def quantity(self) -> Value:
        """A formula with its currency and unit, or a matrix."""
        start = self.position
        self.currency, self.degrees = None, False
        term = self.sum()
        if term[0] == "m":
            return Matrix(tuple(tuple(Expression(e, value_of(e), "") for e in row) for row in term[1]))
        if self.matrices and has_matrix(term):
            value = grid(term, Elementary())
            if isinstance(value, list):
                return Matrix(tuple(tuple(Expression((), entry, "") for entry in row) for row in value))
            return Expression(term, value, self.source(start))
        tokens = self.tokens[start : self.position]
        based = None
        if len(tokens) == 1 and tokens[0].startswith(BASED):
            digits, base = tokens[0][1:].split("_")
            based = digits, int(base)
        text = self.source(start)
        term, unit = self.with_unit(term, self.currency)
        if self.degrees and unit is None and not names(term):
            unit = Unit(Fraction(1), {"deg": 1})
        return Expression(simple(term), value_of(term), text, unit, based)

    def with_unit(self, term: Term, unit: Unit | None) -> tuple[Term, Unit | None]:
        """The term with the words after it that multiply or measure it; words that say something else are left there."""
        if self.position == len(self.tokens):
            return term, unit
        if self.peek() in CURRENCY:
            return term, known(CURRENCY[self.take()])
        start = self.position
        words = self.unit_words()
        if not words:
            return term, unit
        found = multiplied(term, words, self.percent, self.gaps[start])
        spelled_zero = term == number(0) and self.tokens[start - 1][0] == WORD
        countable = any(part[0] == "n" for part in walk(term)) and not spelled_zero  # not RC oscillators, zero growth
        if found is not None and (self.at_end() or self.peek() in RELATIONS or self.peek() in (":", "^", "+")):
            whole, rest = found
            measured = measure(rest) if rest else unit or NO_UNIT
            counted = measured is not None and any(
                known(name) is None and name not in ("deg", GENERIC) for name in measured.powers
            )
            if measured is not None and (countable or not (counted or not measured.powers)):
                return whole, measured if measured.powers else unit
        self.position = start
        return term, unit

    def unit_words(self) -> list[str]:
        """The words from here on, with "/" and powers: `m / s^2` gives m, /, s^2."""
        words: list[str] = []
        bracket = self.peek() == "(" and self.ahead(1)[:1] == WORD
        self.position += bracket
        while True:
            token, start = self.peek(), self.position
            if self.word() is not None and (self.word() not in JOINING):
                words.append(self.word())
            elif token in ("/", "*", "\\cdot") and (self.ahead(1)[:1] == WORD or (known(self.ahead(1)) and words)):
                words.extend("/" if token == "/" else "")
            elif token == "/" and words and self.ahead(1) == "(" and (below := self.units_below()):
                words.extend(below)
            elif token is not None and len(token) == 1 and known(token) and (words or self.lone_unit()):
                words.append(token)
            elif token == "." and words:
                pass  # sq. ft
            elif token == "\\degree" and not words:
                words.append("deg")
            elif token == "^" and words and (power := self.plain_power()) is not None:
                words[-1] += f"^{power}"
                self.position -= 1
            else:
                break
            self.position += 1
            if self.position <= start:
                break
        if bracket and self.peek() == ")":
            self.position += 1
        return words

    def units_below(self) -> list[str]:
        """The units of `/(kg K)`, each with its "/"; nothing is taken where there are others in the brackets."""
        start, found = self.position, []
        self.position += 2
        while (token := self.peek()) not in (None, ")"):
            name = self.word() or token
            if token not in ("*", "\\cdot"):
                found.extend(["/", name] if known(name) else ["?"])
            self.position += 1
        if token is None or "?" in found:
            self.position = start
            return []
        return found

    def lone_unit(self) -> bool:
        """Is the letter here a unit: after a space and a number, with nothing but a unit to the end?"""
        return self.gaps[self.position] and self.letter_is_unit(self.position)

    def plain_power(self) -> int | None:
        """The integer after `^`, which is taken with it."""
        found = re.match(
            r"\^ ?\{? ?(-?) ?(\d)\}?(?!\d)", " ".join(self.tokens[self.position : self.position + 5]).replace("} ", "}")
        )
        if found is None:
            return None
        self.position += 2 + len(found[1]) + 2 * ("{" in found[0])
        return int(found[1] + found[2])


def simple(term: Term) -> Term:
    """A negative number as one number."""
    return number(-term[1][1]) if term[0] == "-" and term[1][0] == "n" else term


def multiplied(term: Term, words: list[str], percent: str, gap: bool) -> tuple[Term, list[str]] | None:
    """The term times the words that count (dozen, million, sevenths, percent), and the other words."""
    rest = list(words)
    if rest[0] in ("K", "k", "M", "B") and not gap:
        return ("*", term, number(10 ** {"k": 3, "m": 6, "b": 9}[rest.pop(0).lower()])), rest
    while rest:
        word = rest[0].casefold().strip(".")
        two = " ".join(rest[:2]).casefold()
        if word in PERCENT or two in PERCENT:
            rest = rest[2 if two in PERCENT else 1 :]
            term = term if percent == "unit" else ("*", term, number(Fraction(1, 100)))
        elif two in ("per thousand", "per mille", "per mil"):
            rest, term = rest[2:], ("*", term, number(Fraction(1, 1000)))
        elif two in ("basis points", "basis point"):
            rest, term = rest[2:], ("*", term, number(Fraction(1, 10_000)))
        elif word in ("squared", "cubed") and rest[1:2] not in (["units"], ["unit"]):
            rest, term = rest[1:], ("^", term, number(2 if word == "squared" else 3))
        elif word == "factorial":
            rest, term = rest[1:], ("f", "factorial", term)
        elif word in multipliers() and rest[0] != "K":  # kelvin
            rest, term = rest[1:], ("*", term, number(multipliers()[word]))
            rest = rest[1:] if rest[:1] == ["of"] else rest
        else:
            break
    return term, rest
