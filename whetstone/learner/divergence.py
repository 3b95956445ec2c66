"""How far a student's next-token distribution is from a teacher's, chunk by chunk.

As in head.py, logits of a whole sequence are never held, neither the student's nor the teacher's. With p the student's and q
the teacher's probabilities at a position (Agarwal et al. 2024, GKD, arXiv 2306.13649, section 3):

forward          KL(q || p) = Σ q log(q/p)
reverse          KL(p || q) = Σ p log(p/q)
jensen_shannon   β KL(q || m) + (1-β) KL(p || m), m = β q + (1-β) p      GKD, eq. 1

The gradient of each with respect to the student's logits is p (g - Σ p g) / temperature, with g the derivative to p:
-q/p, log(p/q), (1-β) log(p/m).

The sums are over the whole vocabulary if the teacher is a model in this process (`Whole`). Of a teacher that lists its most
likely tokens (`Listed`), all other tokens are one outcome, the tail, for teacher and student alike. That divergence is never
larger than the whole one (data processing inequality), and it tells the student how much to put on the tail, not on which of
its tokens: within the tail the student's proportions stay.

Letters: N scored tokens, n of a chunk, C hidden width of the student, D of the teacher, V ids in use, K listed tokens,
O outcomes (V, or K + 1).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from whetstone.learner.head import CHUNK, _Head
from whetstone.learner.roots import last_hidden

Divergence = Literal["reverse", "forward", "jensen_shannon"]
NEVER = -1e4  # the log-probability of an outcome that is not there, for both: its terms are 0
SMALLEST_TAIL = 1e-6  # probability: listed log-probabilities are rounded, and their sum may come out as 1


@dataclass(frozen=True)
class Whole:
    """A teacher in this process."""

    hidden: torch.Tensor  # (N, D)
    head: torch.Tensor  # (V, D)

    def outcomes(
        self, log_p: torch.Tensor, part: slice, temperature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of student and teacher: (n, V) -> (n, O) each."""
        logits = _Head(self.hidden, self.head, None).logits(self.hidden[part])
        return log_p, (logits / temperature[part, None]).log_softmax(-1)

    def to_ids(self, slopes: torch.Tensor, log_p: torch.Tensor, part: slice) -> torch.Tensor:
        """A gradient of outcomes as one of the student's logits: (n, O), (n, V) -> (n, V)."""
        return slopes


@dataclass(frozen=True)
class Listed:
    """A teacher's log-probabilities of some tokens. Its own temperature is 1."""

    ids: torch.Tensor  # (N, K), each at most once per position; -1: no token
    logprobs: torch.Tensor  # (N, K)

    def outcomes(
        self, log_p: torch.Tensor, part: slice, temperature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        missing = self.ids[part] < 0
        ours = log_p.gather(-1, self.ids[part].clamp(min=0)).masked_fill(missing, NEVER)
        return _with_tail(ours), _with_tail(self.logprobs[part].to(log_p.dtype).masked_fill(missing, NEVER))

    def to_ids(self, slopes: torch.Tensor, log_p: torch.Tensor, part: slice) -> torch.Tensor:
        ids, unused = self.ids[part], log_p.shape[-1]
        tail = self.outcomes(log_p, part, log_p)[0][:, -1:]
        spread = log_p.new_empty(len(log_p), unused + 1)  # the last column takes what belongs to no token
        spread[:, :-1] = slopes[:, -1:] * (log_p - tail).exp()
        return spread.scatter_(-1, ids.where(ids >= 0, unused), slopes[:, :-1])[:, :-1]


def _with_tail(listed: torch.Tensor) -> torch.Tensor:
    """(n, K) -> (n, K + 1): the log-probability of all tokens that are not listed is the last."""
    tail = (1 - listed.exp().sum(-1, keepdim=True)).clamp(min=SMALLEST_TAIL).log()
    return torch.cat([listed, tail], -1)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, taught, targets, temperature, kind, beta, chunk):  # type: ignore[override]
        student = _Head(hidden, weight, None)
        value = torch.empty(len(targets), dtype=student.wide, device=hidden.device)
        logprobs, entropy = torch.empty_like(value), torch.empty_like(value)
        for at in range(0, len(targets), chunk):
            part = slice(at, at + chunk)
            log_p = _log_probs(student, hidden[part], temperature[part])
            value[part] = divergence(*taught.outcomes(log_p, part, temperature), kind, beta)
            logprobs[part] = log_p.gather(-1, targets[part, None])[:, 0]
            entropy[part] = -(log_p.exp() * log_p).sum(-1)
        ctx.save_for_backward(hidden, weight, temperature)
        ctx.taught, ctx.options = taught, (kind, beta, chunk)
        ctx.mark_non_differentiable(logprobs, entropy)
        return value, logprobs, entropy

    @staticmethod
    def backward(ctx, grad, *_):  # type: ignore[override]
        hidden, weight, temperature = ctx.saved_tensors
        taught, (kind, beta, chunk) = ctx.taught, ctx.options
        student = _Head(hidden, weight, None)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=student.wide) if ctx.needs_input_grad[1] else None
        for at in range(0, len(grad), chunk):
            part = slice(at, at + chunk)
            log_p = _log_probs(student, hidden[part], temperature[part])
            slopes = slope(*taught.outcomes(log_p, part, temperature), kind, beta)
            d_z = taught.to_ids(slopes, log_p, part).mul_((grad[part] / temperature[part])[:, None])
            d_hidden[part] = student.product(d_z, student.weight).to(hidden.dtype)
            if d_weight is not None:
                student.add_product(d_weight, d_z.T, hidden[part].to(d_z.dtype))
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), *(None,) * 6


def _log_probs(student: _Head, hidden: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """(n, C), (n,) -> (n, V)."""
    return (student.logits(hidden) / temperature[:, None]).log_softmax(-1)


def divergence(log_p: torch.Tensor, log_q: torch.Tensor, kind: Divergence, beta: float = 0.5) -> torch.Tensor:
    """Log-probabilities of student and teacher, (n, O) each -> (n,), in nats."""
    if kind == "forward":
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    if kind == "reverse":
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    log_m = mixture(log_p, log_q, beta)
    return beta * (log_q.exp() * (log_q - log_m)).sum(-1) + (1 - beta) * (log_p.exp() * (log_p - log_m)).sum(-1)


def slope(log_p: torch.Tensor, log_q: torch.Tensor, kind: Divergence, beta: float = 0.5) -> torch.Tensor:
    """The gradient of `divergence` with respect to the student's logits over the temperature, (n, O)."""
    p = log_p.exp()
    if kind == "forward":
        return p - log_q.exp()
    g = log_p - log_q if kind == "reverse" else (1 - beta) * (log_p - mixture(log_p, log_q, beta))
    return p * (g - (p * g).sum(-1, keepdim=True))


def mixture(log_p: torch.Tensor, log_q: torch.Tensor, beta: float) -> torch.Tensor:
    """log(β q + (1-β) p), (n, O)."""
    shares = torch.tensor([beta, 1 - beta], dtype=log_p.dtype, device=log_p.device).log()
    return torch.logaddexp(log_q + shares[0], log_p + shares[1])


def chunked_divergence(
    hidden: torch.Tensor,  # (N, C), with a gradient
    weight: torch.Tensor,  # (V, C), with a gradient
    taught: Whole | Listed,
    targets: torch.Tensor,  # (N,)
    temperature: torch.Tensor,  # (N,), of both
    kind: Divergence,
    beta: float = 0.5,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The divergence at each position, and without gradient the student's log-probability of the target and its entropy.

    (N,) each.
    """
    return _Chunked.apply(hidden, weight, taught, targets, temperature, kind, beta, chunk)


class Distilled(torch.nn.Module):
    """The root module of a student that has a teacher: its forward returns the divergence of each scored token.

    The teacher is no submodule: it is neither trained nor saved nor sharded. Without one, rows carry what a teacher has listed,
    K per token: `teacher_ids` and `teacher_logprobs`.
    """

    def __init__(self, model: Any, vocabulary: int, teacher: Any, kind: Divergence, beta: float = 0.5):
        super().__init__()
        self.model = model
        self.vocabulary, self.kind, self.beta = vocabulary, kind, beta
        self._teacher = teacher and (teacher.requires_grad_(False).eval(),)

    def forward(self, batch: Any, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor, ...]:
        """(divergence, log-probability, entropy) of each scored token, (N,) each."""
        hidden = last_hidden(self.model, batch)[batch.scored]
        taught = self._taught(batch)
        if not torch.is_tensor(temperature):
            temperature = torch.full_like(batch.weights, temperature)
        with torch.autocast(hidden.device.type, enabled=False):
            weight = self.model.get_output_embeddings().weight[: self.vocabulary]
            return chunked_divergence(hidden, weight, taught, batch.targets, temperature, self.kind, self.beta)

    @torch.no_grad()
    def _taught(self, batch: Any) -> Whole | Listed:
        if not self._teacher:
            return Listed(batch.token["teacher_ids"].long(), batch.token["teacher_logprobs"])
        (teacher,) = self._teacher
        head = teacher.get_output_embeddings().weight[: self.vocabulary]
        return Whole(last_hidden(teacher, batch)[batch.scored], head)
