"""The same numbers as a Llama-, Qwen2- or Phi-3-class module, with a third of the calls: for small models, calls are the cost.

It reads the module's own parameters at every call and keeps no copy, so the engine samples from the weights as they are. Only
what is exactly such a model is taken: anything replaced in it (an adapter, a quantised or a hooked layer) is left to the
module itself, and so is every other class.
"""

from typing import Any

import torch
import torch.nn.functional as F

CLASSES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM")
LINEARS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")


def fits(model: Any) -> bool:
    """Whether `forward` may stand for the model's own."""
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


def forward(model: Any, ids: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
    """(T,) ids and positions of a flat row -> (T, C) hidden states after the last norm."""
    base = model.model
    x = base.embed_tokens(ids)  # (T, C)
    cos, sin = base.rotary_emb(x[None], position_ids=positions[None])  # (1, T, rotated)
    half = cos.shape[2] // 2  # both halves are alike
    turn = cos[0, :, None, :half], sin[0, :, None, :half]
    for number, layer in enumerate(base.layers):
        x = x + _attention(layer.self_attn, _norm(layer.input_layernorm, x), turn, number, cache)
        x = x + _mlp(layer.mlp, _norm(layer.post_attention_layernorm, x))
    return _norm(base.norm, x)


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _linear(linear: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, linear.weight, linear.bias)


def _attention(
    attention: Any, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], number: int, cache: Any
) -> torch.Tensor:
    size = attention.head_dim
    if hasattr(attention, "qkv_proj"):
        joint = _linear(attention.qkv_proj, x)
    else:
        joint = torch.cat([_linear(p, x) for p in (attention.q_proj, attention.k_proj, attention.v_proj)], -1)
    heads = joint.unflatten(-1, (-1, size))  # (T, H + 2 K, D)
    groups = attention.num_key_value_groups
    k = heads.shape[1] // (groups + 2)
    turned = _turned(heads[:, : (groups + 1) * k], *turn)
    query, key, value = turned[:, : groups * k], turned[:, groups * k :], heads[:, (groups + 1) * k :]
    windowed = attention if hasattr(attention, "sliding_window") else attention.config
    window = getattr(windowed, "sliding_window", None)
    if window is not None and window >= cache.length:
        window = None
    rows = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, T, D)
    out = cache.attend(number, *rows, attention.scaling, window)  # (1, T, H, D)
    return _linear(attention.o_proj, out[0].flatten(1))


def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the first dimensions of each head; the rest, if any, passes through."""
    half = cos.shape[-1]
    a, b = heads[..., :half], heads[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, heads[..., 2 * half :]], -1)


def _mlp(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    if hasattr(mlp, "gate_up_proj"):
        gate, up = _linear(mlp.gate_up_proj, x).chunk(2, -1)
    else:
        gate, up = _linear(mlp.gate_proj, x), _linear(mlp.up_proj, x)
    return _linear(mlp.down_proj, F.silu(gate) * up)
