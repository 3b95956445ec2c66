"""`verify_file`: one row out per row in, in order; a broken line loses no other."""

import gzip
import json

import pytest

from whetstone.verify.table import verify_file


def run(tmp_path, content: bytes, **settings):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(content)
    summary = verify_file(path, "pred", "gold", output=output, **settings)
    return summary, [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_rows_keep_their_order_and_their_fields(tmp_path):
    rows = [{"id": n, "pred": rf"\boxed{{{n}}}", "gold": str(n % 3), "note": "é"} for n in range(2000)]
    summary, out = run(tmp_path, "\n".join(json.dumps(row) for row in rows).encode())
    assert [row["id"] for row in out] == list(range(2000))
    assert [row["correct"] for row in out] == [n == n % 3 for n in range(2000)]
    assert out[0] == {**rows[0], "correct": True, "reason": "equal"}
    assert summary == {"rows": 2000, "correct": 3, "undecided": 0, "reasons": {"different": 1997, "equal": 3}}


def test_broken_lines_are_counted_and_lose_no_other(tmp_path):
    content = b'{"pred": "5", "gold": "5"}\n{"pred": \n\n\xff\xfe\n[1]\n{"pred": "6"}\n{"pred": 7, "gold": 7.0}'
    summary, out = run(tmp_path, content)
    assert [row["correct"] for row in out] == [True, False, False, False, False, True]
    assert out[1]["line"] == 2 and out[1]["reason"].startswith("not JSON: ")
    assert out[2]["line"] == 4 and out[2]["reason"].startswith("not UTF-8: ")
    assert out[3]["reason"].startswith("not an object: list")
    assert out[4] == {"pred": "6", "correct": False, "reason": "missing field: gold"}
    assert summary["rows"] == 6 and summary["correct"] == 2
    assert summary["reasons"]["not JSON"] == 1


def test_undecided_is_false_with_its_reason(tmp_path):
    summary, out = run(tmp_path, b'{"pred": "5", "gold": "9^{9^{9^9}}"}')
    assert out[0]["correct"] is False
    assert "too large" in out[0]["reason"]
    assert summary["undecided"] == 1


def test_a_field_that_no_row_has_is_an_error_that_names_those_present(tmp_path):
    with pytest.raises(
        ValueError, match=r"no column 'gold' in its first 1 rows. It has 'pred', 'answer'.*--gold-field"
    ):
        run(tmp_path, b'{"pred": "5", "answer": "5"}')


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.jsonl", b"\n", "holds no row"),
        ("in.csv", b"6,5\n", "holds no row: there is nothing to verify. The first line of a CSV file is its header"),
        ("in.jsonl", gzip.compress(b'{"pred": "5", "gold": "5"}\n', mtime=0), "none of its .* rows .*: not UTF-8"),
        ("in.jsonl", b'["5", "5"]\n["6", "6"]\n', r"none of its 2 rows .* not an object: .* \(2\)"),
        (
            "in.jsonl",
            b'{"pred": null, "gold": "5"}\n{"gold": "5"}\n',
            r"none of its 2 .*: missing field: pred \(2\). Mend",
        ),
    ],
)
def test_a_file_of_which_no_row_can_be_verified_is_an_error(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        verify_file(tmp_path / name, "pred", "gold", output=tmp_path / "out.jsonl")


def test_a_missing_file_an_unknown_policy_and_the_input_as_output_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a file"):
        verify_file(tmp_path / "absent.jsonl", "pred", "gold")
    path = tmp_path / "in.jsonl"
    path.write_text('{"pred": "5", "gold": "5"}\n')
    with pytest.raises(ValueError, match="policy = 'mth' is unknown"):
        verify_file(path, "pred", "gold", policy="mth")
    with pytest.raises(ValueError, match="is the input itself"):
        verify_file(path, "pred", "gold", output=path)
    assert path.read_text()


def test_without_an_output_rows_go_to_standard_output(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text('\ufeff{"pred": "\\ud800 5", "gold": "5"}\n', encoding="utf-8")
    verify_file(path, "pred", "gold")
    assert json.loads(capsys.readouterr().out)["correct"] is False


def test_csv_and_parquet_are_read_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"pred": r"\boxed{1,000}", "gold": "1000"}, {"pred": "5", "gold": "6"}]
    (tmp_path / "in.csv").write_bytes(b'pred,gold\n"\\boxed{1,000}",1000\n5,6\n\xff,7\n')
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    for name, count in (("in.csv", 3), ("in.parquet", 2)):
        summary = verify_file(tmp_path / name, "pred", "gold", output=tmp_path / "out.jsonl")
        assert (summary["rows"], summary["correct"]) == (count, 1)
        out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert out[0] == {**rows[0], "correct": True, "reason": "equal"}


def test_text_that_is_not_utf8_keeps_its_fields_and_is_judged(tmp_path):
    content = b'{"pred": "caf\xe9 \\\\boxed{5}", "gold": 5}\n{"pred": "\\ud83d \\\\boxed{6}", "gold": [6], "id": 1}'
    _, out = run(tmp_path, content)
    assert [row["correct"] for row in out] == [True, True]
    assert out[1]["id"] == 1 and out[0]["pred"].endswith("boxed{5}")


def test_fields_may_be_nested_and_what_is_no_text_is_refused_by_its_name(tmp_path):
    rows = [
        {"pred": "5", "gold": {"truth": 5}},
        {"pred": {"text": "5"}, "gold": {"truth": 5}},
        {"pred": "5", "gold": {"truth": True}},
        {"pred": "5", "gold": {"truth": None}},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    verify_file(path, "pred", "gold.truth", output=tmp_path / "out.jsonl")
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in ("pred", "gold")} for row in out] == rows
    assert [(row["correct"], row["reason"]) for row in out] == [
        (True, "equal"),
        (False, "not text: 'pred' holds an object, not text or a number"),
        (False, "not text: 'gold.truth' holds true or false, not text or a number"),
        (False, "missing field: gold.truth"),
    ]
