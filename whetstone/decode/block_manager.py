"""Which block of the key/value cache belongs to which sequence. No tensors here.

A sequence's block table lists its blocks, which may lie anywhere in the cache. Several sequences may have the same block in
their tables (the prompt of a group, the common beginning of prompts or beams): a block is free again when no table lists it
any more.

Prefix cache: a whole block of a prompt is found again by its tokens and the block before it, so by all tokens up to its end.
It is found as long as a table lists it.
"""

from collections.abc import Iterable
from typing import Any

from whetstone.decode.cpu_kernels import BLOCK
from whetstone.decode.sequence import Sequence


class BlockManager:
    """`capacity` blocks of `cache`, which holds their contents; `graphs`: decoding steps captured over it, if there are any."""

    def __init__(self, capacity: int, cache: Any, graphs: Any = None):
        self.capacity = capacity
        self.cache, self.graphs = cache, graphs
        # the lowest numbers are taken first, so that memory is touched only when it is needed
        self._free = list(range(capacity))[::-1]
        self._references = [0] * capacity
        self._prefixes: dict[tuple[int | None, tuple[int, ...]], int] = {}  # (block before, its tokens) -> block
        self._names: dict[int, tuple[int | None, tuple[int, ...]]] = {}  # the same, from the block
        self._written: set[int] = set()  # of these, those whose keys and values are in the cache

    @property
    def free(self) -> int:
        """The number of free blocks."""
        return len(self._free)

    def allocate(self, sequence: Sequence, count: int) -> None:
        """Append `count` free blocks to the sequence's table."""
        assert count <= self.free, "the scheduler asked for more blocks than are free"
        for _ in range(count):
            block = self._free.pop()
            self._references[block] = 1
            sequence.block_table.append(block)

    def share(self, blocks: Iterable[int], target: Sequence) -> None:
        """Append blocks of another table to that of `target`. Neither sequence may write to them any more."""
        for block in blocks:
            self._references[block] += 1
            target.block_table.append(block)

    def truncate(self, sequence: Sequence, count: int) -> None:
        """Remove all blocks after the first `count` from the sequence's table."""
        while len(sequence.block_table) > count:
            block = sequence.block_table.pop()
            self._references[block] -= 1
            if not self._references[block]:
                self._free.append(block)
                self._prefixes.pop(self._names.pop(block, (None, ())), None)
                self._written.discard(block)

    def prefix(self, ids: list[int]) -> list[int]:
        """The blocks that hold, or will hold, the beginning of a prompt, but never its last token."""
        found: list[int] = []
        for start in range(0, (len(ids) - 1) // BLOCK * BLOCK, BLOCK):
            block = self._prefixes.get((found[-1] if found else None, tuple(ids[start : start + BLOCK])))
            if block is None:
                break
            found.append(block)
        return found

    def written(self, blocks: Iterable[int]) -> bool:
        return self._written.issuperset(blocks)

    def announce(self, sequence: Sequence) -> None:
        """The whole blocks of the sequence's prompt can be found from now on, if their tokens are not found already."""
        before = None
        for number in range(len(sequence.prompt_ids) // BLOCK):
            block = sequence.block_table[number]
            name = before, tuple(sequence.prompt_ids[number * BLOCK : (number + 1) * BLOCK])
            if self._prefixes.setdefault(name, block) != block:
                return
            self._names[block] = name
            before = block

    def wrote(self, sequence: Sequence) -> None:
        """The first `sequence.cached` tokens of the sequence are in the cache."""
        whole = min(sequence.cached, len(sequence.prompt_ids)) // BLOCK
        self._written.update(block for block in sequence.block_table[:whole] if block in self._names)
