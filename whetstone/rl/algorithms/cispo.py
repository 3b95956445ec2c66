"""CISPO (MiniMax-M1, arXiv 2506.13585, section 3.1), as two changes to GRPO.

credit  every token of the step weighs the same
loss    eq. 4: REINFORCE with the importance ratio cut off from above at 1 + high and not differentiated; no token loses
        its gradient, the rare ones at which a thought turns included

`clip_high` is not in the report; 4 cuts at 5, as others run it.
"""

from dataclasses import replace

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, AlgorithmSettings, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import credit, normalised, token_mean


class Settings(AlgorithmSettings):
    clip_high: float = Field(4.0, gt=0, le=1000, description="the ratio is cut off at 1 plus this")


def cispo(setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl import loss

    return replace(grpo(setup), credit=credit(normalised, token_mean), loss=loss.cispo(settings.clip_high))
