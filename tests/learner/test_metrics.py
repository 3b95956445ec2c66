"""metrics.jsonl may be read while a stage writes it."""

import json
from pathlib import Path

import pytest

from whetstone.run.metrics import Metrics, read_metrics


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_is_being_written_is_not_there_yet(tmp_path, monkeypatch, cut):
    """The reader comes to the end of the file, the writer goes on, and the reader finds the rest of the line."""
    lines = [json.dumps({"step": step}).encode() + b"\n" for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))

    class Growing(list):
        __enter__ = lambda self: iter(self)  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(Path, "open", lambda *_, **__: Growing([lines[0], lines[1][:cut], lines[1][cut:]]))
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_a_resumed_stage_drops_what_it_writes_again(tmp_path):
    with Metrics(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.log(step, loss=1.0 / step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with Metrics(tmp_path) as metrics:
        metrics.rewind(2)
        metrics.log(3, loss=float("nan"))
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": "nan"}]
