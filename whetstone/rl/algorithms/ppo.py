"""PPO (Schulman et al. 2017, arXiv 1707.06347) with a critic, as in InstructGPT (arXiv 2203.02155): three changes to GRPO.

keep    every group: the critic is the baseline, so rollouts of one problem need not differ
credit  generalised advantage estimation (GAE; Schulman et al. 2016, arXiv 1506.02438, eq. 16) over the tokens of a rollout,
        with the critic's values; the reward stands at the last token, a KL in the reward (`kl.estimator = "k1"`) at each;
        advantages are whitened over the step; every token weighs the same
critic  a second model with a scalar head, trained on the same rollouts (rl/critic.py)

    A_t = Σ_l (γλ)^l δ_(t+l)      δ_t = r_t + γ V_(t+1) - V_t      V after the last token is 0, also if a rollout was cut off

Differs from the papers: λ is 1 and not 0.95, as in Open-Reasoner-Zero (arXiv 2503.24290): the reward of a chain of thought
comes at its end, and 0.95 to the power of a hundred tokens leaves nothing of it at the first. No bonus for entropy unless it
is asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, ClippedSettings, CriticSettings, Group, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import row_of, token_mean, whitened
from whetstone.rl.keep import each

if TYPE_CHECKING:
    from whetstone.batch import Row


class Settings(ClippedSettings):
    discount: float = Field(1.0, gt=0, le=1, description="γ, of later rewards")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="λ: 0 trusts the critic alone, 1 the return alone")
    whiten: bool = Field(True, description="advantages get mean 0 and standard deviation 1 over the tokens of a step")
    critic: CriticSettings = Field(CriticSettings(), description="the second model")


def ppo(setup: Setup, settings: Settings) -> Algorithm:
    def credit(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        weight = token_mean(drawn)
        estimated = [
            [
                gae(rewards_of(group, i), group.values[i], settings.discount, settings.gae_lambda)
                for i in range(len(group.rollouts))
            ]
            for group in kept
        ]
        advantages = whitened(estimated) if settings.whiten else estimated
        return [
            [
                with_value(row_of(group, i, scaled, weight(group.rollouts[i])), raw, group.values[i])
                for i, (scaled, raw) in enumerate(zip(scaled_of_group, raw_of_group, strict=True))
            ]
            for group, scaled_of_group, raw_of_group in zip(kept, advantages, estimated, strict=True)
        ]

    return replace(
        grpo(setup, settings), keep=each(lambda group: bool(group.rollouts)), credit=credit, critic=settings.critic
    )


def rewards_of(group: Group, i: int) -> list[float]:
    """The reward of each token of a rollout: those of its tokens, and its own at the last one."""
    rollout = group.rollouts[i]
    paid = list(group.penalties[i]) if group.penalties else [0.0] * len(rollout.ids)
    paid[-1] += rollout.reward
    return paid


def gae(rewards: Sequence[float], values: Sequence[float], discount: float, gae_lambda: float) -> list[float]:
    """The advantage of each token, from the last to the first.

    >>> gae([0.0, 1.0], [0.5, 0.25], discount=1.0, gae_lambda=1.0)
    [0.5, 0.75]
    """
    advantages: list[float] = []
    later = following = 0.0  # the advantage and the value after the token
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        later = reward + discount * following - value + discount * gae_lambda * later
        following = value
        advantages.append(later)
    return advantages[::-1]


def with_value(row: "Row", advantages: list[float], values: list[float]) -> "Row":
    """The row with what the critic learns from: its value at sampling and the return that it should have given."""
    returns = [advantage + value for advantage, value in zip(advantages, values, strict=True)]
    return replace(row, token=row.token | {"value": list(values), "return": returns})
