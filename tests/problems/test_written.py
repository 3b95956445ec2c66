"""Values that a program wrote as text, as a CSV file has them: read as what they are, or refused by their column."""

import csv
import doctest
import json
import re
from pathlib import Path
from typing import Any

import pytest

from whetstone.problems import values, written
from whetstone.problems.columns import Columns
from whetstone.problems.reading import Drop, read_problem
from whetstone.problems.sets import known_sets
from whetstone.problems.table import read_table
from whetstone.questions.sources.file import FileSource
from whetstone.verify.table import verify_file


def verdicts(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `verify` says of the rows as a CSV file, which the standard library writes."""
    with path.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    verify_file(path, "prediction", "gold", output=path.with_suffix(".out"))
    return [json.loads(line) for line in path.with_suffix(".out").read_text().splitlines()]


def answer(value: Any) -> str:
    """The answer of a row with this value, or why it has none."""
    item = read_problem({"question": "1?", "gold": value}, 1, Columns(answer="gold").layout(), "set")
    return f"{item.reason}: {item.detail}" if isinstance(item, Drop) else item.answer


@pytest.mark.parametrize(
    "items", [["3"], ["1", "2"], ["x'", "y"], [r"\frac{1}{2}"], [r"\{1, 2\}", 'a "b"'], ["\N{GREEK SMALL LETTER PI}"]]
)
def test_a_list_that_is_written_as_text_is_the_list_that_it_is(items):
    as_json = json.dumps(items, ensure_ascii=False)
    for text in (str(items), str(tuple(items)), as_json, f" {as_json} "):
        assert answer(text) == answer(items) == ", ".join(items)


def test_verify_finds_a_right_answer_right_where_csv_holds_the_golds_as_lists(tmp_path):
    rows = [{"prediction": "\\boxed{3}", "gold": ["3"]}, {"prediction": "\\boxed{4}", "gold": ["3"]}]
    assert [row["correct"] for row in verdicts(tmp_path / "a.csv", rows)] == [True, False]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("['1' '2']", "a list"),  # numpy, which Python would read as one text
        ("{'1', '2'}", "a list"),
        (r"['\frac{1}{2}']", "a list"),  # its \f is a form feed
        ('["1", 2]', "a list"),
        ("[1, '2']", "a list"),
        ("[1 2]", "an array"),
        ("[[1. 2.]\n [3. 4.]]", "an array"),
        ("array([3])", "a value of a program"),
        ("array(['3'], dtype=object)", "a value of a program"),
        ("[np.float64(3.0)]", "a value of a program"),
        ("Decimal('3')", "a value of a program"),
        ("b'3'", "bytes"),
        ("{'ground_truth': '3'}", "an object"),
    ],
)
def test_what_a_program_wrote_as_text_is_refused_by_its_column(tmp_path, text, kind):
    assert answer(text).startswith(f"not text: 'gold' holds {kind} written as text. Save the table in a format that")
    right = {"prediction": "3", "gold": "3"}
    row = verdicts(tmp_path / "a.csv", [right, {"prediction": "3", "gold": text}])[1]
    assert row["correct"] is False and row["reason"].startswith(f"not text: 'gold' holds {kind}")


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "[1,2)",
        "(1, 2]",
        "[3]",
        "{1, 2}",
        r"\{1, 2\}",
        "[x', y']",
        "f'(x)",
        "b'+c'",
        "[-1]",
        "date(x)",
        "[a b]",
        "(f'(1), g'(1))",
        '"yes"',
        "1 2",
        "[1, 2] \\cup [3, 4]",
    ],
)
def test_an_answer_that_people_write_stays_as_it_is(text):
    assert answer(text) == text


@pytest.mark.parametrize(
    "text", ["nan", "NaN", "None", "null", "NULL", "N/A", "<NA>", "NaT", "[]", ["nan"], "['None']"]
)
def test_a_text_that_means_no_value_is_an_empty_answer(tmp_path, text):
    assert answer(text).startswith("empty answer: 'gold' holds '")
    for name, row in [
        ("big_math", {"problem": "P", "answer": text}),
        ("numinamath", {"problem": "P", "solution": "\\boxed{1}", "answer": text}),
        ("openmathinstruct2", {"problem": "P", "generated_solution": "\\boxed{2}", "expected_answer": text}),
        ("mawps", {"input": "P", "target": text}),
        ("dapo_math", {"prompt": "P", "reward_model": {"ground_truth": text}}),
    ]:
        item = read_problem(row, 1, known_sets()[name], name)
        assert isinstance(item, Drop) and item.reason == "empty answer" and "' holds '" in item.detail


@pytest.mark.parametrize("text", ["None of the above", "none", "No", "undefined", "Infinity", "nano"])
def test_an_answer_that_only_looks_like_no_value_stays(text):
    assert answer(text) == text


@pytest.mark.parametrize(
    ("name", "header", "seems"),
    [("a.csv", "question;answer", ";"), ("a.csv", "a\tb", "\\t"), ("a.tsv", "a,b", ","), ("a.csv", "a|b", "|")],
)
def test_a_table_with_another_delimiter_than_its_name_says_is_told_so(tmp_path, name, header, seems):
    (tmp_path / name).write_text(f"{header}\n1?{header}2\n")
    with pytest.raises(
        ValueError, match=rf"{name}: its header .* is one column.* it seems to be '{re.escape(seems)}': save"
    ):
        list(read_table(tmp_path / name))


def test_names_of_columns_are_read_without_the_spaces_around_them_or_shown_with_them(tmp_path):
    (tmp_path / "a.csv").write_text("question, answer\n1 + 1?, 2\n")
    (problem,) = FileSource(kind="file", path=str(tmp_path / "a.csv")).problems("set", "train", 0)
    assert (problem.question, problem.answer) == ("1 + 1?", "2")
    (tmp_path / "a.jsonl").write_text('{"question": "1?", " answer": "2"}\n')
    with pytest.raises(ValueError, match=r"no column 'answer' .*did you mean ' answer'\? It has 'question', ' answer'"):
        FileSource(kind="file", path=str(tmp_path / "a.jsonl")).check()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", '{"question": "1?"}\n'), ("a.csv", "question\n1?\n")])
def test_an_encoding_without_its_mark_is_named(tmp_path, encoding, name, text):
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(
        ValueError, match=rf"{name} is {encoding[:6].upper()} without a byte order mark, .* Save it as UTF-8"
    ):
        list(read_table(tmp_path / name))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        {"p1": {"question": "1?", "answer": "1"}, "p2": {"question": "2?", "answer": "2"}},
        {"question": {"0": "1?", "1": "2?"}, "answer": {"0": "1", "1": "2"}},  # as pandas writes it
        {"question": ["1?", "2?"], "answer": ["1", "2"]},
    ],
)
def test_a_document_that_is_one_object_of_rows_or_columns_is_told_so(tmp_path, document, indent):
    (tmp_path / "a.json").write_text(json.dumps(document, indent=indent))
    names = ", ".join(document)
    with pytest.raises(
        ValueError, match=rf"a\.json is not .*it is one object of rows or columns \({names}\), and wanted is"
    ):
        list(read_table(tmp_path / "a.json"))


def test_docstring_examples_are_true():
    assert doctest.testmod(written).failed == doctest.testmod(values).failed == 0
