"""Arithmetic problems of graded difficulty, made without a download.

The level is the number of operations; operands have one to three digits by default; every intermediate result is a
non-negative integer, so that column arithmetic never meets a sign. Families:

chain      "Compute 12+(345-67)+8."                      brackets, carries and borrows
equation   "Solve for x: x+34-8=120."                    linear, one unknown
word       "Mia has 340 apples. She buys 12 more. …"           short stories

`Problem.formula` is the expression whose value is the answer: what the procedural teacher explains.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import count

from pydantic import Field, model_validator

from whetstone.questions.source import MadeSource
from whetstone.records import Problem

# A tree is a number or (operator, left, right).
Tree = int | tuple[str, "Tree", "Tree"]

NAMES = ("Mia", "Tom", "Ada", "Ben", "Lea", "Sam", "Eva", "Max")
THINGS = ("apples", "books", "coins", "stamps", "marbles", "cards", "shells", "pens")
GAINS = ("buys {n} more", "finds {n} more", "gets {n} from a friend", "wins {n}")
MISSES = 1000  # draws in a row that repeat a question, before a family is taken to have no more
LOSSES = ("gives {n} away", "loses {n}", "sells {n}", "uses {n}")


def value(tree: Tree) -> int:
    if isinstance(tree, int):
        return tree
    op, left, right = tree
    a, b = value(left), value(right)
    return a + b if op == "+" else a - b if op == "-" else a * b


def _smallest(tree: Tree) -> int:
    """The smallest value of any subtree: negative means that a step would leave the non-negative integers."""
    if isinstance(tree, int):
        return tree
    return min(value(tree), _smallest(tree[1]), _smallest(tree[2]))


def render(tree: Tree, space: str = "") -> str:
    """Infix text with the brackets it needs and no others."""
    if isinstance(tree, int):
        return str(tree)
    op, left, right = tree
    a, b = render(left, space), render(right, space)
    if op == "*" and not isinstance(left, int) and left[0] != "*":
        a = f"({a})"
    if not isinstance(right, int) and not (op == "*" and right[0] == "*") and not (op != "*" and right[0] == "*"):
        b = f"({b})"
    return f"{a}{space}{op}{space}{b}"


def _operand(rng: random.Random, digits: tuple[int, int]) -> int:
    width = rng.randint(*digits)
    return rng.randint(10 ** (width - 1) if width > 1 else 1, 10**width - 1)


def _tree(rng: random.Random, operations: int, digits: tuple[int, int], operators: str) -> Tree:
    if operations == 0:
        return _operand(rng, digits)
    op = rng.choice(operators)
    if op == "*":  # one factor of one digit: the columns stay those of a school exercise
        return (op, _tree(rng, operations - 1, digits, operators), rng.randint(2, 9))
    # Mostly left-leaning, as people write sums; the right side holds a bracket now and then.
    right = rng.randint(1, operations - 1) if operations > 1 and rng.random() < 0.4 else 0
    return (op, _tree(rng, operations - 1 - right, digits, operators), _tree(rng, right, digits, operators))


def _chain(rng: random.Random, level: int, digits: tuple[int, int], operators: str) -> tuple[str, str, int]:
    while _smallest(tree := _tree(rng, level, digits, operators)) < 0:
        pass
    verb = rng.choice(("Compute", "Calculate", "What is"))
    return f"{verb} {render(tree)}{'?' if verb == 'What is' else '.'}", render(tree), value(tree)


def _equation(rng: random.Random, level: int, digits: tuple[int, int], operators: str) -> tuple[str, str, int]:
    while True:
        x = _operand(rng, digits)
        terms = [(rng.choice("+-"), _operand(rng, digits)) for _ in range(level)]
        right = x + sum(n if sign == "+" else -n for sign, n in terms)
        if right < 0 or any(x + sum(n if s == "+" else -n for s, n in terms[:k]) < 0 for k in range(1, level + 1)):
            continue
        left = "x" + "".join(f"{sign}{n}" for sign, n in terms)
        if terms[0][0] == "+" and rng.random() < 0.3:  # 34+x-8
            left = f"{terms[0][1]}+x" + "".join(f"{sign}{n}" for sign, n in terms[1:])
        # What was taken away is added back first, so that no step goes below zero.
        formula = (
            f"{right}" + "".join(f"+{n}" for s, n in terms if s == "-") + "".join(f"-{n}" for s, n in terms if s == "+")
        )
        return f"Solve for x: {left}={right}.", formula, x


def _word(rng: random.Random, level: int, digits: tuple[int, int], operators: str) -> tuple[str, str, int]:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    while True:
        start = _operand(rng, digits)
        total, formula, events = start, str(start), []
        for _ in range(level):
            gain = rng.random() < 0.5
            n = _operand(rng, digits)
            total += n if gain else -n
            formula += f"{'+' if gain else '-'}{n}"
            events.append(rng.choice(GAINS if gain else LOSSES).format(n=n))
            if total < 0:
                break
        else:
            story = " ".join(f"{'Then' if i else 'First'} {name} {event}." for i, event in enumerate(events))
            return (f"{name} has {start} {thing}. {story} How many {thing} does {name} have now?", formula, total)


FAMILIES: dict[str, Callable[[random.Random, int, tuple[int, int], str], tuple[str, str, int]]] = {
    "chain": _chain,
    "equation": _equation,
    "word": _word,
}


class ProceduralSource(MadeSource):
    """Problems made by our own generators."""

    families: tuple[str, ...] = Field(("chain", "equation", "word"), description="in turn")
    level: int = Field(3, ge=1, description="operations in one problem")
    digits: tuple[int, int] = Field((1, 3), description="fewest and most digits of an operand")
    operators: str = Field("+-", description="which of + - * stand in chains")

    own_formulas = True  # "Compute 12 + 3." and "What is 12 + 3?" are one problem

    @property
    def title(self) -> str:
        return self.name or f"procedural-{self.level}"

    @property
    def supply(self) -> str:
        return f"level {self.level} with digits {list(self.digits)} has"

    def draw(self, seed: int) -> Iterator[Problem]:
        return generate(self.families, self.level, seed, self.digits, self.operators)

    @model_validator(mode="after")
    def can_be_made(self) -> "ProceduralSource":
        if not self.families:
            raise ValueError('families = [] makes nothing: name some, as in families = ["chain"].')
        for family in self.families:
            if family not in FAMILIES:
                near = get_close_matches(family, FAMILIES, n=1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"family {family!r} is unknown: there are {', '.join(FAMILIES)}.{meant}")
        fewest, most = self.digits
        if not 1 <= fewest <= most:
            raise ValueError(f"digits = [{fewest}, {most}]: fewest and most digits of an operand, as in [1, 3].")
        if not self.operators or set(self.operators) - set("+-*"):
            raise ValueError(f'operators = {self.operators!r}: some of + - *, as in operators = "+-".')
        return self


def generate(
    families: Sequence[str], level: int, seed: int, digits: tuple[int, int] = (1, 3), operators: str = "+-"
) -> Iterator[Problem]:
    """Distinct problems of the families in turn, a function of the arguments; it ends when no more are found."""
    rng = random.Random(f"{seed}/{level}/{','.join(families)}/{digits}/{operators}")
    questions: set[str] = set()
    for number in count():
        family = families[number % len(families)]
        for _ in range(MISSES):
            question, formula, answer = FAMILIES[family](rng, level, digits, operators)
            if question not in questions:
                break
        else:
            return
        questions.add(question)
        yield Problem(
            id=f"{family}-{level}-{seed}-{number}",
            question=question,
            answer=str(answer),
            level=level,
            domain=family,
            source="procedural",
            licence="Apache-2.0",
            formula=formula,
        )


SOURCE = ProceduralSource
