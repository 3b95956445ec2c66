"""Keys and values of the sequences being decoded, in blocks of BLOCK tokens, and the attention that reads them.

A call of the model runs a flat row of tokens: first segments of several tokens (prompts, or parts of them), then one token
of each decoding sequence. A decoding token attends block by block: its query meets each of its blocks in one batched matrix
product, and the parts are put together by row. Short sequences do not pay for the longest, and a block that several
sequences share is read once for all of them.

Heads: K key/value heads of size D, R query heads for each. Keys lie transposed, (D, BLOCK), as the product wants them.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from whetstone.attention import packed_attention
from whetstone.decode.blocks import Blocks, Owner

BLOCK = 32  # tokens; on average half a block a sequence is read in vain


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK)


Segment = tuple[Owner, int, int]  # tokens `start` … `start` + `count` - 1 of a sequence


class KVCache:
    """Room for `blocks` blocks in every layer. Memory is touched only when it is used."""

    def __init__(self, layers: int, blocks: int, heads: int, size: int, dtype: torch.dtype, device: str):
        self.keys = torch.empty(layers, blocks, heads, size, BLOCK, dtype=dtype, device=device)
        self.values = torch.empty(layers, blocks, heads, BLOCK, size, dtype=dtype, device=device)

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

    def clear(self, blocks: Sequence[int]) -> None:
        """What a former owner left must not be infinite: hidden places are weighted with 0, not left out."""
        if blocks:
            self.keys[:, list(blocks)] = 0
            self.values[:, list(blocks)] = 0

    def begin(
        self,
        blocks: Blocks,
        segments: Sequence[Segment],
        rows: Sequence[Owner],
        at: Sequence[int],
        alike: bool = False,
    ) -> None:
        """The next call runs these segments, then one token of each of `rows`, at the positions `at`.

        `alike`: a row that is alone is attended as one among others is, to the bit.
        """
        device = self.keys.device
        self._segments = [(owner.blocks, start, count) for owner, start, count in segments]
        places = [(owner.blocks, t) for owner, start, n in segments for t in range(start, start + n)]
        places += [(owner.blocks, t) for owner, t in zip(rows, at, strict=True)]
        self._known = len(places)
        self._block: Any = torch.tensor([table[t // BLOCK] for table, t in places], device=device)  # (T,)
        self._offset: Any = torch.tensor([t % BLOCK for _, t in places], device=device)  # (T,)
        if len(places) == 1:  # plain numbers index a single place faster
            self._block, self._offset = int(self._block), int(self._offset)
        if rows:
            self._pairs = _Pairs(blocks, rows, device, alike)
            self._alone = not alike and len(rows) == 1 and len(blocks.private) == len(rows[0].blocks)
            self._at = torch.tensor(at, device=device)
            self._hidden: dict[int | None, torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None = None,
    ) -> torch.Tensor:
        """(1, H, T, D), (1, K, T, D) x 2 -> (1, T, H, D). Rows beyond those announced (padding) give zeros.

        `window`: each token attends to so many tokens, its own among them.
        """
        keys, values = self.keys[layer], self.values[layer]
        scaling = scaling or query.shape[3] ** -0.5
        known = self._known
        keys[self._block, :, :, self._offset] = key[0, :, :known].transpose(0, 1).to(keys.dtype)
        values[self._block, :, self._offset] = value[0, :, :known].transpose(0, 1).to(values.dtype)
        parts = []
        filled = sum(count for _, _, count in self._segments)
        if filled:
            part = (x[:, :, :filled] for x in (query, key, value))
            parts.append(self._attend_segments(keys, values, *part, scaling, window))
        if known > filled:
            parts.append(self._attend_rows(keys, values, query[0, :, filled:known].transpose(0, 1), scaling, window))
        if known < query.shape[2]:
            parts.append(query.new_zeros(query.shape[2] - known, *query.shape[1::2]))
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]

    def _attend_segments(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """(1, H, T, D) -> (T, H, D): whole prompts attend to themselves, later parts of one to what is cached, too."""
        counts = [count for _, _, count in self._segments]
        if all(start == 0 for _, start, _ in self._segments):
            return packed_attention(query, key, value, counts, scaling, window)[0].transpose(0, 1)
        out = []
        for part, (table, start, count) in zip(query[0].split(counts, 1), self._segments, strict=True):
            span = start + count
            used = torch.tensor(table[: blocks_for(span)], device=keys.device)
            past = keys[used].permute(1, 0, 3, 2).flatten(1, 2)[:, :span]  # (K, span, D)
            worth = values[used].permute(1, 0, 2, 3).flatten(1, 2)[:, :span]
            position = torch.arange(span, device=keys.device)
            seen = position <= position[start:, None]
            if window is not None:
                seen &= position > position[start:, None] - window
            grouped = part.shape[0] != past.shape[0]
            part = F.scaled_dot_product_attention(
                part[None], past[None], worth[None], attn_mask=seen, scale=scaling, enable_gqa=grouped
            )
            out.append(part[0].transpose(0, 1))
        return torch.cat(out)

    def _attend_rows(
        self, keys: torch.Tensor, values: torch.Tensor, query: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """(n, H, D) -> (n, H, D): one token of each row attends to the blocks of its sequence."""
        pairs = self._pairs
        n, heads, size = query.shape
        query = (query * scaling).reshape(n, keys.shape[1], -1, size)  # (n, K, R, D)
        hidden = self._hidden.get(window)
        if hidden is None:
            hidden = self._hidden[window] = pairs.hidden(self._at, window)  # (N, 1, 1, BLOCK)
        if self._alone:
            return _attend_alone(query, keys[: pairs.private], values[: pairs.private], hidden).reshape(n, heads, size)
        scores = pairs.scores(query, keys).float().add_(hidden)  # (N, K, R, BLOCK)
        highest = pairs.highest(scores.amax(-1))  # (n, K, R)
        weights = scores.sub_(highest.index_select(0, pairs.row)[..., None]).exp_()
        total = pairs.add_up(weights.sum(-1), n)  # (n, K, R)
        out = pairs.add_up(pairs.weighted(weights.to(values.dtype), values).float(), n)  # (n, K, R, D)
        return (out / total[..., None]).to(query.dtype).reshape(n, heads, size)


def _attend_alone(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """One row that owns all N blocks, (1, K, R, D) -> (1, K, R, D): the same with fewer, for one row costs little more."""
    scores = (query @ keys).float().add_(hidden)  # (N, K, R, BLOCK)
    weights = scores.permute(1, 2, 0, 3).flatten(2).softmax(-1).unflatten(2, scores.shape[::3])
    return (weights.permute(2, 0, 1, 3).to(values.dtype) @ values).sum(0, keepdim=True).to(query.dtype)


class _Pairs:
    """N pairs of a block and a row that reads it: first the private blocks as they lie, then the shared ones.

    Blocks of sequences that are not among the rows belong to row 0, with all of their tokens hidden.
    """

    def __init__(self, blocks: Blocks, rows: Sequence[Owner], device: torch.device, alike: bool):
        row_of = {id(owner): row for row, owner in enumerate(rows)}
        shared = blocks.shared[::-1]  # as they lie
        readers = [[row_of[id(o)] for o in owners if id(o) in row_of] for owners, _ in shared]
        self.capacity = blocks.capacity
        self.private, self.shared = len(blocks.private), len(readers)
        self.width = max(map(len, readers), default=0)  # G, the most rows that read one shared block
        own = [row_of.get(id(owner), -1) for owner, _ in blocks.private]
        row = np.array([*own, *chain.from_iterable(readers)])
        places = [len(own) * [place] for own, (_, place) in zip(readers, shared, strict=True)]
        place = np.array([*(place for _, place in blocks.private), *chain.from_iterable(places)])
        order = np.lexsort((place, row))
        counts = np.bincount(row[row >= 0], minlength=len(rows))
        table = np.full((len(rows), counts.max()), len(row))
        read = order[len(row) - counts.sum() :]  # without those of row -1, which come first
        table[row[read], np.arange(len(read)) - (counts.cumsum() - counts)[row[read]]] = read
        first = np.where(row >= 0, place * BLOCK, 1 << 40)
        self.row = _tensor(row.clip(0), device)  # (N,)
        self.first = _tensor(first, device)  # (N,) position of the block's first token
        self.own = self.row[: self.private]
        # `alike`: parts are added up in the order of their places, for a sum must not depend on where blocks happen to lie
        self.order = _tensor(order, device) if alike else None
        self.table = _tensor(table, device)  # (n, most) the pairs of each row; N where there are fewer
        if self.width:
            padded = [own + [0] * (self.width - len(own)) for own in readers]
            self.readers = torch.tensor(padded, device=device)  # (S, G)
            lengths = torch.tensor([len(own) for own in readers], device=device)
            self.read = torch.arange(self.width, device=device) < lengths[:, None]  # (S, G)

    def _of_shared(self, store: torch.Tensor) -> torch.Tensor:
        return store[self.capacity - self.shared : self.capacity]  # (S, …)

    def hidden(self, at: torch.Tensor, window: int | None) -> torch.Tensor:
        """(N, 1, 1, BLOCK) minus infinity where a row must not look: after its own token and before its window; else 0."""
        position = self.first[:, None] + torch.arange(BLOCK, device=at.device)
        own = at[self.row][:, None]
        hidden = position > own
        if window is not None:
            hidden |= position <= own - window
        return torch.zeros(hidden.shape, device=at.device).masked_fill_(hidden, float("-inf"))[:, None, None]

    def scores(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(n, K, R, D) -> (N, K, R, BLOCK)"""
        own = query.index_select(0, self.own) @ keys[: self.private]
        if not self.width:
            return own
        groups = query[self.readers].transpose(1, 2).flatten(2, 3)  # (S, K, G R, D)
        both = groups @ self._of_shared(keys)
        both = both.unflatten(2, (self.width, -1)).transpose(1, 2)  # (S, G, K, R, BLOCK)
        return torch.cat([own, both[self.read]])

    def weighted(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(N, K, R, BLOCK) -> (N, K, R, D)"""
        own = weights[: self.private] @ values[: self.private]
        if not self.width:
            return own
        groups = weights.new_zeros(*self.read.shape, *weights.shape[1:])
        groups[self.read] = weights[self.private :]
        both = groups.transpose(1, 2).flatten(2, 3) @ self._of_shared(values)  # (S, K, G R, D)
        return torch.cat([own, both.unflatten(2, (self.width, -1)).transpose(1, 2)[self.read]])

    def highest(self, found: torch.Tensor) -> torch.Tensor:
        """(N, …) -> (n, …): the highest of each row's pairs."""
        return torch.cat([found, torch.full_like(found[:1], float("-inf"))])[self.table].amax(1)

    def add_up(self, parts: torch.Tensor, rows: int) -> torch.Tensor:
        """(N, …) -> (n, …): the sum of each row's pairs."""
        row = self.row
        if self.order is not None:
            row, parts = row[self.order], parts[self.order]
        return parts.new_zeros(rows, *parts.shape[1:]).index_add_(0, row, parts)


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)
