"""Dr. GRPO (Liu et al. 2025, arXiv 2503.20783): GRPO without its two biases.

credit  advantage R - mean, not divided by the spread, which over-weights very easy and very hard problems;
        every token weighs 1 / (P G · longest rollout), where 1/|o_i| lets long wrong answers off lightly

Differs from the authors' code, where the sum over a batch is divided by the longest length alone: here the number of
rollouts is in the denominator, so that the gradient's size does not follow the batch size.
"""

from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, ClippedSettings, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import centred, constant, credit

Settings = ClippedSettings  # no options of its own


def dr_grpo(setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import clipped

    loss = clipped(settings.clip_low, settings.clip_high)
    return replace(grpo(setup), credit=credit(centred, constant(setup.max_tokens)), loss=loss)
