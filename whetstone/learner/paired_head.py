"""The head of a large vocabulary on a CPU with AVX512-BF16: products in bf16 with sums in fp32, the ids in blocks.

As wide_head.py, with a block's logits the other way round, (b, N): the products' vectors then hold tokens, so the weight needs
no other layout, and a pass over the logits computes all tokens' sums side by side. Logits are not rounded.

Letters: N scored tokens, C hidden width, V ids in use, b of a block.
"""

from collections.abc import Iterator

import numpy as np
import torch

from whetstone.decode.cpu_kernels import array, compiled, exp, from_fp32, uninitialised
from whetstone.decode.packed_product import PADDING, PackedProduct
from whetstone.learner.wide_head import results

BLOCK = 2 << 20  # logits of a block
LEAST = 256  # ids of a block
HALF = torch.bfloat16


class PairedLogProbs(torch.autograd.Function):
    """hidden (N, C), weight (V, C), targets and temperature (N,) -> log-probabilities and entropies, (N,) each."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature):  # type: ignore[override]
        blocks = _Blocks(hidden, weight, temperature)
        highest = torch.full((len(targets),), -1e30)  # logit so far, to which the sums are relative
        total, weighed, own = (
            torch.zeros(len(targets)) for _ in range(3)
        )  # of exp(z), of exp(z) z, the target's logit
        sums = [array(x) for x in (highest, total, weighed, own)]
        for first, _, z in blocks:
            add_up(z, blocks.cold, first, array(targets), *sums)
        return results(ctx, (hidden, weight, targets, temperature), highest, total, weighed, own)

    @staticmethod
    def backward(ctx, grad, grad_entropy):  # type: ignore[override]
        hidden, weight, targets, temperature, totals, entropy = ctx.saved_tensors
        blocks = _Blocks(hidden, weight, temperature)
        scale = (torch.zeros_like(entropy) if grad is None else grad) / temperature
        of_entropy = torch.zeros_like(entropy) if grad_entropy is None else grad_entropy / temperature
        given = [array(x.contiguous()) for x in (targets, totals, entropy, scale, of_entropy)]
        d_hidden = torch.zeros(hidden.shape)
        d_weight = uninitialised(weight.shape, torch.float32) if ctx.needs_input_grad[1] else None
        for first, narrow, z in blocks:
            d_z = uninitialised(z.shape, HALF)  # (b, N)
            differentiate(z, blocks.cold, first, *given, array(d_z))
            if d_weight is not None:
                d_weight[first : first + len(z)] = d_z @ blocks.hidden
            d_hidden += d_z.T @ narrow
        return d_hidden.to(hidden.dtype), d_weight, None, None


class _Blocks:
    """The blocks of ids: the first id, the weight in bf16 (b, C), and the logits (b, N), which the next block's overwrite."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor, temperature: torch.Tensor):
        self.hidden, self.all = hidden.to(HALF), weight
        self.cold = array((1 / temperature).float())  # (N,) that logits are multiplied by
        self.size = min(len(weight), max(LEAST, BLOCK // len(hidden)))
        self.product = PackedProduct([(self.hidden, None)])
        self.buffer = uninitialised((self.size * len(hidden) + PADDING,), torch.float32)

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
        for first in range(0, len(self.all), self.size):
            narrow = self.all[first : first + self.size].to(HALF)
            yield first, narrow, array(self.product(narrow, self.buffer))


@compiled
def add_up(z, cold, first, targets, highest, total, weighed, own):
    """Add a block's logits z (b, N), of which the first is that of id `first`, to the sums (N,); z is used up."""
    ids, tokens = z.shape
    higher = highest.copy()
    for i in range(ids):
        for n in range(tokens):
            z[i, n] *= cold[n]
        for n in range(tokens):
            higher[n] = max(higher[n], z[i, n])
    for n in range(tokens):
        if first <= targets[n] < first + ids:
            own[n] = z[targets[n] - first, n]
        moved = highest[n] - higher[n]
        kept = exp(moved)
        weighed[n] = (weighed[n] + total[n] * moved) * kept
        total[n] *= kept
        highest[n] = higher[n]
    for i in range(ids):
        for n in range(tokens):
            relative = z[i, n] - highest[n]
            share = exp(relative)
            z[i, n] = share
            weighed[n] += share * relative
        for n in range(tokens):
            total[n] += z[i, n]


@compiled
def differentiate(z, cold, first, targets, totals, entropy, scale, of_entropy, d_z):
    """The gradient of a block's logits (b, N) at the temperature: d logprob / d z = onehot - p, dH / d z = -p (log p + H)."""
    ids, tokens = z.shape
    for i in range(ids):
        for n in range(tokens):
            log_p = z[i, n] * cold[n] - totals[n]
            own = scale[n] if targets[n] == first + i else np.float32(0)
            d_z[i, n] = from_fp32(own - exp(log_p) * ((log_p + entropy[n]) * of_entropy[n] + scale[n]), d_z)
