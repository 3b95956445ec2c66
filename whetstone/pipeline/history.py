"""run.json: the resolved recipe, the machine, and what each attempt took."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from whetstone.pipeline.machine import hardware, machine_speed, versions
from whetstone.recipe import Recipe
from whetstone.run.folder import read_json, write_json
from whetstone.run.manifest import check_shape
from whetstone.run.processes import threads

RUN = "run.json"


class _Speeds(BaseModel):
    before: float
    after: float | None


class _Attempt(BaseModel):
    matmul_gflops: _Speeds


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

        self.earlier = attempts(self.path)
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
    speeds = [entry["matmul_gflops"] for entry in attempts(recipe.folder / RUN)]
    return (speeds[-1]["before"], speeds[-1]["after"]) if speeds and speeds[-1]["after"] else None


def attempts(path: Path) -> list[dict[str, Any]]:
    """The entries of a run.json; [] if there is none. Raises DamagedFile."""
    return check_shape(path, list[_Attempt], read_json(path).get("history")) if path.exists() else []


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
