"""RLOO (Ahmadian et al. 2024, arXiv 2402.14740): REINFORCE with the other rollouts as the baseline, as two changes to GRPO.

credit  advantage R_i minus the mean of the other rollouts' rewards, not divided by a spread
loss    a rollout is one action: the ratio is that of the whole sequence, and a long rollout's tokens are not scaled down.
        With one update per step this is the paper's estimator, A_i grad log pi(o_i), a mean over rollouts

Differs from the paper: for further updates on the same rollouts the ratio is clipped, as PPO does.
"""

from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, ClippedSettings, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import credit, leave_one_out, rollout_mean

Settings = ClippedSettings  # no options of its own


def rloo(setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import clipped, sequence_ratio

    loss = clipped(settings.clip_low, settings.clip_high, sequence_ratio)
    return replace(grpo(setup), credit=credit(leave_one_out, rollout_mean), loss=loss)
