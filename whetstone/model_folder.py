"""The one door for models: the plain folder that a name stands for, whatever a user has.

A name is a Hugging Face folder, a run (its last trained model) or a stage, a GGUF file or a folder that holds one
(model_gguf.py), an adapter's folder (model_adapter.py), the address of one of these in an object store, which is copied
(model_remote.py), or a model on the Hub (model_hub.py). Everything behind this door knows plain folders only. This file needs
neither torch nor transformers, unless a GGUF file is converted or an adapter merged, so `plan` can use it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whetstone.model_adapter import Adapter, adapter_in, merge, merged, read_adapter
from whetstone.model_files import ACCEPTED, CONFIG, Unfit, check_folder
from whetstone.model_gguf import check_gguf, content_hash, convert, converted, gguf_in, origin
from whetstone.model_hub import commit_of, download, hub_name, snapshot
from whetstone.model_remote import place
from whetstone.run.control import is_control
from whetstone.run.folder import MANIFEST, stage_folders
from whetstone.run.remote import address
from whetstone.run.secrets import redacted


def find_model(name: Path | str) -> Path:
    """The plain folder that a name stands for. A hub model that is not on this machine is downloaded, a GGUF file is
    converted and an adapter merged into its base, once.

    Raises FileNotFoundError or ValueError if the name stands for none, ImportError if a package is missing.
    """
    path = place(name)
    if (local := local_model(name)) is not None and (path.exists() or _is_complete(local)):
        return local
    if gguf := gguf_of(name):
        return convert(gguf)
    if adapter := adapter_of(name):
        return _merged(adapter)
    if path.is_file():
        raise Unfit(f"{name} is a file. {ACCEPTED}.")
    if path.is_dir():
        return path  # what it lacks, `check_folder` says
    if os.path.lexists(path):
        raise FileNotFoundError(f"{name} is a link that leads nowhere, or a device. {ACCEPTED}.")
    if (on_hub := hub_name(name)) is None:
        raise FileNotFoundError(f"There is no folder {name}. {ACCEPTED}.")
    folder = download(on_hub)
    if gguf := gguf_in(folder / on_hub.file):
        return convert(gguf)
    return _merged(folder) if adapter_in(folder) else folder


def _merged(folder: Path) -> Path:
    adapter = read_adapter(folder)
    with _base_of(adapter):
        base = find_model(adapter.base)
        check_folder(base)
    return merge(adapter, base)


def check_model(name: Path | str) -> None:
    """Raises FileNotFoundError or ValueError if a name stands for nothing that can be used. Nothing is downloaded from the Hub
    or converted for it; what an address names is copied.
    """
    if folder := adapter_of(name):
        adapter = read_adapter(folder)
        with _base_of(adapter):
            check_model(adapter.base)
    elif local_model(name) is None and (gguf := gguf_of(name)):
        check_gguf(gguf)
    elif local_model(name) is not None or os.path.lexists(place(name)) or hub_name(name) is None:
        check_folder(find_model(name))


def local_model(name: Path | str) -> Path | None:
    """The plain folder on this machine: `name` itself, a stage's, the last one trained in a run, what a GGUF file was
    converted or an adapter merged into, a downloaded hub model.
    """
    path = place(name)
    if (trained := _trained_in(path)) is not None:
        return trained
    if gguf := gguf_of(name):
        return converted(gguf)
    if adapter := adapter_of(name):
        return _merged_before(adapter)
    folder = path if path.exists() else _downloaded(name)
    return folder if folder is not None and (folder / CONFIG).is_file() else None


def adapter_of(name: Path | str) -> Path | None:
    """The folder of the adapter that a name stands for, if it is on this machine."""
    path = place(name)
    folder = path if path.exists() else _downloaded(name)
    return adapter_in(folder) if folder else None


def base_of(name: Path | str) -> str | None:
    """The name of the base that an adapter names; None for what is no adapter. Raises Unfit for one that cannot be used."""
    folder = adapter_of(name)
    return read_adapter(folder).base if folder else None


def _merged_before(folder: Path) -> Path | None:
    adapter = read_adapter(folder)
    base = local_model(adapter.base)
    return merged(adapter, base) if base else None


@contextmanager
def _base_of(adapter: Adapter) -> Iterator[None]:
    """What is wrong with a base is said of the adapter that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Unfit(
            f"{adapter.folder} is an adapter of {adapter.base}, which cannot be used: {error} If the base lies elsewhere, "
            "write its place as base_model_name_or_path into adapter_config.json."
        ) from error


def gguf_of(name: Path | str) -> Path | None:
    """The GGUF file that a name stands for, if it is on this machine. Raises Unfit if a folder holds several."""
    path = place(name)
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
    trained = [stage / "model" for stage in stage_folders(path) if (stage / "model" / CONFIG).is_file()]
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
    known: dict[str, Any] = {"name": redacted(address(name) or str(name))}
    if not place(name).exists() and (on_hub := hub_name(name)):
        known |= {"revision": on_hub.revision, "commit": commit_of(on_hub)}
    if base := base_of(name):
        known["adapter_of"] = provenance(base)
    if (folder := local_model(name)) is not None and (source := origin(folder)):
        known["converted_from"] = source
    return known


def file_hash(name: Path | str) -> str | None:
    """Of the GGUF file that a path stands for; None if it stands for none."""
    gguf = gguf_of(name) if place(name).exists() else None
    return content_hash(gguf) if gguf else None


def _is_complete(downloaded: Path) -> bool:
    """Whether a download is whole; one that was interrupted is continued."""
    try:
        check_folder(downloaded)
    except (OSError, ValueError):
        return False
    return True
