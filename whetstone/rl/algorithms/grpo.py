"""GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3) with verifiable rewards, as the five answers.

draw    `prompts` problems per step in a shuffled order, `samples` rollouts of each, temperature 1
reward  +1 for a right final answer, -1 for a wrong one (Phi-4-Mini-Reasoning)
keep    groups in which rewards differ: the others carry no signal and are not trained on
credit  advantage (R - mean) / std, the same for every token of a rollout, whose tokens share 1/|o_i|, rollouts 1/(P G)
loss    ratio clipped to 1 ± 0.2; the old policy's log-probabilities are the sampler's own, so no extra pass is made

Differs from the paper: no KL to a reference unless asked for (the rewards are exact), and the denominator is the number of
rollouts of the step, not of each group, so groups of different size weigh by their rollouts. Those of groups that are not
kept are counted too: they are zeros in the paper's sum, and a step that kept little makes a small gradient, not a noisy one
of full size.
"""

from typing import ClassVar, Literal

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, ClippedSettings, Setup
from whetstone.rl.credit import AVERAGES, credit, normalised
from whetstone.rl.draw import once
from whetstone.rl.keep import each, rewards_differ


class Settings(ClippedSettings):
    average: Literal["rollout", "token"] = Field(
        "rollout", description="what weighs the same: each rollout or each token"
    )

    # Phi-4-Mini-Reasoning made these for GRPO
    stabilisers: ClassVar[tuple[str, ...]] = ("prompt_optimization", "reward_rebalancing", "temperature_annealing")


DEFAULT = Settings()


def grpo(setup: Setup, settings: Settings = DEFAULT) -> Algorithm:
    from whetstone.rl.loss import clipped

    return Algorithm(
        draw=once(setup),
        reward=setup.reward,
        keep=each(rewards_differ),
        credit=credit(normalised, AVERAGES[settings.average]),
        loss=clipped(settings.clip_low, settings.clip_high),
    )
