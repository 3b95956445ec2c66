"""A run as it stands, read from its folder while another process works in it: for `whetstone watch` and for the page.

Nothing is locked and nothing is written. A file that is being written, or that was replaced meanwhile, is read again next time.
"""

import json
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whetstone.run.folder import MANIFEST, NEW, SCORES, STARTED, read_json
from whetstone.run.manifest import read_manifest, read_scores
from whetstone.run.metrics import FILE_NAME, read_metrics
from whetstone.run.tables import opened

POINTS = 600  # of a curve; a longer one is thinned
TAIL = 1 << 20  # bytes at the end of a journal that are read
# not shown as curves: they count, or say what the table says
UNCHARTED = frozenset({"step", "tokens", "seconds_left", "memory", "mfu", "padding", "tokens_per_cpu_second"})


@dataclass(frozen=True)
class StageView:
    """A stage. `status`: done, running, scoring, interrupted or to do; `steps` is 0 if it is not known."""

    name: str
    kind: str
    status: str
    folder: Path | None = None
    step: int = 0
    steps: int = 0
    seconds: float = 0.0  # of wall time; of a stage under way that are left, as it estimates them
    numbers: dict[str, float] = field(default_factory=dict)  # of its last step
    finished: bool = False  # its own work is; it may still be scored


@dataclass(frozen=True)
class RunView:
    name: str
    running: bool  # whether a process works on it
    stages: list[StageView]
    scores: list[dict[str, Any]]

    @property
    def current(self) -> StageView | None:
        """The one under way, or else the last that trained."""
        begun = sorted((stage for stage in self.stages if stage.folder is not None), key=lambda stage: stage.step > 0)
        return next(
            (stage for stage in begun if stage.status in ("running", "scoring", "interrupted")),
            begun[-1] if begun else None,
        )

    @property
    def complete(self) -> bool:
        return bool(self.stages) and all(stage.status == "done" for stage in self.stages)


def read_run(folder: Path) -> RunView:
    """Raises FileNotFoundError for a folder without a run, DamagedFile."""
    if not (folder / "run.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no run (no run.json): name the folder of a run that has begun, for instance runs/tiny."
        )
    run = read_json(folder / "run.json")
    running = _is_running(folder)
    scoring = _being_scored(folder)
    found = [_stage(path, running, scoring) for path in _folders(folder)]
    names = {stage.name for stage in found}
    listed = run.get("recipe", {}).get("stage", [])
    todo = [StageView(row["name"], row["kind"], "to do") for row in listed if row["name"] not in names]
    scores = read_scores(folder / SCORES) if (folder / SCORES).exists() else []
    return RunView(str(run.get("name", folder.name)), running, [*found, *todo], scores)


def _folders(run: Path) -> list[Path]:
    """Of the stages that have begun, in order; new work in place of the old."""
    found = {path.name: path for path in run.glob("[0-9]*-*") if path.is_dir()}
    found |= {path.name.removeprefix(NEW): path for path in run.glob(f"{NEW}[0-9]*-*") if path.is_dir()}
    begun = [path for path in found.values() if (path / MANIFEST).exists() or (path / STARTED).exists()]
    return sorted(begun, key=lambda path: int(path.name.removeprefix(NEW).partition("-")[0]))


def _being_scored(run: Path) -> set[str]:
    """The stages whose scores have begun and are not complete. The base is scored after the first stage that trains."""
    return {path.parent.name.removeprefix(NEW) for path in (run / "scores").glob(f"*/{STARTED}")}


def _stage(folder: Path, running: bool, scoring: Collection[str] = ()) -> StageView:
    done = (folder / MANIFEST).exists()
    name = folder.name.removeprefix(NEW).partition("-")[2]
    unscored = name in scoring or ("base" in scoring and (folder / "model").is_dir())
    under_way = ("scoring" if done else "running") if running else "interrupted"
    facts = read_manifest(folder / (MANIFEST if done else STARTED))
    last = _last_row(folder / FILE_NAME)
    return StageView(
        name=name,
        kind=facts["kind"],
        status="done" if done and not unscored else under_way,
        folder=folder,
        step=int(last.get("step", 0)),
        steps=int(last.get("step", 0)) if done else int(facts["settings"].get("steps") or 0),
        seconds=facts["wall_seconds"] if done else float(last.get("seconds_left") or 0),
        numbers={name: value for name, value in last.items() if _is_number(value)},
        finished=done,
    )


def _is_running(run: Path) -> bool:
    """Whether the process that locked the run last is alive."""
    try:
        os.kill(int((run / ".lock").read_text(encoding="utf-8")), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def curves(stage: Path) -> dict[str, Any]:
    """{"step": [...], "series": {name: [number or None, ...]}}, at most POINTS of each."""
    rows = read_metrics(stage)
    thinned = _thinned(rows, POINTS)
    names = dict.fromkeys(name for row in rows for name in row if name not in UNCHARTED)
    series = {name: [_charted(row.get(name)) for row in thinned] for name in names}
    varied = {name: values for name, values in series.items() if len(set(values) - {None}) > 1}
    return {"step": [row["step"] for row in thinned], "series": varied}


def _charted(value: Any) -> float | None:
    return value if _is_number(value) else None


def _thinned(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The last of each of `most` equal parts, so that the newest is always there."""
    count = min(most, len(rows))
    return [rows[(part + 1) * len(rows) // count - 1] for part in range(count)]


def _last_row(metrics: Path) -> dict[str, Any]:
    """The last that is whole: what is damaged is the run's own matter."""
    rows = [
        row for row in _tail(metrics) if _is_number(row.get("step", 0)) and _is_number(row.get("seconds_left") or 0)
    ]
    return rows[-1] if rows else {}


def _tail(path: Path) -> list[dict[str, Any]]:
    """The complete lines at the end of a journal, as far as TAIL reaches; [] if it is not there."""
    try:
        with path.open("rb") as lines:
            size = lines.seek(0, os.SEEK_END)
            lines.seek(max(0, size - TAIL))
            text = lines.read()
    except OSError:
        return []
    parts = text.split(b"\n")[0 if size <= TAIL else 1 : -1]
    rows = []
    for part in parts:
        try:
            rows.append(json.loads(part))
        except (ValueError, RecursionError):
            continue  # damaged: the run itself refuses it
    return [row for row in rows if isinstance(row, dict)]


# --- what was sampled last


def last_groups(stage: Path, most: int) -> list[dict[str, Any]]:
    """The last answers of a stage, by problem: {"question", "gold", "step", "rollouts": [{"text", "correct", "reward", …}]}."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in _sampled(stage):
        key = row.get("step"), row.get("problem_id")
        facts = {name: row.get(name) for name in ("problem_id", "question", "gold", "step", "level")}
        group = groups.setdefault(key, facts | {"rollouts": []})
        group["rollouts"].append({name: row[name] for name in ANSWER if row.get(name) is not None})
    return list(groups.values())[-most:]


ANSWER = ("index", "text", "answer", "correct", "reason", "reward", "tokens", "stop", "trained")


def _sampled(stage: Path) -> Iterator[dict[str, Any]]:
    """The rows of the newest shard of its rollouts, or of the end of its journal."""
    shards = list((stage / "rollouts").glob("part-*.parquet"))
    journals = [path for path in stage.glob("*.jsonl") if path.name != FILE_NAME]
    try:
        if shards:
            yield from _shard(max(shards, key=lambda path: (len(path.name), path.name)))
        elif journals:
            for line in _tail(max(journals, key=lambda path: path.stat().st_mtime)):
                yield from _answers(line)
    except (OSError, ValueError):  # replaced or removed meanwhile, or damaged
        return


def _shard(path: Path) -> list[dict[str, Any]]:
    with opened(path) as table:
        last = table.metadata.num_row_groups - 1
        return table.read_row_group(last).slice(max(0, table.metadata.row_group(last).num_rows - 1000)).to_pylist()


def _answers(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of a line that holds one, or several of a problem."""
    if isinstance(line.get("text"), str):
        yield line
    for name in ("traces", "rollouts"):
        for row in line.get(name) or ():
            if isinstance(row, dict):
                yield {"problem_id": line.get("problem_id")} | row


def as_json(view: RunView) -> dict[str, Any]:
    """For the page."""
    stages = [
        {
            "name": stage.name,
            "kind": stage.kind,
            "status": stage.status,
            "finished": stage.finished,
            "step": stage.step,
            "steps": stage.steps,
            "seconds": stage.seconds,
            "numbers": stage.numbers,
        }
        for stage in view.stages
    ]
    current = view.current
    return {
        "name": view.name,
        "running": view.running,
        "stages": stages,
        "scores": view.scores,
        "current": current.name if current else "",
    }
