"""The scheduler: which sequences run in the next step, within a fixed number of cache blocks. No tensors here.

A sequence takes blocks as it grows. When none is free, the sequence that entered last is preempted: it gives its blocks back,
keeps its ids, and waits at the front of the queue to be prefilled again. The prompt of a group is prefilled once while a
sequence of the group is running: its whole blocks are shared, the last part of it is copied. Of different prompts with a
common beginning (system text, worked examples) the whole blocks of that are shared. While a running sequence is about to write
them, the next one waits in the queue.
"""

from collections import deque

from whetstone.decode.block_manager import BlockManager
from whetstone.decode.kv_cache import BLOCK, blocks_for
from whetstone.decode.sequence import Sequence


class Scheduler:
    """At most `max_batch` running sequences. A step runs one token of each that decodes, and `prefill_tokens` others at most.

    `reserve`: a sequence takes all blocks that it may ever need when it enters, and shares none.
    """

    def __init__(self, blocks: BlockManager, max_batch: int, prefill_tokens: int, reserve: bool = False):
        self.blocks = blocks
        self.max_batch = max_batch
        self.prefill_tokens = prefill_tokens
        self.reserve = reserve
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order they entered
        self.preemptions = 0
        self._groups: dict[tuple[int, ...], list[Sequence]] = {}  # prompt ids -> the running sequences with this prompt

    def schedule(self) -> tuple[list[tuple[Sequence, int]], list[Sequence]]:
        """What the next step runs: prefills as (sequence, its tokens), then the sequences that run one token."""
        self._grow()
        self._admit()
        budget = self.prefill_tokens
        prefills, decodes = [], []
        for sequence in self.running:
            if sequence.first is not None:
                continue
            if sequence.pending == 1:
                decodes.append(sequence)
            elif budget > 0:
                count = min(sequence.pending, budget)
                prefills.append((sequence, count))
                budget -= count
        return prefills, decodes

    def advance(self, sequence: Sequence, count: int) -> list[Sequence]:
        """`count` more tokens of the sequence are in the cache. Returns the sequences whose next token can be sampled now.

        None while tokens of a prompt are pending; else the sequence itself and the siblings that waited for its prefill.
        """
        begun = self._in_prefill(sequence)
        sequence.cached += count
        if begun:
            self.blocks.wrote(sequence)
        if sequence.pending:
            return []
        if not sequence.siblings:
            return [sequence]
        siblings, sequence.siblings = sequence.siblings, []
        whole, rest = divmod(sequence.cached, BLOCK)
        if rest:  # each writes on in a copy of the block that is not full
            source = sequence.block_table[whole]
            self.blocks.cache.copy([source] * len(siblings), [sibling.block_table[whole] for sibling in siblings])
        for sibling in siblings:
            sibling.cached, sibling.first = sequence.cached, None
        return [sequence, *siblings]

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget what the cache holds of a sequence from its token `length` on."""
        if sequence.cached > length:
            sequence.cached = length
            if not self.reserve:
                self.blocks.truncate(sequence, blocks_for(length))

    def remove(self, sequence: Sequence) -> None:
        """The sequence is finished or cancelled. Siblings that waited for its prefill are queued again."""
        if sequence in self.running:
            self._leave(sequence)
            for sibling in sequence.siblings[::-1]:
                self._preempt(sibling)
        else:
            self.waiting.remove(sequence)

    def _needed(self, sequence: Sequence) -> int:
        """Blocks that the sequence needs for its tokens so far; with `reserve`, for its longest possible length."""
        longest = len(sequence.prompt_ids) + sequence.sampling.max_tokens
        return blocks_for(longest if self.reserve else sequence.length)

    def _grow(self) -> None:
        """Allocate a block for each sequence that begins one. If none is free, the last to enter are preempted."""
        i = 0
        while i < len(self.running):
            sequence = self.running[i]
            missing = 0 if sequence.first is not None else self._needed(sequence) - len(sequence.block_table)
            if missing > self.blocks.free:
                self._preempt(self.running[-1])
                self.preemptions += 1
                continue
            if missing > 0:
                self.blocks.allocate(sequence, missing)
            i += 1

    def _preempt(self, sequence: Sequence) -> None:
        self._leave(sequence)
        if sequence.first is not None:
            sequence.first.siblings.remove(sequence)
        sequence.cached, sequence.first = 0, None
        self.waiting.appendleft(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.blocks.truncate(sequence, 0)
        key = tuple(sequence.prompt_ids)
        self._groups[key].remove(sequence)
        if not self._groups[key]:
            del self._groups[key]

    def _admit(self) -> None:
        """Let waiting sequences enter in order, while `max_batch` and the free blocks allow: one block per running sequence
        stays free for its growth."""
        while self.waiting and len(self.running) < self.max_batch:
            sequence = self.waiting[0]
            sibling = self._sibling(sequence)
            if sibling is None:
                shared = [] if self.reserve else self.blocks.prefix(sequence.prompt_ids)
                common = len(shared) * BLOCK
            else:
                # tokens taken over: the prompt, but its last token if the sequence has to run that one itself
                common = len(sequence.prompt_ids) - (0 if self._in_prefill(sibling) else 1)
                shared = sibling.block_table[: common // BLOCK]
            needed = self._needed(sequence) - len(shared)
            kept_free = 0 if self.reserve or not self.running else len(self.running) + 1
            if needed + kept_free > self.blocks.free or (sibling is None and not self.blocks.written(shared)):
                return
            self.waiting.popleft()
            self.blocks.share(shared, sequence)
            self.blocks.allocate(sequence, needed)
            if sibling is not None:
                self._join(sequence, sibling, common)
            elif not self.reserve:
                sequence.cached = common
                self.blocks.announce(sequence)
            self.running.append(sequence)
            self._groups.setdefault(tuple(sequence.prompt_ids), []).append(sequence)

    def _sibling(self, sequence: Sequence) -> Sequence | None:
        """A running sequence whose prefill of the same prompt can be shared: it is done, or it runs nothing but the prompt."""
        if sequence.ids or self.reserve:
            return None
        group = self._groups.get(tuple(sequence.prompt_ids), [])
        return next((other for other in group[::-1] if not (self._in_prefill(other) and other.ids)), None)

    def _in_prefill(self, sequence: Sequence) -> bool:
        return sequence.cached < len(sequence.prompt_ids)

    def _join(self, sequence: Sequence, sibling: Sequence, common: int) -> None:
        """Wait for the sibling's prefill of the same prompt, or continue from the `common` tokens it has cached."""
        if self._in_prefill(sibling):
            sequence.first = sibling.first or sibling
            sequence.first.siblings.append(sequence)
            return
        sequence.cached = common
        whole, rest = divmod(common, BLOCK)
        if rest:
            self.blocks.cache.copy([sibling.block_table[whole]], [sequence.block_table[whole]])
