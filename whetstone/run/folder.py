"""The run folder: `runs/NAME/NN-stage/`. A stage is complete if its `manifest.json` exists, because that is written last.

A file that must survive a kill is written under another name, synced, and renamed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from whetstone.run.disk import disk_full_explained
from whetstone.run.prompt_settings import AS_TRAINED, PromptSettings
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.settings import (
    AdapterSettings,
    ModelSettings,
    ParallelSettings,
    RunSettings,
    ScoreSettings,
    StageSettings,
)

MANIFEST = "manifest.json"  # what the stage was made from, and hashes of what it made
STARTED = "started.json"  # the same of a stage that is under way; removed after the manifest is written
SCORES = "scores.json"  # of the whole run
NEW, OLD = (
    "new+",
    "old+",
)  # before the name of a folder: its new work, and old work that is kept. No stage has a + in its name


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
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    prompt: PromptSettings = AS_TRAINED  # as it is given; `prompting.prompting_of` completes it for a model
    longest: int = 0  # tokens of the longest sequence of the whole run; 0: unknown
    wanted: tuple[str, ...] = ()  # its artifacts that stages below cannot do without
    stream: str = ""  # whose random numbers it draws: a control those of its stage; "": its own

    @property
    def model_source(self) -> Path | str | None:
        """The model that it starts from: its input, or else `[model] path`."""
        return self.inputs.get("model") or self.model.path

    @property
    def seed(self) -> int:
        """The run's seed mixed with the stage's name, so that two stages never share a random stream, a control's excepted."""
        digest = hashlib.sha256(f"{self.run.seed}/{self.stream or self.name}".encode()).digest()
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
        with disk_full_explained(path.name, path.parent, len(text)), partial.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


class DamagedFile(ValueError):
    """A file that Whetstone wrote holds something else now."""

    def __init__(self, path: Path, why: str):
        super().__init__(f"{path} is damaged: {why}. Put back the file as it was, or move it away.")


def read_json(path: Path, kind: type = dict, needed: Iterable[str] = ()) -> Any:
    """What `write_json` wrote: a table that has the `needed` keys, or a list if that is the `kind`.

    Raises DamagedFile, FileNotFoundError.
    """
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except IsADirectoryError as error:
        raise DamagedFile(path, "it is a folder") from error
    except (ValueError, RecursionError) as error:
        size = path.stat().st_size
        raise DamagedFile(path, f"it is not JSON ({error})" if size else "it is empty") from error
    if not isinstance(value, kind):
        raise DamagedFile(path, f"it holds a {type(value).__name__} where a {kind.__name__} belongs")
    for key in needed:
        if key not in value:
            raise DamagedFile(path, f"it has no {key!r}")
    return value


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


def open_lock(path: Path) -> TextIO:
    """A lock file, made if it is missing. Raises ValueError for what is no file of its own: nothing else is written to."""
    why = "is not a file of its own (it is a link or no regular file): a run locks and writes it. Remove it."
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise ValueError(f"{path} {why}") from error
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise ValueError(f"{path} {why}")
    return os.fdopen(handle, "r+", encoding="utf-8", errors="replace")


def take(lock: TextIO) -> bool:
    """Hold an open lock file until it is closed or the process ends. False if another process holds it."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time. The lock ends with its process."""
    with open_lock(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def discard(folder: Path) -> None:
    """Rename, then delete: a kill between the two leaves nothing that looks complete."""
    shutil.rmtree(_aside(folder))


def successor(folder: Path) -> Path:
    """Where new work is made while the old, in `folder`, stays."""
    return folder.with_name(f"{NEW}{folder.name}")


def replace_folder(folder: Path, keep: bool = False) -> Path | None:
    """Put complete new work in the place of the old, and delete that, or `keep` it: then its new place is returned."""
    old = _kept(folder) if keep else _aside(folder)
    successor(folder).rename(folder)
    sync_folder(folder.parent)
    if keep:
        return old
    shutil.rmtree(old)
    return None


def _aside(folder: Path) -> Path:
    return folder.rename(folder.with_name(f".discarded-{folder.name}-{os.getpid()}"))


def _kept(folder: Path) -> Path:
    places = (folder.with_name(f"{OLD}{folder.name}{f'-{number}' if number > 1 else ''}") for number in count(1))
    return folder.rename(next(place for place in places if not place.exists()))


def recover(run: Path) -> None:
    """Finish what a kill interrupted in `replace_folder` or `discard`."""
    for new in run.glob(f"{NEW}*"):
        old = new.with_name(new.name.removeprefix(NEW))
        if (new / MANIFEST).exists() and not old.exists():
            new.rename(old)
    for discarded in run.glob(".discarded-*/"):
        shutil.rmtree(discarded)


def stage_folders(run: Path) -> list[Path]:
    """The folders NN-NAME of a run, by number: 100-NAME comes after 99-NAME."""
    found = {path: path.name.partition("-")[0] for path in run.glob("[0-9]*-*") if path.is_dir()}
    return sorted((path for path, number in found.items() if number.isdecimal()), key=lambda path: int(found[path]))


def hash_file(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, by name, without hidden ones, which nothing here reads or writes."""
    below = ((path, path.relative_to(folder).parts) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path, parts in below if not any(part.startswith(".") for part in parts))


def hash_folder(folder: Path) -> str:
    """One hash for the names and contents of all files below `folder`."""
    digest = hashlib.sha256()
    for path in files_below(folder):
        digest.update(os.fsencode(path.relative_to(folder)) + f"\0{hash_file(path)}\n".encode())
    return digest.hexdigest()
