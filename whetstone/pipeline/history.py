"""run.json: the resolved recipe, the machine, and what each attempt took."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from whetstone.pipeline.machine import hardware, machine_speed, threads, versions
from whetstone.recipe import Recipe
from whetstone.run.folder import read_json, write_json

RUN = "run.json"


class History:
    """Adds an entry to run.json for each attempt that does something. Measures and writes nothing before `begin`."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.path = recipe.folder / RUN
        self.entry: dict[str, Any] | None = None

    def __enter__(self) -> "History":
        return self

    def begin(self) -> None:
        """There is something to do. Sets torch's threads, measures the machine and writes the entry; once."""
        if self.entry is not None:
            return
        import torch

        self.earlier = read_json(self.path)["history"] if self.path.exists() else []
        torch.set_num_threads(threads(self.recipe.run.threads))
        self.entry = {
            "started": now(),
            "finished": None,
            "threads": torch.get_num_threads(),
            "matmul_gflops": {"before": machine_speed(), "after": None},
            "stages": {},
        }
        self._write()

    def note(self, name: str, usage: Mapping[str, Any]) -> None:
        """What a stage or its scores used."""
        assert self.entry is not None, "note() before begin()"
        self.entry["stages"][name] = dict(usage)
        self._write()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.entry is None:
            return
        self.entry["finished"] = now()
        self.entry["ended_by"] = "" if kind is None else kind.__name__
        if kind is None:
            self.entry["matmul_gflops"]["after"] = machine_speed()
        with suppress(*[OSError] if kind else []):  # the error under way says more than a full disk here
            self._write()

    def _write(self) -> None:
        assert self.entry is not None
        facts = {
            "name": self.recipe.run.name,
            "recipe_file": str(self.recipe.path),
            "recipe": self.recipe.resolved(),
            "hardware": hardware(),
            "versions": versions(),
            "history": [*self.earlier, self.entry],
        }
        write_json(self.path, facts)


def last_speeds(recipe: Recipe) -> tuple[float, float] | None:
    """GFLOP/s of the machine before and after the last finished attempt; None if the last did not finish."""
    path = recipe.folder / RUN
    if not path.exists():
        return None
    speeds = read_json(path)["history"][-1]["matmul_gflops"]
    return (speeds["before"], speeds["after"]) if speeds["after"] else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
