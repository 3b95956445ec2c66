"""GRPO (DeepSeekMath, arXiv 2402.03300) with verifiable rewards, as the five answers.

draw    `prompts` problems a step in a shuffled order, `samples` rollouts of each, temperature 1
reward  +1 for a right final answer, -1 for a wrong one (Phi-4-Mini-Reasoning, section 1.4 of the methods reference)
keep    groups in which rewards differ: the others carry no signal and are not trained on
credit  advantage (R - mean) / std, the same for every token of a rollout, whose tokens share 1/|o_i|, rollouts 1/(P G)
loss    ratio clipped to 1 ± 0.2; the old policy's log-probabilities are the sampler's own, so no extra pass is made

Differs from the paper: no KL to a reference (the rewards are exact), and what is divided by is all rollouts of the step,
not each group's, so groups of different size weigh by their rollouts. Those of groups that are not kept count too: they
are zeros in the paper's sum, and a step that kept little makes a small gradient, not a noisy one of full size.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from whetstone.records import Problem, Rollout
from whetstone.rl.algorithm import Algorithm, Draw, Group, State

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch, Row


def grpo(
    problems: Sequence[Problem], prompts: int, samples: int, seed: int, clip: float = 0.2, token_mean: bool = False
) -> Algorithm:
    """`token_mean`: every token of the step weighs the same (DAPO), instead of every rollout."""

    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        if groups:
            return Draw()
        chosen = [problems[i] for i in window(len(problems), prompts, step, seed)]
        return Draw(chosen, [samples] * len(chosen))

    def keep(state: State, step: int, group: Group) -> Group | None:
        return group if len({r.reward for r in group.rollouts}) > 1 else None

    def credit(kept: list[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        return [advantage_rows(group, drawn, token_mean) for group in kept]

    def loss(
        logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch"
    ) -> "tuple[torch.Tensor, dict[str, float]]":
        return clipped_loss(logprobs, entropy, batch, clip, clip)

    return Algorithm(draw, plus_minus_one, keep, credit, loss)


def plus_minus_one(problem: Problem, rollout: Rollout) -> float | None:
    return None if rollout.correct is None else 1.0 if rollout.correct else -1.0


def window(count: int, size: int, step: int, seed: int) -> list[int]:
    """The `step`-th `size` indices of an endless shuffled walk over `count` things: a function of (seed, step)."""
    chosen: list[int] = []
    at = step * size
    while len(chosen) < min(size, count):
        epoch, i = divmod(at, count)
        order = list(range(count))
        random.Random(f"{seed}/draw/{epoch}").shuffle(order)
        if order[i] not in chosen:  # an epoch's end may meet the next one's start
            chosen.append(order[i])
        at += 1
    return chosen


def advantage_rows(group: Group, drawn: Sequence[Group], token_mean: bool) -> "list[Row]":
    """Rows with GRPO's advantages. Over all that was drawn in the step weights add up to one, whatever the groups' sizes."""
    from whetstone.batch import Row

    rewards = [r.reward for r in group.rollouts]
    mean = sum(rewards) / len(rewards)
    spread = (sum((x - mean) ** 2 for x in rewards) / len(rewards)) ** 0.5
    tokens = sum(len(r.ids) for g in drawn for r in g.rollouts)
    rollouts = sum(len(g.rollouts) for g in drawn)
    rows = []
    for rollout, reward in zip(group.rollouts, rewards, strict=True):
        n = len(rollout.ids)
        advantage = (reward - mean) / (spread + 1e-6)
        rows.append(
            Row(
                [*rollout.prompt_ids, *rollout.ids],
                prompt=len(rollout.prompt_ids),
                weights=1 / tokens if token_mean else 1 / (rollouts * n),
                token={"advantage": [advantage] * n, "old": rollout.logprobs},
            )
        )
    return rows


def clipped_loss(
    logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch", low: float, high: float
) -> "tuple[torch.Tensor, dict[str, float]]":
    """-min(r A, clip(r, 1 - low, 1 + high) A), weighted; r = pi / pi_old a token.

    The sums beside the loss become means over the step when divided by the sum `weight`.
    """
    import torch

    ratio = (logprobs - batch.token["old"]).clamp(-20, 20).exp()
    advantage = batch.token["advantage"]
    clipped = ratio.clamp(1 - low, 1 + high)
    loss = -(batch.weights * torch.minimum(ratio * advantage, clipped * advantage)).sum()
    with torch.no_grad():
        gap = (logprobs - batch.token["old"]).abs()
        sums = {
            "weight": float(batch.weights.sum()),
            "entropy": float((batch.weights * entropy).sum()),
            "clipped": float((batch.weights * (clipped != ratio)).sum()),
            "sampler_gap": float((batch.weights * gap).sum()),
        }
    return loss, sums
