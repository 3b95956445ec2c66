"""The stage as a whole. `gather_toml` runs it on a recipe's stage table, `rows` reads what it wrote."""

import json
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whetstone.questions import gather
from whetstone.questions.splits import normalise
from whetstone.records import Problem
from whetstone.run.folder import Stage, hash_folder
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import read_records, read_rows

Gather = Callable[..., tuple[dict[str, Any], list[Problem], list[dict[str, Any]]]]


@pytest.fixture
def gather_toml(tmp_path: Path) -> Gather:
    def run(
        toml: str, seed: int = 0, folder: str = "run"
    ) -> tuple[dict[str, Any], list[Problem], list[dict[str, Any]]]:
        stage = Stage(
            name="questions",
            kind="questions",
            folder=tmp_path / folder,
            settings=gather.Settings(kind="questions", **tomllib.loads(toml)),
            inputs={},
            run=RunSettings(name="test", seed=seed),
            model=ModelSettings(),
            parallel=ParallelSettings(),
            scores=ScoreSettings(),
        )
        summary = gather.run(stage)
        json.dumps(summary)
        return (
            summary,
            list(read_records(Problem, stage.output("problems"))),
            list(read_rows(stage.output("dropped"))),
        )

    return run


def problem_file(folder: Path, *rows: dict[str, Any] | str | bytes, name: str = "set.jsonl") -> Path:
    path = folder / name
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def asked(number: int) -> dict[str, Any]:
    return {"question": f"What is {number} + 1?", "answer": str(number + 1)}


def source(path: Path, more: str = "") -> str:
    return f'[[source]]\nkind = "file"\npath = "{path}"\n{more}\n'


PROCEDURAL = """
[[source]]
kind = "procedural"
level = {level}
digits = [1, {digits}]
train = {train}
validation = 20
test = 30
benchmark = "made"
"""


# --- splits ---


def test_splits_share_no_normalised_question(gather_toml: Gather, tmp_path: Path):
    numbers = [{"question": f"Compute {n}  +  {m} .", "answer": str(n + m)} for n in range(9) for m in range(9)]
    path = problem_file(tmp_path, *numbers)
    shares = 'validation = 0.25\ntest = 0.25\nbenchmark = "file"'
    toml = (
        PROCEDURAL.format(level=1, digits=1, train=150) + source(path, shares) + "[metamath]\nresample = 3\nfobar = 2"
    )
    _, problems, dropped = gather_toml(toml)
    texts = {split: {normalise(p.question) for p in problems if p.split == split} for split in gather.SPLITS}
    assert all(texts.values())
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    assert len(problems) == sum(map(len, texts.values())) == len({p.id for p in problems})
    assert any(row["reason"] == "question is in the test split" for row in dropped)


def test_test_wins_over_train_whatever_the_order_of_sources(gather_toml: Gather, tmp_path: Path):
    train = problem_file(tmp_path, asked(1), asked(2), name="train.jsonl")
    test = problem_file(tmp_path, {"question": "what IS 1  + 1 ?", "answer": "2"}, name="test.jsonl")
    _, problems, dropped = gather_toml(source(train) + source(test, 'test = 1\nbenchmark = "b"'))
    assert [(p.question, p.split) for p in problems] == [("what IS 1  + 1 ?", "test"), ("What is 2 + 1?", "train")]
    assert [(row["reason"], row["id"].split("/")[-1]) for row in dropped] == [("question is in the test split", "1")]


def test_procedural_splits_do_not_share_a_sum_in_other_words(gather_toml: Gather):
    _, problems, dropped = gather_toml(PROCEDURAL.format(level=1, digits=1, train=100) + 'families = ["chain"]')
    sums = {split: {p.formula for p in problems if p.split == split} for split in gather.SPLITS}
    assert not sums["test"] & (sums["train"] | sums["validation"])
    assert not sums["validation"] & sums["train"]
    assert any(row["detail"] == "in other words" for row in dropped)


def test_test_problems_name_their_benchmark_and_others_do_not(gather_toml: Gather):
    _, problems, _ = gather_toml(PROCEDURAL.format(level=2, digits=2, train=40))
    assert {(p.split, p.benchmark) for p in problems} == {("test", "made"), ("validation", ""), ("train", "")}


def test_a_benchmark_is_the_same_whatever_the_seed_and_training_is_not(gather_toml: Gather):
    toml = PROCEDURAL.format(level=2, digits=2, train=40)
    _, first, _ = gather_toml(toml, seed=1, folder="a")
    _, second, _ = gather_toml(toml, seed=2, folder="b")
    test, train = (
        [[p.question for p in problems if p.split == split] for problems in (first, second)]
        for split in ("test", "train")
    )
    assert test[0] == test[1]
    assert train[0] != train[1]


def test_the_same_settings_give_the_same_bytes(gather_toml: Gather, tmp_path: Path):
    toml = PROCEDURAL.format(level=1, digits=1, train=150) + "[metamath]\nresample = 2\nself_verification = 1"
    for folder in ("a", "b"):
        gather_toml(toml, folder=folder)
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")


def test_a_source_says_how_often_its_own_problems_are_made_with_other_numbers(gather_toml: Gather):
    often, never, default = 'name = "often"\nresample = 3\n', 'name = "never"\nresample = 0\n', 'name = "default"\n'
    sources = [PROCEDURAL.format(level=3, digits=2, train=20) + key for key in (often, never, default)]
    summary, problems, dropped = gather_toml("".join(sources) + "[metamath]\nresample = 1\nfobar = 1")
    made = Counter((p.source, p.id.split("/")[-1].partition("-")[0]) for p in problems if p.origin)
    short = Counter(row["source"] for row in dropped if row["reason"].endswith("fewer resampled than asked"))
    assert not short and summary["augmented"]["resampled"] == 80
    assert (made["often", "resampled"], made["never", "resampled"], made["default", "resampled"]) == (60, 0, 20)
    assert made["never", "fobar"], "the other rules stay"


def test_a_level_with_too_few_problems_says_so_and_ends(gather_toml: Gather, capsys: pytest.CaptureFixture[str]):
    toml = PROCEDURAL.format(level=1, digits=1, train=5000) + 'families = ["chain"]'
    summary, problems, _ = gather_toml(toml)
    made = sum(p.split == "train" for p in problems)
    assert 0 < made < 5000
    assert len(summary["short"]) == 1 and f"gave {made} of 5000 train problems" in summary["short"][0]
    assert f"warning: procedural-1 gave {made} of 5000 train problems" in "".join(capsys.readouterr())


def test_splitting_by_hash_depends_on_the_text_alone(gather_toml: Gather, tmp_path: Path):
    shares = 'validation = 0.2\ntest = 0.2\nbenchmark = "b"'
    rows = [asked(n) for n in range(200)]
    _, one, _ = gather_toml(source(problem_file(tmp_path, *rows), shares), seed=1, folder="a")
    _, two, _ = gather_toml(source(problem_file(tmp_path, *rows[::-1]), shares), seed=2, folder="b")
    assert {p.question: p.split for p in one} == {p.question: p.split for p in two}
    assert 25 <= sum(p.split == "test" for p in one) <= 55, "a fifth of 200 by hash, within four deviations"


# --- bad input ---


def test_a_missing_column_is_an_error_that_names_the_columns_there(gather_toml: Gather, tmp_path: Path):
    path = problem_file(tmp_path, {"problem": "What is 1 + 1?", "solution": "2"})
    with pytest.raises(
        ValueError, match=r"no column 'questions' in its first 1 rows. It has 'problem', 'solution'\..*columns = \{"
    ) as error:
        gather_toml(source(path, 'columns = { question = "questions", answer = "solution" }'))
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'solution'"):
        gather_toml(source(path, 'columns = { question = "problem", answer = "solutions" }'))


def test_a_broken_line_is_dropped_with_its_number_and_the_others_are_kept(gather_toml: Gather, tmp_path: Path):
    path = problem_file(tmp_path, asked(1), '{"question": "What is', "", "[1, 2]", asked(2))
    summary, problems, dropped = gather_toml(source(path))
    assert [p.answer for p in problems] == ["2", "3"]
    assert [(row["line"], row["reason"]) for row in dropped] == [(2, "not JSON"), (4, "not an object")]
    assert summary["reasons"] == {"not JSON": 1, "not an object": 1}
    assert dropped[0]["text"] == '{"question": "What is'


def test_empty_answers_and_questions_are_dropped(gather_toml: Gather, tmp_path: Path):
    rows = [
        {"question": "What?", "answer": " "},
        {"question": "Why?", "answer": None},
        {"question": "\n", "answer": "1"},
        {"question": "When?"},
        {"question": "Which?", "answer": {"a": "1"}},
        {"question": "How?", "answer": float("nan")},
        asked(1),
    ]
    _, problems, dropped = gather_toml(source(problem_file(tmp_path, *rows)))
    assert [p.answer for p in problems] == ["2"]
    assert [(row["line"], row["reason"]) for row in dropped] == [
        (1, "empty answer"),
        (2, "empty answer"),
        (3, "empty question"),
        (4, "missing column"),
        (5, "not text"),
        (6, "not text"),
    ]


def test_a_duplicate_id_is_kept_once(gather_toml: Gather, tmp_path: Path):
    rows = [asked(1) | {"key": "a"}, asked(2) | {"key": "a"}, asked(1) | {"key": "a"}, asked(3) | {"key": "b"}]
    path = problem_file(tmp_path, *rows)
    _, problems, dropped = gather_toml(source(path, 'name = "mine"\ncolumns = { id = "key" }'))
    assert [(p.id, p.answer) for p in problems] == [("mine/a", "2"), ("mine/b", "4")]
    assert [(row["line"], row["id"], row["reason"]) for row in dropped] == [
        (2, "mine/a", "duplicate id"),
        (3, "mine/a", "duplicate question"),
    ]


def test_whatever_a_file_gives_no_place_to_is_dropped_with_its_file_and_line(gather_toml: Gather, tmp_path: Path):
    for part in ("1", "2"):
        problem_file(tmp_path, asked(1) | {"key": 1}, asked(2) | {"key": 1.0}, "{", name=f"part-{part}.jsonl")
    toml = source(tmp_path / "part-*.jsonl", 'name = "mine"\nlicence = "CC BY-NC 4.0"\ncolumns = { id = "key" }')
    places = [("part-1", 1), ("part-1", 2), ("part-1", 3), ("part-2", 1), ("part-2", 2), ("part-2", 3)]
    _, problems, dropped = gather_toml(toml)
    assert [(p.id, p.answer) for p in problems] == [("mine/1", "2")]
    assert [(row["file"], row["line"]) for row in dropped] == places[1:]
    with pytest.raises(ValueError, match="licence forbids"):
        gather_toml("exclude_non_commercial = true\n" + toml, folder="other")
    assert [(row["file"], row["line"]) for row in read_rows(tmp_path / "other" / "dropped")] == places


def test_the_same_id_in_two_files_is_no_clash(gather_toml: Gather, tmp_path: Path):
    paths = [problem_file(tmp_path, asked(n) | {"key": 1}, name=f"{n}.jsonl") for n in (1, 2)]
    _, problems, dropped = gather_toml(
        "".join(source(path, 'name = "mine"\ncolumns = { id = "key" }') for path in paths)
    )
    assert [p.id for p in problems] == ["mine/1", "mine-2/1"]
    assert dropped == []


def test_bytes_that_are_not_utf8_cost_only_their_line(gather_toml: Gather, tmp_path: Path):
    path = problem_file(tmp_path, asked(1), '{"question": "café?", "answer": "1"}'.encode("latin-1"), asked(2))
    _, problems, dropped = gather_toml(source(path))
    assert [p.answer for p in problems] == ["2", "3"]
    assert [(row["line"], row["reason"], row["detail"]) for row in dropped] == [(2, "not UTF-8", "byte 0xE9")]
    assert "caf" in dropped[0]["text"]


def test_nothing_left_is_an_error_that_says_why(gather_toml: Gather, tmp_path: Path):
    path = problem_file(tmp_path, {"question": "What?", "answer": ""})
    with pytest.raises(ValueError, match=r"no problem: 1 rows were dropped: empty answer \(1\).*dropped"):
        gather_toml(source(path))


def test_every_row_is_a_problem_or_a_drop(gather_toml: Gather, tmp_path: Path):
    rows = [asked(n % 70) if n % 7 else '{"broken' for n in range(300)]
    shares = 'validation = 0.2\ntest = 0.2\nbenchmark = "b"'
    _, problems, dropped = gather_toml(source(problem_file(tmp_path, *rows), shares))
    assert len(problems) + len(dropped) == 300


def test_a_stage_names_the_files_it_reads_and_a_missing_one_is_an_error_before_any_work(
    gather_toml: Gather, tmp_path: Path
):
    here, missing = problem_file(tmp_path, asked(1)), tmp_path / "sets.jsonl"
    toml = source(here) + source(missing)
    assert gather.reads(gather.Settings(kind="questions", **tomllib.loads(toml))) == [here, missing]
    with pytest.raises(FileNotFoundError, match=r"did you mean 'set\.jsonl'"):
        gather_toml(toml)
    assert not (tmp_path / "run").exists()


# --- MetaMath ---


def test_augmented_problems_are_training_problems_of_training_problems(gather_toml: Gather):
    summary, problems, _ = gather_toml(
        PROCEDURAL.format(level=2, digits=2, train=60) + "[metamath]\nresample = 2\nfobar = 1\nself_verification = 1"
    )
    train = {p.id for p in problems if p.split == "train" and not p.origin}
    made = [p for p in problems if p.origin]
    assert made and all(p.split == "train" and p.origin in train and not p.benchmark for p in made)
    assert sum(summary["augmented"].values()) == len(made)


def test_an_augmented_problem_that_is_a_test_problem_is_dropped(gather_toml: Gather, tmp_path: Path):
    every = [{"question": f"What is {n} + 5?", "answer": str(n + 5), "formula": f"{n}+5"} for n in range(2, 10)]
    formula = 'columns = { formula = "formula" }'
    train = problem_file(tmp_path, every[0], name="train.jsonl")
    test = problem_file(tmp_path, *every[1:], name="test.jsonl")
    toml = source(train, formula) + source(test, f'{formula}\ntest = 1\nbenchmark = "b"')
    _, problems, dropped = gather_toml(toml + "[metamath]\nresample = 60")
    held_out = {p.question for p in problems if p.split == "test"}
    assert len(held_out) == 7
    assert not held_out & {p.question for p in problems if p.split == "train"}
    clashes = [row for row in dropped if row["reason"] == "question is in the test split"]
    assert clashes, "with 60 of the 64 choices of two digits some have a 5 in the second place"
    assert all("/resampled-" in row["id"] for row in clashes)


# --- settings ---

FILE = '[[source]]\nkind = "file"\npath = "a.jsonl"\n'


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("source = []", "no problems without a source"),
        ('[[source]]\nkind = "procedural"\ntest = 5', "benchmark"),
        ('[[source]]\nkind = "procedural"', "makes nothing"),
        ('[[source]]\nkind = "procedural"\ntrain = 5\nfamilies = ["chian"]', "did you mean 'chain'"),
        ('[[source]]\nkind = "procedural"\ntrain = 0.5', "no number of problems"),
        (FILE + "test = 1", "benchmark"),
        (FILE + "train = 0.5\nvalidation = 0.2", "sum to 0.7"),
        (FILE + "validation = 2", "sum to 2"),
        (FILE + 'split = "test"', "now train, validation and test"),
        ('[[source]]\nkind = "asdiv"\nbenchmark = "b"\nsolution_types = ["Sum"]\ntest_fold = 5', "Use 0 to 4"),
    ],
)
def test_settings_that_cannot_be_say_what_to_do(toml: str, words: str):
    with pytest.raises(ValueError, match=words):
        gather.Settings(kind="questions", **tomllib.loads(toml))
