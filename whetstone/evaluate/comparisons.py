"""What the generations behind the scores say about stages: paired differences, and accuracy by level and domain."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from whetstone.run.folder import read_json

COLUMNS = ["problem_id", "index", "level", "domain", "correct"]
Z = 1.959963984540054  # of a 95 % interval
BY = ("all", "level", "domain")

Row = dict[str, Any]


def starts(run_folder: Path) -> dict[str, str]:
    """Training stage -> the stage whose model it started from ("base" for none), in the run's order, from manifests."""
    found: dict[str, str] = {}
    for path in sorted(run_folder.glob("[0-9]*-*/manifest.json")):
        manifest = read_json(path)
        if "model" in manifest["outputs"]:
            found[manifest["name"]] = manifest["inputs"].get("model", {}).get("stage") or "base"
    return found


def compared(starts: dict[str, str]) -> list[tuple[str, str]]:
    """(stage, other): every stage with its start, and two stages that started from the same model (a control)."""
    pairs = list(starts.items())
    names = list(starts)
    for place, stage in enumerate(names):
        pairs += [(stage, other) for other in names[place + 1 :] if starts[other] == starts[stage]]
    return pairs


def read_marks(folder: Path) -> list[Row]:
    """The marks of a stage on a problem set, without the texts."""
    import pyarrow.parquet as pq

    return [
        row
        for path in sorted(folder.glob("part-*.parquet"))
        for row in pq.read_table(path, columns=COLUMNS).to_pylist()
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
    """Paired differences overall and by level and domain; a group that one of the two lacks is left out."""
    from whetstone.measure import paired_bootstrap

    others = split_groups(theirs)
    for (by, value), rows in split_groups(ours).items():
        if (by, value) in others:
            difference, low, high = paired_bootstrap(rows, others[by, value])
            yield {
                "stage": stage,
                "start": start,
                "benchmark": benchmark,
                "by": by,
                "value": value,
                "problems": len({row["problem_id"] for row in rows}),
                "difference": difference,
                "low": low,
                "high": high,
            }


def group_means(stage: str, benchmark: str, rows: list[Row]) -> Iterator[Row]:
    """Mean accuracy with its interval, overall and by level and domain."""
    for (by, value), members in split_groups(rows).items():
        mean, low, high, problems = mean_interval(members)
        yield {
            "stage": stage,
            "benchmark": benchmark,
            "by": by,
            "value": value,
            "problems": problems,
            "samples": len(members),
            "mean": mean,
            "low": low,
            "high": high,
        }


def mean_interval(rows: Iterable[Row]) -> tuple[float, float, float, int]:
    """(mean, low, high, problems): the mean over problems of the share of right samples, undecided ones left out.

    The interval is Wilson's for as many independent problems as would have the variance seen between problem means;
    where all problems agree, for the number of problems. So a perfect score on ten problems does not claim certainty.
    """
    marks: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["correct"] is not None:
            marks[row["problem_id"]].append(row["correct"])
    if not marks:
        return 0.0, 0.0, 1.0, 0
    means = [sum(right) / len(right) for right in marks.values()]
    problems = len(means)
    mean = sum(means) / problems
    between = sum((m - mean) ** 2 for m in means) / max(problems - 1, 1) / problems
    effective = mean * (1 - mean) / between if between > 0 else problems
    low, high = wilson(mean, effective)
    return mean, low, high, problems


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in `n` trials.

    >>> [round(x, 3) for x in wilson(1.0, 10)]
    [0.722, 1.0]
    """
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
