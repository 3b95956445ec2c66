"""Files that an address names (s3://, gs://, hf://, https://, …), read through fsspec.

They are copied into the cache first, and whatever reads them knows local files only. A copy is used again while the store says
of the file what it said when it was copied (size, checksum, time). In one process each address is looked at once.

    find("s3://bucket/rows-*.jsonl")       # the addresses that fit
    copy_file("s3://bucket/rows-1.jsonl")  # CACHE/remote/1f3a…/rows-1.jsonl
    copy_folder("s3://bucket/model", keep) # CACHE/remote/77b0…/model, with the files whose names `keep` accepts
    local_run("s3://bucket/runs/tiny")     # CACHE/remote/9c25…/tiny, what can be read of a run
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from whetstone.run.disk import DiskFull, room_for
from whetstone.run.folder import alone
from whetstone.run.mistakes import install_hint
from whetstone.run.progress import say
from whetstone.run.secrets import redacted

ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/{1,2}(?=[^/])")  # `Path` makes one slash of two
EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")
LARGE = 100e6  # bytes from which a copy is announced


def address(name: Path | str) -> str | None:
    """The address that a name is; None for a path.

    >>> address(Path("s3://bucket/rows.jsonl")), address("data/rows.jsonl")
    ('s3://bucket/rows.jsonl', None)
    """
    found = ADDRESS.match(str(name))
    return f"{found[1]}://{str(name)[found.end() :]}" if found else None


def on_the_web(url: str) -> bool:
    """The web has no folders and no patterns."""
    return url.startswith(("http://", "https://"))


def in_store(name: Path | str) -> str | None:
    """The address that a name is, unless it is on the web, where it may be a server's; None for a path."""
    url = address(name)
    return None if url is None or on_the_web(url) else url


def find(url: str) -> list[str]:
    """The addresses that a pattern fits; of one without `*`, `?` or `[…]`, and of one on the web, itself."""
    if on_the_web(url) or not has_magic(url):
        return [url]
    with explained(url):
        store, place = store_of(url)
        return [store.unstrip_protocol(found) for found in store.glob(place)]


@cache
def is_folder(url: str) -> bool:
    with explained(url):
        store, place = store_of(url)
        return store.isdir(place)


@cache
def names_in(url: str) -> list[str]:
    """What lies directly in a folder; a folder's name ends in a slash."""
    with explained(url):
        store, place = store_of(url)
        entries = store.ls(place, detail=True)
        names = {_last(entry["name"]) + "/" * (entry["type"] == "directory") for entry in entries}
        return sorted(names - {_last(place) + "/", ""})


@cache
def copy_file(url: str) -> Path:
    """The local copy. Raises FileNotFoundError, DiskFull, OSError with what the store answered, ImportError."""
    with explained(url):
        return _copied(url, _home(url), _home(url))


@cache
def copy_folder(url: str, keep: Callable[[str], bool]) -> Path:
    """The folder of local copies of the files directly in it. Raises as `copy_file`."""
    kept = [name for name in names_in(url) if not name.endswith("/") and keep(name)]
    return _copies(url, kept, _home(url) / _last(url))


def local_run(name: Path | str) -> Path:
    """The path that a name is; of an address, the copy of what is there to be read of a run, a stage or saved generations: the
    file, or all files of the folder but weights and checkpoints. Raises as `copy_file`."""
    url = address(name)
    if url is None:
        return Path(name)
    if on_the_web(url) or not is_folder(url):
        return copy_file(url)
    url = url.rstrip("/")
    with explained(url):
        store, place = store_of(url)
        found = [path.lstrip("/").removeprefix(place.strip("/")).lstrip("/") for path in store.find(place)]
    parent = _last(url.rpartition("/")[0])  # kept in the copy's path: a folder of `scores` is told by it
    return _copies(url, filter(_is_readable, found), _home(url) / parent / _last(url))


def _is_readable(name: str) -> bool:
    """Whether a file of a run, by its path in the run's folder, is neither weights nor hidden nor of a checkpoint."""
    path = PurePosixPath(name)
    return path.suffix not in WEIGHTS and not any(p.startswith(".") or p == "checkpoints" for p in path.parts)


def _copies(url: str, names: Iterable[str], folder: Path) -> Path:
    """The folder, with copies of these files below an address and no others. Raises as `copy_file`."""
    kept = set()
    with explained(url):
        for name in names:
            inner = PurePosixPath(name).parent
            home = _home(url if inner == PurePosixPath() else f"{url}/{inner}")
            kept.add(_copied(f"{url.rstrip('/')}/{name}", folder / inner, home))
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:  # it is no longer there
            path.unlink()
    return folder


def kept_in() -> Path:
    """Where copies and converted models are kept."""
    named = os.environ.get("WHETSTONE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whetstone"


def _home(url: str) -> Path:
    return kept_in() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16]


def _last(place: str) -> str:
    """The last name of an address, without what follows `?` or `#` on the web."""
    name = re.split(r"[?#]", place.rstrip("/"))[0].rpartition("/")[2]
    if name in ("", ".", "..") or "\\" in name or not name.isprintable():
        raise ValueError(f"the address {redacted(place)} ends in {name!r}, which can be no file's name here.")
    return name


def store_of(url: str) -> tuple[Any, str]:
    """The file system of an address, and the place in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)


def _copied(url: str, folder: Path, home: Path) -> Path:
    """The copy in `folder`. What the store said of it is kept in `home`."""
    path = folder / _last(url)
    store, place = store_of(url)
    known = store.info(place)
    if known["type"] == "directory":
        raise IsADirectoryError(f"{redacted(url)} is a folder, and one file is wanted. Name a file in it.")
    facts, size = home / f".facts-{path.name}", known.get("size") or 0
    state = json.dumps(known, default=str, sort_keys=True)
    for needed in (folder, home):
        needed.mkdir(parents=True, exist_ok=True)
    with alone(home / ".lock"):
        if path.is_file() and facts.is_file() and facts.read_text(encoding="utf-8") == state:
            return path
        if size > LARGE:
            say(f"{redacted(url)}: {size / 1e9:.1f} GB, copied to {path}")
        with room_for(redacted(url), size, folder):
            _fetch(store, place, path, home / f".part-{path.name}", known.get("size"))
            facts.write_text(state, encoding="utf-8")
    return path


def _fetch(store: Any, place: str, path: Path, part: Path, size: int | None) -> None:
    try:
        store.get_file(place, str(part))
        if size is not None and part.stat().st_size != size:
            raise OSError(f"{part.stat().st_size:,} of {size:,} bytes came")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Whatever a store raises, as an error that names the address."""
    shown, scheme = redacted(url), url.partition(":")[0]
    try:
        yield
    except (DiskFull, IsADirectoryError):
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown} is missing, or this account may not see it.") from error
    except ImportError as error:
        hint = install_hint(EXTRAS[scheme]) if scheme in EXTRAS else str(error)
        raise ImportError(f"{shown} needs a package that is not installed: {hint}") from error
    except Exception as error:  # each store has errors of its own
        reason = redacted((str(error).strip() or type(error).__name__).partition("\n")[0])
        raise OSError(
            f"{shown} cannot be used: {reason}. Credentials and addresses of stores are set as their own tools want them, "
            "in environment variables or their files (docs/your_data.md)."
        ) from error
