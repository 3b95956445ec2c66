"""Collecting rollouts: verified, journalled, resumed without loss or doubling."""

from dataclasses import replace
from pathlib import Path

import pytest

from whetstone.records import Problem, Trace, Verdict, from_row
from whetstone.rollouts import collect
from whetstone.run.folder import Stage, hash_folder
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import read_rows, write_records


class CountingTeacher:
    """Answers every problem but those without a formula, and counts how often it is asked."""

    def __init__(self):
        self.asked: list[str] = []

    def traces(self, problem: Problem, n: int) -> list[Trace]:
        self.asked.append(problem.id)
        if not problem.formula:
            raise ValueError("it has no formula.")
        return [Trace(problem.id, i, f"\\boxed{{{i}}}", "counting") for i in range(n)]


class BoxVerifier:
    """Right when the text ends in the boxed gold answer."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def check_many(self, items):
        return [
            Verdict(text.endswith(f"{{{gold}}}"), "equal" if text.endswith(f"{{{gold}}}") else "different")
            for text, gold, _ in items
        ]


class Killed(BaseException):
    pass


class DyingVerifier(BoxVerifier):
    """Dies at its third block, as a machine does."""

    blocks = 0

    def check_many(self, items):
        self.blocks += 1
        if self.blocks == 3:
            raise Killed
        return super().check_many(items)


PROBLEMS = [
    Problem(f"p{i}", f"What is {i} + 0?", "1", formula="" if i == 7 else f"{i}+0", split=split)
    for i, split in enumerate(["train"] * 10 + ["validation"] * 3 + ["test"] * 4)
]


def build_stage(folder: Path, **settings) -> Stage:
    write_records(folder / "problems", PROBLEMS)
    return Stage(
        name="rollouts",
        kind="rollouts",
        folder=folder / "02-rollouts",
        settings=collect.Settings(kind="rollouts", **settings),
        inputs={"problems": folder / "problems"},
        run=RunSettings(name="t"),
        model=ModelSettings(),
        parallel=ParallelSettings(),
        scores=ScoreSettings(),
    )


@pytest.fixture
def teacher(monkeypatch) -> CountingTeacher:
    teacher = CountingTeacher()
    monkeypatch.setattr(collect, "build_teacher", lambda settings, seed: teacher)
    monkeypatch.setattr(collect, "MathVerifier", BoxVerifier)
    return teacher


def rollouts(of: Stage) -> list[Trace]:
    return [from_row(Trace, row) for row in read_rows(of.folder / "rollouts")]


def test_every_trace_is_verified_and_no_test_problem_reaches_the_teacher(tmp_path, teacher):
    stage = build_stage(tmp_path, samples=3)
    summary = collect.run(stage)
    traces = rollouts(stage)
    assert [(t.problem_id, t.index) for t in traces] == [(f"p{i}", j) for i in range(13) if i != 7 for j in range(3)]
    assert {(t.index, t.correct, t.reason) for t in traces} == {
        (0, False, "different"),
        (1, True, "equal"),
        (2, False, "different"),
    }
    assert not {f"p{i}" for i in range(13, 17)} & set(teacher.asked)
    assert (summary["rollouts"], summary["right"], summary["wrong"], summary["undecided"]) == (36, 12, 24, 0)


def test_a_problem_that_the_teacher_cannot_explain_is_dropped_with_its_reason(tmp_path, teacher):
    stage = build_stage(tmp_path)
    collect.run(stage)
    assert list(read_rows(stage.folder / "dropped")) == [
        {"problem_id": "p7", "reason": "the teacher cannot explain it: it has no formula."}
    ]


def test_a_killed_collection_resumes_without_loss_or_doubling(tmp_path, teacher, monkeypatch):
    undisturbed = build_stage(tmp_path / "undisturbed", samples=2, block=4)
    collect.run(undisturbed)

    stage = build_stage(tmp_path / "killed", samples=2, block=4)
    monkeypatch.setattr(collect, "MathVerifier", DyingVerifier)
    with pytest.raises(Killed):
        collect.run(stage)
    journal = stage.folder / "journal.jsonl"
    assert len(journal.read_bytes().splitlines()) == 8
    with journal.open("ab") as torn:
        torn.write(b'{"problem_id": "p8", "tra')  # the kill came in the middle of a line

    teacher.asked.clear()
    monkeypatch.setattr(collect, "MathVerifier", BoxVerifier)
    collect.run(stage)
    assert teacher.asked == [f"p{i}" for i in range(8, 13)]
    assert rollouts(stage) == rollouts(undisturbed)
    assert not journal.exists()


def collected(folder: Path, parallel: ParallelSettings, problems: list[Problem]) -> str:
    """What the procedural teacher, two solutions that come with their problems, and a program of each formula give."""
    stage = replace(build_stage(folder, samples=2, block=2, programs=1), parallel=parallel)
    write_records(folder / "problems", problems)
    shipped = [Trace(problem.id, 0, rf"So it is \boxed{{{problem.answer}.0}}.", "book") for problem in problems[3:5]]
    write_records(folder / "traces", shipped)
    collect.run(replace(stage, inputs=stage.inputs | {"traces": folder / "traces"}))
    return hash_folder(stage.folder)


SUMS = [Problem(f"s{i}", f"What is {i} + 55?", str(i + 55), formula=f"{i}+55" if i % 3 else "") for i in range(12)]


def test_two_processes_give_the_rollouts_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "MANY", 1)
    one = collected(tmp_path / "one", ParallelSettings(forks=1), SUMS)
    assert len(list(read_rows(tmp_path / "one" / "02-rollouts" / "rollouts"))) == 24
    assert collected(tmp_path / "two", ParallelSettings(forks=2), SUMS) == one


def test_ray_gives_the_rollouts_of_one_process(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setattr(collect, "MANY", 1)
    one = collected(tmp_path / "one", ParallelSettings(forks=1), SUMS)
    assert collected(tmp_path / "ray", ParallelSettings(forks=2, data="ray"), SUMS) == one


def test_what_was_collected_is_not_collected_again(tmp_path, teacher):
    stage = build_stage(tmp_path)
    first = collect.run(stage)
    teacher.asked.clear()
    assert collect.run(stage) == first
    assert teacher.asked == []


def test_an_unknown_teacher_is_refused_with_the_known_one():
    with pytest.raises(ValueError, match=r'"gpt-9" is not known.*"procedural"'):
        collect.build_teacher(collect.Settings(kind="rollouts", teacher="gpt-9"), 0)


def test_keys_of_an_earlier_version_name_the_new_ones():
    with pytest.raises(ValueError, match=r"(?s)wrong_rate.*is now procedural\.wrong_rate"):
        collect.Settings(kind="rollouts", wrong_rate=0.5)
    part = collect.Settings(kind="rollouts", procedural={"wrong_rate": 0.5}).procedural
    assert (part.wrong_rate, part.correction_rate) == (0.5, 0.2)


def test_the_procedural_teacher_is_right_and_wrong_at_the_set_rate(tmp_path):
    stage = build_stage(tmp_path, samples=8, procedural={"wrong_rate": 0.5})
    write_records(
        tmp_path / "problems",
        [Problem(f"s{i}", f"What is {i} + 55?", str(i + 55), formula=f"{i}+55") for i in range(100)],
    )
    summary = collect.run(stage)
    assert summary["rollouts"] == 800
    share = summary["wrong"] / 800
    assert 0.4 < share < 0.6, f"{share} of 800 wrong at wrong_rate 0.5: five standard deviations are 0.09"
