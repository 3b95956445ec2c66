"""Next-token training: the steps that mid-training and supervised fine-tuning share. The loop itself is in each room."""

import random
from collections.abc import Sequence

import torch

from whetstone.batch import Batch, Row, micro_batches
from whetstone.learner.learner import Learner


def next_token_loss(
    logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy with the denominator in the weights."""
    return -(batch.weights * logprobs).sum(), {"entropy": float((batch.weights * entropy.detach()).sum())}


def token_mean(rows: Sequence[Row]) -> Sequence[Row]:
    """Every scored token of the step weighs the same."""
    weight = 1.0 / max(1, sum(row.scored for row in rows))
    for row in rows:
        row.weights = weight
    return rows


def order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch: a function of (seed, epoch) alone, so that resuming needs a step number and nothing else."""
    indices = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(indices)
    return indices


def short_first(lengths: Sequence[int], seed: int, share: float) -> list[int]:
    """All indices: a random `share` of them from short to long, loosely (a length counts as up to twice itself), then the
    others in any order, so that what is trained on last is like the whole."""
    rng = random.Random(f"{seed}/short first")
    shuffled = list(range(len(lengths)))
    rng.shuffle(shuffled)
    count = round(share * len(lengths))
    keys = [length * (1 + rng.random()) for length in lengths]
    return sorted(shuffled[:count], key=keys.__getitem__) + shuffled[count:]


def plan_steps(
    sizes: Sequence[int], budget: int, seed: int, epochs: float, tokens: int = 0, first: Sequence[int] | None = None
) -> list[list[int]]:
    """Which items each optimizer step takes: items in the order of each epoch, at least `budget` tokens a step.

    `first` is the order of the first epoch, where it is not to be shuffled. Ends after `epochs` passes (1.5 is one and a
    half), or sooner once `tokens` are spent (0: no such limit).
    """
    if not sizes:
        return []
    total = sum(sizes)
    limit = min(int(epochs * total), tokens or int(epochs * total))
    steps: list[list[int]] = []
    step: list[int] = []
    used = spent = epoch = 0
    while spent < limit:
        for i in first if first is not None and epoch == 0 else order(len(sizes), seed, epoch):
            step.append(i)
            used += sizes[i]
            spent += sizes[i]
            if used >= budget:
                steps.append(step)
                step, used = [], 0
            if spent >= limit:
                break
        epoch += 1
    if step:
        steps.append(step)
    return steps


def mean_loss(learner: Learner, rows: Sequence[Row]) -> float:
    """Cross-entropy a scored token, without gradient."""
    batches = list(micro_batches([[row] for row in token_mean(rows)], learner.parallel.micro_batch_tokens))
    return float(sum(-(b.weights * lp).sum() for b, lp in zip(batches, learner.logprobs(batches), strict=True)))
