"""Which stages of a recipe are done, stale, half done or to do.

`runs/NAME/NN-stage/manifest.json` is written last, so its presence means "complete". It names the inputs by content hash
and holds the resolved settings. If either differs from what the recipe says now, or if the output is no longer what the stage
made (`outputs.py`), the stage is stale. Stale work is never thrown away unasked: `run` stops and says so, `--force` redoes it.
Work that was interrupted under the same settings is continued by the rooms themselves.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from whetstone.base_templates import SHIPPED
from whetstone.model_folder import base_of, file_hash, local_model
from whetstone.model_remote import place
from whetstone.pipeline.outputs import changed, content_of
from whetstone.prompting import facts_of
from whetstone.recipe import Recipe
from whetstone.recipe_stage import RecipeStage, Source
from whetstone.run.control import is_control
from whetstone.run.folder import MANIFEST, SCORES, STARTED, DamagedFile, hash_file
from whetstone.run.manifest import read_manifest, read_scores
from whetstone.run.secrets import redacted
from whetstone.run.settings import Operational
from whetstone.run.user_file import file_of

TRACKERS = ("wandb", "tensorboard")  # folders of trackers, which write links of their own


@dataclass(frozen=True)
class State:
    """Where a stage stands. `reasons` say why it is stale, or what it waits for.

    `follows`: it is stale only because a stage that it reads will be made again. If that gives the same, it is done.
    `changed`: its output is not what it made, so it may be somebody's own work.
    """

    status: Literal["done", "stale", "half done", "to do"]
    reasons: tuple[str, ...] = ()
    manifest: Mapping[str, Any] | None = None
    follows: bool = False
    changed: bool = False


def plan_recipe(recipe: Recipe) -> list[tuple[RecipeStage, State]]:
    """The state of every stage, in order. Reads manifests and the user's files; writes nothing.

    Raises ValueError if the run folder holds another recipe's work.
    """
    check_folder(recipe)
    states: dict[str, State] = {}
    for stage in recipe.stages:
        states[stage.name] = stage_state(recipe, stage, states)
    return [(stage, states[stage.name]) for stage in recipe.stages]


def check_folder(recipe: Recipe) -> None:
    """A run folder holds one recipe, and nothing in it leads out of it.

    Raises ValueError if a number belongs to a stage of another name or kind, or for a symbolic link.
    """
    if not recipe.folder.is_dir():
        if recipe.folder.exists():
            raise ValueError(
                f"{recipe.folder} is a file, and a run needs a folder: use another run, --set run.name=NAME."
            )
        return
    refuse_links(recipe.folder)
    for folder in sorted(recipe.folder.iterdir()):
        parts = re.fullmatch(r"(\d{2,})-(.+)", folder.name)
        if not parts or (stage := _stage_at(recipe, int(parts[1]), parts[2])) is None:
            continue
        if not folder.is_dir():
            raise ValueError(f"{folder} is a file, and {stage.name} needs a folder there: move it away.")
        kind = written(folder).get("kind", stage.kind)
        if parts[2] != stage.name or kind != stage.kind:
            raise ValueError(
                f"{folder} ({kind}) stands where {recipe.path} puts {stage.folder_name} ({stage.kind}): the run folder "
                f"holds another recipe's work. Use another run, --set run.name=NAME, or move {recipe.folder} away."
            )


def _stage_at(recipe: Recipe, number: int, name: str) -> RecipeStage | None:
    """The stage that a folder must belong to; None for controls, and numbers, that the recipe does not have."""
    if is_control(name):
        return next((stage for stage in recipe.stages if stage.name == name), None)
    return next((stage for stage in recipe.stages if stage.number == number and not stage.control), None)


def refuse_links(run: Path) -> None:
    """Raises ValueError for a symbolic link in a run folder, for what is written through it lands elsewhere, and for a pipe
    or device, which could be read for ever.
    """
    for above, folders, files in os.walk(run):
        folders[:] = [name for name in folders if name not in TRACKERS]
        for name in (*folders, *files):
            path = Path(above, name)
            if path.is_symlink():
                raise ValueError(
                    f"{path} is a symbolic link to {path.readlink()}: a run writes inside its own folder only. Put the "
                    "files themselves there, or let the whole run lie elsewhere: --set run.folder=FOLDER."
                )
            if not (path.is_file() or path.is_dir() or path.name == ".lock"):  # which `open_lock` looks at
                raise ValueError(f"{path} is neither a file nor a folder (a pipe or a device): move it away.")


def written(folder: Path) -> dict[str, Any]:
    """What a stage left about itself; empty if nothing that can be read."""
    for name in (MANIFEST, STARTED):
        with suppress(FileNotFoundError, DamagedFile):
            return read_manifest(folder / name)
    return {}


def stage_state(recipe: Recipe, stage: RecipeStage, above: Mapping[str, State]) -> State:
    """The state of one stage, given the states of those above it, by name."""
    folder = recipe.folder / stage.folder_name
    pending = [artifact for artifact, source in reads(recipe, stage) if above[source].status != "done"]
    missing = ", ".join(dict.fromkeys(pending))
    try:
        if (folder / MANIFEST).exists():
            return _finished(recipe, stage, read_manifest(folder / MANIFEST), missing)
        waits = (f"{missing} must be made first",) if pending else ()
        if (folder / STARTED).exists():
            then = read_manifest(folder / STARTED)
            reasons = [] if pending else differences(then, fingerprint(recipe, stage), stage.settings)
            if reasons:
                return State("stale", ("it was left half done, and since then", *reasons))
            return State("half done", waits)
    except DamagedFile as damage:
        return State("stale", (str(damage),), changed=True)
    if folder.is_dir() and any(path.name != f"{STARTED}.part" for path in folder.iterdir()):  # which a kill leaves
        why = f"{folder} holds files, but not the {STARTED} that says under which settings"
        return State("stale", (why,), changed=True)
    return State("to do", waits)


def _finished(recipe: Recipe, stage: RecipeStage, manifest: dict[str, Any], pending: str) -> State:
    """`pending` names the inputs that are not as they should be, if there are any."""
    edited = [
        *(
            f"its {MANIFEST} does not name its {artifact}"
            for artifact in stage.room.gives
            if artifact not in manifest["outputs"]
        ),
        *changed(recipe.folder / stage.folder_name, manifest["outputs"]),
    ]
    reasons = (
        *edited,
        *_not_kept(recipe, stage, manifest),
        *differences(manifest, fingerprint(recipe, stage), stage.settings),
    )
    if pending and not reasons:
        return State("stale", (f"{pending} will be made again",), manifest, follows=True)
    return State("stale" if reasons else "done", reasons, manifest, changed=bool(edited))


def _not_kept(recipe: Recipe, stage: RecipeStage, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a stage keeps for its controls only, and did not keep when it was made."""
    for control in recipe.stages:
        for source in control.sources.values() if control.control else ():
            if source.stage == stage.name and source.artifact not in {*stage.room.gives, *manifest["outputs"]}:
                yield f"it kept no {source.artifact}, which {control.name} reads (leave that control out to keep the stage)"


def reads(recipe: Recipe, stage: RecipeStage) -> list[tuple[str, str]]:
    """(artifact, the stage it comes from) of everything that a stage reads."""
    if stage.room.reads_run:
        return [(above.name, above.name) for above in recipe.above(stage)]
    of = [(stage.control.of, stage.control.of)] if stage.control else []
    return [*of, *((str(source), source.stage) for source in stage.sources.values())]


def settled(recipe: Recipe, stage: RecipeStage) -> RecipeStage:
    """A control with the numbers that it takes from its finished stage; any other stage as it is."""
    with suppress(FileNotFoundError, DamagedFile):
        if stage.control:
            of = recipe.stage(stage.control.of)
            return stage.settled(read_manifest(recipe.folder / of.folder_name / MANIFEST)["summary"])
    return stage


# --- what a result depends on


def fingerprint(recipe: Recipe, stage: RecipeStage) -> dict[str, Any]:
    """All that a stage's result depends on. An input that does not exist yet has hash None."""
    stage = settled(recipe, stage)
    inputs = {
        name: _input(source.stage, source.artifact, _output_hash(recipe, source))
        for name, source in stage.sources.items()
    }
    if stage.room.reads_run:
        inputs |= _run_inputs(recipe, recipe.above(stage))
    if starts_from_path(recipe, stage):
        path = str(recipe.model.path)
        inputs["[model] path"] = _input("", path, base_hash(path))
        template = recipe.model.chat_template
        if template and template not in SHIPPED:
            inputs["[model] chat_template"] = _input("", template, hash_of(Path(template)))
    inputs |= {f"model {name}": _input("", name, base_hash(name)) for name in stage.room.models(stage.settings)}
    apart = {"prompt", *(["adapter"] if getattr(stage.settings, "adapter", None) else [])}  # it has its own
    uses = [use for use in stage.room.uses if use not in apart]
    asks = "prompt" in stage.room.uses or stage.room.asks(stage.settings)
    prompt = facts_of(recipe.prompt, recipe.model.path if "prompt" in stage.room.uses else None) if asks else {}
    room_file = file_of(stage.kind)
    for number, path in enumerate([*([room_file] if room_file else []), *stage.room.reads(stage.settings)], 1):
        inputs[f"file {number}"] = _input("", str(path), hash_of(path))
    return {
        "kind": stage.kind,
        "settings": stage.settings.model_dump(mode="json", exclude={"kind", "name"}),
        "shared": recipe.shared(uses) | prompt,
        "inputs": inputs,
    }


def starts_from_path(recipe: Recipe, stage: RecipeStage) -> bool:
    """Whether the stage trains, or chooses a prompt for, the model that `[model] path` names."""
    starts = stage.room.trains or stage.room.prompts
    return recipe.model.path is not None and starts and "model" not in stage.sources


def base_hash(path: str) -> str | None:
    """Of the content of the model that a setting names; None if it is not a path. Of a GGUF file it is the file's, of an
    adapter its folder's and its base's.
    """
    local = place(path)
    if local.exists() and (base := base_of(path)):
        return hashlib.sha256(f"{hash_of(local)} {base_hash(base)}".encode()).hexdigest()
    return (file_hash(path) or hash_of(local_model(path) or local)) if local.exists() else None


def _input(stage: str, artifact: str, content: str | None) -> dict[str, Any]:
    return {"stage": stage, "artifact": artifact, "hash": content}


def _run_inputs(recipe: Recipe, above: tuple[RecipeStage, ...]) -> dict[str, Any]:
    """The manifests of the stages above, and their scores: scores of stages below (of a longer recipe) do not matter."""
    inputs = {}
    for stage in above:
        manifest = recipe.folder / stage.folder_name / MANIFEST
        inputs[f"{stage.name}/{MANIFEST}"] = _input(stage.name, MANIFEST, hash_of(manifest))
    names = {"base", *(stage.name for stage in above)}
    path, content = recipe.folder / SCORES, None
    with suppress(FileNotFoundError, DamagedFile):  # scores.json is written anew from the manifests in scores/
        scores = [score for score in read_scores(path) if score["stage"] in names]
        content = hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
    return inputs | {SCORES: _input("", SCORES, content)}


def hash_of(path: Path) -> str | None:
    """Of a file's or a folder's content; None if there is neither."""
    if path.is_dir():
        return content_of(path)
    return hash_file(path) if path.is_file() else None


def _output_hash(recipe: Recipe, source: Source) -> str | None:
    with suppress(FileNotFoundError, DamagedFile):
        return read_manifest(recipe.folder / recipe.stage(source.stage).folder_name / MANIFEST)["outputs"].get(
            source.artifact
        )
    return None


# --- what changed


def differences(then: Mapping[str, Any], now: Mapping[str, Any], settings: BaseModel) -> list[str]:
    """In words: which setting changed from what to what, and which input is another.

    `settings` are those of now: their operational fields may change without a word. So may secrets, which older versions wrote.
    """
    return [
        *_changes(redacted(then.get("settings", {})), now["settings"], settings),
        *_changes(then.get("shared", {}), now["shared"]),
        *_input_changes(then.get("inputs", {}), now["inputs"]),
    ]


def _changes(old: Any, new: Any, settings: Any = None, name: str = "") -> Iterator[str]:
    """Of a value, or of all values in a table. `settings` is the value of now as an object, which declares its fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        declared = type(settings).model_fields if isinstance(settings, BaseModel) else {}
        for key in [*new, *(key for key in old if key not in new)]:
            full = f"{name}.{key}" if name else key
            if key in declared and Operational in declared[key].metadata:
                continue
            if key not in new:
                yield f"{full} = {old[key]!r} is no longer set"
            elif key not in old:
                yield f"{full} = {new[key]!r} is a new setting"
            else:
                yield from _changes(old[key], new[key], getattr(settings, key, None), full)
    elif isinstance(old, list) and isinstance(new, list) and isinstance(settings, tuple) and len(old) == len(new):
        for number, entries in enumerate(zip(old, new, settings, strict=True)):
            yield from _changes(*entries, f"{name}[{number}]")
    elif old != new:
        yield f"{name} was {old!r} and is {new!r}"


def _input_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in [*new, *(name for name in old if name not in new)]:
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield f"input {name} is {'gone' if after is None else 'new'}"
        elif before["hash"] != after["hash"] and after["hash"] is not None:
            was, source = _source_name(before), _source_name(after)
            yield f"input {name} " + (
                f"({source}) has other content" if was == source else f"was {was} and is {source}"
            )


def _source_name(entry: Mapping[str, Any]) -> str:
    return f"{entry['stage']}/{entry['artifact']}" if entry["stage"] else str(entry["artifact"])
