"""The command line answers quickly, explains errors, and stops cleanly."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from whetstone import __version__, cli
from whetstone.run.tables import write_rows


def whetstone(*words: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "whetstone.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit status of the command, run in this process with the fake rooms."""
    monkeypatch.setattr(sys, "argv", ["whetstone", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code or 0


def test_help_answers_within_half_a_second_of_cpu_time():
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(3):
        before = cpu()
        assert "sharpens" in whetstone("--help").stdout
        seconds.append(cpu() - before)
    assert min(seconds) < 0.5, f"--help took {seconds} s of CPU time: something heavy is imported at a top"


def test_version():
    assert whetstone("--version").stdout == f"whetstone {__version__}\n"


@pytest.mark.parametrize("command", ["run", "plan", "show", "verify", "evaluate", "generate", "report"])
def test_every_command_explains_itself(command):
    done = whetstone(command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


def test_a_mistake_is_one_line_and_status_2_and_debug_shows_where(tmp_path):
    done = whetstone("run", tmp_path / "none.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no recipe") and "Traceback" not in done.stderr
    done = whetstone("run", tmp_path / "none.toml", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "read_recipe" in done.stderr


def test_run_prints_the_table_and_plan_the_states(walk, rooms, monkeypatch, capsys):
    assert call(monkeypatch, "plan", walk) == 0
    output = capsys.readouterr().out
    assert "01-questions (questions): to do\n    problems: 12" in output
    assert "04-sft (sft; model = midtrain/model, data = corpus/subset): to do" in output
    assert call(monkeypatch, "run", walk) == 0
    printed = capsys.readouterr()
    assert "== 04-sft (sft)" in printed.err and "s wall" in printed.err and "s CPU" in printed.err
    assert "easy mean@2" in printed.out and "40.0 … 60.0" in printed.out and "GFLOP/s" in printed.out
    assert call(monkeypatch, "plan", walk, "--set", "sft.learning_rate=2e-4") == 0
    output = capsys.readouterr().out
    assert "stale\n    learning_rate was 0.0001 and is 0.0002" in output and "took" in output
    assert call(monkeypatch, "run", walk, "--set", "sft.learning_rate=2e-4") == 2
    assert "--force" in capsys.readouterr().err
    assert call(monkeypatch, "run", walk, "--set", "sft.learning_rate=2e-4", "--force") == 0


INTERRUPTED = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in background processes
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # and some job runners block it
from whetstone import cli, recipe
from whetstone.run.room import Room
from whetstone.run.settings import StageSettings

def run(stage):
    print("ready", flush=True)
    for _ in range(600):  # a signal just before a sleep is handled after it, so sleep briefly
        time.sleep(0.1)

room = types.ModuleType("slow_room")
room.ROOM = Room(settings=StageSettings, run=run, gives=("problems",))
sys.modules["slow_room"] = room
recipe.KINDS = {"questions": "slow_room"}
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "KeyboardInterrupt"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_stopped_run_says_how_to_continue(tmp_path, number, status, name):
    path = tmp_path / "slow.toml"
    path.write_text(f'[run]\nfolder = "{tmp_path}/runs"\n[[stage]]\nkind = "questions"\n')
    command = [sys.executable, "-c", INTERRUPTED, "run", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    os.kill(child.pid, number)
    _, printed = child.communicate(timeout=300)
    assert child.returncode == status
    assert f"Continue with\n    whetstone run {path}" in printed and "Traceback" not in printed
    assert not (tmp_path / "runs" / "slow" / "01-questions" / "manifest.json").exists()
    history = json.loads((tmp_path / "runs" / "slow" / "run.json").read_text())["history"]
    assert history[0]["ended_by"] == name


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        {"id": f"p{n}", "correct": n % 2 == 0, "text": f"<think>\nabout {n}\n</think>\n\\boxed{{{n}}}"}
        for n in range(6)
    ]
    write_rows(tmp_path / "table", rows, shard_rows=4)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "table.jsonl").write_text(lines)
    (tmp_path / "table.csv").write_text("id,correct\np0,true\np1,false\n")
    return tmp_path


@pytest.mark.parametrize("name", ["table", "table/part-00000.parquet", "table.jsonl"])
def test_show_prints_rows_of_tables_of_every_kind(name, table, monkeypatch, capsys):
    assert call(monkeypatch, "show", table / name, "--where", "correct=false", "--n", "1", "--index", "2") == 0
    output = capsys.readouterr().out
    assert output.startswith("--- row 3\n") and "--- row 5" not in output
    assert "correct  false" in output and "about 3\n</think>" in output
    assert "\033" not in output, "no colours in a pipe"
    assert call(monkeypatch, "show", table / name, "--grep", "BOXED{1}") == 0
    assert "p1" in capsys.readouterr().out


def test_show_of_csv_of_a_stage_folder_and_with_mistakes(table, monkeypatch, capsys):
    assert call(monkeypatch, "show", table / "table.csv", "--where", "correct=false") == 0
    assert "p1" in capsys.readouterr().out
    assert call(monkeypatch, "show", table) == 0
    assert "6 rows: id, correct, text" in capsys.readouterr().out
    assert call(monkeypatch, "show", table / "table", "--where", "corect=false") == 2
    assert "did you mean 'correct'?" in capsys.readouterr().err
    assert call(monkeypatch, "show", table / "none.jsonl") == 2
    assert "error:" in capsys.readouterr().err
    (table / "table.jsonl").write_text('{"id": 1}\n{"id": \n')
    assert call(monkeypatch, "show", table / "table.jsonl") == 2
    assert "table.jsonl:2 is not JSON" in capsys.readouterr().err


def test_thinking_is_dimmed_on_a_terminal():
    from whetstone.show import render

    output = render(0, {"text": "<think>\nwell\n</think>\n42"}, colour=True)
    assert "\033[2m<think>\nwell\n</think>\033[0m\n42" in output


def test_verify_counts_its_reasons_and_exits_with_0(tmp_path, monkeypatch, capsys):
    (tmp_path / "out.jsonl").write_text('{"pred": "7", "gold": "7"}\n{"pred": "8", "gold": "7"}\n{"pred\n')
    assert call(monkeypatch, "verify", tmp_path / "out.jsonl", "--prediction-field", "pred") == 0
    printed = capsys.readouterr()
    assert [json.loads(line)["correct"] for line in printed.out.splitlines()] == [True, False, False]
    assert printed.err == "rows 3  correct 1  undecided 0  (equal 1, different 1, not JSON 1)\n"


def test_verify_keeps_the_columns_of_a_file_that_have_the_names_of_its_own(tmp_path, monkeypatch, capsys):
    given = {"prediction": "7", "gold": "8", "correct": True, "own_correct": "yes", "reason": ["mine"]}
    (tmp_path / "a.jsonl").write_text(json.dumps({"prediction": "7", "gold": "7"}) + "\n" + json.dumps(given) + "\n")
    assert call(monkeypatch, "verify", tmp_path / "a.jsonl") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"prediction": "7", "gold": "7", "correct": True, "reason": "equal"}
    kept = {"prediction": "7", "gold": "8", "own_own_correct": True, "own_correct": "yes", "own_reason": ["mine"]}
    assert second == kept | {"correct": False, "reason": "different"}


def test_run_without_a_score_has_no_score_columns(walk, rooms, monkeypatch, capsys):
    assert call(monkeypatch, "run", walk, "--to", "corpus") == 0
    header = next(line for line in capsys.readouterr().out.splitlines() if "wall s" in line)
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == ["stage", "wall s", "CPU s", "peak"]


def test_the_error_about_an_unknown_key_names_each_known_one_once(walk, rooms, monkeypatch, capsys):
    assert call(monkeypatch, "plan", walk, "--set", "sft.lerning_rate=1") == 2
    printed = capsys.readouterr().err
    assert "did you mean 'learning_rate'?" in printed and printed.count(" data") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "none"), "There is no none"),
        (("report", "none"), "There is no run folder none"),
        (("evaluate", "-m", "none", "-b", "none.jsonl"), "There is no folder none"),
        (("verify", "none.jsonl"), "none.jsonl is not a file"),
        (("generate", "-m", "./none", "hi"), "There is no folder ./none"),
    ],
)
def test_a_missing_file_is_named(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words) == 2
    assert message in capsys.readouterr().err
