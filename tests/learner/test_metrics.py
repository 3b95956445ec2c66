"""metrics.jsonl may be read while a stage writes it; trackers get each step once."""

import importlib.util
import json
import struct
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.scripted import stage
from whetstone.run.disk import DiskFull
from whetstone.run.folder import Stage
from whetstone.run.metrics import Metrics, read_metrics
from whetstone.run.settings import StageSettings
from whetstone.run.trackers import open_trackers, track_scores


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_is_being_written_is_not_read_yet(tmp_path, monkeypatch, cut):
    """The reader reaches the end of the file, the writer continues, and the reader gets the whole line."""
    lines = [json.dumps({"step": step}).encode() + b"\n" for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))

    class Growing(list):
        __enter__ = lambda self: iter(self)  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(Path, "open", lambda *_, **__: Growing([lines[0], lines[1][:cut], lines[1][cut:]]))
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_a_resumed_stage_drops_the_lines_that_it_writes_again(tmp_path):
    with Metrics(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.log(step, loss=1.0 / step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with Metrics(tmp_path) as metrics:
        metrics.rewind(2)
        metrics.log(3, loss=float("nan"))
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": "nan"}]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_a_full_disk_is_reported_and_the_torn_line_is_written_again(tmp_path):
    """The kernel writes nine bytes of the second line and refuses the rest."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(DiskFull, match=r"no room for a line of metrics.jsonl"), Metrics(tmp_path) as metrics:
            metrics.log(1, loss=1.0)
            size = metrics.path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, before[1]))
            metrics.log(2, loss=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert metrics.path.read_bytes()[size:] == b'{"step": '
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}]
    with Metrics(tmp_path) as metrics:
        metrics.log(2, loss=0.5)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


# --- trackers


def tracked(folder: Path, *names: str) -> Stage:
    plain = stage(folder, StageSettings(kind="walk"))
    run = plain.run.model_copy(update={"trackers": names})
    return Stage(plain.name, plain.kind, folder, plain.settings, {}, run, plain.model, plain.parallel, plain.scores)


def killed_and_resumed(one: Stage, pause: float = 0) -> None:
    """Steps 1 to 5, of which a resumed run writes 4 and 5 again, goes on to 7, goes back to 6 once more, and ends with 8."""
    with Metrics(one.folder, open_trackers(one)) as metrics:
        metrics.rewind(0)
        for step in range(1, 6):
            metrics.log(step, loss=1 / step, note="a word is no number")
        metrics.sync()
    time.sleep(pause)
    with Metrics(one.folder, open_trackers(one)) as metrics:
        metrics.rewind(3)
        for step in range(4, 8):
            metrics.log(step, loss=1 / step)
        metrics.rewind(6)
        for step in (7, 8):
            metrics.log(step, loss=1 / step)


EACH_STEP_ONCE = [(step, 1 / step) for step in range(1, 9)]


def test_tensorboard_shows_each_step_once(tmp_path):
    pytest.importorskip("tensorboard", reason="an extra: pip install whetstone-reasoner[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one = tracked(tmp_path / "walk", "tensorboard")
    killed_and_resumed(one)
    shown = EventAccumulator(str(one.folder / "tensorboard")).Reload()
    assert shown.Tags()["scalars"] == ["walk/loss"], "a metric bears the name of its stage"
    assert [(event.step, event.value) for event in shown.Scalars("walk/loss")] == [
        (step, pytest.approx(loss, rel=1e-6)) for step, loss in EACH_STEP_ONCE
    ]


@pytest.mark.slow
def test_wandb_gets_each_step_once(tmp_path, monkeypatch):
    """Offline: what would be sent is in files, one for each start of the same run."""
    pytest.importorskip("wandb", reason="an extra: pip install whetstone-reasoner[wandb]")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    one = tracked(tmp_path / "walk", "wandb")
    killed_and_resumed(one, pause=1.1)  # its files are named by the second
    ended, until = [], time.monotonic() + 120
    while len(ended) < 2 and time.monotonic() < until:  # a process of its own writes them, and may be slow
        files = sorted(one.folder.glob("wandb/offline-run-*/*.wandb"))
        written = [[Record.FromString(record) for record in records(path.read_bytes())] for path in files]
        ended = [file for file in written if any(record.HasField("exit") for record in file)]
    sent, runs = [], set()
    for record in chain.from_iterable(written):
        runs |= {record.run.run_id} - {""}
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        if "walk/loss" in items:
            sent.append((items["_step"], items["walk/loss"]))
    assert sent == EACH_STEP_ONCE
    assert len(runs) == 1 and runs.pop().startswith("walk-")


def records(log: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, as W&B writes it after seven bytes: blocks of 32 KiB, headers of seven bytes."""
    at, whole = 7, b""
    while at + 7 <= len(log):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
        size, kind = struct.unpack_from("<HB", log, at + 4)
        whole += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.slow
def test_trackio_gets_each_step_once(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="an extra: pip install whetstone-reasoner[trackio]")
    import sqlite3

    from trackio import sqlite_storage, utils

    for module in (utils, sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    killed_and_resumed(tracked(tmp_path / "walk", "trackio"))
    (path,) = (tmp_path / "trackio").glob("test*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert [(step, json.loads(metrics)["walk/loss"]) for _, step, metrics in rows] == EACH_STEP_ONCE
    assert len({name for name, *_ in rows}) == 1
    score = {"benchmark": "b", "mean": 0.5}
    track_scores(tracked(tmp_path, "trackio").run, tmp_path, 4, [score], {"b": [{"question": "1+1?", "correct": True}]})
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "select step, metrics from metrics where run_name like 'scores-%' order by id"
        ).fetchall()
    assert [(step, json.loads(metrics)) for step, metrics in rows] == [
        (4, {"scores/b/mean": 0.5}),
        (4, {"scores/b/answers": {"_type": "trackio.table", "_value": [{"question": "1+1?", "correct": "True"}]}}),
    ]


def test_a_tracker_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r'not installed. Install it with\n    pip install "whetstone-reasoner\[wandb\]"'
    ):
        open_trackers(tracked(tmp_path / "walk", "wandb"))


def test_a_stage_made_again_is_another_run_of_its_trackers(tmp_path):
    pytest.importorskip("tensorboard", reason="an extra: pip install whetstone-reasoner[tensorboard]")
    ids = set()
    for name in ("first", "first", "second"):
        open_trackers(tracked(tmp_path / name, "tensorboard"))
        ids.add((tmp_path / name / "trackers.json").read_text())
    assert len(ids) == 2


def test_trackers_get_the_scores_of_each_stage_and_answers_to_read(tmp_path):
    pytest.importorskip("tensorboard", reason="an extra: pip install whetstone-reasoner[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tracked(tmp_path, "tensorboard").run
    for place, mean in ((0, 0.1), (4, 0.6)):
        score = {"benchmark": "b", "stage": "sft", "main": True, "mean": mean, "low": 0.0, "pass_at_k": {}}
        track_scores(run, tmp_path, place, [score], {"b": [{"question": "<b>1+1?\x1b[2J", "text": "2"}]})
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert shown.Tags()["scalars"] == ["scores/b/mean", "scores/b/low"]
    assert [(event.step, round(event.value, 3)) for event in shown.Scalars("scores/b/mean")] == [(0, 0.1), (4, 0.6)]
    (text, *_) = (event.tensor_proto.string_val[0].decode() for event in shown.Tensors("scores/b/answers/text_summary"))
    assert "&lt;b&gt;1+1?\\x1b[2J" in text, "a model's text is no markup"
