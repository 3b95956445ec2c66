"""The run folder: `runs/NAME/NN-stage/`. A stage is complete if its `manifest.json` exists, because that is written last.

A file that must survive a kill is written under another name, synced, and renamed.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings, StageSettings

MANIFEST = "manifest.json"  # what the stage was made from, and hashes of what it made
STARTED = "started.json"  # the same of a stage that is under way; removed after the manifest is written
SCORES = "scores.json"  # of the whole run


@dataclass(frozen=True)
class Stage:
    """What a room's `run(stage)` is given: its settings, where its inputs are, where to write.

    A room writes each of its artifacts (problems, rollouts, corpus, subset, pairs, prompts, model, …) into
    `stage.output(name)`, and the rows that it leaves out into `stage.output("dropped")`, with a `reason` column.
    """

    name: str
    kind: str
    folder: Path  # runs/NAME/NN-stage
    settings: StageSettings  # the room's own class
    inputs: Mapping[str, Path]  # input name -> folder of the artifact
    run: RunSettings
    model: ModelSettings
    parallel: ParallelSettings
    scores: ScoreSettings
    longest: int = 0  # tokens of the longest sequence of the whole run; 0: unknown
    wanted: tuple[str, ...] = ()  # its artifacts that stages below cannot do without

    @property
    def model_source(self) -> Path | str | None:
        """The model that it starts from: its input, or else `[model] path`."""
        return self.inputs.get("model") or self.model.path

    @property
    def seed(self) -> int:
        """The run's seed mixed with the stage's name, so that two stages never share a random stream."""
        digest = hashlib.sha256(f"{self.run.seed}/{self.name}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def output(self, artifact: str) -> Path:
        path = self.folder / artifact
        path.mkdir(parents=True, exist_ok=True)
        return path


def write_text(path: Path, text: str) -> None:
    """Write, sync and rename: a kill leaves the old file or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sync_folder(folder: Path) -> None:
    """Sync the names of its files: a rename survives a power loss only once its folder is on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A folder to write to, which gets its name at the end. A failure leaves nothing; a kill leaves the old folder."""
    aside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)
    sync_folder(folder.parent)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time. The lock ends with its process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def discard(folder: Path) -> None:
    """Rename, then delete: a kill between the two leaves nothing that looks complete."""
    discarded = folder.with_name(f".discarded-{folder.name}-{os.getpid()}")
    folder.rename(discarded)
    shutil.rmtree(discarded)


def remove_discarded(run: Path) -> None:
    """What a kill during `discard` left."""
    for discarded in run.glob(".discarded-*"):
        shutil.rmtree(discarded)


def hash_file(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def hash_folder(folder: Path) -> str:
    """One hash for the names and contents of all files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()
