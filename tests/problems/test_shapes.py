"""Rows as published sets have them, through every door: `questions`, `evaluate`, `verify` and `show`."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.scripted import stage
from whetstone.evaluate.problem_sets import read_problems
from whetstone.problems.columns import Columns
from whetstone.problems.reading import Drop, read_problem
from whetstone.problems.row import BrokenRow
from whetstone.problems.table import read_table
from whetstone.questions.gather import Settings, check, run
from whetstone.questions.sources.file import FileSource
from whetstone.run.tables import read_rows
from whetstone.show import render, rows_of
from whetstone.verify.table import verify_file

PAGE = Path(__file__).parents[2] / "docs" / "your_data.md"
ASKED = "Tom has 6 pens and 6 more. How many?"

# name, a row, its columns, where the answer is, the column of a completion that is right
SHAPES = [
    ("gsm8k", {"question": ASKED, "answer": "6 + 6 = <<6+6=12>>12\n#### 12"}, {}, "after_hashes", "answer"),
    (
        "math",
        {"problem": ASKED, "level": "Level 2", "solution": r"So $\boxed{12}$."},
        {"question": "problem", "answer": "solution", "level": "level"},
        "boxed",
        "solution",
    ),
    ("aime", {"problem": ASKED, "answer": 12, "year": 1983}, {"question": "problem"}, "column", "answer"),
    ("floats", {"problem": ASKED, "answer": 12.0}, {"question": "problem"}, "column", "answer"),
    (
        "verl",
        {
            "data_source": "mine",
            "prompt": [{"role": "user", "content": ASKED}],
            "reward_model": {"ground_truth": "12", "style": "rule"},
            "extra_info": {"index": 0, "split": "train"},
        },
        {"question": "prompt", "answer": "reward_model.ground_truth", "domain": "data_source"},
        "column",
        "reward_model.ground_truth",
    ),
    (
        "openmathinstruct",
        {"problem": ASKED, "generated_solution": r"\boxed{12}", "expected_answer": "12"},
        {"question": "problem", "answer": "expected_answer"},
        "column",
        "generated_solution",
    ),
    ("olympiadbench", {"question": ASKED, "final_answer": ["$12$"]}, {"answer": "final_answer"}, "column", "final_answer"),
    (
        "lm-eval",
        {"doc": {"question": ASKED}, "target": "12", "resps": [[r"It is \boxed{12}."]], "filtered_resps": ["12"]},
        {"question": "doc.question", "answer": "target"},
        "column",
        "resps.0.0",
    ),
    ("svamp", {"Body": "Tom has 6 pens and 6 more.", "Question": "How many?", "Answer": 12.0},
     {"question": ("Body", "Question"), "answer": "Answer"}, "column", "Answer"),
    (
        "trl",
        {"prompt": [{"role": "user", "content": ASKED}], "completion": [{"role": "assistant", "content": "12"}], "gold": 12},
        {"question": "prompt", "answer": "gold"},
        "column",
        "completion",
    ),
]  # fmt: skip


def written(path: Path, row: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as out:
            table = csv.DictWriter(out, list(row))
            table.writeheader()
            table.writerow(row)
    else:
        path.write_text(json.dumps(row))
    return path


@pytest.mark.parametrize(("name", "row", "columns", "answer_from", "completion"), SHAPES, ids=[s[0] for s in SHAPES])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_a_published_shape_goes_through_every_door(tmp_path, name, row, columns, answer_from, completion, suffix):
    if suffix == ".csv" and any(isinstance(value, list | dict) for value in row.values()):
        pytest.skip("CSV has no lists and objects")
    path = written(tmp_path / f"{name}{suffix}", row)
    table = {"kind": "file", "path": str(path), "columns": columns, "answer_from": answer_from}
    made = stage(tmp_path / "questions", Settings(kind="questions", source=[table]))
    summary = run(made)
    assert (summary["train"], summary["dropped"]) == (1, 0)
    (problem,) = read_rows(made.folder / "problems")
    (scored,) = read_problems(str(path), columns=columns, answer_from=answer_from)
    answer = {"olympiadbench": "$12$"}.get(name, "12")
    if suffix == ".csv" and name in ("floats", "svamp"):
        answer = "12.0"  # CSV has text, which stays as it is
    assert (problem["question"], problem["answer"]) == (scored.question, scored.answer) == (ASKED, answer)
    gold = columns.get("answer", "answer")
    out = tmp_path / "out.jsonl"
    assert verify_file(path, completion, gold, output=out, answer_from=answer_from)["correct"] == 1
    (shown,) = rows_of(path)
    assert "{'" not in render(0, shown, colour=False)


REFUSED = [
    ({"question": "1?", "answer": True}, "not text: 'answer' holds true or false, not text or a number"),
    ({"question": "1?", "answer": float("nan")}, "not text: 'answer' holds nan, which is no number"),
    ({"question": "1?", "answer": [None, 1]}, "not text: 'answer' holds a list with an empty element"),
    ({"question": "1?", "answer": "{'ground_truth': '34'}"}, "not text: 'answer' holds an object written as text."),
    ({"question": "1?", "gold": "1"}, "missing column: this row has no 'answer', but 'question', 'gold'"),
    ({"question": "1?", "answer": None}, "empty answer"),
    ({"question": " ", "answer": "1"}, "empty question"),
    ({"question": "1?", "answer": "1", "policy": "intger"}, "unknown policy: intger: did you mean 'integer'?"),
]
BROKEN = [
    (b'{"a": "1", "answer": 1, "answer": 2}', "duplicate key: the key 'answer' is there twice, with two values"),
    (b'{"answer": "caf\xe9"}', "not UTF-8: byte 0xE9"),
    (b"[1]\n{}", "not an object: list, not {…}"),
    (b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", "nested too deep: more than 100 levels"),
]


@pytest.mark.parametrize(("row", "reason"), REFUSED)
def test_the_page_has_the_reason_of_a_drop(row: dict[str, Any], reason: str):
    layout = Columns(policy="policy").layout()
    drop = read_problem(row, 1, layout, "set")
    assert isinstance(drop, Drop) and f"{drop.reason}: {drop.detail}".startswith(reason)
    assert f"`{reason}" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("line", "reason"), BROKEN)
def test_the_page_has_the_reason_of_a_broken_line(tmp_path, line: bytes, reason: str):
    (tmp_path / "a.jsonl").write_bytes(line)
    _, row = next(read_table(tmp_path / "a.jsonl"))
    assert isinstance(row, BrokenRow) and str(row) == reason
    assert f"`{reason}`" in PAGE.read_text(encoding="utf-8")


def test_columns_of_the_page_are_columns():
    for named in re.findall(r"columns = (\{.*\})", PAGE.read_text(encoding="utf-8")):
        Columns(**dict(re.findall(r'(\w+) = "([^"]+)"', named)))


def test_a_source_is_checked_before_anything_is_read(tmp_path):
    def settings(**table: Any) -> Settings:
        return Settings(kind="questions", source=[{"kind": "file"} | table])

    path = written(tmp_path / "a.jsonl", {"problem": "1?", "gold": 1})
    check(settings(path=str(path), columns={"question": "problem", "answer": "gold"}))
    with pytest.raises(ValueError, match="has no column 'answer' in its first 1 rows"):
        check(settings(path=str(path), columns={"question": "problem"}))
    with pytest.raises(FileNotFoundError, match=r"did you mean 'a\.jsonl'"):
        check(settings(path=str(tmp_path / "b.jsonl")))
    with pytest.raises(ValueError, match="policy = 'intger' is unknown"):
        settings(path=str(path), policy="intger")


def test_a_column_that_is_nowhere_is_an_error_with_the_likely_one_at_every_door(tmp_path):
    path = written(tmp_path / "a.jsonl", {"prompt": "1?", "reward_model": {"ground_truth": "1"}})
    wrong = {"question": "prompt", "answer": "reward_model.truth"}
    likely = (
        r"no column 'reward_model\.truth'.*did you mean 'reward_model\.ground_truth'.*It has 'prompt', 'reward_model'"
    )
    for read in (
        lambda: list(FileSource(kind="file", path=str(path), columns=wrong).problems("set", "train", 0)),
        lambda: read_problems(str(path), columns=wrong),
        lambda: verify_file(path, "prompt", "reward_model.truth", output=tmp_path / "out.jsonl"),
    ):
        with pytest.raises(ValueError, match=likely):
            read()
    with pytest.raises(ValueError, match="are for files"):
        read_problems("gsm8k", columns={"question": "problem"})
