"""Who runs next: finished sequences leave at once, waiting ones enter, and all share a fixed number of cache blocks.

Blocks are taken as a sequence grows, not for its longest possible length. When none is left, the sequence that came last
gives its blocks back and waits again, in front; what it wrote is kept and run anew when there is room. The prompt of a
group is run once, as long as one of the group is there: its blocks are shared, and the rest of it is copied. No tensors
here.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whetstone.decode.blocks import Blocks
from whetstone.decode.kv_cache import BLOCK, blocks_for
from whetstone.records import Prompt, Sampling


@dataclass(slots=True, eq=False)
class Line:
    """One completion in the making. The ids of prompt and completion from `cached` on are still to be run."""

    prompt: Prompt
    prompt_ids: list[int]
    sampling: Sampling
    draws: Any = None  # an iterator of uniform numbers
    control: Any = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    cached: int = 0
    leader: "Line | None" = None  # whose run of the same prompt it waits for
    followers: "list[Line]" = field(default_factory=list)  # who wait for its own

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.ids)

    @property
    def pending(self) -> int:
        return self.length - self.cached

    @property
    def last(self) -> int:
        """The id at the end of prompt and completion."""
        return self.ids[-1] if self.ids else self.prompt_ids[-1]

    def slice(self, start: int, count: int) -> list[int]:
        """Ids of prompt and completion together."""
        n = len(self.prompt_ids)
        if start >= n:
            return self.ids[start - n : start - n + count]
        return (self.prompt_ids[start : start + count] + self.ids[: max(0, start + count - n)])[:count]


class Scheduler:
    """At most `slots` live lines. A step runs one token of each line that decodes and at most `prefill_tokens` others.

    `reserve` takes all blocks that a line may ever need when it enters, and shares none.
    """

    def __init__(self, blocks: Blocks, slots: int, prefill_tokens: int, reserve: bool = False):
        self.blocks = blocks
        self.slots = slots
        self.prefill_tokens = prefill_tokens
        self.reserve = reserve
        self.waiting: deque[Line] = deque()
        self.live: list[Line] = []  # in the order they entered
        self.preemptions = 0
        self._groups: dict[tuple[int, ...], list[Line]] = {}  # the live lines of each prompt

    def add(self, lines: Iterable[Line]) -> None:
        self.waiting += lines

    def plan(self) -> tuple[list[tuple[Line, int]], list[Line]]:
        """What the next step runs: (line, tokens) of those with several to run, then the lines with one."""
        self._grow()
        self._admit()
        left = self.prefill_tokens
        parts, ones = [], []
        for line in self.live:
            if line.leader is not None:
                continue
            if line.pending == 1:
                ones.append(line)
            elif left > 0:
                count = min(line.pending, left)
                parts.append((line, count))
                left -= count
        return parts, ones

    def ran(self, line: Line, count: int) -> list[Line]:
        """`count` more tokens are in the cache. Returns the lines whose next token these tell: none while some are pending."""
        line.cached += count
        if line.pending:
            return []
        if not line.followers:
            return [line]
        followers, line.followers = line.followers, []
        whole, rest = divmod(line.cached, BLOCK)
        if rest:  # the block that each will write on in
            self.blocks.store.copy([line.blocks[whole]] * len(followers), [o.blocks[whole] for o in followers])
        for other in followers:
            other.cached, other.leader = line.cached, None
        return [line, *followers]

    def cut(self, line: Line, length: int) -> None:
        """Forget what the cache holds of a line from its token `length` on."""
        if line.cached > length:
            line.cached = length
            if not self.reserve:
                self.blocks.keep(line, blocks_for(length))

    def leave(self, line: Line) -> None:
        """The line is done or given up; those that waited for its prompt run it themselves."""
        if line in self.live:
            self._remove(line)
            for other in line.followers[::-1]:
                self._put_back(other)
        else:
            self.waiting.remove(line)

    def _most(self, line: Line) -> int:
        """Blocks that the line needs now, or with `reserve`, ever."""
        return blocks_for(len(line.prompt_ids) + line.sampling.max_tokens if self.reserve else line.length)

    def _grow(self) -> None:
        """A block for each line that begins one; the last to come make room."""
        i = 0
        while i < len(self.live):
            line = self.live[i]
            missing = 0 if line.leader is not None else self._most(line) - len(line.blocks)
            if missing > self.blocks.free:
                last = self.live[-1]
                self._put_back(last)
                self.preemptions += 1
                continue
            if missing > 0:
                self.blocks.take(line, missing)
            i += 1

    def _put_back(self, line: Line) -> None:
        self._remove(line)
        if line.leader is not None:
            line.leader.followers.remove(line)
        line.cached, line.leader = 0, None
        self.waiting.appendleft(line)

    def _remove(self, line: Line) -> None:
        self.live.remove(line)
        self.blocks.keep(line, 0)
        key = tuple(line.prompt_ids)
        self._groups[key].remove(line)
        if not self._groups[key]:
            del self._groups[key]

    def _admit(self) -> None:
        """Waiting lines in their order, while there are slots and blocks: a block for each live line is kept back."""
        while self.waiting and len(self.live) < self.slots:
            line = self.waiting[0]
            twin = self._twin(line)
            # what both have: the prompt, but for its last token where the line is to run that itself
            common = 0 if twin is None else len(line.prompt_ids) - (0 if self._runs_prompt(twin) else 1)
            needed = self._most(line) - common // BLOCK
            kept_back = 0 if self.reserve or not self.live else len(self.live) + 1
            if needed + kept_back > self.blocks.free:
                return
            self.waiting.popleft()
            if twin is not None:
                self.blocks.share(twin, line, common // BLOCK)
            self.blocks.take(line, needed)
            if twin is not None:
                self._follow(line, twin, common)
            self.live.append(line)
            self._groups.setdefault(tuple(line.prompt_ids), []).append(line)

    def _twin(self, line: Line) -> Line | None:
        """A live line whose run of the same prompt can serve: it is through, or runs nothing but the prompt."""
        if line.ids or self.reserve:
            return None
        group = self._groups.get(tuple(line.prompt_ids), [])
        return next((other for other in group[::-1] if not (self._runs_prompt(other) and other.ids)), None)

    def _runs_prompt(self, line: Line) -> bool:
        return line.cached < len(line.prompt_ids)

    def _follow(self, line: Line, twin: Line, common: int) -> None:
        """Wait for the run of the same prompt, or go on from what it left."""
        if self._runs_prompt(twin):
            line.leader = twin.leader or twin
            line.leader.followers.append(line)
            return
        line.cached = common
        whole, rest = divmod(common, BLOCK)
        if rest:
            self.blocks.store.copy([twin.blocks[whole]], [line.blocks[whole]])
