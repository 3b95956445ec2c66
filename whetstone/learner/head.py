"""The chunked head: log-probabilities and entropy of given tokens without the logits of a whole sequence.

With a vocabulary of 200,064 the logits of one token take 0.8 MB in fp32, those of a row of 16k tokens 13 GB. Here the hidden
states go through the head in chunks, forward and backward, with logits in fp32; the backward pass recomputes each chunk's.
On a CPU a large vocabulary is divided instead of the tokens (wide_head.py).

A model whose logits are more than this product (a bias, a scale, a soft cap) is refused when it is loaded (model.py).

Letters: N scored tokens, n of a chunk, C hidden width, V ids in use.
"""

from functools import lru_cache
from types import ModuleType

import torch

from whetstone.learner.paired_head import PairedLogProbs
from whetstone.learner.wide_head import FROM, BlockedLogProbs
from whetstone.run.kernels import working_kernels

CHUNK = 1024  # tokens whose logits are in memory
GPU_CHUNK = 2048  # with bf16 products: logits, and a gradient in bf16, take as much as three times CHUNK


@lru_cache
def gpu_kernels(device: torch.device) -> ModuleType | None:
    """The kernels of head_kernels.py; None without a GPU, or if they do not work on it."""
    use = "training on the GPU without kernels of its own for the head"
    return working_kernels("whetstone.learner.head_kernels", use, device)


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk, products):  # type: ignore[override]
        head = _Head(hidden, weight, products)
        logprobs = torch.empty(len(targets), dtype=head.wide, device=hidden.device)
        totals, entropy = torch.empty_like(logprobs), torch.empty_like(logprobs)
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            z = head.logits(hidden[part])  # (chunk, V)
            logprobs[part], totals[part], entropy[part] = head.statistics(z, targets[part], temperature[part])
        ctx.save_for_backward(hidden, weight, targets, temperature, totals, entropy)
        ctx.options = chunk, products
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad, grad_entropy):  # type: ignore[override]
        hidden, weight, targets, temperature, totals, entropy = ctx.saved_tensors
        chunk, products = ctx.options
        head = _Head(hidden, weight, products)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=head.wide) if ctx.needs_input_grad[1] else None
        grad = torch.zeros_like(entropy) if grad is None else grad
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            inputs = [x[part] for x in (targets, temperature, totals, entropy, grad)]
            d_z = head.gradient(
                head.logits(hidden[part]), *inputs, None if grad_entropy is None else grad_entropy[part]
            )
            d_hidden[part] = head.product(d_z, head.weight).to(hidden.dtype)
            if d_weight is not None:
                head.add_product(d_weight, d_z.T, hidden[part].to(d_z.dtype))
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None, None, None


class _Head:
    """The logits of a chunk, their statistics and their gradient.

    `products` is the type that factors of matrix products are rounded to, on a GPU. The sums are fp32 in any case.
    """

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor, products: torch.dtype | None):
        self.wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.products = products
        self.weight = weight.to(products or self.wide)  # (V, C)
        self.kernels = gpu_kernels(hidden.device) if self.wide == torch.float32 else None

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b if self.products is None else torch.mm(a, b, out_dtype=self.wide)

    def add_product(self, to: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        if self.products is None:
            to.addmm_(a, b)
        else:
            torch.addmm(to, a, b, out_dtype=self.wide, out=to)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, C) -> (n, V), before the temperature."""
        return self.product(hidden.to(self.products or self.wide), self.weight.T)

    def statistics(
        self, z: torch.Tensor, targets: torch.Tensor, temperature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(n, V), (n,), (n,) -> log-probabilities of the targets, log-sum-exps, entropies: (n,) each."""
        if self.kernels is not None:
            return self.kernels.statistics(z, targets, temperature)
        logits = z / temperature[:, None]
        total = logits.logsumexp(-1)
        entropy = total - (logits.softmax(-1) * logits).sum(-1)
        return logits.gather(-1, targets[:, None])[:, 0] - total, total, entropy

    def gradient(
        self, z: torch.Tensor, targets: torch.Tensor, temperature: torch.Tensor, totals: torch.Tensor,
        entropy: torch.Tensor, grad: torch.Tensor, grad_entropy: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        """The gradient of z, (n, V). All arguments but z are (n,).

        With probabilities p and entropy H: d logprob / d logit = onehot - p, and dH / d logit = -p (log p + H).
        """
        if self.kernels is not None:
            inputs = targets, temperature, totals, entropy, grad, grad_entropy
            return self.kernels.gradient(z, *inputs, self.products or self.wide)
        heat = temperature[:, None]
        scale = grad[:, None] / heat
        if grad_entropy is None:
            d_logits = (z / heat).softmax(-1).mul_(-scale)
        else:
            log_p = (z / heat).log_softmax(-1)
            weighed = (log_p + entropy[:, None]).mul_(grad_entropy[:, None] / heat).add_(scale)
            d_logits = log_p.exp_().mul_(weighed).neg_()
        d_logits.scatter_add_(-1, targets[:, None], scale)
        return d_logits.to(self.products or self.wide)


def chunked_logprobs(
    hidden: torch.Tensor,  # (N, C)
    weight: torch.Tensor,  # (V, C)
    targets: torch.Tensor,  # (N,)
    temperature: torch.Tensor,  # (N,)
    chunk: int | None = None,
    products: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax(hidden W^T / temperature) at the targets, and the entropy in nats: (N,) each.

    Both have gradients for hidden states and weight; the entropy's costs nothing if it is not used. With `products` =
    bfloat16, for a GPU that computes in it, factors of the matrix products are rounded, as in the model's other layers and in
    the sampler; sums and logits stay fp32. On a CPU that is for a large vocabulary alone.
    """
    if chunk is None and weight.device.type == "cpu" and len(weight) >= FROM:
        if products is torch.bfloat16 and len(targets):
            return PairedLogProbs.apply(hidden, weight, targets, temperature)
        return BlockedLogProbs.apply(hidden, weight, targets, temperature)
    if weight.device.type == "cpu":
        products = None
    chunk = chunk or (CHUNK if products is None else GPU_CHUNK)
    return _ChunkedLogProbs.apply(hidden, weight, targets, temperature, chunk, products)
