"""Logits -> a token and its log-probability at the temperature it was sampled with.

Each rollout has a random stream of its own, keyed by (seed, problem, rollout): one uniform number a token, turned into a
token by the inverse of the cumulative distribution. What a rollout draws does not depend on its neighbours.
"""

import hashlib

import numpy as np
import torch

from whetstone.records import Sampling


def uniforms(seed: int, problem_id: str, index: int, n: int) -> np.ndarray:
    """The first `n` numbers in [0, 1) of a rollout's stream (Philox, counter-based)."""
    key = hashlib.blake2b(f"{seed}/{problem_id}/{index}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).random(n, dtype=np.float32)


def pick(logits: torch.Tensor, draws: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, V) logits and (n,) uniform draws -> (n,) token ids and (n,) log-probabilities.

    Greedy (temperature 0) gives the log-probability at temperature 1. With top-k or top-p the log-probability is that of
    the truncated distribution.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    logprobs = (logits / sampling.temperature).log_softmax(-1)
    if sampling.top_k or sampling.top_p < 1:
        logprobs = truncate(logprobs, sampling.top_k, sampling.top_p)
    cumulative = logprobs.exp().cumsum(-1)
    # Rounding: the last sum is near 1, not 1; the draw is scaled to it so that every draw has a token.
    tokens = torch.searchsorted(cumulative, (draws[:, None] * cumulative[:, -1:]), right=True)[:, 0]
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def truncate(logprobs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Keep the `top_k` likeliest, then the fewest likeliest that hold `top_p` of the mass; renormalise."""
    ordered, order = logprobs.sort(-1, descending=True)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if top_k:
        drop[:, top_k:] = True
    if top_p < 1:
        before = ordered.exp().cumsum(-1) - ordered.exp()
        drop |= before >= top_p
    drop[:, 0] = False
    return logprobs.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), float("-inf")).log_softmax(-1)
