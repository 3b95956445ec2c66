"""Whether a finished stage's output is still what the stage made.

A manifest holds the hash of each artifact. Before a stage runs, or a model is scored, what it reads is hashed again. For the
others `outputs.json` beside the manifest remembers each file's size and times: if they are the same, so is the content. If
they are not, as after copying a run folder, the content is hashed and decides. The times include that of the last change of
the file's own data on disk (ctime), which no program can set.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from whetstone.run.folder import DamagedFile, files_below, hash_folder, read_json, write_json
from whetstone.run.mistakes import first_few

OUTPUTS = "outputs.json"
SHOWN = 3  # files named in a message

Stamps = dict[str, list[int]]  # file -> size, time of change, time of change of its data on disk; nanoseconds


def stamps(folder: Path) -> Stamps:
    """Of all files of an artifact."""
    found = {}
    for path in files_below(folder):
        facts = path.stat()
        found[str(path.relative_to(folder))] = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
    return found


def remember(stage: Path, outputs: Mapping[str, str]) -> None:
    """Note the sizes and times of outputs whose content is known to be right. Writes only what is new."""
    now = {artifact: stamps(stage / artifact) for artifact in outputs}
    if _remembered(stage) != now:
        write_json(stage / OUTPUTS, now)


def changed(stage: Path, outputs: Mapping[str, str], by_content: bool = False) -> list[str]:
    """In words: which of a stage's outputs are not what its manifest says. `by_content`: whatever their sizes and times."""
    remembered = _remembered(stage)
    return [
        f"its {artifact} was changed after it was made{_which(remembered.get(artifact), stage / artifact)}"
        for artifact, content in outputs.items()
        if not (
            (not by_content and remembered.get(artifact) == stamps(stage / artifact) != {})
            or content_of(stage / artifact) == content
        )
    ]


def require_unchanged(stage: Path, outputs: Mapping[str, str]) -> None:
    """Raises ValueError if the content of an output that is about to be read is not what the manifest says."""
    if wrong := changed(stage, outputs, by_content=True):
        raise ValueError(
            f"{stage}: {'; '.join(wrong)}. Put the files back as they were, or move {stage} away and run again: the stage is "
            "then made anew."
        )


def content_of(folder: Path) -> str:
    """The hash of a folder, computed once per state of its files in this process."""
    return _hashed(folder, str(stamps(folder)))


@lru_cache(maxsize=64)
def _hashed(folder: Path, facts: str) -> str:
    return hash_folder(folder)


def _remembered(stage: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, DamagedFile):  # without it, the content decides
        return read_json(stage / OUTPUTS)
    return {}


def _which(before: Any, folder: Path) -> str:
    """The files that differ in size or time, or are missing or new."""
    if not isinstance(before, dict):
        return ""
    now = stamps(folder)
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name, [])[:2] != now.get(name, [])[:2]]
    return f" ({first_few(names, SHOWN)})" if names else ""
