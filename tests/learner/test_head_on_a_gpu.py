"""The head's GPU kernels, interpreted on a CPU, and on a GPU if there is one."""

import pytest
import torch

from tests.interpreted import needs_triton, run_interpreted
from whetstone.learner.head import chunked_logprobs, gpu_kernels

KERNELS = """
import torch
from whetstone.learner import head_kernels
with torch.no_grad():
    assert head_kernels.wrong(torch.device("cpu")) == ""
z, targets, heat, sums = torch.randn(3, 9), torch.arange(3), torch.ones(3), torch.rand(3)
one = [head_kernels.gradient(z.clone(), targets, heat, sums, sums, grad, None, z.dtype)
       for grad in (torch.ones(1).expand(3), torch.ones(3))]
assert torch.equal(*one)  # a gradient that is one number for all
plain = head_kernels.statistics
head_kernels.statistics = lambda z, targets, heat: (plain(z, targets, heat)[0] + 0.01, *plain(z, targets, heat)[1:])
assert "log-probabilities" in head_kernels.wrong(torch.device("cpu"))
"""


@pytest.mark.slow
@needs_triton
def test_the_kernels_compute_what_torch_does():
    run_interpreted(KERNELS)


def test_there_are_no_kernels_without_a_gpu():
    assert gpu_kernels(torch.device("cpu")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("products", [None, torch.bfloat16], ids=str)
def test_on_a_gpu_the_head_equals_that_of_float64(products):
    """If the factors are bf16 numbers already, logits with bf16 products are as exact as in fp32."""
    torch.manual_seed(0)
    n, c, size = 300, 64, 5000
    numbers = [x.bfloat16().float() for x in (torch.randn(n, c), torch.randn(size, c) / 4)]
    targets, heat = torch.randint(size, (n,)), torch.rand(n) + 0.5
    grads = torch.randn(2, n)
    outputs = {}
    for device, dtype, asked in (("cuda", torch.float32, products), ("cpu", torch.float64, None)):
        own = [x.to(device, dtype).requires_grad_() for x in numbers]
        given = own[0], own[1], targets.to(device), heat.to(device, dtype)
        out = chunked_logprobs(*given, 128, asked)
        of = torch.autograd.grad(sum((x * g.to(device, dtype)).sum() for x, g in zip(out, grads, strict=True)), own)
        outputs[device] = [x.detach().cpu().double() for x in (*out, *of)]
    assert gpu_kernels(torch.device("cuda", torch.cuda.current_device())) is not None
    for i, (ours, exact) in enumerate(zip(outputs["cuda"], outputs["cpu"], strict=True)):
        bound = 1e-5 if products is None or i < 2 else 5e-3  # gradients' factors are rounded
        assert (ours - exact).abs().max() <= bound * exact.abs().max(), i
