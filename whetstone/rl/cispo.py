"""CISPO (MiniMax-M1, arXiv 2506.13585, section 3.1), as two changes to GRPO.

credit  every token of the step weighs the same
loss    eq. 4: REINFORCE with the importance ratio cut off from above at 1 + high and not differentiated; no token loses
        its gradient, the rare ones at which a thought turns included

`clip_high` is not in the report; 4 cuts at 5, as others run it.
"""

from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.grpo import grpo


def cispo(setup: Setup, clip_high: float = 4.0) -> Algorithm:
    from whetstone.rl import loss

    return replace(grpo(setup, average="token"), loss=loss.cispo(clip_high))
