r"""An answer's text -> what it says: numbers, quantities, formulas, tuples, sets, intervals, equations, matrices, statements.

    answer     element {("," | ";" | "and" | "or") element}
    element    relation | statement                     a statement has words in it that are no units
    relation   side {("=" | "<" | "\in" | …) side} [modulus]
    side       set {("\cup" | "\setminus" | …) set}
    set        "\{" … "\}" | bracket | ratio
    ratio      quantity {(":" | "to") quantity}
    quantity   [currency] sum [unit]
    sum, product, factor, atom                          in `formulas.py`

Nothing is evaluated beyond the bounds of `exact.py`. What is no expression of a known kind raises Unreadable.
"""

import re
from fractions import Fraction
from typing import Literal

from whetstone.verify.elementary import Elementary
from whetstone.verify.exact import TooLarge, Unreadable, as_rational
from whetstone.verify.formulas import Formulas
from whetstone.verify.forms import (
    Bracket,
    Builder,
    Chain,
    Combined,
    Expression,
    Items,
    Matrix,
    Ratio,
    Statement,
    Value,
)
from whetstone.verify.marks import clean
from whetstone.verify.terms import Term, grid, has_matrix, names, number, value_of
from whetstone.verify.tokens import BASED, JOINING, WORD
from whetstone.verify.units import NO_UNIT, Unit, known, measure, multipliers

MOST_ITEMS = 100
THOUSANDS = re.compile(r"(?<![\d.(,])\d{1,3}(?:,\d{3})+(?!\d)")
WHOLE_THOUSANDS = re.compile(r"(?<![\d./^])\d{1,3}(?:,\d{3})+(?![\d/^])")  # not 100/3,100 nor 3,100/17: two items
GLUED_METRES = re.compile(r"(\d+(?:\.\d+)?)(m\^(?:[23]|\{[23]\}))")
RELATIONS = {
    "=": "=", "\\equiv": "=", "<": "<", "\\lt": "<", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=",
    ">": ">", "\\gt": ">", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\ne": "!=", "\\neq": "!=",
    "\\approx": "~", "\\simeq": "~", "\\in": "in", "\\notin": "not in", "\\sim": "sim", "\\cong": "cong",
    "\\parallel": "parallel", "\\perp": "perp", "\\land": "and", "\\wedge": "and", "\\lor": "or", "\\vee": "or",
    "\\implies": "implies", "\\Rightarrow": "implies", "\\Longrightarrow": "implies", "\\iff": "iff",
    "\\Leftrightarrow": "iff", "\\to": "to", "\\rightarrow": "to", "\\mapsto": "maps to", "\\mid": "divides",
    "\\nmid": "does not divide", "\\subset": "subset", "\\subseteq": "subset or equal", "\\propto": "proportional",
    "\\oplus": "oplus", "\\circ": "after",
}  # fmt: skip
SETS = {"\\cup": "\\cup", "\\cap": "\\cap", "\\setminus": "\\setminus"}
CURRENCY = {"\\$": "dollar", "€": "euro", "£": "pound-sterling", "¥": "yen", "₹": "rupee", "¢": "cent"}
LABEL = re.compile(
    r"(?:[A-Za-z]|\\(?!pi\b|infty\b)[A-Za-z]+|[A-Z][A-Za-z]+)'*(?:_\{?\w+\}?)?"  # x, x_1, AB, \theta
    r"|\\?[A-Za-z]'*(?:_\{?\w+\}?)?(?:\^\{?-1\}?)?\([^()]*\)"  # f(2), P(x)
    r"|\((?:[A-Za-z](?:_\{?\w+\}?)?,)+[A-Za-z](?:_\{?\w+\}?)?\)"  # (p,q)
    r"|(?:\\angle|\\triangle|\\overline|\\vec|m\\angle)\{?[A-Za-z]+\}?|\|?\\?[A-Z]{2,3}\|?"
    r"|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}|[A-Za-z]_\{?\w+\}?:[A-Za-z]_\{?\w+\}?|[A-Z]{1,2}:[A-Z]{1,2}|\\sum\w*"
)
OPENING, CLOSING = ("(", "[", "{", "\\{", "\\langle"), (")", "]", "}", "\\}", "\\rangle")
ENDS = frozenset((",", ";", *CLOSING, "&", "\\\\"))


def read(
    answer: str,
    percent: Literal["fraction", "unit"] = "fraction",
    gold: bool = False,
    products: frozenset[str] = frozenset(),
) -> list[Value]:
    """The readings of an answer, the likeliest first.

    There is a second one only where a comma can separate thousands or items: `(1,234)`. A bare `1,234` of the reference
    is a number. `products` are letters before a bracket that are factors, not functions.
    """
    text = clean(answer)
    if not text:
        raise Unreadable("nothing but signs without meaning")
    bracketed = bool(re.match(r"\\?[({\[]", text))
    thousands = WHOLE_THOUSANDS if bracketed else THOUSANDS
    joined = thousands.sub(lambda found: found.group().replace(",", ""), text)
    alone = bracketed and joined.count(",") == 0 and joined.count(";") == 0  # (11,111): not one number in brackets
    texts = [text] if joined == text or alone else [text, joined] if bracketed else [joined] if gold else [joined, text]
    if not gold and (glued := GLUED_METRES.fullmatch(text)):
        texts.insert(0, f"{glued[1]} {glued[2]}")
    return [Reader(each, percent, products).answer() for each in texts]


class Reader(Formulas):
    """Recursive descent over one answer's tokens; `position` moves forward, except where a choice is tried."""

    def answer(self) -> Value:
        value = self.items()
        if self.position < len(self.tokens):
            raise Unreadable(f"{self.tokens[self.position][:20]!r} where an expression ends")
        return value

    # structure

    def items(self, until: str | None = None) -> Value:
        """Elements with separators between them; one alone is itself, several are Items."""
        found, joint = list(self.element()), ","
        while (separator := self.separator()) is not None:
            joint = separator if separator != "," else joint
            if self.peek() in (None, until):
                break
            found.extend(self.element())
            if len(found) > MOST_ITEMS:
                raise TooLarge("too many items")
        return found[0] if len(found) == 1 else Items(tuple(found), False, joint)

    def separator(self) -> str | None:
        joint = None
        while (token := self.peek()) in (",", ";") or self.word() in JOINING:
            joint = "," if token in (",", ";") and joint is None else JOINING.get(self.word() or "", joint)
            self.position += 1
        return joint

    def at_end(self) -> bool:
        token = self.peek()
        return token is None or token in ENDS or token.startswith("\\end") or self.word() in JOINING

    def element(self) -> list[Value]:
        """One element, or the two that a \\pm stands for."""
        start, outer = self.position, self.split_sign
        self.split_sign = False
        values = [self.relation_or_statement()]
        if self.split_sign and self.sign == 1:
            self.position, self.sign = start, -1
            values.append(self.relation_or_statement())
            self.sign = 1
        self.split_sign = outer
        return values

    def relation_or_statement(self) -> Value:
        start = self.position
        try:
            value = self.relation()
            if self.at_end():
                return value
            problem: Unreadable | None = None
        except Unreadable as error:
            problem = error
        self.position, self.bars = start, 0
        stop = self.end_of_element()
        if not any(token.startswith(WORD) for token in self.tokens[start:stop]):
            raise problem or Unreadable(f"{self.tokens[start : start + 9]} is not read here")
        return self.statement(stop)

    def end_of_element(self) -> int:
        """Where the next separator outside brackets stands."""
        depth, end = 0, self.position
        while end < len(self.tokens):
            token = self.tokens[end]
            depth += (token in OPENING) - (token in CLOSING)
            if depth < 0 or (depth == 0 and (token in (",", ";", "&", "\\\\") or token[1:] in JOINING or token.startswith("\\end"))):
                break
            end += 1
        return end

    def statement(self, stop: int) -> Statement:
        """Words and the values between them, up to `stop`."""
        parts: list[str | Value] = []
        while self.position < stop:
            start = self.position
            word = self.word()
            if word is not None:
                parts.append(word)
                self.position += 1
                continue
            try:
                value = self.relation()
                if self.position > stop:
                    raise Unreadable("a formula that goes on")
                parts.append(value)
            except Unreadable:
                self.position = start + 1
                parts.append(self.tokens[start])
        return Statement(tuple(parts))

    def relation(self) -> Value:
        start = self.position
        items, relations = [self.side()], []
        label = False
        while (token := self.peek()) in RELATIONS:
            if not relations:
                label = LABEL.fullmatch(self.source(start).replace(" ", "")) is not None
            self.take()
            relations.append(RELATIONS[token])
            items.append(self.side())
            if len(items) > MOST_ITEMS:
                raise TooLarge("too many relations")
        modulus = self.modulus()
        if not relations and modulus is None:
            return items[0]
        return Chain(tuple(items), tuple(relations), label, modulus)

    def modulus(self) -> Expression | None:
        """What stands in `\\pmod{3}`, `(\\mod 3)` or `mod 3`."""
        start = self.position
        bracket = self.peek() == "("
        self.position += bracket
        token = self.peek()
        if token not in ("\\pmod", "\\mod", "\\bmod") and self.word() not in ("mod", "modulo"):
            self.position = start
            return None
        self.position += 1
        term = self.product()
        if bracket:
            self.expect(")")
        return Expression(term, value_of(term), self.source(start))

    def side(self) -> Value:
        parts = [self.ratio()]
        operation = self.peek()
        while self.peek() in SETS:
            if self.take() != operation:
                raise Unreadable("several operations on sets")
            parts.append(self.ratio())
        return parts[0] if len(parts) == 1 else Combined(SETS[operation], tuple(parts))

    def ratio(self) -> Value:
        parts = [self.whole()]
        while self.peek() in (":", "\\colon") or (self.word() == "to" and isinstance(parts[-1], Expression)):
            self.position += 1
            parts.append(self.whole())
        return parts[0] if len(parts) == 1 else Ratio(tuple(parts))

    def whole(self) -> Value:
        """A bracket with several items, a set, a system, or a quantity."""
        start = self.position
        token = self.peek()
        if token == "\\{":
            self.take()
            return self.set_until("\\}")
        if token in ("\\emptyset", "\\varnothing"):
            self.take()
            return Items((), True)
        if token == "\\begin{cases}" or token in ("\\begin{aligned}", "\\begin{align*}", "\\begin{array}{l}"):
            return self.system()
        if token in ("(", "[", "\\langle", "{"):
            bracket = self.bracket()
            if bracket is not None:
                return bracket
            self.position = start
        return self.quantity()

    def set_until(self, closing: str) -> Value:
        if self.peek() == closing:
            self.take()
            return Items((), True)
        builder = self.builder(closing)
        if builder is not None:
            return builder
        inside = self.items(until=closing)
        self.expect(closing)
        listed = isinstance(inside, Items) and not inside.braces
        return Items(inside.items if listed else (inside,), True)

    def builder(self, closing: str) -> Builder | None:
        """`{x \\in R | x > 3}`, after its brace; None where a set is listed."""
        start, depth, bar = self.position, 0, None
        for place in range(start, len(self.tokens)):
            token = self.tokens[place]
            depth += (token in OPENING) - (token in CLOSING)
            if depth < 0:
                break
            if depth == 0 and bar is None and token in ("\\mid", "|", ":", "\\vert"):
                bar = place
        named = bar == start + 1 or (bar is not None and self.tokens[start + 1 : start + 2] == ["\\in"])
        if bar is None or (self.tokens[bar] != "\\mid" and not named):
            return None
        saved = self.tokens[bar]
        self.tokens[bar] = ","
        try:
            element = self.relation()
            self.expect(",")
            condition = self.items(until=closing)
            self.expect(closing)
        finally:
            self.tokens[bar] = saved
        return Builder(element, condition)

    def bracket(self) -> Value | None:
        """A tuple, interval or set in plain braces; None where the bracket only groups a factor of an expression."""
        opening = self.take()
        depth, commas, end = 1, 0, self.position
        while end < len(self.tokens) and depth:
            token = self.tokens[end]
            depth += (token in OPENING) - (token in CLOSING)
            commas += depth == 1 and token in (",", ";")
            end += 1
        if depth or not commas:
            return None
        if opening == "{":
            return self.set_until("}")
        inside = self.items()
        closing = self.take()
        if closing not in (")", "]", "\\rangle"):
            raise Unreadable("brackets that do not fit")
        items = inside.items if isinstance(inside, Items) and not inside.braces else (inside,)
        angle = {"\\langle": "(", "\\rangle": ")"}
        return Bracket(angle.get(opening, opening), items, angle.get(closing, closing))

    def system(self) -> Items:
        """The rows of `cases`: equations, or values with their conditions."""
        self.take()
        rows: list[Value] = []
        while not (self.peek() or "\\end").startswith("\\end"):
            cells = self.element()
            while self.peek() == "&":
                self.take()
                cells.extend(self.element())
            while self.peek() in (",", "\\\\"):
                self.take()
            rows.append(cells[0] if len(cells) == 1 else Bracket("case", tuple(cells), "case"))
            if len(rows) > MOST_ITEMS:
                raise TooLarge("too many rows")
        self.take()
        return rows[0] if len(rows) == 1 else Items(tuple(rows), False, "and")

    # quantities

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
        bare = term[0] == "s"
        if found is not None and (self.at_end() or self.peek() in RELATIONS or self.peek() in (":", "^", "+")):
            term, rest = found
            measured = measure(rest) if rest else unit or NO_UNIT
            counted = measured is not None and any(known(name) is None and name != "deg" for name in measured.powers)
            if measured is not None and not (bare and (counted or not measured.powers)):
                return term, measured if measured.powers else unit
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
            elif token in ("/", "*", "\\cdot") and (self.ahead(1)[:1] == WORD or known(self.ahead(1)) and words):
                words.extend("/" if token == "/" else "")
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

    def lone_unit(self) -> bool:
        """Is the letter here a unit: after a space and a number, with nothing but a unit to the end?"""
        return self.gaps[self.position] and self.letter_is_unit(self.position)

    def plain_power(self) -> int | None:
        """The integer after `^`, which is taken with it."""
        found = re.match(r"\^ ?\{? ?(-?) ?(\d)\}?(?!\d)", " ".join(self.tokens[self.position : self.position + 5]).replace("} ", "}"))
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
        if word in ("percent", "percentage", "pct") or two == "per cent":
            rest = rest[2 if two in ("per cent", "percentage points", "percent points") else 1 :]
            term = term if percent == "unit" else ("*", term, number(Fraction(1, 100)))
        elif two in ("per thousand", "per mille", "per mil"):
            rest, term = rest[2:], ("*", term, number(Fraction(1, 1000)))
        elif word in ("squared", "cubed") and rest[1:2] not in (["units"], ["unit"]):
            rest, term = rest[1:], ("^", term, number(2 if word == "squared" else 3))
        elif word == "factorial":
            rest, term = rest[1:], ("f", "factorial", term)
        elif word in multipliers():
            rest, term = rest[1:], ("*", term, number(multipliers()[word]))
            rest = rest[1:] if rest[:1] == ["of"] else rest
        else:
            break
    return term, rest


def integer_of(value: Value) -> int | None:
    found = as_rational(value.value) if isinstance(value, Expression) else None
    return int(found) if found is not None and found.denominator == 1 else None
