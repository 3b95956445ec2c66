"""A step on a CPU in which each of T sequences decodes one token: all layers in one compiled call.

Between Python and the kernels there are nine calls a layer. For a single sequence they take as long as the kernels do.

Letters: L layers, T sequences, H query heads, K key/value heads, D head size, C hidden size, I inner size of the MLP.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import types
from numba.extending import overload

from whetstone.decode import cpu_kernels, paired_kernels
from whetstone.decode.cpu_kernels import array, compiled, gate, inlined, norm, rotary
from whetstone.decode.kv_cache import KVCache
from whetstone.decode.packed_product import (
    ABREAST,
    PADDING,
    PANELS,
    PackedProduct,
    multiply,
    multiply_bytes,
    packed_is_faster,
    paired,
)
from whetstone.decode.paged_attention import NO_WINDOW

# As parts of `decode`, so that it computes the same whether it was compiled now or comes from the cache (cpu_kernels.py)
own_norm, own_rotary, own_gate = (inlined(kernel.py_func) for kernel in (norm, rotary, gate))
own_attend, own_attend_pairs = (inlined(kernel.py_func) for kernel in (cpu_kernels.attend, paired_kernels.attend_pairs))


class Stack(NamedTuple):
    """The products of one kind in all layers, in one piece of memory."""

    panels: np.ndarray  # (L, …)
    scales: np.ndarray | None  # (L, …) of weights of 8 bits
    bias: np.ndarray | None  # (L, O) in fp32
    width: int  # O

    @classmethod
    def of(cls, products: Sequence[PackedProduct]) -> "Stack":
        """The products use the new memory from now on."""
        first = products[0]
        panels = np.empty((len(products), *first.panels.shape), first.panels.dtype)
        for layer, product in enumerate(products):
            panels[layer] = product.panels
            product.panels = panels[layer]
        scales = None if first.scales is None else np.stack([product.scales for product in products])
        bias = None if first.bias is None else array(torch.stack([product.bias for product in products]).float())
        return cls(panels, scales, bias, first.width)


def takes(products: Sequence[Any]) -> bool:
    """Whether a layer's products are packed, and numbers of bf16 can be read as pairs where they lie."""
    return all(
        isinstance(product, PackedProduct) and (product.dtype != torch.bfloat16 or product.inputs % 2 == 0)
        for product in products
    )


class CpuStep:
    """Residual stream (T, C) of the tokens that a cache was told of -> hidden states (T, C) after the last norm.

    `layers`: the four products of each. `norms`: weight (C,) and epsilon of the 2 L + 1 norms, in their order.
    """

    def __init__(
        self, layers: Sequence[Sequence[PackedProduct]], norms: Sequence[tuple[np.ndarray, Any]],
        windows: Sequence[int | None], head_size: int, group: int, scaling: float,
    ):  # fmt: skip
        self.stacks = [Stack.of(kind) for kind in zip(*layers, strict=True)]
        self.dtype = layers[0][0].dtype
        self.norms = np.stack([weight for weight, _ in norms])
        self.epsilons = np.array([epsilon for _, epsilon in norms], np.float32)
        self.windows = np.array([window or NO_WINDOW for window in windows], np.int64)
        self.head_size, self.scaling = head_size, np.float32(scaling)
        self.kv_heads = self.stacks[0].width // head_size // (group + 2)
        self.rotated = (group + 1) * self.kv_heads

    def fits(self, rows: int) -> bool:
        """Whether nothing else is faster: more threads share a product, which this does not."""
        return torch.get_num_threads() == 1 and packed_is_faster(rows)

    def __call__(
        self, x: torch.Tensor, cos: np.ndarray, sin: np.ndarray, positions: np.ndarray, cache: KVCache
    ) -> torch.Tensor:
        tokens, size, dtype = len(x), self.head_size, self.dtype
        qkv, out, gate_up, down = self.stacks
        normed = torch.empty(tokens, x.shape[1], dtype=dtype)
        heads = torch.empty(tokens, self.rotated, size, dtype=dtype)
        attended = torch.empty(tokens, self.rotated - self.kv_heads, size, dtype=dtype)
        gated = torch.empty(tokens, gate_up.width // 2, dtype=dtype)
        buffer = np.empty(tokens * max(stack.width for stack in self.stacks) + PADDING, np.float32)
        decode(
            array(x), array(normed), array(heads), array(attended), array(gated), buffer,
            paired(normed), paired(heads), paired(attended.flatten(1)), paired(gated),
            *qkv, *out, *gate_up, *down, self.norms, self.epsilons, cos, sin, positions,
            self.windows, self.scaling, *cache.decoding(self.rotated - self.kv_heads),
        )  # fmt: skip
        return normed


@compiled
def decode(
    x, normed, heads, attended, gated, buffer, normed_pairs, heads_pairs, attended_pairs, gated_pairs,
    qkv, qkv_scales, qkv_bias, qkv_width, out, out_scales, out_bias, out_width,
    gate_up, gate_up_scales, gate_up_bias, gate_up_width, down, down_scales, down_bias, down_width,
    norms, epsilons, cos, sin, positions, windows, scaling,
    keys, values, keys_pairs, values_pairs, blocks, offsets, tables, starts, own, scores,
):  # fmt: skip
    """x (T, C) becomes the residual stream after the last layer, and `normed` (T, C) its norm; the others are buffers."""
    size, rotated = heads.shape[2], heads.shape[1] * heads.shape[2]
    own_norm(x, None, norms[0], epsilons[0], normed)
    for layer in range(len(qkv)):
        product(normed_pairs, qkv, qkv_scales, qkv_bias, layer, qkv_width, buffer)
        source = buffer[: len(x) * qkv_width].reshape(len(x), qkv_width)
        own_rotary(source, size, cos, sin, positions, heads)
        store(heads, source, rotated, blocks, offsets, keys[layer], values[layer])
        attend(
            heads_pairs, keys_pairs[layer], values_pairs[layer], tables, starts, own, windows[layer], scaling, scores, attended
        )  # fmt: skip
        product(attended_pairs, out, out_scales, out_bias, layer, out_width, buffer)
        own_norm(x, buffer[: x.size].reshape(x.shape), norms[2 * layer + 1], epsilons[2 * layer + 1], normed)
        product(normed_pairs, gate_up, gate_up_scales, gate_up_bias, layer, gate_up_width, buffer)
        own_gate(buffer[: len(x) * gate_up_width].reshape(len(x), gate_up_width), gated)
        product(gated_pairs, down, down_scales, down_bias, layer, down_width, buffer)
        own_norm(x, buffer[: x.size].reshape(x.shape), norms[2 * layer + 2], epsilons[2 * layer + 2], normed)


# --- what is compiled differently for each type


def product(x, panels, scales, bias, layer, width, out):
    """x (T, I) -> the first T * O of `out`, by the weights of a layer."""
    raise NotImplementedError


@overload(product)
def _product_code(x, panels, scales, bias, layer, width, out):
    if scales is not types.none:

        def code(x, panels, scales, bias, layer, width, out):
            multiply_bytes(x, panels[layer], scales[layer], width, out, 0, ABREAST * len(panels[layer]))
            add_bias(out, bias, layer, len(x))

    else:

        def code(x, panels, scales, bias, layer, width, out):
            multiply(x, panels[layer], width, out, 0, PANELS * len(panels[layer]))
            add_bias(out, bias, layer, len(x))

    return code


def add_bias(out, bias, layer, rows):
    raise NotImplementedError


@overload(add_bias)
def _add_bias_code(out, bias, layer, rows):
    if bias is types.none:
        return lambda out, bias, layer, rows: None

    def code(out, bias, layer, rows):
        width = bias.shape[1]
        for row in range(rows):
            for i in range(width):
                out[row * width + i] += bias[layer, i]

    return code


def store(query_key, source, column, blocks, offsets, keys, values):
    raise NotImplementedError


@overload(store)
def _store_code(query_key, source, column, blocks, offsets, keys, values):
    kernel = paired_kernels.store_kv if query_key.dtype == types.uint16 else cpu_kernels.store_kv

    def code(query_key, source, column, blocks, offsets, keys, values):
        kernel(query_key, source, column, blocks, offsets, keys, values)

    return code


def attend(query, keys, values, tables, starts, positions, window, scaling, scores, out):
    raise NotImplementedError


@overload(attend)
def _attend_code(query, keys, values, tables, starts, positions, window, scaling, scores, out):
    kernel = own_attend_pairs if query.dtype == types.uint32 else own_attend

    def code(query, keys, values, tables, starts, positions, window, scaling, scores, out):
        kernel(query, keys, values, tables, starts, positions, window, scaling, scores, out)

    return code
