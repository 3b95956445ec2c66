"""Next-token training: what mid-training and supervised fine-tuning share. The loop itself is in each room."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from whetstone.batch import Batch, Row, micro_batches
from whetstone.learner.learner import Learner
from whetstone.learner.token_store import TokenStore

ROWS_AT_ONCE = 1024  # rows of a validation that are in memory together


def next_token_loss(
    logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy of the scored tokens, and their mean entropy. `logprobs` and `entropy` are (N,)."""
    return -(batch.weights * logprobs).sum(), {"entropy": float((batch.weights * entropy.detach()).sum())}


def token_mean(rows: Sequence[Row]) -> list[Row]:
    """The rows of a step, weighted so that every scored token counts the same and the loss is the mean per token."""
    weight = 1.0 / max(1, sum(row.scored for row in rows))
    return [replace(row, weights=weight) for row in rows]


def mean_loss(learner: Learner, rows: TokenStore) -> float:
    """Cross-entropy per scored token of all rows, without gradient."""
    total = torch.zeros(())
    weight = 1.0 / max(1, rows.scored)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = range(start, min(start + ROWS_AT_ONCE, len(rows)))
        groups = [[replace(rows[i], weights=weight)] for i in part]
        batches = list(micro_batches(groups, learner.parallel.micro_batch_tokens))
        for batch, logprobs in zip(batches, learner.logprobs(batches), strict=True):
            total = total - (batch.weights * logprobs.cpu()).sum()
    return float(total)
