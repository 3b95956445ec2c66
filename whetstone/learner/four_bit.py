"""Frozen layers in 4 bits, by bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).

NF4 in blocks of 64 numbers, whose scales are rounded to 8 bits themselves: 4.13 bits a weight. Products are computed with the
rounded weights, in the type that the weights had. Embedding, head and norms stay as they are.

The rounded weights are the base of everything: of the adapter that is trained beside them, of the reference, and of the merged
model that is sampled and saved.
"""

from ctypes import c_longlong
from functools import cache, partial
from typing import Any

import torch

from whetstone.learner.layers import decoder_layers
from whetstone.run.mistakes import install_hint

HALVES = (torch.float32, torch.bfloat16, torch.float16)  # that bitsandbytes rounds


def quantise(model: Any) -> None:
    """Round the matrices of the layers, in place. Raises ImportError without bitsandbytes, ValueError for float64."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise ImportError(
            f'[adapter] weights = "nf4" needs the package bitsandbytes: {install_hint("qlora")}'
        ) from error
    if model.dtype not in HALVES:
        raise ValueError(f'[adapter] weights = "nf4": weights of type {model.dtype} cannot be rounded to 4 bits.')
    _mend_kernels()
    for layer in decoder_layers(model):
        plain = [(name, module) for name, module in layer.named_modules() if type(module) is torch.nn.Linear]
        for name, module in plain:
            layer.set_submodule(name, _rounded(module, bitsandbytes))


def _rounded(linear: torch.nn.Linear, bitsandbytes: Any) -> Any:
    weight = linear.weight.detach()
    with torch.device("meta"):
        rounded = bitsandbytes.nn.Linear4bit(
            linear.in_features, linear.out_features, bias=False, compute_dtype=weight.dtype, quant_type="nf4"
        )
    rounded.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=rounded
    ).to(weight.device)
    rounded.bias = linear.bias
    # it would repack the weights for products in bf16; training could not read them, and the way back rounds the scales again
    rounded.support_avx512bf16_for_cpu = False
    return rounded


@cache
def _mend_kernels() -> None:
    """Have bitsandbytes read each number with the scale of its own block, on CPUs with AVX-512 too.

    There its kernel (0.49 to 0.50.2) takes the scale of row o, column i from place o (I // 64) + i // 64, if I is a multiple of
    16. Unless I is one of 64 too, blocks cross the ends of rows, and that is another block's scale. Products, their gradients,
    DoRA's lengths and `dense` all go through this kernel.
    """
    from bitsandbytes.cextension import lib

    for kind in ("fp32", "bf16", "fp16"):
        name = f"cdequantize_blockwise_cpu_nf4_{kind}"
        setattr(lib, name, partial(_in_whole_blocks, getattr(lib, name)))


def _in_whole_blocks(kernel: Any, packed: Any, scales: Any, out: Any, block: Any, rows: Any, columns: Any) -> None:
    """Call the kernel for the same numbers in rows that blocks do not cross: of one block, or else all in one row."""
    if columns.value % block.value:
        count = rows.value * columns.value
        row = count if count % block.value else block.value
        rows, columns = c_longlong(count // row), c_longlong(row)
    kernel(packed, scales, out, block, rows, columns)


def dense(weight: torch.Tensor) -> torch.Tensor:
    """The numbers that products are computed with: (O, I) of a rounded matrix; any other weight as it is."""
    if getattr(weight, "quant_state", None) is None:
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def size(weight: torch.Tensor) -> int:
    """How many numbers a weight holds; a rounded one holds two in a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else state.shape.numel()


def is_rounded(model: Any) -> bool:
    return any(getattr(p, "quant_state", None) is not None for p in model.parameters())
