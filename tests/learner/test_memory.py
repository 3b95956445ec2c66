"""Memory that must not grow with the number of steps."""

import sys

import pytest
import torch

from whetstone.learner.pace import resident_bytes
from whetstone.run.cpu import bound_kernel_caches

SHAPES = 160


@pytest.mark.skipif(sys.platform != "linux", reason="the memory that a process holds now is read from /proc")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_products_of_ever_new_shapes_keep_memory_bounded():
    """Ragged micro-batches: each has another number of tokens. Without a bound these take more than 100 MB."""
    bound_kernel_caches()
    weight, tokens = torch.ones(576, 576), torch.ones(2 * SHAPES, 576)

    def product(count: int) -> None:
        torch.ops.mkldnn._linear_pointwise(
            tokens[:count], weight, None, "none", [], ""
        )  # a product that oneDNN computes

    for count in range(1, SHAPES):
        product(count)
    before = resident_bytes()
    for count in range(SHAPES, 2 * SHAPES):
        product(count)
    assert resident_bytes() - before < 60e6
