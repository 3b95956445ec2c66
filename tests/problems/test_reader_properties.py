"""Random tables of JSON values: a row gives a problem of text and numbers, or a drop with its reason, alike in every format."""

import csv
import gzip
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.problems.columns import Columns
from whetstone.problems.reading import Drop, read_problem
from whetstone.problems.table import read_table

TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from('",\n\r\t {}[]'), max_size=6)  # surrogates, too
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
CHATS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}), max_size=3
)
ROWS = st.lists(
    st.fixed_dictionaries({"question": TEXT | CHATS | VALUES, "answer": SCALARS | VALUES}), min_size=1, max_size=4
)
REFUSED = None


def plain(value: Any) -> str | None:
    """A scalar as text, worked out by the rules of docs/your_data.md."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return REFUSED
    digits = format(Decimal(repr(value)), "f")
    return "0" if value == 0 else digits.rstrip("0").rstrip(".") if "." in digits else digits


def answer(value: Any) -> str | None:
    parts = [plain(item) for item in value] if isinstance(value, list) else [plain(value)]
    if REFUSED in parts or (len(parts) > 1 and "" in parts):
        return REFUSED
    return ", ".join(parts)


def question(value: Any) -> tuple[str | None, str]:
    """The question and the system message."""
    if not isinstance(value, list):
        return plain(value), ""
    if not all(isinstance(turn, dict) and "role" in turn for turn in value):
        return REFUSED, ""
    system, turns = ("", value)
    if value and value[0]["role"] == "system":
        system, turns = value[0]["content"].strip(), value[1:]
    return (turns[0]["content"].strip() if [turn["role"] for turn in turns] == ["user"] else REFUSED), system


def expected(row: dict[str, Any]) -> tuple[str, str, str] | None:
    """(question, answer, system message), or None for a row that gives no problem."""
    (asked, system), told = question(row["question"]), answer(row["answer"])
    lone = any(0xD800 <= ord(letter) <= 0xDFFF for letter in json.dumps(row, ensure_ascii=False))
    return None if lone or not asked or not told else (asked, told, system)


def written(folder: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """(file, the rows that it holds) for every format that can express some of them."""
    lines = "\r\n\n".join(map(json.dumps, rows)).encode()
    for name, content in {
        "a.jsonl": lines,
        "b.jsonl.gz": gzip.compress(lines),
        "c.json": json.dumps(rows).encode(),
        "d.json": json.dumps({"n": 1, "data": rows}, indent=1).encode("utf-16"),
    }.items():
        (folder / name).write_bytes(content)
        yield folder / name, rows
    texts = [row for row in rows if all(isinstance(value, str) for value in row.values()) and is_unicode(row)]
    for name, delimiter in (("e.csv", ","), ("f.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as out:
            table = csv.DictWriter(out, ["question", "answer"], delimiter=delimiter, quoting=csv.QUOTE_ALL)
            table.writeheader()
            table.writerows(texts)
        yield folder / name, texts
    for number, row in enumerate(rows):
        path = folder / f"g-{number}.parquet"
        try:
            table = pa.Table.from_pylist([row])
            pq.write_table(table, path)
        except (pa.ArrowException, OverflowError, UnicodeError):
            continue  # Arrow has no type for it
        if repr(table.to_pylist()) == repr([row]):
            yield path, [row]


def is_unicode(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def read(path: Path) -> list[tuple[str, str, str] | None]:
    items = [read_problem(row, line, Columns().layout(), "set") for line, row in read_table(path)]
    assert all(item.reason and item.line for item in items if isinstance(item, Drop))
    return [None if isinstance(item, Drop) else (item.question, item.answer, item.system) for item in items]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(rows=ROWS)
def test_every_row_gives_its_problem_or_a_drop_in_every_format(tmp_path_factory, rows):
    for path, held in written(tmp_path_factory.mktemp("rows"), rows):
        assert read(path) == list(map(expected, held)), path.name
