"""Keys and values of the sequences being decoded, in blocks of BLOCK tokens, and the attention that reads them.

A call of the model runs a flat row of tokens: first segments of several tokens (prompts, or parts of them), then one token
of each decoding sequence. A segment attends to itself, and a later part of a prompt to what is cached of it, too. A decoding
token attends to the blocks of its own sequence: short sequences do not pay for the longest.

That is one compiled pass over the blocks where they lie, on a CPU (cpu_kernels.py) and on a GPU (gpu_kernels.py). Where neither
can be had the blocks are gathered first.

Heads: K key/value heads of size D, R query heads for each. On a CPU keys lie transposed, (D, BLOCK), as the scores want them
there.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.attention import Segments, packed_attention
from whetstone.attention import attend as attend_packed
from whetstone.decode import cpu_kernels
from whetstone.decode.blocks import Owner
from whetstone.decode.cpu_kernels import BLOCK, array
from whetstone.decode.lanes import LANES
from whetstone.run.kernels import working_kernels

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


@lru_cache
def gpu_kernels(device: torch.device, dtype: torch.dtype, kinds: int, shared: int, size: int) -> ModuleType | None:
    """gpu_kernels.py, for `kinds` key heads of `size`, each shared by so many query heads; None where it does not work."""
    use = "decoding on the GPU without kernels of its own"
    return working_kernels("whetstone.decode.gpu_kernels", use, device, dtype, kinds, shared, size)


class KVCache:
    """Room for `blocks` blocks in every layer. Memory is touched only when it is used.

    `kernels`: gpu_kernels.py, where it is to read and write here.
    """

    def __init__(
        self,
        layers: int,
        blocks: int,
        heads: int,
        size: int,
        dtype: torch.dtype,
        device: Any,
        kernels: ModuleType | None = None,
    ):
        on_cpu = torch.device(device).type == "cpu"
        self.compiled = kernels is None and on_cpu and dtype in cpu_kernels.TYPES and size % LANES == 0
        self.kernels = kernels
        lying = (size, BLOCK) if self.compiled else (BLOCK, size)
        self.keys = _room((layers, blocks, heads, *lying), dtype, device)
        self.values = _room((layers, blocks, heads, BLOCK, size), dtype, device)
        self.alone = False  # attention of a row is not divided by how many others there are (engine.py: row_block)
        self.steps: Any = None  # captured steps over this cache (cuda_graphs.py), where there are any
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

    def release(self) -> None:
        """Give the memory back; nobody may read or write here any more."""
        self.keys = self.values = self.keys.new_empty(0)

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
        if self.compiled:
            if rows:
                self._rows = _Rows(rows, own)
            return
        self._packed = Segments([count for _, _, count in segments], self.keys.device) if segments else None
        past = [np.array(table, dtype=np.int64) for table, start, _ in self._segments if start]
        tables, lengths = tables_of(rows), own + 1
        self._block, self._offset, flat, ends, *self._past = self._upload(
            [self._block, self._offset, tables.ravel(), lengths, *past]
        )
        if rows:
            self._rows = _DeviceRows(self, flat.view(tables.shape), ends)

    def begin_rows(self, positions: torch.Tensor, tables: torch.Tensor) -> None:
        """`begin` with one token of each of n sequences and nothing else, from tensors alone: it can be captured.

        `positions` (n,) of the tokens, `tables` (n, most) blocks of their sequences.
        """
        self._segments, self._filled, self._known = [], 0, len(positions)
        self._block = tables.gather(1, (positions // BLOCK)[:, None])[:, 0]
        self._offset = positions % BLOCK
        self._rows = _DeviceRows(self, tables, positions + 1)

    def _upload(self, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """All of them in one copy to the device."""
        together = torch.from_numpy(np.concatenate(arrays)).to(self.keys.device)
        return list(together.split([len(array) for array in arrays]))

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
            parts.append(self._rows.attend(self, layer, rows, scaling, window or ALL))
        if known < len(heads.turned):
            parts.append(parts[0].new_zeros(len(heads.turned) - known, *parts[0].shape[1:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _store(self, layer: int, heads: Heads) -> None:
        if self.compiled:
            places = self._block, self._offset, self._keys[layer], self._values[layer]
            cpu_kernels.store(array(heads.turned), array(heads.source), heads.first, *places)
        elif self.kernels is not None:
            places = self._block, self._offset, self.keys[layer], self.values[layer]
            self.kernels.store(heads.turned, heads.source, heads.first, *places)
        else:
            self.keys[layer][self._block, :, self._offset] = heads.key[: self._known]
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
            own = query[None], key[None], value[None]
            if self.compiled:
                return packed_attention(*own, counts, scaling, window)[0].transpose(0, 1)
            return attend_packed(self, *own, None, scaling, sliding_window=window, lengths=self._packed)[0][0]
        out, parts = [], [x.split(counts, 1) for x in (query, key, value)]
        tables = iter(self._past) if not self.compiled else None
        for part, own, worth, (table, start, count) in zip(*parts, self._segments, strict=True):
            if start == 0 and not self.compiled:
                whole = packed_attention(part[None], own[None], worth[None], [count], scaling, window)
                out.append(whole[0].transpose(0, 1))
                continue
            span = start + count
            used = torch.tensor(table) if tables is None else next(tables)
            used = used[: blocks_for(span)]
            past = self.keys[layer][used]  # (blocks, K, D, BLOCK) or (blocks, K, BLOCK, D)
            past = (past.transpose(2, 3) if self.compiled else past).transpose(0, 1).flatten(1, 2)[:, :span]
            worth = self.values[layer][used].transpose(0, 1).flatten(1, 2)[:, :span]  # (K, span, D)
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

    def __init__(self, rows: Sequence[Owner], at: np.ndarray):
        self.at = at
        lengths = [len(owner.blocks) for owner in rows]
        self.tables = np.array([block for owner in rows for block in owner.blocks], dtype=np.int64)
        self.starts = np.cumsum(lengths) - lengths
        self.most = max(lengths)
        self._scores: np.ndarray | None = None

    def attend(self, cache: KVCache, layer: int, heads: Heads, scaling: float, window: int) -> torch.Tensor:
        """(n, H, D) of the first n tokens"""
        turned = heads.turned
        out = turned.new_empty(len(self.at), turned.shape[1] - heads.kinds, turned.shape[2])
        if self._scores is None:
            self._scores = np.empty((out.shape[1], self.most * BLOCK), np.float32)
        cpu_kernels.attend(
            array(turned), cache._keys[layer], cache._values[layer], self.tables, self.starts, self.at,
            window, np.float32(scaling), self._scores, array(out),
        )  # fmt: skip
        return out


class _DeviceRows:
    """The same on any device: tables (n, most), and how many tokens of each are there, the row's own among them."""

    def __init__(self, cache: KVCache, tables: torch.Tensor, lengths: torch.Tensor):
        self.tables, self.lengths = tables, lengths
        self._hidden: dict[int, torch.Tensor] = {}  # window -> (n, span) what is out of sight
        self.parts = 1
        if cache.kernels is not None and not cache.alone:
            kinds, most = cache.keys.shape[2], tables.shape[1] * BLOCK
            self.parts = cache.kernels.parts_for(len(lengths), kinds, most, _processors(cache.keys.device))

    def attend(self, cache: KVCache, layer: int, heads: Heads, scaling: float, window: int) -> torch.Tensor:
        """(n, H, D) of the first n tokens"""
        keys, values = cache.keys[layer], cache.values[layer]
        if cache.kernels is not None:
            return cache.kernels.attend(
                heads.turned, keys, values, self.tables, self.lengths, scaling, window, self.parts
            )
        query = heads.query[: len(self.lengths)]
        n, count, size = query.shape
        most = self.tables.shape[1]
        keys, values = keys[self.tables], values[self.tables]  # (n, most, K, BLOCK, D)
        hidden = self._out_of_sight(window).unflatten(1, (most, 1, 1, BLOCK))
        groups = (query * scaling).reshape(n, 1, keys.shape[2], -1, size)  # (n, 1, K, R, D)
        scores = (groups @ keys.transpose(3, 4)).to(_wider(query.dtype))  # (n, most, K, R, BLOCK)
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = scores.transpose(1, 3).flatten(3).softmax(-1)  # (n, R, K, span)
        weights = weights.unflatten(3, (most, BLOCK)).transpose(1, 3)
        # what a former owner left may be infinite: hidden places are left out, not weighted with 0
        values = values.masked_fill(hidden.transpose(3, 4), 0)
        return (weights.to(values.dtype) @ values).sum(1).reshape(n, count, size)

    def _out_of_sight(self, window: int) -> torch.Tensor:
        if window not in self._hidden:
            place = torch.arange(self.tables.shape[1] * BLOCK, device=self.tables.device)
            before = self.lengths[:, None] - 1 - place  # (n, span) how far back a token lies
            self._hidden[window] = (before < 0) | (before >= window)
        return self._hidden[window]


def tables_of(rows: Sequence[Owner], width: int = 0) -> np.ndarray:
    """(n, most) blocks of each, `most` at least `width`; what a sequence has not is block 0, which it does not read."""
    table = np.zeros((len(rows), max([width, *(len(owner.blocks) for owner in rows)])), dtype=np.int64)
    for row, owner in enumerate(rows):
        table[row, : len(owner.blocks)] = owner.blocks
    return table


@lru_cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _room(shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Memory that nobody wrote to. On a CPU numpy's: it asks the system for large pages, which are read faster."""
    if torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty((*shape[:-1], shape[-1] * dtype.itemsize), np.uint8)).view(dtype)
