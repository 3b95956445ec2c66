"""How far a student's next-token distribution is from a teacher's, over the whole vocabulary, chunk by chunk.

As in head.py, logits of a whole sequence are never held, neither the student's nor the teacher's. With p the student's and q
the teacher's probabilities at a position (Agarwal et al. 2024, GKD, arXiv 2306.13649, section 3):

forward          KL(q || p) = Σ q log(q/p)
reverse          KL(p || q) = Σ p log(p/q)
jensen_shannon   β KL(q || m) + (1-β) KL(p || m), m = β q + (1-β) p      GKD, eq. 1

The gradient of each with respect to the student's logits is p (g - Σ p g) / temperature, with g the derivative to p:
-q/p, log(p/q), (1-β) log(p/m).

Letters: N scored tokens, n of a chunk, C hidden width of the student, K of the teacher, V ids in use.
"""

from typing import Any, Literal

import torch

from whetstone.learner.head import CHUNK, _Head

Divergence = Literal["reverse", "forward", "jensen_shannon"]


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, taught, teacher, targets, temperature, kind, beta, chunk):  # type: ignore[override]
        student, other = _Head(hidden, weight, None), _Head(taught, teacher, None)
        value = torch.empty(len(targets), dtype=student.wide, device=hidden.device)
        logprobs, entropy = torch.empty_like(value), torch.empty_like(value)
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            log_p, log_q = _log_probs(student, hidden[part], other, taught[part], temperature[part])
            value[part] = divergence(log_p, log_q, kind, beta)
            logprobs[part] = log_p.gather(-1, targets[part, None])[:, 0]
            entropy[part] = -(log_p.exp() * log_p).sum(-1)
        ctx.save_for_backward(hidden, weight, taught, teacher, temperature)
        ctx.options = kind, beta, chunk
        ctx.mark_non_differentiable(logprobs, entropy)
        return value, logprobs, entropy

    @staticmethod
    def backward(ctx, grad, *_):  # type: ignore[override]
        hidden, weight, taught, teacher, temperature = ctx.saved_tensors
        kind, beta, chunk = ctx.options
        student, other = _Head(hidden, weight, None), _Head(taught, teacher, None)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=student.wide) if ctx.needs_input_grad[1] else None
        for at in range(0, len(grad), chunk):
            part = slice(at, at + chunk)
            log_p, log_q = _log_probs(student, hidden[part], other, taught[part], temperature[part])
            d_z = slope(log_p, log_q, kind, beta).mul_((grad[part] / temperature[part])[:, None])
            d_hidden[part] = student.product(d_z, student.weight).to(hidden.dtype)
            if d_weight is not None:
                student.add_product(d_weight, d_z.T, hidden[part].to(d_z.dtype))
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), *(None,) * 7


def _log_probs(
    student: _Head, hidden: torch.Tensor, teacher: _Head, taught: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, C), (n, K), (n,) -> log-probabilities of student and teacher, (n, V) each."""
    heat = temperature[:, None]
    return tuple((head.logits(x) / heat).log_softmax(-1) for head, x in ((student, hidden), (teacher, taught)))


def divergence(log_p: torch.Tensor, log_q: torch.Tensor, kind: Divergence, beta: float = 0.5) -> torch.Tensor:
    """Log-probabilities of student and teacher, (n, V) each -> (n,), in nats."""
    if kind == "forward":
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    if kind == "reverse":
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    log_m = mixture(log_p, log_q, beta)
    return beta * (log_q.exp() * (log_q - log_m)).sum(-1) + (1 - beta) * (log_p.exp() * (log_p - log_m)).sum(-1)


def slope(log_p: torch.Tensor, log_q: torch.Tensor, kind: Divergence, beta: float = 0.5) -> torch.Tensor:
    """The gradient of `divergence` with respect to the student's logits over the temperature, (n, V)."""
    p = log_p.exp()
    if kind == "forward":
        return p - log_q.exp()
    g = log_p - log_q if kind == "reverse" else (1 - beta) * (log_p - mixture(log_p, log_q, beta))
    return p * (g - (p * g).sum(-1, keepdim=True))


def mixture(log_p: torch.Tensor, log_q: torch.Tensor, beta: float) -> torch.Tensor:
    """log(β q + (1-β) p), (n, V)."""
    shares = torch.tensor([beta, 1 - beta], dtype=log_p.dtype, device=log_p.device).log()
    return torch.logaddexp(log_q + shares[0], log_p + shares[1])


def chunked_divergence(
    hidden: torch.Tensor,  # (N, C), with a gradient
    weight: torch.Tensor,  # (V, C), with a gradient
    taught: torch.Tensor,  # (N, K)
    teacher: torch.Tensor,  # (V, K)
    targets: torch.Tensor,  # (N,)
    temperature: torch.Tensor,  # (N,), of both
    kind: Divergence,
    beta: float = 0.5,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The divergence at each position, and without gradient the student's log-probability of the target and its entropy.

    (N,) each.
    """
    return _Chunked.apply(hidden, weight, taught, teacher, targets, temperature, kind, beta, chunk)


class Distilled(torch.nn.Module):
    """The root module of a student that has a teacher: its forward returns the divergence of each scored token.

    The teacher is no submodule: it is neither trained nor saved nor sharded.
    """

    def __init__(self, model: Any, vocabulary: int, teacher: Any, kind: Divergence, beta: float = 0.5):
        super().__init__()
        self.model = model
        self.vocabulary, self.kind, self.beta = vocabulary, kind, beta
        self._teacher = (teacher.requires_grad_(False).eval(),)

    def forward(self, batch: Any, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor, ...]:
        """(divergence, log-probability, entropy) of each scored token, (N,) each."""
        from whetstone.learner.learner import last_hidden

        hidden = last_hidden(self.model, batch)[batch.scored]
        with torch.no_grad():
            (teacher,) = self._teacher
            taught = last_hidden(teacher, batch)[batch.scored]
            head = teacher.get_output_embeddings().weight[: self.vocabulary]
        if not torch.is_tensor(temperature):
            temperature = torch.full_like(batch.weights, temperature)
        with torch.autocast(hidden.device.type, enabled=False):
            weight = self.model.get_output_embeddings().weight[: self.vocabulary]
            return chunked_divergence(hidden, weight, taught, head, batch.targets, temperature, self.kind, self.beta)
