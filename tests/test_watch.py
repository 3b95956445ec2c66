"""`whetstone watch` and what the page reads: a run's folder while another process works in it."""

import io
import json
import os

import pytest
from typer.testing import CliRunner

from whetstone.cli import app
from whetstone.follow import POINTS, curves, last_groups, read_run
from whetstone.run.tables import write_shard
from whetstone.watch import described, watch


@pytest.fixture
def run(tmp_path):
    """One stage is done, one under way in this process, one to do."""
    folder = tmp_path / "mine"
    for name in ("01-sft", "02-rl"):
        (folder / name).mkdir(parents=True)
    (folder / "01-sft" / "manifest.json").write_text(json.dumps({"kind": "sft", "wall_seconds": 61.0}))
    (folder / "02-rl" / "started.json").write_text(json.dumps({"kind": "rl", "settings": {"steps": 40}}))
    log(folder / "02-rl", 3)
    stages = [{"name": name, "kind": name} for name in ("sft", "rl", "report")]
    (folder / "run.json").write_text(json.dumps({"name": "mine", "recipe": {"stage": stages}}))
    (folder / ".lock").write_text(str(os.getpid()))
    return folder


def log(stage, steps):
    rows = [{"step": k, "reward": k / 10, "flat": 1.0, "bad": "nan", "seconds_left": 90} for k in range(1, steps + 1)]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 99')


def test_stages_are_done_running_interrupted_or_to_do(run):
    view = read_run(run)
    assert [(s.name, s.status, s.step, s.steps) for s in view.stages] == [
        ("sft", "done", 0, 0), ("rl", "running", 3, 40), ("report", "to do", 0, 0),
    ]  # fmt: skip
    assert view.current.name == "rl" and view.running and not view.complete
    (run / ".lock").write_text("0999999999")
    assert read_run(run).stages[1].status == "interrupted"


@pytest.mark.parametrize("scored", ["sft", "new+sft", "base"])
def test_a_stage_is_not_done_while_it_or_its_base_is_scored(run, scored):
    (run / "scores" / scored).mkdir(parents=True)
    (run / "scores" / scored / "started.json").write_text("{}")
    (run / "01-sft" / "model").mkdir()
    (run / "02-rl" / "started.json").unlink()
    view = read_run(run)
    assert [(s.status, described(s)) for s in view.stages[:1]] == [("scoring", "scoring, 1:01")]
    assert view.current.name == "sft"
    (run / ".lock").write_text("0999999999")
    assert read_run(run).stages[0].status == "interrupted"


def test_work_that_is_redone_stands_in_the_place_of_the_old(run):
    (run / "new+01-sft").mkdir()
    (run / "new+01-sft" / "started.json").write_text(json.dumps({"kind": "sft"}))
    assert [(s.name, s.status) for s in read_run(run).stages][:2] == [("sft", "running"), ("rl", "running")]


@pytest.mark.parametrize("line", ['{"step": NaN, "loss": 1}', '{"step": 9, "seconds_left": "soon"}', "[]", "{"])
def test_a_damaged_line_is_passed_over(run, line):
    before = read_run(run)
    metrics = run / "02-rl" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().rpartition("\n")[0] + f"\n{line}\n")
    assert read_run(run) == before


def test_curves_hold_whole_lines_numbers_that_change_and_always_the_newest(run):
    assert curves(run / "02-rl") == {"step": [1, 2, 3], "series": {"reward": [0.1, 0.2, 0.3]}}
    log(run / "02-rl", 5 * POINTS + 1)
    found = curves(run / "02-rl")["step"]
    assert len(found) == POINTS and found[-1] == 5 * POINTS + 1


def test_the_last_answers_are_grouped_by_problem(run):
    rows = [
        {"step": 1, "problem_id": p, "question": "1+1?", "text": t, "reward": 1.0} for p in "ab" for t in ("2", "3")
    ]
    write_shard(run / "02-rl" / "rollouts", 0, rows[:1])
    write_shard(run / "02-rl" / "rollouts", 1, rows)
    groups = last_groups(run / "02-rl", 5)
    assert [(g["problem_id"], [r["text"] for r in g["rollouts"]]) for g in groups] == [
        ("a", ["2", "3"]),
        ("b", ["2", "3"]),
    ]
    traces = [{"index": 0, "text": "so 2", "correct": True}]
    (run / "01-sft" / "journal.jsonl").write_text(json.dumps({"problem_id": "p", "traces": traces}) + '\n{"torn')
    (group,) = last_groups(run / "01-sft", 5)
    assert group["problem_id"] == "p" and group["rollouts"] == traces


def test_once_prints_stages_curves_and_answers_without_control_characters(run):
    row = {
        "step": 3,
        "problem_id": "p",
        "question": "What is \x1b[31m1+1?",
        "text": "It is\n\x1b]0;2\x07",
        "correct": False,
    }
    write_shard(run / "02-rl" / "rollouts", 0, [row])
    out = io.StringIO()
    watch(run, 1.0, once=True, out=out)
    said = out.getvalue()
    assert "3/40" in said and "▁▅█  0.1 to 0.3, now 0.3" in said and "1:30 left" in said
    assert "\\x1b[31m1+1?" in said and "✗" in said and "\x1b" not in said and "\x07" not in said


def test_in_a_pipe_it_prints_what_changed_until_the_run_is_over(run):
    out = io.StringIO()
    write = out.write

    def then_ends(text):  # once the first line is read, the process that worked on it ends
        (run / ".lock").write_text("0999999999")
        return write(text)

    out.write = then_ends
    watch(run, 0.01, once=False, out=out)
    first, *_, last = out.getvalue().splitlines()
    assert first == "rl: running, step 3 of 40, 1:30 left, reward 0.3"
    assert last == "mine: nobody works on it; whetstone run continues it"


def test_a_folder_without_a_run_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert isinstance(done.exception, FileNotFoundError) and "holds no run" in str(done.exception)
