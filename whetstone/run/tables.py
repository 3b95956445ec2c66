"""Records <-> disk: Parquet (zstd, sharded) for what is finished, a synced line journal for what arrives one by one."""

import csv
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, TypeVar

from whetstone.records import from_row, to_row

R = TypeVar("R")

SHARD_ROWS = 50_000


class TableWriter:
    """A sharded table that rows are pushed into, for a stage that fills several in one pass; memory holds one shard.

    `with TableWriter(folder) as table: table.add(row)`. Old shards of the folder are replaced. An empty table still
    gets one shard (without columns), so that "written and empty" differs from "never written".
    """

    def __init__(self, folder: Path, shard_rows: int = SHARD_ROWS):
        self.folder, self.shard_rows = folder, shard_rows
        self.total = self._shards = 0
        self._buffer: list[dict[str, Any]] = []

    def __enter__(self) -> "TableWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("part-*.parquet"):
            old.unlink()
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._buffer.append(row)
        self.total += 1
        if len(self._buffer) >= self.shard_rows:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / f"part-{self._shards:05d}.parquet"
        beside = path.with_name(path.name + ".tmp")
        pq.write_table(pa.Table.from_pylist(self._buffer), beside, compression="zstd")
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
        self._shards += 1
        self._buffer.clear()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._buffer or self._shards == 0):
            self._flush()


def write_rows(folder: Path, rows: Iterable[dict[str, Any]], shard_rows: int = SHARD_ROWS) -> int:
    """Write dict rows as `part-00000.parquet`, …; memory holds one shard. Returns the number of rows."""
    with TableWriter(folder, shard_rows) as table:
        for row in rows:
            table.add(row)
    return table.total


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of a sharded table, shard after shard, in constant memory."""
    shards = sorted(folder.glob("part-*.parquet"))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no part-*.parquet: the stage that writes it has not finished.")
    for shard in shards:
        yield from read_rows_of(shard)


def count_rows(folder: Path) -> int:
    """Rows of a sharded table, from the shards' footers."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(shard).num_rows for shard in folder.glob("part-*.parquet"))


def read_rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one Parquet file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for group in table.iter_batches(batch_size=4096):
            yield from group.to_pylist()


def write_records(folder: Path, records: Iterable[Any]) -> int:
    return write_rows(folder, (to_row(r) for r in records))


def read_records(kind: type[R], folder: Path) -> Iterator[R]:
    return (from_row(kind, row) for row in read_rows(folder))


class Journal:
    """Append-only lines, synced in blocks; after a kill the whole blocks are there and a torn last line is cut off.

    `with Journal(path) as journal: journal.append(rows)`; `journal.rows` are those found at the start.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        good = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self.rows.append(json.loads(line))
                    good += len(line)
        self._out = self.path.open("ab")
        self._out.truncate(good)
        return self

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """One synced block."""
        self._out.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
        self._out.flush()
        os.fsync(self._out.fileno())

    def __exit__(self, *_: object) -> None:
        self._out.close()


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of a .jsonl, .json, .csv or .parquet file, the first three also gzipped; numbers count from 1.

    A line that is no row gives what is wrong with it in the row's place, so that the reader can count it and keep it.
    Lines stream; a .json file may also be one array, which is read whole. Raises ValueError for another kind of file.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from enumerate(read_rows_of(path), start=1)
    elif name.endswith(".csv"):
        with _open_text(path) as lines:
            yield from enumerate(map(_csv_row, csv.DictReader(lines)), start=1)
    elif name.endswith((".jsonl", ".json")):
        with _open_text(path) as lines:
            first = lines.readline()
            if first.lstrip().startswith("["):
                yield from enumerate(json.loads(first + lines.read()), start=1)
            else:
                numbered = enumerate(chain([first], lines), start=1)
                yield from ((number, _json_row(line)) for number, line in numbered if line.strip())
    else:
        raise ValueError(
            f"{path}: a table is told by its name, and this one ends in none of .jsonl, .json, .csv, .parquet (or "
            "these and .gz). Rename or convert it."
        )


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Text lines; bytes that are not UTF-8 come as lone surrogates, which the row readers report."""
    with (
        gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines,
    ):
        yield lines


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def _csv_row(row: dict[str | None, Any]) -> dict[str, Any] | str:
    if None in row:
        return "it has more cells than the header"
    if None in row.values():
        return "it has fewer cells than the header"
    return row if all(map(_is_utf8, row.values())) else "it is not UTF-8"


def _json_row(line: str) -> dict[str, Any] | str:
    if not _is_utf8(line):
        return "it is not UTF-8"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"it is not JSON ({error.msg} at character {error.pos + 1})"
    return row if isinstance(row, dict) else "it is not a JSON object"
