"""The one attention of every model here, registered with transformers under the name "whetstone".

It takes a flat row of tokens, (1, T): several sequences end to end. What a call attends to is chosen by its keyword:

packed   `lengths=…`       each segment attends to itself alone, causally: training, log-probabilities
cached   `block_cache=…`   each token is one of a sequence in a key/value cache: decoding (decode/kv_cache.py)

On CPU a loop of causal SDPA over segments, in fp32, beats a T x T mask, and gives every segment the very numbers it gets
alone. On a GPU in half precision one kernel does the whole row: torch's `varlen_attn`, or FlashAttention where that is
installed and torch's is not. A model's sliding window is kept in both; what cannot be kept (soft caps, sinks, dropout) is
refused.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

ATTENTION = "whetstone"
UNTRACED = "whetstone_untraced"  # the same in compiled layers: not traced, which each new row's segments would be anew

HALVES = (torch.bfloat16, torch.float16)  # the types that the GPU kernels take


class Segments:
    """The sequences of a packed row: their lengths, and for a GPU kernel where each begins, as a tensor.

    Where sequences share a prompt (`batch.py`) the row has it once. For attention they are put together, so that each sees
    what it would see alone; of the results the row takes those that it has a place for. All else in a model is computed
    once for the prompt. Made once a batch: every layer reads the same.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu", shared: Sequence[int] = ()):
        self.lengths = list(lengths)
        self.longest = max(self.lengths)
        self.shared = list(shared) if any(shared) else []  # of each sequence, tokens that the row has once
        on_cpu = torch.device(device).type == "cpu"
        begins = [0, *accumulate(self.lengths)]  # the last is that of the end
        self.begins = None if on_cpu else torch.tensor(begins, device=device).int()
        self.pieces: list[int] = []  # lengths of the row's parts: sequences, or a shared prompt and what follows it
        self.parts: list[tuple[int, ...]] = []  # of each sequence, the pieces that it is made of
        prompt = 0  # the piece that the last prompt is
        for i, length in enumerate(self.lengths if self.shared else ()):
            if self.shared[i]:
                self.parts.append((prompt, len(self.pieces)))
                self.pieces.append(length - self.shared[i])
                continue
            prompt = len(self.pieces)
            ahead = self.shared[i + 1] if i + 1 < len(self.shared) else 0  # all that share with it share as much
            self.parts.append((prompt, prompt + 1) if ahead else (prompt,))
            self.pieces += [ahead, length - ahead] if ahead else [length]
        self.at: Places | None = None  # on a GPU
        if self.shared and not on_cpu:
            self.at = Places(*(places.to(device) for places in self.places()))

    def places(self) -> "Places":
        places = torch.arange(sum(self.pieces)).split(self.pieces)
        own = list(zip(torch.arange(sum(self.lengths)).split(self.lengths), self.shared, strict=True))
        gathered = torch.cat([places[i] for part in self.parts for i in part])
        again = torch.cat([at[:n] for at, n in own])
        return Places(gathered, torch.cat([at[n:] for at, n in own]), again, gathered[again])

    def whole(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(1, H, T, D) -> the sequences, each whole."""
        if not self.shared:
            return list(x.split(self.lengths, 2))
        pieces = x.split(self.pieces, 2)
        return [torch.cat([pieces[i] for i in part], 2) if len(part) > 1 else pieces[part[0]] for part in self.parts]

    def once(self, wholes: Sequence[torch.Tensor]) -> torch.Tensor:
        """The way back: (1, H, T, D)."""
        if not self.shared:
            return torch.cat(list(wholes), 2)
        return torch.cat([x.narrow(2, n, x.shape[2] - n) for x, n in zip(wholes, self.shared, strict=True)], 2)


class Places(NamedTuple):
    """Of T tokens of a row with shared prompts, and of the U tokens of its sequences, each whole."""

    gathered: torch.Tensor  # (U,) the row's place of each token of the sequences
    kept: torch.Tensor  # (T,) those of the U tokens that the row has, in its order
    again: torch.Tensor  # (U - T,) the others: prompts that a sequence before has
    prompts: torch.Tensor  # (U - T,) the row's places of these


class _Whole(torch.autograd.Function):
    """(T, …) -> (U, …): the sequences, each whole. Its gradient adds up for shared prompts only: the rest is moved."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, at: Places) -> torch.Tensor:  # type: ignore[override]
        ctx.at = at
        return x.index_select(0, at.gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):  # type: ignore[override]
        at: Places = ctx.at
        own = gradient.index_select(0, at.kept)
        return own.index_add_(0, at.prompts, gradient.index_select(0, at.again)), None


class _Once(torch.autograd.Function):
    """The way back, (U, …) -> (T, …). What the row has not got gets no gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, at: Places) -> torch.Tensor:  # type: ignore[override]
        ctx.at = at
        return x.index_select(0, at.kept)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):  # type: ignore[override]
        at: Places = ctx.at
        whole = gradient.new_zeros(len(at.gathered), *gradient.shape[1:])
        return whole.index_copy_(0, at.kept, gradient), None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, K, T, D), K key/value heads
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    lengths: Segments | Sequence[int] | None = None,
    block_cache: Any = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of every model here. Returns (1, T, H, D).

    Raises ValueError where the model asks for what this attention does not do.
    """
    if query.shape[0] != 1:
        raise ValueError(f"a batch of {query.shape[0]} rows: this attention takes one row with sequences end to end.")
    for asked, amount in (
        ("dropout", dropout or None),
        ("a soft cap", others.get("softcap")),
        ("sinks", others.get("s_aux")),
    ):
        if amount is not None:
            raise ValueError(f"{type(module).__name__} asks for attention with {asked}, which this attention has not.")
    if block_cache is not None:
        window = None if sliding_window is None or sliding_window >= block_cache.length else sliding_window
        return block_cache.attend(module.layer_idx, block_cache.heads(query, key, value), scaling, window)[None], None
    if not isinstance(lengths, Segments):
        lengths = Segments(lengths or [query.shape[2]], query.device)
    window = None if sliding_window is None or sliding_window >= lengths.longest else sliding_window
    half = half_precision(value)
    kernel = flat_kernel() if half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256 else None
    if kernel is None:
        out = packed_attention(query, key, value, lengths, scaling, window).transpose(1, 2)
    else:
        flat = [x[0].transpose(0, 1).to(half) for x in (query, key, value)]
        if lengths.at is not None:
            flat = [_Whole.apply(x, lengths.at) for x in flat]
        out = kernel(*flat, lengths, scaling, window)
        out = (out if lengths.at is None else _Once.apply(out, lengths.at))[None]
    return out.contiguous(), None


AttentionInterface.register(ATTENTION, attend)


def half_precision(value: torch.Tensor) -> torch.dtype | None:
    """The half precision that the GPU computes attention in: autocast's, or the tensors' own. None: none, or no GPU.

    Under autocast the rotary embedding has turned queries and keys back to fp32, and values are what they were meant to be.
    """
    if not value.is_cuda:
        return None
    wanted = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
    return wanted if wanted in HALVES else None


# --- one segment after the other


def packed_attention(
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, K, T, D)
    value: torch.Tensor,
    lengths: Segments | Sequence[int],
    scaling: float | None,
    window: int | None = None,
) -> torch.Tensor:
    """Causal attention of each segment to itself, on CPU in fp32 whatever autocast says: (1, H, T, D).

    `window`: a token sees itself and the `window` - 1 tokens before it.
    """
    kept = query.dtype
    on_cpu = query.device.type == "cpu"
    if on_cpu:
        wide = torch.float64 if kept == torch.float64 else torch.float32
        query, key, value = query.to(wide), key.to(wide), value.to(wide)
    with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
        segments = lengths if isinstance(lengths, Segments) else Segments(lengths)
        each = zip(*map(segments.whole, (query, key, value)), strict=True)
        out = segments.once([_causal(q, k, v, scaling, window) for q, k, v in each])
    return out.to(kept)


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float | None, window: int | None):
    """One segment of n tokens. With a window, blocks of as many queries each see the keys that any of them may see."""
    grouped = k.shape[1] != q.shape[1]
    n = q.shape[2]
    if window is None or window >= n:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
    out = []
    for begin in range(0, n, window):
        end, first = min(begin + window, n), max(0, begin - window + 1)
        ahead = torch.arange(begin, end, device=q.device)[:, None] - torch.arange(first, end, device=q.device)
        seen = (ahead >= 0) & (ahead < window)  # (queries, keys)
        part = q[:, :, begin:end], k[:, :, first:end], v[:, :, first:end]
        out.append(F.scaled_dot_product_attention(*part, attn_mask=seen, scale=scaling, enable_gqa=grouped))
    return torch.cat(out, 2)


# --- the whole row at once, on a GPU

# (query (T, H, D), key (T, K, D), value, segments, scaling, window) -> (T, H, D)
Kernel = Callable[..., torch.Tensor]


@lru_cache
def flat_kernel() -> Kernel | None:
    """The kernel of this installation, or None: then the segments are looped over."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        pass
    else:
        return torch_kernel(varlen_attn)
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    return flash_kernel(flash_attn_varlen_func)


def torch_kernel(varlen_attn: Callable[..., torch.Tensor]) -> Kernel:
    """torch's, by the signature that is installed: `enable_gqa` came after torch 2.11, where heads must be as many."""
    takes_groups = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def kernel(query, key, value, segments: Segments, scaling: float | None, window: int | None):
        groups = {"enable_gqa": key.shape[1] != query.shape[1]} if takes_groups else {}
        if not takes_groups and (shared := query.shape[1] // key.shape[1]) > 1:
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        # (tokens seen to the left, to the right); causal is recognised by the pair (-1, 0), which must be a tuple
        seen = (-1 if window is None else window - 1, 0)
        where = (segments.begins, segments.begins, segments.longest, segments.longest)
        return varlen_attn(query, key, value, *where, scale=scaling, window_size=seen, **groups)

    return kernel


def flash_kernel(flash_attn_varlen_func: Callable[..., torch.Tensor]) -> Kernel:
    """The flash-attn package's, which shares keys and values among heads by itself."""

    def kernel(query, key, value, segments: Segments, scaling: float | None, window: int | None):
        seen = (-1 if window is None else window - 1, 0)
        where = (segments.begins, segments.begins, segments.longest, segments.longest)
        return flash_attn_varlen_func(query, key, value, *where, softmax_scale=scaling, causal=True, window_size=seen)

    return kernel
