"""TensorBoard, W&B and trackio: the numbers of a run's stages under `STAGE/METRIC`, and its scores with answers to read.

A stage is a run of its own in each tracker, in the project with the recipe's name, and is continued when the stage is resumed.
The scores of all models are one more run, `scores`, whose step is the number of the stage (0: the base).
"""

import contextlib
import importlib.util
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.mistakes import install_hint
from whetstone.run.settings import RunSettings
from whetstone.run.visible import visible

SCORES_RUN = "scores"


class Tracker(Protocol):
    """It is given no step twice."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        """Rows of text, all with the same columns."""

    def finish(self) -> None: ...


def require_trackers(names: Iterable[str]) -> None:
    """Raises ImportError, with the command that installs it, for a tracker that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f"[run] trackers names {name}, which is not installed. Install it with\n"
                f"    {install_hint(name)}\nor leave it out of the recipe."
            )


def open_trackers(stage: Stage) -> list[Tracker]:
    """The recipe's trackers, open for a stage, whose name stands before each metric."""
    config = stage.settings.model_dump(mode="json")
    return [
        Named(one, stage.name) for one in opened(stage.run.trackers, stage.run.name, stage.name, stage.folder, config)
    ]


def opened(names: Sequence[str], project: str, name: str, folder: Path, config: dict[str, Any]) -> list[Tracker]:
    """The trackers with these names, open for one run of the project."""
    require_trackers(names)
    if not names:
        return []
    identity = folder / "trackers.json"  # deleted with the folder: a stage that is made again is another run
    if not identity.exists():
        write_json(identity, {"id": uuid.uuid4().hex[:8]})
    key = f"{name}-{read_json(identity, needed=['id'])['id']}"
    openers = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
    return [openers[tracker](project, name, key, folder, config) for tracker in names]


def track_scores(
    run: RunSettings,
    folder: Path,
    place: int,
    scores: Sequence[dict[str, Any]],
    answers: dict[str, Any],
    control: str = "",
) -> None:
    """The scores of one model, whose stage has the number `place`. `answers` are rows to read, by problem set. A control has
    a tracker's run of its own, as it shares the number of its stage.
    """
    name = f"{SCORES_RUN}-{control}" if control else SCORES_RUN
    with contextlib.redirect_stdout(sys.stderr):
        for tracker in opened(run.trackers, run.name, name, folder, {}):
            tracker.log({f"{name}/{key}": value for score in scores for key, value in _numbers(score)}, step=place)
            for benchmark, rows in answers.items():
                tracker.table(f"{name}/{benchmark}/answers", rows, step=place)
            tracker.finish()


def _numbers(score: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in score.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{score['benchmark']}/{key}", float(value)


class Named:
    """A tracker that puts a name before those of the metrics."""

    def __init__(self, tracker: Tracker, name: str):
        self.tracker, self.name = tracker, name

    def log(self, values: dict[str, float], step: int) -> None:
        self.tracker.log({f"{self.name}/{key}": value for key, value in values.items()}, step=step)

    def table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        self.tracker.table(f"{self.name}/{name}", rows, step=step)

    def finish(self) -> None:
        self.tracker.finish()


class TensorBoard:
    """Writes to `tensorboard/` in the folder. `tensorboard --logdir runs/NAME` shows all stages."""

    def __init__(self, project: str, name: str, key: str, folder: Path, config: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a kill loses no step

    def table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        parts = [f"**{key}**\n\n<pre>{escape(_text(value))}</pre>" for row in rows for key, value in row.items()]
        self._writer.add_text(name, "\n\n".join(parts), step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


class WandB:
    """A run in W&B. `WANDB_MODE=offline` keeps it in the folder."""

    def __init__(self, project: str, name: str, key: str, folder: Path, config: dict[str, Any]):
        import wandb

        quiet = wandb.Settings(console="off", silent=True)
        given = {"name": name, "id": key, "dir": str(folder), "settings": quiet, "config": config}
        self._run = wandb.init(project=project, resume="allow", **given)

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        import wandb

        data = [[_text(value) for value in row.values()] for row in rows]
        self._run.log({name: wandb.Table(columns=list(rows[0]) if rows else [], data=data)}, step=step)

    def finish(self) -> None:
        self._run.finish()


class Trackio:
    """A run in trackio's own folder (`TRACKIO_DIR`)."""

    def __init__(self, project: str, name: str, key: str, folder: Path, config: dict[str, Any]):
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            self._run = trackio.init(project, name=key, resume="allow", embed=False, config=config)

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def table(self, name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
        import trackio

        data = [[_text(value) for value in row.values()] for row in rows]
        self._run.log({name: trackio.Table(columns=list(rows[0]) if rows else [], data=data)}, step=step)

    def finish(self) -> None:
        self._run.finish()


def _text(value: Any) -> str:
    return visible(str(value))
