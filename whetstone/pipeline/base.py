"""The model that `[model] path` names, as the stages get it: opened once, before the first stage begins, as a plain folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whetstone.model_folder import gguf_of, provenance
from whetstone.model_gguf import check_gguf
from whetstone.model_template import new_tokens, open_model, template_source
from whetstone.pipeline.staleness import starts_from_path
from whetstone.recipe import Recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.run.folder import Stage


def open_base(recipe: Recipe) -> Path:
    """The plain folder of `[model] path`, with the chat template of `[model]`. Downloads or converts it if need be."""
    return open_model(str(recipe.model.path), recipe.model.chat_template, recipe.model.template_tokens)


def open_first(recipe: Recipe, waiting: Sequence[RecipeStage]) -> str:
    """Opens the base if a stage that is about to run starts from it, and says what it is; "" if none does."""
    if not any(starts_from_path(recipe, stage) for stage in waiting):
        return ""
    open_base(recipe)
    for stage in waiting:
        refuse_new_tokens(recipe, stage)
    return described(recipe)


def refuse_new_tokens(recipe: Recipe, stage: RecipeStage) -> None:
    """Raises ValueError if an adapter is to learn new tokens, whose embeddings it leaves as they are."""
    path, template = recipe.model.path, recipe.model.chat_template
    adapts = starts_from_path(recipe, stage) and "adapter" in stage.room.uses and recipe.adapter_of(stage).rank
    if not (adapts and path and template and recipe.model.template_tokens == "new"):
        return
    if lacking := new_tokens(path, template):
        raise ValueError(
            f"[adapter]: chat_template = {template!r} adds {', '.join(lacking)} to the tokenizer of {path}, and an adapter "
            f'leaves their embeddings as they are. Set [model] template_tokens = "text", or let {stage.name} train all weights '
            "(adapter = { rank = 0 } in it)."
        )


def with_open_base(recipe: Recipe, stage: RecipeStage, prepared: Stage) -> Stage:
    """What the room is given, with the plain folder in the place of `[model] path`."""
    if not starts_from_path(recipe, stage):
        return prepared
    return replace(prepared, model=prepared.model.model_copy(update={"path": str(open_base(recipe))}))


def started_from(recipe: Recipe, stage: RecipeStage) -> dict[str, Any]:
    """Of the manifest: which model exactly the stage started from. {} for a stage that goes on from another."""
    if not starts_from_path(recipe, stage):
        return {}
    template = recipe.model.chat_template
    return {
        "started_from": provenance(str(recipe.model.path))
        | ({"chat_template": template_source(template)} if template else {})
    }


def described(recipe: Recipe) -> str:
    """In one line; "" for a plain folder with a template of its own."""
    path = str(recipe.model.path)
    if recipe.model.path is None:
        return ""
    known = provenance(path)
    facts = (
        [f"revision {known['revision']}, commit {known['commit'] or 'not downloaded yet'}"] if "commit" in known else []
    )
    if base := known.get("adapter_of"):
        facts.append(f"an adapter, merged into {base['name']}")
    if source := known.get("converted_from"):
        facts.append(
            f"converted from {source['file']}, GGUF, {source['quantisation']}: its weights are rounded to that"
        )
    elif gguf := gguf_of(path):
        facts.append(f"GGUF, {check_gguf(gguf).quantisation}, not converted yet")
    if recipe.model.chat_template:
        facts.append(f"chat template {recipe.model.chat_template}")
    return f"[model] path = {path}: {'; '.join(facts)}" if facts else ""
