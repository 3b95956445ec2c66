"""Numbers a step, in `metrics.jsonl`: one JSON object a line, `step` first, flushed as it is written.

with Metrics(stage.folder) as metrics:
    metrics.rewind(checkpoint_step)  # after a resume: later lines are about to be written again
    metrics.log(step, loss=loss, learning_rate=rate)

The same numbers go to the trackers that `[run] trackers` names. A tracker gets each step once, however often training is
killed or goes back: steps that come again are the same ones to the bit on a CPU.
"""

import contextlib
import importlib.util
import json
import math
import os
import sys
import uuid
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from whetstone.run.disk import told_when_full
from whetstone.run.folder import Stage, read_json, write_json

FILE_NAME = "metrics.jsonl"


class Sink(Protocol):
    """Where else the numbers go: a tracker. `rewind` tells it that steps after `step` come again, up to `reached`."""

    def log(self, step: int, values: dict[str, Any]) -> None: ...

    def rewind(self, step: int, reached: int) -> None: ...

    def sync(self) -> None: ...

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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*[OSError] if kind else []):  # on a full disk the last line fails once more
            self._out.close()
        for sink in self.sinks:
            sink.close()

    def log(self, step: int, **values: Any) -> None:
        """Numbers may be Python's, numpy's or one-element tensors; NaN and infinity are written as their names."""
        row = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"step": step, **row}, ensure_ascii=False) + "\n"
        with told_when_full(f"a line of {FILE_NAME}", len(line), self.path.parent):
            self._out.write(line)
            self._out.flush()
        for sink in self.sinks:
            sink.log(step, row)

    def sync(self) -> None:
        """Onto the disk: before a checkpoint, so that no line of a step it holds is lost with the machine."""
        os.fsync(self._out.fileno())
        for sink in self.sinks:
            sink.sync()

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after `step`: a resumed run writes them again."""
        self._out.close()
        reached = self._keep(step)
        self._out = self.path.open("a", encoding="utf-8")
        for sink in self.sinks:
            sink.rewind(step, reached)

    def _keep(self, last_step: int | None) -> int:
        """Rewrite the file without a torn last line and without steps after `last_step`. Returns the last there was."""
        if not self.path.exists():
            return 0
        whole = _whole_lines(self.path)
        steps = [json.loads(line)["step"] for line in whole]
        kept = [line for line, step in zip(whole, steps, strict=True) if last_step is None or step <= last_step]
        if sum(len(line.encode()) for line in kept) != self.path.stat().st_size:
            beside = self.path.with_name(FILE_NAME + ".part")
            beside.write_text("".join(kept), encoding="utf-8")
            beside.replace(self.path)
        return max(steps, default=0)


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


# --- trackers


def require_trackers(names: Iterable[str]) -> None:
    """Raises ImportError, with the line that installs it, for one that is not there."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f"[run] trackers names {name}, which is not installed. Install it with\n"
                f'    pip install "whetstone[{name}]"\nor leave it out of the recipe.'
            )


def open_sinks(stage: Stage) -> list[Sink]:
    """The trackers that the recipe names, open for a stage: a run of its own in each, which a resumed stage goes on with."""
    names = stage.run.trackers
    require_trackers(names)
    if not names:
        return []
    identity = stage.folder / "trackers.json"  # goes with the folder: a stage made again is another run
    if not identity.exists():
        write_json(identity, {"id": uuid.uuid4().hex[:8]})
    name = f"{stage.name}-{read_json(identity)['id']}"
    made: dict[str, type[TensorBoard | WandB | Trackio]] = {
        "tensorboard": TensorBoard,
        "wandb": WandB,
        "trackio": Trackio,
    }
    return [made[tracker](stage, name) for tracker in names]


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


class TensorBoard:
    """In `tensorboard/` of the stage's folder: `tensorboard --logdir runs/NAME` shows all stages.

    What comes again is purged from what it shows, as TensorBoard means it to be (`purge_step`).
    """

    def __init__(self, stage: Stage, name: str):
        self.folder = stage.folder / "tensorboard"
        self._writer: Any = None

    def _open(self, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=purge_step)

    def log(self, step: int, values: dict[str, Any]) -> None:
        if self._writer is None:
            self._open()
        for name, value in _numbers(values).items():
            self._writer.add_scalar(name, value, step)

    def rewind(self, step: int, reached: int) -> None:
        self.close()
        self._open(step + 1 if reached > step else None)

    def sync(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _AppendOnly:
    """Nothing can be taken back from it, so it is not given again what it has."""

    def __init__(self) -> None:
        self._has = 0
        self._run: Any = None

    def log(self, step: int, values: dict[str, Any]) -> None:
        if step > self._has:
            self._has = step
            self._run.log(_numbers(values), step=step)

    def rewind(self, step: int, reached: int) -> None:
        self._has = max(self._has, reached)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


class WandB(_AppendOnly):
    """A run of the project that has the recipe's name; `WANDB_MODE=offline` keeps it in the stage's folder."""

    def __init__(self, stage: Stage, name: str):
        super().__init__()
        import wandb

        self._run = wandb.init(
            project=stage.run.name,
            name=stage.name,
            id=name,
            dir=str(stage.folder),
            resume="allow",
            config=stage.settings.model_dump(mode="json"),
            settings=wandb.Settings(console="off", silent=True),
        )


class Trackio(_AppendOnly):
    """A run of the project that has the recipe's name, where trackio keeps its data (`TRACKIO_DIR`)."""

    def __init__(self, stage: Stage, name: str):
        super().__init__()
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            self._run = trackio.init(
                project=stage.run.name,
                name=name,
                resume="allow",
                embed=False,
                config=stage.settings.model_dump(mode="json"),
            )

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            super().close()
