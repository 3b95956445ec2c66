"""A stage's scores beside those of its controls: what scores.json says of a control in addition."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from whetstone.evaluate.comparisons import compare, read_marks
from whetstone.run.control import control_name, reading
from whetstone.run.folder import MANIFEST, DamagedFile
from whetstone.run.manifest import read_manifest


def beside_control(run: Path, score: dict[str, Any], last: str = "") -> dict[str, Any]:
    """`stage_minus_control` of a control's score: the paired difference on the problems of both, and its interval.

    A better prompt alone is beside all of the training too: `last_minus_control`, of the `last` stage that trains. Empty for
    the score of another stage, and while a stage has no score on that problem set.
    """
    of = score.get("control_of")
    if not of:
        return {}
    beside = {"stage_minus_control": of}
    if last and last != of and score["stage"] == control_name(of, "prompt"):
        beside["last_minus_control"] = last
    found = {name: _minus(run, stage, score) for name, stage in beside.items()}
    return {name: difference for name, difference in found.items() if difference}


def _minus(run: Path, stage: str, score: dict[str, Any]) -> dict[str, Any] | None:
    folders = [run / "scores" / name for name in (stage, score["stage"])]
    contents = []
    for folder in folders:
        try:
            contents.append(read_manifest(folder / MANIFEST, needed="scores")["outputs"][score["benchmark"]])
        except (FileNotFoundError, DamagedFile, KeyError):
            return None
    ours, theirs = (folder / score["benchmark"] for folder in folders)
    found = dict(_difference(ours, theirs, tuple(contents)))
    return {"stage": stage, **found, "reading": reading(found["low"], found["high"])} if found else None


@lru_cache(maxsize=256)
def _difference(ours: Path, theirs: Path, contents: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Of two tables of generations; computed again if their content is another. Empty if they share no problem."""
    overall = next(compare("", "", "", read_marks(ours), read_marks(theirs)), {})
    return tuple((name, value) for name, value in overall.items() if not isinstance(value, str))
