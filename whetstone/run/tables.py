"""Records <-> disk: Parquet (zstd, sharded) for what is finished, a synced line journal for what arrives one by one."""

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from whetstone.records import from_row, to_row
from whetstone.run.disk import disk_full_explained

if TYPE_CHECKING:
    import pyarrow.parquet as pq

R = TypeVar("R")

SHARD_ROWS = 50_000
SHARD_CHARACTERS = 32 << 20  # of text in a shard: long rollouts make shards of fewer rows
READ_ROWS = 256  # held at once in reading


class TableWriter:
    """Writes a sharded table row by row, for a stage that fills several in one pass; memory holds one shard.

    `with TableWriter(folder) as table: table.add(row)`. Old shards of the folder are replaced. An empty table still
    gets one shard (without columns), so that an empty table differs from a missing one.
    """

    def __init__(self, folder: Path, shard_rows: int = SHARD_ROWS):
        self.folder, self.shard_rows = folder, shard_rows
        self.total = self._shards = self._characters = 0
        self._buffer: list[dict[str, Any]] = []

    def __enter__(self) -> "TableWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("part-*.parquet"):
            old.unlink()
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._buffer.append(row)
        self.total += 1
        self._characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(self._buffer) >= self.shard_rows or self._characters >= SHARD_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        write_shard(self.folder, self._shards, self._buffer)
        self._shards += 1
        self._characters = 0
        self._buffer.clear()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._buffer or self._shards == 0):
            self._flush()


def write_shard(folder: Path, number: int, rows: list[dict[str, Any]]) -> None:
    """Write one shard of a table, complete or not at all; it replaces the one with its number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    path = _shard(folder, number)
    beside = path.with_name(path.name + ".tmp")
    try:
        with disk_full_explained(path.name, folder):
            pq.write_table(pa.Table.from_pylist(rows), beside, compression="zstd")
            with beside.open("rb") as written:
                os.fsync(written.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_shard(folder: Path, number: int) -> Iterator[dict[str, Any]]:
    """The rows of one shard; none if it is not there."""
    path = _shard(folder, number)
    if path.exists():
        yield from _rows(path)


def remove_shards(folder: Path, first: int) -> None:
    """Remove those with this number and above."""
    for path in folder.glob("part-*.parquet"):
        if int(path.stem.removeprefix("part-")) >= first:
            path.unlink()


def _shard(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


@contextmanager
def opened(shard: Path) -> Iterator["pq.ParquetFile"]:
    """Raises ValueError, with the file's name, if it is damaged, and OSError if the system refuses it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as table:
            yield table
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ValueError(
            f"{shard} is damaged ({reason}). Copy it again, or make its stage again with --force."
        ) from error


def _count(shard: Path) -> int:
    """The number of its rows."""
    with opened(shard) as table:
        return int(table.metadata.num_rows)


def _rows(shard: Path, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[dict[str, Any]]:
    """The rows from number `first`, or these columns of them."""
    with opened(shard) as table:
        for batch in table.iter_batches(batch_size=READ_ROWS, columns=columns):
            if first < batch.num_rows:
                yield from batch.slice(first).to_pylist()
            first = max(0, first - batch.num_rows)


def write_rows(folder: Path, rows: Iterable[dict[str, Any]], shard_rows: int = SHARD_ROWS) -> int:
    """Write dict rows as `part-00000.parquet`, …; memory holds one shard. Returns the number of rows."""
    with TableWriter(folder, shard_rows) as table:
        for row in rows:
            table.add(row)
    return table.total


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a sharded table, or these columns of them, in constant memory. Raises FileNotFoundError."""
    for shard in shards_of(folder):
        yield from _rows(shard, columns)


def shards_of(folder: Path) -> list[Path]:
    """In the order of their rows. Raises FileNotFoundError."""
    shards = sorted(folder.glob("part-*.parquet"), key=lambda shard: (len(shard.name), shard.name))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no part-*.parquet: the stage that writes it has not finished.")
    return shards


def read_between(folder: Path, first: int, last: int) -> Iterator[dict[str, Any]]:
    """The rows from number `first` to before `last`."""
    shards, starts = shards_of(folder), _starts(folder)
    place = max(0, bisect_right(starts, first) - 1)
    rows = chain.from_iterable(_rows(shards[i], first=max(0, first - starts[i])) for i in range(place, len(shards)))
    return islice(rows, last - first)


def shard_of_row(folder: Path) -> Callable[[int], int]:
    """A function that gives the number of the shard that holds a row."""
    starts = _starts(folder)
    return lambda row: bisect_right(starts, row)


def _starts(folder: Path) -> list[int]:
    """The number of each shard's first row, from the shards' footers."""
    return [0, *accumulate(map(_count, shards_of(folder)))][:-1]


def read_where(folder: Path, columns: Sequence[str], wanted: Callable[..., bool]) -> Iterator[dict[str, Any]]:
    """The rows whose values in these columns are wanted. Of the others, nothing else is read row by row."""
    import pyarrow as pa

    for shard in shards_of(folder):
        with opened(shard) as table:
            keys = table.read(list(columns)).to_pydict() if table.metadata.num_rows else {}
            mask = [wanted(*values) for values in zip(*(keys[name] for name in keys), strict=True)]
            if any(mask):
                yield from table.read().filter(pa.array(mask)).to_pylist()


def column_names(folder: Path) -> list[str]:
    with opened(shards_of(folder)[0]) as table:
        return list(table.schema_arrow.names)


def count_rows(folder: Path) -> int:
    """Rows of a sharded table, from the shards' footers."""
    return sum(map(_count, folder.glob("part-*.parquet")))


def write_records(folder: Path, records: Iterable[Any]) -> int:
    return write_rows(folder, (to_row(r) for r in records))


def read_records(kind: type[R], folder: Path) -> Iterator[R]:
    return (from_row(kind, row) for row in read_rows(folder))


class Journal:
    """Append-only JSON lines, synced in blocks. After a kill, complete blocks remain and a torn last line is cut off.

    `with Journal(path) as journal: journal.append(rows)`. `journal.rows` are the rows of earlier runs, or what `keep` returns
    for each, so that a long journal need not be held in memory.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], Any] = lambda row: row):
        self.path, self.keep = path, keep
        self.rows: list[Any] = []

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        good = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.endswith(b"\n"):
                        break
                    self.rows.append(self._read(number, line))
                    good += len(line)
        self._out = self.path.open("ab")
        self._out.truncate(good)
        return self

    def _read(self, number: int, line: bytes) -> Any:
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError(f"it is a {type(row).__name__}, not a table")
            return self.keep(row)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self.path}, line {number}, is damaged: {type(error).__name__}: {error}. Put back the file as it was, or "
                f"delete what is damaged: the work of lines that are missing is done again."
            ) from error

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """One synced block. Half a surrogate pair, which UTF-8 cannot hold, becomes "?": no row is lost for it."""
        lines = (json.dumps(row, ensure_ascii=False).encode(errors="replace") for row in rows)
        with disk_full_explained(f"lines of {self.path.name}", self.path.parent):
            self._out.write(b"".join(line + b"\n" for line in lines))
            self._out.flush()
            os.fsync(self._out.fileno())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(*[OSError] if kind else []):  # on a full disk closing writes the last block, and fails again
            self._out.close()
