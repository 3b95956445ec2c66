"""The key/value cache: keys and values of the sequences being decoded, in blocks of BLOCK tokens.

A call of the model runs a flat row of T tokens: first prefills (prompts, or parts of them), then one token of each decoding
sequence. `begin` announces them; `attend`, once per layer, writes their keys and values and returns their attention. For the
compiled kernels on a CPU keys lie transposed, (D, BLOCK), and bf16 in pairs where the CPU multiplies such.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

from whetstone.attention import Segments, attend_segments, packed_attention
from whetstone.decode import cpu_attention, cpu_kernels, paired_kernels
from whetstone.decode.cpu_kernels import BLOCK, array
from whetstone.decode.paged_attention import (
    NO_WINDOW,
    QKV,
    CpuDecodes,
    DeviceDecodes,
    attend_prefill,
    end_to_end,
    padded_tables,
)
from whetstone.decode.simd import LANES
from whetstone.run.cpu import has_bf16_vectors

Prefill = tuple[list[int], int, int]  # a block table, and its tokens `start` to `start` + `count` - 1


def blocks_for(tokens: int) -> int:
    """The number of blocks that hold so many tokens."""
    return -(-tokens // BLOCK)


class KVCache:
    """`blocks` blocks in each of `layers` layers, for `kv_heads` key/value heads of size `head_size`.

    `kernels`: gpu_kernels.py on a GPU where that works. `batch_invariant`: a row's attention is divided the same way whatever
    is decoded beside it. Memory is touched only when it is used.
    """

    def __init__(
        self, layers: int, blocks: int, kv_heads: int, head_size: int, dtype: torch.dtype, device: Any,
        kernels: ModuleType | None = None, batch_invariant: bool = False,
    ):  # fmt: skip
        on_cpu = torch.device(device).type == "cpu"
        self.kernels = kernels
        self.batch_invariant = batch_invariant
        self.compiled = kernels is None and on_cpu and dtype in cpu_kernels.TYPES and head_size % LANES == 0
        self.paired = self.compiled and dtype == torch.bfloat16 and has_bf16_vectors()
        key_shape, value_shape = (BLOCK, head_size), (BLOCK, head_size)
        if self.paired:
            key_shape, value_shape = paired_kernels.key_shape(head_size), paired_kernels.value_shape(head_size)
        elif self.compiled:
            key_shape = (head_size, BLOCK)
        self.keys = _memory((layers, blocks, kv_heads, *key_shape), dtype, device)
        self.values = _memory((layers, blocks, kv_heads, *value_shape), dtype, device)
        if self.compiled:
            self._keys, self._values = array(self.keys), array(self.values)

    @staticmethod
    def bytes_per_block(layers: int, kv_heads: int, head_size: int, dtype: torch.dtype) -> int:
        return 2 * layers * kv_heads * head_size * BLOCK * dtype.itemsize

    @property
    def capacity(self) -> int:
        """Blocks per layer."""
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence that fits: a window of that width or more hides nothing."""
        return self.capacity * BLOCK

    def release(self) -> None:
        """Free the memory. The cache cannot be used any more."""
        self.keys = self.values = self.keys.new_empty(0)

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy blocks in all layers."""
        if sources:
            source, target = list(sources), list(targets)
            self.keys[:, target] = self.keys[:, source]
            self.values[:, target] = self.values[:, source]

    def begin(self, prefills: list[Prefill], tables: list[list[int]], positions: list[int]) -> None:
        """The next call of the model runs these prefills, then one token of each of the sequences with these block tables,
        at these positions."""
        self._prefills = prefills
        self._prefill_tokens = sum(count for _, _, count in prefills)
        own = np.array(positions, dtype=np.int64)
        blocks, offsets = [], []
        for table, start, count in prefills:
            place = np.arange(start, start + count)
            blocks.append(np.array(table, dtype=np.int64)[place // BLOCK])
            offsets.append(place % BLOCK)
        blocks.append(np.array([table[t // BLOCK] for table, t in zip(tables, positions, strict=True)], dtype=np.int64))
        offsets.append(own % BLOCK)
        self._block, self._offset = np.concatenate(blocks), np.concatenate(offsets)  # (T,) where each token is written
        self._tokens = len(self._block)
        if self.compiled:
            if tables:
                self._decodes = CpuDecodes(tables, own, paired_kernels if self.paired else cpu_kernels)
            if prefills and self.paired:
                given, *numbers = ([prefill[i] for prefill in prefills] for i in range(3))  # tables; starts and counts
                self._prompts = *end_to_end(given), *(np.array(each, np.int64) for each in numbers)
            return
        self._segments = Segments([count for _, _, count in prefills], self.keys.device) if prefills else None
        cached = [np.array(table, dtype=np.int64) for table, start, _ in prefills if start]
        padded = padded_tables(tables)  # (B, M)
        arrays = [self._block, self._offset, padded.ravel(), own + 1, *cached]
        together = torch.from_numpy(np.concatenate(arrays)).to(self.keys.device)  # one copy to the device
        parts = together.split([len(array) for array in arrays])
        self._block, self._offset, flat, lengths, *self._cached_tables = parts
        if tables:
            self._decodes = self._device_decodes(flat.view(padded.shape), lengths)

    def only_decodes(self, tokens: int) -> bool:
        """Whether so many tokens are one of each sequence, without padding, and compiled kernels write and read the cache."""
        return self.compiled and not self._prefills and tokens == self._tokens

    def decoding(self, heads: int) -> tuple[Any, ...]:
        """What cpu_step.py needs for `only_decodes` with so many query heads: the memory of all layers, also in pairs, where
        the tokens are written, the blocks that each reads, and a buffer for scores."""
        memory = self._keys, self._values
        pairs = [x.view(np.uint32)[..., 0] for x in memory] if self.paired else memory
        decodes = self._decodes
        reads = decodes.tables, decodes.starts, decodes.positions, decodes.scores(heads)
        return *memory, *pairs, self._block, self._offset, *reads

    def begin_decodes(self, positions: torch.Tensor, tables: torch.Tensor) -> None:
        """`begin` without prefills, from tensors alone, so that it can be captured in a CUDA graph.

        positions (B,) of the tokens, tables (B, M) of their sequences' blocks.
        """
        self._prefills, self._prefill_tokens, self._tokens = [], 0, len(positions)
        self._block = tables.gather(1, (positions // BLOCK)[:, None])[:, 0]  # (B,)
        self._offset = positions % BLOCK  # (B,)
        self._decodes = self._device_decodes(tables, positions + 1)

    def _device_decodes(self, tables: torch.Tensor, lengths: torch.Tensor) -> DeviceDecodes:
        parts = 1
        if self.kernels is not None and not self.batch_invariant:
            longest, processors = tables.shape[1] * BLOCK, _multiprocessors(self.keys.device)
            parts = self.kernels.parts_for(len(lengths), self.keys.shape[2], longest, processors)
        return DeviceDecodes(tables, lengths, self.kernels, parts)

    @staticmethod
    def heads(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> QKV:
        """From the tensors (1, H, T, D) and two of (1, K, T, D) that a module's attention has."""
        query_key = torch.cat([query[0], key[0]]).transpose(0, 1).contiguous()
        return QKV(query_key, value[0].transpose(0, 1).flatten(1).contiguous(), 0, key.shape[1])

    def attend(self, layer: int, heads: QKV, scaling: float | None, window: int | None = None) -> torch.Tensor:
        """The attention (T, H, D) of the announced tokens, whose keys and values are written first. Rows beyond them
        (padding) are zeros.

        `window`: a token attends to itself and the `window` - 1 tokens before it.
        """
        scaling = scaling or heads.query_key.shape[2] ** -0.5
        tokens, prefill = self._tokens, self._prefill_tokens
        self._write(layer, heads)
        parts = []
        if prefill:
            parts.append(self._attend_prefills(layer, heads, scaling, window))
        if tokens > prefill:
            rows = QKV(heads.query_key[prefill:], *heads[1:]) if prefill else heads
            keys, values = (self._keys, self._values) if self.compiled else (self.keys, self.values)
            parts.append(self._decodes.attend(rows, keys[layer], values[layer], scaling, window or NO_WINDOW))
        if tokens < len(heads.query_key):
            parts.append(parts[0].new_zeros(len(heads.query_key) - tokens, *parts[0].shape[1:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _write(self, layer: int, heads: QKV) -> None:
        query_key, source, column, _ = heads
        places = self._block, self._offset
        if self.compiled:
            memory = self._keys[layer], self._values[layer]
            kernels = paired_kernels if self.paired else cpu_kernels
            kernels.store_kv(array(query_key), array(source), column, *places, *memory)
        elif self.kernels is not None:
            self.kernels.store_kv(query_key, source, column, *places, self.keys[layer], self.values[layer])
        else:
            self.keys[layer][self._block, :, self._offset] = heads.key[: self._tokens]
            self.values[layer][self._block, :, self._offset] = heads.value[: self._tokens]

    def _attend_prefills(self, layer: int, heads: QKV, scaling: float, window: int | None) -> torch.Tensor:
        """Whole prompts attend to themselves, later parts of one also to what is cached of it: (T, H, D)."""
        if self.paired:
            return self._attend_prompts(layer, heads, scaling, window)
        tokens = self._prefill_tokens
        own = [x[:tokens].transpose(0, 1)[None] for x in (heads.query, heads.key, heads.value)]  # (1, heads, T, D)
        counts = [count for _, _, count in self._prefills]
        if all(start == 0 for _, start, _ in self._prefills):
            if self.compiled:
                return packed_attention(*own, counts, scaling, window)[0].transpose(0, 1)
            return attend_segments(*own, self._segments, scaling, window)[0]
        out, uploaded = [], iter(() if self.compiled else self._cached_tables)
        for *part, (table, start, count) in zip(*(x.split(counts, 2) for x in own), self._prefills, strict=True):
            if start == 0 and not self.compiled:
                out.append(packed_attention(*part, [count], scaling, window)[0].transpose(0, 1))
                continue
            blocks = torch.tensor(table) if self.compiled else next(uploaded)
            out.append(attend_prefill(part[0][0], *self._gather(layer, blocks, start + count), start, scaling, window))
        return torch.cat(out)

    def _attend_prompts(self, layer: int, heads: QKV, scaling: float, window: int | None) -> torch.Tensor:
        """`_attend_prefills` by a compiled kernel, from the pairs that the cache has."""
        count, size = heads.query_key.shape[1] - heads.kv_heads, heads.query_key.shape[2]
        out = cpu_kernels.uninitialised((self._prefill_tokens, count, size), torch.bfloat16)
        cpu_attention.attend_prompts(
            array(heads.query_key.flatten(1)), self._keys[layer], self._values[layer],
            *self._prompts, window or NO_WINDOW, np.float32(scaling), count, size, array(out.flatten(1)),
        )  # fmt: skip
        return out

    def _gather(self, layer: int, table: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (K, length, D) of the first tokens in a table's blocks."""
        blocks = table[: blocks_for(length)]
        keys = self.keys[layer][blocks]  # (blocks, K, D, BLOCK) if compiled, otherwise (blocks, K, BLOCK, D)
        keys = keys.transpose(2, 3) if self.compiled else keys
        return tuple(x.transpose(0, 1).flatten(1, 2)[:, :length] for x in (keys, self.values[layer][blocks]))


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _memory(shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> torch.Tensor:
    on_cpu = torch.device(device).type == "cpu"
    return cpu_kernels.uninitialised(shape, dtype) if on_cpu else torch.empty(shape, dtype=dtype, device=device)
