"""A run folder that somebody changed: a clear error or the right continuation, and nothing is lost or written outside."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from whetstone.cli import app
from whetstone.pipeline.running import lock, run_recipe
from whetstone.pipeline.staleness import plan_recipe
from whetstone.recipe import read_recipe
from whetstone.run.folder import DamagedFile, alone, read_json, write_json
from whetstone.run.manifest import read_manifest, write_manifest
from whetstone.run.metrics import Metrics, read_metrics
from whetstone.run.tables import Journal, column_names, count_rows, read_between, read_rows, read_where, write_rows
from whetstone.show import tables_below

ALL = ["questions", "corpus", "midtrain", "sft", "report"]
BROKEN = {
    "empty": "",
    "a list": "[]",
    "a table without its keys": "{}",
    "nothing": "null",
    "other types": '{"kind": 3, "inputs": []}',
    "too deep": "[" * 20000,
    "zeros": "\0" * 64,
    "cut off": '{"kind": "corpus", "name',
}


def run(path: Path, *sets: str, **options):
    return run_recipe(read_recipe(path, sets), **options)


def states(path: Path, *sets: str) -> dict[str, str]:
    return {stage.name: state.status for stage, state in plan_recipe(read_recipe(path, sets))}


@pytest.fixture
def made(walk, rooms) -> Path:
    """The folder of a finished run."""
    run(walk)
    return walk.parent / "runs" / "walk"


# --- what a finished stage made


def test_a_changed_output_stops_the_run_and_is_named(made, walk, rooms):
    (made / "03-midtrain" / "model" / "content.txt").write_text("other weights")
    with pytest.raises(ValueError, match=r"03-midtrain: its model was changed after it was made \(content.txt\)"):
        run(walk)
    assert rooms.calls == ALL and states(walk)["midtrain"] == "stale"


def test_a_change_that_keeps_size_and_time_is_found_too(made, walk, rooms):
    file = made / "02-corpus" / "subset" / "part-00000.parquet"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match="02-corpus: its subset was changed after it was made"):
        run(walk)


@pytest.mark.parametrize("change", ["added", "deleted"])
def test_a_file_more_or_less_is_a_change(made, walk, rooms, change):
    if change == "added":
        (made / "03-midtrain" / "model" / "adapter_model.safetensors").write_text("x")
    else:
        shutil.rmtree(made / "03-midtrain" / "model")
    with pytest.raises(ValueError, match="03-midtrain: its model was changed"):
        run(walk)


def test_force_makes_a_changed_stage_again_and_keeps_what_was_changed(made, walk, rooms):
    (made / "03-midtrain" / "model" / "content.txt").write_text("my own weights")
    run(walk, force=True)
    assert rooms.calls[len(ALL) :] == ["midtrain", "report"], "midtrain came out the same, so sft stands"
    assert (made / "03-midtrain" / "model" / "content.txt").read_text() == "midtrain 0.001;"
    assert (made / "old+03-midtrain" / "model" / "content.txt").read_text() == "my own weights"
    assert set(states(walk).values()) == {"done"}


def test_a_copied_run_is_done_and_its_files_are_hashed_once(made, walk, rooms, monkeypatch):
    shutil.copytree(made, made.parent / "copy")
    sets = ("run.name=copy",)
    run(walk, *sets)
    assert rooms.calls == ALL
    monkeypatch.setattr("whetstone.pipeline.outputs.hash_folder", lambda folder: pytest.fail(f"{folder} is hashed"))
    assert set(states(walk, *sets).values()) == {"done"}


def test_what_a_stage_reads_is_hashed_before_it_runs(made, walk, rooms):
    """Sizes and times say nothing here: they were noted after the change, as by a disk that lost a bit."""
    (made / "02-corpus" / "subset" / "part-00000.parquet").write_bytes(b"other")
    from whetstone.pipeline.outputs import remember

    remember(made / "02-corpus", read_manifest(made / "02-corpus" / "manifest.json")["outputs"])
    assert states(walk)["corpus"] == "done"
    with pytest.raises(ValueError, match=r"02-corpus: its subset was changed.*move .* away and run again"):
        run(walk, "sft.learning_rate=1", force=True)
    assert rooms.calls == ALL


def test_changed_generations_are_scored_again_and_kept(made, walk, rooms):
    (made / "scores" / "sft" / "easy" / "part-00000.parquet").write_bytes(b"better answers")
    run(walk)
    assert rooms.scored[3:] == [("sft", 8)]
    assert (made / "scores" / "old+sft" / "easy" / "part-00000.parquet").read_bytes() == b"better answers"


def test_old_scores_stay_until_the_new_are_complete(made, walk, rooms, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["whetstone.measure"], "score_model", fails)
    with pytest.raises(KeyboardInterrupt):
        run(walk, "scores.samples=4")
    scores = read_manifest(made / "scores" / "base" / "manifest.json", "scores")["scores"]
    assert scores[0]["samples"] == 2


# --- the files of the run folder


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_manifest_stops_the_run_and_is_named(made, walk, rooms, broken):
    path = made / "02-corpus" / "manifest.json"
    path.write_text(BROKEN[broken])
    with pytest.raises(ValueError, match=rf"02-corpus: {re.escape(str(path))} is damaged: .*\n.*midtrain"):
        run(walk)
    run(walk, force=True)
    assert rooms.calls[len(ALL) :] == ["corpus", "report"] and set(states(walk).values()) == {"done"}
    assert (made / "old+02-corpus" / "manifest.json").read_text() == BROKEN[broken]


def test_an_edited_manifest_is_found_by_its_seal(made, walk, rooms):
    path = made / "02-corpus" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest))  # another layout, the same content
    assert states(walk)["corpus"] == "done"
    path.write_text(json.dumps(manifest | {"summary": {"rows": 1000}}))
    with pytest.raises(ValueError, match=r"manifest.json is damaged: it was changed after it was written"):
        run(walk)


@pytest.mark.parametrize("broken", BROKEN)
def test_damaged_scores_are_made_again(made, walk, rooms, broken):
    (made / "scores" / "midtrain" / "manifest.json").write_text(BROKEN[broken])
    (made / "scores.json").write_text(BROKEN[broken])
    run(walk)
    assert rooms.scored[3:] == [("midtrain", 8)]
    assert len(json.loads((made / "scores.json").read_text())["scores"]) == 6


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_run_json_is_named_before_anything_is_made(made, walk, rooms, broken):
    (made / "run.json").write_text(BROKEN[broken])
    with pytest.raises(ValueError, match=r"run\.json is damaged: .*Put back the file as it was, or move it away"):
        run(walk, "sft.learning_rate=1", force=True)
    assert rooms.calls == ALL
    (made / "run.json").unlink()
    run(walk, "sft.learning_rate=1", force=True)


def test_a_damaged_started_json_stops_the_run_and_is_named(walk, rooms):
    with pytest.raises(KeyboardInterrupt):
        run(walk, "questions.stop_after=1")
    path = walk.parent / "runs" / "walk" / "01-questions" / "started.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=rf"01-questions: {re.escape(str(path))} is damaged"):
        run(walk, "questions.stop_after=1")


def values(limit: int = 3):
    plain = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=6), st.just({}))
    return st.one_of(
        plain, st.lists(plain, max_size=limit), st.dictionaries(st.text(max_size=4), plain, max_size=limit)
    )


def edited(value, draw):
    """The JSON value with one part of it replaced, deleted or added."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(values())
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    new = value.copy()
    act = draw(st.sampled_from(["inside", "inside", "delete", "add"]))
    if act == "delete":
        del new[key]
    elif act == "add" and isinstance(new, dict):
        new[draw(st.text(max_size=6))] = draw(values())
    else:
        new[key] = edited(value[key], draw)
    return new


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_edit_of_a_runs_json_is_an_error_that_names_it_or_changes_nothing(made, walk, rooms, data):
    copy = made.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(made, copy)
    names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*.json"))
    path = copy / data.draw(st.sampled_from(names))
    text = path.read_text()
    new = json.dumps(edited(json.loads(text), data.draw)) if data.draw(st.booleans()) else text[: len(text) // 2]
    path.write_text(new)
    try:
        run(walk, "run.name=copy", "sft.learning_rate=1", force=True)
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert (copy / "04-sft" / "model" / "content.txt").read_text() == "midtrain 0.001;sft 1.0;"
    scores = json.loads((copy / "scores.json").read_text())["scores"]
    assert [(s["stage"], s["mean"]) for s in scores if s["main"]] == [("base", 0.5), ("midtrain", 0.5), ("sft", 0.5)]


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", "\0\0", '{"step": "1"}', '{"loss": 1}', "[" * 20000, '{"step": 2, "loss": "\udce9"}']
)
def test_a_damaged_line_of_the_metrics_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n', errors="surrogateescape")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is damaged"):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is damaged"), Metrics(tmp_path):
        pass


READS = {
    "rows": lambda folder: list(read_rows(folder)),
    "counts": count_rows,
    "columns": column_names,
    "one row": lambda folder: list(read_between(folder, 1, 2)),
    "some rows": lambda folder: list(read_where(folder, ["n"], lambda n: n == 1)),
    "show": tables_below,
}


@pytest.mark.parametrize("size", [0, 10, 0.5, 0.98])
@pytest.mark.parametrize("read", READS)
def test_a_damaged_table_is_named(tmp_path, read, size):
    write_rows(tmp_path / "table", [{"n": n, "text": f"{n} apples"} for n in range(100)])
    shard = tmp_path / "table" / "part-00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: size if isinstance(size, int) else int(size * len(whole))])
    with pytest.raises(ValueError, match=r"part-00000\.parquet is damaged \(.*Copy it again, or make its stage again"):
        READS[read](tmp_path / "table")


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff", b'{"other": 1}', b"[" * 20000])
def test_a_damaged_line_of_a_journal_is_named_and_nothing_is_lost(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    content = b'{"id": 1}\n' + line + b'\n{"id": 3}\n'
    path.write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"journal\.jsonl, line 2, is damaged: .*done again"),
        Journal(path, keep=lambda row: row["id"]),
    ):
        pass
    assert path.read_bytes() == content


# --- redoing


def test_old_work_stays_until_the_new_is_complete(made, walk, rooms, monkeypatch):
    """A failure, Ctrl-C or kill while a stage is made again: its old work is in place, and the new goes on later."""
    with pytest.raises(KeyboardInterrupt):
        run(walk, "questions.count=6", "questions.stop_after=1", force=True)
    old = json.loads((made / "01-questions" / "manifest.json").read_text())
    assert old["settings"]["count"] == 4
    assert set(states(walk).values()) == {"done"}, "under the old settings nothing has happened"
    with pytest.raises(ValueError, match=r"count was 4 and is 6; .* \(new work was begun in new\+01-questions\)"):
        run(walk, "questions.count=6", "questions.stop_after=1")
    run(walk, "questions.count=6", "questions.stop_after=1", force=True)
    new = json.loads((made / "01-questions" / "manifest.json").read_text())
    assert new["summary"]["continued_at"] == 2 and new["attempts"] == 2, "the new work was continued"
    assert not list(made.glob("new+*")) and not list(made.glob("old+*"))


def test_new_work_begun_under_yet_other_settings_is_begun_again(made, walk, rooms):
    with pytest.raises(KeyboardInterrupt):
        run(walk, "questions.count=6", "questions.stop_after=1", force=True)
    run(walk, "questions.count=7", force=True)
    assert json.loads((made / "01-questions" / "manifest.json").read_text())["summary"]["continued_at"] == 0


def test_a_kill_between_the_two_renames_loses_nothing(made, walk, rooms):
    new = ("sft.learning_rate=1",)
    run(walk, *new, force=True)
    (made / "04-sft").rename(made / "new+04-sft")  # the old is out of the way, the new is not yet in its place
    calls = list(rooms.calls)
    run(walk, *new)
    assert rooms.calls == calls and set(states(walk, *new).values()) == {"done"}


def test_what_can_be_checked_is_checked_before_old_work_goes(made, walk, rooms, tmp_path):
    with pytest.raises(ValueError, match="main = 'aime'"):
        run(walk, "sft.learning_rate=1", "scores.main=aime", force=True)
    with pytest.raises(FileNotFoundError, match=r"01-questions reads .*none\.jsonl, which is missing"):
        run(walk, f"questions.file={tmp_path / 'none.jsonl'}", force=True)
    with pytest.raises(FileNotFoundError, match="There is no folder /nowhere"):
        run(walk, "model.path=/nowhere", force=True)
    assert rooms.calls == ALL and set(states(walk).values()) == {"done"}


def test_going_on_with_other_arithmetic_is_said_and_recorded(walk, rooms, capsys):
    with pytest.raises(KeyboardInterrupt):
        run(walk, "questions.stop_after=1", "run.threads=1")
    run(walk, "questions.stop_after=1", "run.threads=2")
    warning = "warning: 01-questions was begun on other arithmetic: threads was 1 and is 2. Its result is as good"
    assert warning in capsys.readouterr().err
    written = read_manifest(walk.parent / "runs" / "walk" / "01-questions" / "manifest.json")
    assert [machine["threads"] for machine in written["computed_on"]] == [1, 2]
    assert {"device", "instructions", "cores", "torch", "forks", "processes"} <= written["computed_on"][0].keys()
    after = read_manifest(walk.parent / "runs" / "walk" / "02-corpus" / "manifest.json")
    assert [machine["threads"] for machine in after["computed_on"]] == [2]


def test_another_base_model_makes_what_starts_from_it_stale(walk, rooms, tmp_path, world):
    base = shutil.copytree(world["model"], tmp_path / "base")
    (base / "content.txt").write_text("base")
    sets = (f"model.path={base}", "scores.max_tokens=64")
    run(walk, *sets)
    assert set(states(walk, *sets).values()) == {"done"}
    with (base / "model.safetensors").open("ab") as weights:
        weights.write(b"more")
    with pytest.raises(ValueError, match=r"03-midtrain: input \[model\] path \(.*base\) has other content"):
        run(walk, *sets)


def test_plan_prints_the_plan_and_then_what_keeps_it_from_running(walk, rooms, tmp_path):
    ended = CliRunner().invoke(app, ["plan", str(walk), "--set", f"questions.file={tmp_path / 'none.jsonl'}"])
    assert "01-questions (questions): to do" in ended.output and "05-report" in ended.output
    assert isinstance(ended.exception, FileNotFoundError) and "none.jsonl, which is missing" in str(ended.exception)


# --- nothing outside


NO_NAMES = [
    "../../x", "/tmp/x", ".", "..", "a/b", "a\\b", "a\nb", "a\x1b[31m", "x" * 300, "CON", "nul.txt", " a", "a.", "[red]"
]  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_is_the_name_of_one_folder(walk, rooms, name):
    with pytest.raises(ValueError, match=r"run.name|\[run\] name"):
        read_recipe(walk, [f"run.name={json.dumps(name)}"])


@pytest.mark.parametrize("link", ["04-sft", ".lock", "scores", "02-corpus/subset", "03-midtrain/model/content.txt"])
def test_a_link_in_a_run_folder_is_refused(made, walk, rooms, link, tmp_path):
    outside = tmp_path / "outside"
    (made / link).rename(outside)
    (made / link).symlink_to(outside)
    before = outside.read_text() if outside.is_file() else sorted(outside.rglob("*"))
    with pytest.raises(
        ValueError, match=rf"{re.escape(link.split('/')[-1])} is (a symbolic link to|not a file of its own)"
    ):
        run(walk, "sft.learning_rate=1", force=True)
    assert before == (outside.read_text() if outside.is_file() else sorted(outside.rglob("*")))


def test_a_lock_is_a_file_of_its_own(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    (tmp_path / "run").mkdir()
    place = tmp_path / "run" / ".lock"
    for make in (place.symlink_to, place.hardlink_to, lambda mine: place.mkdir(), lambda mine: os.mkfifo(place)):
        make(mine)
        for locked in (lock(place.parent), alone(place)):
            with pytest.raises(ValueError, match=r"\.lock is not a file of its own"), locked:
                pass
        place.rmdir() if place.is_dir() else place.unlink()
    assert mine.read_text() == "precious"


def test_a_file_where_a_folder_belongs_is_named(walk, rooms, tmp_path):
    (tmp_path / "runs" / "walk").mkdir(parents=True)
    (tmp_path / "runs" / "walk" / "02-corpus").write_text("x")
    with pytest.raises(ValueError, match="02-corpus is a file, and corpus needs a folder there"):
        run(walk)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"file cannot be written: .*--set run.folder=FOLDER"):
        run(walk, f"run.folder={tmp_path}", "run.name=file")
    with pytest.raises(OSError, match=r"cannot be written: .*--set run.folder=FOLDER"):
        run(walk, f"run.folder={tmp_path / 'file'}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(made, walk, rooms):
    made.chmod(0o500)
    try:
        with pytest.raises(OSError, match=r"cannot be written: Permission denied.*give permission"):
            run(walk, "run.name=other", f"run.folder={made}")
    finally:
        made.chmod(0o700)


LIMITED = """
import resource, signal, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from whetstone.run.folder import write_json, write_text
from whetstone.run.tables import Journal, write_rows
folder = Path(sys.argv[1])
for write in (
    lambda: write_json(folder / "a.json", "x" * 5000),
    lambda: write_rows(folder / "table", [{"text": str(n)} for n in range(5000)]),
    lambda: Journal(folder / "journal.jsonl").__enter__().append([{"text": "x" * 5000}]),
):
    try:
        write()
        print("written")
    except OSError as error:
        print(type(error).__name__, error)
"""


def test_a_file_size_limit_leaves_nothing_half_written(tmp_path):
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert ended.stdout.count("DiskFull no room for ") == 3, ended.stdout + ended.stderr
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["journal.jsonl"], "its torn last line is cut off when it is read"
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal.rows == []


# --- manifests


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    written = {"kind": "sft", "outputs": {"model": "ab"}, "summary": {"loss": float("nan"), "steps": (1, 2)}}
    write_manifest(tmp_path / "manifest.json", written)
    found = read_manifest(tmp_path / "manifest.json")
    assert found["outputs"] == {"model": "ab"} and found["summary"]["steps"] == [1, 2] and found["wall_seconds"] == 0


def test_a_manifest_without_a_seal_is_read(tmp_path):
    write_json(tmp_path / "manifest.json", {"kind": "sft"})
    assert read_manifest(tmp_path / "manifest.json")["kind"] == "sft"


def test_a_table_where_a_list_belongs_is_named(tmp_path):
    write_json(tmp_path / "tripwires.json", {})
    with pytest.raises(DamagedFile, match=r"tripwires\.json is damaged: it holds a dict where a list belongs"):
        read_json(tmp_path / "tripwires.json", list)


@pytest.mark.parametrize(
    "name", ["run.json", "02-corpus/manifest.json", "03-midtrain/outputs.json", "04-sft/model/pipe"]
)
def test_a_pipe_in_a_run_folder_is_refused_and_never_waited_for(made, walk, rooms, name):
    (made / name).unlink(missing_ok=True)
    os.mkfifo(made / name)
    with pytest.raises(ValueError, match="is neither a file nor a folder"):
        run(walk)
    ended = CliRunner().invoke(app, ["report", str(made)])
    assert "is neither a file nor a folder" in str(ended.exception)


def test_a_folder_where_a_file_belongs_is_damage_with_its_name(made, walk, rooms):
    (made / "03-midtrain" / "manifest.json").unlink()
    (made / "03-midtrain" / "manifest.json").mkdir()
    with pytest.raises(ValueError, match=r"03-midtrain/manifest.json is damaged: it is a folder"):
        run(walk)


def test_a_manifest_that_does_not_name_an_output_is_not_believed(made, walk, rooms):
    path = made / "03-midtrain" / "manifest.json"
    write_manifest(path, read_manifest(path) | {"outputs": {}})
    with pytest.raises(ValueError, match=r"03-midtrain: its manifest\.json does not name its model"):
        run(walk)


@pytest.mark.parametrize("stage", ["03-midtrain", "05-report"])
def test_files_of_the_users_where_a_stage_belongs_are_kept(made, walk, rooms, stage):
    shutil.rmtree(made / stage)
    (made / stage).mkdir()
    (made / stage / "notes.txt").write_text("precious")
    run(walk, force=True)
    assert (made / f"old+{stage}" / "notes.txt").read_text() == "precious"
    assert set(states(walk).values()) == {"done"}


def test_a_stage_that_another_version_made_or_began_is_named(walk, rooms, capsys, monkeypatch):
    monkeypatch.setattr("whetstone.pipeline.machine.git_revision", lambda: "older")
    monkeypatch.setattr("whetstone.pipeline.running.git_revision", lambda: "older")
    with pytest.raises(KeyboardInterrupt):
        run(walk, "questions.stop_after=1")
    started = walk.parent / "runs" / "walk" / "01-questions" / "started.json"
    write_manifest(started, read_manifest(started) | {"computed_on": []})  # as versions before wrote it
    run(walk, "questions.stop_after=1")
    assert "warning: 01-questions was begun by an older version of Whetstone. Its result" in capsys.readouterr().err
    monkeypatch.setattr("whetstone.pipeline.machine.git_revision", lambda: "newer")
    run(walk, "questions.stop_after=1")
    note = "note: made by another version of Whetstone than this one (newer), and kept: questions, corpus, "
    note += "midtrain, sft, report by older"
    assert note in capsys.readouterr().err
