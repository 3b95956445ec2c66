"""Things of the user's own that a recipe names as `"file.py:name"`: a reward, an algorithm, a source, a kind of stage."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def file_of(reference: str, relative_to: Path | None = None) -> Path | None:
    """The file of a reference `file.py:name`; None for a text that is not one."""
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        return None
    return (relative_to or Path()) / Path(path).expanduser()


def load(reference: str, relative_to: Path | None = None) -> object:
    """What the reference names. Relative paths start at `relative_to`, or at the working directory.

    Raises ValueError for a text that is no reference or a name that the file does not have, FileNotFoundError.
    """
    path = file_of(reference, relative_to)
    if path is None:
        raise ValueError(f'{reference!r} is not a reference to something in a file: write "file.py:name".')
    if not path.is_file():
        raise FileNotFoundError(
            f"{reference!r}: there is no file {path}. Relative paths start at {relative_to or Path.cwd()}: run from the "
            "folder that it is in, or write the whole path."
        )
    spec = spec_from_file_location(f"user_file_{path.stem}", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    name = reference.rpartition(":")[2]
    if not hasattr(module, name):
        names = [other for other in vars(module) if not other.startswith("_")]
        raise ValueError(f"{path} has no {name!r}: it has {', '.join(names) or 'nothing'}.")
    return getattr(module, name)
