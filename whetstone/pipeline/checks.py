"""What can be known before a run begins: whatever is wrong here is said before anything is made or thrown away."""

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from whetstone.model_folder import check_model
from whetstone.model_template import check_template, template_in
from whetstone.pipeline.base import refuse_new_tokens
from whetstone.pipeline.scores import headline, scored_sets
from whetstone.pipeline.staleness import starts_from_path
from whetstone.prompting import read_examples
from whetstone.recipe import KINDS, Recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.run.mistakes import install_hint
from whetstone.template import TemplateError, has_switch, no_switch

Check: TypeAlias = Callable[[Recipe, RecipeStage], None]
USERS = (ValueError, OSError, ImportError)  # whose message is meant for the user


def check_stages(recipe: Recipe, stages: Sequence[RecipeStage]) -> None:
    """Raises the mistake that keeps one of the stages from running, or a ValueError with all of them."""
    mistakes: dict[str, Exception] = {}
    for stage in stages:
        for check in (_room, _files, _model, _adapter, _prompt, _device, _sampler, _benchmarks):
            try:
                check(recipe, stage)
            except USERS as error:
                mistakes.setdefault(f"{error}", error)
                break  # a stage's other mistakes may follow from it
    if len(mistakes) == 1:
        raise next(iter(mistakes.values()))
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _room(recipe: Recipe, stage: RecipeStage) -> None:
    stage.room.check(stage.settings)


def _files(recipe: Recipe, stage: RecipeStage) -> None:
    for path in stage.room.reads(stage.settings):
        if not path.exists():
            raise FileNotFoundError(
                f"{stage.folder_name} reads {path}, which is missing. Relative paths start at {Path.cwd()}."
            )


def _model(recipe: Recipe, stage: RecipeStage) -> None:
    """`[model] path` and `chat_template`. A model on the Hub is looked at when the run begins."""
    if starts_from_path(recipe, stage):
        check_model(str(recipe.model.path))
        check_template(str(recipe.model.path), recipe.model.chat_template)


def _adapter(recipe: Recipe, stage: RecipeStage) -> None:
    """Whether an adapter can be trained here, beside the model that the stage starts from."""
    adapter = recipe.adapter_of(stage)
    if stage.settings.kind == "rl":
        recipe.sampler.check_adapter(adapter)
    if "adapter" not in stage.room.uses or not adapter.rank:
        return
    for package, extra in ({"peft": "lora"} | ({"bitsandbytes": "qlora"} if adapter.weights == "nf4" else {})).items():
        if find_spec(package) is None:
            raise ImportError(f"[adapter]: {stage.name} needs the package {package}: {install_hint(extra)}")
    if "model" not in stage.sources and recipe.model.path is None:
        raise ValueError(
            f"[adapter] rank = {adapter.rank}: {stage.name} starts from random weights, which an adapter leaves as they are. "
            "Let this stage train them all (adapter = { rank = 0 } in it), or name a [model] path."
        )
    refuse_new_tokens(recipe, stage)
    if adapter.weights == "nf4" and recipe.parallel.processes > 1 and recipe.parallel.shard == "fsdp":
        raise ValueError(
            '[adapter] weights = "nf4" with [parallel] shard = "fsdp": weights in 4 bits are not divided among processes. '
            'Set shard = "ddp": each process holds them all, at half a byte a weight.'
        )


def _prompt(recipe: Recipe, stage: RecipeStage) -> None:
    """`[prompt]`: whether its examples can be read, and whether the template, if it is here, has a switch."""
    given, path = recipe.prompt, recipe.model.path
    if not (stage.room.trains or stage.room.asks(stage.settings)):
        return
    if given.examples is not None:
        read_examples(given.examples)
    template = template_in(path, recipe.model.chat_template) if path else ""
    if given.thinking is not None and stage.room.trains and template is not None and not has_switch(template):
        raise TemplateError(no_switch(path or "a model made from nothing", given.thinking))


def _device(recipe: Recipe, stage: RecipeStage) -> None:
    launch = recipe.parallel.launch
    if recipe.parallel.data == "ray" and find_spec("ray") is None:
        raise ImportError(f'[parallel] data = "ray" needs the package ray: {install_hint("ray")}')
    if launch and stage.room.trains and not shutil.which(launch[0]):
        raise ValueError(
            f"[parallel] launch = {list(launch)}: there is no command {launch[0]!r} here. Name one that PATH finds."
        )
    if recipe.parallel.device == "cuda" and stage.room.trains:
        import torch

        if not torch.cuda.is_available():
            raise ValueError(
                '[parallel] device = "cuda": torch sees no GPU here. Use another machine, or device = "auto" for a CPU.'
            )


def _sampler(recipe: Recipe, stage: RecipeStage) -> None:
    """A kind of stage of the user's own may use the servers, too."""
    if recipe.sampler.used and all(other.kind in KINDS and other.kind != "rl" for other in recipe.stages):
        raise ValueError(
            "[sampler] names servers for the rollouts of rl, and the recipe has no stage of this kind: all others sample in "
            "their own process. Leave the table out."
        )


def _benchmarks(recipe: Recipe, stage: RecipeStage) -> None:
    """`[scores] main` and `sets`, as far as the settings name the problem sets."""
    given = [tuple(above.room.benchmarks(above.settings)) for above in recipe.above(stage)]
    if stage.room.trains and any(given):
        headline(recipe, scored_sets(recipe, list(dict.fromkeys([names for names in given if names][-1]))))
