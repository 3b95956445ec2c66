"""The one reader of other people's files: every format, and what is wrong with a row or a file."""

import csv
import gzip
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whetstone.evaluate.problem_sets import read_problems
from whetstone.problems.columns import Columns
from whetstone.problems.reading import Drop, read_problem
from whetstone.problems.table import BrokenRow, cell, read_table
from whetstone.questions.sources.file import FileSource
from whetstone.records import Problem
from whetstone.show import render, rows_of
from whetstone.verify.table import verify_file

ROWS = [
    {"question": "What is 1 + 1?", "answer": "2"},
    {"question": "Two,\nlines \u00e9\U0001f600?", "answer": "3"},
]
MARK = b"\xef\xbb\xbf"
BAD = '{{"question": "caf{}?", "answer": "1"}}'


def written(path: Path, rows: list[dict[str, Any]], mark: bytes = b"") -> Path:
    """The rows in the format that the file's name tells."""
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if plain.endswith((".csv", ".tsv")):
        text = path.with_name("plain")
        with text.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter="," if plain.endswith(".csv") else "\t")
            writer.writeheader()
            writer.writerows(rows)
        content = text.read_bytes()
    elif plain.endswith(".json"):
        content = json.dumps({"data": rows}).encode()
    else:
        content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    path.write_bytes(gzip.compress(mark + content) if path.name.endswith(".gz") else mark + content)
    return path


def read(path: Path, content: bytes, *needed: str) -> list[Any]:
    path.write_bytes(content)
    return [row for _, row in read_table(path, needed)]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".tsv.gz"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_every_format_gives_the_same_rows(tmp_path, suffix, mark):
    assert [row for _, row in read_table(written(tmp_path / f"a{suffix}", ROWS, mark))] == ROWS


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"data": rows}, lambda rows: {"n": 2, "items": rows}])
def test_a_json_document_may_wrap_its_rows(tmp_path, wrap, indent):
    content = json.dumps(wrap(ROWS), indent=indent).encode()
    assert read(tmp_path / "a.json", b"\n" + content) == ROWS


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"a": ROWS, "b": ROWS}, r"2 lists of objects \(a, b\)"),
        ("text", "it is str, neither a list nor an object"),
    ],
)
def test_a_json_document_without_one_list_of_rows_is_an_error(tmp_path, document, why):
    with pytest.raises(ValueError, match=rf"a\.json is not one JSON document with a list of rows: .*{why}.*\.jsonl"):
        read(tmp_path / "a.json", json.dumps(document, indent=1).encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", BAD.format("\xe9").encode("latin-1") + b"\n" + BAD.format("e").encode()),
        ("a.jsonl", BAD.format("\\ud83d").encode() + b"\n" + BAD.format("e").encode()),
        ("a.json", f"[{BAD.format(chr(233))}, {BAD.format('e')}]".encode("latin-1")),
        ("a.json", f"[{BAD.format(chr(92) + 'uDC00')}, {BAD.format('e')}]".encode()),
        ("a.csv", b"question,answer\ncaf\xe9?,1\ncafe?,1\n"),
    ],
)
def test_text_that_is_not_utf8_costs_its_row_alone_and_its_fields_are_kept(tmp_path, name, content):
    bad, good = read(tmp_path / name, content)
    assert (bad.reason, bad.row["answer"], good) == ("not UTF-8", "1", {"question": "cafe?", "answer": "1"})
    assert "byte 0xE9" in bad.detail or "lone surrogate U+D" in bad.detail


def test_parquet_strings_that_are_not_utf8_cost_their_row_alone(tmp_path):
    strings = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"cafe"], pa.binary()).buffers())
    pq.write_table(pa.table({"question": strings}), tmp_path / "a.parquet")
    bad, good = (row for _, row in read_table(tmp_path / "a.parquet"))
    assert (str(bad), good) == ("not UTF-8: byte 0xE9", {"question": "cafe"})


def test_broken_rows_are_named_by_their_line(tmp_path):
    content = b'{"a": 1}\n\n[1]\n' + b"[" * 100_000 + b'\n{"a": \n{"a": 1' + b"0" * 5000 + b"}\n"
    (tmp_path / "a.jsonl").write_bytes(content)
    rows = list(read_table(tmp_path / "a.jsonl"))
    assert [(line, row.reason if isinstance(row, BrokenRow) else row) for line, row in rows] == [
        (1, {"a": 1}),
        (3, "not an object"),
        (4, "nested too deep"),
        (5, "not JSON"),
        (6, {"a": Decimal("1" + "0" * 5000)}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"question,answer,question\n1,2,3\n", "names the column 'question' twice"),
        ("a.csv", b'question,"answer\n1,2\n', "header line cannot be read"),
        ("a.csv", b"\xff\xfeq\0,", "is damaged: .*utf-16.*truncated"),
        ("a.jsonl", b"\xfe\xff\0q\xd8", "is damaged: .*utf-16.*truncated"),
        ("a.jsonl.gz", b"no gzip", "is damaged"),
        ("a.parquet", b"PAR1 no more", "is not a Parquet file that can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_its_name(tmp_path, name, content, why):
    with pytest.raises(ValueError, match=rf"a\.\S+?:? .*{why}"):
        read(tmp_path / name, content)


def test_a_long_field_of_csv_is_read(tmp_path):
    (row,) = read(tmp_path / "a.csv", b"question,answer\n" + b"1" * 200_000 + b",2\n")
    assert len(row["question"]) == 200_000


def test_a_dotted_name_looks_into_nested_columns_in_every_format(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "1 + 1?"}], "reward_model": {"ground_truth": "2"}, "a.b": "x"}]
    for suffix in (".jsonl", ".json", ".parquet"):
        path = written(tmp_path / f"n{suffix}", rows)
        ((_, row),) = read_table(path, ("reward_model.ground_truth", "prompt.0.content", "a.b"))
        named = ("reward_model.ground_truth", "prompt.0.content", "a.b")
        assert [cell(row, name) for name in named] == ["2", "1 + 1?", "x"]
        with pytest.raises(
            ValueError,
            match=r"no column 'reward_model\.truth' in its first 1 rows: did you mean 'reward_model.ground_truth'",
        ):
            list(read_table(path, ("reward_model.truth",)))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_all_doors_read_the_same_file_alike(tmp_path, suffix):
    rows = [
        {"prompt": [{"role": "user", "content": f"{n} + 1?"}], "reward_model": {"gold": [str(n + 1)]}} for n in range(3)
    ]
    path = written(tmp_path / f"set{suffix}", rows)
    named = {"question": "prompt", "answer": "reward_model.gold"}
    asked = [("0 + 1?", "1"), ("1 + 1?", "2"), ("2 + 1?", "3")]
    source = FileSource(kind="file", path=str(path), columns=named)
    assert [(p.question, p.answer) for p in source.problems("set", "train", 0)] == asked
    assert [(p.question, p.answer) for p in read_problems(str(path), columns=named)] == asked
    assert list(rows_of(path)) == rows
    assert verify_file(path, "reward_model.gold", "reward_model.gold", output=tmp_path / "out.jsonl")["correct"] == 3


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("q", 0, "0"),
        ("q", 27.0, "27"),
        ("q", [1, "x"], "1, x"),
        ([{"from": "human", "value": "q"}], "1", "1"),
        ("q", True, "not text: 'answer' holds true or false, not text or a number"),
        ("q", float("nan"), "not text: 'answer' holds nan, which is no number"),
        ("q", {"a": 1}, "not text: 'answer' holds an object, not text or a number"),
        ("q", [[1]], "not text: 'answer' holds a list, not text or a number"),
        ([{"role": "user", "content": "q"}] * 2, "1", "several turns: 'question' holds a chat of 2 turns (user, user)"),
        ([{"role": "assistant", "content": "q"}], "1", "not one question: 'question' holds a chat of 1 turns"),
        (["q"], "1", "not a chat: a list of turns"),
        ("q", "\ud800", "not UTF-8: lone surrogate U+D800"),
    ],
)
def test_a_value_becomes_text_or_is_refused_by_its_name(question, answer, said):
    item = read_problem({"question": question, "answer": answer}, 1, Columns().layout(), "set")
    if isinstance(item, Drop):
        assert f"{item.reason}: {item.detail}".startswith(said)
    else:
        assert (item.question, item.answer) == ("q", said)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv.gz", ".parquet"])
def test_a_file_with_random_damage_gives_rows_or_an_error_with_its_name(tmp_path, suffix):
    path = written(tmp_path / f"a{suffix}", ROWS)
    intact, rng = path.read_bytes(), random.Random(suffix)
    pieces = [b"\0", b'"', b"[", b"\xff", b"\\ud800", MARK, b"NaN", b"1e999", b"\r", b",", b"null"]
    for _ in range(200):
        content = bytearray(intact)
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(content) + 1)
            content[at : at + rng.choice((0, 0, 1, 9))] = rng.choice(pieces)
        path.write_bytes(content)
        try:
            problems = list(FileSource(kind="file", path=str(path)).problems("set", "train", 0))
            text = "".join(render(number, row, colour=True) for number, row in enumerate(rows_of(path)))
        except ValueError as error:
            assert path.name in str(error)
        else:
            assert all(isinstance(item, Problem | Drop) for item in problems)
            text.encode()
