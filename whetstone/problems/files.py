"""Paths as a recipe writes them, with $VARIABLES and ~, and the file that is meant."""

import os
import re
from difflib import get_close_matches
from pathlib import Path

LISTED = 8  # files of a folder that an error names


def expand_path(raw: str) -> Path:
    """`raw` with its $VARIABLES and ~ filled in. Raises ValueError for a variable that is not set."""
    path = os.path.expandvars(raw)
    unset = re.search(r"\$\{?(\w+)", path)
    if unset:
        raise ValueError(
            f"source path {raw!r} names ${unset[1]}, which is not set: the file cannot be found. Say where it is with\n"
            f"    export {unset[1]}=/the/folder\nor write the whole path into the recipe."
        )
    return Path(path).expanduser()


def find_file(raw: str) -> Path:
    """The file that `raw` names. Raises ValueError for an unset variable or a folder, FileNotFoundError."""
    path = expand_path(raw)
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f"source path {path} is a folder: a source is one file. Name a file in it.")
    present = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    near = get_close_matches(path.name, present, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}, which is there?"
    elif path.parent.is_dir():
        hint = f"{path.parent} holds {', '.join(present[:LISTED]) or 'nothing'}."
    else:
        hint = f"the folder {path.parent} is not there either. Relative paths start at {Path.cwd()}."
    raise FileNotFoundError(f"source file {path} is missing: {hint}")
