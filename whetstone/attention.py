"""The attention of every model here, registered with transformers under the name "whetstone".

It takes a flat row of tokens, (1, T): several sequences end to end. Which tokens they attend to depends on the keyword:

packed   `lengths=…`       each sequence attends causally to itself alone: training, log-probabilities
cached   `block_cache=…`   each token belongs to a sequence in a key/value cache: decoding (decode/kv_cache.py)

On a CPU a loop of causal SDPA over the sequences, in fp32, is faster than a T x T mask, and gives each sequence the numbers it
gets alone, to the bit. On a GPU in half precision torch's `varlen_attn` computes the whole row. A model's sliding window is
kept in both. What is not supported (soft caps, sinks, dropout) is refused.

Letters: T tokens of a row, U tokens of its sequences if none shared a prompt, H query heads, K key/value heads, D head size.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

ATTENTION = "whetstone"
UNTRACED = "whetstone_untraced"  # for compiled layers: not traced, as each row's lengths would be traced anew

HALF_TYPES = (torch.bfloat16, torch.float16)  # the types that the GPU kernels take


class Indices(NamedTuple):
    """How the T tokens of a row with shared prompts map to the U tokens of its sequences, each with its own prompt."""

    unshared: torch.Tensor  # (U,) where in the row each token of the sequences is
    kept: torch.Tensor  # (T,) which of the U tokens the row has, in its order
    repeated: torch.Tensor  # (U - T,) the others: prompts that an earlier sequence has
    prompts: torch.Tensor  # (U - T,) where in the row these are


class Segments:
    """The sequences of a packed row: their lengths, and for a GPU kernel their boundaries as a tensor.

    If sequences share a prompt (`batch.py`), the row has it once. For attention the sequences are made whole, so that each
    sees what it would see alone, and of the results the row keeps one per token it has. Everything else in a model is computed
    once per prompt. Make it once per batch, as every layer reads the same.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu", shared: Sequence[int] = ()):
        self.lengths = list(lengths)
        self.longest = max(self.lengths)
        self.shared = list(shared) if any(shared) else []  # of each sequence, its first tokens that an earlier one has
        on_cpu = torch.device(device).type == "cpu"
        boundaries = [0, *accumulate(self.lengths)]
        self.cu_seqlens = None if on_cpu else torch.tensor(boundaries, device=device).int()  # (sequences + 1,)
        self.pieces: list[int] = []  # lengths of the row's pieces: a sequence, or a shared prompt, or what follows one
        self.parts: list[tuple[int, ...]] = []  # of each sequence, the pieces that it consists of
        prompt = 0  # the piece that is the last prompt
        for i, length in enumerate(self.lengths if self.shared else ()):
            if self.shared[i]:
                self.parts.append((prompt, len(self.pieces)))
                self.pieces.append(length - self.shared[i])
                continue
            prompt = len(self.pieces)
            ahead = self.shared[i + 1] if i + 1 < len(self.shared) else 0  # all that share its prompt share this many
            self.parts.append((prompt, prompt + 1) if ahead else (prompt,))
            self.pieces += [ahead, length - ahead] if ahead else [length]
        self.indices: Indices | None = None  # on a GPU, if prompts are shared
        if self.shared and not on_cpu:
            self.indices = Indices(*(indices.to(device) for indices in self.make_indices()))

    @cached_property
    def row_indices(self) -> Indices | None:
        """`indices` on a CPU, for who needs them there."""
        return self.make_indices() if self.shared else None

    def make_indices(self) -> Indices:
        row = torch.arange(sum(self.pieces)).split(self.pieces)
        own = list(zip(torch.arange(sum(self.lengths)).split(self.lengths), self.shared, strict=True))
        unshared = torch.cat([row[i] for part in self.parts for i in part])
        repeated = torch.cat([tokens[:n] for tokens, n in own])
        return Indices(unshared, torch.cat([tokens[n:] for tokens, n in own]), repeated, unshared[repeated])

    def unshare(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(1, H, T, D) -> (1, H, n, D) of each sequence, its prompt included."""
        if not self.shared:
            return list(x.split(self.lengths, 2))
        pieces = x.split(self.pieces, 2)
        return [torch.cat([pieces[i] for i in part], 2) if len(part) > 1 else pieces[part[0]] for part in self.parts]

    def share(self, sequences: Sequence[torch.Tensor]) -> torch.Tensor:
        """The way back: (1, H, n, D) of each sequence -> (1, H, T, D)."""
        if not self.shared:
            return torch.cat(list(sequences), 2)
        return torch.cat([x.narrow(2, n, x.shape[2] - n) for x, n in zip(sequences, self.shared, strict=True)], 2)


class _Unshare(torch.autograd.Function):
    """(T, …) -> (U, …). Backward adds up the gradients of shared prompts only, and moves the others."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, indices: Indices) -> torch.Tensor:  # type: ignore[override]
        ctx.indices = indices
        return x.index_select(0, indices.unshared)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):  # type: ignore[override]
        indices: Indices = ctx.indices
        own = gradient.index_select(0, indices.kept)
        return own.index_add_(0, indices.prompts, gradient.index_select(0, indices.repeated)), None


class _Share(torch.autograd.Function):
    """The way back, (U, …) -> (T, …). Repeated prompts get no gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, indices: Indices) -> torch.Tensor:  # type: ignore[override]
        ctx.indices = indices
        return x.index_select(0, indices.kept)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):  # type: ignore[override]
        indices: Indices = ctx.indices
        whole = gradient.new_zeros(len(indices.unshared), *gradient.shape[1:])
        return whole.index_copy_(0, indices.kept, gradient), None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, K, T, D)
    value: torch.Tensor,  # (1, K, T, D)
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    lengths: Segments | Sequence[int] | None = None,
    block_cache: Any = None,
    layers: list[int] | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The function that transformers' modules call. Returns (1, T, H, D). `layers` collects which of them called.

    Raises ValueError for a batch of several rows, and if the model asks for something that is not supported.
    """
    if query.shape[0] != 1:
        raise ValueError(f"a batch of {query.shape[0]} rows: this attention takes one row with sequences end to end.")
    unsupported = {"dropout": dropout or None, "a soft cap": others.get("softcap"), "sinks": others.get("s_aux")}
    for name, amount in unsupported.items():
        if amount is not None:
            model = type(module).__name__
            raise ValueError(f"{model} asks for attention with {name}, which is not supported")
    if block_cache is not None:
        window = None if sliding_window is None or sliding_window >= block_cache.length else sliding_window
        out = block_cache.attend(module.layer_idx, block_cache.heads(query, key, value), scaling, window)[None]
        return out.contiguous(), None  # as transformers' own are: a class may view it as (1, T, H * D)
    _refuse_other_sizes(module, key, value)
    if layers is not None:
        layers.append(module.layer_idx)
    if not isinstance(lengths, Segments):
        lengths = Segments(lengths or [query.shape[2]], query.device)
    return attend_segments(query, key, value, lengths, scaling, sliding_window).contiguous(), None


def _refuse_other_sizes(module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor) -> None:
    """Raises ValueError for keys or values that the decoding's cache, one size for all layers, could not hold."""
    config = getattr(module, "config", None)
    if config is None:
        return
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wanted = getattr(config, "num_key_value_heads", None) or config.num_attention_heads, size
    for name, heads in (("keys", key), ("values", value)):
        if (heads.shape[1], heads.shape[3]) != wanted:
            raise ValueError(
                f"{type(module).__name__} has {name} of {heads.shape[1]} heads of size {heads.shape[3]}, and config.json "
                f"says {wanted[0]} of {wanted[1]} (latent or multi-query attention), which is not supported"
            )


AttentionInterface.register(ATTENTION, attend)


def attend_segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    segments: Segments, scaling: float | None, window: int | None,
) -> torch.Tensor:  # fmt: skip
    """Causal attention of each sequence to itself, by a GPU kernel if one takes these tensors: query (1, H, T, D), key and
    value (1, K, T, D) -> (1, T, H, D)."""
    window = None if window is None or window >= segments.longest else window
    half = half_precision(value)
    kernel = varlen_kernel() if half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256 else None
    if kernel is None:
        return packed_attention(query, key, value, segments, scaling, window).transpose(1, 2)
    flat = [x[0].transpose(0, 1).to(half) for x in (query, key, value)]  # (T, heads, D)
    if segments.indices is None:
        return kernel(*flat, segments, scaling, window)[None]
    unshared = kernel(*(_Unshare.apply(x, segments.indices) for x in flat), segments, scaling, window)  # (U, H, D)
    return _Share.apply(unshared, segments.indices)[None]


def half_precision(value: torch.Tensor) -> torch.dtype | None:
    """The half precision that a GPU computes this attention in: autocast's, or the tensor's own. None if there is none.

    Under autocast the rotary embedding returns queries and keys in fp32; only the values show the type that is meant.
    """
    if not value.is_cuda:
        return None
    wanted = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
    return wanted if wanted in HALF_TYPES else None


# --- one sequence after the other


def packed_attention(
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, K, T, D)
    value: torch.Tensor,  # (1, K, T, D)
    lengths: Segments | Sequence[int],
    scaling: float | None,
    window: int | None = None,  # a token attends to itself and the `window` - 1 tokens before it
) -> torch.Tensor:
    """Causal attention of each sequence to itself, on a CPU in fp32 even under autocast: (1, H, T, D)."""
    dtype = query.dtype
    if query.device.type == "cpu":
        wide = torch.promote_types(dtype, torch.float32)
        query, key, value = query.to(wide), key.to(wide), value.to(wide)
    with torch.autocast("cpu", enabled=False):
        segments = lengths if isinstance(lengths, Segments) else Segments(lengths)
        each = zip(*map(segments.unshare, (query, key, value)), strict=True)
        out = segments.share([_causal(q, k, v, scaling, window) for q, k, v in each])
    return out.to(dtype)


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float | None, window: int | None):
    """One sequence of n tokens: (1, H, n, D). With a window, each block of `window` queries gets only the keys that one of
    them attends to."""
    grouped = k.shape[1] != q.shape[1]
    n = q.shape[2]
    if window is None or window >= n:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
    out = []
    for begin in range(0, n, window):
        end, first = min(begin + window, n), max(0, begin - window + 1)
        distance = torch.arange(begin, end, device=q.device)[:, None] - torch.arange(first, end, device=q.device)
        visible = (distance >= 0) & (distance < window)  # (queries, keys)
        part = q[:, :, begin:end], k[:, :, first:end], v[:, :, first:end]
        out.append(F.scaled_dot_product_attention(*part, attn_mask=visible, scale=scaling, enable_gqa=grouped))
    return torch.cat(out, 2)


# --- the whole row at once, on a GPU

# (query (T, H, D), key (T, K, D), value (T, K, D), segments, scaling, window) -> (T, H, D)
Kernel = Callable[..., torch.Tensor]


@lru_cache
def varlen_kernel() -> Kernel:
    """torch's variable-length attention. torch 2.11 has no `enable_gqa`: there keys and values are repeated per query head."""
    from torch.nn.attention.varlen import varlen_attn

    return kernel_of(varlen_attn)


def kernel_of(varlen_attn: Callable[..., torch.Tensor]) -> Kernel:
    takes_groups = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def kernel(query, key, value, segments: Segments, scaling: float | None, window: int | None):
        group = query.shape[1] // key.shape[1]
        grouped = {"enable_gqa": group > 1} if takes_groups else {}
        if not takes_groups and group > 1:
            key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        # (tokens attended to on the left, on the right); causal is recognised by (-1, 0), which must be a tuple
        window_size = (-1 if window is None else window - 1, 0)
        bounds = (segments.cu_seqlens, segments.cu_seqlens, segments.longest, segments.longest)
        return varlen_attn(query, key, value, *bounds, scale=scaling, window_size=window_size, **grouped)

    return kernel
