"""What a stage further down must end with, said ahead: from the recipe alone for `plan`, and from the data before training."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from whetstone.corpus import build as corpus
from whetstone.dpo import rollout_dpo as dpo
from whetstone.evaluate import evaluate
from whetstone.model_files import CONFIG, read_object
from whetstone.model_folder import local_model
from whetstone.pipeline.scores import headline, scored_problems
from whetstone.pool import StudentSettings, candidates
from whetstone.prompting import prompting_of, read_examples, refuse_leaks
from whetstone.questions import gather as questions
from whetstone.recipe import Recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.records import Problem
from whetstone.rl import loop as rl
from whetstone.rollouts import collect as rollouts
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.tables import read_records
from whetstone.window import Window

LOOKED_AT = 1000  # questions of a table, the longest

# --- from the recipe alone


def warnings(recipe: Recipe, stage: RecipeStage) -> list[str]:
    """Why a stage must end with nothing, or a setting means nothing, as far as the recipe tells."""
    kinds = {rollouts: _of_rollouts, corpus: _of_corpus, dpo: _of_dpo, rl: _of_rl, evaluate: _of_evaluate}
    found = [words for kind, of in kinds.items() if _is(stage, kind) for words in of(recipe, stage)]
    return [*found, *_of_context(recipe, stage), *_of_length(recipe, stage), *_of_scores(recipe, stage)]


def _of_rollouts(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    sources, teacher = _sources(recipe, stage), stage.settings.teacher
    asked = [source for source in sources if source.splits - {"test"}]
    if sources and not asked:
        yield "its problems are all test problems, about which no teacher is asked. Give training problems (train)."
    if not isinstance(teacher, str) or not asked:
        return
    without = [s.title for s in asked if not s.ships_solutions and (teacher == "none" or not s.has_formulas)]
    if without:
        why = "no teacher is asked" if teacher == "none" else f'the teacher "{teacher}" explains formulas only'
        yield (
            f"there will be no rollouts for {'its' if len(without) == len(asked) else 'some'} problems: {', '.join(without)} "
            f"gives neither formulas nor worked solutions, and {why}. Name a server, as in teacher = {{ server = "
            '"http://localhost:8000/v1", model = "name" }, or a column of your file: columns = { solution = "…" } for worked '
            'solutions, columns = { formula = "…" } for formulas.'
        )


def _of_corpus(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    settings, levels = stage.settings, _levels(recipe, stage)
    wanted = {str(source) for below in recipe.stages for source in below.sources.values()}
    if f"{stage.name}/subset" in wanted and not settings.subset.problems:
        yield "subset.problems = 0, and a stage below reads the subset. Raise it."
    if levels and settings.levels is not None and not levels & set(settings.levels):
        yield f"levels = {settings.levels}: its problems have the levels {sorted(levels)}."


def _of_dpo(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    if stage.settings.source == "student":
        yield from _of_pool(recipe, stage)
        return
    pairing = _above(recipe, stage, "pairs", corpus)
    if pairing is None or pairing.settings.imported_pairs:
        return
    if not pairing.settings.pairs_per_problem:
        yield f"{pairing.name} has pairs_per_problem = 0: there is no pair to train on. Raise it."
    asking = _above(recipe, pairing, "rollouts", rollouts)
    if asking is None or any(source.ships_solutions for source in _sources(recipe, asking)):
        return
    if asking.settings.samples < 2 and not asking.settings.enough:
        yield f"{asking.name} has samples = 1: a pair is a right and a wrong rollout of one problem. Raise it."
    elif asking.settings.teacher == "equations":
        yield f'{asking.name} has teacher = "equations", which is never wrong, and a pair needs both. Say source = "student".'
    elif asking.settings.teacher == "procedural" and not asking.settings.procedural.wrong_rate:
        yield f"{asking.name} has procedural.wrong_rate = 0: its teacher is never wrong, and a pair needs both. Raise it."


def _of_rl(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    yield from _of_pool(recipe, stage)
    if stage.settings.pool.samples and stage.settings.pool.prompts < 2:
        yield "pool.prompts = 1, and prompts are chosen among several. Raise it, or set pool.samples = 0."


def _of_pool(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    levels, wanted = _levels(recipe, stage), stage.settings.pool.levels
    if levels and wanted is not None and not levels & set(wanted):
        yield f"pool.levels = {list(wanted)}: the problems have the levels {sorted(levels)}."


def _of_evaluate(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    sources = _sources(recipe, stage)
    if sources and not any("test" in source.splits for source in sources):
        yield "it compares scores, and there are no test problems to score. Give some (test, benchmark)."


def _of_context(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    """Of a tiny model, whose context the recipe says."""
    context, settings = recipe.model.context, stage.settings
    if recipe.model.path or not stage.room.trains:
        return
    if isinstance(settings, StudentSettings) and "prompts" in stage.sources and settings.max_tokens >= context:
        yield f"max_tokens = {settings.max_tokens} leaves no room for a prompt in a context of {context} ([model] context)."
    if stage == _first_that_trains(recipe) and recipe.scores.max_tokens >= context:
        yield f"[scores] max_tokens = {recipe.scores.max_tokens} leaves no room for a prompt in a context of {context}."


def _of_length(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    """`max_length`, if the recipe sets it, beyond what the model can hold."""
    if stage.control is not None or "max_length" not in stage.settings.model_fields_set:
        return
    longest, context = stage.settings.max_length, _context(recipe)
    if 0 < context < longest:
        yield f"max_length = {longest}: the model's context is {context}, and what is longer than that is left out."


def _context(recipe: Recipe) -> int:
    """Of a tiny model, or of a folder that is here; 0: it is not known."""
    path = recipe.model.path
    if path is None:
        return recipe.model.context
    folder = local_model(path)
    if folder is None or not (folder / CONFIG).is_file():
        return 0
    stated = read_object(folder / CONFIG).get("max_position_embeddings")
    return stated if isinstance(stated, int) else 0


def _of_scores(recipe: Recipe, stage: RecipeStage) -> Iterator[str]:
    scores = recipe.scores
    most = max(scores.samples, scores.base_samples)
    if stage == _first_that_trains(recipe) and scores.temperature == 0 and most > 1:
        yield (
            f"[scores] temperature = 0 with {most} answers per problem: greedy answers to one problem are the same. "
            "Set samples = 1, or raise the temperature."
        )


def _is(stage: RecipeStage, kind: ModuleType) -> bool:
    return isinstance(stage.settings, kind.Settings)


def _above(recipe: Recipe, stage: RecipeStage, name: str, kind: ModuleType) -> RecipeStage | None:
    """The stage of a kind that gives an input."""
    found = recipe.stage(stage.sources[name].stage) if name in stage.sources else None
    return found if found is not None and _is(found, kind) else None


def _sources(recipe: Recipe, stage: RecipeStage) -> tuple[Any, ...]:
    """The sources that a stage's problems or prompts come from."""
    stage = _above(recipe, stage, "prompts", corpus) or stage
    found = _above(recipe, stage, "problems", questions) or _above(recipe, stage, "prompts", questions)
    return found.settings.source if found else ()


def _levels(recipe: Recipe, stage: RecipeStage) -> set[int]:
    """The levels of the problems, if all of them are made; empty if they are not known."""
    sources = _sources(recipe, stage)
    made = all(source.kind == "procedural" for source in sources)
    return {source.level for source in sources} if made else set()


def _first_that_trains(recipe: Recipe) -> RecipeStage | None:
    return next((stage for stage in recipe.stages if stage.room.trains), None)


def _asks(stage: RecipeStage) -> bool:
    return stage.room.trains or stage.room.asks(stage.settings)


# --- from the data


def check_before_training(recipe: Recipe, stage: RecipeStage, prepared: Stage) -> None:
    """Before the first stage trains: says which problems the model cannot be asked, and that nothing will be scored.

    Raises ValueError for what would stop scoring, or a stage below, after the training; and before the first stage that asks a
    model, for examples that are test problems.
    """
    givers = [above for above in recipe.above(stage) if "problems" in above.room.gives]
    if recipe.prompt.examples and givers and stage == next(filter(_asks, recipe.stages), None):
        refuse_leaks(read_examples(recipe.prompt.examples), _tests(recipe.folder / givers[-1].folder_name / "problems"))
    if stage != _first_that_trains(recipe):
        return
    tests = scored_problems(recipe, recipe.folder / givers[-1].folder_name / "problems") if givers else []
    headline(recipe, list(dict.fromkeys(problem.benchmark for problem in tests)))
    if givers and not tests:
        _refuse_unscored(recipe, stage)
    model = prepared.model_source or (stage.room.base(prepared) if stage.room.base else None)
    if model is None:
        return
    window = Window.of_model(model, prompting=prompting_of(recipe.prompt, model))
    for benchmark in dict.fromkeys(problem.benchmark for problem in tests):
        own = [problem for problem in tests if problem.benchmark == benchmark][: recipe.scores.problems or None]
        asked = replace(window, max_tokens=recipe.scores.max_tokens)
        asked.report(f"[scores] on {benchmark}", own, "count as not solved", LOOKED_AT)
    for below in recipe.stages:
        table = _prompts(recipe, below)
        if table is not None and table.is_dir():
            asked = replace(window, max_tokens=below.settings.max_tokens)
            asked.report(below.name, candidates(table, below.settings.pool), "are left out", LOOKED_AT)


def _tests(table: Path) -> Iterator[Problem]:
    """All test problems, scored or not."""
    return (p for p in read_records(Problem, table) if p.split == "test" and p.benchmark)


def _refuse_unscored(recipe: Recipe, stage: RecipeStage) -> None:
    compared = [below.name for below in recipe.stages if _is(below, evaluate)]
    why = "there are no test problems to score a model on. Give some in the questions stage (test, benchmark)"
    if compared:
        raise ValueError(f"{compared[0]} compares scores, and {why}, or remove {compared[0]}.")
    say(f"warning: {why}.")


def _prompts(recipe: Recipe, stage: RecipeStage) -> Path | None:
    """The table of prompts that a stage tries its student on."""
    if not isinstance(stage.settings, StudentSettings) or "prompts" not in stage.sources:
        return None
    source = stage.sources["prompts"]
    return recipe.folder / recipe.stage(source.stage).folder_name / source.artifact
