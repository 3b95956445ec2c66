"""Floating-point operations of training, and how many the device could do: the two sides of the model FLOPs utilisation
(MFU; Chowdhery et al. 2022, PaLM, arXiv 2204.02311, appendix B).

Counted are the operations of the mathematics, forward and backward; a multiplication and an addition are two:

    6 N        per token, for N weights of the layers' matrices (2 forward, 2 for the inputs' gradient, 2 for the weights')
    6 V C      per scored token, for a head of C x V; other tokens do not reach the head
    12 L H D   per pair of tokens of which one attends to the other, for L layers of H heads of size D. A segment of n tokens
               has n (n + 1) / 2 such pairs, because attention is causal (4 forward: queries with keys, probabilities with
               values)

A prompt that rows share counts once. Recomputation (chunks of the head, activation checkpointing) is not counted, and neither
are norms, softmax, embedding lookups and the update. A weight that is not trained costs 4 instead of 6.
"""

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from whetstone.batch import Batch
from whetstone.learner.accelerators import known
from whetstone.learner.four_bit import size

PROBE_SECONDS = 0.1  # of matrix products, if the device's data sheet is not known


class Flops:
    """Operations of a transformers causal model whose head is used for the first `vocabulary` ids."""

    def __init__(self, model: Any, vocabulary: int):
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.pair = 12 * config.num_hidden_layers * config.num_attention_heads * size
        self.token = sum(_per_token(weight) for weight in _matrices(model))
        head = model.get_output_embeddings()  # weight (V, C) with unused slots; a scalar head is not counted
        self.scored = 0 if head is None else _per_token(head.weight) // head.weight.shape[0] * vocabulary

    def of(self, batch: Batch) -> int:
        """Forward and backward of a micro-batch."""
        pairs = sum((n * (n + 1) - p * (p + 1)) // 2 for n, p in zip(batch.lengths, batch.shared, strict=True))
        return self.of_tokens(batch.size, len(batch.targets)) + self.pair * pairs

    def of_tokens(self, tokens: int, scored: int) -> int:
        """The same without attention."""
        return self.token * tokens + self.scored * scored


def _matrices(model: Any) -> Iterator[torch.nn.Parameter]:
    """The weight matrices of the layers, without embedding and head."""
    ends = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part}
    return (p for p in model.parameters() if p.dim() > 1 and id(p) not in ends)


def _per_token(weight: torch.nn.Parameter) -> int:
    return (6 if weight.requires_grad else 4) * size(weight)


def peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second that the device can do: from its data sheet, or else measured once."""
    if device == "cuda" and dtype == torch.bfloat16 and (device_type := known(torch.cuda.get_device_name())):
        return device_type.flops
    return measured_peak(device, dtype, torch.get_num_threads())


@cache
def measured_peak(device: str, dtype: torch.dtype, threads: int) -> float:
    """The rate of the fastest of some square matrix products, with the threads that are set."""
    n = 4096 if device == "cuda" else 512
    a = torch.ones(n, n, device=device, dtype=dtype)
    best, end, done = float("inf"), time.perf_counter() + PROBE_SECONDS, 0
    while done < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best, done = min(best, time.perf_counter() - start), done + 1
    return 2 * n**3 / best
