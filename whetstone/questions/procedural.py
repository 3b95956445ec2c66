"""Endless arithmetic problems of graded difficulty, made without a download.

The level is the number of operations; operands have one to three digits by default; every intermediate result is a
non-negative integer, so that column arithmetic never meets a sign. Families:

chain      "Compute 12+(345-67)+8."                      brackets, carries and borrows
equation   "Solve for x: x+34-8=120."                    linear, one unknown
word       "Mia has 340 apples. She buys 12 more. …"           short stories

`Problem.formula` is the expression whose value is the answer: what the procedural teacher explains.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from whetstone.records import Problem

# A tree is a number or (operator, left, right).
Tree = int | tuple[str, "Tree", "Tree"]

NAMES = ("Mia", "Tom", "Ada", "Ben", "Lea", "Sam", "Eva", "Max")
THINGS = ("apples", "books", "coins", "stamps", "marbles", "cards", "shells", "pens")
GAINS = ("buys {n} more", "finds {n} more", "gets {n} from a friend", "wins {n}")
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
    return (
        op,
        _tree(rng, operations - 1 - right, digits, operators),
        _tree(rng, right, digits, operators),
    )


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
            return (
                f"{name} has {start} {thing}. {story} How many {thing} does {name} have now?",
                formula,
                total,
            )


FAMILIES: dict[str, Callable[[random.Random, int, tuple[int, int], str], tuple[str, str, int]]] = {
    "chain": _chain,
    "equation": _equation,
    "word": _word,
}


def generate(
    families: Sequence[str],
    level: int,
    n: int,
    seed: int,
    digits: tuple[int, int] = (1, 3),
    operators: str = "+-",
) -> Iterator[Problem]:
    """`n` problems of `level` operations, families in turn, no question twice; fewer when the level has no more.

    Raises ValueError for an unknown family, or a level below 1.
    """
    for family in families:
        if family not in FAMILIES:
            raise ValueError(f"family {family!r} is unknown: procedural problems come in {', '.join(FAMILIES)}.")
    if level < 1:
        raise ValueError(f"level = {level}: the level of a procedural problem is its number of operations, 1 or more.")
    rng = random.Random(f"{seed}/{level}/{','.join(families)}/{digits}/{operators}")
    seen: set[str] = set()
    made = misses = 0
    while made < n and misses < 1000:
        family = families[made % len(families)]
        question, formula, answer = FAMILIES[family](rng, level, digits, operators)
        if question in seen:
            misses += 1
            continue
        misses = 0
        seen.add(question)
        yield Problem(
            id=f"{family}-{level}-{seed}-{made}",
            question=question,
            answer=str(answer),
            level=level,
            domain=family,
            source="procedural",
            licence="Apache-2.0",
            formula=formula,
        )
        made += 1
