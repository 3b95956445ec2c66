"""Models on the Hugging Face Hub: `OWNER/NAME`, `OWNER/NAME@REVISION`, `OWNER/NAME/FILE.gguf`.

A revision is a branch, a tag or a commit; without one it is the branch `main`, as it was when the model was downloaded.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from whetstone.model_files import ACCEPTED, Unfit, listed

NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w-][\w.-]*\.gguf))?(?:@(\w[\w./-]*))?")
MAIN = "main"
PLAIN_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md")


class HubName(NamedTuple):
    repository: str
    file: str  # a GGUF file in it; "": the repository's model
    revision: str


def hub_name(name: Path | str) -> HubName | None:
    """None if it cannot be a name on the Hub.

    >>> hub_name("some/model@v1.0")
    HubName(repository='some/model', file='', revision='v1.0')
    """
    found = NAME.fullmatch(str(name))
    return HubName(found[1], found[2] or "", found[3] or MAIN) if found else None


def snapshot(name: HubName) -> Path | None:
    """The folder of what was downloaded of it, which may be a part; None if nothing was."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    storage = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name.repository, repo_type="model")
    reference = storage / "refs" / name.revision
    commit = reference.read_text().strip() if reference.is_file() else name.revision
    folder = storage / "snapshots" / commit
    return folder if folder.is_dir() else None


def downloaded_as(folder: Path) -> tuple[str, str] | None:
    """(OWNER/NAME, commit) of a downloaded folder; None for any other.

    >>> downloaded_as(Path("hub/models--some--model/snapshots/1ca3"))
    ('some/model', '1ca3')
    """
    kind, _, name = folder.parent.parent.name.partition("--")
    return (name.replace("--", "/"), folder.name) if (folder.parent.name, kind) == ("snapshots", "models") else None


def commit_of(name: HubName) -> str:
    """The commit of what was downloaded; "" if nothing was."""
    folder = snapshot(name)
    return folder.name if folder else ""


def download(name: HubName) -> Path:
    """The folder with its files: those of a plain folder, or one GGUF file. Raises FileNotFoundError, and Unfit if it holds
    several GGUF files and none is named.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = [file.rfilename for file in HfApi().model_info(name.repository, revision=name.revision).siblings or ()]
        wanted = _wanted(name, files)
        return Path(
            snapshot_download(name.repository, revision=name.revision, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
    except Unfit:
        raise
    except Exception as error:  # whatever the Hub or the network answers
        shown = f"{name.repository}@{name.revision}" if name.revision != MAIN else name.repository
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"There is no folder {shown}, and the Hugging Face Hub does not give a model of that name "
            f"({type(error).__name__}: {reason}). {_remedy(name, error)} {ACCEPTED}."
        ) from error


def one_gguf(names: Iterable[str], where: str) -> str:
    """The one GGUF file among these; "" if there is none. Vision parts (mmproj) beside it do not count.

    Raises Unfit if there are several.
    """
    every = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [name for name in every if not name.startswith("mmproj")] or every
    if len(models) > 1:
        raise Unfit(
            f"{where} holds {len(models)} GGUF files ({listed(models)}), each a model or a part of one. Name one of them: "
            f"{where}/{models[0]}."
        )
    return models[0] if models else ""


def _wanted(name: HubName, files: Iterable[str]) -> list[str]:
    if name.file:
        return [name.file]
    top = [file for file in files if "/" not in file]
    if any(file.endswith(".safetensors") for file in top):
        return [*PLAIN_FILES]
    gguf = one_gguf(top, name.repository)
    return [gguf] if gguf else [*PLAIN_FILES]


def _remedy(name: HubName, error: Exception) -> str:
    """What the user can do. The errors are told apart by the names of their classes, from the cause on."""
    chain = error, error.__cause__, error.__context__
    kinds = {kind.__name__ for part in chain if part is not None for kind in type(part).__mro__}
    if "OfflineModeIsEnabled" in kinds:
        return (
            "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or download where there is a network (hf download "
            f"{name.repository}) and copy the folder."
        )
    if "GatedRepoError" in kinds:
        return "Accept the terms on the model's page, and log in: hf auth login."
    if "RevisionNotFoundError" in kinds:
        return f"It has no branch, tag or commit {name.revision!r}: see the history on the model's page."
    if "RepositoryNotFoundError" in kinds or getattr(getattr(error, "response", None), "status_code", 0) == 404:
        return "Check the name; if the model is private, log in: hf auth login."
    return f"If there is no network here, download it where there is one (hf download {name.repository}) and copy the folder."
