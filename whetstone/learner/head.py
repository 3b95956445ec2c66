"""The chunked head: log-probabilities and entropy of given tokens without the logits of a whole sequence.

With a vocabulary of 200,064 the logits of one token take 0.8 MB in fp32, those of a row of 16k tokens 13 GB. Here the hidden
states go through the head in chunks, forward and backward, with logits in fp32; the backward pass recomputes each chunk's.

Some models scale or cap their logits. `output_rule` finds the model's rule by comparing with its own logits of a few tokens,
and refuses a model whose rule is not known.

Letters: N scored tokens, n of a chunk, C hidden width, V ids in use.
"""

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from whetstone.model import hidden_states
from whetstone.run.kernels import working_kernels

CHUNK = 1024  # tokens whose logits are in memory
GPU_CHUNK = 2048  # with bf16 products: logits, and a gradient in bf16, take as much as three times CHUNK
PROBE = 4  # tokens whose own logits show a model's rule


@dataclass(frozen=True)
class OutputRule:
    """From the head's product z to logits: `scale` z (Cohere, Granite), or `cap` tanh(scale z / cap) (Gemma 2, section 2)."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        z = z if self.scale == 1 else z * self.scale
        return z if self.cap is None else self.cap * torch.tanh(z / self.cap)

    def backward(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Gradient of the logits -> gradient of z, in place. d/dz of cap tanh(z / cap) is 1 - (logits / cap)^2."""
        if self.cap is not None:
            gradient *= 1 - (logits / self.cap).square()
        return gradient if self.scale == 1 else gradient.mul_(self.scale)


PLAIN = OutputRule()


@lru_cache
def gpu_kernels(device: torch.device) -> ModuleType | None:
    """The kernels of head_kernels.py; None without a GPU, or if they do not work on it."""
    use = "training on the GPU without kernels of its own for the head"
    return working_kernels("whetstone.learner.head_kernels", use, device)


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, rule, chunk, products):  # type: ignore[override]
        head = _Head(hidden, weight, bias, rule, products)
        logprobs = torch.empty(len(targets), dtype=head.wide, device=hidden.device)
        totals, entropy = torch.empty_like(logprobs), torch.empty_like(logprobs)
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            z = head.logits(hidden[part])  # (chunk, V)
            logprobs[part], totals[part], entropy[part] = head.statistics(z, targets[part], temperature[part])
        ctx.save_for_backward(hidden, weight, bias, targets, temperature, totals, entropy)
        ctx.options = rule, chunk, products
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad, grad_entropy):  # type: ignore[override]
        hidden, weight, bias, targets, temperature, totals, entropy = ctx.saved_tensors
        rule, chunk, products = ctx.options
        head = _Head(hidden, weight, bias, rule, products)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=head.wide)
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=head.wide)
        grad = torch.zeros_like(entropy) if grad is None else grad
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            inputs = [x[part] for x in (targets, temperature, totals, entropy, grad)]
            d_z = head.gradient(
                head.logits(hidden[part]), *inputs, None if grad_entropy is None else grad_entropy[part]
            )
            d_hidden[part] = head.product(d_z, head.weight).to(hidden.dtype)
            head.add_product(d_weight, d_z.T, hidden[part].to(d_z.dtype))
            if d_bias is not None:
                d_bias += d_z.sum(0, dtype=head.wide)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight.to(weight.dtype), d_bias, None, None, None, None, None


class _Head:
    """The logits of a chunk, their statistics and their gradient.

    `products` is the type that factors of matrix products are rounded to, on a GPU. The sums are fp32 in any case.
    """

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rule: OutputRule,
        products: torch.dtype | None,
    ):  # fmt: skip
        self.wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.products = products
        self.weight = weight.to(products or self.wide)  # (V, C)
        self.bias = None if bias is None else bias.to(self.wide)
        self.rule = rule
        self.kernels = gpu_kernels(hidden.device) if rule == PLAIN and self.wide == torch.float32 else None

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b if self.products is None else torch.mm(a, b, out_dtype=self.wide)

    def add_product(self, to: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        if self.products is None:
            to.addmm_(a, b)
        else:
            torch.addmm(to, a, b, out_dtype=self.wide, out=to)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, C) -> (n, V), before rule and temperature."""
        if self.products is None:
            return F.linear(hidden.to(self.wide), self.weight, self.bias)
        z = self.product(hidden.to(self.products), self.weight.T)
        return z if self.bias is None else z.add_(self.bias)

    def statistics(
        self, z: torch.Tensor, targets: torch.Tensor, temperature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(n, V), (n,), (n,) -> log-probabilities of the targets, log-sum-exps, entropies: (n,) each."""
        if self.kernels is not None:
            return self.kernels.statistics(z, targets, temperature)
        logits = self.rule(z) / temperature[:, None]
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
        logits, heat = self.rule(z), temperature[:, None]
        scale = grad[:, None] / heat
        if grad_entropy is None:
            d_logits = (logits / heat).softmax(-1).mul_(-scale)
        else:
            log_p = (logits / heat).log_softmax(-1)
            weighed = (log_p + entropy[:, None]).mul_(grad_entropy[:, None] / heat).add_(scale)
            d_logits = log_p.exp_().mul_(weighed).neg_()
        d_logits.scatter_add_(-1, targets[:, None], scale)
        return self.rule.backward(d_logits, logits).to(self.products or self.wide)


def chunked_logprobs(
    hidden: torch.Tensor,  # (N, C)
    weight: torch.Tensor,  # (V, C)
    targets: torch.Tensor,  # (N,)
    temperature: torch.Tensor,  # (N,)
    chunk: int | None = None,
    bias: torch.Tensor | None = None,  # (V,)
    rule: OutputRule = PLAIN,
    products: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax(rule(hidden W^T + bias) / temperature) at the targets, and the entropy in nats: (N,) each.

    Both have gradients for hidden states, weight and bias; the entropy's costs nothing if it is not used. With `products` =
    bfloat16, for a GPU that computes in it, factors of the matrix products are rounded, as in the model's other layers and in
    the sampler; sums and logits stay fp32.
    """
    chunk = chunk or (CHUNK if products is None else GPU_CHUNK)
    return _ChunkedLogProbs.apply(hidden, weight, bias, targets, temperature, rule, chunk, products)


@torch.no_grad()
def output_rule(model: Any) -> OutputRule:
    """The rule by which a transformers causal model makes logits from its head's product.

    Raises ValueError if it is none of the known ones: log-probabilities computed here would be wrong.
    """
    training, head = model.training, model.get_output_embeddings()
    ids = torch.arange(PROBE, device=head.weight.device)[None] % head.weight.shape[0]
    model.eval()
    positions = torch.arange(PROBE, device=ids.device)[None]
    hidden = hidden_states(model, ids, positions, lengths=[PROBE])
    own = model(input_ids=ids, position_ids=positions, use_cache=False, lengths=[PROBE]).logits.float()
    model.train(training)
    product = head(hidden).float()
    close = 1e-4 if head.weight.dtype in (torch.float32, torch.float64) else 2e-2
    for rule in _known_rules(model.config):
        if (rule(product) - own).abs().max() <= close * own.abs().max():
            return rule
    raise ValueError(
        f"{type(model).__name__}: its logits are neither its head's product, nor that product scaled or capped as its config "
        "says: log-probabilities computed here would not be the model's. Train a model of another class."
    )


def _known_rules(config: Any) -> list[OutputRule]:
    """The plain rule first, then every scale and cap in the config (two families use `logits_scaling` in opposite senses)."""
    scaling = getattr(config, "logits_scaling", None)
    scales = [getattr(config, "logit_scale", None), getattr(config, "lm_head_multiplier", None), scaling]
    scales = [1.0, *(s for s in scales if s), *([1 / scaling] if scaling else [])]
    return [OutputRule(s, cap) for cap in (None, getattr(config, "final_logit_softcapping", None)) for s in scales]
