"""Scores that several processes sample together: the answers of one process, kept once, whatever was killed before."""

import json
from pathlib import Path

import pytest

from tests.learner.group import in_group
from tests.scripted import TINY
from tests.test_measure import problems
from tests.tiny_models import TEXTS
from whetstone import measure, sampling_worker
from whetstone import model as models
from whetstone.evaluate.any_model import ModelOptions, Task, evaluate_model
from whetstone.measure import score_model
from whetstone.records import Score
from whetstone.run.settings import ParallelSettings, ScoreSettings
from whetstone.run.tables import read_rows

SETTINGS = ScoreSettings(main="hard", samples=4, max_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    models.save(*models.build_tiny(TINY, TEXTS, seed=0), path)
    return path


@pytest.fixture
def forked(monkeypatch, tmp_path):
    """Two processes as torchrun starts them, forked, so that they need not import torch. Gives the calls."""
    calls = []

    def run_processes(module: str, task: Path, count: int, folder: Path, launch: tuple, silence: float) -> None:
        assert module == sampling_worker.__name__ and folder == task.parent and silence > 0
        calls.append((count, launch))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
        (tmp_path / "group").mkdir(exist_ok=True)
        in_group(tmp_path / "group", count, sampling_worker.sample_share, task)

    monkeypatch.setattr(sampling_worker, "run_processes", run_processes)
    return calls


def scored(folder: Path, out: Path, processes: int) -> list[Score]:
    parallel = ParallelSettings(device="cpu", forks=1, processes=processes)
    return score_model(folder, problems(), SETTINGS, parallel, 0, out, "sft")


def rows(out: Path) -> list[dict]:
    return [row for name in ("easy", "hard") for row in read_rows(out / name)]


def test_two_processes_score_what_one_does_and_leave_the_same_generations(folder, tmp_path, forked):
    alone, together = scored(folder, tmp_path / "one", 1), scored(folder, tmp_path / "two", 2)
    assert together == alone and forked == [(2, ()), (2, ())]
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    names = {path.name for path in (tmp_path / "two").rglob("*")}
    assert names == {path.name for path in (tmp_path / "one").rglob("*")}, "neither a journal nor a task is left"


def test_what_one_process_sampled_before_a_kill_two_complete_and_nothing_is_doubled(
    folder, tmp_path, forked, monkeypatch
):
    undisturbed = scored(folder, tmp_path / "one", 1)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measure, "write_rows", dies)
        scored(folder, tmp_path / "two", 1)
    journal = tmp_path / "two" / "easy" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 12
    journal.write_text("".join(lines[:5]) + lines[5][:20])  # torn by the kill
    assert scored(folder, tmp_path / "two", 2) == undisturbed and len(forked) == 2
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_an_evaluation_in_two_processes_is_that_of_one_and_is_not_sampled_twice(folder, tmp_path, forked):
    tasks = [Task(problems()[:3], SETTINGS)]
    (alone,) = evaluate_model(ModelOptions(str(folder), device="cpu"), tasks, output=tmp_path / "one")
    options = ModelOptions(str(folder), device="cpu", processes=2, launch=("two_nodes",))
    for _ in range(2):
        assert evaluate_model(options, tasks, output=tmp_path / "two") == [alone]
    assert forked == [(2, ("two_nodes",))]
    asked = [json.loads((tmp_path / name / "easy" / "asked.json").read_text()) for name in ("one", "two")]
    assert asked[0] == asked[1], "they may go on with each other's work"


@pytest.mark.parametrize(("processes", "output"), [(1, True), (2, False)])
def test_a_launch_needs_its_processes_and_a_folder_that_they_see(folder, tmp_path, processes, output):
    options = ModelOptions(str(folder), processes=processes, launch=("two_nodes",))
    with pytest.raises(ValueError, match=r"--launch starts .* need --processes .* and --output"):
        evaluate_model(options, [Task(problems()[:3], SETTINGS)], output=tmp_path / "out" if output else None)
