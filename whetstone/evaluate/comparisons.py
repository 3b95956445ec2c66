"""Stages compared by the generations behind their scores: paired differences, and accuracy by level and domain."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from whetstone.measure import mean_interval, paired_bootstrap
from whetstone.run.folder import MANIFEST, stage_folders
from whetstone.run.manifest import read_manifest

COLUMNS = ["problem_id", "index", "level", "domain", "correct", "flexible"]
BY = ("all", "level", "domain")

Row = dict[str, Any]


def starts(run_folder: Path) -> dict[str, str]:
    """Scored stage -> the stage whose model it started from ("base" for the untrained one), in the run's order."""
    manifests = (read_manifest(path / MANIFEST) for path in stage_folders(run_folder) if (path / MANIFEST).exists())
    return {
        manifest["name"]: manifest["inputs"].get("model", {}).get("stage") or "base"
        for manifest in manifests
        if {"model", "prompt"} & manifest["outputs"].keys()
    }


def compared(starts: dict[str, str]) -> list[tuple[str, str]]:
    """(stage, other): every stage with its start, and two stages that started from the same model (a control)."""
    pairs = list(starts.items())
    names = list(starts)
    for place, stage in enumerate(names):
        pairs += [(stage, other) for other in names[place + 1 :] if starts[other] == starts[stage]]
    return pairs


def read_marks(folder: Path) -> list[Row]:
    """A stage's verdicts on a problem set, one per sample, without the texts. Older versions wrote no `flexible`."""
    import pyarrow.parquet as pq

    return [
        row
        for path in sorted(folder.glob("part-*.parquet"))
        for row in pq.read_table(path, columns=[c for c in COLUMNS if c in pq.read_schema(path).names]).to_pylist()
    ]


def split_groups(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """(by, value) -> rows: all of them, and those of each level and domain."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups["all", ""].append(row)
        for by in ("level", "domain"):
            if row[by] not in (None, ""):
                groups[by, str(row[by])].append(row)
    return dict(sorted(groups.items(), key=lambda item: (BY.index(item[0][0]), item[0][1])))


def compare(stage: str, start: str, benchmark: str, ours: list[Row], theirs: list[Row]) -> Iterator[Row]:
    """Paired differences overall, also with the format granted (flexible extraction), and by level and domain. Groups without
    a problem of both are left out.
    """
    others = split_groups(theirs)
    for (by, value), rows in split_groups(ours).items():
        if problems(rows) & problems(others.get((by, value), [])):
            numbers = dict(zip(("difference", "low", "high"), paired_bootstrap(rows, others[by, value]), strict=True))
            if by == "all":
                numbers |= _flexibly(rows, others[by, value])
            numbers["problems"] = len(problems(rows) & problems(others[by, value]))
            yield {"stage": stage, "start": start, "benchmark": benchmark, "by": by, "value": value, **numbers}


def _flexibly(ours: list[Row], theirs: list[Row]) -> dict[str, float]:
    """The paired difference by flexible extraction; nothing if one side does not tell it."""
    if not all("flexible" in row for row in (*ours, *theirs)):
        return {}
    marks = ([row | {"correct": row["flexible"]} for row in rows] for rows in (ours, theirs))
    names = ("flexible_difference", "flexible_low", "flexible_high")
    return dict(zip(names, paired_bootstrap(*marks), strict=True))


def problems(rows: Iterable[Row]) -> set[str]:
    return {row["problem_id"] for row in rows}


def group_means(stage: str, benchmark: str, rows: list[Row]) -> Iterator[Row]:
    """Mean accuracy with its interval, overall and by level and domain."""
    for (by, value), members in split_groups(rows).items():
        numbers = dict(zip(("mean", "low", "high", "problems"), mean_interval(members), strict=True))
        numbers["samples"] = len(members)
        yield {"stage": stage, "benchmark": benchmark, "by": by, "value": value, **numbers}
