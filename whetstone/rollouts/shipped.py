"""The worked solutions that came with the problems, found by problem in constant memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from whetstone.records import Problem, Trace
from whetstone.run.tables import read_records


class Shipped:
    """Problem -> the traces that its set ships, in their order. Not yet verified."""

    def __init__(self, connection: sqlite3.Connection | None):
        self.connection = connection

    def traces(self, problem: Problem) -> list[Trace]:
        if self.connection is None:
            return []
        found = self.connection.execute(
            "SELECT i, text, teacher FROM traces WHERE problem = ? ORDER BY i", (problem.id,)
        )
        return [Trace(problem.id, index, text, teacher) for index, text, teacher in found]


@contextmanager
def shipped_traces(table: Path | None, beside: Path) -> Iterator[Shipped]:
    """The traces of a table, which lie in any order, indexed in a file at `beside` that is removed in the end."""
    first = next(iter(read_records(Trace, table)), None) if table else None
    if first is None:
        yield Shipped(None)
        return
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # it is made anew after a kill
            connection.execute("CREATE TABLE traces (problem TEXT, i INTEGER, text TEXT, teacher TEXT)")
            rows = ((trace.problem_id, trace.index, trace.text, trace.teacher) for trace in read_records(Trace, table))
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO traces VALUES (?, ?, ?, ?)", rows)
            connection.execute("CREATE INDEX by_problem ON traces (problem)")
            connection.execute("COMMIT")
            yield Shipped(connection)
    finally:
        beside.unlink(missing_ok=True)
