"""Logits -> a token and its log-probability.

Each rollout has a random stream of its own, keyed by (seed, problem, rollout): one uniform number a token, turned into a
token by the inverse of the cumulative distribution. What a rollout draws does not depend on its neighbours.

Logits are changed in the order in which transformers changes them: bias, repetition penalty, temperature, top-k, top-p,
min-p. The log-probability is that of the distribution that the token was drawn from, after all of these; greedy tokens
have that of temperature 1.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from whetstone.decode import cpu_kernels
from whetstone.decode.cpu_kernels import array
from whetstone.records import Sampling

CHUNK = 64  # numbers drawn from a stream at once


def _stream(seed: int, problem_id: str, index: int) -> np.random.Generator:
    key = hashlib.blake2b(f"{seed}/{problem_id}/{index}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def uniforms(seed: int, problem_id: str, index: int, n: int) -> np.ndarray:
    """The first `n` numbers in [0, 1) of a rollout's stream (Philox, counter-based)."""
    return _stream(seed, problem_id, index).random(n, dtype=np.float32)


def draws(seed: int, problem_id: str, index: int) -> Iterator[float]:
    """All numbers of a rollout's stream, one after the other."""
    stream = _stream(seed, problem_id, index)
    while True:
        yield from stream.random(CHUNK, dtype=np.float32).tolist()


def pick(
    logits: torch.Tensor, draws: torch.Tensor, sampling: Sampling, seen: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, V) logits and (n,) uniform draws -> (n,) token ids and (n,) log-probabilities.

    `seen`: (n, V) ids that occur in each row's prompt or completion, for the repetition penalty.
    """
    logits = shaped(logits if logits.dtype == torch.float64 else logits.float(), sampling, seen)
    cut = sampling.top_k or sampling.top_p < 1 or sampling.min_p > 0
    if logits.device.type == "cpu" and logits.dtype == torch.float32 and not (cut or sampling.bias):
        return _pick_on_cpu(logits, draws, sampling.temperature)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    logprobs = (logits / sampling.temperature).log_softmax(-1)
    if cut:
        logprobs = truncate(logprobs, sampling.top_k, sampling.top_p, sampling.min_p)
    cumulative = logprobs.exp().cumsum(-1)
    # Rounding: the last sum is near 1, not 1; the draw is scaled to it so that every draw has a token.
    tokens = torch.searchsorted(cumulative, (draws[:, None] * cumulative[:, -1:]), right=True)[:, 0]
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _pick_on_cpu(logits: torch.Tensor, draws: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in one pass over each row. Logits are finite: one that is forbidden is not for here."""
    tokens, logprobs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    found = array(tokens), array(logprobs)
    if temperature == 0:
        cpu_kernels.likeliest(array(logits.contiguous()), *found)
    else:
        cpu_kernels.draw(array(logits.contiguous()), np.float32(temperature), array(draws), *found)
    return tokens, logprobs


def shaped(logits: torch.Tensor, sampling: Sampling, seen: torch.Tensor | None) -> torch.Tensor:
    """Bias added, then what was seen made less likely: positive logits are divided by the penalty, others multiplied."""
    if sampling.bias:
        ids, amounts = zip(*sampling.bias, strict=True)
        at = torch.tensor(ids, device=logits.device)
        logits = logits.index_add(-1, at, torch.tensor(amounts, device=logits.device).expand(len(logits), -1))
    if seen is not None and sampling.repetition_penalty != 1:
        rarer = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(seen, rarer, logits)
    return logits


def truncate(logprobs: torch.Tensor, top_k: int, top_p: float, min_p: float = 0.0) -> torch.Tensor:
    """Keep the `top_k` likeliest; of these, the fewest likeliest that hold `top_p` of the mass; of these, those at least
    `min_p` times as likely as the likeliest. Each time the rest is renormalised.

    Top-p: Holtzman et al. 2020, arXiv 1904.09751. Min-p: Nguyen et al. 2024, arXiv 2407.01082.
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
