"""Prompt optimisation (Phi-4-Mini-Reasoning): before RL, keep prompts whose responses have fairly uniform length.

The paper samples several rounds with the distilled model and gives neither metric nor threshold. Here the metric is the
coefficient of variation of a prompt's response lengths (standard deviation over mean), at most `length_spread`, and the
accuracy is at most `threshold`. Few rounds cannot tell a hard prompt from an impossible one: if there are few, keep those
that were never solved (`pool.solvable = false`), and reward rebalancing samples them again.
"""

from collections.abc import Sequence

from pydantic import Field

from whetstone.records import Rollout
from whetstone.rl.algorithm import Algorithm, Setup, StabiliserSettings
from whetstone.sample import share_right


class Settings(StabiliserSettings):
    threshold: float = Field(0.5, gt=0, le=1, description="prompts solved more often are dropped")
    length_spread: float = Field(0.3, gt=0, description="most uneven response lengths that are kept (std / mean)")

    def unfit(self, rollouts: Sequence[Rollout]) -> str:
        if share_right(rollouts) > self.threshold:
            return "too easy"
        return "uneven lengths" if length_spread(rollouts) > self.length_spread else ""


def prompt_optimization(algorithm: Algorithm, setup: Setup, settings: Settings) -> Algorithm:
    """The algorithm as it is: prompts are chosen before the first step (`Settings.unfit`)."""
    return algorithm


def length_spread(rollouts: Sequence[Rollout]) -> float:
    """Standard deviation of the response lengths over their mean."""
    lengths = [len(r.ids) for r in rollouts]
    mean = sum(lengths) / len(lengths)
    return (sum((n - mean) ** 2 for n in lengths) / len(lengths)) ** 0.5 / max(1e-9, mean)
