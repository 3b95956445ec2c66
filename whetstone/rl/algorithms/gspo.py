"""GSPO (Zheng et al. 2025, arXiv 2507.18071): importance and clipping of whole rollouts, as one change to GRPO.

loss    eq. 5 and 7: the ratio is (pi(o) / pi_old(o))^(1/|o|), the same for all tokens of a rollout, and clipped to
        [1 - 3e-4, 1 + 4e-4]: a mean over many tokens is near 1

With one update per step the ratio is 1 and GSPO is GRPO; it is meant for several.
"""

from dataclasses import replace

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, AlgorithmSettings, Setup
from whetstone.rl.algorithms.grpo import grpo


class Settings(AlgorithmSettings):
    clip_low: float = Field(3e-4, gt=0, le=1, description="how far a rollout's ratio may fall below 1")
    clip_high: float = Field(4e-4, gt=0, le=1000, description="how far a rollout's ratio may rise above 1")


def gspo(setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import clipped, mean_sequence_ratio

    return replace(grpo(setup), loss=clipped(settings.clip_low, settings.clip_high, mean_sequence_ratio))
