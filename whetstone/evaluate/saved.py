"""Saved generations: of a run, of one of its stages, of `whetstone evaluate --output`, or of another harness's files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from whetstone.evaluate.harness_files import read_harness, sample_files
from whetstone.run import remote
from whetstone.run.control import is_control
from whetstone.run.folder import MANIFEST, SCORES, read_json
from whetstone.run.manifest import check_shape, read_manifest, read_scores
from whetstone.run.secrets import redacted
from whetstone.run.tables import read_rows

REGRADED = "regraded.json"  # what `regrade --output` writes
KINDS = (
    "a run's folder, a stage's, a folder that `evaluate --output` or `regrade --output` wrote, or a samples file of lm-eval, "
    "lighteval or evalchemy"
)


@dataclass(frozen=True)
class Saved:
    name: str
    rows: Mapping[str, list[dict[str, Any]]]  # benchmark -> samples
    scores: Mapping[str, dict[str, Any]] = field(
        default_factory=dict
    )  # benchmark -> row of scores.json, if there is one

    @property
    def foreign(self) -> bool:
        """Whether another harness wrote them."""
        return not self.scores


def read_saved(name: str) -> Saved:
    """Raises FileNotFoundError if nothing is saved there, ValueError for a file that holds no generations."""
    found = find_saved(name)
    if found is None:
        raise FileNotFoundError(f"{name} holds no saved generations. Name {KINDS}.")
    return found


def find_saved(name: str) -> Saved | None:
    """None if nothing is saved there, as in a model's folder. An address of a store is read through its copy."""
    if url := remote.in_store(name):
        copy = remote.local_run(url)
        found = find_saved(str(copy))
        return found and replace(found, name=found.name.replace(str(copy), redacted(url)))
    path = Path(name)
    if path.is_file() and path.suffix != ".gguf":
        return Saved(name, read_harness([path]))
    if not path.is_dir():
        return None
    return _of_run(path) or _of_stage(path) or _own(path) or _regraded(path) or _foreign(path)


def _of_run(run: Path) -> Saved | None:
    """Of the last stage that was scored, controls excepted."""
    if not (run / SCORES).is_file() or not (run / "scores").is_dir():
        return None
    stages = dict.fromkeys(row["stage"] for row in read_scores(run / SCORES) if not is_control(row["stage"]))
    return _scored(run / "scores" / list(stages)[-1], f"{run}, {list(stages)[-1]}") if stages else None


def _of_stage(path: Path) -> Saved | None:
    """Of a stage's folder, of the model in it, or of a folder in the run's `scores`."""
    folder = path.parent if path.name == "model" else path
    number, _, stage = folder.name.partition("-")
    if number.isdecimal() and stage and (scored := folder.parent / "scores" / stage).is_dir():
        return _scored(scored, f"{folder.parent}, {stage}")
    return _scored(path, str(path)) if path.parent.name == "scores" else None


def _scored(folder: Path, name: str) -> Saved | None:
    if not (folder / MANIFEST).is_file():
        return None
    return _tables(folder, name, read_manifest(folder / MANIFEST, needed="scores")["scores"])


def _own(folder: Path) -> Saved | None:
    return _tables(folder, str(folder), read_scores(folder / SCORES)) if (folder / SCORES).is_file() else None


def _regraded(folder: Path) -> Saved | None:
    if not (folder / REGRADED).is_file():
        return None
    asked = read_json(folder / REGRADED, needed=["asked"])["asked"]
    saved = _tables(folder, str(folder), check_shape(folder / REGRADED, list[_Asked], asked))
    return replace(saved, scores={name: row for name, row in saved.scores.items() if len(row) > 1})


class _Asked(BaseModel):
    benchmark: str  # and how its samples were asked, if that is known


def _tables(folder: Path, name: str, scores: list[dict[str, Any]]) -> Saved:
    found = {row["benchmark"]: row for row in scores if any((folder / row["benchmark"]).glob("part-*.parquet"))}
    return Saved(name, {benchmark: list(read_rows(folder / benchmark)) for benchmark in found}, found)


def _foreign(folder: Path) -> Saved | None:
    files = sample_files(folder)
    return Saved(str(folder), read_harness(files)) if files else None
