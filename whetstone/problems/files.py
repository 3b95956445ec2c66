"""Paths as a recipe or a command line writes them, with $VARIABLES and ~, or addresses, and the files that are meant."""

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path

from whetstone.problems.table import FORMATS
from whetstone.problems.text import suffix_of
from whetstone.run import remote

LISTED = 8  # files of a folder that an error names
NO_ROWS = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
)  # beside the files of `datasets`
FETCH = "fetch the set (hf download {} --repo-type dataset --local-dir FOLDER) and name its file"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def expand_path(raw: str) -> Path:
    """`raw` with its $VARIABLES and ~ filled in. Raises ValueError for a variable that is not set."""
    return Path(_expanded(raw)).expanduser()


def _expanded(raw: str) -> str:
    path = os.path.expandvars(raw)
    unset = re.search(r"\$\{?(\w+)", path)
    if unset:
        raise ValueError(
            f"source path {raw!r} names ${unset[1]}, which is not set: the file cannot be found. Say where it is with\n"
            f"    export {unset[1]}=/the/folder\nor write the whole path into the recipe."
        )
    return path


def find_files(raw: str) -> list[Path]:
    """The files that `raw` names, in order: a file, a folder with the parts of one table, or a pattern (data/*.parquet). Of an
    address (run/remote.py) they are copied.

    Raises ValueError for an unset variable or a folder that is not one table, FileNotFoundError, OSError.
    """
    if Path(raw).is_file():
        return [Path(raw)]
    if url := _address(raw):
        return _copies(url, raw)
    path = expand_path(raw)
    if path.is_dir():
        return _parts(path)
    if has_magic(str(path)) and not path.exists():
        found = sorted(filter(Path.is_file, map(Path, glob(str(path), recursive=True))), key=_by_number)
        if not found:
            raise FileNotFoundError(f"no file fits the pattern {_shown(path)}. Relative paths start at {Path.cwd()}.")
        return found
    return [find_file(raw)]


def find_file(raw: str) -> Path:
    """The one file that `raw` names. Raises ValueError for an unset variable or a folder, FileNotFoundError, OSError."""
    if url := _address(raw):
        return remote.copy_file(url)
    path = expand_path(raw)
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f"source path {path} is a folder, and one file is wanted. Name a file in it.")
    raise FileNotFoundError(f"source file {_shown(path)} is missing: {_hint(path, raw)}")


def read_paths(raw: str) -> list[Path]:
    """What a result depends on that reads `raw`: the files, or the path itself if there are none."""
    try:
        return find_files(raw)
    except OSError:
        return [expand_path(raw)]


def _shown(path: Path) -> str:
    """On one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _hint(path: Path, raw: str) -> str:
    present = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    near = get_close_matches(path.name, present, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}, which is there?"
    if path.parent.is_dir():
        return f"{path.parent} holds {', '.join(present[:LISTED]) or 'nothing'}."
    if HUB_NAME.fullmatch(raw) and suffix_of(path) not in FORMATS:
        return (
            f"it looks like a name on the Hugging Face Hub, and a path is a local file. Either {FETCH.format(raw)}; or, in a "
            f'recipe, read a set whose layout is known from the Hub: kind = "published", set = "…", hub = "{raw}".'
        )
    return f"the folder {_shown(path.parent)} is not there either. Relative paths start at {Path.cwd()}."


# --- addresses ---


def _address(raw: str) -> str | None:
    return remote.address(_expanded(raw))


def _copies(url: str, raw: str) -> list[Path]:
    found = sorted(remote.find(url), key=_by_number)
    if not found:
        raise FileNotFoundError(f"no file fits the pattern {raw}.")
    if found == [url] and remote.is_folder(url):
        return _parts(remote.copy_folder(url, _is_named_as_table))
    return [remote.copy_file(one) for one in found]


# --- folders ---


def _parts(folder: Path) -> list[Path]:
    """The files of a folder that are named as parts of one table: alike but for numbers."""
    files = sorted(filter(_is_table, folder.iterdir()), key=_by_number)
    if len({re.sub(r"\d+", "0", file.name) for file in files}) == 1:
        return files
    if files:
        raise ValueError(
            f"the folder {folder} holds {_listed(files)}, which are not the parts of one table. Name one of them, or a "
            f"pattern such as {folder / '*'}{files[0].suffix}."
        )
    folders = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    below = f" Below it are {_listed(folders)}: name one of them." if folders else ""
    raise ValueError(f"the folder {folder} holds no file ending in {', '.join(FORMATS)}.{below}")


def _is_table(path: Path) -> bool:
    return path.is_file() and _is_named_as_table(path.name)


def _is_named_as_table(name: str) -> bool:
    hidden = name.startswith((".", "cache-"))  # `datasets` keeps what `map` made beside the set
    return not hidden and name not in NO_ROWS and suffix_of(Path(name)) in FORMATS


def _by_number(path: Path | str) -> list[tuple[int, str]]:
    """Sorts part-2 before part-10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece) if piece.isdecimal() and len(piece) < 19 else 0, piece) for piece in pieces]


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:LISTED]) + (", …" if len(paths) > LISTED else "")
