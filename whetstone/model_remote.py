"""Models in object stores: the local copy of a folder, a GGUF file, a stage or a run that an address names (run/remote.py)."""

import fnmatch
import re
from pathlib import Path

from whetstone.model_adapter import SETTINGS as ADAPTER
from whetstone.model_files import ACCEPTED, CONFIG, Unfit
from whetstone.model_hub import PLAIN_FILES
from whetstone.run import remote
from whetstone.run.control import is_control
from whetstone.run.folder import MANIFEST
from whetstone.run.mistakes import first_few
from whetstone.run.secrets import redacted

STAGE = re.compile(r"\d+-[^/]+/")
SHOWN = 8


def place(name: Path | str) -> Path:
    """The path that a name is; of an address in a store, its copy. A web address is no model's: it may be a server's.

    Raises Unfit if the address holds no model, and as `remote.copy_file`.
    """
    url = remote.in_store(name)
    return _copy(url.rstrip("/")) if url else Path(name)


def _copy(url: str) -> Path:
    if not remote.is_folder(url):
        return remote.copy_file(url)
    found = _model_in(url)
    if not found:
        holds = first_few(remote.names_in(url), SHOWN) or "nothing"
        raise Unfit(f"{redacted(url)} holds {holds}: no model. {ACCEPTED}.")
    return remote.copy_folder(found, _is_wanted)


def _model_in(url: str) -> str | None:
    """The folder of the model: itself, a stage's, or the last that a run trained, controls excepted."""
    names = remote.names_in(url)
    if any(name in (CONFIG, ADAPTER) or name.endswith(".gguf") for name in names):
        return url
    if "model/" in names and CONFIG in remote.names_in(f"{url}/model"):
        return f"{url}/model"
    stages = [
        f"{url}/{name.rstrip('/')}" for name in names if STAGE.fullmatch(name) and not is_control(name.rstrip("/"))
    ]
    finished = (stage for stage in reversed(stages) if {"model/", MANIFEST} <= set(remote.names_in(stage)))
    return next(map(_model_in, finished), None)


def _is_wanted(name: str) -> bool:
    return name.endswith(".gguf") or any(fnmatch.fnmatch(name, pattern) for pattern in PLAIN_FILES)
