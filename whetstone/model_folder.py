"""The one door for models: the plain folder that a name stands for, whatever a user has.

A name is a Hugging Face folder, a run (its last trained model) or a stage, a GGUF file or a folder that holds one
(model_gguf.py), or a model on the Hub (model_hub.py). Everything behind this door knows plain folders only. This file needs
neither torch nor transformers, unless a GGUF file is converted, so `plan` can use it.
"""

import os
from pathlib import Path
from typing import Any

from whetstone.model_files import ACCEPTED, CONFIG, Unfit, check_folder
from whetstone.model_gguf import check_gguf, content_hash, convert, converted, gguf_in, origin
from whetstone.model_hub import commit_of, download, hub_name, snapshot
from whetstone.run.control import is_control
from whetstone.run.folder import MANIFEST


def find_model(name: Path | str) -> Path:
    """The plain folder that a name stands for. A hub model that is not on this machine is downloaded, and a GGUF file is
    converted, once.

    Raises FileNotFoundError or ValueError if the name stands for none, ImportError if a package is missing.
    """
    path = Path(name)
    if (local := local_model(name)) is not None and (path.exists() or _is_complete(local)):
        return local
    if gguf := gguf_of(name):
        return convert(gguf)
    if path.is_file():
        raise Unfit(f"{name} is a file. {ACCEPTED}.")
    if path.is_dir():
        return path  # what it lacks, `check_folder` says
    if os.path.lexists(path):
        raise FileNotFoundError(f"{name} is a link that leads nowhere, or a device. {ACCEPTED}.")
    if (on_hub := hub_name(name)) is None:
        raise FileNotFoundError(f"There is no folder {name}. {ACCEPTED}.")
    folder = download(on_hub)
    gguf = gguf_in(folder / on_hub.file)
    return convert(gguf) if gguf else folder


def check_model(name: Path | str) -> None:
    """Raises FileNotFoundError or ValueError if a name stands for nothing that can be used. Nothing is downloaded or converted
    for it.
    """
    if local_model(name) is None and (gguf := gguf_of(name)):
        check_gguf(gguf)
    elif local_model(name) is not None or os.path.lexists(name) or hub_name(name) is None:
        check_folder(find_model(name))


def local_model(name: Path | str) -> Path | None:
    """The plain folder on this machine: `name` itself, a stage's, the last one trained in a run, what a GGUF file was
    converted into, a downloaded hub model.
    """
    path = Path(name)
    if (trained := _trained_in(path)) is not None:
        return trained
    if gguf := gguf_of(name):
        return converted(gguf)
    folder = path if path.exists() else _downloaded(name)
    return folder if folder is not None and (folder / CONFIG).is_file() else None


def gguf_of(name: Path | str) -> Path | None:
    """The GGUF file that a name stands for, if it is on this machine. Raises Unfit if a folder holds several."""
    path = Path(name)
    if path.exists():
        return None if _trained_in(path) else gguf_in(path)
    downloaded = _downloaded(name)
    return gguf_in(downloaded) if downloaded else None


def _trained_in(path: Path) -> Path | None:
    """The model of a stage, or the last one trained in a run, controls excepted."""
    if (path / CONFIG).is_file():
        return None
    if (path / "model" / CONFIG).is_file():
        return path / "model"
    trained = [found.parent for found in sorted(path.glob(f"[0-9]*-*/model/{CONFIG}"))]
    own = [model for model in trained if (model.parent / MANIFEST).exists() and not is_control(model.parent.name)]
    return own[-1] if own else None


def _downloaded(name: Path | str) -> Path | None:
    """What of a name on the Hub is on this machine: a folder, or the GGUF file that it names."""
    on_hub = hub_name(name)
    folder = snapshot(on_hub) if on_hub else None
    if folder is None or not on_hub.file:
        return folder
    return folder / on_hub.file if (folder / on_hub.file).is_file() else None


def provenance(name: Path | str) -> dict[str, Any]:
    """What is known of where a model came from: its name, the commit on the Hub, the GGUF file and its quantisation."""
    known: dict[str, Any] = {"name": str(name)}
    if not Path(name).exists() and (on_hub := hub_name(name)):
        known |= {"revision": on_hub.revision, "commit": commit_of(on_hub)}
    if (folder := local_model(name)) is not None and (source := origin(folder)):
        known["converted_from"] = source
    return known


def file_hash(name: Path | str) -> str | None:
    """Of the GGUF file that a path stands for; None if it stands for none."""
    gguf = gguf_of(name) if Path(name).exists() else None
    return content_hash(gguf) if gguf else None


def _is_complete(downloaded: Path) -> bool:
    """Whether a download is whole; one that was interrupted is continued."""
    try:
        check_folder(downloaded)
    except (OSError, ValueError):
        return False
    return True
