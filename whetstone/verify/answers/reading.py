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
from typing import Literal

from whetstone.verify.answers.cursor import CLOSING, OPENING, RELATIONS
from whetstone.verify.answers.forms import Bracket, Builder, Chain, Combined, Expression, Items, Ratio, Statement, Value
from whetstone.verify.answers.marks import END, TEXT, clean
from whetstone.verify.answers.quantities import Quantities
from whetstone.verify.answers.terms import value_of
from whetstone.verify.answers.tokens import JOINING, WORD
from whetstone.verify.exact import TooLarge, Unreadable

SEPARATORS = (",", ";", "\\\\")
BARS = ("\\mid", "|", ":", "\\vert")  # of a set builder
MOST_ITEMS = 100
MOST_GROUPS = 20  # braces of an answer that are looked into for what is no formula
MOST_UNREAD = 50  # signs of a statement that begin no formula
THOUSANDS = re.compile(r"(?<![\d.(,])[1-9]\d{0,2}(?:,\d{3})+(?!\d)")
WHOLE_THOUSANDS = re.compile(r"(?<![\d./^])[1-9]\d{0,2}(?:,\d{3})+(?![\d/^])")  # not 100/3,100 nor 3,100/17: two items
INDIAN = re.compile(r"-?\d{1,2}(?:,\d\d)+,\d{3}")  # 12,34,567
GLUED_METRES = re.compile(r"(\d+(?:\.\d+)?)(m\^(?:[23]|\{[23]\}))")
MIXED = re.compile(rf"(\d+)\s*{TEXT}?\s*and\s*{END}?\s*(\\frac\{{\d+\}}\{{\d+\}})")  # 3 and 1/4
SETS = {"\\cup": "\\cup", "\\cap": "\\cap", "\\setminus": "\\setminus"}
LABEL = re.compile(
    r"(?:[A-Za-z]|\\(?!pi\b|infty\b)[A-Za-z]+|[A-Z][A-Za-z]+)'*(?:_\{?\w+\}?)?"  # x, x_1, AB, \theta
    r"|\\?[A-Za-z]'*(?:_\{?\w+\}?)?(?:\^\{?-1\}?)?\([^()]*\)"  # f(2), P(x)
    r"|\((?:[A-Za-z](?:_\{?\w+\}?)?,)+[A-Za-z](?:_\{?\w+\}?)?\)"  # (p,q)
    r"|(?:\\angle|\\triangle|\\overline|\\vec|m\\angle)\{?[A-Za-z]+\}?|\|?\\?[A-Z]{2,3}\|?"
    r"|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}|[A-Za-z]_\{?\w+\}?:[A-Za-z]_\{?\w+\}?|[A-Z]{1,2}:[A-Z]{1,2}|[a-z](?::[a-z])+|\\sum\w*"
)


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
    if gold and "\\\\" in answer and "\\begin" not in answer:  # written with each backslash doubled
        answer = answer.replace("\\\\", "\\")
    text = clean(answer)
    if not text:
        raise Unreadable("nothing but signs without meaning")
    bracketed = bool(re.match(r"\\?[({\[]", text))
    thousands = WHOLE_THOUSANDS if bracketed else THOUSANDS
    joined = thousands.sub(lambda found: found.group().replace(",", ""), text)
    alone = bracketed and joined.count(",") == 0 and joined.count(";") == 0  # (11,111): not one number in brackets
    texts = [text] if joined == text or alone else [text, joined] if bracketed else [joined] if gold else [joined, text]
    if not gold and INDIAN.fullmatch(text):
        texts.append(text.replace(",", ""))
    if not gold and (glued := GLUED_METRES.fullmatch(text)):
        texts.insert(0, f"{glued[1]} {glued[2]}")
    if not gold and (mixed := MIXED.fullmatch(text)):
        texts.append(f"{mixed[1]}{mixed[2]}")
    return [Reader(each, percent, products).answer() for each in texts]


class Reader(Quantities):
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
                if separator != ",":
                    raise Unreadable(f"nothing after {separator!r}")
                break
            found.extend(self.element())
            if len(found) > MOST_ITEMS:
                raise TooLarge("too many items")
        return found[0] if len(found) == 1 else Items(tuple(found), False, joint)

    def separator(self) -> str | None:
        joint = None
        while (token := self.peek()) in SEPARATORS or self.word() in JOINING:
            joint = "," if token in SEPARATORS and joint is None else JOINING.get(self.word() or "", joint)
            self.position += 1
        return joint

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
            if depth < 0 or (
                depth == 0 and (token in (",", ";", "&", "\\\\") or token[1:] in JOINING or token.startswith("\\end"))
            ):
                break
            end += 1
        return end

    def statement(self, stop: int) -> Statement:
        """Words and the values between them, up to `stop`."""
        parts: list[str | Value] = []
        unread = 0
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
                unread += 1
                if unread > MOST_UNREAD:  # each is tried as the begin of a formula, which may read on to the end
                    raise TooLarge("too many signs that are no formula") from None
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
        if token == "{" and (self.ahead(2) in BARS or self.ahead(2) == "\\in"):
            self.take()
            if (builder := self.builder("}")) is not None:
                return builder
            self.position = start
        if token in ("(", "[", "\\langle", "{"):
            bracket = self.bracket()
            if bracket is not None:
                return bracket
            self.position = start
            if token == "{" and (grouped := self.grouped()) is not None:
                return grouped
            self.position = start
        return self.quantity()

    def grouped(self) -> Value | None:
        """What braces without a meaning hold, if it is no formula: `{(1, 2)}`."""
        self.groups += 1
        if self.ahead(1) not in ("(", "[", "\\{") or self.groups > MOST_GROUPS:
            return None
        self.take()
        try:
            inside = self.items(until="}")
            self.expect("}")
        except Unreadable:
            return None
        return None if isinstance(inside, Expression) else inside

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
            if depth == 0 and bar is None and token in BARS:
                bar = place
        named = bar == start + 1 or (bar is not None and self.tokens[start + 1 : start + 2] == ["\\in"])
        ranging = bar is not None and self.tokens[bar + 2 : bar + 3] == ["\\in"]  # 2n : n \in Z
        if bar is None or (self.tokens[bar] != "\\mid" and not named and not ranging):
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
