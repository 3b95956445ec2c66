"""Keys and values of the sequences being decoded, in blocks of BLOCK tokens, and the attention that reads them.

A call of the model runs a flat row of tokens: first segments of several tokens (prompts, or parts of them), then one token
of each decoding sequence. A segment attends to itself, and a later part of a prompt to what is cached of it, too. A decoding
token attends to the blocks of its own sequence: short sequences do not pay for the longest.

On a CPU that is one compiled pass over the blocks where they lie (cpu_kernels.py). Elsewhere the blocks are gathered first.

Heads: K key/value heads of size D, R query heads for each. Keys lie transposed, (D, BLOCK), as the scores want them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.attention import packed_attention
from whetstone.decode import cpu_kernels
from whetstone.decode.blocks import Owner
from whetstone.decode.cpu_kernels import BLOCK, array
from whetstone.decode.lanes import LANES

ALL = 1 << 40  # tokens: a window that hides nothing


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK)


Segment = tuple[Owner, int, int]  # tokens `start` … `start` + `count` - 1 of a sequence


class Heads(NamedTuple):
    """What T tokens bring into an attention, where a layer left it."""

    turned: torch.Tensor  # (T, H + K, D) queries, then keys, with their rotary embedding
    source: torch.Tensor  # (T, …) holds the values
    first: int  # their first column in it
    kinds: int  # K

    @property
    def query(self) -> torch.Tensor:
        return self.turned[:, : -self.kinds]  # (T, H, D)

    @property
    def key(self) -> torch.Tensor:
        return self.turned[:, -self.kinds :]  # (T, K, D)

    @property
    def value(self) -> torch.Tensor:
        size = self.turned.shape[2]
        return self.source[:, self.first : self.first + self.kinds * size].unflatten(1, (-1, size))  # (T, K, D)


class KVCache:
    """Room for `blocks` blocks in every layer. Memory is touched only when it is used."""

    def __init__(self, layers: int, blocks: int, heads: int, size: int, dtype: torch.dtype, device: Any):
        self.keys = _room((layers, blocks, heads, size, BLOCK), dtype, device)
        self.values = _room((layers, blocks, heads, BLOCK, size), dtype, device)
        self.compiled = self.keys.device.type == "cpu" and dtype in cpu_kernels.TYPES and size % LANES == 0
        if self.compiled:
            self._keys, self._values = array(self.keys), array(self.values)

    @staticmethod
    def bytes_per_block(layers: int, heads: int, size: int, dtype: torch.dtype) -> int:
        return 2 * layers * heads * size * BLOCK * dtype.itemsize

    @property
    def capacity(self) -> int:
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence there is room for: no wider window hides anything."""
        return self.capacity * BLOCK

    def holds(self, dtype: torch.dtype, device: torch.device) -> bool:
        return self.keys.dtype == dtype and self.keys.device == device

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        if sources:
            source, target = list(sources), list(targets)
            self.keys[:, target] = self.keys[:, source]
            self.values[:, target] = self.values[:, source]

    def begin(self, segments: Sequence[Segment], rows: Sequence[Owner], at: Sequence[int]) -> None:
        """The next call runs these segments, then one token of each of `rows`, at the positions `at`."""
        self._segments = [(owner.blocks, start, count) for owner, start, count in segments]
        self._filled = sum(count for _, _, count in segments)
        own = np.array(at, dtype=np.int64)
        blocks, offsets = [], []
        for table, start, count in self._segments:
            place = np.arange(start, start + count)
            blocks.append(np.array(table, dtype=np.int64)[place // BLOCK])
            offsets.append(place % BLOCK)
        blocks.append(np.array([owner.blocks[t // BLOCK] for owner, t in zip(rows, at, strict=True)], dtype=np.int64))
        offsets.append(own % BLOCK)
        self._block, self._offset = np.concatenate(blocks), np.concatenate(offsets)  # (T,) of each token
        self._known = len(self._block)
        if not self.compiled:
            self._block, self._offset = self._tensor(self._block), self._tensor(self._offset)
        if rows:
            self._rows = _Rows(self, rows, own)

    def _tensor(self, found: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(found).to(self.keys.device)

    def heads(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Heads:
        """(1, H, T, D) and two of (1, K, T, D), as a module gives them."""
        turned = torch.cat([query[0], key[0]]).transpose(0, 1).contiguous()
        return Heads(turned, value[0].transpose(0, 1).flatten(1).contiguous(), 0, key.shape[1])

    def attend(self, layer: int, heads: Heads, scaling: float | None, window: int | None = None) -> torch.Tensor:
        """(T, H, D) of the T tokens. Rows beyond those announced (padding) give zeros.

        `window`: each token attends to so many tokens, its own among them.
        """
        scaling = scaling or heads.turned.shape[2] ** -0.5
        known, filled = self._known, self._filled
        self._store(layer, heads)
        parts = []
        if filled:
            own = (x[:filled].transpose(0, 1) for x in (heads.query, heads.key, heads.value))  # (heads, T, D)
            parts.append(self._attend_segments(layer, *own, scaling, window))
        if known > filled:
            rows = heads if not filled else Heads(heads.turned[filled:], heads.source, heads.first, heads.kinds)
            attend = self._rows.attend if self.compiled else self._rows.attend_gathered
            parts.append(attend(layer, rows, scaling, window or ALL))
        if known < len(heads.turned):
            parts.append(parts[0].new_zeros(len(heads.turned) - known, *parts[0].shape[1:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _store(self, layer: int, heads: Heads) -> None:
        if self.compiled:
            places = self._block, self._offset, self._keys[layer], self._values[layer]
            cpu_kernels.store(array(heads.turned), array(heads.source), heads.first, *places)
        else:
            self.keys[layer][self._block, :, :, self._offset] = heads.key[: self._known]
            self.values[layer][self._block, :, self._offset] = heads.value[: self._known]

    def _attend_segments(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """(heads, T, D) -> (T, H, D): whole prompts attend to themselves, later parts of one to what is cached, too."""
        counts = [count for _, _, count in self._segments]
        if all(start == 0 for _, start, _ in self._segments):
            return packed_attention(query[None], key[None], value[None], counts, scaling, window)[0].transpose(0, 1)
        out = []
        for part, (table, start, count) in zip(query.split(counts, 1), self._segments, strict=True):
            span = start + count
            used = torch.tensor(table[: blocks_for(span)], device=query.device)
            past = self.keys[layer][used].permute(1, 0, 3, 2).flatten(1, 2)[:, :span]  # (K, span, D)
            worth = self.values[layer][used].permute(1, 0, 2, 3).flatten(1, 2)[:, :span]
            position = torch.arange(span, device=query.device)
            seen = position <= position[start:, None]
            if window is not None:
                seen &= position > position[start:, None] - window
            grouped = part.shape[0] != past.shape[0]
            part = F.scaled_dot_product_attention(
                part[None], past[None], worth[None], attn_mask=seen, scale=scaling, enable_gqa=grouped
            )
            out.append(part[0].transpose(0, 1))
        return torch.cat(out)


class _Rows:
    """One token of each of n sequences, and the tables of their blocks end to end."""

    def __init__(self, cache: KVCache, rows: Sequence[Owner], at: np.ndarray):
        self.cache = cache
        self.at = at
        lengths = [len(owner.blocks) for owner in rows]
        self.tables = np.array([block for owner in rows for block in owner.blocks], dtype=np.int64)
        ends = np.cumsum(lengths)
        self.starts = ends - lengths
        self.most = max(lengths)
        self._scores: np.ndarray | None = None
        if not cache.compiled:
            table = np.zeros((len(rows), self.most), dtype=np.int64)
            for row, (start, end) in enumerate(zip(self.starts, ends, strict=True)):
                table[row, : end - start] = self.tables[start:end]
            self.table = cache._tensor(table)  # (n, most)
            position = np.arange(self.most * BLOCK)
            self._before = cache._tensor(at[:, None] - position)  # (n, span) how far back a token lies

    def attend(self, layer: int, heads: Heads, scaling: float, window: int) -> torch.Tensor:
        """(n, H, D) of the first n tokens"""
        turned = heads.turned
        out = turned.new_empty(len(self.at), turned.shape[1] - heads.kinds, turned.shape[2])
        if self._scores is None:
            self._scores = np.empty((out.shape[1], self.most * BLOCK), np.float32)
        cpu_kernels.attend(
            array(turned), self.cache._keys[layer], self.cache._values[layer], self.tables, self.starts, self.at,
            window, np.float32(scaling), self._scores, array(out),
        )  # fmt: skip
        return out

    def attend_gathered(self, layer: int, heads: Heads, scaling: float, window: int) -> torch.Tensor:
        """The same of any device and type: the blocks of each sequence are brought together first."""
        query = heads.query[: len(self.at)]
        n, count, size = query.shape
        keys = self.cache.keys[layer][self.table]  # (n, most, K, D, BLOCK)
        values = self.cache.values[layer][self.table]  # (n, most, K, BLOCK, D)
        hidden = (self._before < 0) | (self._before >= window)  # (n, span)
        hidden = hidden.unflatten(1, (self.most, 1, 1, BLOCK))
        groups = (query * scaling).reshape(n, 1, keys.shape[2], -1, size)  # (n, 1, K, R, D)
        scores = (groups @ keys).to(_wider(query.dtype)).masked_fill(hidden, float("-inf"))  # (n, most, K, R, BLOCK)
        weights = scores.transpose(1, 3).flatten(3).softmax(-1)  # (n, R, K, span)
        weights = weights.unflatten(3, (self.most, BLOCK)).transpose(1, 3)
        # what a former owner left may be infinite: hidden places are left out, not weighted with 0
        values = values.masked_fill(hidden.transpose(3, 4), 0)
        return (weights.to(values.dtype) @ values).sum(1).reshape(n, count, size)


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _room(shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Memory that nobody wrote to. On a CPU numpy's: it asks the system for large pages, which are read faster."""
    if torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty((*shape[:-1], shape[-1] * dtype.itemsize), np.uint8)).view(dtype)
