"""GSPO (Zheng et al. 2025, arXiv 2507.18071): importance and clipping of whole rollouts, as one change to GRPO.

loss    eq. 5 and 7: the ratio is (pi(o) / pi_old(o))^(1/|o|), the same for all tokens of a rollout, and clipped to
        [1 - 3e-4, 1 + 4e-4]: a mean over many tokens is near 1

With one update a step the ratio is 1 and GSPO is GRPO; it is made for several.
"""

from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.grpo import grpo


def gspo(setup: Setup, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Algorithm:
    from whetstone.rl.loss import clipped, mean_sequence_ratio

    return replace(grpo(setup), loss=clipped(clip_low, clip_high, mean_sequence_ratio))
