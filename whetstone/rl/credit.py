"""Advantages, and the weights that carry the step's whole denominator.

An advantage is one number per rollout of a group; a weight is the share of one token of a rollout in the step's loss.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from whetstone.records import Rollout
from whetstone.rl.algorithm import Group

if TYPE_CHECKING:
    from whetstone.batch import Row

Advantage = Callable[[Group], list[float]]
Weight = Callable[[Rollout], float]
Average = Callable[[Sequence[Group]], Weight]  # the groups that are counted -> the weight of a rollout's tokens


# --- advantages


def normalised(group: Group) -> list[float]:
    """(R - mean) / std over the group, with the standard deviation of a population (GRPO)."""
    returns = group.returns
    mean = sum(returns) / len(returns)
    spread = (sum((x - mean) ** 2 for x in returns) / len(returns)) ** 0.5
    return [(x - mean) / (spread + 1e-6) for x in returns]


def centred(group: Group) -> list[float]:
    """R - mean. Dividing by the spread would favour the easiest and the hardest problems (Dr. GRPO)."""
    returns = group.returns
    mean = sum(returns) / len(returns)
    return [x - mean for x in returns]


def leave_one_out(group: Group) -> list[float]:
    """R minus the mean of the *other* rollouts: a baseline that does not depend on the rollout itself (RLOO)."""
    returns = group.returns
    others = len(returns) - 1
    return [x - (sum(returns) - x) / others if others else 0.0 for x in returns]


def whitened(values: list[list[list[float]]]) -> list[list[list[float]]]:
    """Mean 0 and standard deviation 1 over all tokens of all rollouts of all groups."""
    flat = [x for group in values for rollout in group for x in rollout]
    mean = sum(flat) / max(1, len(flat))
    spread = (sum((x - mean) ** 2 for x in flat) / max(1, len(flat))) ** 0.5
    return [[[(x - mean) / (spread + 1e-6) for x in rollout] for rollout in group] for group in values]


# --- weights


def rollout_mean(groups: Sequence[Group]) -> Weight:
    """Every rollout weighs the same; its tokens share that weight."""
    rollouts = sum(len(g.rollouts) for g in groups)
    return lambda rollout: 1 / (rollouts * len(rollout.ids))


def token_mean(groups: Sequence[Group]) -> Weight:
    """Every token of the step weighs the same."""
    tokens = sum(len(r.ids) for g in groups for r in g.rollouts)
    return lambda rollout: 1 / tokens


def constant(length: int) -> Average:
    """Every token weighs 1 / (rollouts · length), however long its rollout is (Dr. GRPO)."""

    def average(groups: Sequence[Group]) -> Weight:
        rollouts = sum(len(g.rollouts) for g in groups)
        return lambda rollout: 1 / (rollouts * length)

    return average


# --- rows


def credit(advantage: Advantage, average: Average) -> Callable[[Sequence[Group], Sequence[Group]], "list[list[Row]]"]:
    """The credit of algorithms in which all tokens of a rollout have its advantage.

    The denominator counts all rollouts that were drawn: those of groups that are not kept are zeros in the papers' sums. So a
    step that kept little makes a small gradient, not a noisy one of full size.
    """

    def rows(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        weight = average(drawn)
        return [
            [
                row_of(group, i, [value] * len(group.rollouts[i].ids), weight(group.rollouts[i]))
                for i, value in enumerate(advantage(group))
            ]
            for group in kept
        ]

    return rows


def row_of(group: Group, i: int, advantages: list[float], weight: float) -> "Row":
    """The learner's row of a group's `i`-th rollout. `old` are the sampler's own log-probabilities: no extra pass is made."""
    from whetstone.batch import answer_row

    rollout = group.rollouts[i]
    token = {"advantage": advantages, "old": rollout.logprobs}
    if group.reference:
        token["reference"] = group.reference[i]
    return answer_row(rollout.prompt_ids, rollout.ids, weight, token)
