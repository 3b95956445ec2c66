"""Verdicts drawn at random: the control that shows how much of RL's gain has nothing to do with being right.

On Qwen2.5-Math models RL gains much of its points with random rewards too (Shao et al. 2025, arXiv 2506.10947). A draw depends
on the seed, the step, the problem and the rollout's number, never on what the rollout says. It takes the place of the
verifier's verdict, also where that could not decide: rewards, and whatever an algorithm or stabiliser asks about right and
wrong, follow from it. What an algorithm adds to the reward by itself, as DAPO does for length, stays.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from whetstone.records import Rollout

Judge = Callable[[int, Rollout], Rollout]  # (step, rollout) -> the rollout with another verdict


def random_verdicts(share: float, seed: int) -> Judge:
    """A `share` of the rollouts is right."""

    def judge(step: int, rollout: Rollout) -> Rollout:
        draw = random.Random(f"{seed}/verdict/{step}/{rollout.problem_id}/{rollout.index}").random()
        return replace(rollout, correct=draw < share, reason="drawn at random")

    return judge
