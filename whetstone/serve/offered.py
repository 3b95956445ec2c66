"""The models that a server offers, by the names that requests use.

A run offers the model of each finished stage under the stage's name, and its untrained base as `base`; what finishes while the
server runs is offered from then on. Any other model has the name of its folder or file, or its name on the Hub.
"""

from collections.abc import Sequence
from pathlib import Path

from whetstone.model_files import CONFIG
from whetstone.run.folder import MANIFEST, stage_folders

BASE = "base"


def is_run(name: str) -> bool:
    """Whether it is the folder of a run, finished or not."""
    folder = Path(name)
    stages = (*folder.glob(f"[0-9]*-*/{MANIFEST}"), *folder.glob("[0-9]*-*/started.json"))
    return not (folder / CONFIG).is_file() and bool(stages or (folder / "run.json").is_file())


def offered(given: Sequence[str]) -> dict[str, str]:
    """Name in a request -> what `find_model` takes. The last stage of the first run, or the first model, stands first."""
    models: dict[str, str] = {}
    runs = sum(map(is_run, given))
    for name in given:
        own = _stages(Path(name)) if is_run(name) else {_short(name, given): name}
        prefix = f"{Path(name).resolve().name}/" if is_run(name) and (runs > 1 or len(given) > 1) else ""
        models |= {prefix + stage: folder for stage, folder in own.items()}
    return models


def _stages(run: Path) -> dict[str, str]:
    """The last stage first."""
    stages = stage_folders(run)
    models = {
        stage.name.partition("-")[2]: str(stage / "model")
        for stage in reversed(stages)
        if (stage / "model" / CONFIG).is_file() and (stage / MANIFEST).exists()
    }
    untrained = [stage / "base" for stage in stages if (stage / "base" / CONFIG).is_file()]
    return models | ({BASE: str(untrained[0])} if untrained else {})


def _short(name: str, given: Sequence[str]) -> str:
    """The last part of a path, if it is not that of another, too."""
    path = Path(name)
    if not path.exists():
        return name
    short = path.resolve().parent.name.partition("-")[2] if path.name == "model" else path.resolve().name
    alike = [other for other in given if Path(other).resolve().name == path.resolve().name]
    return short if short and len(alike) == 1 else name
