"""The walk: which stages of a recipe are done, stale or to do, in which order they run, and their scores.

`runs/NAME/NN-stage/manifest.json` is written last, so its presence means "complete". It names the inputs by content
hash and holds the resolved settings; where either differs from what the recipe says now, the stage is stale. Stale work
is never thrown away unasked: `run` stops and says so, `--force` redoes it. Work that was interrupted under the same
settings is continued by the rooms themselves.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import whetstone
from whetstone.decode.server_generator import REACHED
from whetstone.learner.cost import Estimate
from whetstone.recipe import KINDS, Recipe, RecipeStage
from whetstone.records import Problem, Score, from_row, to_row
from whetstone.run.folder import Stage, hash_file, hash_folder, read_json, write_json
from whetstone.run.metrics import require_trackers
from whetstone.run.processes import cores
from whetstone.run.progress import say
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_records

MANIFEST, STARTED, RUN_FILE, SCORES_FILE = "manifest.json", "started.json", "run.json", "scores.json"
MAY_GIVE = ("base", "dropped")  # artifacts beside those a kind always gives
PROBE_SECONDS = 0.2  # of matrix products before and after a run
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pyarrow", "pydantic", "math-verify")


@dataclass(frozen=True)
class State:
    """Where a stage stands. `reasons` say why it is stale, or what it waits for.

    `follows`: it is stale only because a stage it reads will be made again; should that give the same, it is done.
    """

    status: Literal["done", "stale", "half done", "to do"]
    reasons: tuple[str, ...] = ()
    manifest: Mapping[str, Any] | None = None
    follows: bool = False

    def __str__(self) -> str:
        return self.status + (f" because {'; '.join(self.reasons)}" if self.reasons else "")


@dataclass(frozen=True)
class StageResult:
    """One line of the table at the end of a run."""

    name: str
    kind: str
    wall_seconds: float
    cpu_seconds: float
    peak_memory: int  # bytes
    score: Score | None  # on the main benchmark, where the stage is scored


# --- what is stale


def plan_recipe(recipe: Recipe) -> list[tuple[RecipeStage, State]]:
    """The state of every stage, in order. Reads manifests only."""
    check_folder(recipe)
    states: dict[str, State] = {}
    for stage in recipe.stages:
        states[stage.name] = _state(recipe, stage, states)
    return [(stage, states[stage.name]) for stage in recipe.stages]


def check_folder(recipe: Recipe) -> None:
    """A run folder holds one recipe: no number may belong to a stage of another name or kind."""
    if not recipe.folder.is_dir():
        return
    for folder in sorted(recipe.folder.iterdir()):
        parts = re.fullmatch(r"(\d{2,})-(.+)", folder.name)
        if not parts or not folder.is_dir() or not 0 < int(parts[1]) <= len(recipe.stages):
            continue
        stage = recipe.stages[int(parts[1]) - 1]
        written = next((read_json(folder / f) for f in (MANIFEST, STARTED) if (folder / f).exists()), {})
        kind = written.get("kind", stage.kind)
        if parts[2] != stage.name or kind != stage.kind:
            raise ValueError(
                f"{folder} ({kind}) stands where {recipe.path} puts {stage.folder_name} ({stage.kind}): the run folder "
                f"holds another recipe's work. Use another run, --set run.name=NAME, or move {recipe.folder} away."
            )


def _state(recipe: Recipe, stage: RecipeStage, above: Mapping[str, State]) -> State:
    folder = recipe.folder / stage.folder_name
    wanted = fingerprint(recipe, stage)
    pending = [name for name, source in _reads(recipe, stage) if above[source].status != "done"]
    if (folder / MANIFEST).exists():
        manifest = read_json(folder / MANIFEST)
        reasons = _differences(manifest, wanted)
        if pending and not reasons:
            again = f"{' and '.join(dict.fromkeys(pending))} will be made again"
            return State("stale", (again,), manifest, follows=True)
        return State("stale" if reasons else "done", tuple(reasons), manifest)
    waits = (f"{' and '.join(dict.fromkeys(pending))} must be made first",) if pending else ()
    if (folder / STARTED).exists():
        reasons = [] if pending else _differences(read_json(folder / STARTED), wanted)
        if reasons:
            return State("stale", ("it was left half done, and since then", *reasons))
        return State("half done", waits)
    if folder.is_dir() and any(folder.iterdir()):
        return State("stale", (f"{folder} holds files, but not the {STARTED} that says under which settings",))
    return State("to do", waits)


def _reads(recipe: Recipe, stage: RecipeStage) -> list[tuple[str, str]]:
    """(what, stage it comes from) of everything a stage reads."""
    if KINDS[stage.kind].reads_run:
        return [(above.name, above.name) for above in recipe.stages[: stage.number - 1]]
    return [(str(source), source.stage) for source in stage.sources.values()]


def fingerprint(recipe: Recipe, stage: RecipeStage) -> dict[str, Any]:
    """All that a stage's result depends on. Inputs that are not there yet have hash None."""
    kind = KINDS[stage.kind]
    settings = stage.settings.model_dump(mode="json", exclude={"kind", "name", *kind.inputs})
    inputs: dict[str, Any] = {}
    for name, source in stage.sources.items():
        inputs[name] = {"stage": source.stage, "artifact": source.artifact, "hash": _output_hash(recipe, source)}
    if kind.reads_run:
        before = recipe.stages[: stage.number - 1]
        for above in before:
            made = _hash_if_there(recipe.folder / above.folder_name / MANIFEST)
            inputs[f"{above.name}/{MANIFEST}"] = {"stage": above.name, "artifact": MANIFEST, "hash": made}
        scores = _scores_hash(recipe, {"base", *(above.name for above in before)})
        inputs[SCORES_FILE] = {"stage": "", "artifact": SCORES_FILE, "hash": scores}
    reads = getattr(kind.load(), "reads", None)  # a room that reads files of the user's names them
    for number, path in enumerate(reads(stage.settings) if reads else (), 1):
        inputs[f"file {number}"] = {"stage": "", "artifact": str(path), "hash": _hash_if_there(Path(path))}
    return {"kind": stage.kind, "settings": settings, "shared": recipe.shared(kind.uses), "inputs": inputs}


def _hash_if_there(path: Path) -> str | None:
    if path.is_dir():
        return hash_folder(path)
    return hash_file(path) if path.is_file() else None


def _scores_hash(recipe: Recipe, stages: set[str]) -> str | None:
    """Of those stages' scores only: scores of stages below (a longer recipe's) do not concern a stage."""
    path = recipe.folder / SCORES_FILE
    if not path.exists():
        return None
    scores = [score for score in read_json(path)["scores"] if score["stage"] in stages]
    return hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()


def _output_hash(recipe: Recipe, source: Any) -> str | None:
    manifest = recipe.folder / recipe.stage(source.stage).folder_name / MANIFEST
    return read_json(manifest)["outputs"].get(source.artifact) if manifest.exists() else None


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words: which setting changed from what to what, which input is another."""
    words = []
    for table in ("settings", "shared"):
        words += _changed(then.get(table, {}), now[table])
    old, new = then.get("inputs", {}), now["inputs"]
    for name in [*new, *(k for k in old if k not in new)]:
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            words.append(f"input {name} is {'gone' if after is None else 'new'}")
        elif before["hash"] != after["hash"] and after["hash"] is not None:
            changed = _source_name(before) != _source_name(after)
            words.append(
                f"input {name} was {_source_name(before)} and is {_source_name(after)}"
                if changed
                else f"input {name} ({_source_name(after)}) has other content"
            )
    return words


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], table: str = "") -> Iterator[str]:
    for key in [*new, *(k for k in old if k not in new)]:
        name = f"{table}{key}"
        if key not in new:
            yield f"{name} = {old[key]!r} is no longer a setting"
        elif key not in old:
            yield f"{name} = {new[key]!r} is a new setting"
        elif isinstance(old[key], dict) and isinstance(new[key], dict) and not old[key].keys() >= REACHED:
            yield from _changed(old[key], new[key], f"{name}.")
        elif _deciding(old[key]) != _deciding(new[key]):
            yield f"{name} was {old[key]!r} and is {new[key]!r}"


def _deciding(setting: Any) -> Any:
    """A setting without how a server in it is reached: the same model may answer at another address."""
    if not isinstance(setting, dict):
        return setting
    left_out = REACHED if setting.keys() >= REACHED else ()
    return {key: _deciding(value) for key, value in setting.items() if key not in left_out}


def _source_name(entry: Mapping[str, Any]) -> str:
    return f"{entry['stage']}/{entry['artifact']}" if entry["stage"] else str(entry["artifact"])


def stage_for(recipe: Recipe, stage: RecipeStage) -> Stage:
    """What the room is given."""
    inputs = {
        name: recipe.folder / recipe.stage(source.stage).folder_name / source.artifact
        for name, source in stage.sources.items()
    }
    return Stage(
        name=stage.name,
        kind=stage.kind,
        folder=recipe.folder / stage.folder_name,
        settings=stage.settings,
        inputs=inputs,
        run=recipe.run,
        model=recipe.model,
        parallel=recipe.parallel,
        scores=recipe.scores,
        longest=recipe.longest,
    )


def estimate(recipe: Recipe, stage: RecipeStage) -> Estimate:
    """What a room can say beforehand: its own `plan(stage)`, where it has one. That may be a few lines only."""
    plan = getattr(KINDS[stage.kind].load(), "plan", None)
    told = plan(stage_for(recipe, stage)) if plan else {}
    if isinstance(told, Estimate):
        return told
    return Estimate({name: f"{value:,}" if isinstance(value, int) else f"{value}" for name, value in told.items()})


# --- running


def run_recipe(
    recipe: Recipe,
    first: str | None = None,
    last: str | None = None,
    only: Sequence[str] = (),
    force: bool = False,
) -> list[StageResult]:
    """Do what is to do among the selected stages, score every trained model, and write run.json and scores.json."""
    chosen = select(recipe, first, last, only)
    require_trackers(recipe.run.trackers)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    with lock(recipe.folder):
        _remove_discarded(recipe.folder)
        plan = plan_recipe(recipe)
        for line in brief(recipe, plan, chosen):
            say(line)
        _refuse_stale(recipe, [(stage, state) for stage, state in plan if stage in chosen], force)
        _refuse_missing_inputs(recipe, plan, chosen)
        to_do = [stage for stage, state in plan if stage in chosen and state.status != "done"]
        _refuse_processes(to_do, recipe.parallel.processes)
        with _Diary(recipe) as diary:
            for stage in recipe.stages:
                if stage in chosen:
                    _do_stage(recipe, stage, diary, force)
        return results(recipe)


def select(recipe: Recipe, first: str | None, last: str | None, only: Sequence[str]) -> list[RecipeStage]:
    if only and (first or last):
        raise ValueError("--only goes with neither --from nor --to: it names the stages itself. Use one or the other.")
    if only:
        return [recipe.stage(name) for name in only]
    start = recipe.stage(first).number if first else 1
    end = recipe.stage(last).number if last else len(recipe.stages)
    if start > end:
        raise ValueError(f"--from {first} comes after --to {last} in {recipe.path}: nothing lies between. Swap them.")
    return list(recipe.stages[start - 1 : end])


def brief(recipe: Recipe, plan: Sequence[tuple[RecipeStage, State]], chosen: Sequence[RecipeStage]) -> Iterator[str]:
    """The plan in a few lines."""
    groups: dict[str, list[str]] = {}
    for stage, state in plan:
        groups.setdefault(state.status if stage in chosen else "left out", []).append(stage.name)
    yield f"{recipe.folder}  " + "   ".join(f"{status}: {', '.join(names)}" for status, names in groups.items())


def _refuse_stale(recipe: Recipe, chosen: Sequence[tuple[RecipeStage, State]], force: bool) -> None:
    stale = [(stage, state) for stage, state in chosen if state.status == "stale" and not KINDS[stage.kind].reads_run]
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
        for what, source in _reads(recipe, stage):
            if recipe.stage(source) in chosen or KINDS[stage.kind].reads_run:
                continue
            if states[source].manifest is None:
                raise ValueError(
                    f"{recipe.folder / recipe.stage(source).folder_name / MANIFEST} is missing: {stage.name} reads "
                    f"{what}. Make it first: run with --from {source}, or without --only and --from."
                )
            if states[source].status == "stale":
                say(f"note: {stage.name} reads {what}, which is stale: {'; '.join(states[source].reasons)}")


def _do_stage(recipe: Recipe, stage: RecipeStage, diary: "_Diary", force: bool) -> None:
    kind = KINDS[stage.kind]
    folder = recipe.folder / stage.folder_name
    state = dict((s.name, st) for s, st in plan_recipe(recipe))[stage.name]
    if state.status == "stale":
        if not kind.reads_run:
            _refuse_stale(recipe, [(stage, state)], force)
        _discard(folder)
    if state.status != "done":
        diary.begin()
        _run_room(recipe, stage, state, diary)
    if kind.trains:
        score_stage(recipe, stage, diary)


def _run_room(recipe: Recipe, stage: RecipeStage, state: State, diary: "_Diary") -> None:
    room = KINDS[stage.kind].load()
    folder = recipe.folder / stage.folder_name
    wanted = fingerprint(recipe, stage)
    attempts = 1 + (read_json(folder / STARTED)["attempts"] if (folder / STARTED).exists() else 0)
    started = _now()
    write_json(folder / STARTED, wanted | {"name": stage.name, "attempts": attempts, "started": started})
    continued = ", continued" if state.status == "half done" else ""
    say(f"\n== {stage.folder_name} ({stage.kind}{continued})")
    given = stage_for(recipe, stage)
    with measured() as used:
        summary, peak = _do(given, room)
    used["peak_memory"] = max(used["peak_memory"], peak)
    outputs = {}
    for artifact in (*KINDS[stage.kind].gives, *MAY_GIVE):
        if (folder / artifact).is_dir():
            outputs[artifact] = hash_folder(folder / artifact)
    absent = [artifact for artifact in KINDS[stage.kind].gives if artifact not in outputs]
    assert not absent, f"{stage.kind} ended without writing {', '.join(absent)} into {folder}"
    manifest = {
        "name": stage.name,
        "number": stage.number,
        **wanted,
        "outputs": outputs,
        "summary": summary,
        "seed": given.seed,
        "versions": versions(),
        "python": platform.python_version(),
        "git_revision": git_revision(),
        **used,
        "attempts": attempts,
        "started": started,
        "finished": _now(),
    }
    write_json(folder / MANIFEST, manifest)
    (folder / STARTED).unlink()
    say(f"   {stage.name} done: {used['wall_seconds']:.1f} s wall, {used['cpu_seconds']:.1f} s CPU")
    diary.note(stage.name, used)


def _do(stage: Stage, room: ModuleType) -> tuple[dict[str, Any], int]:
    """The room's summary, and the bytes at the peak of a process that this one started for it."""
    if not (KINDS[stage.kind].trains and stage.parallel.processes > 1):
        return room.run(stage), 0
    from whetstone.worker import run_in_processes

    told = run_in_processes(stage)
    return told["summary"], told["peak_memory"]


def _refuse_processes(chosen: Sequence[RecipeStage], processes: int) -> None:
    for stage in chosen:
        if KINDS[stage.kind].trains and processes > 1 and not KINDS[stage.kind].divides:
            raise ValueError(
                f"[parallel] processes = {processes}: {stage.name} ({stage.kind}) trains in one process in this version. Do "
                "the stages above it first (--to NAME), then it with --set parallel.processes=1: nothing becomes stale."
            )


def _discard(folder: Path) -> None:
    """Out of sight in one step, then deleted: a kill between leaves nothing that looks complete."""
    aside = folder.with_name(f".discarded-{folder.name}-{os.getpid()}")
    folder.rename(aside)
    shutil.rmtree(aside)


def _remove_discarded(folder: Path) -> None:
    for aside in folder.glob(".discarded-*"):
        shutil.rmtree(aside)


# --- scores


def score_stage(recipe: Recipe, stage: RecipeStage, diary: "_Diary") -> None:
    """Score the stage's model, and before the first one the base it started from; then rewrite scores.json."""
    problems_stage = next(
        (s for s in reversed(recipe.stages[: stage.number]) if "problems" in KINDS[s.kind].gives), None
    )
    if problems_stage is None:
        return
    problems_folder = recipe.folder / problems_stage.folder_name / "problems"
    problems_hash = read_json(problems_folder.parent / MANIFEST)["outputs"]["problems"]
    outputs = read_json(recipe.folder / stage.folder_name / MANIFEST)["outputs"]
    models = [(stage.name, recipe.folder / stage.folder_name / "model", outputs["model"])]
    if stage == next(s for s in recipe.stages if KINDS[s.kind].trains):
        if "base" in outputs:
            models.insert(0, ("base", recipe.folder / stage.folder_name / "base", outputs["base"]))
        elif recipe.model.path:
            base = Path(recipe.model.path)
            models.insert(0, ("base", base, _hash_if_there(base) or recipe.model.path))
    problems: list[Problem] | None = None
    for name, model, model_hash in models:
        scores = recipe.scores
        if name == "base" and scores.base_samples:
            scores = scores.model_copy(update={"samples": scores.base_samples})
        settings = scores.model_dump(mode="json", exclude={"main", "base_samples"})
        key = {"model": model_hash, "problems": problems_hash, "seed": recipe.run.seed, **settings}
        folder = recipe.folder / "scores" / name
        written = next((read_json(folder / f) for f in (MANIFEST, STARTED) if (folder / f).exists()), {})
        if written.get("key") != key and folder.exists():
            _discard(folder)
        if (folder / MANIFEST).exists():
            continue
        if problems is None:
            problems = [p for p in read_records(Problem, problems_folder) if p.split == "test" and p.benchmark]
            headline(recipe, list(dict.fromkeys(p.benchmark for p in problems)))
        if not problems:
            say(f"   not scored: {problems_stage.name} gives no test problems")
            return
        diary.begin()
        write_json(folder / STARTED, {"key": key})
        _score_model(recipe, scores, name, model, problems, folder, key, diary)
    write_scores(recipe)


def _score_model(
    recipe: Recipe,
    scores: ScoreSettings,
    name: str,
    model: Path,
    problems: list[Problem],
    folder: Path,
    key: Mapping[str, Any],
    diary: "_Diary",
) -> None:
    from whetstone.measure import score_model

    with measured() as used:
        found = score_model(model, problems, scores, recipe.parallel, recipe.run.seed, folder, name, recipe.longest)
    write_json(folder / MANIFEST, {"key": key, "scores": [to_row(s) for s in found], **used, "finished": _now()})
    (folder / STARTED).unlink()
    diary.note(f"scores/{name}", used)
    for score in found:
        say(
            f"   {name} on {score.benchmark}: {100 * score.mean:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}] "
            f"(mean@{score.samples} of {score.problems} problems, {100 * score.truncated:.0f} % truncated)"
        )


def write_scores(recipe: Recipe) -> None:
    """scores.json from what lies below scores/: base first, then by stage number, those of longer recipes included."""
    order = ["base", *(path.name.partition("-")[2] for path in sorted(recipe.folder.glob("[0-9][0-9]-*")))]
    scores: list[dict[str, Any]] = []
    for name in order:
        manifest = recipe.folder / "scores" / name / MANIFEST
        if manifest.exists():
            scores += read_json(manifest)["scores"]
    benchmarks = list(dict.fromkeys(score["benchmark"] for score in scores))
    main = headline(recipe, benchmarks)
    write_json(recipe.folder / SCORES_FILE, {"scores": [s | {"main": s["benchmark"] == main} for s in scores]})


def headline(recipe: Recipe, benchmarks: Sequence[str]) -> str:
    """The main benchmark: the recipe's, or the first there is."""
    main = recipe.scores.main or next(iter(benchmarks), "")
    if benchmarks and main not in benchmarks:
        raise ValueError(
            f"[scores] main = {main!r}: the test problems have no such benchmark, so there would be no headline. "
            f"Use one of {', '.join(benchmarks)}, or leave it out for the first."
        )
    return main


def results(recipe: Recipe) -> list[StageResult]:
    """What stands in the run folder now, in the recipe's order; scoring counts as a line of its own."""
    file = recipe.folder / SCORES_FILE
    main = {s["stage"]: from_row(Score, s) for s in read_json(file)["scores"] if s["main"]} if file.exists() else {}
    rows: list[StageResult] = []
    scoring = dict.fromkeys(("wall_seconds", "cpu_seconds", "peak_memory"), 0)
    for stage in recipe.stages:
        path = recipe.folder / stage.folder_name / MANIFEST
        if not path.exists():
            continue
        manifest = read_json(path)
        names = (["base"] if "base" in manifest["outputs"] else []) + [stage.name]
        for name in names:
            times = recipe.folder / "scores" / name / MANIFEST
            if times.exists():
                used = read_json(times)
                scoring["wall_seconds"] += used["wall_seconds"]
                scoring["cpu_seconds"] += used["cpu_seconds"]
                scoring["peak_memory"] = max(scoring["peak_memory"], used["peak_memory"])
        if "base" in main and names[0] == "base" and not any(row.name == "base" for row in rows):
            rows.append(StageResult("base", "", 0, 0, 0, main["base"]))
        used = (manifest["wall_seconds"], manifest["cpu_seconds"], manifest["peak_memory"])
        rows.append(StageResult(stage.name, stage.kind, *used, main.get(stage.name)))
    if any(scoring.values()):
        rows.append(StageResult("scoring", "", *scoring.values(), None))
    return rows


# --- one run a folder, and what it cost


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One `whetstone run` a folder. The kernel lets go of the lock when the process ends, however it ends."""
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


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Fills wall and CPU seconds (children that have ended included) and this process's peak memory in bytes."""
    used: dict[str, Any] = {}
    _reset_peak_memory()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield used
    used["wall_seconds"] = round(time.perf_counter() - wall, 3)
    used["cpu_seconds"] = round(_cpu_seconds() - cpu, 3)
    used["peak_memory"] = peak_memory()


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak_memory() -> None:
    if sys.platform == "linux":
        # "5" resets the peak to what is held now (proc(5)); where that is forbidden the peak is the process's
        with suppress(OSError), open("/proc/self/clear_refs", "w") as handle:
            handle.write("5")


def peak_memory() -> int:
    """Bytes of the largest resident size: since the last reset on Linux, of the whole process elsewhere."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def threads(recipe: Recipe) -> int:
    """The recipe's number, else the user's OMP_NUM_THREADS, else the cores this process may use."""
    asked = recipe.run.threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    return asked or cores()


def machine_speed() -> float:
    """GFLOP/s of an fp32 512 x 512 matrix product, the best of as many as fit: tells a busy machine from a quiet."""
    import torch

    a = torch.ones(512, 512)
    best, end = float("inf"), time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return round(2 * 512**3 / best / 1e9, 1)


class _Diary:
    """run.json: the resolved recipe and, for each time something was done, what it took and how fast the machine was.

    Nothing is measured or written while there is nothing to do.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.path = recipe.folder / RUN_FILE
        self.entry: dict[str, Any] | None = None

    def __enter__(self) -> "_Diary":
        return self

    def begin(self) -> None:
        if self.entry is not None:
            return
        import torch

        torch.set_num_threads(threads(self.recipe))
        self.entry = {
            "started": _now(),
            "finished": None,
            "threads": torch.get_num_threads(),
            "matmul_gflops": {"before": machine_speed(), "after": None},
            "stages": {},
        }
        self._write()

    def note(self, name: str, used: Mapping[str, Any]) -> None:
        assert self.entry is not None, "noted before begin()"
        self.entry["stages"][name] = dict(used)
        self._write()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.entry is not None:
            self.entry["finished"] = _now()
            self.entry["ended_by"] = "" if kind is None else kind.__name__
            if kind is None:
                self.entry["matmul_gflops"]["after"] = machine_speed()
            with suppress(*[OSError] if kind else []):  # a full disk has been told of, better than here
                self._write()

    def _write(self) -> None:
        history = read_json(self.path)["history"] if self.path.exists() else []
        if history and history[-1]["started"] == self.entry["started"]:
            history.pop()
        write_json(
            self.path,
            {
                "name": self.recipe.run.name,
                "recipe_file": str(self.recipe.path),
                "recipe": self.recipe.resolved(),
                "hardware": hardware(),
                "versions": versions(),
                "history": [*history, self.entry],
            },
        )


def hardware() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        cpu = found[1] if found else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory": memory, "system": platform.platform()}


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"whetstone": whetstone.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_revision() -> str | None:
    """The checkout's commit, `-dirty` where files differ from it; None for an installed package."""
    root = Path(whetstone.__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    told = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def last_speeds(recipe: Recipe) -> tuple[float, float] | None:
    """Machine speed before and after the last time something was done here, in GFLOP/s."""
    path = recipe.folder / RUN_FILE
    if not path.exists():
        return None
    speeds = read_json(path)["history"][-1]["matmul_gflops"]
    return (speeds["before"], speeds["after"]) if speeds["after"] else None
