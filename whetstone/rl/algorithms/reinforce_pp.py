"""REINFORCE++ (Hu et al. 2025, arXiv 2501.03262): no critic, the whole batch as the baseline, as two changes to GRPO.

keep    every group: one whose rewards are equal still differs from the mean of the batch
credit  a token's advantage is its return (R plus the rewards of this and all later tokens, such as a KL in the reward),
        minus the mean and divided by the standard deviation over all tokens of the batch; every token weighs the same

`baseline = "group"` first subtracts each group's mean return (REINFORCE++-baseline): the batch then only sets the scale.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, ClippedSettings, Group, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import row_of, token_mean, whitened
from whetstone.rl.keep import each

if TYPE_CHECKING:
    from whetstone.batch import Row


class Settings(ClippedSettings):
    baseline: Literal["batch", "group"] = Field(
        "batch", description="`group`: each group's mean return is subtracted first"
    )


def reinforce_pp(setup: Setup, settings: Settings) -> Algorithm:
    def credit(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        weight = token_mean(drawn)
        values = whitened([returns_to_go(group, of_group=settings.baseline == "group") for group in kept])
        return [
            [row_of(group, i, advantages, weight(group.rollouts[i])) for i, advantages in enumerate(part)]
            for group, part in zip(kept, values, strict=True)
        ]

    return replace(grpo(setup, settings), keep=each(lambda group: bool(group.rollouts)), credit=credit)


def returns_to_go(group: Group, of_group: bool) -> list[list[float]]:
    """The return of each token of each rollout, (G, T_i); minus the group's mean return if `of_group`."""
    mean = sum(group.returns) / len(group.returns) if of_group else 0.0
    returns = []
    for i, rollout in enumerate(group.rollouts):
        paid = group.penalties[i] if group.penalties else [0.0] * len(rollout.ids)
        to_go = list(accumulate(reversed(paid)))[::-1]  # of each token and those after it
        returns.append([rollout.reward + rest - mean for rest in to_go])
    return returns
