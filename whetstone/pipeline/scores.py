"""Every trained model, and the base it started from, scored on the recipe's test problems: scores.json."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from whetstone.choose_prompt import chosen_prompt
from whetstone.model_template import template_source
from whetstone.pipeline.base import open_base
from whetstone.pipeline.beside import beside_control
from whetstone.pipeline.history import History, now
from whetstone.pipeline.outputs import changed, content_of, remember, require_unchanged
from whetstone.pipeline.staleness import base_hash
from whetstone.prompting import facts_of
from whetstone.recipe import Recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.records import Problem, Score, to_row
from whetstone.run.folder import (
    MANIFEST,
    SCORES,
    STARTED,
    DamagedFile,
    discard,
    recover,
    replace_folder,
    stage_folders,
    successor,
    write_json,
)
from whetstone.run.manifest import read_manifest, write_manifest
from whetstone.run.mistakes import suggestion
from whetstone.run.names import require_name
from whetstone.run.progress import say
from whetstone.run.prompt_settings import PromptSettings
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_records, read_rows
from whetstone.run.trackers import track_scores
from whetstone.run.usage import measured

TRACKED = 8  # answers per problem set that trackers get
OFF = {"top_p": 1.0, "top_k": 0}  # values with which a setting of scores changes nothing


@dataclass(frozen=True)
class _Model:
    """A model to score, and all that its scores depend on."""

    name: str  # of its stage, or "base"
    path: Path | None  # None: that of `[model] path`
    settings: ScoreSettings
    key: dict[str, Any]
    prompt: PromptSettings
    control_of: str = ""  # the stage that a control questions


def score_stage(recipe: Recipe, stage: RecipeStage, history: History) -> None:
    """Score the stage's model, and before the first one the base it started from. Then rewrite scores.json."""
    givers = [above for above in recipe.above(stage) if "problems" in above.room.gives]
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
    """The stage's model, after the base if the stage is the first that trains; of a stage that chooses a prompt, the model that
    it starts from, with that prompt.
    """
    if stage.control:
        return [_control(recipe, stage, problems_hash)]
    models = [(stage.name, *_made(recipe, stage.name))]
    if stage == next(stage for stage in recipe.stages if stage.room.trains):
        if "base" in _outputs(recipe.folder / stage.folder_name):
            models.insert(0, ("base", *_made(recipe, stage.name, "base")))
        elif recipe.model.path:
            models.insert(0, ("base", *_given(recipe)))
    scores = recipe.scores
    base = scores.model_copy(update={"samples": scores.base_samples or scores.samples})
    return [
        _model(recipe, name, path, content, problems_hash, base if name == "base" else scores, recipe.prompt)
        for name, path, content in models
    ]


def _control(recipe: Recipe, stage: RecipeStage, problems_hash: str) -> _Model:
    assert stage.control is not None
    settings, prompt, found = recipe.scores, recipe.prompt, None
    if fewer := recipe.controls.problems:
        settings = settings.model_copy(update={"problems": min(fewer, settings.problems or fewer)})
    if stage.room.prompts:
        prompt = chosen_prompt(recipe.folder / stage.folder_name / "prompt")
        found = _made(recipe, stage.sources["model"].stage) if "model" in stage.sources else _given(recipe)
    path, content = found or _made(recipe, stage.name)
    model = _model(recipe, stage.name, path, content, problems_hash, settings, prompt)
    return replace(model, control_of=stage.control.of)


def _made(recipe: Recipe, stage: str, artifact: str = "model") -> tuple[Path, str]:
    """The folder and the content of a model that a stage gave."""
    folder = recipe.folder / recipe.stage(stage).folder_name
    return folder / artifact, _outputs(folder)[artifact]


def _given(recipe: Recipe) -> tuple[None, str]:
    """The same of `[model] path`, which is opened when it is scored."""
    path = str(recipe.model.path)
    content = base_hash(path) or path
    if recipe.model.chat_template:
        content += f" with {recipe.model.template_tokens} {template_source(recipe.model.chat_template)}"
    return None, content


def _model(
    recipe: Recipe,
    name: str,
    path: Path | None,
    content: str,
    problems: str,
    settings: ScoreSettings,
    prompt: PromptSettings,
) -> _Model:
    values = settings.model_dump(mode="json", exclude={"main", "base_samples"})
    # Scores of an earlier version, which did not know them, stay those of these settings
    values = {key: value for key, value in values.items() if OFF.get(key) != value}
    key = {"model": content, "problems": problems, "seed": recipe.run.seed, **values}
    return _Model(name, path, settings, key | facts_of(prompt, recipe.model.path), prompt)


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
            model.path or open_base(recipe), problems, model.settings, recipe.parallel, recipe.run.seed, folder, model.name,
            recipe.longest, model.prompt,
        )  # fmt: skip
    rows = [to_row(replace(score, control_of=model.control_of)) for score in scores]
    outputs = {score.benchmark: content_of(folder / score.benchmark) for score in scores}
    remember(folder, outputs)
    write_manifest(
        folder / MANIFEST, {"key": model.key, "scores": rows, "outputs": outputs, **usage, "finished": now()}
    )
    (folder / STARTED).unlink()
    if old and (kept := replace_folder(complete, keep=_edited(complete))):
        say(f"   the old scores, which were changed after they were made, are in {kept}")
    history.note(f"scores/{model.name}", usage)
    _track(recipe, model, rows)
    for score in scores:
        say(
            f"   {model.name} on {score.benchmark}: {100 * score.mean:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}] "
            f"(mean@{score.samples} of {score.problems} problems, {100 * score.truncated:.0f} % truncated"
            f"{_form_in_words(score)}"
            f"{f', {100 * score.undecided:.1f} % undecided' if score.undecided else ''}"
            f"{f', {score.not_asked} cannot be asked' if score.not_asked else ''})"
        )


def _track(recipe: Recipe, model: _Model, scores: list[dict[str, Any]]) -> None:
    """Pass the scores to the recipe's trackers, with the first answers of each problem set."""
    if not recipe.run.trackers:
        return
    folder = recipe.folder / "scores"
    names = ("problem_id", "question", "gold", "text", "answer", "correct", "reason")
    answers = {
        score["benchmark"]: [
            {name: row.get(name) for name in names}
            for row in islice(read_rows(folder / model.name / score["benchmark"]), TRACKED)
        ]
        for score in scores
    }
    place = next((stage.number for stage in recipe.stages if stage.name == model.name), 0)
    track_scores(recipe.run, folder, place, scores, answers, model.name if model.control_of else "")


def _form_in_words(score: Score) -> str:
    """In which form the answers stand, and the score if the form is granted."""
    if score.boxed is None or score.flexible is None:
        return ""
    return f", {100 * score.boxed:.0f} % in a box; {100 * score.flexible:.1f} % by flexible extraction"


def write_scores(recipe: Recipe) -> None:
    """scores.json from the folders in scores/: base first, then by stage number, those of a longer recipe included."""
    order = ["base", *(path.name.partition("-")[2] for path in stage_folders(recipe.folder))]
    scores = [score for name in order for score in _scores_in(recipe.folder / "scores" / name / MANIFEST)]
    main = headline(recipe, list(dict.fromkeys(score["benchmark"] for score in scores)))
    last = next((s.name for s in reversed(recipe.stages) if s.room.trains and not s.control), "")
    rows = [s | {"main": s["benchmark"] == main} | beside_control(recipe.folder, s, last) for s in scores]
    write_json(recipe.folder / SCORES, {"scores": rows})


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
