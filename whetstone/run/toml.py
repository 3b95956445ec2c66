"""TOML tables that know where they stand in their file, so that an error can name the line."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = re.compile(r"\s*\[\[?\s*([\w.-]+)\s*\]")


@dataclass
class Table:
    """A table as it was written."""

    values: dict[str, Any]
    name: str  # as in its header: `run`, `stage`
    label: str  # for messages: `[run]`, `[[stage]] "sft"`
    file: Path
    lines: Sequence[str] = ()  # of the file
    index: int = 0  # among the file's tables of that name

    def place(self, *path: str | int) -> str:
        """`recipes/tiny.toml:12: [[stage]] "sft"`, with the line of the key at `path` as far as it is found."""
        number = line_number(self.lines, self.name, self.index, path)
        return f"{self.file}{f':{number}' if number else ''}: {self.label}"


def parse(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The values of a file and its lines. Raises ValueError if it is not UTF-8 or not TOML."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): TOML must be. Save it as UTF-8.") from error
    try:
        return tomllib.loads(text), text.splitlines()
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            f"{path} is not valid TOML: {error}. Strings need quotes, tables are [name], stages are [[stage]]."
        ) from error


def line_number(lines: Sequence[str], table: str, index: int = 0, path: Sequence[str | int] = ()) -> int | None:
    """The line, from 1, of the key at `path` in the index-th table of that name, or of the last part of it that is found.

    None if there is no such table.
    """
    region = _region(lines, table, index, range(len(lines)))
    if region is None:
        return None
    line = region.start + 1
    for position, part in enumerate(path):
        if isinstance(part, int):
            if (inner := _region(lines, table, part, region)) is not None:
                region, line = inner, inner.start + 1
        elif number := key_line(lines, part, region):
            line = number
        elif (inner := _region(lines, f"{table}.{part}", 0, region)) is not None:
            table, line = f"{table}.{part}", inner.start + 1
            if not any(isinstance(part, int) for part in path[position + 1 : position + 2]):
                region = inner
    return line


def key_line(lines: Sequence[str], key: str, region: range | None = None) -> int | None:
    """The line, from 1, of a key of the region's own table: before the next header."""
    region = range(len(lines)) if region is None else region
    for number in region:
        if number > region.start and _header(lines[number]):
            return None
        if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", lines[number]):
            return number + 1
    return None


def _header(line: str) -> str:
    match = HEADER.match(line)
    return match[1] if match else ""


def _region(lines: Sequence[str], table: str, index: int, within: range) -> range | None:
    """The lines of the index-th table of that name, its inner tables included."""
    starts = [number for number in within if _header(lines[number]) == table]
    if index >= len(starts):
        return None
    inner = f"{table}."
    for number in range(starts[index] + 1, within.stop):
        header = _header(lines[number])
        if header and not header.startswith(inner):
            return range(starts[index], number)
    return range(starts[index], within.stop)
