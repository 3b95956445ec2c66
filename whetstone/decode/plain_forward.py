"""The same numbers as a Llama-, Qwen2- or Phi-3-class module, with a fifth of the calls: for small models, calls are the cost.

It works on the module's own parameters; only of a small model on a CPU it keeps a copy of the matrices, as the products of
a few rows want them. Only what is exactly such a model is taken: anything replaced in it (an adapter, a quantised or a
hooked layer) is left to the module itself, and so is every other class.

What stands between the matrix products is done by kernels of our own, on a CPU in fp32 and bf16 and on a GPU, else by torch.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.decode import cpu_kernels
from whetstone.decode.cpu_kernels import array
from whetstone.decode.kv_cache import Heads
from whetstone.longrope import tables

Linear = tuple[torch.Tensor, torch.Tensor | None]
Product = Callable[[torch.Tensor], torch.Tensor]
Norm = tuple[torch.Tensor, float]  # its weight and epsilon

CLASSES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM")
LINEARS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
FIRST_TABLE = 256  # positions
COPIED = 256 << 20  # bytes: larger models are not copied


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
    """A layer's products, and how far it looks back."""

    joint: Product  # to queries, keys and values, side by side
    out: Product
    gate_up: Product  # to gates and what they let through, side by side
    down: Product
    window: int | None


class PlainForward:
    """Call it with (T,) ids and positions of a flat row and a cache: (T, C) hidden states after the last norm.

    To be made anew when the weights have changed, or others have taken their place. Positions are below what `reserve` was
    told last. `kernels`: gpu_kernels.py, where it is to do what stands between the products.
    """

    def __init__(self, model: Any, kernels: ModuleType | None = None):
        self.base = model.model
        attention = self.base.layers[0].self_attn
        self.size, self.groups, self.scaling = attention.head_dim, attention.num_key_value_groups, attention.scaling
        norms = [norm for layer in self.base.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        norms = [(norm.weight.detach(), norm.variance_epsilon) for norm in (*norms, self.base.norm)]
        weight = norms[0][0]
        on_cpu = kernels is None and weight.device.type == "cpu" and weight.dtype in cpu_kernels.TYPES
        small = sum(p.nbytes for p in self.base.parameters()) <= COPIED
        copied = on_cpu and weight.dtype == torch.float32 and small
        self.layers = [_read(layer, copied) for layer in self.base.layers]
        self.steps = _GpuSteps(norms, kernels) if kernels else _CpuSteps(norms) if on_cpu else _TorchSteps(norms)
        self.rotary = _Rotary(self.base.rotary_emb, model.config, weight, self.steps.wide, gathered=not on_cpu)

    @property
    def same_at_any_length(self) -> bool:
        """Whether a token's angles depend on nothing but its position."""
        return self.rotary.kept

    def reserve(self, length: int) -> int:
        """Room for positions below `length`. Another number than before: what was captured of calls is void."""
        return self.rotary.reserve(length)

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        steps = self.steps
        x = steps.start(self.base.embed_tokens(ids))  # (T, C)
        turn = self.rotary.turn(positions)
        normed = steps.norm(x)
        for number, layer in enumerate(self.layers):
            joint = layer.joint(normed)  # (T, (H + 2 K) D)
            kinds = joint.shape[1] // self.size // (self.groups + 2)
            turned = (self.groups + 1) * kinds
            heads = Heads(steps.turn(joint, turned, self.size, turn), joint, turned * self.size, kinds)
            window = None if layer.window is None or layer.window >= cache.length else layer.window
            found = cache.attend(number, heads, self.scaling, window)  # (T, H, D)
            x, normed = steps.add_and_norm(x, layer.out(found.flatten(1)), 2 * number + 1)
            x, normed = steps.add_and_norm(x, layer.down(steps.gate(layer.gate_up(normed))), 2 * number + 2)
        return normed


class _Turn(NamedTuple):
    """Cosines and sines (P, half of what is turned of a head), and which of them each token wants."""

    cos: torch.Tensor
    sin: torch.Tensor
    positions: torch.Tensor | None  # (T,); None: they are each token's own already


class _Rotary:
    """Cosines and sines by the model's own module, in its own type, kept where they depend on nothing but the position.

    `wide`: given in fp32. `gathered`: those of each token, once for all layers.
    """

    def __init__(self, module: Any, config: Any, weight: torch.Tensor, wide: bool, gathered: bool):
        self.module, self.weight, self.wide, self.gathered = module, weight, wide, gathered
        chosen = all(t["short_factor"] == t["long_factor"] for t in tables(config))
        self.kept = chosen and "dynamic" not in getattr(module, "rope_type", "dynamic")
        self.length = 0

    def reserve(self, length: int) -> int:
        """Angles of positions below `length`, and of how many there are now, in place of those before where they are more.

        The length is told from outside: a GPU would have to be waited for, to ask its positions for the largest.
        """
        if self.kept and length > self.length:
            self.length = max(FIRST_TABLE, 2 * length)
            self.cos, self.sin = self._of(torch.arange(self.length, device=self.weight.device))
        return self.length

    def turn(self, positions: torch.Tensor) -> _Turn:
        if not self.kept:
            own = self._of(positions)
            return _Turn(*own, None if self.gathered else torch.arange(len(positions), device=positions.device))
        if self.gathered:
            return _Turn(self.cos[positions], self.sin[positions], None)
        return _Turn(self.cos, self.sin, positions)

    def _of(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.module(self.weight[None], position_ids=positions[None])  # (1, P, turned) each
        half = found[0].shape[2] // 2  # both halves are alike
        cos, sin = (x[0, :, :half].contiguous() for x in found)
        return (cos.float(), sin.float()) if self.wide else (cos, sin)


class _TorchSteps:
    """What stands between the matrix products, on any device and in any type."""

    wide = False  # angles in fp32

    def __init__(self, norms: list[Norm]):
        self.norms = norms

    def start(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def norm(self, x: torch.Tensor, number: int = 0) -> torch.Tensor:
        return torch.rms_norm(x, x.shape[-1:], *self.norms[number])

    def add_and_norm(self, x: torch.Tensor, more: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = x + more
        return x, self.norm(x, number)

    def turn(self, joint: torch.Tensor, count: int, size: int, turn: _Turn) -> torch.Tensor:
        """(T, count, size): the first heads of `joint` with their rotary embedding."""
        heads = joint[:, : count * size].unflatten(1, (count, size))
        cos, sin = turn.cos[:, None], turn.sin[:, None]  # (T, 1, half)
        half = cos.shape[-1]
        a, b = heads[..., :half], heads[..., half : 2 * half]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, heads[..., 2 * half :]], -1)

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        gate, up = both.chunk(2, -1)
        return F.silu(gate) * up


class _GpuSteps:
    """The same in a kernel each. The running sum of the layers is kept in fp32."""

    wide = True

    def __init__(self, norms: list[Norm], kernels: ModuleType):
        self.norms, self.kernels = norms, kernels

    def start(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()

    def norm(self, x: torch.Tensor, number: int = 0) -> torch.Tensor:
        return self.kernels.norm(x, *self.norms[number])

    def add_and_norm(self, x: torch.Tensor, more: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return x, self.kernels.norm(x, *self.norms[number], more)

    def turn(self, joint: torch.Tensor, count: int, size: int, turn: _Turn) -> torch.Tensor:
        return self.kernels.turn(joint, count, size, turn.cos, turn.sin)

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        return self.kernels.gate(both)


class _CpuSteps:
    """The same in compiled passes. The running sum of the layers is kept in fp32."""

    wide = True

    def __init__(self, norms: list[Norm]):
        self.norms = [(array(weight), np.float32(eps)) for weight, eps in norms]
        self.dtype = norms[0][0].dtype

    def start(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()

    def norm(self, x: torch.Tensor, number: int = 0) -> torch.Tensor:
        out = torch.empty_like(x, dtype=self.dtype)
        cpu_kernels.norm(array(x), *self.norms[number], array(out))
        return out

    def add_and_norm(self, x: torch.Tensor, more: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty_like(x, dtype=self.dtype)
        cpu_kernels.add_and_norm(array(x), array(more), *self.norms[number], array(out))
        return x, out

    def turn(self, joint: torch.Tensor, count: int, size: int, turn: _Turn) -> torch.Tensor:
        out = joint.new_empty(len(joint), count, size)
        cpu_kernels.turn(array(joint), size, array(turn.cos), array(turn.sin), array(turn.positions), array(out))
        return out

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        out = both.new_empty(len(both), both.shape[1] // 2)
        cpu_kernels.gate(array(both), array(out))
        return out


def _read(layer: Any, copied: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    windowed = attention if hasattr(attention, "sliding_window") else attention.config
    return _Layer(
        _product(_linears(attention, ("qkv_proj",), ("q_proj", "k_proj", "v_proj")), copied),
        _product(_linears(attention, ("o_proj",)), copied),
        _product(_linears(mlp, ("gate_up_proj",), ("gate_proj", "up_proj")), copied),
        _product(_linears(mlp, ("down_proj",)), copied),
        getattr(windowed, "sliding_window", None),
    )


def _linears(module: Any, one: tuple[str, ...], several: tuple[str, ...] = ()) -> list[Linear]:
    linears = [getattr(module, name) for name in (one if hasattr(module, one[0]) else several)]
    return [(linear.weight.detach(), None if linear.bias is None else linear.bias.detach()) for linear in linears]


def _product(linears: Sequence[Linear], copied: bool) -> Product:
    """x -> the products with these, side by side. `copied`: with one transposed copy, which few rows go through faster."""
    if not copied:
        return lambda x: _side_by_side([F.linear(x, *linear) for linear in linears])
    weight = torch.cat([weight for weight, _ in linears]).T.contiguous()
    if all(bias is None for _, bias in linears):
        return lambda x: x @ weight
    bias = torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in linears])
    return lambda x: torch.addmm(bias, x, weight)


def _side_by_side(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
