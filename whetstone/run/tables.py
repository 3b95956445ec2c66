"""Records <-> disk: Parquet (zstd, sharded) for what is finished, a synced line journal for what arrives one by one."""

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, TypeVar

from whetstone.records import from_row, to_row

R = TypeVar("R")

SHARD_ROWS = 50_000
SHARD_CHARACTERS = 32 << 20  # of text in a shard: long rollouts make shards of fewer rows
READ_ROWS = 1024  # held at once in reading


class TableWriter:
    """A sharded table that rows are pushed into, for a stage that fills several in one pass; memory holds one shard.

    `with TableWriter(folder) as table: table.add(row)`. Old shards of the folder are replaced. An empty table still
    gets one shard (without columns), so that "written and empty" differs from "never written".
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
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / f"part-{self._shards:05d}.parquet"
        beside = path.with_name(path.name + ".tmp")
        pq.write_table(pa.Table.from_pylist(self._buffer), beside, compression="zstd")
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
        self._shards += 1
        self._characters = 0
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
        for group in table.iter_batches(batch_size=READ_ROWS):
            yield from group.to_pylist()


def write_records(folder: Path, records: Iterable[Any]) -> int:
    return write_rows(folder, (to_row(r) for r in records))


def read_records(kind: type[R], folder: Path) -> Iterator[R]:
    return (from_row(kind, row) for row in read_rows(folder))


class Journal:
    """Append-only lines, synced in blocks; after a kill the whole blocks are there and a torn last line is cut off.

    `with Journal(path) as journal: journal.append(rows)`; `journal.rows` are those found at the start, or what `keep` makes
    of each: a long journal need not be held whole.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], Any] = lambda row: row):
        self.path, self.keep = path, keep
        self.rows: list[Any] = []

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        good = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self.rows.append(self.keep(json.loads(line)))
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


def expand_path(raw: str) -> Path:
    """`raw` with its $VARIABLES and ~ filled in. Raises ValueError for a variable that is not set."""

    def variable(found: re.Match[str]) -> str:
        name = found["name"] or found["braced"]
        if name not in os.environ:
            raise ValueError(
                f"source path {raw!r} names ${name}, which is not set: the file cannot be found. Say where it is with\n"
                f"    export {name}=/the/folder\nor write the whole path into the recipe."
            )
        return os.environ[name]

    return Path(re.sub(r"\$(?:(?P<name>\w+)|\{(?P<braced>\w+)\})", variable, raw)).expanduser()


def find_file(raw: str) -> Path:
    """The file that `raw` names. Raises ValueError for an unset variable or a folder, FileNotFoundError."""
    path = expand_path(raw)
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f"source path {path} is a folder: a source is one file. Name a file in it.")
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}, which is there?"
    elif path.parent.is_dir():
        hint = f"{path.parent} holds {', '.join(beside[:8]) or 'nothing'}."
    else:
        hint = f"the folder {path.parent} is not there either. Relative paths start at {Path.cwd()}."
    raise FileNotFoundError(f"source file {path} is missing: {hint}")


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


_SURROGATE = re.compile("[\udc80-\udcff]")


def _is_utf8(text: str) -> bool:
    return _SURROGATE.search(text) is None


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
