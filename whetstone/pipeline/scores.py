"""Every trained model, and the base it started from, scored on the recipe's test problems: scores.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.pipeline.history import History, now
from whetstone.pipeline.staleness import hash_of, written
from whetstone.recipe import Recipe, RecipeStage
from whetstone.records import Problem, to_row
from whetstone.run.folder import MANIFEST, SCORES, STARTED, discard, read_json, write_json
from whetstone.run.progress import say
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_records
from whetstone.run.usage import measured


@dataclass(frozen=True)
class _Model:
    """A model to score, and all that its scores depend on."""

    name: str  # of its stage, or "base"
    path: Path
    settings: ScoreSettings
    key: dict[str, Any]


def score_stage(recipe: Recipe, stage: RecipeStage, history: History) -> None:
    """Score the stage's model, and before the first one the base it started from. Then rewrite scores.json."""
    givers = [above for above in recipe.stages[: stage.number] if "problems" in above.room.gives]
    if not givers:
        return
    source = recipe.folder / givers[-1].folder_name
    problems_hash = read_json(source / MANIFEST)["outputs"]["problems"]
    waiting = [model for model in _models(recipe, stage, problems_hash) if not _is_scored(recipe, model)]
    if waiting:
        problems = [p for p in read_records(Problem, source / "problems") if p.split == "test" and p.benchmark]
        headline(recipe, list(dict.fromkeys(problem.benchmark for problem in problems)))
        if not problems:
            say(f"   not scored: {givers[-1].name} gives no test problems")
            return
        history.begin()
        for model in waiting:
            _score(recipe, model, problems, history)
    write_scores(recipe)


def _models(recipe: Recipe, stage: RecipeStage, problems_hash: str) -> list[_Model]:
    """The stage's model, after the base if the stage is the first that trains."""
    folder = recipe.folder / stage.folder_name
    outputs = read_json(folder / MANIFEST)["outputs"]
    models = [(stage.name, folder / "model", outputs["model"])]
    if stage == next(stage for stage in recipe.stages if stage.room.trains):
        if "base" in outputs:
            models.insert(0, ("base", folder / "base", outputs["base"]))
        elif recipe.model.path:
            path = Path(recipe.model.path)
            models.insert(0, ("base", path, hash_of(path) or recipe.model.path))
    return [_model(recipe, name, path, content, problems_hash) for name, path, content in models]


def _model(recipe: Recipe, name: str, path: Path, content: str, problems_hash: str) -> _Model:
    settings = recipe.scores
    if name == "base" and settings.base_samples:
        settings = settings.model_copy(update={"samples": settings.base_samples})
    values = settings.model_dump(mode="json", exclude={"main", "base_samples"})
    return _Model(
        name, path, settings, {"model": content, "problems": problems_hash, "seed": recipe.run.seed, **values}
    )


def _is_scored(recipe: Recipe, model: _Model) -> bool:
    """Whether complete scores of this model and these settings exist. Those of others are thrown away."""
    folder = recipe.folder / "scores" / model.name
    if written(folder).get("key") != model.key and folder.exists():
        discard(folder)
    return (folder / MANIFEST).exists()


def _score(recipe: Recipe, model: _Model, problems: list[Problem], history: History) -> None:
    from whetstone.measure import score_model

    folder = recipe.folder / "scores" / model.name
    write_json(folder / STARTED, {"key": model.key})
    with measured() as usage:
        scores = score_model(
            model.path, problems, model.settings, recipe.parallel, recipe.run.seed, folder, model.name, recipe.longest
        )
    rows = [to_row(score) for score in scores]
    write_json(folder / MANIFEST, {"key": model.key, "scores": rows, **usage, "finished": now()})
    (folder / STARTED).unlink()
    history.note(f"scores/{model.name}", usage)
    for score in scores:
        say(
            f"   {model.name} on {score.benchmark}: {100 * score.mean:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}] "
            f"(mean@{score.samples} of {score.problems} problems, {100 * score.truncated:.0f} % truncated"
            f"{f', {100 * score.undecided:.1f} % undecided' if score.undecided else ''}"
            f"{f', {score.not_asked} cannot be asked' if score.not_asked else ''})"
        )


def write_scores(recipe: Recipe) -> None:
    """scores.json from the folders in scores/: base first, then by stage number, those of a longer recipe included."""
    order = ["base", *(path.name.partition("-")[2] for path in sorted(recipe.folder.glob("[0-9][0-9]-*")))]
    manifests = [recipe.folder / "scores" / name / MANIFEST for name in order]
    scores = [score for path in manifests if path.exists() for score in read_json(path)["scores"]]
    main = headline(recipe, list(dict.fromkeys(score["benchmark"] for score in scores)))
    write_json(recipe.folder / SCORES, {"scores": [s | {"main": s["benchmark"] == main} for s in scores]})


def headline(recipe: Recipe, benchmarks: Sequence[str]) -> str:
    """The main benchmark: the recipe's, or the first. Raises ValueError if the recipe's has no test problems."""
    main = recipe.scores.main or next(iter(benchmarks), "")
    if benchmarks and main not in benchmarks:
        raise ValueError(
            f"[scores] main = {main!r}: the test problems have no such benchmark, so there would be no headline. "
            f"Use one of {', '.join(benchmarks)}, or leave it out for the first."
        )
    return main
