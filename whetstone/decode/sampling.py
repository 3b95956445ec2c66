"""Logits -> a token and its log-probability.

Each rollout has its own random stream, keyed by (seed, problem, rollout): one uniform number per token, which becomes a token
by the inverse of the cumulative distribution. So a rollout does not depend on what is sampled beside it.

Logits are changed in transformers' order: bias, repetition penalty, temperature, top-k, top-p, min-p. The log-probability is
that in the distribution which the token was drawn from, after all of these. For greedy tokens it is that of temperature 1.

Letters: B rows, V vocabulary.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from whetstone.decode import cpu_sampling
from whetstone.decode.cpu_kernels import array
from whetstone.records import Sampling

CHUNK = 64  # numbers that are taken from a stream at once
LEAST_DRAW = 2.0**-25  # for 0, which would choose the first token whatever its probability; the next number is 2 ** -24
COLDEST, HOTTEST = 1e-6, 1e30  # temperatures beyond these give the same tokens, and fp32 cannot divide by them
FORBIDDEN = -1e30  # logit in place of minus infinity, for kernels that compute with finite numbers


def draws(seed: int, problem_id: str, index: int) -> Iterator[float]:
    """The uniform numbers in [0, 1) of a rollout's stream (Philox, counter-based), one by one, without end."""
    key = hashlib.blake2b(f"{seed}/{problem_id}/{index}".encode(), digest_size=16).digest()
    stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
    while True:
        yield from stream.random(CHUNK, dtype=np.float32).tolist()


def pick(
    logits: torch.Tensor, draws: torch.Tensor, sampling: Sampling, occurring: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, V) and uniform draws (B,) -> token ids (B,) and log-probabilities (B,).

    `occurring` (B, V): which ids occur in each row's prompt or completion, for the repetition penalty.
    """
    logits = adjust_logits(logits if logits.dtype == torch.float64 else logits.float(), sampling, occurring)
    draws = draws.clamp(min=LEAST_DRAW)
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return _pick_on_cpu(logits.clamp(min=FORBIDDEN) if sampling.bias else logits, draws, sampling)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    logprobs = (logits / _temperature(sampling)).log_softmax(-1)
    if sampling.top_k or sampling.top_p < 1 or sampling.min_p > 0:
        logprobs = truncate_logprobs(logprobs, min(sampling.top_k, logits.shape[-1]), sampling.top_p, sampling.min_p)
    cumulative = logprobs.exp().cumsum(-1)
    # by rounding the last sum is not exactly 1: draws are scaled to it, so that each has a token
    tokens = torch.searchsorted(cumulative, (draws[:, None] * cumulative[:, -1:]), right=True)[:, 0]
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _pick_on_cpu(logits: torch.Tensor, draws: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by one call, for finite logits."""
    tokens, logprobs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    out = array(tokens), array(logprobs)
    if sampling.temperature == 0:
        cpu_sampling.greedy(array(logits.contiguous()), *out)
        return tokens, logprobs
    top_k = min(sampling.top_k, logits.shape[-1])
    limits = np.float32(_temperature(sampling)), top_k, float(sampling.top_p), np.float32(sampling.min_p)
    cpu_sampling.sample(array(logits.contiguous()), *limits, array(draws), *out)
    return tokens, logprobs


def _temperature(sampling: Sampling) -> float:
    return min(max(sampling.temperature, COLDEST), HOTTEST)


def adjust_logits(logits: torch.Tensor, sampling: Sampling, occurring: torch.Tensor | None) -> torch.Tensor:
    """Logits (B, V) plus the bias; then, for ids that occur already, positive ones are divided by the repetition penalty and
    others multiplied by it (CTRL, Keskar et al. 2019, arXiv 1909.05858)."""
    if sampling.bias:
        ids, amounts = zip(*sampling.bias, strict=True)
        amounts = torch.tensor(amounts, dtype=logits.dtype, device=logits.device)
        logits = logits.index_add(-1, torch.tensor(ids, device=logits.device), amounts.expand(len(logits), -1))
    if occurring is not None and sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits = torch.where(occurring, penalised, logits)
    return logits


def truncate_logprobs(logprobs: torch.Tensor, top_k: int, top_p: float, min_p: float = 0.0) -> torch.Tensor:
    """Log-probabilities (B, V) after top-k, then top-p, then min-p, each renormalised; minus infinity for the tokens removed.

    Top-k keeps the k most probable tokens; top-p (Holtzman et al. 2020, arXiv 1904.09751) the smallest set of the most probable
    that holds `top_p` of the mass; min-p (Nguyen et al. 2024, arXiv 2407.01082) those at least `min_p` times as probable as
    the most probable.
    """
    ordered, order = logprobs.sort(-1, descending=True)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if top_k:
        drop[:, top_k:] = True
    if top_p < 1:
        kept = ordered.masked_fill(drop, float("-inf")).softmax(-1)
        drop |= kept.cumsum(-1) - kept >= top_p
    if min_p > 0:
        drop |= ordered < ordered[:, :1] + np.log(min_p)
    drop[:, 0] = False
    return logprobs.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), float("-inf")).log_softmax(-1)
