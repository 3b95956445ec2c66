"""TOML tables that know where they stand in their file, so that an error can name the line."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

HEADER = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]")
KEY = re.compile(r"\s*([\w\"'.-]+)\s*=")
Keys: TypeAlias = tuple[str | int, ...]  # ("stage", 2, "epochs"): the path of a value in a document


@dataclass
class Table:
    """A table as it was written."""

    values: dict[str, Any]
    label: str  # for messages: `[run]`, `[[stage]] "sft"`
    file: Path
    lines: Mapping[Keys, int]  # of the file
    path: Keys  # in the file

    def place(self, *path: str | int) -> str:
        """`recipes/tiny.toml:12: [[stage]] "sft"`, with the line of the key at `path`, or of the last part that has one.

        Parts that are not in the file, such as the member of a union, are skipped.
        """
        keys = self.path
        for part in path:
            keys = (*keys, part) if (*keys, part) in self.lines else keys
        return f"{place(self.file, self.lines.get(keys))}: {self.label}"


def place(file: Path, line: int | None) -> str:
    return f"{file}:{line}" if line else f"{file}"


def parse(path: Path) -> tuple[dict[str, Any], dict[Keys, int]]:
    """The values of a file, and the line of each table and key. Raises ValueError if it is not UTF-8 or not TOML."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): TOML must be. Save it as UTF-8.") from error
    try:
        return tomllib.loads(text), lines_of(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            f"{path} is not valid TOML: {error}. Strings need quotes, tables are [name], stages are [[stage]]."
        ) from error


def lines_of(text: str) -> dict[Keys, int]:
    """The line, from 1, of each table and of each key that stands at the beginning of a line.

    >>> lines_of("[run]\\nseed = 1\\n[[stage]]\\noptimizer.clip = 2")[("stage", 0, "optimizer", "clip")]
    4
    """
    lines: dict[Keys, int] = {}
    tables = Counter[Keys]()  # of each list of tables
    table: Keys = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            *above, last = header[2].split(".")
            table = ()
            for part in above:
                table = (*table, part)
                table = (*table, tables[table] - 1) if tables[table] else table
            table = (*table, last)
            if header[1] == "[[":
                tables[table] += 1
                lines.setdefault(table, number)
                table = (*table, tables[table] - 1)
            lines.setdefault(table, number)
        elif key := KEY.match(line):
            parts = [part.strip("\"'") for part in key[1].split(".")]
            for end in range(1, len(parts) + 1):
                lines.setdefault((*table, *parts[:end]), number)
    return lines
