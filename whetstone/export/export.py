"""A trained model as a folder to publish: weights, tokenizer, generation config, model card, data card, scores and settings.

    export(Path("runs/tiny"), Path("tiny-reasoner"))

The folder is complete or absent: it is written beside its place and renamed last. A model with an adapter is merged.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whetstone.export.card import Card, write_card
from whetstone.export.gguf import convert, converter_in
from whetstone.model_files import check_folder
from whetstone.model_folder import find_model
from whetstone.pipeline.outputs import require_unchanged
from whetstone.report.read import RunRecord, StageRecord, read_run
from whetstone.run.disk import room_for
from whetstone.run.folder import write_json, write_text
from whetstone.run.mistakes import suggestion
from whetstone.run.secrets import redacted

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")


def export(
    run_folder: Path,
    to: Path,
    stage: str = "",
    gguf: Sequence[str] = (),
    converter: Path | None = None,
    licence: str = "",
    repository: str = "",
) -> Path:
    """Write the run's last trained model, or a stage's, into the new folder `to`; `gguf` are types of GGUF files beside it.
    `repository` is where it will be published, for its card.

    Raises ValueError or OSError for a run without such a model, files that were changed, a folder that is in use, a converter
    that is missing or refuses the model. Nothing is left then.
    """
    run = read_run(run_folder)
    made = chosen(run, stage)
    script = converter_in(converter) if gguf else None
    refuse_used(to)
    require_unchanged(made.folder, {"model": made.manifest["outputs"]["model"]})
    model = find_model(made.folder)
    check_folder(model)
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    with room_for("the exported model", size * (1 + len(gguf)), to.parent), written_beside(to) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        config = generation_config(folder, run, made)
        for kind in gguf:
            assert script is not None
            convert(script, folder, folder / f"{to.name}-{kind}.gguf", kind, to.name)
        card = Card(run, made, model, to.name, licence, tuple(gguf), config, repository)
        write_card(folder, card)
        write_json(folder / "scores.json", {"scores": card.scores})
        write_json(folder / "recipe.json", published(redacted(run.run.get("recipe", {}))))
        data = card.data_card
        if data is not None:
            write_text(folder / "data_card.md", data.read_text(encoding="utf-8"))
        for path in card.licence_files(LICENCES):
            shutil.copyfile(path, folder / f"base_{path.name}")
    return to


def chosen(run: RunRecord, stage: str) -> StageRecord:
    """The last training stage of the pipeline, or the one with this name. Raises ValueError if there is none."""
    trained = {made.name: made for made in run.training if "model" in made.manifest["outputs"]}
    if stage:
        if stage not in trained:
            raise ValueError(
                f"{run.folder} has no finished stage {stage!r} that gives a model{suggestion(stage, trained)} "
                f"There are {', '.join(trained) or 'none'}."
            )
        return trained[stage]
    pipeline = [made for made in run.pipeline if made.name in trained]
    if not pipeline:
        raise ValueError(
            f"{run.folder} holds no trained model: finish a training stage (midtrain, sft, dpo, rl or distill) with whetstone "
            "run RECIPE."
        )
    return pipeline[-1]


def refuse_used(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to} exists, and nothing in it is written over: name a new folder, or move it away.")


@contextmanager
def written_beside(to: Path) -> Iterator[Path]:
    """A folder that takes the place of `to` when it is complete."""
    to.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        yield beside
        beside.chmod(0o755)
        if to.exists():
            to.rmdir()
        beside.rename(to)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def generation_config(folder: Path, run: RunRecord, stage: StageRecord) -> dict[str, Any]:
    """Rewrites it to what the scores were sampled with: the temperature and the longest answer. Returns it."""
    path = folder / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    scored = [score for score in run.scores if score["stage"] == stage.name]
    settings = run.run.get("recipe", {}).get("scores", {})
    if scored and (temperature := scored[0]["temperature"]) > 0:
        cut = {"top_k": settings.get("top_k", 0), "top_p": settings.get("top_p", 1.0)}
        config |= {"do_sample": True, "temperature": temperature, **cut}
    elif scored:
        config = {key: value for key, value in config.items() if key not in ("temperature", "top_k", "top_p")}
        config["do_sample"] = False
    if scored and (longest := settings.get("max_tokens")):
        config["max_new_tokens"] = longest
    write_json(path, config)
    return config


def published(value: Any) -> Any:
    """The settings without the folders of this machine: of an absolute path only the last name is left."""
    if isinstance(value, dict):
        return {key: published(item) for key, item in value.items()}
    if isinstance(value, list):
        return [published(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
