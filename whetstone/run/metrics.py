"""The numbers of each step, in `metrics.jsonl`: a JSON object per line, `step` first, flushed as it is written.

    with Metrics(stage.folder) as metrics:
        metrics.rewind(checkpoint_step)  # after a resume: later lines will be written again
        metrics.log(step, loss=loss, learning_rate=rate)

The same numbers go to the trackers in `[run] trackers` (run/trackers.py). A tracker gets each step once, however often training
is killed or goes back: steps that are repeated give the same numbers, to the bit on a CPU.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from whetstone.run.disk import disk_full_explained
from whetstone.run.folder import write_text
from whetstone.run.trackers import Tracker

FILE_NAME = "metrics.jsonl"


class Metrics:
    """Appends to `folder/metrics.jsonl` and passes the same numbers to every tracker."""

    def __init__(self, folder: Path, trackers: Sequence[Tracker] = ()):
        self.path = Path(folder) / FILE_NAME
        self.trackers = list(trackers)

    def __enter__(self) -> "Metrics":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._reached = self._keep(None)  # the last step that the trackers have
        self._out = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # On a full disk closing writes the last line, and fails again
        with contextlib.suppress(*[OSError] if kind else []):
            self._out.close()
        with contextlib.redirect_stdout(sys.stderr):
            for tracker in self.trackers:
                tracker.finish()

    def log(self, step: int, **values: Any) -> None:
        """Numbers may be Python's, numpy's or one-element tensors; NaN and infinity are written as their names."""
        row = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"step": step, **row}, ensure_ascii=False) + "\n"
        with disk_full_explained(f"a line of {FILE_NAME}", self.path.parent, len(line)):
            self._out.write(line)
            self._out.flush()
        if step > self._reached:
            self._reached = step
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
            for tracker in self.trackers:
                tracker.log(numbers, step=step)

    def sync(self) -> None:
        """Force the lines onto the disk. Before a checkpoint, so that a power loss loses no line of its steps."""
        os.fsync(self._out.fileno())

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after `step`, which a resumed run writes again."""
        self._out.close()
        self._keep(step)
        self._out = self.path.open("a", encoding="utf-8")

    def _keep(self, last_step: int | None) -> int:
        """Rewrite the file without an incomplete last line and steps after `last_step`. Returns the last step it had."""
        if not self.path.exists():
            return 0
        lines = _complete_lines(self.path)
        steps = [row["step"] for row in _rows(self.path, lines)]
        kept = [line for line, step in zip(lines, steps, strict=True) if last_step is None or step <= last_step]
        if sum(len(line.encode()) for line in kept) != self.path.stat().st_size:
            write_text(self.path, "".join(kept))
        return max(steps, default=0)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All complete lines; an empty list if the stage has written none yet. A run in progress may be read."""
    path = Path(folder) / FILE_NAME
    return _rows(path, _complete_lines(path)) if path.exists() else []


def _rows(path: Path, lines: Iterable[str]) -> list[dict[str, Any]]:
    """Raises ValueError for a line that is damaged."""
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line.encode())  # of bytes that are no UTF-8: an error
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            raise ValueError(
                f"{path}, line {number}, is damaged: a line is a JSON table with its step. Put back the file as it was, or "
                "delete the line: only its numbers are lost."
            )
        rows.append(row)
    return rows


def _complete_lines(path: Path) -> list[str]:
    """The lines before the first without an end, which a kill cut off or which is being written."""
    with path.open("rb") as lines:
        return [line.decode(errors="surrogateescape") for line in takewhile(lambda line: line.endswith(b"\n"), lines)]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
