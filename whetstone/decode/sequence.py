"""The state of one completion while it is decoded, and what may steer it. No tensors here."""

import collections.abc as abc
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from whetstone.chat import Chat
from whetstone.records import Prompt, Sampling


class Edit(NamedTuple):
    """A change to a completion: the last `drop` ids are removed, then `append` is added, then it ends if `ends` is set.

    Appended ids were not sampled: their log-probability is 0.
    """

    drop: int = 0
    append: abc.Sequence[int] = ()
    ends: str = ""  # the completion's `stop`


class Control(Protocol):
    """Steers one completion. It is called after each sampled token, before the stop conditions are checked."""

    removable: abc.Sequence[str]  # strings that it may remove again: their beginnings are not streamed

    def __call__(self, ids: list[int]) -> Edit | None: ...


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its completion so far. The tokens of both from `cached` on are not in the key/value cache yet."""

    prompt: Prompt
    prompt_ids: list[int]
    sampling: Sampling
    draws: abc.Iterator[float] | None = None  # uniform random numbers, one per sampled token
    control: Control | None = None
    ids: list[int] = field(default_factory=list)  # of the completion
    logprobs: list[float] = field(default_factory=list)  # of `ids`
    alternatives: int | None = (
        None  # how many of the likeliest tokens are noted for each of `ids`; None: `likeliest` is empty
    )
    # for each of `ids` (id, log-probability) of itself, then of the likeliest, by the model before temperature and top-p
    likeliest: list[list[tuple[int, float]]] = field(default_factory=list)
    block_table: list[int] = field(default_factory=list)  # the cache's blocks that hold its tokens, in order
    cached: int = 0  # tokens whose keys and values are in the cache
    # of a group with the same prompt the first is prefilled; `first` is set in the siblings that wait for that
    first: "Sequence | None" = None
    siblings: "list[Sequence]" = field(default_factory=list)
    chat: Chat | None = None  # that wrote its prompt, if it is not the decoding's

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.ids)

    @property
    def pending(self) -> int:
        """Tokens that are not in the cache yet."""
        return self.length - self.cached

    @property
    def last(self) -> int:
        """The id at the end of prompt and completion."""
        return self.ids[-1] if self.ids else self.prompt_ids[-1]

    def slice(self, start: int, count: int) -> list[int]:
        """`count` ids of prompt and completion together, from `start` on."""
        n = len(self.prompt_ids)
        if start >= n:
            return self.ids[start - n : start - n + count]
        return (self.prompt_ids[start : start + count] + self.ids[: max(0, start + count - n)])[:count]
