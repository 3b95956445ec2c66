"""Next-token training: the steps that mid-training and supervised fine-tuning share. The loop itself is in each room."""

from collections.abc import Sequence

import torch

from whetstone.batch import Batch, Row, micro_batches
from whetstone.learner.learner import Learner
from whetstone.learner.token_store import TokenStore

ROWS_AT_ONCE = 1024  # of a validation


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


def mean_loss(learner: Learner, rows: TokenStore) -> float:
    """Cross-entropy a scored token, without gradient; some rows in memory at a time."""
    total = torch.zeros(())
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = [rows[i] for i in range(start, min(start + ROWS_AT_ONCE, len(rows)))]
        for row in some:
            row.weights = 1.0 / max(1, rows.scored)
        batches = list(micro_batches([[row] for row in some], learner.parallel.micro_batch_tokens))
        for batch, logprobs in zip(batches, learner.logprobs(batches), strict=True):
            total = total - (batch.weights * logprobs.cpu()).sum()
    return float(total)
