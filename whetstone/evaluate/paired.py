"""Two models compared by their saved generations: the paired difference on the problems of both, with its 95 % interval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from whetstone.evaluate.saved import Saved
from whetstone.measure import mean_interval, paired_bootstrap
from whetstone.run.mistakes import first_few

ALIKE = (
    "samples",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "prompt",
    "weights",
)  # of two scores that are compared
Row = dict[str, Any]


def compare_saved(a: Saved, b: Saved, benchmarks: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row for each problem set of both: the means on the problems of both, their difference (B - A) with its interval, how
    many problems each side alone gets right, and how the two were asked differently. Problems are paired by their question and
    answer, whatever their ids.

    Raises ValueError if a set is not in both, or if they share none.
    """
    shared = [name for name in a.rows if name in b.rows]
    missing = [name for name in benchmarks if name not in shared]
    if missing or not shared:
        needed = missing[0] if missing else "a common problem set"
        raise ValueError(
            f"{a.name} has generations of {first_few(list(a.rows), 8) or 'nothing'}, and {b.name} of "
            f"{first_few(list(b.rows), 8) or 'nothing'}: both need {needed}. Evaluate both on it, with --output."
        )
    return [_compared(a, b, name) for name in benchmarks or shared]


def _compared(a: Saved, b: Saved, benchmark: str) -> dict[str, Any]:
    ours, theirs = _by_question(a.rows[benchmark]), _by_question(b.rows[benchmark])
    common = {row["problem_id"] for row in ours} & {row["problem_id"] for row in theirs}
    if not common:
        raise ValueError(
            f"{benchmark}: no question with the same answer is in both {a.name} and {b.name}, so the two are of other problems."
        )
    first, second = ([row for row in rows if row["problem_id"] in common] for rows in (ours, theirs))
    difference, low, high = paired_bootstrap(second, first)
    solved = [_solved(first), _solved(second)]
    return {
        "benchmark": benchmark, "problems": len(common), "left_out": [len(_ids(ours) - common), len(_ids(theirs) - common)],
        "a": mean_interval(first)[:3], "b": mean_interval(second)[:3], "difference": difference, "low": low, "high": high,
        "only_a": len(solved[0] - solved[1]), "only_b": len(solved[1] - solved[0]),
        "asked_differently": list(_otherwise(a.scores.get(benchmark), b.scores.get(benchmark))),
    }  # fmt: skip


def _by_question(rows: Sequence[Row]) -> list[Row]:
    """The rows with question and answer in the place of the id; of problems that are alike in both, with a number."""
    seen: dict[tuple[str, str], list[str]] = {}
    keyed = []
    for row in rows:
        same = seen.setdefault((" ".join(row["question"].split()), row["gold"].strip()), [])
        if row["problem_id"] not in same:
            same.append(row["problem_id"])
        key = (" ".join(row["question"].split()), row["gold"].strip(), same.index(row["problem_id"]))
        keyed.append(row | {"problem_id": key})
    return keyed


def _ids(rows: Sequence[Row]) -> set[Any]:
    return {row["problem_id"] for row in rows}


def _solved(rows: Sequence[Row]) -> set[Any]:
    """Problems with more right samples than wrong ones."""
    marks: dict[Any, list[bool]] = {}
    for row in rows:
        marks.setdefault(row["problem_id"], []).append(row["correct"] is True)
    return {problem for problem, own in marks.items() if 2 * sum(own) > len(own)}


def _otherwise(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Iterator[str]:
    if a is None or b is None:
        yield "how they were asked is not known on one side"
        return
    for name in ALIKE:
        if a.get(name) != b.get(name):
            shown = "" if name == "prompt" else f" ({a.get(name)} and {b.get(name)})"
            yield f"{name}{shown}"


def verdict(row: Mapping[str, Any], a: str, b: str) -> str:
    """What the interval of a difference says, in words.

    >>> verdict({"low": 0.01, "high": 0.05}, "A", "B"), verdict({"low": -0.01, "high": 0.05}, "A", "B")
    ('B is better', 'no difference is shown')
    """
    if row["low"] > 0:
        return f"{b} is better"
    return f"{a} is better" if row["high"] < 0 else "no difference is shown"
