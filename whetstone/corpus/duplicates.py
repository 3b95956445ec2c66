"""Exact duplicates among the traces of one problem. (Duplicate problems are the questions stage's matter.)"""

from collections.abc import Iterable, Iterator

from whetstone.records import Trace


def mark_duplicates(traces: Iterable[Trace]) -> Iterator[tuple[Trace, int | None]]:
    """Each trace with the index of the earlier trace that says the same, spacing aside; None for a first one."""
    first: dict[str, int] = {}
    for trace in traces:
        key = " ".join(trace.text.split())
        yield trace, first.get(key)
        first.setdefault(key, trace.index)
