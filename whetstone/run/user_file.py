"""Things of the user's own that a recipe names as `"file.py:name"`: a reward, an algorithm, a source, a kind of stage.

A file runs once per content, so a class that it declares is the same class wherever the file is named.
"""

import hashlib
import inspect
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


def file_of(reference: str) -> Path | None:
    """The file of a reference `file.py:name`; None for a text that is not one.

    >>> file_of("rewards.py:brevity"), file_of("zero_one"), file_of("rewards.txt:brevity")
    (PosixPath('rewards.py'), None, None)
    """
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        return None
    return Path(path).expanduser()


def load(reference: str) -> Any:
    """What the reference names. Relative paths start at the working directory.

    Raises ValueError for a text that is no reference or a name that the file does not have, FileNotFoundError.
    """
    module, name = module_of(reference), reference.rpartition(":")[2]
    if not hasattr(module, name):
        own = [other for other, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"{module.__file__} has no {name!r}: it has {', '.join(own) or 'nothing'}. Name one of these.")
    return getattr(module, name)


def module_of(reference: str) -> ModuleType:
    """The module of the reference's file. Raises as `load` does."""
    path = file_of(reference)
    if path is None:
        raise ValueError(f'{reference!r} is not a reference to something in a file: write "file.py:name".')
    if not path.is_file():
        raise FileNotFoundError(
            f"{reference!r}: there is no such file. Relative paths start at {Path.cwd()}: run from the folder that it is in, "
            "or write the whole path."
        )
    key = hashlib.sha256(bytes(path.resolve()) + b"\0" + path.read_bytes()).hexdigest()[:16]
    name = f"user_file_{path.stem}_{key}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec and spec.loader
        module = sys.modules[name] = module_from_spec(spec)  # dataclasses and pydantic look for annotations there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ValueError(
                f"{_line_of(error, path)}: this file cannot be used: {type(error).__name__}: {error}"
            ) from error
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def called_with(reference: str, *arguments: str) -> Any:
    """The function of the reference, if it can be called with so many arguments. Raises ValueError, and as `load` does."""
    function = load(reference)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:  # raised for what is no function, too
        raise ValueError(
            f"{reference!r} cannot be called with ({', '.join(arguments)}): {error}. Write it as a function of these."
        ) from error
    return function


def _line_of(error: BaseException, path: Path) -> str:
    """`file.py:3`, the last line of the file that took part in the error."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}:{lines[-1]}" if lines else f"{path}"
