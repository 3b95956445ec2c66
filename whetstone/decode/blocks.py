"""Which block of the key/value cache belongs to whom. No tensors here.

A sequence has a table of blocks, wherever these lie. Several sequences may have the same block in their tables (the prompt
of a group, the common past of beams): it is free again when the last of them gives it back.
"""

from typing import Any, Protocol


class Owner(Protocol):
    """A sequence: `blocks[i]` holds its tokens from i times the block's size on."""

    blocks: list[int]


class Blocks:
    """`capacity` blocks in `store`, the cache that holds their contents."""

    def __init__(self, capacity: int, store: Any):
        self.capacity = capacity
        self.store = store
        self._free = list(range(capacity))[::-1]  # the first are taken first: memory is touched when it is needed
        self._owners = [0] * capacity

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, owner: Owner, count: int) -> None:
        """Append `count` blocks to the owner's table."""
        assert count <= self.free, "the scheduler asked for more blocks than are free"
        for _ in range(count):
            block = self._free.pop()
            self._owners[block] = 1
            owner.blocks.append(block)

    def share(self, owner: Owner, other: Owner, count: int) -> None:
        """The owner's first `count` blocks become those of `other`, too, which has none. Nobody writes in them any more."""
        for block in owner.blocks[:count]:
            self._owners[block] += 1
            other.blocks.append(block)

    def keep(self, owner: Owner, count: int) -> None:
        """The owner gives back all blocks after its first `count`."""
        while len(owner.blocks) > count:
            block = owner.blocks.pop()
            self._owners[block] -= 1
            if not self._owners[block]:
                self._free.append(block)
