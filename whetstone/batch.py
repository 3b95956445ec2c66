"""Ids -> tensors: shift, pack, mask, segments, weights. Nobody else pads or shifts.

A Row is one sequence of ids; a Batch is several rows end to end, without padding: one micro-batch. Only tokens that are
scored (predicted and counted) reach the head, so per-token tensors have N entries, one a scored token, not T.

Shift: the token at flat position t is predicted from position t-1, so `scored` holds t-1 and `targets` the id at t.

`weights` carry the whole denominator of the optimizer step: every token loss ends in `(batch.weights * per_token).sum()`
and the sum over micro-batches is the step's loss, for any split into micro-batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class Row:
    """One sequence. The first `prompt` ids are context and not scored.

    >>> batch = collate([Row(ids=[5, 6, 7], prompt=1, weights=0.5)])
    >>> batch.targets.tolist(), batch.scored.tolist(), batch.weights.tolist()
    ([6, 7], [0, 1], [0.5, 0.5])
    """

    ids: list[int]
    prompt: int = 1
    weights: float | list[float] = 1.0  # of each scored token
    token: dict[str, list[float]] = field(default_factory=dict)  # name -> one number a scored token
    segment: dict[str, float] = field(default_factory=dict)  # name -> one number for the row

    @property
    def scored(self) -> int:
        return len(self.ids) - self.prompt


@dataclass(slots=True)
class Batch:
    """Rows end to end: T tokens, S segments (rows), N scored tokens."""

    ids: torch.Tensor  # (1, T)
    positions: torch.Tensor  # (1, T), from 0 in each segment
    lengths: list[int]  # S lengths that add up to T
    scored: torch.Tensor  # (N,) flat position whose hidden state predicts the token
    targets: torch.Tensor  # (N,)
    weights: torch.Tensor  # (N,)
    segments: torch.Tensor  # (N,) which row the token is in
    token: dict[str, torch.Tensor]  # (N,) each
    segment: dict[str, torch.Tensor]  # (S,) each

    @property
    def size(self) -> int:
        return self.ids.shape[1]

    def sum_by_segment(self, values: torch.Tensor) -> torch.Tensor:
        """(N,) -> (S,): a sequence's log-probability from its tokens'."""
        return torch.zeros(len(self.lengths), dtype=values.dtype, device=values.device).index_add(
            0, self.segments, values
        )

    def to(self, device: str) -> "Batch":
        if device == "cpu":
            return self
        return Batch(
            self.ids.to(device),
            self.positions.to(device),
            self.lengths,
            self.scored.to(device),
            self.targets.to(device),
            self.weights.to(device),
            self.segments.to(device),
            {k: v.to(device) for k, v in self.token.items()},
            {k: v.to(device) for k, v in self.segment.items()},
        )


def collate(rows: Sequence[Row], dtype: torch.dtype = torch.float32) -> Batch:
    """One micro-batch of rows in the order given. Raises ValueError when a row has nothing before its first scored id."""
    ids: list[int] = []
    positions: list[int] = []
    scored: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    segments: list[int] = []
    for s, row in enumerate(rows):
        if row.prompt < 1 or len(row.ids) < row.prompt:
            raise ValueError(
                f"a row of {len(row.ids)} ids with prompt = {row.prompt}: the first id can never be predicted."
            )
        start, n = len(ids), len(row.ids)
        ids += row.ids
        positions += range(n)
        scored += range(start + row.prompt - 1, start + n - 1)
        targets += row.ids[row.prompt :]
        weights += row.weights if isinstance(row.weights, list) else [row.weights] * row.scored
        segments += [s] * row.scored
    names = rows[0].token.keys() if rows else ()
    kinds = rows[0].segment.keys() if rows else ()
    return Batch(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        lengths=[len(row.ids) for row in rows],
        scored=torch.tensor(scored, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        weights=torch.tensor(weights, dtype=dtype),
        segments=torch.tensor(segments, dtype=torch.long),
        token={k: torch.tensor([v for row in rows for v in row.token[k]], dtype=dtype) for k in names},
        segment={k: torch.tensor([row.segment[k] for row in rows], dtype=dtype) for k in kinds},
    )


def micro_batches(groups: Iterable[Sequence[Row]], budget: int, dtype: torch.dtype = torch.float32) -> Iterator[Batch]:
    """Split a step into micro-batches of at most `budget` tokens; a group (a row, or the two rows of a pair) stays whole.

    Longest groups first, each into the first micro-batch with room, so that the micro-batches are few and full. A group
    longer than the budget gets a micro-batch of its own.
    """
    ordered = sorted(groups, key=lambda group: -sum(len(row.ids) for row in group))
    bins: list[tuple[int, list[Row]]] = []
    for group in ordered:
        size = sum(len(row.ids) for row in group)
        for i, (used, rows) in enumerate(bins):
            if used + size <= budget:
                bins[i] = (used + size, [*rows, *group])
                break
        else:
            bins.append((size, list(group)))
    for _, rows in bins:
        yield collate(rows, dtype)


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Best-fit-decreasing: indices of sequences for each packed row of at most `room` tokens; nothing is cut.

    A sequence longer than `room` is left out of every row (the caller counts it).
    """
    import bisect

    open_rows: list[tuple[int, int]] = []  # (room left, row), sorted
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        n = lengths[i]
        if n > room:
            continue
        at = bisect.bisect_left(open_rows, (n, 0))  # the row it fills best
        if at < len(open_rows):
            left, row = open_rows.pop(at)
            rows[row].append(i)
        else:
            left, row = room, len(rows)
            rows.append([i])
        if left - n > 0:
            bisect.insort(open_rows, (left - n, row))
    return rows


def pack_in_order(lengths: Sequence[int], order: Iterable[int], room: int) -> list[list[int]]:
    """Rows of at most `room` tokens, filled in the order given; a sequence longer than `room` is left out."""
    rows: list[list[int]] = []
    left = 0
    for i in order:
        if lengths[i] > room:
            continue
        if lengths[i] > left:
            rows.append([])
            left = room
        rows[-1].append(i)
        left -= lengths[i]
    return rows
