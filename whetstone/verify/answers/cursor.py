"""A text's tokens, where reading stands in them, and what was met on the way: the ground of the grammar's classes."""

import re
from typing import Literal

from whetstone.verify.answers.terms import Term
from whetstone.verify.answers.tokens import BASED, JOINING, WORD, lex
from whetstone.verify.answers.units import Unit
from whetstone.verify.exact import Unreadable

RELATIONS = {
    "=": "=", "\\equiv": "=", "<": "<", "\\lt": "<", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=",
    ">": ">", "\\gt": ">", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\ne": "!=", "\\neq": "!=",
    "\\approx": "~", "\\simeq": "~", "\\in": "in", "\\notin": "not in", "\\sim": "sim", "\\cong": "cong",
    "\\parallel": "parallel", "\\perp": "perp", "\\land": "and", "\\wedge": "and", "\\lor": "or", "\\vee": "or",
    "\\implies": "implies", "\\Rightarrow": "implies", "\\Longrightarrow": "implies", "\\iff": "iff",
    "\\Leftrightarrow": "iff", "\\to": "to", "\\rightarrow": "to", "\\mapsto": "maps to", "\\mid": "divides",
    "\\nmid": "does not divide", "\\subset": "subset", "\\subseteq": "subset or equal", "\\supset": "superset",
    "\\supseteq": "superset or equal", "\\propto": "proportional",
    "\\oplus": "oplus", "\\circ": "after",
}  # fmt: skip
OPENING, CLOSING = ("(", "[", "{", "\\{", "\\langle"), (")", "]", "}", "\\}", "\\rangle")
ENDS = frozenset((",", ";", *CLOSING, "&", "\\\\"))
D, FACTORS = r"(?:d|\\partial)(?![A-Za-z]{2})\s*(?:\^\s*\{?\s*\w\s*\}?\s*)?", r"(?:[^{}+-]|\^\s*\{\s*\w\s*\}){0,20}"
DERIVATIVE = re.compile(  # \frac{d}{dx}, \frac{d^2y}{dx^2}, \frac{\partial f}{\partial x}, dy/dx
    rf"\\frac\s*\{{\s*{D}{FACTORS}\}}\s*\{{\s*{D}\\?[A-Za-z]{FACTORS}\}}"
    r"|(?<![A-Za-z\\])d\s*(?:\^\s*\{?\d\}?)?\s*[A-Za-z]\s*/\s*d\s*[A-Za-z](?![A-Za-z])"
)


class Cursor:
    """Reading one text. `sum`, `product` and `factor` are in `formulas.py`."""

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
        self.groups = 0  # braces looked into
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

    def at_end(self) -> bool:
        token = self.peek()
        return token is None or token in ENDS or token.startswith("\\end") or self.word() in JOINING

    def expect(self, wanted: str) -> None:
        if self.take() != wanted:
            raise Unreadable(f"{wanted!r} is missing")

    def source(self, start: int) -> str:
        """The tokens read since `start`, with spaces only where LaTeX needs them."""
        return join_tokens(self.tokens[start : self.position])

    def sum(self) -> Term:
        raise NotImplementedError

    def product(self, in_function: bool = False) -> Term:
        raise NotImplementedError

    def factor(self) -> Term:
        raise NotImplementedError

    def exponent(self) -> Term:
        raise NotImplementedError


def join_tokens(tokens: list[str]) -> str:
    if len(tokens) == 1 and tokens[0].isalnum():
        return tokens[0]
    parts = []
    for token, following in zip(tokens, [*tokens[1:], ""], strict=False):
        parts.append(
            f"\\text{{{token[1:]}}}"
            if token[0] == WORD
            else token[1:].replace("_", "_{") + "}"
            if token[0] == BASED
            else token
        )
        if (token[0] == "\\" and token[-1:].isalpha() and following[:1].isalpha()) or (
            token[-1:].isdecimal() and following[:1].isdecimal()
        ):
            parts.append(" ")
    return "".join(parts)
