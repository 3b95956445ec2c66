"""Keys and values of the sequences being decoded: one slot a sequence, live slots in front.

The cache never sees a prompt and the scheduler never sees a tensor. A call of the model runs a flat row of tokens: either
whole prompts (`fill`), or one token of each live slot (`extend`). Heads: K key/value heads, R query heads for each.
"""

import torch

from whetstone.attention import packed_attention


class KVCache:
    """`slots` sequences of at most `length` tokens; (slots, K, length, D) for each layer's keys and values."""

    def __init__(self, layers: int, slots: int, heads: int, length: int, size: int, dtype: torch.dtype, device: str):
        self.keys = [torch.zeros(slots, heads, length, size, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(slots, heads, length, size, dtype=dtype, device=device) for _ in range(layers)]
        self.length = length
        self._filling: list[tuple[int, int]] | None = None  # (slot, tokens) of each segment
        self._at: torch.Tensor | None = None  # (n,) position written by each live slot
        self._hidden: torch.Tensor | None = None  # (n, 1, 1, span) True where a slot has no key yet
        self._span = 0

    @staticmethod
    def bytes_per_token(layers: int, heads: int, size: int, dtype: torch.dtype) -> int:
        return 2 * layers * heads * size * dtype.itemsize

    def fill(self, segments: list[tuple[int, int]]) -> None:
        """The next call runs whole prompts: (slot, tokens) for each segment of the row."""
        self._filling = segments

    def extend(self, at: torch.Tensor) -> None:
        """The next call runs one token of slots 0 … n-1, at these positions."""
        self._filling = None
        self._at = at
        self._span = int(at.max()) + 1
        self._hidden = (torch.arange(self._span, device=at.device)[None] > at[:, None])[:, None, None]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None = None,
    ) -> torch.Tensor:
        """(1, H, T, D), (1, K, T, D) x 2 -> (1, T, H, D). `window`: how many keys a token sees, itself included."""
        keys, values = self.keys[layer], self.values[layer]
        if self._filling is not None:
            start = 0
            for slot, n in self._filling:
                keys[slot, :, :n] = key[0, :, start : start + n]
                values[slot, :, :n] = value[0, :, start : start + n]
                start += n
            lengths = [n for _, n in self._filling]
            return packed_attention(query, key, value, lengths, scaling, window).transpose(1, 2).contiguous()
        n, span = len(self._at), self._span
        rows = torch.arange(n, device=query.device)
        keys[rows, :, self._at] = key[0].transpose(0, 1).to(keys.dtype)
        values[rows, :, self._at] = value[0].transpose(0, 1).to(values.dtype)
        heads, size = keys.shape[1], keys.shape[3]
        q = query[0].transpose(0, 1).reshape(n, heads, -1, size)  # (n, K, R, D)
        scores = q @ keys[:n, :, :span].transpose(2, 3) * (scaling or size**-0.5)  # (n, K, R, span)
        hidden = self._hidden
        if window is not None:
            gone = torch.arange(span, device=query.device)[None] <= self._at[:, None] - window
            hidden = hidden | gone[:, None, None]
        weights = scores.masked_fill_(hidden, float("-inf")).float().softmax(-1).to(values.dtype)
        return (weights @ values[:n, :, :span]).reshape(1, n, -1, size)

    def copy(self, source: int, target: int, tokens: int) -> None:
        for store in (*self.keys, *self.values):
            store[target, :, :tokens] = store[source, :, :tokens]
