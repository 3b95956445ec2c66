"""How well each reward model tells held-out answers apart, before and after its training (reward/assess.py)."""

from collections.abc import Iterator
from html import escape
from typing import Any

from whetstone.report.numbers import n, percent, section, table
from whetstone.report.read import RunRecord, StageRecord
from whetstone.report.shapes import Assessment
from whetstone.run.folder import read_json
from whetstone.run.manifest import check_shape

WHY = (
    "Of answers to problems that it was not trained on. By length alone: always preferring the longer answer, or the shorter "
    "one, whichever is better more often in training; a reward model that is no better has learnt length. Without a bias for "
    "length it is as often right where the better answer is the shorter one as where it is the longer one. The calibration "
    "error is the mean distance between the probability it gives to its own choices and how often they are right."
)
SHARES = (  # key -> head
    ("accuracy", "right, %"),
    ("length_only", "by length alone, %"),
    ("shorter", "the better is shorter, %"),
    ("longer", "the better is longer, %"),
)


def reward_models(run: RunRecord) -> str:
    parts = [_of_stage(stage) for stage in run.stages if (stage.folder / "assessment.json").exists()]
    return section("reward_models", "Reward models", f"<p>{WHY}</p>", *parts) if any(parts) else ""


def _of_stage(stage: StageRecord) -> str:
    path = stage.folder / "assessment.json"
    found = check_shape(path, Assessment, read_json(path))
    rows = [_row(when, found[when]) for when in ("before", "after") if found[when]]
    if not rows:
        return f"<h3>{escape(stage.name)}</h3><p>Nothing is held out: its accuracy is not known.</p>"
    heads = [
        "training",
        ">judged",
        *(f">{head}" for _, head in SHARES),
        ">correlation with length",
        ">calibration error",
    ]
    bins = table([">probability of its choice, %", ">right, %", ">count"], list(_bins(found["after"])))
    return f"<h3>{escape(stage.name)}</h3>{table(heads, rows)}<h4>Calibration</h4>{bins}"


def _row(when: str, figures: dict[str, Any]) -> str:
    shares = [_share(figures.get(key)) for key, _ in SHARES]
    judged = f"{figures['judged']:,}"
    numbers = f"{figures['length_correlation']:+.2f}".replace("-", "−"), f"{figures['calibration_error']:.3f}"
    return f"<tr><td>{when}</td>{n(judged, *shares, *numbers)}</tr>"


def _share(share: dict[str, float] | None) -> str:
    """With its 95 % interval."""
    if share is None:
        return "–"
    return f"{percent(share['mean'])}<br><small>{percent(share['low'])}–{percent(share['high'])}</small>"


def _bins(figures: dict[str, Any]) -> Iterator[str]:
    for one in figures["calibration"]:
        count = f"{one['count']:,}"
        yield f"<tr>{n(percent(one['probability']), percent(one['accuracy']), count)}</tr>"
