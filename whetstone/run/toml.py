"""TOML tables that know where they stand in their file, so that an error can name the line."""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, TypeAlias

from whetstone.run.secrets import redacted

LARGEST = 1 << 20  # bytes of a file
DEEPEST = 24  # tables and lists within each other
WHOLE = range(-(2**63), 2**63)  # TOML's integers
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all control characters but tab and line feed

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
    """The values of a file, and the line of each table and key.

    Raises ValueError if it is not UTF-8 or not TOML, or holds a value that no setting can have (`unusable`).
    """
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size:,} bytes: a recipe has at most {LARGEST:,}. Is it another file?")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): TOML must be. Save it as UTF-8.") from error
    values = _loads(text, f"{path}", "Strings need quotes, tables are [name], stages are [[stage]].")
    lines = lines_of(text)
    for keys, why in unusable(values):
        known = next((keys[:end] for end in range(len(keys), 0, -1) if keys[:end] in lines), ())
        raise ValueError(f"{place(path, lines.get(known))}: {dotted(keys)} {why}")
    return values, lines


def parse_value(text: str, what: str) -> Any:
    """The value of one setting, as TOML; the text itself if it is not TOML. Raises ValueError as `parse` does."""
    try:
        values = _loads(f"value = {text}", what, "")
    except NotToml:
        values = {"value": text}
    if len(values) > 1:  # the text goes on after the value
        values = {"value": text}
    for _, why in unusable(values):
        raise ValueError(f"{what}: the value {why}")
    return values["value"]


class NotToml(ValueError):
    """A text is not TOML."""


def _loads(text: str, what: str, remedy: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"{what}: lists or tables are nested too deeply: {DEEPEST} levels are allowed.") from error
    except ValueError as error:  # of Python itself for a number of thousands of digits
        raise NotToml(f"{what} is not valid TOML: {error}. {remedy}") from error


def unusable(values: Mapping[str, Any]) -> Iterator[tuple[Keys, str]]:
    """(path, why and what to do) of each value that no setting can have."""
    waiting: list[tuple[Keys, Any]] = [((), values)]
    while waiting:
        keys, value = waiting.pop()
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [((*keys, key), entry) for key, entry in inner]
        if why := _unusable(value, len(keys)):
            yield keys, why
        if len(keys) > DEEPEST:
            return
        for key in value if isinstance(value, dict) else ():
            if CONTROL.search(key):
                yield (*keys, key), "is a key with a control character. Leave the character out."


def _unusable(value: Any, depth: int) -> str:
    if depth > DEEPEST:
        return f"is nested too deeply: {DEEPEST} levels are allowed."
    if isinstance(value, str) and (found := CONTROL.search(value)):
        return f"holds the control character {found[0]!r}. Leave it out."
    if isinstance(value, date | time):
        return f"= {value} is a date or a time, and no setting is one. Write it in quotes."
    if isinstance(value, float) and not math.isfinite(value):
        return f"= {value} is no number. Leave it out, or give a finite one."
    if isinstance(value, int) and value not in WHOLE:
        return "is an integer of more than 64 bits. Give a smaller one."
    return ""


def dotted(keys: Keys) -> str:
    """`stage[0].optimizer`, for messages.

    >>> dotted(("stage", 0, "optimizer"))
    'stage[0].optimizer'
    """
    words = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys[:DEEPEST])
    return CONTROL.sub("?", words.removeprefix(".")) + (" …" if len(keys) > DEEPEST else "")


def lines_of(text: str) -> dict[Keys, int]:
    """The line, from 1, of each table and of each key that stands at the beginning of a line.

    >>> lines_of("[run]\\nseed = 1\\n[[stage]]\\noptimizer.clip = 2")[("stage", 0, "optimizer", "clip")]
    4
    """
    lines: dict[Keys, int] = {}
    tables = Counter[Keys]()  # of each list of tables
    table: Keys = ()
    for number, line in enumerate(text.split("\n"), 1):
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


def put(values: Any, keys: Sequence[str], value: object, what: str) -> None:
    """Set `values[keys[0]][keys[1]]…`. In a list a key is the number of an entry.

    Missing tables are made, and a string that chooses by name becomes a table: `"muon"` -> `{ name = "muon" }`.
    """
    key, *rest = keys
    if isinstance(values, list):
        if not (key.isascii() and key.isdigit()) or int(key) >= len(values):
            raise ValueError(f"{what}: {key!r} chooses one of a list of {len(values)}: write a number from 0.")
        values[int(key)] = _with(values[int(key)], rest, value, what)
    elif isinstance(values, dict):
        values[key] = _with(values.get(key, {}), rest, value, what)
    else:
        raise ValueError(f"{what}: {redacted(values)!r} is not a table, so it has no {key!r}. Set it as a whole.")


def _with(inner: Any, keys: Sequence[str], value: object, what: str) -> Any:
    """`inner` with the value at `keys`; the value itself without keys."""
    if not keys:
        return value
    table = {"name": inner} if isinstance(inner, str) else inner
    put(table, keys, value, what)
    return table
