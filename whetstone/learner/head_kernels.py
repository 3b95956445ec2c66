"""Triton kernels for the head on a GPU, besides its matrix products. Triton comes with torch's CUDA builds.

The logits of a chunk are the largest tensor of a training step. These kernels read them once for log-probabilities and entropy,
and once for their gradient, which is written in the products' type; plain torch reads them ten times. The file is loaded only
if there is a GPU (head.py), and its results are first checked there on a few numbers.

Letters: N tokens, V ids in use.
"""

import torch
import triton
import triton.language as tl

WIDTH = 4096  # ids that a program processes at once


@triton.jit
def _statistics(z, targets, heat, logprobs, totals, entropies, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """Statistics of row `t` in one pass. Each lane has its own maximum, to which its sums are relative (Milakov & Gimelshein
    2018, arXiv 1805.02867); the lanes are joined at the end."""
    t, lane = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    cooler = 1.0 / tl.load(heat + t)
    top = tl.full([WIDTH], -1e30, tl.float32)
    total = tl.zeros([WIDTH], tl.float32)  # of exp(x - top)
    weighed = tl.zeros([WIDTH], tl.float32)  # of exp(x - top) (x - top)
    for at in range(0, SIZE, WIDTH):
        inside = at + lane < SIZE
        x = tl.load(z + t * SIZE + at + lane, mask=inside, other=-float("inf")) * cooler
        higher = tl.maximum(top, x)
        kept, new = tl.exp(top - higher), tl.exp(x - higher)
        weighed = (weighed + total * (top - higher)) * kept + tl.where(inside, new * (x - higher), 0.0)
        total = total * kept + new
        top = higher
    highest = tl.max(top, 0)
    kept = tl.exp(top - highest)
    weighed = tl.sum((weighed + total * (top - highest)) * kept, 0)
    total = tl.sum(total * kept, 0)
    own = tl.load(z + t * SIZE + tl.load(targets + t)) * cooler
    log = tl.log(total)
    tl.store(totals + t, highest + log)
    tl.store(logprobs + t, own - highest - log)
    tl.store(entropies + t, log - weighed / total)


def statistics(
    z: torch.Tensor,  # (N, V) the head's product, fp32
    targets: torch.Tensor,  # (N,)
    temperature: torch.Tensor,  # (N,)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of the targets, log-sum-exps, entropies: (N,) each."""
    results = torch.empty(3, len(z), device=z.device)
    _statistics[(len(z),)](z, targets, temperature, *results, SIZE=z.shape[1], WIDTH=WIDTH, num_warps=8)
    return results[0], results[1], results[2]


@triton.jit
def _gradient(
    z, targets, heat, totals, entropies, of_logprobs, of_entropies, out,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, ASKED: tl.constexpr,
):  # fmt: skip
    """The gradient for WIDTH ids of row `t`. ASKED: with the gradient of the entropy."""
    t = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = at < SIZE
    cooler, scale = 1.0 / tl.load(heat + t), tl.load(of_logprobs + t)
    log_p = tl.load(z + t * SIZE + at, mask=inside, other=0.0) * cooler - tl.load(totals + t)
    share = scale
    if ASKED:
        share += tl.load(of_entropies + t) * (log_p + tl.load(entropies + t))
    result = tl.where(at == tl.load(targets + t), scale, 0.0) - tl.exp(log_p) * share
    tl.store(out + t * SIZE + at, (result * cooler).to(out.dtype.element_ty), mask=inside)


def gradient(
    z: torch.Tensor,  # (N, V)
    targets: torch.Tensor,  # (N,), and so are all that follow
    temperature: torch.Tensor,
    totals: torch.Tensor,
    entropies: torch.Tensor,
    of_logprobs: torch.Tensor,  # the loss's gradients for the outputs of `statistics`
    of_entropies: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The gradient of `z`, (N, V), in `dtype`. It overwrites `z` if that has the same type."""
    out = z if dtype == z.dtype else torch.empty_like(z, dtype=dtype)
    asked = of_entropies is not None
    of_logprobs = of_logprobs.contiguous()  # the gradient of a sum is one expanded number
    of_entropies = of_entropies.contiguous() if asked else of_logprobs
    _gradient[(len(z), triton.cdiv(z.shape[1], WIDTH))](
        z, targets, temperature, totals, entropies, of_logprobs, of_entropies, out,
        SIZE=z.shape[1], WIDTH=WIDTH, ASKED=asked, num_warps=8,
    )  # fmt: skip
    return out


@torch.enable_grad()  # it is first called in a function's forward pass
def wrong(device: torch.device) -> str:
    """Which kernel disagrees with torch in float64 on a few numbers; "" if none does."""
    make = torch.Generator(device).manual_seed(0)
    n, size = 3, WIDTH + 5
    z = 4 * torch.randn(n, size, generator=make, device=device)
    targets = torch.tensor([0, WIDTH, size - 1], device=device)
    heat = torch.tensor([1.0, 0.6, 1.3], device=device)
    of_logprobs, of_entropies = torch.randn(2, n, generator=make, device=device)
    wide = z.double().requires_grad_()
    full = (wide / heat.double()[:, None]).log_softmax(-1)
    logprobs, entropies = full.gather(1, targets[:, None])[:, 0], -(full.exp() * full).sum(1)
    totals = (z.double() / heat.double()[:, None]).logsumexp(1)
    of_both = (logprobs * of_logprobs).sum() + (entropies * of_entropies).sum()
    expected = {
        "log-probabilities": logprobs, "sums": totals, "entropies": entropies,
        "gradient": torch.autograd.grad((logprobs * of_logprobs).sum(), wide, retain_graph=True)[0],
        "gradient with entropy": torch.autograd.grad(of_both, wide)[0],
    }  # fmt: skip
    own = statistics(z, targets, heat)
    results = dict(zip(expected, own, strict=False))
    rest = targets, heat, own[1], own[2], of_logprobs
    results["gradient"] = gradient(z.clone(), *rest, None, torch.float32)
    results["gradient with entropy"] = gradient(z.clone(), *rest, of_entropies, torch.float32)
    for name, value in results.items():
        if not (value.double() - expected[name]).abs().max() <= 1e-4:
            return f"the head's {name} differ from those of torch"
    exact, rounded = expected["gradient with entropy"], gradient(z, *rest, of_entropies, torch.bfloat16)
    if not (rounded.double() - exact).abs().max() <= 1e-2 * exact.abs().max():
        return "the head's gradient in bfloat16 differs from that of torch"
    return ""
