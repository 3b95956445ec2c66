"""The one reader of other people's files: JSON lines, JSON, CSV, TSV, Parquet and Arrow, the text formats also packed.

Rows come in order, with the number of their line (in a JSON document, Parquet or Arrow: of the row), from 1. A row that cannot
be used comes as a `BrokenRow` with the reason. Rows stream; a JSON document is read whole. Text is UTF-8, or what its byte
order mark says; bytes that are no text, also as a lone surrogate in a JSON escape, break their row. Empty lines are skipped.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os.path import commonpath
from pathlib import Path

from whetstone.problems.arrow_rows import arrow_rows
from whetstone.problems.json_rows import json_rows
from whetstone.problems.row import (
    SURROGATE,
    BrokenRow,
    Numbered,
    Row,
    cell,
    columns_of,
    excerpt,
    has_cell,
    hidden,
    listed,
    lone_surrogate,
)
from whetstone.problems.text import PACKED, bounded_lines, damage_named, open_text, packing, suffix_of
from whetstone.run.mistakes import suggestion

__all__ = ["BrokenRow", "Numbered", "Row", "cell", "read_table", "read_tables", "require_columns"]

TEXT_FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
FORMATS = (*TEXT_FORMATS, ".parquet", ".arrow", ".feather")
HEAD = 100  # first rows, whose keys together are the columns of a file
LONGEST_FIELD = 16 << 20  # characters of one CSV field
REMEDY = 'Say which column is which, in a recipe for instance columns = { question = "problem", answer = "solution" }.'


def read_table(path: Path, needed: Sequence[str] = (), remedy: str = REMEDY) -> Iterator[Numbered]:
    """The rows of a file. Of a Parquet file only the `needed` columns are read, if any are named.

    Raises ValueError for an unknown format, a damaged file, or a needed column that none of the first rows has.
    """
    with damage_named(path):
        rows = _rows(path, needed)
        if needed:
            head = list(islice(rows, HEAD))
            require_columns(path, (row for _, row in head), needed, remedy)
            yield from head
        yield from rows


def read_tables(
    paths: Sequence[Path], needed: Sequence[str] = (), remedy: str = REMEDY
) -> Iterator[tuple[str, int, Row | BrokenRow]]:
    """(file, line, row) of the rows of files, one after the other; the file is "" if there is but one."""
    above = Path(commonpath([path.parent for path in paths]))
    for path in paths:
        below = path.relative_to(above).with_name(path.name.split(".")[0])
        file = SURROGATE.sub("\ufffd", str(below)) if len(paths) > 1 else ""
        for line, row in read_table(path, needed, remedy):
            yield file, line, row


def require_columns(where: object, rows: Iterable[Row | BrokenRow], columns: Sequence[str], remedy: str) -> None:
    """Raises ValueError for a column that none of the rows has; it names those that they have, and the likely one."""
    readable = [row for row in rows if isinstance(row, dict)]
    for column in columns:
        if readable and not any(has_cell(row, column) for row in readable):
            present = list(dict.fromkeys(name for row in readable for name in columns_of(row)))
            raise ValueError(
                f"{where} has no column {column!r} in its first {len(readable)} rows{suggestion(column, present)} It has "
                f"{listed(present)}.{next(filter(None, (hidden(row, column) for row in readable)), '')} {remedy}"
            )


def _rows(path: Path, needed: Sequence[str]) -> Iterator[Numbered]:
    suffix = suffix_of(path)
    if suffix not in FORMATS or (packing(path) and suffix not in TEXT_FORMATS):
        raise ValueError(
            f"source file {path}: the format is told by the file's suffix, and {''.join(path.suffixes) or 'none'!r} "
            f"is not known. Use one of {', '.join(FORMATS)}; {', '.join(TEXT_FORMATS)} also with {', '.join(PACKED)}."
        )
    if suffix not in TEXT_FORMATS:
        return arrow_rows(path, suffix, needed)
    return _csv_rows(path, "," if suffix == ".csv" else "\t") if suffix in (".csv", ".tsv") else json_rows(path, suffix)


# --- CSV ---


def _csv_rows(path: Path, delimiter: str) -> Iterator[Numbered]:
    csv.field_size_limit(LONGEST_FIELD)
    with open_text(path) as content:
        rows = csv.reader(bounded_lines(content), strict=True, delimiter=delimiter)
        header = _csv_header(path, rows, delimiter)
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


def _csv_header(path: Path, rows: Iterator[list[str]], delimiter: str) -> list[str]:
    """The names of the columns, without spaces around them; of several without a name, by their place."""
    try:
        header = [name.strip() for name in next((fields for fields in rows if fields), [])]
    except csv.Error as error:
        raise ValueError(f"source file {path}: the header line cannot be read ({error}). Mend its quotes.") from error
    other = next((mark for mark in ",;\t|" if len(header) == 1 and mark in header[0]), None)
    if other:
        raise ValueError(
            f"source file {path}: its header {excerpt(header[0])!r} is one column, as the delimiter of {suffix_of(path)} files "
            f"is {delimiter!r}. Here it seems to be {other!r}: save the table with {delimiter!r}."
        )
    if header.count("") > 1:
        header = [name or f"column {place}" for place, name in enumerate(header, 1)]
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
