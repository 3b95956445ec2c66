"""The same numbers as a Llama-, Qwen2- or Phi-3-class module, with a third of the calls: for small models, calls are the cost.

It works on the module's own parameters and keeps no copy, so the engine samples from the weights as they are. Only what is
exactly such a model is taken: anything replaced in it (an adapter, a quantised or a hooked layer) is left to the module
itself, and so is every other class.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

Linear = tuple[torch.Tensor, torch.Tensor | None]

CLASSES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM")
LINEARS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")


def fits(model: Any) -> bool:
    """Whether a `PlainForward` may stand for the model's own."""
    if type(model).__name__ not in CLASSES or not type(model).__module__.startswith("transformers."):
        return False
    if getattr(model.config, "hidden_act", "") != "silu":
        return False
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return False
        if name.rpartition(".")[2] in LINEARS and type(module) is not torch.nn.Linear:
            return False
    return True


class _Layer(NamedTuple):
    """A layer's own parameters: weights with their biases."""

    first_norm: tuple[torch.Tensor, float]
    joint: tuple[Linear, ...]  # to queries, keys and values, in one matrix or three
    out: Linear
    second_norm: tuple[torch.Tensor, float]
    gate_up: tuple[Linear, ...]  # in one matrix or two
    down: Linear
    window: int | None


class PlainForward:
    """Call it with (T,) ids and positions of a flat row and a cache: (T, C) hidden states after the last norm.

    It holds the parameters themselves, to be made anew when others may have taken their place.
    """

    def __init__(self, model: Any):
        self.base = model.model
        attention = self.base.layers[0].self_attn
        self.size, self.groups, self.scaling = attention.head_dim, attention.num_key_value_groups, attention.scaling
        self.layers = [_read(layer) for layer in self.base.layers]
        self.norm = _norm_of(self.base.norm)

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        x = self.base.embed_tokens(ids)  # (T, C)
        cos, sin = self.base.rotary_emb(x[None], position_ids=positions[None])  # (1, T, rotated)
        half = cos.shape[2] // 2  # both halves are alike
        cos, sin = cos[0, :, None, :half], sin[0, :, None, :half]
        for number, layer in enumerate(self.layers):
            x = x + self._attention(number, layer, _norm(layer.first_norm, x), cos, sin, cache)
            x = x + _mlp(layer, _norm(layer.second_norm, x))
        return _norm(self.norm, x)

    def _attention(
        self, number: int, layer: _Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        parts = [F.linear(x, *linear) for linear in layer.joint]
        joint = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        heads = joint.view(len(x), -1, self.size)  # (T, H + 2 K, D)
        k = heads.shape[1] // (self.groups + 2)
        turned = _turned(heads[:, : (self.groups + 1) * k], cos, sin)
        query, key, value = (
            turned[:, : self.groups * k],
            turned[:, self.groups * k :],
            heads[:, (self.groups + 1) * k :],
        )
        rows = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, T, D)
        window = None if layer.window is None or layer.window >= cache.length else layer.window
        out = cache.attend(number, *rows, self.scaling, window)  # (1, T, H, D)
        return F.linear(out.reshape(len(x), -1), *layer.out)


def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the first dimensions of each head; the rest, if any, passes through."""
    half = cos.shape[-1]
    a, b = heads[..., :half], heads[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, heads[..., 2 * half :]], -1)


def _mlp(layer: _Layer, x: torch.Tensor) -> torch.Tensor:
    if len(layer.gate_up) == 1:
        gate, up = F.linear(x, *layer.gate_up[0]).chunk(2, -1)
    else:
        gate, up = (F.linear(x, *linear) for linear in layer.gate_up)
    return F.linear(F.silu(gate) * up, *layer.down)


def _norm(norm: tuple[torch.Tensor, float], x: torch.Tensor) -> torch.Tensor:
    return torch.rms_norm(x, x.shape[-1:], *norm)


def _read(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    windowed = attention if hasattr(attention, "sliding_window") else attention.config
    return _Layer(
        _norm_of(layer.input_layernorm),
        _linears(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj")),
        _linear_of(attention.o_proj),
        _norm_of(layer.post_attention_layernorm),
        _linears(mlp, ("gate_up_proj",), ("gate_proj", "up_proj")),
        _linear_of(mlp.down_proj),
        getattr(windowed, "sliding_window", None),
    )


def _linears(module: Any, one: tuple[str, ...], several: tuple[str, ...]) -> tuple[Linear, ...]:
    return tuple(_linear_of(getattr(module, name)) for name in (one if hasattr(module, one[0]) else several))


def _linear_of(linear: torch.nn.Linear) -> Linear:
    return linear.weight, linear.bias


def _norm_of(norm: Any) -> tuple[torch.Tensor, float]:
    return norm.weight, norm.variance_epsilon
