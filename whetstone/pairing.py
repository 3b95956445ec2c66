"""Right and wrong rollouts of one problem become pairs; problems never mix.

The paper does not say how it pairs. The rules here:

length_matched  a random wrong rollout with the right one closest in length, so that the preference does not teach length
hardest         the wrong rollout that the student finds likeliest per token with the right one that it finds least likely
one             one pair per problem, both sides at random
all             every right rollout with every wrong one

In the first two each rollout is in one pair at most.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from typing import Literal

from whetstone.records import Pair, Problem, Rollout

Pairing = Literal["length_matched", "hardest", "one", "all"]

# (right, wrong, random numbers) -> (chosen, rejected), the most wanted first
Rule = Callable[[list[Rollout], list[Rollout], random.Random], Iterator[tuple[Rollout, Rollout]]]


def length_matched(right: list[Rollout], wrong: list[Rollout], rng: random.Random) -> Iterator[tuple[Rollout, Rollout]]:
    right, wrong = list(right), list(wrong)
    rng.shuffle(wrong)
    for rejected in wrong[: len(right)]:
        chosen = min(right, key=lambda r: (abs(len(r.ids) - len(rejected.ids)), r.index))
        right.remove(chosen)
        yield chosen, rejected


def hardest(right: list[Rollout], wrong: list[Rollout], rng: random.Random) -> Iterator[tuple[Rollout, Rollout]]:
    def likelihood(rollout: Rollout) -> float:
        return sum(rollout.logprobs) / max(1, len(rollout.logprobs))

    doubted = sorted(right, key=lambda r: (likelihood(r), r.index))
    believed = sorted(wrong, key=lambda r: (-likelihood(r), r.index))
    yield from zip(doubted, believed, strict=False)


def one(right: list[Rollout], wrong: list[Rollout], rng: random.Random) -> Iterator[tuple[Rollout, Rollout]]:
    if right and wrong:
        yield rng.choice(right), rng.choice(wrong)


def every(right: list[Rollout], wrong: list[Rollout], rng: random.Random) -> Iterator[tuple[Rollout, Rollout]]:
    pairs = list(product(right, wrong))
    rng.shuffle(pairs)
    yield from pairs


RULES: dict[str, Rule] = {"length_matched": length_matched, "hardest": hardest, "one": one, "all": every}


def build_pairs(
    problem: Problem, group: Sequence[Rollout], most: int, seed: int, rule: str = "length_matched"
) -> list[Pair]:
    """At most `most` pairs of a problem, by one of the `RULES`.

    A rollout that was cut off is never chosen, and is rejected only if no finished one is wrong. Undecided rollouts are left
    out. The ids of the two sides differ, because their verdicts do. Raises ValueError for rollouts of another problem.
    """
    if any(r.problem_id != problem.id for r in group):
        raise ValueError(f"rollouts of other problems in the group of {problem.id}: pairs never mix problems.")
    right = [r for r in group if r.correct is True and r.stop == "end"]
    wrong = [r for r in group if r.correct is False]
    finished = [r for r in wrong if r.stop == "end"]
    sides = RULES[rule](right, finished or wrong, random.Random(f"{seed}/{problem.id}"))
    return [
        Pair(
            *(problem.id, problem.question, right.text, wrong.text, right.prompt_ids, right.ids, wrong.ids),
            source="student",
            system=problem.system,
            policy=problem.policy,
        )
        for right, wrong in islice(sides, most)
    ]
