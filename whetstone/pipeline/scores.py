"""Every trained model, and the base it started from, scored on the recipe's test problems: scores.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.model_template import template_source
from whetstone.pipeline.base import open_base
from whetstone.pipeline.history import History, now
from whetstone.pipeline.outputs import changed, content_of, remember, require_unchanged
from whetstone.pipeline.staleness import base_hash
from whetstone.recipe import Recipe, RecipeStage
from whetstone.records import Problem, to_row
from whetstone.run.folder import (
    MANIFEST,
    SCORES,
    STARTED,
    DamagedFile,
    discard,
    recover,
    replace_folder,
    successor,
    write_json,
)
from whetstone.run.manifest import read_manifest, write_manifest
from whetstone.run.mistakes import suggestion
from whetstone.run.names import require_name
from whetstone.run.progress import say
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_records
from whetstone.run.usage import measured


@dataclass(frozen=True)
class _Model:
    """A model to score, and all that its scores depend on."""

    name: str  # of its stage, or "base"
    path: Path | None  # None: that of `[model] path`
    settings: ScoreSettings
    key: dict[str, Any]


def score_stage(recipe: Recipe, stage: RecipeStage, history: History) -> None:
    """Score the stage's model, and before the first one the base it started from. Then rewrite scores.json."""
    givers = [above for above in recipe.stages[: stage.number] if "problems" in above.room.gives]
    if not givers:
        return
    source = recipe.folder / givers[-1].folder_name
    recover(recipe.folder / "scores")
    problems_hash = _outputs(source)["problems"]
    waiting = [model for model in _models(recipe, stage, problems_hash) if not _is_scored(recipe, model)]
    if waiting:
        require_unchanged(source, {"problems": problems_hash})
        problems = scored_problems(recipe, source / "problems")
        headline(recipe, [require_name(name) for name in dict.fromkeys(problem.benchmark for problem in problems)])
        if not problems:
            say(f"   not scored: {givers[-1].name} gives no test problems")
            return
        history.begin()
        for model in waiting:
            _score(recipe, model, problems, history)
    write_scores(recipe)


def scored_problems(recipe: Recipe, table: Path) -> list[Problem]:
    """The test problems of the sets that the recipe scores. Raises ValueError for a set without test problems."""
    tests = [p for p in read_records(Problem, table) if p.split == "test" and p.benchmark]
    chosen = scored_sets(recipe, list(dict.fromkeys(problem.benchmark for problem in tests)))
    return [problem for problem in tests if problem.benchmark in chosen]


def scored_sets(recipe: Recipe, benchmarks: Sequence[str]) -> list[str]:
    """Those of the benchmarks that the recipe scores. Raises ValueError for a set without test problems."""
    for name in recipe.scores.sets:
        if name not in benchmarks:
            raise ValueError(
                f"[scores] sets names {name!r}, which no source gives test problems of{suggestion(name, benchmarks)} "
                f"There are {', '.join(benchmarks)}."
            )
    return [name for name in benchmarks if not recipe.scores.sets or name in recipe.scores.sets]


def _models(recipe: Recipe, stage: RecipeStage, problems_hash: str) -> list[_Model]:
    """The stage's model, after the base if the stage is the first that trains."""
    folder = recipe.folder / stage.folder_name
    outputs = _outputs(folder)
    models = [(stage.name, folder / "model", outputs["model"])]
    if stage == next(stage for stage in recipe.stages if stage.room.trains):
        if "base" in outputs:
            models.insert(0, ("base", folder / "base", outputs["base"]))
        elif recipe.model.path:
            content = base_hash(recipe.model.path) or recipe.model.path
            if recipe.model.chat_template:
                content += f" with {recipe.model.template_tokens} {template_source(recipe.model.chat_template)}"
            models.insert(0, ("base", None, content))
    return [_model(recipe, name, path, content, problems_hash) for name, path, content in models]


def _model(recipe: Recipe, name: str, path: Path | None, content: str, problems_hash: str) -> _Model:
    settings = recipe.scores
    if name == "base" and settings.base_samples:
        settings = settings.model_copy(update={"samples": settings.base_samples})
    values = settings.model_dump(mode="json", exclude={"main", "base_samples"})
    return _Model(
        name, path, settings, {"model": content, "problems": problems_hash, "seed": recipe.run.seed, **values}
    )


def _outputs(stage: Path) -> dict[str, str]:
    return read_manifest(stage / MANIFEST, needed="outputs")["outputs"]


def _is_scored(recipe: Recipe, model: _Model) -> bool:
    """Whether complete scores of this model and these settings exist, with the generations behind them."""
    folder = recipe.folder / "scores" / model.name
    return _left_by(folder, MANIFEST) == model.key and not changed(folder, _outputs(folder))


def _left_by(folder: Path, name: str) -> dict[str, Any] | None:
    """What scores depend on that are complete or were begun; None if there is no such file, or a damaged one."""
    try:
        return read_manifest(folder / name, needed="key")["key"]
    except FileNotFoundError:
        return None
    except DamagedFile as damage:
        say(f"   {damage}: scored again")
        return None


def _edited(folder: Path) -> bool:
    """Whether complete scores, or the generations behind them, are not as they were written."""
    try:
        return bool(changed(folder, _outputs(folder)))
    except FileNotFoundError:
        return False
    except DamagedFile:
        return True


def _score(recipe: Recipe, model: _Model, problems: list[Problem], history: History) -> None:
    from whetstone.measure import score_model

    complete = recipe.folder / "scores" / model.name
    old = complete.exists() and _left_by(complete, STARTED) != model.key  # scores of another model or other settings
    folder = successor(complete) if old else complete
    if folder.exists() and _left_by(folder, STARTED) != model.key:
        discard(folder)
    if model.path is not None:
        require_unchanged(model.path.parent, {model.path.name: model.key["model"]})
    write_manifest(folder / STARTED, {"key": model.key})
    with measured() as usage:
        scores = score_model(
            model.path or open_base(recipe),
            problems,
            model.settings,
            recipe.parallel,
            recipe.run.seed,
            folder,
            model.name,
            recipe.longest,
        )
    rows = [to_row(score) for score in scores]
    outputs = {score.benchmark: content_of(folder / score.benchmark) for score in scores}
    remember(folder, outputs)
    write_manifest(
        folder / MANIFEST, {"key": model.key, "scores": rows, "outputs": outputs, **usage, "finished": now()}
    )
    (folder / STARTED).unlink()
    if old and (kept := replace_folder(complete, keep=_edited(complete))):
        say(f"   the old scores, which were changed after they were made, are in {kept}")
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
    scores = [score for name in order for score in _scores_in(recipe.folder / "scores" / name / MANIFEST)]
    main = headline(recipe, list(dict.fromkeys(score["benchmark"] for score in scores)))
    write_json(recipe.folder / SCORES, {"scores": [s | {"main": s["benchmark"] == main} for s in scores]})


def _scores_in(path: Path) -> list[dict[str, Any]]:
    """[] if there are none. Those of a damaged manifest are left out until the model is scored again, and that is said."""
    try:
        return read_manifest(path, needed="scores")["scores"]
    except FileNotFoundError:
        return []
    except DamagedFile as damage:
        say(f"   {damage} Its scores are left out until then.")
        return []


def headline(recipe: Recipe, benchmarks: Sequence[str]) -> str:
    """The main benchmark: the recipe's, or the first. Raises ValueError if the recipe's has no test problems."""
    main = recipe.scores.main or next(iter(benchmarks), "")
    if benchmarks and main not in benchmarks:
        raise ValueError(
            f"[scores] main = {main!r}: the test problems have no such benchmark, so there would be no headline. "
            f"Use one of {', '.join(benchmarks)}, or leave it out for the first."
        )
    return main
