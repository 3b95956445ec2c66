"""Right and wrong rollouts of one problem become pairs; problems never mix.

The paper does not say how it pairs. The rules here:

length_matched  a wrong rollout, at random, with the right one closest in length: the preference is about being right and
                not about being short
hardest         the wrong rollout that the student finds likeliest a token with the right one that it finds least likely
one             one pair a problem, both sides at random
all             every right rollout with every wrong one

In the first two each rollout is in one pair at most.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

from whetstone.records import Pair, Problem, Rollout

# (right, wrong, randomness) -> (chosen, rejected), what is wanted most first
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

    A rollout that was cut off is never chosen, and is rejected only where no finished one is wrong; the verifier's
    undecided ones are left out. Pairs of equal ids cannot occur: their verdicts differ.
    """
    if any(r.problem_id != problem.id for r in group):
        raise ValueError(f"rollouts of other problems in the group of {problem.id}: pairs never mix problems.")
    right = [r for r in group if r.correct is True and r.stop == "end"]
    wrong = [r for r in group if r.correct is False]
    finished = [r for r in wrong if r.stop == "end"]
    sides = RULES[rule](right, finished or wrong, random.Random(f"{seed}/{problem.id}"))
    return [
        Pair(
            problem.id,
            problem.question,
            chosen.text,
            rejected.text,
            chosen.prompt_ids,
            chosen.ids,
            rejected.ids,
            "student",
        )
        for chosen, rejected in islice(sides, most)
    ]
