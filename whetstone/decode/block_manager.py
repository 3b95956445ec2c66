"""Which block of the key/value cache belongs to which sequence. No tensors here.

A sequence's block table lists its blocks, which may lie anywhere in the cache. Several sequences may have the same block in
their tables (the prompt of a group, the common prefix of beams): a block is free again when no table lists it any more.
"""

from typing import Any

from whetstone.decode.sequence import Sequence


class BlockManager:
    """`capacity` blocks of `cache`, which holds their contents; `graphs`: decoding steps captured over it, if there are any."""

    def __init__(self, capacity: int, cache: Any, graphs: Any = None):
        self.capacity = capacity
        self.cache, self.graphs = cache, graphs
        # the lowest numbers are taken first, so that memory is touched only when it is needed
        self._free = list(range(capacity))[::-1]
        self._references = [0] * capacity

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

    def share(self, source: Sequence, target: Sequence, count: int) -> None:
        """Append the first `count` blocks of `source` to the empty table of `target`. Neither may write to them any more."""
        for block in source.block_table[:count]:
            self._references[block] += 1
            target.block_table.append(block)

    def truncate(self, sequence: Sequence, count: int) -> None:
        """Remove all blocks after the first `count` from the sequence's table."""
        while len(sequence.block_table) > count:
            block = sequence.block_table.pop()
            self._references[block] -= 1
            if not self._references[block]:
                self._free.append(block)
