"""The forward pass of a Llama-, Qwen2- or Phi-3-class model with fused kernels and a fifth of the module's calls.

It gives the module's hidden states, from the module's own parameters. In small models the calls are most of the cost. On a
CPU the fp32 matrices are copied, as products of few rows are faster so: transposed in a small model, packed in a larger one
(packed_product.py). A model in which anything was replaced (an adapter, a quantised layer, a hook) runs through its own
modules, as every other class does.

Letters: T tokens, H query heads, K key/value heads, D head size, C hidden size, I inner size of the MLP, R rotated dimensions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.decode import cpu_kernels
from whetstone.decode.cpu_kernels import array
from whetstone.decode.cpu_step import CpuStep, takes
from whetstone.decode.kv_cache import KVCache
from whetstone.decode.packed_product import Linear, PackedProduct, joined_bias
from whetstone.decode.paged_attention import QKV
from whetstone.longrope import tables
from whetstone.run.cpu import has_bf16_vectors, has_wide_vectors

Product = Callable[[torch.Tensor], torch.Tensor]  # (T, in) -> (T, out)
Norm = tuple[torch.Tensor, float]  # weight (C,) and epsilon

CLASSES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM")
LINEARS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
FIRST_TABLE = 256  # positions of the first table of cosines and sines
TRANSPOSED_BYTES = 256 << 20  # the matrices of larger models are packed; of all with AVX-512
PACKED_BYTES = 2 << 30  # the matrices of larger models are not copied

Products = Callable[[Sequence[Linear]], Product]  # the products with all of them, side by side


def fits(model: Any) -> bool:
    """Whether a `FusedForward` computes what the model's own modules compute."""
    known = type(model).__name__ in CLASSES and type(model).__module__.startswith("transformers.")
    if not known or getattr(model.config, "hidden_act", "") != "silu":
        return False
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return False
        if name.rpartition(".")[2] in LINEARS and type(module) is not torch.nn.Linear:
            return False
    return True


def products(model: Any, int8: bool = False) -> Products:
    """How the matrices of a model are multiplied: as they are, transposed, packed, or packed with 8 bits."""
    weight = next(model.parameters())
    size = sum(p.nbytes for p in model.parameters())
    if int8:
        return partial(PackedProduct, int8=True)
    if weight.device.type != "cpu" or size > PACKED_BYTES:
        return _plain
    if weight.dtype == torch.bfloat16 and has_bf16_vectors():
        return PackedProduct
    if weight.dtype != torch.float32:
        return _plain
    return _transposed if size <= TRANSPOSED_BYTES and not has_wide_vectors() else PackedProduct


class _Layer(NamedTuple):
    """The matrix products of a layer, and its sliding window."""

    qkv: Product  # (T, C) -> (T, (H + 2 K) D): queries, keys, values
    out: Product  # (T, H D) -> (T, C)
    gate_up: Product  # (T, C) -> (T, 2 I): gates, then what they multiply
    down: Product  # (T, I) -> (T, C)
    window: int | None


class FusedForward:
    """Ids and positions (T,) of a flat row, and a cache -> hidden states (T, C) after the last norm.

    It must be made anew when the weights have changed. Positions must be below the length last given to `rotary.reserve`.
    `kernels` is gpu_kernels.py on a GPU where that works. `multiplied` says how its matrices are (`products`).
    """

    def __init__(self, model: Any, kernels: ModuleType | None = None, multiplied: Products | None = None):
        self.base = model.model
        attention = self.base.layers[0].self_attn
        self.head_size, self.group, self.scaling = attention.head_dim, attention.num_key_value_groups, attention.scaling
        norms = [norm for layer in self.base.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        norms = [(norm.weight.detach(), norm.variance_epsilon) for norm in (*norms, self.base.norm)]
        weight = norms[0][0]
        on_cpu = kernels is None and weight.device.type == "cpu" and weight.dtype in cpu_kernels.TYPES
        multiplied = multiplied or products(model)
        self.layers = [_read_layer(layer, multiplied) for layer in self.base.layers]
        self.ops = _GpuOps(norms, kernels) if kernels else _CpuOps(norms) if on_cpu else TorchOps(norms)
        self.step = self._cpu_step() if on_cpu else None
        self.rotary = Rotary(self.base.rotary_emb, model.config, weight, self.ops.fp32, per_token=not on_cpu)

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, cache: KVCache) -> torch.Tensor:
        ops, group, size = self.ops, self.group, self.head_size
        x = self.base.embed_tokens(ids)  # (T, C)
        x = x.float() if ops.fp32 else x
        angles = self.rotary.angles(positions)
        if self.step is not None and cache.only_decodes(len(ids)) and self.step.fits(len(ids)):
            return self.step(x, *(array(part) for part in angles), cache)
        normed = ops.norm(x, 0)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(normed)  # (T, (H + 2 K) D)
            kv_heads = qkv.shape[1] // size // (group + 2)
            rotated = (group + 1) * kv_heads  # queries and keys
            rotated_heads = ops.rotary(qkv, rotated, size, angles)
            heads = QKV(rotated_heads, qkv, rotated * size, kv_heads)
            if qkv.dtype != rotated_heads.dtype:  # packed products in bf16 are given in fp32
                heads = QKV(rotated_heads, qkv[:, rotated * size :].to(rotated_heads.dtype), 0, kv_heads)
            window = None if layer.window is None or layer.window >= cache.length else layer.window
            attended = cache.attend(number, heads, self.scaling, window)  # (T, H, D)
            normed = ops.norm(x, 2 * number + 1, layer.out(attended.flatten(1)))
            normed = ops.norm(x, 2 * number + 2, layer.down(ops.gate(layer.gate_up(normed))))
        return normed

    def _cpu_step(self) -> CpuStep | None:
        products = [layer[:4] for layer in self.layers]
        if not takes(products[0]):
            return None
        windows = [layer.window for layer in self.layers]
        return CpuStep(products, self.ops.norms, windows, self.head_size, self.group, self.scaling)


# --- rotary embedding


class Angles(NamedTuple):
    """Cosines and sines (P, R/2), and which row of them each token takes."""

    cos: torch.Tensor
    sin: torch.Tensor
    positions: torch.Tensor | None  # (T,); None if P = T: a row per token


class Rotary:
    """Cosines and sines as the model's own module computes them.

    `fixed`: they depend on a token's position alone, not on the length of its sequence, and are kept in a table. `fp32`: they
    are given in fp32. `per_token`: those of each token are gathered once for all layers.
    """

    def __init__(self, module: Any, config: Any, weight: torch.Tensor, fp32: bool, per_token: bool):
        self.module, self.weight, self.fp32, self.per_token = module, weight, fp32, per_token
        one_table = all(t["short_factor"] == t["long_factor"] for t in tables(config))  # of LongRoPE
        self.fixed = one_table and "dynamic" not in getattr(module, "rope_type", "dynamic")
        self.length = 0

    def reserve(self, length: int) -> int:
        """Make room for positions below `length`. Returns the table's length: if it changes, captured graphs are void.

        The caller gives the length, because asking the positions for their maximum would wait for a GPU.
        """
        if self.fixed and length > self.length:
            self.length = max(FIRST_TABLE, 2 * length)
            self.cos, self.sin = self._compute(torch.arange(self.length, device=self.weight.device))
        return self.length

    def angles(self, positions: torch.Tensor) -> Angles:
        """Of tokens at positions (T,)."""
        if not self.fixed:
            own = self._compute(positions)
            return Angles(*own, None if self.per_token else torch.arange(len(positions), device=positions.device))
        if self.per_token:
            return Angles(self.cos[positions], self.sin[positions], None)
        return Angles(self.cos, self.sin, positions)

    def _compute(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,) -> cosines and sines (P, R/2)"""
        both = self.module(self.weight[None], position_ids=positions[None])  # (1, P, R) each
        half = both[0].shape[2] // 2  # the second half repeats the first
        cos, sin = (x[0, :, :half].contiguous() for x in both)
        return (cos.float(), sin.float()) if self.fp32 else (cos, sin)


# --- what lies between the matrix products


class TorchOps:
    """By torch: on any device and in any type."""

    fp32 = False  # whether the residual stream and the angles are in fp32 whatever the model's type

    def __init__(self, norms: list[Norm]):
        self.norms = norms

    def norm(self, x: torch.Tensor, number: int, delta: torch.Tensor | None = None) -> torch.Tensor:
        """The RMS norm (T, C) of x (T, C) with the weight of that number, after delta (T, C) is added to x in place."""
        if delta is not None:
            x += delta
        return torch.rms_norm(x, x.shape[-1:], *self.norms[number])

    def rotary(self, qkv: torch.Tensor, count: int, size: int, angles: Angles) -> torch.Tensor:
        """The first `count` heads of qkv (T, …), rotated: (T, count, size)."""
        heads = qkv[:, : count * size].unflatten(1, (count, size))
        cos, sin = angles.cos[:, None], angles.sin[:, None]  # (T, 1, R/2)
        half = cos.shape[-1]
        a, b = heads[..., :half], heads[..., half : 2 * half]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, heads[..., 2 * half :]], -1)

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """(T, 2 I) -> (T, I)"""
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate) * up


class _GpuOps:
    """The same by one Triton kernel each."""

    fp32 = True

    def __init__(self, norms: list[Norm], kernels: ModuleType):
        self.norms, self.kernels, self.gate = norms, kernels, kernels.gate

    def norm(self, x: torch.Tensor, number: int, delta: torch.Tensor | None = None) -> torch.Tensor:
        return self.kernels.norm(x, *self.norms[number], delta)

    def rotary(self, qkv: torch.Tensor, count: int, size: int, angles: Angles) -> torch.Tensor:
        return self.kernels.rotary(qkv, count, size, angles.cos, angles.sin)


class _CpuOps:
    """The same by one compiled pass each."""

    fp32 = True

    def __init__(self, norms: list[Norm]):
        self.norms = [(array(weight), np.float32(eps)) for weight, eps in norms]
        self.dtype = norms[0][0].dtype

    def norm(self, x: torch.Tensor, number: int, delta: torch.Tensor | None = None) -> torch.Tensor:
        out = torch.empty_like(x, dtype=self.dtype)
        cpu_kernels.norm(array(x), None if delta is None else array(delta), *self.norms[number], array(out))
        return out

    def rotary(self, qkv: torch.Tensor, count: int, size: int, angles: Angles) -> torch.Tensor:
        out = qkv.new_empty(len(qkv), count, size, dtype=self.dtype)
        cpu_kernels.rotary(array(qkv), size, array(angles.cos), array(angles.sin), array(angles.positions), array(out))
        return out

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2, dtype=self.dtype)
        cpu_kernels.gate(array(gate_up), array(out))
        return out


# --- the matrix products


def _read_layer(layer: Any, multiplied: Products) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        multiplied(_linears(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj"))),
        multiplied(_linears(attention, ("o_proj",))),
        multiplied(_linears(mlp, ("gate_up_proj",), ("gate_proj", "up_proj"))),
        multiplied(_linears(mlp, ("down_proj",))),
        window_of(layer),
    )


def window_of(layer: Any) -> int | None:
    """Its sliding window."""
    attention = layer.self_attn
    windowed = attention if hasattr(attention, "sliding_window") else attention.config
    return getattr(windowed, "sliding_window", None)


def linears_of(module: Any, fused: tuple[str, ...], separate: tuple[str, ...] = ()) -> list[torch.nn.Linear]:
    """The modules of these names: the one of a class that has them fused, or several."""
    return [getattr(module, name) for name in (fused if hasattr(module, fused[0]) else separate)]


def _linears(module: Any, fused: tuple[str, ...], separate: tuple[str, ...] = ()) -> list[Linear]:
    linears = linears_of(module, fused, separate)
    return [(linear.weight.detach(), None if linear.bias is None else linear.bias.detach()) for linear in linears]


def _plain(linears: Sequence[Linear]) -> Product:
    if len(linears) == 1:
        return lambda x: F.linear(x, *linears[0])
    return lambda x: torch.cat([F.linear(x, *linear) for linear in linears], -1)


def _transposed(linears: Sequence[Linear]) -> Product:
    weight = torch.cat([weight for weight, _ in linears]).T.contiguous()  # (in, sum of out)
    bias = joined_bias(linears)
    return lambda x: x @ weight if bias is None else torch.addmm(bias, x, weight)
