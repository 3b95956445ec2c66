"""What each training stage logged, by step: the most important numbers first, the others folded."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from whetstone.report.charts import Line, legend, line_chart
from whetstone.report.numbers import label, panel, section
from whetstone.report.read import RunRecord

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
        ("Gap between sampler and trainer, nats", ("sampler_gap",), False),
    ],
}


def curves(run: RunRecord) -> str:
    pipeline = run.pipeline
    parts = []
    for stage in [*pipeline, *(stage for stage in run.training if stage not in pipeline)]:
        first, more = _panels(stage.kind, stage.metrics())
        if first or more:
            place = "" if stage in pipeline else "control"
            parts += [f"<h3>{label(stage.name, stage, place)}</h3>", _grid(first), _folded(more)]
    return section("curves", "Curves", *parts) if parts else ""


def _grid(panels: list[str]) -> str:
    return f'<div class="panels">{"".join(panels)}</div>' if panels else ""


def _folded(panels: list[str]) -> str:
    return f"<details><summary>{len(panels)} more</summary>{_grid(panels)}</details>" if panels else ""


def _panels(kind: str, rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    first, shown = [], {"step"}
    for heading, keys, percent in PANELS.get(kind, ()):
        if logged := [key for key in keys if key in names]:
            first.append(_panel(heading, [_line(key, rows) for key in logged], percent))
            shown.update(logged)
    more = [_panel(_words(name), [_line(name, rows)], False) for name in names if name not in shown]
    return [panel for panel in first if panel], [panel for panel in more if panel]


def _panel(title: str, lines: list[Line], percent: bool) -> str:
    log = all("loss" in line.name for line in lines) and _spans_decades(lines)
    drawn = line_chart(lines, percent=percent, log=log)
    if not drawn:
        return ""
    scale = ' <span class="quiet">log scale</span>' if log else ""
    named = [Line(_words(line.name), line.xs, line.ys) for line in lines]
    return panel(f"{escape(title)}{scale}", legend(named, percent) + drawn)


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
