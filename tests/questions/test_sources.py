"""Files of problems: formats, columns, where the answer stands, and what a damaged file costs."""

import csv
import doctest
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whetstone.problems import columns, reading, table
from whetstone.problems.columns import Columns
from whetstone.problems.reading import Drop, Shipped, read_problem
from whetstone.questions import splits
from whetstone.questions.sources.file import FileSource
from whetstone.questions.splits import normalise, template
from whetstone.records import Problem

ROWS = [
    {"question": "What is 1 + 1?", "answer": "2", "level": "Level 3", "subject": "Algebra"},
    {"question": 'She said "ten, or so"\nand left. How many?', "answer": 10, "level": None, "subject": "Number"},
]


def read(path: Path, **settings: Any) -> list[Problem | Shipped | Drop]:
    return list(FileSource(kind="file", path=str(path), **settings).problems("set", "train", 0))


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"problems{suffix}"
    plain = suffix.removesuffix(".gz")
    if plain == ".parquet":
        pq.write_table(pa.table({key: [str(row[key] or "") for row in ROWS] for key in ROWS[0]}), path)
        return path
    text = path.with_suffix(".txt")
    with text.open("w", newline="", encoding="utf-8") as out:
        if plain == ".csv":
            rows = csv.DictWriter(out, list(ROWS[0]))
            rows.writeheader()
            rows.writerows(ROWS)
        elif plain == ".json":
            json.dump(ROWS, out)
        else:
            out.writelines(json.dumps(row) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(text.read_bytes()) if suffix.endswith(".gz") else text.read_bytes())
    return path


def test_docstring_examples_are_true():
    for module in (splits, reading, table, columns):
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet"])
def test_every_format_gives_the_same_problems(tmp_path: Path, suffix: str):
    first, second = read(written(tmp_path, suffix), columns={"level": "level", "domain": "subject"}, licence="MIT")
    assert isinstance(first, Problem) and isinstance(second, Problem)
    assert (first.question, first.answer, first.level, first.domain) == ("What is 1 + 1?", "2", 3, "Algebra")
    assert (second.question, second.answer, second.level) == (ROWS[1]["question"], "10", None)
    assert (first.source, first.licence, first.policy, first.split) == ("set", "MIT", "math", "train")


def test_one_object_a_line_under_the_suffix_json_is_read_too(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(read(path)) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfquestion,answer\r\nWhat is 1 + 1?,2\r\n")
    assert [p.answer for p in read(path)] == ["2"]


def test_question_columns_are_joined_in_order(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"body": "Tom has 2 pens. ", "ask": "How many?", "answer": 2}))
    (problem,) = read(path, columns={"question": ["body", "ask"]})
    assert problem.question == "Tom has 2 pens. How many?"


def test_a_column_of_worked_solutions_is_taught_with_the_answer_in_a_box(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    chat = [{"role": "assistant", "content": "So it is \\boxed{3}."}]
    worked = ["1 + 1 makes 2.", chat, "", None]
    rows = ({"question": f"What is 1 + {n}?", "answer": n + 1, "steps": steps} for n, steps in enumerate(worked, 1))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, *without = read(path, columns={"solution": "steps"})
    assert isinstance(first, Shipped) and first.traces == ("1 + 1 makes 2.\n\nThe answer is $\\boxed{2}$.",)
    assert isinstance(second, Shipped) and second.traces == ("So it is \\boxed{3}.",)
    assert [type(problem) for problem in without] == [Problem, Problem]
    assert FileSource(kind="file", path=str(path), columns={"solution": "steps"}).ships_solutions


def test_limit_reads_the_first_rows(tmp_path: Path):
    assert len(read(written(tmp_path, ".jsonl"), limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "where", "answer"),
    [
        ("1,234", "column", "1,234"),
        ("It is #### 5 \n#### 1,234", "after_hashes", "1234"),
        ("It is 5", "after_hashes", None),
        ("It is ####", "after_hashes", None),
        ("#### (1, 234)", "after_hashes", "(1, 234)"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", "boxed", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", "boxed", r"\{1, 2\}"),
        (r"\boxed{5} and \boxed{6", "boxed", "5"),
        (r"$\boxed 7$", "boxed", "7"),
        (r"\fbox{8}", "boxed", "8"),
        (r"\boxed{}", "boxed", None),
        ("5", "boxed", None),
    ],
)
def test_the_answer_is_where_the_recipe_says(text: str, where: str, answer: str | None):
    item = read_problem({"question": "q", "answer": text}, 1, Columns().layout(where), "set")
    assert (item.reason if isinstance(item, Drop) else item.answer) == (answer or "no answer found")


def test_a_row_whose_answer_is_not_where_declared_is_dropped(tmp_path: Path):
    (first, second) = read(written(tmp_path, ".jsonl"), answer_from="boxed")
    assert (first.reason, second.reason) == ("no answer found", "no answer found")


def test_csv_rows_of_another_width_are_dropped_with_their_lines(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\nWhat is 1 + 1?,2\nWhat is 1, plus 2?,3\n"two\nlines",4\nshort\n')
    kept = [row for row in read(path) if isinstance(row, Problem)]
    drops = [(row.line, row.reason) for row in read(path) if isinstance(row, Drop)]
    assert [p.answer for p in kept] == ["2", "4"]
    assert drops == [(3, "broken CSV"), (6, "broken CSV")]


def test_a_csv_quote_that_never_closes_is_dropped_with_its_lines(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\nWhat is 1 + 1?,2\n"open,3\nWhat is 2 + 2?,4\n')
    first, second = read(path)
    assert first.answer == "2"
    assert (second.line, second.reason) == (3, "broken CSV")
    assert "lines 3 to 4" in second.detail


def test_csv_and_json_rows_that_are_not_utf8_cost_only_themselves(tmp_path: Path):
    table = tmp_path / "a.csv"
    table.write_bytes("question,answer\nWhat is 1 + 1?,2\ncaf\xe9?,1\nWhat is 2 + 2?,4\n".encode("latin-1"))
    array = tmp_path / "a.json"
    array.write_bytes('[{"question": "caf\xe9?", "answer": "1"}, {"question": "a?", "answer": "4"}]'.encode("latin-1"))
    assert [(row.line, row.reason) for row in read(table) if isinstance(row, Drop)] == [(3, "not UTF-8")]
    assert [p.answer for p in read(table) if isinstance(p, Problem)] == ["2", "4"]
    assert [getattr(row, "reason", "kept") for row in read(array)] == ["not UTF-8", "kept"]


def test_a_lone_surrogate_in_an_escape_is_dropped_too(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "\\ud83d?", "answer": "1"}\n{"question": "\\ud83d\\ude00?", "answer": "1"}\n')
    assert [getattr(row, "reason", "kept") for row in read(path)] == ["not UTF-8", "kept"]


def test_a_column_missing_from_csv_and_parquet_is_an_error(tmp_path: Path):
    for suffix in (".csv", ".parquet"):
        with pytest.raises(ValueError, match="no column 'solution'"):
            read(written(tmp_path, suffix), columns={"answer": "solution"})


def test_an_unset_variable_in_a_path_says_how_to_set_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WHETSTONE_DATA", raising=False)
    for path in ("$WHETSTONE_DATA/a.jsonl", "${WHETSTONE_DATA}/a.jsonl"):
        with pytest.raises(ValueError, match=r"\$WHETSTONE_DATA, which is not set(.|\n)*export WHETSTONE_DATA="):
            read(Path(path))


def test_variables_in_a_path_are_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    written(tmp_path, ".jsonl")
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    assert len(read(Path("$WHETSTONE_DATA/problems.jsonl"))) == 2


def test_a_missing_file_names_the_file_that_was_likely_meant(tmp_path: Path):
    written(tmp_path, ".jsonl")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'problems\.jsonl'"):
        read(tmp_path / "problem.jsonl")


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet.gz", "a"])
def test_an_unknown_format_names_the_known_ones(tmp_path: Path, name: str):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"\.jsonl, \.ndjson, \.json, \.csv, \.tsv, \.parquet"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "b.jsonl.gz", "c.json", "d.parquet"])
def test_a_damaged_file_is_an_error_with_its_name(tmp_path: Path, name: str):
    whole = gzip.compress(json.dumps(ROWS[0]).encode() * 100)
    content = {"a": whole[:60], "b": b"no gzip", "c": b'[{"question": ', "d": b"PAR1 no more"}[name[0]]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is  2+2 ?", "what is 2 + 2?"),
        ("ＦＵＬＬ width", "full width"),
        (r"Find $\left( x\,+\,y \right)$", "find $(x + y)$"),
        (r"Find \(x\)", "Find $x$"),
        ("Straße", "STRASSE"),
        ("a\u00a0b", "a b"),
    ],
)
def test_texts_that_differ_in_form_only_are_one(one: str, other: str):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), [("3²", "32"), ("1 2", "12"), ("x + 1", "x - 1"), ("2.5", "25")])
def test_texts_that_differ_in_content_are_two(one: str, other: str):
    assert normalise(one) != normalise(other)


def test_templates_are_equal_up_to_the_numbers():
    assert template("Tom has 12 pens.") == template("Tom has fifteen  pens .")
