"""The worked solutions that came with the problems, looked up by problem in constant memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from whetstone.records import Problem, Trace
from whetstone.run.tables import read_records


class Shipped:
    """Problem -> the unverified traces that came with it, in their order."""

    def __init__(self, connection: sqlite3.Connection | None):
        self.connection = connection

    def traces(self, problem: Problem) -> list[Trace]:
        if self.connection is None:
            return []
        rows = self.connection.execute(
            "SELECT i, text, teacher FROM traces WHERE problem = ? ORDER BY i", (problem.id,)
        )
        return [Trace(problem.id, index, text, teacher) for index, text, teacher in rows]


@contextmanager
def shipped_traces(table: Path | None, index: Path) -> Iterator[Shipped]:
    """The traces of a table, in any order. They are indexed in a file at `index`, which is removed in the end."""
    first = next(iter(read_records(Trace, table)), None) if table else None
    if first is None:
        yield Shipped(None)
        return
    index.parent.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(index, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # after a kill the index is made again
            connection.execute("CREATE TABLE traces (problem TEXT, i INTEGER, text TEXT, teacher TEXT)")
            rows = ((trace.problem_id, trace.index, trace.text, trace.teacher) for trace in read_records(Trace, table))
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO traces VALUES (?, ?, ?, ?)", rows)
            connection.execute("CREATE INDEX by_problem ON traces (problem)")
            connection.execute("COMMIT")
            yield Shipped(connection)
    finally:
        index.unlink(missing_ok=True)
