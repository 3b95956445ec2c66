"""Things of the user's own that a recipe names as `"file.py:name"`: a reward, an algorithm, a source, a kind of stage.

A file runs once per content, so a class that it declares is the same class wherever the file is named.
"""

import hashlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


def file_of(reference: str, relative_to: Path | None = None) -> Path | None:
    """The file of a reference `file.py:name`; None for a text that is not one.

    >>> file_of("rewards.py:brevity"), file_of("zero_one"), file_of("rewards.txt:brevity")
    (PosixPath('rewards.py'), None, None)
    """
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        return None
    return (relative_to or Path()) / Path(path).expanduser()


def load(reference: str, relative_to: Path | None = None) -> Any:
    """What the reference names. Relative paths start at `relative_to`, or at the working directory.

    Raises ValueError for a text that is no reference or a name that the file does not have, FileNotFoundError.
    """
    module, name = module_of(reference, relative_to), reference.rpartition(":")[2]
    if not hasattr(module, name):
        own = [other for other, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"{module.__file__} has no {name!r}: it has {', '.join(own) or 'nothing'}. Name one of these.")
    return getattr(module, name)


def module_of(reference: str, relative_to: Path | None = None) -> ModuleType:
    """The module of the reference's file. Raises as `load` does."""
    path = file_of(reference, relative_to)
    if path is None:
        raise ValueError(f'{reference!r} is not a reference to something in a file: write "file.py:name".')
    if not path.is_file():
        raise FileNotFoundError(
            f"{reference!r}: there is no such file. Relative paths start at {relative_to or Path.cwd()}: run from the folder "
            "that it is in, or write the whole path."
        )
    key = hashlib.sha256(bytes(path.resolve()) + b"\0" + path.read_bytes()).hexdigest()[:16]
    name = f"user_file_{path.stem}_{key}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec and spec.loader
        module = sys.modules[name] = module_from_spec(spec)  # dataclasses and pydantic look for annotations there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
