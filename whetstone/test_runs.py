"""The list of test runs: every look at a published test set, so that a score can be read beside how often it was tried.

The list is the file that WHETSTONE_TEST_RUNS names; else `benchmarks/results/test_runs.jsonl` in a checkout, and
`test_runs.jsonl` in Whetstone's cache folder for an installed package. A line is appended before a model is scored, and one
with the result after it, so that a look that was broken off is listed, too.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import whetstone
from whetstone.evaluate.any_model import Task
from whetstone.pipeline.machine import git_revision, hardware
from whetstone.problems.sets import known_sets
from whetstone.records import Score, to_row
from whetstone.run.progress import say
from whetstone.run.remote import kept_in

LIST = "test_runs.jsonl"


def list_of_runs() -> Path:
    if named := os.environ.get("WHETSTONE_TEST_RUNS"):
        return Path(named)
    results = Path(whetstone.__file__).parent.parent / "benchmarks" / "results"
    return (results if results.is_dir() else kept_in()) / LIST


def is_test_set(benchmark: str) -> bool:
    """Whether this is a published set with a test file, by its name, or that file."""
    known = {name: described for name, described in known_sets().items() if described.test}
    if benchmark in known:
        return True
    if not os.environ.get("WHETSTONE_DATA") or not Path(benchmark).exists():
        return False
    files = (Path(os.environ["WHETSTONE_DATA"]) / described.test for described in known.values() if described.test)
    return any(file.exists() and file.samefile(benchmark) for file in files)


@contextmanager
def listed(task: Task, model: str, seed: int) -> Iterator[list[Score]]:
    """Notes the beginning, and after the block the score that was put into the list that it gives."""
    facts = {
        "run": model, "seed": seed, "stage": "", "benchmark": task.benchmark,
        "samples": task.settings.samples if task.settings.temperature else 1,
        "temperature": task.settings.temperature, "problems": len(task.chosen), "max_tokens": task.settings.max_tokens,
        "revision": git_revision() or whetstone.__version__, "cpu": hardware()["cpu"],
    }  # fmt: skip
    append({"begun": now(), **facts})
    scores: list[Score] = []
    yield scores
    for score in scores:
        result = {key: value for key, value in to_row(score).items() if key != "stage"}
        append({"finished": now(), **facts, "score": result})
        say(f"{task.benchmark} is a test set: this look at it is listed in {list_of_runs()}")


def append(entry: dict[str, Any], file: Path | None = None) -> None:
    """A line at the end of the list; a list that cannot be written costs no score, and that is said."""
    path = file or list_of_runs()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")
    except OSError as error:
        say(f"warning: the list of test runs cannot be written ({error}). Name another file in WHETSTONE_TEST_RUNS.")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
