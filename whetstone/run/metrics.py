"""Numbers a step, in `metrics.jsonl`: one JSON object a line, `step` first, flushed as it is written.

with Metrics(stage.folder) as metrics:
    metrics.rewind(checkpoint_step)  # after a resume: later lines are about to be written again
    metrics.log(step, loss=loss, learning_rate=rate)
"""

import json
import math
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

FILE_NAME = "metrics.jsonl"


class Sink(Protocol):
    """Where else the numbers go: a tracker. `rewind` tells it that steps after `step` come again."""

    def log(self, step: int, values: dict[str, Any]) -> None: ...

    def rewind(self, step: int) -> None: ...

    def close(self) -> None: ...


class Metrics:
    """Appends to `folder/metrics.jsonl` and hands the same numbers to every sink."""

    def __init__(self, folder: Path, sinks: Sequence[Sink] = ()):
        self.path = Path(folder) / FILE_NAME
        self.sinks = list(sinks)

    def __enter__(self) -> "Metrics":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._keep(None)
        self._out = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        for sink in self.sinks:
            sink.close()

    def log(self, step: int, **values: Any) -> None:
        """Numbers may be Python's, numpy's or one-element tensors; NaN and infinity are written as their names."""
        row = {name: _plain(value) for name, value in values.items()}
        self._out.write(json.dumps({"step": step, **row}, ensure_ascii=False) + "\n")
        self._out.flush()
        for sink in self.sinks:
            sink.log(step, row)

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after `step`: a resumed run writes them again."""
        self._out.close()
        self._keep(step)
        self._out = self.path.open("a", encoding="utf-8")
        for sink in self.sinks:
            sink.rewind(step)

    def _keep(self, last_step: int | None) -> None:
        """Rewrite the file without a torn last line and without steps after `last_step`."""
        if not self.path.exists():
            return
        whole = _whole_lines(self.path)
        kept = [line for line in whole if last_step is None or json.loads(line)["step"] <= last_step]
        if sum(len(line.encode()) for line in kept) != self.path.stat().st_size:
            beside = self.path.with_name(FILE_NAME + ".part")
            beside.write_text("".join(kept), encoding="utf-8")
            beside.replace(self.path)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All whole lines; an empty list where the stage has written none yet. A run in progress may be read."""
    path = Path(folder) / FILE_NAME
    return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []


def _whole_lines(path: Path) -> list[str]:
    """Up to the first line without an end: a kill tore it, or it is being written, and its rest is no line of its own."""
    with path.open("rb") as lines:
        return [line.decode() for line in takewhile(lambda line: line.endswith(b"\n"), lines)]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
