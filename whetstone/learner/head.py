"""The chunked head: log-probabilities and entropy of given tokens without the logits of a whole sequence.

A vocabulary of 200,064 in fp32 is 0.8 MB a token, 13 GB for a 16k row. Here the hidden states go through the head a
chunk at a time, in fp32, forward and backward; the backward pass computes each chunk's logits again.

Some models bend their logits on the way out. `output_rule` finds out which of the known ways a model has by comparing with
its own logits of a few tokens, and refuses a model with another.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from whetstone.model import hidden_states

CHUNK = 1024  # tokens; their logits are the only ones alive
PROBE = 4  # tokens; a model's own logits of them show its rule


@dataclass(frozen=True)
class OutputRule:
    """From the head's product z to logits: `scale` z (Cohere, Granite), or `cap` tanh(scale z / cap) (Gemma 2, eq. in its
    section 2)."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        z = z if self.scale == 1 else z * self.scale
        return z if self.cap is None else self.cap * torch.tanh(z / self.cap)

    def backward(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Of the logits -> of z, in place. d/dz of cap tanh(z / cap) is 1 - (logits / cap)^2."""
        if self.cap is not None:
            gradient *= 1 - (logits / self.cap).square()
        return gradient if self.scale == 1 else gradient.mul_(self.scale)


PLAIN = OutputRule()


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, rule, chunk):  # type: ignore[override]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        w, b = weight.to(wide), None if bias is None else bias.to(wide)
        logprobs = torch.empty(len(targets), dtype=wide, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            logits = rule(F.linear(hidden[part].to(wide), w, b)) / temperature[part, None]  # (chunk, V)
            total = logits.logsumexp(-1)
            logprobs[part] = logits.gather(-1, targets[part, None])[:, 0] - total
            entropy[part] = total - (logits.softmax(-1) * logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, temperature, entropy)
        ctx.rule, ctx.chunk = rule, chunk
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, grad, grad_entropy):  # type: ignore[override]
        """With p the probabilities and H the entropy: d logprob / d logit = onehot - p, dH / d logit = -p (log p + H)."""
        hidden, weight, bias, targets, temperature, entropy = ctx.saved_tensors
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        w, b = weight.to(wide), None if bias is None else bias.to(wide)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(w)
        d_bias = None if b is None else torch.zeros_like(b)
        grad = torch.zeros_like(entropy) if grad is None else grad
        for at in range(0, len(targets), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            h = hidden[part].to(wide)
            heat = temperature[part, None]
            logits = ctx.rule(F.linear(h, w, b))  # (chunk, V), before the temperature
            scale = grad[part, None] / heat
            if grad_entropy is None:
                d_logits = (logits / heat).softmax(-1).mul_(-scale)
            else:
                log_p = (logits / heat).log_softmax(-1)
                weighed = (log_p + entropy[part, None]).mul_(grad_entropy[part, None] / heat).add_(scale)
                d_logits = log_p.exp_().mul_(weighed).neg_()
            d_logits.scatter_add_(-1, targets[part, None], scale)
            d_z = ctx.rule.backward(d_logits, logits)
            d_hidden[part] = (d_z @ w).to(hidden.dtype)
            d_weight += d_z.T @ h
            if d_bias is not None:
                d_bias += d_z.sum(0)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight.to(weight.dtype), d_bias, None, None, None, None


def chunked_logprobs(
    hidden: torch.Tensor,  # (N, C)
    weight: torch.Tensor,  # (V, C)
    targets: torch.Tensor,  # (N,)
    temperature: torch.Tensor,  # (N,)
    chunk: int = CHUNK,
    bias: torch.Tensor | None = None,  # (V,)
    rule: OutputRule = PLAIN,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax(rule(hidden W^T + bias) / temperature) at the targets, and the entropy in nats: (N,), (N,).

    Both have gradients with regard to hidden states, weight and bias; the entropy's costs nothing where it is not used.
    """
    return _ChunkedLogProbs.apply(hidden, weight, bias, targets, temperature, rule, chunk)


@torch.no_grad()
def output_rule(model: Any) -> OutputRule:
    """How a transformers causal model makes logits of its head's product.

    Raises ValueError when it is none of the known ways: its log-probabilities would be wrong.
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
        f"{type(model).__name__}: its logits are neither its head's product nor that scaled or capped as its config says, so "
        "log-probabilities computed here would not be the model's. Train a model of a class without such a step."
    )


def _known_rules(config: Any) -> list[OutputRule]:
    """Plain first; then every scale and cap that the config names (two families give `logits_scaling` opposite senses)."""
    scaling = getattr(config, "logits_scaling", None)
    scales = [getattr(config, "logit_scale", None), getattr(config, "lm_head_multiplier", None), scaling]
    scales = [1.0, *(s for s in scales if s), *([1 / scaling] if scaling else [])]
    return [OutputRule(s, cap) for cap in (None, getattr(config, "final_logit_softcapping", None)) for s in scales]
