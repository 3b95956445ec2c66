"""What each training stage logged, by step: the most important numbers first, the others folded."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import count
from typing import Any

from whetstone.report.charts import Line, finite, is_noisy, legend, line_chart, moving_mean, thin
from whetstone.report.numbers import label, panel, section
from whetstone.report.read import RunRecord, StageRecord

POINTS_TO_ZOOM = 1200  # of a line

# By kind: (title, names of the metrics in the panel, in percent?). Names that a stage did not log are skipped.
PANELS: dict[str, list[tuple[str, tuple[str, ...], bool]]] = {
    "midtrain": [("Loss, nats per token", ("loss", "validation_loss"), False)],
    "sft": [("Loss, nats per token", ("loss", "validation_loss"), False)],
    "dpo": [
        ("Pairs in the right order", ("accuracy",), True),
        ("Log-probability, nats per token", ("chosen_logprob", "rejected_logprob"), False),
        ("Implicit reward", ("chosen_reward", "rejected_reward"), False),
        ("Margin", ("margin",), False),
        ("Loss", ("loss",), False),
    ],
    "rl": [
        ("Accuracy of the rollouts", ("accuracy", "verified_accuracy"), True),
        ("Reward", ("reward",), False),
        ("Entropy, nats per token", ("entropy",), False),
        ("Response length, tokens", ("response_length",), False),
        ("Truncated", ("truncated",), True),
        ("Kept for training", ("kept_groups", "kept_rollouts"), True),
        ("Temperature", ("temperature",), False),
        ("Gap between sampler and trainer, nats", ("sampler_gap", "mismatch"), False),
        ("Time that training waits for rollouts", ("waiting",), True),
        ("Age of the weights that sampled, steps", ("staleness",), False),
    ],
    "distill": [
        ("Accuracy of the rollouts", ("accuracy",), True),
        ("Loss", ("loss",), False),
        ("Entropy, nats per token", ("entropy",), False),
        ("Response length, tokens", ("response_length",), False),
        ("Truncated", ("truncated",), True),
    ],
    "reward": [
        ("Pairs in the right order", ("accuracy",), True),
        ("Reward", ("chosen_reward", "rejected_reward"), False),
        ("Margin", ("margin",), False),
        ("Loss", ("loss",), False),
    ],
}
OF_ANY_KIND = [("Loss", ("loss", "validation_loss"), False)]


@dataclass(frozen=True)
class Panel:
    title: str
    lines: list[Line]
    percent: bool = False
    log: bool = False


@dataclass(frozen=True)
class Curves:
    """The panels of one stage; `steps` is the axis that they share."""

    stage: StageRecord
    first: list[Panel]
    more: list[Panel]  # folded
    steps: tuple[float, float]


# Metrics in other units than they are logged in: (title, factor, in percent?)
UNITS = {
    "memory": ("memory, GiB", 2**-30, False),
    "seconds_left": ("time left, minutes", 1 / 60, False),
    "mfu": ("model FLOPs utilisation", 1.0, True),
    "padding": ("padding", 1.0, True),
}


def curves(run: RunRecord) -> str:
    pipeline, parts, number = run.pipeline, [], count()
    for drawn in stage_curves(run):
        place = "" if drawn.stage in pipeline else "control"
        first, more = ([_panel(one, drawn.steps, next(number)) for one in part] for part in (drawn.first, drawn.more))
        parts += [f"<h3>{label(drawn.stage.name, drawn.stage, place)}</h3>", _grid(first), _folded(more)]
    hint = '<p class="note interactive">Drag over a chart to zoom, double-click to see all steps again.</p>'
    return section("curves", "Curves", hint, *parts) if parts else ""


def stage_curves(run: RunRecord) -> list[Curves]:
    """Of each stage that logged something, those of the pipeline first. Beside another run, its stage of the same name has its
    lines in the same panels.
    """
    pipeline = run.pipeline
    stages = [*pipeline, *(stage for stage in run.training if stage not in pipeline)]
    others = {stage.name: stage for stage in run.beside.training} if run.beside else {}
    return [drawn for stage in stages if (drawn := _stage_curves(run, stage, others.get(stage.name)))]


def _stage_curves(run: RunRecord, stage: StageRecord, other: StageRecord | None) -> Curves | None:
    logged = {run.name: stage.metrics()} | ({run.beside.name: other.metrics()} if run.beside and other else {})
    names = dict.fromkeys(
        name for rows in logged.values() for row in rows for name, value in row.items() if _is_number(value)
    )
    first, shown = [], {"step"}
    for heading, keys, percent in PANELS.get(stage.kind, OF_ANY_KIND):
        if there := [key for key in keys if key in names]:
            first.append(_drawn(heading, there, logged, percent))
            shown.update(there)
    more = [_alone(name, logged) for name in names if name not in shown]
    steps = [row["step"] for rows in logged.values() for row in rows if _is_number(row.get("step"))]
    first, more = ([one for one in part if one.lines] for part in (first, more))
    return Curves(stage, first, more, (min(steps), max(steps))) if first or more else None


def _alone(name: str, logged: dict[str, list[dict[str, Any]]]) -> Panel:
    title, factor, percent = UNITS.get(name, (_words(name), 1.0, False))
    drawn = _drawn(title, [name], logged, percent)
    return replace(drawn, lines=[replace(line, ys=[y * factor for y in line.ys]) for line in drawn.lines])


def _drawn(title: str, names: Sequence[str], logged: dict[str, list[dict[str, Any]]], percent: bool = False) -> Panel:
    several = len(logged) > 1
    lines = [
        replace(finite(_line(name, rows)), name=_words(name) + (f", {run}" if several else ""))
        for name in names
        for run, rows in logged.items()
    ]
    lines = [line for line in lines if line.xs]
    log = all("loss" in name for name in names) and _spans_decades(lines)
    return Panel(title, lines, percent, log)


def as_json(run: RunRecord) -> list[dict[str, Any]]:
    """The panels of all stages as the page's script draws them, in the order of their numbers."""
    return [
        {
            "group": drawn.stage.name,
            "steps": drawn.steps,
            "percent": one.percent,
            "log": one.log,
            "lines": [_line_as_json(line) for line in one.lines],
        }
        for drawn in stage_curves(run)
        for one in (*drawn.first, *drawn.more)
    ]


def _line_as_json(line: Line) -> dict[str, Any]:
    short = thin(line, POINTS_TO_ZOOM)
    smooth = [float(f"{y:.6g}") for y in moving_mean(short.ys)] if is_noisy(short) else None
    return {"name": line.name, "xs": short.xs, "ys": [float(f"{y:.6g}") for y in short.ys], "smooth": smooth}


def _grid(panels: list[str]) -> str:
    return f'<div class="panels">{"".join(panels)}</div>' if panels else ""


def _folded(panels: list[str]) -> str:
    return f"<details><summary>{len(panels)} more</summary>{_grid(panels)}</details>" if panels else ""


def _panel(one: Panel, steps: tuple[float, float], number: int) -> str:
    scale = ' <span class="quiet">log scale</span>' if one.log else ""
    drawn = line_chart(one.lines, one.percent, one.log, steps)
    chart = f'<div class="drawn" data-chart="{number}">{drawn}</div>'
    return panel(f"{escape(one.title)}{scale}", legend(one.lines, one.percent) + chart)


def _line(name: str, rows: Sequence[dict[str, Any]]) -> Line:
    points = [(row["step"], row[name]) for row in rows if _is_number(row.get(name)) and _is_number(row.get("step"))]
    return Line(name, [float(x) for x, _ in points], [float(y) for _, y in points])


def _spans_decades(lines: Iterable[Line]) -> bool:
    values = [y for line in lines for y in line.ys if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 20


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", ": ")
