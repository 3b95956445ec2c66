"""Runs the stages of a recipe in order: each once, from its manifest or STARTED file on, and scores what was trained."""

import fcntl
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whetstone.pipeline.ahead import check_before_training, warnings
from whetstone.pipeline.history import History, now
from whetstone.pipeline.machine import git_revision, versions
from whetstone.pipeline.scores import score_stage
from whetstone.pipeline.staleness import State, fingerprint, plan_recipe, reads, stage_state
from whetstone.recipe import SHARED, Recipe, RecipeStage
from whetstone.run.folder import MANIFEST, STARTED, Stage, discard, hash_folder, read_json, remove_discarded, write_json
from whetstone.run.metrics import require_trackers
from whetstone.run.progress import say
from whetstone.run.room import Estimate, Room
from whetstone.run.usage import measured

MAY_GIVE = ("base", "dropped")  # artifacts that any stage may write beside those that its kind always gives


def run_recipe(
    recipe: Recipe, first: str | None = None, last: str | None = None, only: Sequence[str] = (), force: bool = False
) -> None:
    """Do what is to do among the selected stages, score every trained model, and write run.json and scores.json.

    Raises ValueError for stale work without `force`, for a stage whose inputs are missing, for a folder in use.
    """
    chosen = select(recipe, first, last, only)
    require_trackers(recipe.run.trackers)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    with lock(recipe.folder):
        remove_discarded(recipe.folder)
        plan = plan_recipe(recipe)
        say("\n".join([*recipe.warnings(), brief(recipe, plan, chosen)]))
        _refuse_stale(recipe, [(stage, state) for stage, state in plan if stage in chosen], force)
        _refuse_missing_inputs(recipe, plan, chosen)
        for stage, state in plan:
            if stage in chosen and state.status != "done":
                stage.room.check(stage.settings)
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
    start = recipe.stage(first).number if first else 1
    end = recipe.stage(last).number if last else len(recipe.stages)
    if start > end:
        raise ValueError(f"--from {first} comes after --to {last} in {recipe.path}: nothing lies between. Swap them.")
    return list(recipe.stages[start - 1 : end])


def brief(recipe: Recipe, plan: Sequence[tuple[RecipeStage, State]], chosen: Sequence[RecipeStage]) -> str:
    """The plan in one line."""
    groups: dict[str, list[str]] = {}
    for stage, state in plan:
        groups.setdefault(state.status if stage in chosen else "left out", []).append(stage.name)
    return f"{recipe.folder}  " + "   ".join(f"{status}: {', '.join(names)}" for status, names in groups.items())


def _refuse_stale(recipe: Recipe, chosen: Sequence[tuple[RecipeStage, State]], force: bool) -> None:
    stale = [(stage, state) for stage, state in chosen if state.status == "stale" and not stage.room.reads_run]
    own = [(stage, state) for stage, state in stale if not state.follows]
    if own and not force:
        lines = "\n".join(f"    {stage.folder_name}: {'; '.join(state.reasons)}" for stage, state in own)
        after = [stage.name for stage, state in stale if state.follows]
        raise ValueError(
            f"{recipe.folder} holds work made under other settings or inputs:\n{lines}\n"
            + (f"    and with that: {', '.join(after)}\n" if after else "")
            + "Redo it with --force (the old work is thrown away), or keep it and use another run: --set run.name=NAME."
        )


def _refuse_missing_inputs(
    recipe: Recipe, plan: Sequence[tuple[RecipeStage, State]], chosen: Sequence[RecipeStage]
) -> None:
    states = {stage.name: state for stage, state in plan}
    for stage in chosen:
        for artifact, source in reads(recipe, stage):
            if recipe.stage(source) in chosen or stage.room.reads_run:
                continue
            if states[source].manifest is None:
                raise ValueError(
                    f"{recipe.folder / recipe.stage(source).folder_name / MANIFEST} is missing: {stage.name} reads "
                    f"{artifact}. Make it first: run with --from {source}, or without --only and --from."
                )
            if states[source].status == "stale":
                say(f"note: {stage.name} reads {artifact}, which is stale: {'; '.join(states[source].reasons)}")


# --- one stage


def stage_for(recipe: Recipe, stage: RecipeStage) -> Stage:
    """What the room is given."""
    return Stage(
        name=stage.name,
        kind=stage.kind,
        folder=recipe.folder / stage.folder_name,
        settings=stage.settings,
        inputs={
            name: recipe.folder / recipe.stage(source.stage).folder_name / source.artifact
            for name, source in stage.sources.items()
        },
        longest=recipe.longest,
        wanted=_wanted(recipe, stage),
        **{name: getattr(recipe, name) for name in SHARED},
    )


def _wanted(recipe: Recipe, stage: RecipeStage) -> tuple[str, ...]:
    """The artifacts of a stage that stages below cannot do without."""
    read = [
        source.artifact
        for below in recipe.stages
        for name, source in below.sources.items()
        if source.stage == stage.name and not below.room.inputs[name].optional
    ]
    return tuple(dict.fromkeys(read))


def estimate(recipe: Recipe, stage: RecipeStage) -> Estimate:
    """What the room can say beforehand."""
    return stage.room.plan(stage_for(recipe, stage)) if stage.room.plan else Estimate()


def _do_stage(recipe: Recipe, stage: RecipeStage, state: State, history: History, force: bool) -> State:
    """Run the stage if it is not done, and score its model. Returns its new state."""
    if state.status == "stale":
        if not stage.room.reads_run:
            _refuse_stale(recipe, [(stage, state)], force)
        discard(recipe.folder / stage.folder_name)
    if state.status != "done":
        history.begin()
        state = State("done", manifest=_run_stage(recipe, stage, state, history))
    if stage.room.trains:
        score_stage(recipe, stage, history)
    return state


def _run_stage(recipe: Recipe, stage: RecipeStage, state: State, history: History) -> dict[str, Any]:
    """Run the room from where it stopped, and write the manifest last. Returns the manifest."""
    folder = recipe.folder / stage.folder_name
    depends_on = fingerprint(recipe, stage)
    attempts = 1 + (read_json(folder / STARTED)["attempts"] if (folder / STARTED).exists() else 0)
    started = now()
    write_json(folder / STARTED, depends_on | {"name": stage.name, "attempts": attempts, "started": started})
    say(f"\n== {stage.folder_name} ({stage.kind}{', continued' if state.status == 'half done' else ''})")
    prepared = stage_for(recipe, stage)
    check_before_training(recipe, stage, prepared)
    with measured() as usage:
        summary, peak = _run_room(prepared, stage.room)
    usage["peak_memory"] = max(usage["peak_memory"], peak)
    manifest = {
        "name": stage.name,
        "number": stage.number,
        **depends_on,
        "outputs": _outputs(stage, folder),
        "summary": summary,
        "seed": prepared.seed,
        "versions": versions(),
        "python": platform.python_version(),
        "git_revision": git_revision(),
        **usage,
        "attempts": attempts,
        "started": started,
        "finished": now(),
    }
    write_json(folder / MANIFEST, manifest)
    (folder / STARTED).unlink()
    say(f"   {stage.name} done: {usage['wall_seconds']:.1f} s wall, {usage['cpu_seconds']:.1f} s CPU")
    history.note(stage.name, usage)
    return manifest


def _run_room(stage: Stage, room: Room) -> tuple[Mapping[str, Any], int]:
    """The room's summary, and the peak memory in bytes of the first of several processes (0 for one process)."""
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
    return {name: hash_folder(folder / name) for name in artifacts}


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One `whetstone run` per folder. The kernel releases the lock when the process ends, however it ends.

    Raises ValueError if another process holds it.
    """
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise ValueError(
                f"{folder} is in use by another whetstone run (process {handle.read().strip() or 'unknown'}): two "
                "would write the same files. Wait for it, stop it, or use another run: --set run.name=NAME."
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
