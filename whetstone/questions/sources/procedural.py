"""Arithmetic problems of graded difficulty, made without a download.

The level is the number of operations. Every intermediate result is a non-negative integer, so that column arithmetic never
meets a sign. Families:

chain      "Compute 12+(345-67)+8."                      brackets, carries and borrows
equation   "Solve for x: x+34-8=120."                    linear, one unknown
word       "Mia has 340 apples. She buys 12 more. …"     short stories

`Problem.formula` is the expression whose value is the answer: what the procedural teacher explains.
"""

import random
from collections.abc import Iterator
from itertools import count
from typing import TypeAlias

from pydantic import Field, model_validator

from whetstone.arithmetic.expression import Expression, Number, Operation, numbers, program, render, results
from whetstone.questions.source import MadeSource
from whetstone.records import Problem
from whetstone.run.mistakes import suggestion

NAMES = ("Mia", "Tom", "Ada", "Ben", "Lea", "Sam", "Eva", "Max")
THINGS = ("apples", "books", "coins", "stamps", "marbles", "cards", "shells", "pens")
GAINS = ("buys {n} more", "finds {n} more", "gets {n} from a friend", "wins {n}")
LOSSES = ("gives {n} away", "loses {n}", "sells {n}", "uses {n}")
MOST_DIGITS = 100  # of an operand
MISSES = 1000  # draws in a row that repeat a question, before there are taken to be no more

Digits: TypeAlias = tuple[int, int]
Made: TypeAlias = tuple[str, str, int]  # question, formula, answer


def _operand(rng: random.Random, digits: Digits) -> int:
    width = rng.randint(*digits)
    return rng.randint(10 ** (width - 1) if width > 1 else 1, 10**width - 1)


def _expression(rng: random.Random, operations: int, digits: Digits, operators: str) -> Expression:
    if operations == 0:
        return Number(_operand(rng, digits))
    sign = rng.choice(operators)
    if sign == "*":  # one factor of one digit: the columns stay those of a school exercise
        left = _expression(rng, operations - 1, digits, operators)
        return Operation(sign, left, Number(rng.randint(2, 9)))
    # Mostly left-leaning, as people write sums; the right side holds a bracket now and then
    right = rng.randint(1, operations - 1) if operations > 1 and rng.random() < 0.4 else 0
    left = _expression(rng, operations - 1 - right, digits, operators)
    return Operation(sign, left, _expression(rng, right, digits, operators))


def _chain(rng: random.Random, level: int, digits: Digits, operators: str) -> Made:
    steps = None
    while steps is None:  # a step is negative
        chain = _expression(rng, level, digits, operators)
        steps = results(program(chain), numbers(chain))
    verb = rng.choice(("Compute", "Calculate", "What is"))
    return f"{verb} {render(chain)}{'?' if verb == 'What is' else '.'}", render(chain), steps[-1]


def _equation(rng: random.Random, level: int, digits: Digits, operators: str) -> Made:
    while True:
        x = _operand(rng, digits)
        terms = [(rng.choice("+-"), _operand(rng, digits)) for _ in range(level)]
        signed = [n if sign == "+" else -n for sign, n in terms]
        if any(x + sum(signed[:k]) < 0 for k in range(1, level + 1)):
            continue
        left = "x" + "".join(f"{sign}{n}" for sign, n in terms)
        if terms[0][0] == "+" and rng.random() < 0.3:  # 34+x-8
            left = f"{terms[0][1]}+x" + "".join(f"{sign}{n}" for sign, n in terms[1:])
        right = x + sum(signed)
        # What was taken away is added back first, so that no step goes below zero
        added, taken = ("".join(f"{back}{n}" for s, n in terms if s == sign) for sign, back in ("-+", "+-"))
        return f"Solve for x: {left}={right}.", f"{right}{added}{taken}", x


def _word(rng: random.Random, level: int, digits: Digits, operators: str) -> Made:
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
            return f"{name} has {start} {thing}. {story} How many {thing} does {name} have now?", formula, total


FAMILIES = {"chain": _chain, "equation": _equation, "word": _word}


class ProceduralSource(MadeSource):
    """Problems made by our own generators."""

    families: tuple[str, ...] = Field(("chain", "equation", "word"), min_length=1, description="in turn")
    level: int = Field(3, ge=1, le=100, description="operations in one problem")
    digits: tuple[int, int] = Field((1, 3), description="fewest and most digits of an operand")
    operators: str = Field("+-", description="which of + - * are in chains")

    own_formulas = True  # "Compute 12 + 3." and "What is 12 + 3?" are one problem

    @property
    def title(self) -> str:
        return self.name or f"procedural-{self.level}"

    def draw(self, seed: int) -> Iterator[Problem]:
        """Distinct problems of the families in turn; ends when no more are found."""
        rng = random.Random(f"{seed}/{self.level}/{','.join(self.families)}/{self.digits}/{self.operators}")
        questions: set[str] = set()
        for number in count():
            family = self.families[number % len(self.families)]
            for _ in range(MISSES):
                question, formula, answer = FAMILIES[family](rng, self.level, self.digits, self.operators)
                if question not in questions:
                    break
            else:
                return
            questions.add(question)
            yield Problem(
                "", question, str(answer), level=self.level, domain=family, licence="Apache-2.0", formula=formula
            )

    @model_validator(mode="after")
    def can_be_made(self) -> "ProceduralSource":
        for family in self.families:
            if family not in FAMILIES:
                known = ", ".join(FAMILIES)
                raise ValueError(f"family {family!r} is unknown{suggestion(family, FAMILIES)} There are {known}.")
        fewest, most = self.digits
        if not 1 <= fewest <= most <= MOST_DIGITS:
            raise ValueError(
                f"digits = [{fewest}, {most}]: fewest and most digits of an operand (at most {MOST_DIGITS}), as in [1, 3]."
            )
        if not self.operators or set(self.operators) - set("+-*"):
            raise ValueError(f'operators = {self.operators!r}: some of + - *, as in operators = "+-".')
        if len(set(self.operators)) < len(self.operators):
            raise ValueError(
                f"operators = {self.operators!r} has one twice: each is as likely as the others. Name it once."
            )
        return self


SOURCE = ProceduralSource
