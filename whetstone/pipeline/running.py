"""Runs the stages of a recipe in order: each once, from its manifest or STARTED file on, and scores what was trained."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from whetstone.pipeline import base
from whetstone.pipeline.ahead import check_before_training, warnings
from whetstone.pipeline.checks import check_stages
from whetstone.pipeline.history import History, now
from whetstone.pipeline.machine import code, computed_on, git_revision, versions
from whetstone.pipeline.outputs import changed, content_of, remember, require_unchanged
from whetstone.pipeline.scores import score_stage
from whetstone.pipeline.staleness import (
    State,
    differences,
    fingerprint,
    plan_recipe,
    reads,
    refuse_links,
    settled,
    stage_state,
)
from whetstone.prompting import PROMPT, read_prompt
from whetstone.recipe import SHARED, Recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.run.copying import copied_out
from whetstone.run.folder import (
    MANIFEST,
    STARTED,
    DamagedFile,
    Stage,
    discard,
    open_lock,
    recover,
    replace_folder,
    successor,
    take,
)
from whetstone.run.manifest import read_manifest, write_manifest
from whetstone.run.progress import say
from whetstone.run.room import Estimate, Room
from whetstone.run.trackers import require_trackers
from whetstone.run.usage import USAGE, measured, together

# Artifacts that a stage may write beside those that its kind always gives
MAY_GIVE = ("base", "dropped", "right_rollouts")


def run_recipe(
    recipe: Recipe, first: str | None = None, last: str | None = None, only: Sequence[str] = (), force: bool = False
) -> None:
    """Do what is to do among the selected stages, score every trained model, and write run.json and scores.json.

    Raises ValueError for stale work without `force`, for a stage whose inputs are missing, for a folder in use, and for
    whatever else can be known before the first stage runs.
    """
    chosen = select(recipe, first, last, only)
    require_trackers(recipe.run.trackers)
    with lock(recipe.folder), copied_out(recipe.folder, recipe.run.copy_to):
        refuse_links(recipe.folder)
        recover(recipe.folder)
        plan = plan_recipe(recipe)
        say("\n".join(filter(None, [*recipe.warnings(), brief(recipe, plan, chosen), made_by_others(plan)])))
        _refuse_stale(recipe, [(stage, state) for stage, state in plan if stage in chosen], force)
        _refuse_missing_inputs(recipe, plan, chosen)
        waiting = [stage for stage, state in plan if stage in chosen and state.status != "done"]
        check_stages(recipe, waiting)
        if line := base.open_first(recipe, waiting):
            say(line)
        for stage in waiting:
            for warning in warnings(recipe, stage):
                say(f"warning: {stage.name}: {warning}")
        states: dict[str, State] = {}
        with History(recipe) as history:
            for stage in recipe.stages:
                states[stage.name] = stage_state(recipe, stage, states)
                if stage in chosen:
                    states[stage.name] = _do_stage(recipe, stage, states[stage.name], history, force)


def select(recipe: Recipe, first: str | None, last: str | None, only: Sequence[str]) -> list[RecipeStage]:
    """The stages that --from, --to and --only name. Raises ValueError if there are none."""
    if only and (first or last):
        raise ValueError("--only goes with neither --from nor --to: it names the stages itself. Use one or the other.")
    if only:
        return [recipe.stage(name) for name in only]
    start = recipe.stages.index(recipe.stage(first)) if first else 0
    end = recipe.stages.index(recipe.stage(last)) if last else len(recipe.stages) - 1
    if start > end:
        raise ValueError(f"--from {first} comes after --to {last} in {recipe.path}: nothing lies between. Swap them.")
    return list(recipe.stages[start : end + 1])


def brief(recipe: Recipe, plan: Sequence[tuple[RecipeStage, State]], chosen: Sequence[RecipeStage]) -> str:
    """The plan in one line."""
    groups: dict[str, list[str]] = {}
    for stage, state in plan:
        groups.setdefault(state.status if stage in chosen else "left out", []).append(stage.name)
    return f"{recipe.folder}  " + "   ".join(f"{status}: {', '.join(names)}" for status, names in groups.items())


def made_by_others(plan: Sequence[tuple[RecipeStage, State]]) -> str:
    """A note that names the finished stages which another version of Whetstone made; "" if there is none."""
    makers: dict[str, list[str]] = {}
    for stage, state in plan:
        if state.status == "done" and state.manifest:
            maker = state.manifest.get("git_revision") or state.manifest.get("versions", {}).get("whetstone")
            older = "" if state.manifest["computed_on"] else "an older one, "  # which did not note it
            makers.setdefault(f"{older}{maker or 'unknown'}", []).append(stage.name)
    lines = [f"{', '.join(names)} by {maker}" for maker, names in makers.items() if maker != code()]
    return (
        f"note: made by another version of Whetstone than this one ({code()}), and kept: {'; '.join(lines)}"
        if lines
        else ""
    )


def _refuse_stale(recipe: Recipe, chosen: Sequence[tuple[RecipeStage, State]], force: bool) -> None:
    stale = [(stage, state) for stage, state in chosen if state.status == "stale" and not stage.room.reads_run]
    own = [(stage, state) for stage, state in stale if not state.follows]
    if own and not force:
        lines = "\n".join(
            f"    {stage.folder_name}: {'; '.join(state.reasons)}{_begun(recipe, stage)}" for stage, state in own
        )
        after = [stage.name for stage, state in stale if state.follows]
        raise ValueError(
            f"{recipe.folder} holds work made under other settings or inputs, or changed since:\n{lines}\n"
            + (f"    and with that: {', '.join(after)}\n" if after else "")
            + "Redo it with --force (the old work stays until the new is complete; what was changed since is kept beside it), "
            "or keep it and use another run: --set run.name=NAME."
        )


def _begun(recipe: Recipe, stage: RecipeStage) -> str:
    """Says where new work lies that was interrupted."""
    new = successor(recipe.folder / stage.folder_name)
    return f" (new work was begun in {new.name})" if new.exists() else ""


def _refuse_missing_inputs(
    recipe: Recipe, plan: Sequence[tuple[RecipeStage, State]], chosen: Sequence[RecipeStage]
) -> None:
    states = {stage.name: state for stage, state in plan}
    for stage in chosen:
        for artifact, source in reads(recipe, stage):
            if recipe.stage(source) in chosen or stage.room.reads_run:
                continue
            if states[source].manifest is None:
                missing = f"{recipe.folder / recipe.stage(source).folder_name / MANIFEST} is missing"
                raise ValueError(
                    f"{'; '.join(states[source].reasons) or missing}: {stage.name} reads {artifact}. Make it first: run with "
                    f"--from {source}, or without --only and --from."
                )
            if states[source].status == "stale":
                say(f"note: {stage.name} reads {artifact}, which is stale: {'; '.join(states[source].reasons)}")


# --- one stage


def stage_for(recipe: Recipe, stage: RecipeStage, folder: Path | None = None) -> Stage:
    """What the room is given. `folder` is another than the stage's own while older work is there."""
    return Stage(
        name=stage.name,
        kind=stage.kind,
        folder=folder or recipe.folder / stage.folder_name,
        settings=settled(recipe, stage).settings,
        inputs={
            name: recipe.folder / recipe.stage(source.stage).folder_name / source.artifact
            for name, source in stage.sources.items()
        },
        longest=recipe.longest,
        wanted=recipe.wanted(stage),
        stream=stage.control.of if stage.control else "",
        **{name: getattr(recipe, name) for name in SHARED if name not in ("controls", "adapter")},
        adapter=recipe.adapter_of(stage),
    )


def estimate(recipe: Recipe, stage: RecipeStage) -> Estimate:
    """What the room can say beforehand. A control whose stage is not done takes tokens and steps from that one's estimate."""
    if stage.room.plan is None:
        return Estimate()
    prepared, bound = stage_for(recipe, stage), None
    if stage.control and not (recipe.folder / recipe.stage(stage.control.of).folder_name / MANIFEST).exists():
        expected = estimate(recipe, recipe.stage(stage.control.of))
        bound = expected.bound
        named = {"tokens": expected.tokens, "steps": expected.steps}
        numbers = {setting: named[setting] for setting in stage.control.takes if named.get(setting)}
        prepared = replace(prepared, settings=prepared.settings.model_copy(update=numbers))
    found = stage.room.plan(prepared)
    return found if bound is None else replace(found, bound=bound, steps_bound=bound)


def _do_stage(recipe: Recipe, stage: RecipeStage, state: State, history: History, force: bool) -> State:
    """Run the stage if it is not done, and score its model. Returns its new state."""
    folder = recipe.folder / stage.folder_name
    if state.status == "stale" and not stage.room.reads_run:
        _refuse_stale(recipe, [(stage, state)], force)
    if state.status == "done":
        assert state.manifest is not None
        remember(folder, state.manifest["outputs"])
    else:
        _require_unchanged_inputs(recipe, stage)
        history.begin()
        redone = _redo_stage if state.status == "stale" else _run_stage
        state = State("done", manifest=redone(recipe, stage, folder, state, history))
    if stage.room.trains or stage.room.prompts:
        score_stage(recipe, stage, history)
    return state


def _require_unchanged_inputs(recipe: Recipe, stage: RecipeStage) -> None:
    """Of a stage that is about to run: raises ValueError if an input's content is not what its maker's manifest says."""
    for source in stage.sources.values():
        maker = recipe.folder / recipe.stage(source.stage).folder_name
        require_unchanged(maker, {source.artifact: read_manifest(maker / MANIFEST)["outputs"].get(source.artifact, "")})


def _redo_stage(recipe: Recipe, stage: RecipeStage, folder: Path, state: State, history: History) -> dict[str, Any]:
    """Run a stage whose folder holds stale work, which stays until the new work is complete. Returns the manifest.

    The new work is made in the folder's successor, and continued there after a kill. Stages that only report on the others
    are cheap: their old work goes first.
    """
    if stage.room.reads_run and not state.changed:
        discard(folder)
        return _run_stage(recipe, stage, folder, state, history)
    new = successor(folder)
    if new.exists() and not _continues(recipe, stage, new):
        discard(new)
    say(f"\n{folder} is made again, in {new}: the old work stays until the new is complete")
    if (new / MANIFEST).exists():
        manifest = read_manifest(new / MANIFEST)
    else:
        manifest = _run_stage(recipe, stage, new, State("half done" if new.exists() else "to do"), history)
    if kept := replace_folder(folder, keep=state.changed):
        say(f"   the old files, which were changed after they were made, are in {kept}")
    return manifest


def _continues(recipe: Recipe, stage: RecipeStage, new: Path) -> bool:
    """Whether new work that was interrupted was begun under the settings and inputs of now."""
    try:
        then = read_manifest(new / (MANIFEST if (new / MANIFEST).exists() else STARTED))
    except (DamagedFile, FileNotFoundError):
        return False
    return not changed(new, then["outputs"]) and not differences(then, fingerprint(recipe, stage), stage.settings)


def _run_stage(recipe: Recipe, stage: RecipeStage, folder: Path, state: State, history: History) -> dict[str, Any]:
    """Run the room from where it stopped, and write the manifest last. Returns the manifest."""
    depends_on = fingerprint(recipe, stage)
    then = read_manifest(folder / STARTED) if (folder / STARTED).exists() else {"attempts": 0, "computed_on": []}
    earlier = then["computed_on"] or [{}] * min(then["attempts"], 1)  # older versions did not note it
    attempts, machines = then["attempts"] + 1, _machines(recipe, stage, earlier)
    started = now()
    facts = {"name": stage.name, "attempts": attempts, "started": started, "computed_on": machines}
    # By attempts that stopped; of one that was killed nothing is known
    used = {name: then.get(name, 0) for name in USAGE}
    write_manifest(folder / STARTED, depends_on | facts | used)
    say(f"\n== {stage.folder_name} ({stage.kind}{', continued' if state.status == 'half done' else ''})")
    prepared = base.with_open_base(recipe, stage, stage_for(recipe, stage, folder))
    check_before_training(recipe, stage, prepared)
    try:
        with measured() as usage:
            summary, peak = _run_room(prepared, stage.room)
    except BaseException:
        with suppress(OSError):  # as of a full disk, which may be what ended it
            write_manifest(folder / STARTED, depends_on | facts | together(used, usage))
        raise
    usage = together(used, usage | {"peak_memory": max(usage["peak_memory"], peak)})
    manifest = {
        "name": stage.name,
        "number": stage.number,
        **({"control": stage.control.name, "control_of": stage.control.of} if stage.control else {}),
        **depends_on,
        **base.started_from(recipe, stage),
        "outputs": _outputs(stage, folder),
        "summary": summary,
        "seed": prepared.seed,
        **_prompt(stage, folder),
        "versions": versions(),
        "python": platform.python_version(),
        "git_revision": git_revision(),
        "computed_on": machines,
        **usage,
        "attempts": attempts,
        "started": started,
        "finished": now(),
    }
    remember(folder, manifest["outputs"])
    write_manifest(folder / MANIFEST, manifest)
    (folder / STARTED).unlink()
    say(f"   {stage.name} done: {usage['wall_seconds']:.1f} s wall, {usage['cpu_seconds']:.1f} s CPU")
    history.note(stage.name, usage)
    return manifest


def _prompt(stage: RecipeStage, folder: Path) -> dict[str, Any]:
    """How the model that the stage trained was asked."""
    path = folder / "model" / PROMPT
    return {"prompt": read_prompt(path).to_json()} if stage.room.trains and path.is_file() else {}


def _machines(recipe: Recipe, stage: RecipeStage, earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the parts of the stage were computed on, one after the other. Says if it goes on where bits may differ."""
    here = computed_on(recipe.parallel)
    if earlier[-1:] == [here]:
        return earlier
    if earlier:
        before = earlier[-1]
        changes = [
            f"{name} was {before.get(name, 'not noted')} and is {value}"
            for name, value in here.items()
            if before.get(name) != value
        ]
        how = f"on other arithmetic: {', '.join(changes)}" if before else "by an older version of Whetstone"
        say(
            f"warning: {stage.folder_name} was begun {how}. Its result is as good, "
            "but not equal to the bit to that of an uninterrupted run; the manifest says so (computed_on)."
        )
    return [*earlier, here]


def _run_room(stage: Stage, room: Room) -> tuple[Mapping[str, Any], int]:
    """The room's summary, and the peak memory in bytes of the first of several processes (0 for one process)."""
    if room.trains and stage.parallel.micro_batch_tokens == "auto":
        from whetstone.learner.micro_batch import with_micro_batches
        from whetstone.model import choose_device

        stage = with_micro_batches(stage, choose_device(stage.parallel.device))
    if not (room.trains and stage.parallel.processes > 1):
        return room.run(stage), 0
    from whetstone.worker import run_in_processes

    result = run_in_processes(stage)
    return result["summary"], result["peak_memory"]


def _outputs(stage: RecipeStage, folder: Path) -> dict[str, str]:
    """The content hash of each artifact that the stage wrote."""
    artifacts = [name for name in (*stage.room.gives, *MAY_GIVE) if (folder / name).is_dir()]
    absent = [name for name in stage.room.gives if name not in artifacts]
    assert not absent, f"{stage.kind} ended without writing {', '.join(absent)} into {folder}"
    return {name: content_of(folder / name) for name in artifacts}


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One `whetstone run` per folder, which is made. The kernel releases the lock when the process ends, however it ends.

    Raises ValueError if another process holds it, OSError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = open_lock(folder / ".lock")
    except OSError as error:
        raise type(error)(
            f"{folder} cannot be written: {error.strerror} ({error.filename}). A run needs a folder of its own: give "
            "permission, move away what is there, or use another place: --set run.folder=FOLDER."
        ) from error
    with opened as handle:
        if not take(handle):
            raise ValueError(
                f"{folder} is in use by another whetstone run (process {handle.read().strip() or 'unknown'}): two "
                "would write the same files. Wait for it, stop it, or use another run: --set run.name=NAME."
            )
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
