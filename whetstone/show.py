"""Leaf through records: the rows of a table's folder or of a file, one at a time, as text to read."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from whetstone.problems.files import find_files
from whetstone.problems.row import BrokenRow, as_json, cell, has_cell
from whetstone.problems.table import read_tables
from whetstone.run.mistakes import suggestion
from whetstone.run.tables import column_names, count_rows, read_rows
from whetstone.run.visible import visible

DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Rows in order, in constant memory. Raises ValueError for a row that cannot be read, FileNotFoundError."""
    if any(path.glob("part-*.parquet")):
        yield from read_rows(path)
        return
    try:
        paths = find_files(str(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {path}: {error}") from error
    for file, line, row in read_tables(paths):
        fields = row.row if isinstance(row, BrokenRow) else row
        if fields is None:
            place = f"{path}{file and '/'}{file}:{line}"
            raise ValueError(f"{place} is {row}. Mend the row or remove it: show needs rows of fields.")
        yield fields


def tables_below(folder: Path) -> list[tuple[Path, int, list[str]]]:
    """(folder, rows, columns) of every table in a stage's or a run's folder."""
    tables = sorted({part.parent for part in folder.rglob("part-*.parquet")})
    return [(table, count_rows(table), column_names(table)) for table in tables]


def chosen(
    rows: Iterator[dict[str, Any]], grep: str = "", where: Sequence[str] = (), first: int = 0, count: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 0, row) from row `first` on, of those that hold `grep` in any field and fit every `field=value`.

    At most `count`; 0 is all.
    """
    conditions = [_condition(text) for text in where]
    matching = (
        (number, row)
        for number, row in enumerate(rows)
        if number >= first
        and all(_equals(row, field, value) for field, value in conditions)
        and (not grep or any(grep.lower() in _text(value).lower() for value in row.values()))
    )
    return islice(matching, count or None)


def _condition(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--where {text}: write field=value, for instance --where correct=false.")
    return field.strip(), value.strip()


def _equals(row: Mapping[str, Any], field: str, value: str) -> bool:
    if not has_cell(row, field):
        raise ValueError(
            f"--where {field}={value}: the rows have no field {field!r}{suggestion(field, row)} "
            f"Their fields are {', '.join(row)}."
        )
    own = cell(row, field)
    return _text(own) == value or (isinstance(own, (bool, type(None))) and _text(own) == value.lower())


def _text(value: Any) -> str:
    """JSON's words for true, false and null, so that `--where` reads as the file does."""
    return str(value) if isinstance(value, str | Decimal) else as_json(value)


def render(number: int, row: Mapping[str, Any], colour: bool) -> str:
    """A row as text: short fields on a line each, long texts below their name, thinking dimmed."""
    bold, plain = (BOLD, PLAIN) if colour else ("", "")
    width = max((len(name) for name in row), default=0)
    lines = [f"{bold}--- row {number}{plain}"]
    for name, value in row.items():
        name, text = visible(name, one_line=True), visible(_text(value))
        if "\n" in text or len(text) > 100:
            lines.append(f"{bold}{name}{plain}\n{dim_thinking(text) if colour else text}")
        else:
            lines.append(f"{bold}{name:{width}}{plain}  {text}")
    return "\n".join(lines) + "\n"


def dim_thinking(text: str) -> str:
    before, opened, rest = text.partition("<think>")
    if not opened:
        return text
    thought, closed, after = rest.partition("</think>")
    return f"{before}{DIM}{opened}{thought}{closed}{PLAIN}{after}"
