"""A stage's scores beside those of its controls: what scores.json says of a control in addition."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from whetstone.evaluate.comparisons import problems, read_marks
from whetstone.run.control import reading
from whetstone.run.folder import MANIFEST, DamagedFile
from whetstone.run.manifest import read_manifest


def beside_control(run: Path, score: dict[str, Any]) -> dict[str, Any]:
    """`stage_minus_control` of a control's score: the paired difference on the problems of both, with its 95 % interval.

    Empty for the score of another stage, and while the control's stage has no score on that problem set.
    """
    if not score.get("control_of"):
        return {}
    folders = [run / "scores" / name for name in (score["control_of"], score["stage"])]
    contents = []
    for folder in folders:
        try:
            contents.append(read_manifest(folder / MANIFEST, needed="scores")["outputs"][score["benchmark"]])
        except (FileNotFoundError, DamagedFile, KeyError):
            return {}
    ours, theirs = (folder / score["benchmark"] for folder in folders)
    return {"stage_minus_control": dict(_difference(ours, theirs, tuple(contents)))}


@lru_cache(maxsize=256)
def _difference(ours: Path, theirs: Path, contents: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """Of two tables of generations; computed again if their content is another."""
    from whetstone.measure import paired_bootstrap

    marks = read_marks(ours), read_marks(theirs)
    difference, low, high = paired_bootstrap(*marks)
    shared = len(problems(marks[0]) & problems(marks[1]))
    named = {"difference": difference, "low": low, "high": high, "problems": shared, "reading": reading(low, high)}
    return tuple(named.items())
