"""What may steer a completion while it is decoded: a function that is called after each token."""

import collections.abc as abc
from typing import NamedTuple, Protocol


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
