"""The one reader of other people's files: JSON lines, JSON, CSV, TSV and Parquet, the text formats also with .gz.

Rows come in order, with the number of their line (in a JSON array or Parquet: of the row), from 1. A row that cannot be used
comes as a `BrokenRow` with the reason. Rows stream; one JSON document is read whole. A byte order mark and empty lines are
skipped. Text that is not UTF-8, in bytes or as a lone surrogate in a JSON escape, breaks its row.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from whetstone.run.mistakes import suggestion

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
BATCH = 1024  # rows of a Parquet file that are held at once
HEAD = 100  # first rows, whose keys together are the columns of a file
EXCERPT = 200  # characters of a broken row that are kept
LONGEST_FIELD = 16 << 20  # characters of one CSV field
SURROGATE = re.compile("[\ud800-\udfff]")

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be used, and why."""

    reason: str  # one of few, so that reasons can be counted
    detail: str
    text: str = ""  # an excerpt
    row: Row | None = None  # its fields, if they could be read

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


Numbered: TypeAlias = tuple[int, Row | BrokenRow]


def read_table(path: Path, needed: Sequence[str] = ()) -> Iterator[Numbered]:
    """The rows of a file. Of a Parquet file only the `needed` columns are read, if any are named.

    Raises ValueError for an unknown format, a damaged file, or a needed column that none of the first rows has.
    """
    rows = _rows(path, needed)
    try:
        if needed:
            head = list(islice(rows, HEAD))
            require_columns(path, head, needed)
            yield from head
        yield from rows
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"source file {path} is damaged: {error}. Fetch it again.") from error


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column. A dotted name looks into objects and lists. Raises KeyError.

    >>> row = {"reward_model": {"ground_truth": "34"}, "prompt": [{"content": "Find n."}]}
    >>> cell(row, "reward_model.ground_truth"), cell(row, "prompt.0.content")
    ('34', 'Find n.')
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(column)
    return value


def has_cell(row: Mapping[str, Any], column: str) -> bool:
    try:
        cell(row, column)
    except KeyError:
        return False
    return True


REMEDY = 'Say which column is which, in a recipe for instance columns = { question = "problem", answer = "solution" }.'


def require_columns(path: Path, rows: Iterable[Numbered], columns: Sequence[str], remedy: str = REMEDY) -> None:
    """Raises ValueError for a column that none of the rows has; it names those that they have, and the likely one."""
    readable = [row for _, row in rows if isinstance(row, dict)]
    for column in columns:
        if readable and not any(has_cell(row, column) for row in readable):
            present = list(dict.fromkeys(key for row in readable for key in row))
            raise ValueError(
                f"{path} has no column {column!r} in its first {len(readable)} rows{suggestion(column, present)} It has "
                f"{', '.join(map(repr, present))}. {remedy}"
            )


def excerpt(text: str) -> str:
    """A short printable piece of a row."""
    text = SURROGATE.sub("\ufffd", text).strip()
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"


def lone_surrogate(text: str) -> str:
    """What is not UTF-8 in a text, in words; "" for nothing."""
    match = SURROGATE.search(text)
    if not match:
        return ""
    code = ord(match[0])
    return f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate U+{code:04X}"


# --- bytes ---


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, in small letters, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The content, unpacked if the name ends in .gz, without a byte order mark. Raises ValueError for UTF-16."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as content:
        mark = content.read(3)
        if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"source file {path} is UTF-16, by its first two bytes. Save it as UTF-8.")
        if mark != b"\xef\xbb\xbf":
            content.seek(0)
        yield content


def _rows(path: Path, needed: Sequence[str]) -> Iterator[Numbered]:
    suffix = suffix_of(path)
    if suffix not in FORMATS or (suffix == ".parquet" and path.name.lower().endswith(".gz")):
        raise ValueError(
            f"source file {path}: the format is told by the file's suffix, and {''.join(path.suffixes) or 'none'!r} "
            f"is not known. Use one of {', '.join(FORMATS)} (all but the last also with .gz)."
        )
    if suffix == ".parquet":
        return _parquet_rows(path, needed)
    if suffix == ".json":
        return _json_rows(path)
    return _json_lines(path) if suffix in (".jsonl", ".ndjson") else _csv_rows(path, "," if suffix == ".csv" else "\t")


# --- JSON ---


def _json_lines(path: Path) -> Iterator[Numbered]:
    with open_bytes(path) as lines:
        yield from ((number, _json_row(line)) for number, line in enumerate(lines, 1) if line.strip())


def _json_row(line: bytes) -> Row | BrokenRow:
    text = line.decode("utf-8", errors="surrogateescape")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        bad = lone_surrogate(text)
        return BrokenRow("not UTF-8" if bad else "not JSON", bad or str(error)[:EXCERPT], excerpt(text))
    return _object(value, text)


def _object(value: Any, text: str) -> Row | BrokenRow:
    """The value if it is an object of valid text; `text` is its JSON, which is faster to search."""
    if not isinstance(value, dict):
        return BrokenRow("not an object", f"{type(value).__name__}, not {{…}}", excerpt(text))
    if text.isascii() and "\\ud" not in text and "\\uD" not in text:
        return value
    bad = lone_surrogate(json.dumps(value, ensure_ascii=False))
    return BrokenRow("not UTF-8", bad, excerpt(text), value) if bad else value


def _json_rows(path: Path) -> Iterator[Numbered]:
    """One document, or one object per line under the other suffix."""
    with open_bytes(path) as content:
        first, second = islice(chain((line for line in content if line.strip()), (b"", b"")), 2)
    row = _json_row(first)
    if not first or (isinstance(row, dict) and (second or not _lists_of(row))):
        yield from _json_lines(path)
        return
    with open_bytes(path) as content:
        text = content.read().decode("utf-8", errors="surrogateescape")
    try:
        items = _items(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"source file {path} is not one JSON document with a list of rows: {error}. Mend it, or write one object per "
            "line as .jsonl, where a broken line costs only itself."
        ) from error
    yield from ((number, _object(item, json.dumps(item, ensure_ascii=False))) for number, item in enumerate(items, 1))


def _items(document: Any) -> list[Any]:
    """The rows of a document: itself a list, or an object with one list of objects, such as {"data": [...]}."""
    if isinstance(document, list):
        return document
    names = _lists_of(document) if isinstance(document, dict) else []
    if "data" in names or len(names) == 1:
        return document["data" if "data" in names else names[0]]
    raise ValueError(f"it holds {len(names)} lists of objects ({', '.join(names) or 'none'}), and one is wanted")


def _lists_of(document: Row) -> list[str]:
    return [
        name
        for name, value in document.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    ]


# --- CSV and Parquet ---


def _csv_rows(path: Path, delimiter: str) -> Iterator[Numbered]:
    csv.field_size_limit(LONGEST_FIELD)
    with open_bytes(path) as content:
        text = (line.decode("utf-8", errors="surrogateescape") for line in content)
        rows = csv.reader(text, strict=True, delimiter=delimiter)
        header = _csv_header(path, rows)
        while True:
            start = rows.line_num + 1
            try:
                fields = next(rows, None)
            except csv.Error as error:
                yield start, BrokenRow("broken CSV", f"{error} (lines {start} to {rows.line_num})")
                continue
            if fields is None:
                return
            if fields:
                yield start, _csv_row(header, fields, f"(lines {start} to {rows.line_num})")


def _csv_header(path: Path, rows: Iterator[list[str]]) -> list[str]:
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise ValueError(f"source file {path}: the header line cannot be read ({error}). Mend its quotes.") from error
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"source file {path}: the header names the column {twice!r} twice. Rename one of them.")
    return header


def _csv_row(header: list[str], fields: list[str], lines: str) -> Row | BrokenRow:
    text = ",".join(fields)
    if len(fields) != len(header):
        detail = f"{len(fields)} fields, the header has {len(header)} {lines}"
        return BrokenRow("broken CSV", detail, excerpt(text))
    row = dict(zip(header, fields, strict=True))
    bad = lone_surrogate(text)
    return BrokenRow("not UTF-8", bad, excerpt(text), row) if bad else row


def _parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[Numbered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            tops = dict.fromkeys(name if name in names else name.partition(".")[0] for name in needed)
            columns = list(tops) if tops and set(tops) <= set(names) else None
            batches = table.iter_batches(batch_size=BATCH, columns=columns)
            yield from enumerate(chain.from_iterable(map(_batch_rows, batches)), 1)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"source file {path} is not a Parquet file that can be read: {error}. Fetch it again."
        ) from error


def _batch_rows(batch: Any) -> Iterator[Row | BrokenRow]:
    """The rows of a batch; Arrow does not check that its strings are UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for place in range(batch.num_rows):
        try:
            yield batch.slice(place, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield BrokenRow("not UTF-8", f"byte 0x{error.object[error.start]:02X}")
