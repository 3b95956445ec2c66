"""A layer of a Llama-, Qwen2- or Phi-3-class model in bf16 training on a CPU with AVX512-BF16: one function with its gradient.

The matrix products are torch's in bf16, as under autocast; weights, their gradients and the residual stream are fp32. Between
the products lies one compiled pass each (cpu_layer_kernels.py, cpu_attention.py), where the modules need some twenty. The
backward pass keeps the inputs of the norms, queries, keys, values and gates, and computes the rest again.

Letters: T tokens, C hidden size, H query heads, K key/value heads, D head size, I inner size of the MLP, R rotated dimensions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from whetstone.attention import Segments
from whetstone.decode import cpu_attention
from whetstone.decode.cpu_kernels import array, gate, uninitialised
from whetstone.decode.fused_forward import fits, linears_of, window_of
from whetstone.decode.paged_attention import NO_WINDOW
from whetstone.decode.simd import LANES
from whetstone.learner import cpu_layer_kernels as kernels
from whetstone.run.cpu import has_bf16_vectors

HALF = torch.bfloat16


class Shape(NamedTuple):
    """Of a layer's attention, and the epsilons of its two norms."""

    heads: int
    kv_heads: int
    size: int
    scaling: float
    window: int
    epsilons: tuple[float, float]


def trains_faster(model: Any, compute: str) -> bool:
    """Whether `fused` computes what the model's layers compute, and this processor does it faster."""
    weight = next(model.parameters())
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and compute == "bfloat16"
    return plain and has_bf16_vectors() and fits(model) and model.model.layers[0].self_attn.head_dim % LANES == 0


def fused(layer: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """A forward for the layer under autocast and with packed sequences; in any other call it is the layer's own."""
    plain = layer.forward
    attention, mlp = layer.self_attn, layer.mlp
    norms = layer.input_layernorm, layer.post_attention_layernorm
    size, group = attention.head_dim, attention.num_key_value_groups
    kinds = [
        linears_of(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj")), linears_of(attention, ("o_proj",)),
        linears_of(mlp, ("gate_up_proj",), ("gate_proj", "up_proj")), linears_of(mlp, ("down_proj",)),
    ]  # fmt: skip
    heads = kinds[1][0].in_features // size
    shape = Shape(
        heads, heads // group, size, attention.scaling, window_of(layer) or NO_WINDOW,
        tuple(norm.variance_epsilon for norm in norms),
    )  # fmt: skip

    def forward(hidden_states: torch.Tensor, *args: Any, **others: Any) -> torch.Tensor:
        packed = isinstance(others.get("lengths"), Segments) and others.get("layers") is None
        if args or not packed or not torch.is_autocast_enabled("cpu"):
            return plain(hidden_states, *args, **others)
        cos, sin = others["position_embeddings"]  # (1, T, R), whose second half repeats the first
        weights = [linear.weight for linears in kinds for linear in linears]
        biases = [linear.bias for linears in kinds for linear in linears]
        counts = [len(linears) for linears in kinds]
        inputs = hidden_states[0], cos[0], sin[0], others["lengths"], shape, counts
        return _Layer.apply(*inputs, *(norm.weight for norm in norms), *weights, *biases)[None]

    return forward


class _Layer(torch.autograd.Function):
    """x (T, C), cosines and sines (T, R), …, the weights of two norms, then weights and biases of all linears -> (T, C)."""

    @staticmethod
    def forward(ctx, x, cos, sin, segments, shape, counts, *parameters):  # type: ignore[override]
        norms, products = parameters[:2], _joined(parameters[2:], counts)
        x = x.contiguous()
        normed, scales = _norm(x, norms[0], shape.epsilons[0])
        qkv = products[0](normed)
        attention = _Attention(shape, segments, cos, sin)
        attended, totals = attention.forward(qkv)
        middle, normed, middle_scales = _add_norm(x, products[1](attended), norms[1], shape.epsilons[1])
        gate_up = products[2](normed)
        out = torch.empty_like(x)
        kernels.add(array(middle).ravel(), array(products[3](_gated(gate_up))).ravel(), array(out).ravel())
        ctx.save_for_backward(x, scales, qkv, attended, totals, middle, middle_scales, gate_up, cos, sin, *parameters)
        ctx.others = segments, shape, counts
        return out

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        x, scales, qkv, attended, totals, middle, middle_scales, gate_up, cos, sin, *parameters = ctx.saved_tensors
        segments, shape, counts = ctx.others
        norms, products = parameters[:2], _joined(parameters[2:], counts)
        d_out = d_out.contiguous()
        d_half = uninitialised(d_out.shape, HALF)
        kernels.to_bf16(array(d_out).ravel(), array(d_half).ravel())
        d_gated = products[3].backward(_gated(gate_up), d_half)
        d_gate_up = uninitialised(gate_up.shape, HALF)
        kernels.gate_backward(array(gate_up), array(d_gated), array(d_gate_up))
        d_normed = products[2].backward(_norm(middle, norms[1], shape.epsilons[1])[0], d_gate_up)
        d_middle, d_delta, d_second = _norm_backward(middle, norms[1], middle_scales, d_out, d_normed, both=True)
        d_attended = products[1].backward(attended, d_delta)
        d_qkv = _Attention(shape, segments, cos, sin).backward(qkv, attended, totals, d_attended)
        d_normed = products[0].backward(_norm(x, norms[0], shape.epsilons[0])[0], d_qkv)
        d_x, _, d_first = _norm_backward(x, norms[0], scales, d_middle, d_normed, both=False)
        gradients = [
            d_first,
            d_second,
            *(g for p in products for g in p.d_weights),
            *(g for p in products for g in p.d_biases),
        ]
        needed = ctx.needs_input_grad
        return (
            d_x,
            None,
            None,
            None,
            None,
            None,
            *(g if need else None for g, need in zip(gradients, needed[6:], strict=True)),
        )


# --- the matrix products


class _Product:
    """With several linears of the same input, side by side, in bf16."""

    def __init__(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]):
        self.weights, self.biases = weights, biases
        self.weight = uninitialised((sum(map(len, weights)), weights[0].shape[1]), HALF)  # (O, I)
        for part, weight in zip(self.weight.split([len(weight) for weight in weights]), weights, strict=True):
            part.copy_(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.mm(x, self.weight.T, out=uninitialised((len(x), len(self.weight)), HALF))
        at = 0
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if bias is not None:
                out[:, at : at + len(weight)] += bias
            at += len(weight)
        return out

    def backward(self, x: torch.Tensor, d_out: torch.Tensor) -> torch.Tensor:
        """The gradient of x (T, I) from that of the result (T, O); keeps those of weights and biases, in fp32."""
        narrow = torch.mm(d_out.T, x, out=uninitialised(self.weight.shape, HALF))
        sizes = [len(weight) for weight in self.weights]
        self.d_weights = [uninitialised(part.shape, torch.float32).copy_(part) for part in narrow.split(sizes)]
        sums = None if all(bias is None for bias in self.biases) else d_out.sum(0, dtype=torch.float32).split(sizes)
        self.d_biases = [None if bias is None else sums[i] for i, bias in enumerate(self.biases)]
        return torch.mm(d_out, self.weight, out=uninitialised((len(d_out), self.weight.shape[1]), HALF))


def _joined(parameters: Sequence[torch.Tensor | None], counts: Sequence[int]) -> list[_Product]:
    """The products of weights and biases, of which so many belong to each."""
    half, at, products = len(parameters) // 2, 0, []
    for count in counts:
        products.append(_Product(parameters[at : at + count], parameters[half + at : half + at + count]))
        at += count
    return products


# --- what lies between them


class _Attention:
    """Of packed sequences to themselves: qkv (T, (H + 2 K) D) -> (T, H D), both in bf16."""

    def __init__(self, shape: Shape, segments: Segments, cos: torch.Tensor, sin: torch.Tensor):
        self.shape, self.indices = shape, segments.row_indices
        half = cos.shape[1] // 2
        cos, sin = cos[:, :half].contiguous(), sin[:, :half].contiguous()
        if self.indices is not None:  # each sequence gets its own copy of the prompt
            cos, sin = cos[self.indices.unshared], sin[self.indices.unshared]
        starts = np.cumsum([0, *segments.lengths])
        self.fixed = (
            array(cos), array(sin), starts, shape.window, np.float32(shape.scaling), shape.heads, shape.kv_heads, shape.size
        )  # fmt: skip
        self.tokens = int(starts[-1])

    def forward(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Also the log-sum-exps of the scores (H, tokens)."""
        out = uninitialised((self.tokens, self.shape.heads * self.shape.size), HALF)
        totals = torch.empty(self.shape.heads, self.tokens)
        cpu_attention.attend(array(self._unshared(qkv)), *self.fixed, array(out), array(totals))
        return out if self.indices is None else out[self.indices.kept], totals

    def backward(self, qkv: torch.Tensor, out: torch.Tensor, totals: torch.Tensor, d_out: torch.Tensor) -> torch.Tensor:
        qkv = self._unshared(qkv)
        d_qkv = uninitialised(qkv.shape, HALF)
        if self.indices is not None:  # a repeated prompt has no gradient, and of its results none is asked for
            d_out = d_out.new_zeros(self.tokens, d_out.shape[1]).index_copy_(0, self.indices.kept, d_out)
            out = out.new_zeros(self.tokens, out.shape[1]).index_copy_(0, self.indices.kept, out)
        cpu_attention.attend_backward(array(qkv), *self.fixed, array(out), array(totals), array(d_out), array(d_qkv))
        if self.indices is None:
            return d_qkv
        wide = d_qkv.float()
        own = wide[self.indices.kept].index_add_(0, self.indices.prompts, wide[self.indices.repeated])
        return own.to(HALF)

    def _unshared(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.indices is None else x[self.indices.unshared]


def _norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The RMS norm in bf16, and what the rows were multiplied by (T,)."""
    out, scales = uninitialised(x.shape, HALF), torch.empty(len(x))
    rows = array(x)
    kernels.add_norm(rows, None, array(weight.detach()), np.float32(epsilon), rows, array(out), array(scales))
    return out, scales


def _add_norm(
    x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x + delta, its norm, and the norm's factors."""
    total, out, scales = uninitialised(x.shape, torch.float32), uninitialised(x.shape, HALF), torch.empty(len(x))
    places = array(total), array(out), array(scales)
    kernels.add_norm(array(x), array(delta), array(weight.detach()), np.float32(epsilon), *places)
    return total, out, scales


def _norm_backward(
    total: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    d_total: torch.Tensor,
    d_out: torch.Tensor,
    both: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """The gradient of total, in fp32 and if `both` in bf16, and that of the weight."""
    d_x, d_delta = uninitialised(total.shape, torch.float32), uninitialised(total.shape, HALF) if both else None
    d_weight = torch.empty_like(weight)
    given = array(total), array(weight.detach()), array(scales), array(d_total), array(d_out)
    kernels.add_norm_backward(*given, array(d_x), array(d_delta) if both else None, array(d_weight))
    return d_x, d_delta, d_weight


def _gated(gate_up: torch.Tensor) -> torch.Tensor:
    out = uninitialised((len(gate_up), gate_up.shape[1] // 2), HALF)
    gate(array(gate_up), array(out))
    return out
