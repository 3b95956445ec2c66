"""Saved generations graded again, without sampling: after a change of the policy or the verifier, or of another harness's."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whetstone.evaluate.paired import ALIKE
from whetstone.evaluate.saved import REGRADED, Saved
from whetstone.measure import NOT_ASKED, form_of, mean_interval, with_flexible
from whetstone.records import Verifier
from whetstone.run.folder import write_json
from whetstone.run.tables import write_rows
from whetstone.verify.policy import get_policy

Row = dict[str, Any]


def regrade(saved: Saved, policy: str | None = None, output: Path | None = None) -> list[dict[str, Any]]:
    """A row for each problem set: the score now, and how the verdicts differ from those that were saved, `before`; of another
    harness, by its filters or metrics. `output` gets the graded rows, `OUTPUT/BENCHMARK/`, and the results.

    Raises ValueError for an unknown policy, and for an output that would overwrite files.
    """
    from whetstone.verify import MathVerifier

    if policy:
        get_policy(policy)
    results = []
    with MathVerifier() as verifier:
        for benchmark, rows in saved.rows.items():
            graded = list(_graded(rows, policy, verifier))
            results.append(_result(saved, benchmark, rows, graded))
            if output:
                _write(output / benchmark, graded)
    if output:
        asked = [_asked(saved, result) for result in results]
        write_json(output / REGRADED, {"of": saved.name, "policy": policy, "results": results, "asked": asked})
    return results


def _asked(saved: Saved, result: Mapping[str, Any]) -> dict[str, Any]:
    """How the samples of a problem set were asked, as far as that was saved."""
    known = saved.scores.get(result["benchmark"], {})
    return {"benchmark": result["benchmark"]} | {name: known[name] for name in ALIKE if name in known}


def graded_by_us(saved: Saved) -> Saved:
    """Generations of another harness with our verdicts, so that two models are compared by one verifier."""
    from whetstone.verify import MathVerifier

    if not saved.foreign:
        return saved
    with MathVerifier() as verifier:
        return replace(saved, rows={name: list(_graded(rows, None, verifier)) for name, rows in saved.rows.items()})


def _graded(rows: Sequence[Row], policy: str | None, verifier: Verifier) -> Iterator[Row]:
    """The rows with new verdicts. What was never asked stays wrong."""
    policies = [policy or row["policy"] for row in rows]
    items = [(row["text"], row["gold"], own) for row, own in zip(rows, policies, strict=True)]
    verdicts = verifier.check_many(items)
    new = [
        row
        | {"policy": own, "answer": v.answer, "reason": v.reason, "form": form_of(row["text"], own)}
        | {"correct": False if row["stop"] == NOT_ASKED else v.correct}
        for row, own, v in zip(rows, policies, verdicts, strict=True)
    ]
    yield from with_flexible(new, verifier)


def _result(saved: Saved, benchmark: str, before: Sequence[Row], now: Sequence[Row]) -> dict[str, Any]:
    mean, low, high, problems = mean_interval(now)
    first = {"before": [row["correct"] for row in before]} if not saved.foreign else _by_filter(before)
    return {
        "benchmark": benchmark, "problems": problems, "samples": len(now), "mean": mean, "low": low, "high": high,
        "undecided": sum(row["correct"] is None for row in now),
        "compared": {name: _counts(marks, now) for name, marks in first.items()},
    }  # fmt: skip


def _by_filter(rows: Sequence[Row]) -> Mapping[str, list[bool | None]]:
    names = dict.fromkeys(name for row in rows for name in row["theirs"])
    return {name: [row["theirs"].get(name) for row in rows] for name in names}


def _counts(marks: Sequence[bool | None], now: Sequence[Row]) -> dict[str, Any]:
    """How many verdicts are alike, and how many are right on one side alone, with the reasons of ours."""
    pairs = [(bool(mark), bool(row["correct"]), row) for mark, row in zip(marks, now, strict=True) if mark is not None]
    differ = [(mark, row) for mark, ours, row in pairs if mark != ours]
    return {
        "verdicts": len(pairs), "right": sum(mark for mark, *_ in pairs), "alike": len(pairs) - len(differ),
        "only_theirs": sum(mark for mark, _ in differ), "only_ours": sum(not mark for mark, _ in differ),
        "reasons": dict(Counter(row["reason"].split(":")[0] for _, row in differ).most_common()),
    }  # fmt: skip


def _write(folder: Path, rows: Sequence[Row]) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files already, which would be overwritten. Name another --output.")
    write_rows(folder, rows)
