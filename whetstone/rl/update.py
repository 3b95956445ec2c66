"""The rows of a step's updates, and their gradient.

The ratio's denominator is the sampler's own log-probability: no pass is made for it, as sampler and learner agree.
`old_policy = "learner"` is for samplers that compute in another way: the learner then scores the rollouts once before the
first update, and the ratio starts at exactly 1.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from whetstone.rl.algorithm import Algorithm, Group

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.learner.learner import Learner, Loss

    Credited = tuple[Group, list[Row]]  # a group that is trained on, and its rows


def with_reference(reference: "Learner", kept: Sequence[Group]) -> list[Group]:
    """The groups, with the reference's log-probabilities at the temperatures that they were sampled with."""
    from whetstone.batch import answer_row

    scored: list[Group] = list(kept)
    for temperature in dict.fromkeys(group.temperature for group in kept):
        alike = [g for g, group in enumerate(kept) if group.temperature == temperature]
        rows = [answer_row(r.prompt_ids, r.ids) for g in alike for r in kept[g].rollouts]
        logprobs = iter(reference.row_logprobs(rows, temperature))
        for g in alike:
            scored[g] = replace(kept[g], reference=[next(logprobs).tolist() for _ in kept[g].rollouts])
    return scored


def credited(algorithm: Algorithm, kept: Sequence[Group], drawn: Sequence[Group]) -> "list[Credited]":
    """The kept groups with their rows; those without rows are left out."""
    rows = algorithm.credit(kept, drawn) if kept else []
    return [(group, part) for group, part in zip(kept, rows, strict=True) if part]


def tokens_of(groups: "Sequence[Credited]") -> int:
    return sum(len(row.ids) for _, rows in groups for row in rows)


def with_old_policy(learner: "Learner", groups: "Sequence[Credited]", step: int) -> "list[Credited]":
    """The groups; the ratio of those that the present weights sampled is to the learner as it is now."""
    rescored = []
    for group, rows in groups:
        tokens = [row.token | {"sampler": row.token["old"]} for row in rows]
        if group.fresh(step):
            logprobs = learner.row_logprobs(rows, group.temperature)
            tokens = [token | {"old": values.tolist()} for token, values in zip(tokens, logprobs, strict=True)]
        rescored.append((group, [replace(row, token=token) for row, token in zip(rows, tokens, strict=True)]))
    return rescored


def batches_of(
    groups: "Sequence[Credited]", step: int, updates: int, passes: int, order: str
) -> "Iterator[list[Credited]]":
    """The groups of each update: `passes` times all groups, each time divided into at most `updates` parts.

    Each part is weighted as a step of full size. Rows are marked `fresh` if the weights before the update sampled them:
    before the first one, those of this step. `order` seeds how groups are divided.
    """
    fresh = True
    for number in range(passes):
        parts = divided(len(groups), updates, f"{order}/{number}")
        for part in parts:
            chosen = [groups[i] for i in part]
            yield [
                (group, [_marked(row, len(parts), fresh and group.fresh(step)) for row in rows])
                for group, rows in chosen
            ]
            fresh = False


def _marked(row: "Row", factor: int, fresh: bool) -> "Row":
    weights = [w * factor for w in row.weights] if isinstance(row.weights, list) else row.weights * factor
    return replace(row, weights=weights, segment=row.segment | {"fresh": float(fresh)})


def divided(count: int, updates: int, order: str) -> list[list[int]]:
    """Indices of groups for each of at most `updates` updates: at random, as evenly as can be."""
    indices = list(range(count))
    if updates > 1:
        random.Random(f"{order}/updates").shuffle(indices)
    return [indices[i::updates] for i in range(min(updates, count))]


def gradient(learner: "Learner", loss: "Loss", groups: "Sequence[Credited]") -> dict[str, float]:
    """Adds the gradient of the groups' rows, one temperature after the other; returns the loss and its sums.

    The rollouts of a problem share its prompt.
    """
    from whetstone.batch import by_prompt

    budget = learner.parallel.micro_batch_tokens
    totals: dict[str, float] = {}
    for temperature in dict.fromkeys(group.temperature for group, _ in groups):
        alike = [rows for group, rows in groups if group.temperature == temperature]
        sums = learner.gradient([g for rows in alike for g in by_prompt(rows, budget)], loss, temperature)
        totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
    return totals


def mean_of(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of a step: means over its updates, of which each has its sums and `gradient_norm`.

    Of the fresh rows alone: the sampler's gap and KL, in nats per token, and the share of its rollouts that they are worth as
    samples of the learner's policy, (Σ w)² / (n Σ w²) with w the ratio of a whole rollout (Kish's effective sample size).
    """
    totals = {name: sum(sums[name] for sums in updates) for name in updates[0]}
    means = {name: totals[name] / totals["weight"] for name in ("entropy", "clipped", "kl") if name in totals}
    means |= {name: totals[name] / len(updates) for name in ("loss", "gradient_norm")}
    if not totals["fresh"]:
        return means
    worth = totals["importance"] ** 2 / (totals["fresh_rollouts"] * totals["importance_squares"])
    return (
        means
        | {name: totals[name] / totals["fresh"] for name in ("sampler_gap", "sampler_kl")}
        | {"sample_size": worth}
    )


def average(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """The plain mean of each number over the updates; {} of none."""
    return {name: sum(sums[name] for sums in updates) / len(updates) for name in updates[0]} if updates else {}
