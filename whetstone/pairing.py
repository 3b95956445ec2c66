"""Right and wrong rollouts of one problem become pairs; problems never mix.

The paper does not say how it pairs. The rules here:

length_matched  a random wrong rollout with the right one closest in length, so that the preference does not teach length
hardest         the wrong rollout that the student finds likeliest per token with the right one that it finds least likely
one             one pair per problem, both sides at random
all             every right rollout with every wrong one

In the first two each rollout is in one pair at most.

`ranked_pairs` asks a reward model in place of the verifier: the rollout that it likes most with the one that it likes least,
then the second of both, and so on (Dong et al. 2024, RLHF Workflow, arXiv 2405.07863, which takes the first pair).
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
    return [_pair(problem, chosen, rejected) for chosen, rejected in islice(sides, most)]


def ranked_pairs(problem: Problem, group: Sequence[Rollout], rewards: Sequence[float], most: int) -> list[Pair]:
    """At most `most` pairs of a problem by the rollouts' rewards, whatever their verdicts.

    Each rollout is in one pair at most, one that was cut off in none, and two sides never have the same reward.
    """
    finished = [(reward, -r.index, r) for reward, r in zip(rewards, group, strict=True) if r.stop == "end"]
    ranked = sorted(finished, key=lambda one: one[:2], reverse=True)
    sides = (
        (best, worst)
        for (high, _, best), (low, _, worst) in zip(ranked[: len(ranked) // 2], reversed(ranked), strict=False)
        if high > low and best.ids != worst.ids  # the numbers of equal rollouts may differ by rounding
    )
    return [_pair(problem, best, worst) for best, worst in islice(sides, most)]


def _pair(problem: Problem, chosen: Rollout, rejected: Rollout) -> Pair:
    return Pair(
        *(problem.id, problem.question, chosen.text, rejected.text, chosen.prompt_ids, chosen.ids, rejected.ids),
        source="student",
        system=problem.system,
        policy=problem.policy,
    )
