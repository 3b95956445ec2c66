"""A run's folder copied to another place while it goes on: `[run] copy_to`, an address (run/remote.py) or a folder.

A thread looks every `EVERY` seconds for files that are new or have changed, and once more when the run ends or fails. What the
run has deleted since, as old checkpoints, is deleted there too; what was not put there from here is never touched. The run
waits for no copy but the last, and a place that cannot be reached never ends it. `.copied.json` in the run's folder tells a
later process what lies there.
"""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from whetstone.run import remote
from whetstone.run.folder import read_json, write_json
from whetstone.run.mistakes import first_few
from whetstone.run.progress import say
from whetstone.run.secrets import redacted

EVERY = 60.0  # seconds
UNFINISHED = (".part", ".tmp")  # ends of names
COPIED = ".copied.json"
WITH_FOLDERS = {"file", "local", "sftp", "ssh", "ftp", "smb", "hdfs"}  # elsewhere making a folder may make a bucket
SHOWN = 3  # files in a message

Facts = tuple[int, int]  # a file's size in bytes and time in ns


@contextmanager
def copied_out(folder: Path, to: str, every: float = EVERY) -> Iterator[None]:
    """Copy the run's folder to `to`/NAME as it grows; an empty `to` copies nothing. Raises OSError or ImportError at once if
    the place cannot be written, ValueError if it is the run's own folder, and OSError at the end if something is missing there.
    """
    if not to:
        yield
        return
    copying = Copying(folder, to)
    ended = threading.Event()

    def look_again() -> None:
        while not ended.wait(every):
            copying.round()

    thread = threading.Thread(target=look_again, name="copies of the run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        copying.round()
    copying.conclude()


class Copying:
    """What of a run's folder lies at the other place."""

    def __init__(self, folder: Path, to: str) -> None:
        url = remote.address(to) or f"file://{_apart(folder, Path(to).expanduser())}"
        self.folder, self.url = folder, f"{url.rstrip('/')}/{folder.name}"
        self.failed: dict[Path, str] = {}
        with remote.explained(self.url):
            self.store, self.place = remote.store_of(self.url)
            self._make(self.place)
            # Whether it can be written shows before the run begins
            self.store.pipe_file(f"{self.place}/{COPIED}", b"{}")
            self.there = self._copied_before()

    def _copied_before(self) -> dict[Path, Facts]:
        """What an earlier process copied, of what is still there with its size."""
        if not (self.folder / COPIED).is_file():
            return {}
        kept = read_json(self.folder / COPIED)
        sizes = {name: entry["size"] for name, entry in self.store.find(self.place, detail=True).items()}
        start = self.place.lstrip("/")
        there = {name.lstrip("/").removeprefix(start).lstrip("/"): size for name, size in sizes.items()}
        files = kept.get(self.url, {})
        return {Path(name): (size, time) for name, (size, time) in files.items() if there.get(name) == size}

    def round(self) -> None:
        """Copy what is new or has changed, and delete what the run has deleted. What fails is tried again in the next round."""
        now = dict(_files(self.folder))
        self.failed = {}
        for path, facts in now.items():
            if self.there.get(path) != facts and self._tried(path, self._put, path):
                self.there[path] = facts
        for path in [path for path in self.there if path not in now]:
            if self._tried(path, self.store.rm_file, self._at(path)):
                del self.there[path]
        files = {path.as_posix(): facts for path, facts in self.there.items()}
        write_json(self.folder / COPIED, {self.url: files})

    def conclude(self) -> None:
        """Raises OSError if files are missing there."""
        if self.failed:
            names = first_few([path.as_posix() for path in self.failed], SHOWN)
            reason = next(iter(self.failed.values()))
            raise OSError(
                f"{len(self.failed)} of {len(self.there) + len(self.failed)} files of {self.folder} could not be copied to "
                f"{redacted(self.url)}: {names} ({reason}). The run itself is in {self.folder}: run it again to copy the rest."
            )

    def _put(self, path: Path) -> None:
        target = self._at(path)
        self._make(target.rpartition("/")[0])
        self.store.put_file(str(self.folder / path), target)

    def _make(self, folder: str) -> None:
        protocol = self.store.protocol
        if WITH_FOLDERS & {*((protocol,) if isinstance(protocol, str) else protocol)}:
            self.store.makedirs(folder, exist_ok=True)

    def _at(self, path: Path) -> str:
        return f"{self.place}/{path.as_posix()}"

    def _tried(self, path: Path, act: Any, *arguments: Any) -> bool:
        try:
            act(*arguments)
        except FileNotFoundError:
            return not (self.folder / path).exists()  # the run has deleted it meanwhile
        except Exception as error:  # each store has errors of its own
            if not self.failed:
                reason = redacted((str(error).strip() or type(error).__name__).partition("\n")[0])
                say(
                    f"note: {self.folder / path} could not be copied to {redacted(self.url)}: {reason}. It is tried again."
                )
            self.failed[path] = redacted(str(error).partition("\n")[0])
            return False
        return True


def _apart(folder: Path, to: Path) -> Path:
    """The absolute path of `to`. Raises ValueError if the copy would be the run's own folder, or lie in it."""
    if (to / folder.name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"[run] copy_to = {str(to)!r} would copy {folder} into itself: name a folder elsewhere.")
    return to.absolute()


def _files(folder: Path) -> Iterator[tuple[Path, Facts]]:
    """Those that are whole, or grow by lines, in order. Hidden ones, which are the run's own, and links are left out."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.name.endswith(UNFINISHED) or path.is_symlink() or any(part.startswith(".") for part in inner.parts):
            continue
        with suppress(FileNotFoundError):  # deleted meanwhile
            facts = path.stat()
            if stat.S_ISREG(facts.st_mode):
                yield inner, (facts.st_size, facts.st_mtime_ns)
