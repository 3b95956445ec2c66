"""Ids -> tensors: shift, pack, mask, segments, weights. All of this is done here and nowhere else.

A Row is one sequence of ids. A Batch is several rows end to end, without padding: one micro-batch. Rows of a group that begin
with the same prompt (a pair, the rollouts of a problem) share it: only the first of them contains the prompt's ids.

Letters: T tokens of a batch, S its rows (segments), N its scored tokens. Only scored tokens, those that are predicted and
counted, reach the head, so tensors over tokens are (N,), not (T,).

Shift: the token at flat position t is predicted from position t - 1, so `scored` holds t - 1 and `targets` the id at t.

`weights` carry the whole denominator of the optimizer step. Every token loss ends in `(batch.weights * per_token).sum()`, and
the sum over micro-batches is the loss of the step, however it is split.
"""

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
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
    weights: float | list[float] = 1.0  # per scored token, or the same for all
    token: dict[str, list[Any]] = field(default_factory=dict)  # name -> per scored token a number, or K numbers
    segment: dict[str, float] = field(default_factory=dict)  # name -> one number for the row

    @property
    def scored(self) -> int:
        return len(self.ids) - self.prompt


def answer_row(
    prompt: Sequence[int], answer: Sequence[int], weights: float | list[float] = 1.0,
    token: Mapping[str, list[Any]] = MappingProxyType({}), segment: Mapping[str, float] = MappingProxyType({}),
) -> Row:  # fmt: skip
    """The row of an answer (for instance a rollout) after its prompt. Only the answer is scored."""
    return Row([*prompt, *answer], len(prompt), weights, dict(token), dict(segment))


@dataclass(slots=True)
class Batch:
    """Rows end to end, without padding."""

    ids: torch.Tensor  # (1, T)
    positions: torch.Tensor  # (1, T), from 0 in each segment
    lengths: list[int]  # (S,) ids of each row; their sum is T plus the sum of `shared`
    shared: list[int]  # (S,) how many of them are those of the last row before it that shares none
    scored: torch.Tensor  # (N,) flat position whose hidden state predicts the token
    targets: torch.Tensor  # (N,)
    weights: torch.Tensor  # (N,)
    segments: torch.Tensor  # (N,) index of the token's row
    token: dict[str, torch.Tensor]  # (N,) each, or (N, K)
    segment: dict[str, torch.Tensor]  # (S,) each

    @property
    def size(self) -> int:
        return self.ids.shape[1]

    @property
    def ends(self) -> torch.Tensor:
        """(S,) the flat position of each row's last token."""
        own = [length - shared for length, shared in zip(self.lengths, self.shared, strict=True)]
        return torch.tensor(own, device=self.ids.device).cumsum(0) - 1

    def sum_by_segment(self, values: torch.Tensor) -> torch.Tensor:
        """(N,) -> (S,), for instance log-probabilities of tokens to those of sequences."""
        zeros = torch.zeros(len(self.lengths), dtype=values.dtype, device=values.device)
        return zeros.index_add(0, self.segments, values)

    def to(self, device: str) -> "Batch":
        if device == "cpu":
            return self
        names = ("ids", "positions", "scored", "targets", "weights", "segments")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        moved["token"] = {name: values.to(device) for name, values in self.token.items()}
        moved["segment"] = {name: values.to(device) for name, values in self.segment.items()}
        return replace(self, **moved)


def collate(rows: Sequence[Row], dtype: torch.dtype = torch.float32, shared: Sequence[int] = ()) -> Batch:
    """One micro-batch of rows in the given order.

    `shared` says per row how many ids it shares with the last row before it that shares none: its whole prompt, or 0. Raises
    ValueError if a row has no id before its first scored one.
    """
    ids: list[int] = []
    positions: list[int] = []
    scored: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    segments: list[int] = []
    begin = 0  # where the last row that shares none begins
    for s, row in enumerate(rows):
        if row.prompt < 1 or len(row.ids) < row.prompt:
            raise ValueError(
                f"a row of {len(row.ids)} ids with prompt = {row.prompt}: the first id can never be predicted."
            )
        common = shared[s] if shared else 0
        begin = begin if common else len(ids)
        start, n = len(ids) - common, len(row.ids)  # the flat position of the row's id i is start + i, for i >= common
        ids += row.ids[common:]
        positions += range(common, n)
        if row.scored:
            scored.append((begin if common else start) + row.prompt - 1)
            scored += range(start + row.prompt, start + n - 1)
        targets += row.ids[row.prompt :]
        weights += row.weights if isinstance(row.weights, list) else [row.weights] * row.scored
        segments += [s] * row.scored
    names = rows[0].token.keys() if rows else ()
    kinds = rows[0].segment.keys() if rows else ()
    return Batch(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        lengths=[len(row.ids) for row in rows],
        shared=list(shared) or [0] * len(rows),
        scored=torch.tensor(scored, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        weights=torch.tensor(weights, dtype=dtype),
        segments=torch.tensor(segments, dtype=torch.long),
        token={k: torch.tensor([v for row in rows for v in row.token[k]], dtype=dtype) for k in names},
        segment={k: torch.tensor([row.segment[k] for row in rows], dtype=dtype) for k in kinds},
    )


def shared_prompts(group: Sequence[Row]) -> list[int]:
    """How many ids each row shares with the last row before it that shares none: its prompt, if that is the same, or 0."""
    shared: list[int] = []
    prompt: list[int] = []
    for row in group:
        same = bool(shared and row.scored) and row.ids[: row.prompt] == prompt
        shared.append(row.prompt if same else 0)
        prompt = prompt if same else row.ids[: row.prompt]
    return shared


def tokens_of(group: Sequence[Row]) -> int:
    """The tokens of a group; a shared prompt counts once."""
    return sum(len(row.ids) for row in group) - sum(shared_prompts(group))


def by_prompt(rows: Iterable[Row], budget: int) -> list[list[Row]]:
    """Group rows that follow one another with the same prompt, in groups of at most `budget` tokens."""
    groups: list[list[Row]] = []
    size = 0
    for row in rows:
        first = groups[-1][0] if groups else None
        same = first is not None and row.prompt == first.prompt and row.ids[: row.prompt] == first.ids[: row.prompt]
        if same and size + row.scored <= budget:
            groups[-1].append(row)
            size += row.scored
        else:
            groups.append([row])
            size = len(row.ids)
    return groups


def micro_batches(groups: Iterable[Sequence[Row]], budget: int, dtype: torch.dtype = torch.float32) -> Iterator[Batch]:
    """A step in micro-batches of at most `budget` tokens (`split`)."""
    return (collate_groups(members, dtype) for members in split(groups, budget))


def split(groups: Iterable[Sequence[Row]], budget: int) -> list[list[Sequence[Row]]]:
    """The groups of each micro-batch. A group (a row, or the two rows of a pair) is not divided.

    The longest groups come first, each into the first micro-batch with room, so that the micro-batches are few and full. A
    group longer than the budget gets a micro-batch of its own.
    """
    sized = sorted(((tokens_of(group), group) for group in groups), key=lambda pair: -pair[0])
    bins: list[tuple[int, list[Sequence[Row]]]] = []
    for size, group in sized:
        for i, (used, members) in enumerate(bins):
            if used + size <= budget:
                bins[i] = (used + size, [*members, group])
                break
        else:
            bins.append((size, [group]))
    return [members for _, members in bins]


def collate_groups(groups: Sequence[Sequence[Row]], dtype: torch.dtype = torch.float32) -> Batch:
    """One micro-batch of groups in the given order; the rows of a group share their prompts."""
    shared = [count for group in groups for count in shared_prompts(group)]
    return collate([row for group in groups for row in group], dtype, shared)


class Packed(Sequence[list[int]]):
    """Packed rows: `packed[k]` are the indices of the sequences in row k."""

    def __init__(self, members: np.ndarray, starts: np.ndarray):
        self.members = members  # (n,) indices, row after row
        self.starts = starts  # (rows + 1,) where each row begins in `members`

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> list[int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.members[self.starts[row] : self.starts[row + 1]].tolist()

    def sizes(self, lengths: Sequence[int]) -> np.ndarray:
        """The number of tokens of each row, (rows,)."""
        ends = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64)[self.members])])
        return np.diff(ends[self.starts])


def pack(lengths: Sequence[int], room: int) -> Packed:
    """Pack sequences into rows of at most `room` tokens by best-fit decreasing; no sequence is cut.

    The longest come first, each into the row that it fills best. A sequence longer than `room` is in no row. Lengths are at
    least 1.

    >>> list(pack([5, 200, 6, 3], room=11))
    [[2, 0], [3]]
    """
    lengths = np.asarray(lengths, np.int64)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] <= room]
    row_of = _best_fit(lengths[order], room)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row_of))]).astype(np.int64)
    return Packed(order[np.argsort(row_of, kind="stable")], starts)


def _best_fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """The row of each of the descending lengths: the one with the least sufficient room, the first of equal ones.

    A row that a length fills best is also the best for the next of the same length while it has room, because it has less
    left than before. So equal lengths are placed together, in as many steps as there are different lengths.
    """
    row_of = np.empty(len(lengths), np.int64)
    left: list[int] = []  # the different amounts of room left, ascending
    rows_with: dict[int, list[np.ndarray]] = {}  # room left -> its rows

    def reopen(rows: np.ndarray, remaining: int) -> None:
        if not len(rows) or not remaining:
            return
        if remaining not in rows_with:
            bisect.insort(left, remaining)
        rows_with.setdefault(remaining, []).append(rows)

    opened = at = 0
    for negative, run in zip(*np.unique(-lengths, return_counts=True), strict=True):  # from long to short
        length, end = -int(negative), at + int(run)
        while at < end:
            best = bisect.bisect_left(left, length)
            if best < len(left):
                space = left.pop(best)
                parts = rows_with.pop(space)
                rows = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
            else:
                space, rows = room, opened + np.arange(-(-(end - at) // (room // length)))
                opened += len(rows)
            each = space // length  # of this length in a row
            count = min(end - at, each * len(rows))
            filled, rest = divmod(count, each)
            row_of[at : at + count] = np.repeat(rows[: filled + (rest > 0)], each)[:count]
            reopen(rows[:filled], space - each * length)
            if rest:
                reopen(rows[filled : filled + 1], space - rest * length)
            reopen(rows[filled + (rest > 0) :], space)
            at += count
    return row_of


def pack_in_order(lengths: Sequence[int], order: Sequence[int], room: int) -> Packed:
    """Rows of at most `room` tokens, filled in the given order; a sequence longer than `room` is in no row."""
    lengths, order = np.asarray(lengths, np.int64), np.asarray(order, np.int64)
    order = order[lengths[order] <= room]
    ends = np.cumsum(lengths[order])
    starts, before = [0], 0
    while starts[-1] < len(order):
        starts.append(int(np.searchsorted(ends, before + room, side="right")))
        before = int(ends[starts[-1] - 1])
    return Packed(order, np.asarray(starts, np.int64))
