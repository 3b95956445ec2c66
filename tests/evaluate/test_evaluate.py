"""Comparisons between stages, and problem files of every kind."""

import gzip
import json
import os
from pathlib import Path

import pytest

from whetstone.evaluate import evaluate
from whetstone.evaluate.comparisons import compare, compared, split_groups, starts
from whetstone.evaluate.problem_sets import read_problems
from whetstone.evaluate.published import SIZES
from whetstone.problems.sets import known_sets
from whetstone.records import Score, to_row
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import write_rows

# --- comparisons


def mark(problem: str, correct: bool | None, index: int = 0, level: int = 1, domain: str = "chain") -> dict:
    return {"problem_id": problem, "index": index, "level": level, "domain": domain, "correct": correct}


def write_run(folder: Path) -> Path:
    """Six problems, two samples: base solves none, sft the first three, rl and its control four and two."""
    solved = {"base": 0, "sft": 3, "rl": 4, "more_sft": 2}
    models = {"sft": None, "rl": "sft", "more_sft": "sft"}
    for number, (name, start) in enumerate(models.items(), start=1):
        inputs = {"model": {"stage": start, "artifact": "model", "hash": ""}} if start else {}
        manifest = {"name": name, "kind": "sft", "inputs": inputs, "outputs": {"model": "hash"}}
        write_json(folder / f"0{number}-{name}" / "manifest.json", manifest)
    corpus = {"name": "corpus", "kind": "corpus", "inputs": {}, "outputs": {"corpus": "hash"}}
    write_json(folder / "00-corpus" / "manifest.json", corpus)
    scores = []
    for name, right in solved.items():
        rows = [mark(f"p{i}", i < right, j, level=1 + i % 2) | {"text": "t"} for i in range(6) for j in range(2)]
        write_rows(folder / "scores" / name / "sums", rows)
        scores.append(to_row(Score(name, "sums", True, 6, 2, right / 6, 0.0, 1.0, {}, 0.0, 0.0, 3.0, 0.6)))
    write_json(folder / "scores.json", {"scores": scores})
    return folder


def stage(folder: Path) -> Stage:
    return Stage(
        name="evaluate",
        kind="evaluate",
        folder=folder / "05-evaluate",
        settings=evaluate.Settings(kind="evaluate"),
        inputs={},
        run=RunSettings(name="t"),
        model=ModelSettings(),
        parallel=ParallelSettings(),
        scores=ScoreSettings(),
    )


def test_a_stage_is_compared_with_its_start_and_with_its_control(tmp_path):
    found = starts(write_run(tmp_path))
    assert found == {"sft": "base", "rl": "sft", "more_sft": "sft"}
    assert compared(found) == [("sft", "base"), ("rl", "sft"), ("more_sft", "sft"), ("rl", "more_sft")]


def test_the_stage_writes_paired_differences_and_groups(tmp_path):
    evaluate.run(stage(write_run(tmp_path)))
    written = read_json(tmp_path / "05-evaluate" / "evaluation" / "comparisons.json")
    rows = [row for row in written["comparisons"] if row["by"] == "all"]
    assert [(row["stage"], row["start"]) for row in rows] == compared(starts(tmp_path))
    assert [row["difference"] for row in rows] == pytest.approx([3 / 6, 1 / 6, -1 / 6, 2 / 6])
    for row in written["comparisons"]:
        assert row["low"] <= row["difference"] <= row["high"]
    levels = {r["value"]: r["mean"] for r in written["groups"] if r["stage"] == "sft" and r["by"] == "level"}
    assert levels == pytest.approx({"1": 2 / 3, "2": 1 / 3})


def test_without_scores_it_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"scores\.json is missing.*training stage"):
        evaluate.run(stage(tmp_path))


def test_an_undecided_answer_is_wrong_and_a_group_of_one_side_is_left_out():
    ours = [mark("a", True, level=1), mark("b", None, level=2)]
    theirs = [mark("a", False, level=1), mark("b", True, level=3)]
    rows = list(compare("sft", "base", "sums", ours, theirs))
    assert [(row["by"], row["value"], row["difference"]) for row in rows] == [
        ("all", "", 0.0),
        ("level", "1", 1.0),
        ("domain", "chain", 0.0),
    ]


def test_groups_leave_unlabelled_rows_out():
    groups = split_groups([mark("a", True, level=2), mark("b", True, level=None, domain="")])
    assert {key: len(rows) for key, rows in groups.items()} == {
        ("all", ""): 2,
        ("level", "2"): 1,
        ("domain", "chain"): 1,
    }


# --- problem files


def write_file(path: Path, rows: list[dict]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_file_is_read_through_a_column_mapping(tmp_path):
    path = write_file(tmp_path / "mine.jsonl.gz", [{"prompt": "1+1?", "gold": 2, "level": "3"}])
    (problem,) = read_problems(str(path), "integer", {"question": "prompt", "answer": "gold"})
    assert (problem.question, problem.answer, problem.level, problem.policy) == ("1+1?", "2", 3, "integer")
    assert (problem.id, problem.split, problem.benchmark) == ("mine-1", "test", "mine")


@pytest.mark.parametrize(
    ("file", "name"), [("my set!.jsonl", "my set_"), ("[red]\x1b[2J.jsonl", "_red___2J"), ("nul.json", "_nul")]
)
def test_a_file_of_any_name_is_a_problem_set(tmp_path, file, name):
    (problem,) = read_problems(str(write_file(tmp_path / file, [{"question": "1+1?", "answer": "2"}])))
    assert ScoreSettings(main=problem.benchmark).main == problem.benchmark == name


def test_csv_and_parquet_hold_the_same_problems(tmp_path):
    rows = [{"question": "1+1?", "answer": "2", "level": 1}, {"question": "2+2?", "answer": "4", "level": 2}]
    (tmp_path / "p.csv").write_text("question,answer,level\n1+1?,2,Level 1\n2+2?,4,2\n")
    write_rows(tmp_path / "t", rows)
    read = [read_problems(str(path)) for path in (tmp_path / "p.csv", tmp_path / "t" / "part-00000.parquet")]
    asked = [("1+1?", "2", 1), ("2+2?", "4", 2)]
    assert [[(p.question, p.answer, p.level) for p in problems] for problems in read] == [asked] * 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            b'{"question": "1+1?", "gold": "2"}\n',
            "line 1: missing column: this row has no 'answer', but 'question', 'gold'",
        ),
        (b'{"question": "1+1?", "answer": " "}\n', "line 1: empty answer"),
        (b'{"question": "1+1?", "answer": "2"}\n{"question": \n', "1 of 2 rows cannot be used: line 2: not JSON: "),
        (b'{"question": "caf\xe9?", "answer": "2"}\n', "line 1: not UTF-8: byte 0xE9"),
        (b'{"id": "a", "question": "1?", "answer": "1"}\n' * 2, "two rows have the id 'a'"),
        (b"", "holds no problem"),
    ],
)
def test_an_unusable_file_is_a_clear_error(tmp_path, content, complaint):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_problems(str(tmp_path / "p.jsonl"))


def test_an_unknown_column_or_benchmark_is_refused_with_the_known_ones(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'querstion' is not one.*question"):
        read_problems("gsm8k", columns={"querstion": "q"})
    with pytest.raises(ValueError, match=r"neither a file nor a published set.*did you mean 'gsm8k'"):
        read_problems("gsm9k")
    with pytest.raises(ValueError, match="'chat' is a published set without a test file"):
        read_problems("chat")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl is missing"):
        read_problems("nowhere.jsonl")
    monkeypatch.delenv("WHETSTONE_DATA", raising=False)
    with pytest.raises(ValueError, match="WHETSTONE_DATA, which is not set"):
        read_problems("gsm8k")
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"gsm8k/test\.jsonl\.gz is missing"):
        read_problems("gsm8k")


@pytest.mark.skipif("WHETSTONE_DATA" not in os.environ, reason="WHETSTONE_DATA names no folder of public data files")
def test_every_known_problem_set_is_read_whole():
    rows = {
        "gsm8k": 1319,
        "gsm_hard": 1319,
        "math": 5000,
        "math500": 500,
        "aime24": 30,
        "amc23": 40,
        "minerva_math": 272,
    }
    rows |= {"olympiadbench": 675, "gaokao2023en": 383, "mawps": 2065, "asdiv": 2215, "aqua_rat": 254}
    rows |= {"mmlu_stem": 3018, "gpqa_diamond": 198}
    assert rows.keys() == {name for name, described in known_sets().items() if described.test}
    assert {name: size for name, size in SIZES.items() if name != "aime25"}.items() <= rows.items()
    for name in rows:
        problems = read_problems(name)
        assert len(problems) == rows[name]
        assert all(problem.question and problem.answer and problem.split == "test" for problem in problems)


def test_a_column_that_only_happens_to_have_our_name_is_left_aside(tmp_path):
    row = {
        "question": "1+1?",
        "answer": "2",
        "level": True,
        "domain": ["Algebra"],
        "id": {"n": 1},
        "system": "Be brief.",
    }
    (problem,) = read_problems(str(write_file(tmp_path / "p.jsonl", [row])))
    assert (problem.id, problem.level, problem.domain, problem.system) == ("p-1", None, "", "Be brief.")
    with pytest.raises(ValueError, match="not text: 'domain' holds a list"):
        read_problems(str(tmp_path / "p.jsonl"), columns={"domain": "domain"})
