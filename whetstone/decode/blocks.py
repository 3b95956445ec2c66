"""Which block of the key/value cache belongs to whom. No tensors here.

Blocks lie without holes, so that one matrix product reads each of them once, where it lies. Private blocks, of one
sequence each, fill the cache from the front; shared ones (the prompt of a group, the common past of beams) from the back.
When a block is given back, the last of its kind moves into its place, and the tables of its owners follow.
"""

from collections.abc import Sequence
from typing import Any, Protocol


class Owner(Protocol):
    """A sequence: `blocks[i]` holds its tokens from i times the block's size on."""

    blocks: list[int]


class Store(Protocol):
    """Where the blocks' contents are: the cache."""

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None: ...

    def clear(self, blocks: Sequence[int]) -> None: ...


class Blocks:
    """`capacity` blocks in `store`. `version` changes with every change of who owns what."""

    def __init__(self, capacity: int, store: Any):
        self.capacity = capacity
        self.store: Any = store  # a Store
        self.private: list[tuple[Owner, int]] = []  # of block i: its owner, its place in the owner's table
        self.shared: list[
            tuple[list[Owner], int]
        ] = []  # of block capacity - 1 - i: its owners, its place in their tables
        self.version = 0

    @property
    def free(self) -> int:
        return self.capacity - len(self.private) - len(self.shared)

    def take(self, owner: Owner, count: int) -> None:
        """Append private blocks to the owner's table."""
        assert count <= self.free, "the scheduler asked for more blocks than are free"
        new = range(len(self.private), len(self.private) + count)
        self._append(owner, new)
        self.private += ((owner, place) for place in range(len(owner.blocks) - count, len(owner.blocks)))

    def take_shared(self, owner: Owner, count: int) -> None:
        """Append blocks that others will share."""
        assert count <= self.free, "the scheduler asked for more blocks than are free"
        first = self.capacity - 1 - len(self.shared)
        self._append(owner, range(first, first - count, -1))
        self.shared += (([owner], place) for place in range(len(owner.blocks) - count, len(owner.blocks)))

    def _append(self, owner: Owner, new: Sequence[int]) -> None:
        owner.blocks += new
        self.store.clear(new)
        self.version += 1

    def share(self, owner: Owner, other: Owner, count: int) -> None:
        """The owner's first `count` blocks become those of `other`, too, which has none.

        A private one moves to the back: one block must be free for that.
        """
        for place in range(count):
            block = owner.blocks[place]
            if block < len(self.private):
                assert self.free, "the scheduler left no block free for sharing"
                target = self.capacity - 1 - len(self.shared)
                self.store.copy([block], [target])
                self.shared.append(([owner], place))
                owner.blocks[place] = target
                self._close_private([block])
            block = owner.blocks[place]
            self.shared[self.capacity - 1 - block][0].append(other)
            other.blocks.append(block)
        self.version += 1

    def keep(self, owner: Owner, count: int) -> None:
        """The owner gives back all blocks after its first `count`."""
        given = owner.blocks[count:]
        if not given:
            return
        del owner.blocks[count:]
        own, ownerless = [], []
        for block in given:
            if block < len(self.private):
                own.append(block)
                continue
            i = self.capacity - 1 - block
            self.shared[i][0].remove(owner)
            if not self.shared[i][0]:
                ownerless.append(i)
        self._close_private(own)
        self._close_shared(ownerless)
        self.version += 1

    def _close_private(self, holes: Sequence[int]) -> None:
        sources, targets = _fillers(holes, len(self.private))
        self.store.copy(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            owner, place = self.private[target] = self.private[source]
            owner.blocks[place] = target
        del self.private[len(self.private) - len(holes) :]

    def _close_shared(self, holes: Sequence[int]) -> None:
        top = self.capacity - 1
        sources, targets = _fillers(holes, len(self.shared))
        self.store.copy([top - i for i in sources], [top - i for i in targets])
        for source, target in zip(sources, targets, strict=True):
            owners, place = self.shared[target] = self.shared[source]
            for owner in owners:
                owner.blocks[place] = top - target
        del self.shared[len(self.shared) - len(holes) :]


def _fillers(holes: Sequence[int], used: int) -> tuple[list[int], list[int]]:
    """(sources, targets) of the moves that leave no hole among the first `used` - len(holes)."""
    left = used - len(holes)
    gone = set(holes)
    return [i for i in range(left, used) if i not in gone], sorted(i for i in holes if i < left)
