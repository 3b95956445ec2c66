"""Attention to keys and values in blocks of a cache (PagedAttention, Kwon et al. 2023, arXiv 2309.06180).

A sequence that decodes has one new token, which attends to the blocks of its own sequence. On a CPU (cpu_kernels.py) and on a
GPU (gpu_kernels.py) one kernel reads the blocks where they lie; if neither is at hand, torch gathers them first. The tokens of
a prefill attend to each other, and a later part of a prompt also to what is cached of it.

Letters: T tokens, B rows, H query heads, K key/value heads, D head size, N blocks of a cache, M blocks of the longest sequence.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.decode.cpu_kernels import BLOCK, array

NO_WINDOW = 1 << 40  # tokens


class QKV(NamedTuple):
    """Queries, keys and values of T tokens, in the tensors where a layer left them."""

    query_key: torch.Tensor  # (T, H + K, D) after the rotary embedding
    source: torch.Tensor  # (T, …) holds the values
    value_column: int  # of `source`, from which on the values lie
    kv_heads: int  # K

    @property
    def query(self) -> torch.Tensor:
        return self.query_key[:, : -self.kv_heads]  # (T, H, D)

    @property
    def key(self) -> torch.Tensor:
        return self.query_key[:, -self.kv_heads :]  # (T, K, D)

    @property
    def value(self) -> torch.Tensor:
        size = self.query_key.shape[2]
        columns = self.source[:, self.value_column : self.value_column + self.kv_heads * size]
        return columns.unflatten(1, (-1, size))  # (T, K, D)


class CpuDecodes:
    """One token of each of B sequences, by the compiled kernel of `kernels`: cpu_kernels.py or paired_kernels.py."""

    def __init__(self, tables: list[list[int]], positions: np.ndarray, kernels: ModuleType):
        self.kernels = kernels
        self.positions = positions  # (B,)
        self.tables, self.starts = end_to_end(tables)
        self.longest = max(map(len, tables))
        self._scores: np.ndarray | None = None

    def scores(self, heads: int) -> np.ndarray:
        """A buffer for those of one sequence, (H, tokens of the longest in whole blocks)."""
        if self._scores is None:
            self._scores = np.empty((heads, self.longest * BLOCK), np.float32)
        return self._scores

    def attend(self, heads: QKV, keys: np.ndarray, values: np.ndarray, scaling: float, window: int) -> torch.Tensor:
        """Of the first B tokens, over keys and values as the kernel has them: (B, H, D)."""
        query = heads.query_key
        out = query.new_empty(len(self.positions), query.shape[1] - heads.kv_heads, query.shape[2])
        self.kernels.attend(
            array(query), keys, values, self.tables, self.starts, self.positions,
            window, np.float32(scaling), self.scores(out.shape[1]), array(out),
        )  # fmt: skip
        return out


class DeviceDecodes:
    """One token of each of B sequences, on any device: by `kernels` (gpu_kernels.py), or by torch if there are none.

    tables (B, M) are the sequences' blocks, lengths (B,) their tokens, the new ones included. A kernel divides each sequence
    among `parts` programs.
    """

    def __init__(self, tables: torch.Tensor, lengths: torch.Tensor, kernels: ModuleType | None, parts: int):
        self.tables, self.lengths, self.kernels, self.parts = tables, lengths, kernels, parts
        self._hidden: dict[int, torch.Tensor] = {}  # window -> (B, M * BLOCK): tokens that are not attended to

    def attend(self, heads: QKV, keys: torch.Tensor, values: torch.Tensor, scaling: float, window: int) -> torch.Tensor:
        """Of the first B tokens, over keys and values (N, K, BLOCK, D): (B, H, D)."""
        if self.kernels is not None:
            places = self.tables, self.lengths
            return self.kernels.attend(heads.query_key, keys, values, *places, scaling, window, self.parts)
        query = heads.query[: len(self.lengths)]
        n, count, size = query.shape
        longest = self.tables.shape[1]
        keys, values = keys[self.tables], values[self.tables]  # (B, M, K, BLOCK, D)
        hidden = self._out_of_sight(window).unflatten(1, (longest, 1, 1, BLOCK))
        groups = (query * scaling).reshape(n, 1, keys.shape[2], -1, size)  # (B, 1, K, H/K, D)
        scores = (groups @ keys.transpose(3, 4)).to(
            torch.promote_types(query.dtype, torch.float32)
        )  # (B, M, K, H/K, BLOCK)
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = scores.transpose(1, 3).flatten(3).softmax(-1)  # (B, H/K, K, M * BLOCK)
        weights = weights.unflatten(3, (longest, BLOCK)).transpose(1, 3)
        # a block's former sequence may have left infinities: hidden values are set to 0, as 0 * infinity is NaN
        values = values.masked_fill(hidden.transpose(3, 4), 0)
        return (weights.to(values.dtype) @ values).sum(1).reshape(n, count, size)

    def _out_of_sight(self, window: int) -> torch.Tensor:
        if window not in self._hidden:
            place = torch.arange(self.tables.shape[1] * BLOCK, device=self.tables.device)
            distance = self.lengths[:, None] - 1 - place  # (B, M * BLOCK)
            self._hidden[window] = (distance < 0) | (distance >= window)
        return self._hidden[window]


def attend_prefill(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, start: int, scaling: float, window: int | None
) -> torch.Tensor:
    """T tokens of a prompt, from position `start` on, attend to themselves and to those before: query (H, T, D), key and
    value (K, start + T, D) -> (T, H, D)."""
    position = torch.arange(key.shape[1], device=query.device)
    visible = position <= position[start:, None]  # (T, start + T)
    if window is not None:
        visible &= position > position[start:, None] - window
    grouped = query.shape[0] != key.shape[0]
    batch = query[None], key[None], value[None]
    out = F.scaled_dot_product_attention(*batch, attn_mask=visible, scale=scaling, enable_gqa=grouped)
    return out[0].transpose(0, 1)


def end_to_end(tables: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """All B tables in one array, and where each begins in it (B,)."""
    lengths = [len(table) for table in tables]
    return np.array([block for table in tables for block in table], dtype=np.int64), np.cumsum(lengths) - lengths


def padded_tables(tables: list[list[int]], width: int = 0) -> np.ndarray:
    """The tables as an array (B, M), M at least `width`. Shorter ones are padded with block 0, which is not read there."""
    padded = np.zeros((len(tables), max([width, *map(len, tables)])), dtype=np.int64)
    for row, table in enumerate(tables):
        padded[row, : len(table)] = table
    return padded
