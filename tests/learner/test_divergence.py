"""Divergences of student and teacher: the full softmax in float64, gradients by autograd, GKD's own cases."""

import pytest
import torch

from whetstone.learner.divergence import Listed, Whole, chunked_divergence, divergence

N, C, K, V = 7, 5, 6, 11
KINDS = [("forward", 0.5), ("reverse", 0.5), ("jensen_shannon", 0.5), ("jensen_shannon", 0.1), ("jensen_shannon", 0.9)]


def inputs():
    torch.manual_seed(0)
    made = [torch.randn(shape, dtype=torch.float64) for shape in ((N, C), (V, C), (N, K), (V, K))]
    heat = torch.linspace(0.7, 1.3, N, dtype=torch.float64)
    return made[0].requires_grad_(), made[1].requires_grad_(), *made[2:], torch.arange(N) % V, heat


def in_full(hidden, weight, taught, teacher, heat, kind, beta):
    """torch's own KL on whole logits."""
    p, q = ((x @ w.T / heat[:, None]).softmax(-1) for x, w in ((hidden, weight), (taught, teacher)))

    def kl(a, b):
        return torch.nn.functional.kl_div(b.log(), a, reduction="none").sum(-1)

    if kind != "jensen_shannon":
        return kl(q, p) if kind == "forward" else kl(p, q)
    m = beta * q + (1 - beta) * p
    return beta * kl(q, m) + (1 - beta) * kl(p, m)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
@pytest.mark.parametrize("chunk", [3, 100])
def test_value_and_gradient_are_those_of_whole_logits_for_any_chunk(kind, beta, chunk):
    hidden, weight, taught, teacher, targets, heat = inputs()
    weights = torch.linspace(0.1, 1.0, N, dtype=torch.float64)
    value, logprobs, entropy = chunked_divergence(
        hidden, weight, Whole(taught, teacher), targets, heat, kind, beta, chunk=chunk
    )
    ours = torch.autograd.grad((weights * value).sum(), (hidden, weight))
    wanted = in_full(hidden, weight, taught, teacher, heat, kind, beta)
    theirs = torch.autograd.grad((weights * wanted).sum(), (hidden, weight))
    assert torch.allclose(value, wanted, atol=1e-12, rtol=0)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)
    log_p = (hidden @ weight.T / heat[:, None]).log_softmax(-1)
    assert torch.allclose(logprobs, log_p.gather(-1, targets[:, None])[:, 0], atol=1e-12)
    assert torch.allclose(entropy, -(log_p.exp() * log_p).sum(-1), atol=1e-12)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_equal_distributions_are_at_0_and_others_above(kind, beta):
    log_p, log_q = (torch.randn(4, V, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    assert torch.allclose(divergence(log_p, log_p, kind, beta), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert (divergence(log_p, log_q, kind, beta) > 0).all()


def test_jensen_shannon_over_its_share_tends_to_the_two_directions():
    """GKD, section 3: JSD(β)/β tends to KL(q || p) for β to 0, and JSD(β)/(1-β) to KL(p || q) for β to 1."""
    log_p, log_q = (torch.randn(4, V, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    near = 1e-6
    small, large = (divergence(log_p, log_q, "jensen_shannon", beta) for beta in (near, 1 - near))
    assert torch.allclose(small / near, divergence(log_p, log_q, "forward"), rtol=1e-4)
    assert torch.allclose(large / near, divergence(log_p, log_q, "reverse"), rtol=1e-4)


def of_list(p, q, ids, kind, beta):
    """The divergence of both distributions over the listed tokens and one more outcome, all others, by autograd."""

    def outcomes(x, listed):
        return torch.cat([x[listed], 1 - x[listed].sum(0, keepdim=True)])

    rows = []
    for here, there, listed in zip(p, q, ids, strict=True):
        listed = listed[listed >= 0]
        a, b = outcomes(here, listed), outcomes(there, listed)
        m = beta * b + (1 - beta) * a
        terms = {"forward": b * (b / a).log(), "reverse": a * (a / b).log()}
        terms["jensen_shannon"] = beta * b * (b / m).log() + (1 - beta) * a * (a / m).log()
        rows.append(terms[kind].sum())
    return torch.stack(rows)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_tokens_that_a_teacher_does_not_list_are_one_outcome(kind, beta):
    """Value and gradient in float64; two positions have a token less. Never more than the whole divergence."""
    hidden, weight, taught, teacher, targets, _ = inputs()
    q = (taught @ teacher.T).softmax(-1)
    ids = q.topk(3).indices
    ids[2:4, -1] = -1
    listed = Listed(ids, q.log().gather(-1, ids.clamp(min=0)))
    heat = torch.ones(N, dtype=torch.float64)
    value, *_ = chunked_divergence(hidden, weight, listed, targets, heat, kind, beta, chunk=3)
    wanted = of_list((hidden @ weight.T).softmax(-1), q, ids, kind, beta)
    assert torch.allclose(value, wanted, atol=1e-12, rtol=0)
    weights = torch.linspace(0.1, 1.0, N, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((weights * x).sum(), (hidden, weight)) for x in (value, wanted))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)
    whole, *_ = chunked_divergence(hidden, weight, Whole(taught, teacher), targets, heat, kind, beta)
    assert (value <= whole + 1e-12).all()


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_a_teacher_that_lists_all_tokens_is_the_whole_teacher(kind, beta):
    hidden, weight, taught, teacher, targets, _ = inputs()
    heat = torch.ones(N, dtype=torch.float64)
    log_q = (taught @ teacher.T).log_softmax(-1)
    listed, whole = Listed(torch.arange(V).expand(N, V), log_q), Whole(taught, teacher)
    found = [chunked_divergence(hidden, weight, x, targets, heat, kind, beta)[0] for x in (listed, whole)]
    assert torch.allclose(*found, atol=1e-9)
    ours, theirs = (torch.autograd.grad(x.sum(), (hidden, weight)) for x in found)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))
