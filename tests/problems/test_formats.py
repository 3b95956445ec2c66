"""The same rows in every format that can express them, packed and spread over files, and what is wrong with a file."""

import bz2
import datetime
import gzip
import json
import lzma
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from whetstone.evaluate.problem_sets import read_problems
from whetstone.problems.files import find_files, read_paths
from whetstone.problems.reading import Drop
from whetstone.problems.row import BrokenRow, Unreadable
from whetstone.problems.table import read_table
from whetstone.questions.gather import Settings, reads
from whetstone.questions.sources.file import FileSource
from whetstone.verify.table import verify_file

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": "Caf\u00e9, 2 + 2?", "answer": "4"}]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def rows_of(path: Path, content: bytes | None = None) -> list[Any]:
    if content is not None:
        path.write_bytes(content)
    return [row for _, row in read_table(path)]


def said(path: Path | str, **columns: Any) -> list[tuple[str, str] | str]:
    """What `questions` reads: (question, answer), or the reason of a drop."""
    source = FileSource(kind="file", path=str(path), columns=columns)
    items = source.problems("set", "train", 0)
    return [f"{i.reason}: {i.detail}" if isinstance(i, Drop) else (i.question, i.answer) for i in items]


# --- packed and encoded ---


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_file_is_read_in_all_its_members(tmp_path, suffix):
    content = PACK[suffix](lines(ROWS)) + PACK[suffix](b"\n" + lines(ROWS))
    assert rows_of(tmp_path / f"a.jsonl{suffix}", content) == ROWS * 2


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_file_that_is_cut_or_not_packed_is_an_error_with_its_name(tmp_path, suffix):
    rows = [{"question": f"{n * n * n}?", "answer": str(n)} for n in range(1000)]
    for content in (PACK[suffix](lines(rows))[:-20], lines(ROWS)):
        with pytest.raises(ValueError, match=rf"a\.jsonl\{suffix} is damaged: "):
            rows_of(tmp_path / f"a.jsonl{suffix}", content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding, suffix):
    table = 'question,answer\r\n1 + 1?,2\r\n"Café, 2 + 2?",4\r\n'
    text = {".jsonl": lines(ROWS).decode(), ".json": json.dumps(ROWS), ".csv": table}[suffix]
    assert rows_of(tmp_path / f"a{suffix}", text.encode(encoding)) == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\n\r\n \r\n"])
def test_every_kind_of_line_end_is_read(tmp_path, end):
    text = lines(ROWS).decode().replace("\n", end)
    assert rows_of(tmp_path / "a.jsonl", text.encode()) == ROWS


def test_files_with_marks_that_were_joined_are_read(tmp_path):
    content = lines(ROWS).decode().encode("utf-8-sig") + b"\n"
    assert rows_of(tmp_path / "a.jsonl", content * 2) == ROWS * 2


def test_an_error_names_some_of_many_columns(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{f"c{n}": "" for n in range(1000)}]))
    with pytest.raises(ValueError, match=r"no column 'question'.*'c39', …") as error:
        said(tmp_path / "a.jsonl")
    assert len(str(error.value)) < 1000


def test_an_empty_file_has_no_rows(tmp_path):
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv.gz"):
        assert rows_of(tmp_path / name, b"") == []
    assert rows_of(tmp_path / "b.csv", b"\nquestion,answer\n") == []


# --- JSON ---


@pytest.mark.parametrize(
    "document",
    [
        {"rows": ROWS, "train": ROWS},
        {"train": ROWS, "name": "mine"},
        {"features": [{"name": "question"}], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]},
    ],
)
def test_a_document_may_name_its_rows(tmp_path, document):
    assert rows_of(tmp_path / "a.json", json.dumps(document).encode()) == ROWS


def test_a_row_of_which_the_hubs_viewer_cut_a_cell_is_dropped(tmp_path):
    items = [{"row_idx": n, "row": row, "truncated_cells": ["question"] * (n == 0)} for n, row in enumerate(ROWS)]
    cut, *whole = rows_of(tmp_path / "a.json", json.dumps({"features": [], "rows": items}).encode())
    assert str(cut) == "cut by the Hub's viewer: fetch the set's own files" and whole == ROWS[1:]


def test_a_list_is_read_under_the_suffix_jsonl_too(tmp_path):
    assert rows_of(tmp_path / "a.jsonl", json.dumps(ROWS).encode()) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_is_one_row_and_a_chat_in_it_is_no_list_of_rows(tmp_path, indent):
    row = {"question": [{"role": "user", "content": "1?"}], "answer": "1"}
    assert rows_of(tmp_path / "a.json", json.dumps(row, indent=indent).encode()) == [row]


def test_a_key_with_two_values_breaks_its_row(tmp_path):
    content = b'{"question": "1?", "answer": "1", "answer": "2"}\n{"question": "1?", "answer": "1", "answer": "1"}'
    (tmp_path / "a.jsonl").write_bytes(content)
    assert said(tmp_path / "a.jsonl") == [
        "duplicate key: the key 'answer' is there twice, with two values",
        ("1?", "1"),
    ]


@pytest.mark.parametrize(
    ("literal", "answer"),
    [
        ("0", "0"),
        ("0.0", "0"),
        ("-0.0", "0"),
        ("43.0", "43"),
        ("1e23", "1" + "0" * 23),  # int(1e23) is 99999999999999991611392
        ("1e-7", "0.0000001"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("0.1000000000000000055511151231257827", "0.1"),  # what the float 0.1 is in full
        ("5186630.5999999996", "5186630.6"),  # the float with 17 digits
        ("9007199254740993.5", "9007199254740993.5"),  # no float
        ("1.23456789012345678901", "1.23456789012345678901"),
        ("1e400", "1" + "0" * 400),
        pytest.param(
            "9" * 5000, "not text: 'answer' holds 1.000e+5000, which has more than 400 digits", id="5000 digits"
        ),
        ("1e999999999", "not text: 'answer' holds 1.000e+999999999, which has more than 400 digits"),
        ("1e-999", "not text: 'answer' holds 1.000e-999, which has more than 400 digits"),
        ("Infinity", "not text: 'answer' holds inf, which is no number"),
        ("[1.50, 2]", "1.5, 2"),
        ("[0]", "0"),
        ("[null, 1]", "not text: 'answer' holds a list with an empty element"),
        ("[]", "empty answer: "),
        ("false", "not text: 'answer' holds true or false, not text or a number"),
    ],
)
def test_a_number_keeps_its_value_or_is_refused(tmp_path, literal, answer):
    (tmp_path / "a.jsonl").write_text(f'{{"question": "q", "answer": {literal}}}')
    (item,) = said(tmp_path / "a.jsonl")
    assert (item if isinstance(item, str) else item[1]) == answer


@pytest.mark.parametrize("depth", [150, 900, 300_000])
def test_deep_nesting_costs_its_row_alone(tmp_path, depth):
    for closed in ("]" * depth, ""):
        deep = '{"question": "1?", "answer": "1", "x": ' + "[" * depth + closed + "}"
        bad, good = rows_of(tmp_path / "a.jsonl", deep.encode() + b"\n" + lines(ROWS[:1]))
        assert isinstance(bad, BrokenRow) and good == ROWS[0]


def test_a_line_without_end_is_not_held_in_memory(tmp_path, monkeypatch):
    from whetstone.problems import json_rows, text

    monkeypatch.setattr(text, "LONGEST_LINE", 1000)
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 1000)
    content = b'{"question": "' + b"1" * 5000 + b'"}\n' + lines(ROWS)
    long, *others = rows_of(tmp_path / "a.jsonl", content)
    assert (long.reason, others) == ("line too long", ROWS)


def test_a_document_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    from whetstone.problems import json_rows

    monkeypatch.setattr(json_rows, "LONGEST_DOCUMENT", 40)
    with pytest.raises(ValueError, match=r"a\.json is not one JSON document.*40 characters or more.*\.jsonl"):
        rows_of(tmp_path / "a.json", json.dumps(ROWS).encode())


# --- CSV ---


def test_columns_without_a_name_do_not_clash(tmp_path):
    assert rows_of(tmp_path / "a.csv", b"question,answer,,\n1?,1,,\n") == [
        {"question": "1?", "answer": "1", "column 3": "", "column 4": ""}
    ]


def test_a_field_beyond_all_measure_costs_its_row(tmp_path, monkeypatch):
    from whetstone.problems import table

    monkeypatch.setattr(table, "LONGEST_FIELD", 200_000)
    content = b"question,answer\n" + b"1" * 150_000 + b",1\n" + b"2" * 250_000 + b",2\n3?,3\n"
    long, longer, last = rows_of(tmp_path / "a.csv", content)
    assert (len(long["question"]), longer.reason, last["answer"]) == (150_000, "broken CSV", "3")


@pytest.mark.parametrize(
    "written",
    ["[{'role': 'user', 'content': '1?'}]", '{"ground_truth": "1"}', "{'ground_truth': '1', 'style': 'rule'}"],
)
def test_an_object_that_a_csv_file_has_as_text_is_refused(tmp_path, written):
    for column in ("question", "answer"):
        (tmp_path / "a.jsonl").write_bytes(lines([{"question": "1?", "answer": "1"} | {column: written}]))
        assert said(tmp_path / "a.jsonl")[0].startswith(f"not text: '{column}' holds an object written as text")


@pytest.mark.parametrize("answer", ["[1, 2]", r"\{1, 2\}", "{1, 2}", "(0, 1)", "x: y", "none", "True"])
def test_text_that_looks_like_a_list_stays_text(tmp_path, answer):
    (tmp_path / "a.jsonl").write_bytes(lines([{"question": "1?", "answer": answer}]))
    assert said(tmp_path / "a.jsonl") == [("1?", answer)]


# --- Parquet and Arrow ---

TYPED = {
    "question": pa.array(["1?", "2?"]),
    "answer": pa.array([Decimal("1.50"), Decimal("2.00")], pa.decimal128(10, 2)),
    "category": pa.array(["a", "b"]).dictionary_encode(),
    "single": pa.array([0.1, 0.2], pa.float32()),
    "singles": pa.array([[0.1], [0.2, 0.3]], pa.list_(pa.float32())),
    "inner": pa.array(
        [{"single": 0.1}, {"single": 0.2}], pa.struct([("single", pa.float32()), ("other", pa.string())])
    ),
    "date": pa.array([datetime.date(2024, 1, 1)] * 2),
    "time": pa.array([1, 2], pa.timestamp("ns")),
    "map": pa.array([[("k", "v")], [("k", "w")]], pa.map_(pa.string(), pa.string())),
    "image": pa.array([b"\x89PNG\xff"] * 2),
    "list": pa.array([["1"], ["2", "3"]]),
    "struct": pa.array([{"a": [1]}, {"a": [2]}]),
    "missing": pa.array([None, None], pa.string()),
    "nan": pa.array([float("nan")] * 2),
}


@pytest.mark.parametrize(
    ("column", "answers"),
    [
        ("answer", ["1.5", "2"]),
        ("category", ["a", "b"]),
        ("single", ["0.1", "0.2"]),
        ("singles", ["0.1", "0.2, 0.3"]),
        ("inner.single", ["0.1", "0.2"]),
        ("map.k", ["v", "w"]),
        ("list", ["1", "2, 3"]),
        ("struct.a.0", ["1", "2"]),
        ("date", "not text: 'date' holds a date, not text or a number"),
        ("time", "not text: 'time' holds a datetime, not text or a number"),
        ("map", "not text: 'map' holds an object, not text or a number"),
        ("image", "not text: 'image' holds bytes, not text or a number"),
        ("struct", "not text: 'struct' holds an object, not text or a number"),
        ("missing", "empty answer: "),
        ("nan", "not text: 'nan' holds nan, which is no number"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_typed_columns_are_numbers_and_texts_or_refused(tmp_path, column, answers, suffix):
    table, path = pa.table(TYPED), tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    else:
        pyarrow.feather.write_feather(table, str(path))
    expected = [answers] * 2 if isinstance(answers, str) else list(zip(("1?", "2?"), answers, strict=True))
    assert said(path, answer=column) == expected


def test_a_value_that_python_cannot_hold_costs_only_itself(tmp_path):
    inner = pa.array([{"t": 1}] * 2, pa.struct([("t", pa.timestamp("ns"))]))
    far = {"question": ["1?", "2?"], "answer": ["1", "2"], "time": pa.array([2**62, 0], pa.timestamp("us")), "x": inner}
    pq.write_table(pa.table(far), tmp_path / "a.parquet")
    assert [p.answer for p in read_problems(str(tmp_path / "a.parquet"))] == ["1", "2"]
    row, _ = rows_of(tmp_path / "a.parquet")
    assert isinstance(row["time"], Unreadable)
    assert said(tmp_path / "a.parquet", answer="time")[0].startswith("not text: 'time' holds what cannot be read")


def test_two_columns_of_one_name_are_an_error(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["1?"]), pa.array(["1"]), pa.array(["2"])], names=["question", "a", "a"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has two columns 'a'"):
        rows_of(tmp_path / "a.parquet")


def test_verify_writes_strict_json_whatever_the_table_holds(tmp_path):
    pq.write_table(pa.table(TYPED), tmp_path / "a.parquet")
    verify_file(tmp_path / "a.parquet", "answer", "answer", output=tmp_path / "out.jsonl")
    first, _ = map(refuse_nan, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["answer"], first["nan"], first["date"], first["map"], first["correct"]) == (
        1.5,
        None,
        "2024-01-01",
        {"k": "v"},
        True,
    )
    assert "b'" not in first["image"]


def refuse_nan(line: str) -> dict[str, Any]:
    def fail(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(line, parse_constant=fail)


# --- folders and patterns ---


def parts(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number in (1, 2, 10):
        (folder / f"part-{number}.jsonl").write_bytes(lines([{"question": f"{number}?", "answer": number}]))
    for name in ("README.md", "dataset_info.json", ".hidden.jsonl", "cache-1.arrow"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("pattern", ["", "part-*.jsonl"])
def test_a_folder_of_parts_and_a_pattern_are_read_in_order_by_all_doors(tmp_path, pattern):
    path = str(parts(tmp_path / "set") / pattern)
    asked = [("1?", "1"), ("2?", "2"), ("10?", "10")]
    assert said(path) == asked
    problems = read_problems(path)
    assert [(p.question, p.answer) for p in problems] == asked
    assert [(p.id, p.benchmark) for p in problems][1] == ("set-part-2/1", "set")
    assert verify_file(Path(path), "answer", "answer", output=tmp_path / "out.jsonl")["correct"] == 3


def test_rows_of_several_files_are_told_apart(tmp_path):
    folder = parts(tmp_path / "set")
    (folder / "part-2.jsonl").write_text("broken\n" + '{"question": "2?", "answer": 2}')
    items = list(FileSource(kind="file", path=str(folder)).problems("set", "train", 0))
    assert [item.id for item in items] == ["set/part-1/1", "set/part-2/1", "set/part-2/2", "set/part-10/1"]
    assert (items[1].file, items[1].line) == ("part-2", 1)
    with pytest.raises(ValueError, match="part-2, line 1: not JSON"):
        read_problems(str(folder))
    verify_file(folder, "answer", "answer", output=tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["file"] == "part-2"


def test_one_file_a_problem_as_math_is_published(tmp_path):
    for subject in ("algebra", "geometry"):
        (tmp_path / "MATH" / subject).mkdir(parents=True)
        row = json.dumps({"question": f"{subject}?", "answer": "1"}, indent=4)
        (tmp_path / "MATH" / subject / "1.json").write_text(row)
    ids = [problem.id for problem in read_problems(f"{tmp_path}/MATH/*/*.json")]
    assert ids == [f"MATH-{subject}/1/1" for subject in ("algebra", "geometry")]


def test_a_folder_that_is_not_one_table_names_its_files(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / "set" / name).write_bytes(lines(ROWS))
    with pytest.raises(ValueError, match=r"holds test\.jsonl, train\.jsonl, which are not the parts of one table"):
        find_files(str(tmp_path / "set"))
    with pytest.raises(ValueError, match=r"holds no file ending in \.jsonl.* Below it are set: name one of them"):
        find_files(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no file fits the pattern"):
        find_files(str(tmp_path / "*.csv"))


def test_a_set_that_datasets_saved_is_a_folder(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    for number in range(2):
        path = str(tmp_path / f"data-{number:05d}-of-00002.arrow")
        with pa.OSFile(path, "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    assert said(tmp_path) == [(row["question"], row["answer"]) for row in ROWS] * 2


def test_a_stage_depends_on_every_file_that_its_path_names(tmp_path):
    folder = parts(tmp_path / "set")
    settings = Settings(kind="questions", source=[{"kind": "file", "path": str(folder / "*.jsonl")}])
    assert reads(settings) == [folder / f"part-{n}.jsonl" for n in (1, 2, 10)]
    assert read_paths(str(folder / "*.csv")) == [folder / "*.csv"]


@pytest.mark.parametrize("name", ["openai/gsm8k", "someone/some-set.v2"])
def test_a_name_on_the_hub_is_told_from_a_path(name):
    with pytest.raises(FileNotFoundError, match=rf"name on the Hugging Face Hub(.|\n)*hf download {name}"):
        find_files(name)
    known = "Here the set is called 'gsm8k'" if name == "openai/gsm8k" else "hf download someone/some-set.v2"
    with pytest.raises(ValueError, match=rf"neither a file nor a published set: (.|\n)*{known}"):
        read_problems(name)


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("a/b.jsonl", "a/b"),
        ("b.jsonl.gz", "b"),
        ("/a/set", "a/set"),
        ("a/set/part-*.jsonl", "a/set"),
        ("a/MATH/*/*.json", "a/MATH"),
        ("*.json", "file"),
    ],
)
def test_a_source_is_called_like_its_file_or_folder(path, title):
    assert FileSource(kind="file", path=path).title == title


@pytest.mark.parametrize("path", ["MATH/test/*.json", "gsm8k/test-*.parquet", "gsm8k/test.jsonl.gz", "gsm8k/test"])
def test_the_test_part_of_a_set_is_no_training_data_however_it_is_named(path):
    with pytest.raises(ValueError, match="is made for scoring"):
        Settings(kind="questions", source=[{"kind": "published", "set": "gsm8k", "path": path}])


def test_two_files_of_long_names_are_two_problem_sets(tmp_path):
    names = [f"problems_of_the_second_round_of_{year}" for year in (2024, 2025)]
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text('{"question": "1 + 1?", "answer": 2}')
    assert [read_problems(str(tmp_path / f"{name}.jsonl"))[0].benchmark for name in names] == names


@pytest.mark.parametrize("name", ["x\ny.jsonl", "no\nfolder/x.jsonl", "x\n*.jsonl"])
def test_a_path_with_a_line_end_that_is_missing_is_named_on_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as refused:
        find_files(name)
    assert "\n" not in str(refused.value) and r"\n" in str(refused.value)
