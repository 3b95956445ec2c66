"""Promise: a run killed with `kill -9` at any moment and started again ends with the same bits as an undisturbed one.

    python -m benchmarks.kill_and_resume --recipe recipes/smoke.toml --kills 10
    python -m benchmarks.kill_and_resume --recipe recipes/tiny.toml --once-in-each-stage
    python -m benchmarks.kill_and_resume --recipe recipes/smoke.toml --at-random-steps midtrain --at-random-steps sft --kills 20
    python -m benchmarks.kill_and_resume --recipe recipes/smoke_rl.toml --at-random-steps grpo --at-random-steps dapo --kills 10

The first makes one undisturbed run and then ten more, each killed once at a random moment, started again, and compared:
scores.json and every artifact that a stage left (models, pairs, prompts, …; not the report, which has times). The second
takes a finished run and, for each training stage, copies what came before it, kills the stage in the middle of its steps,
starts it again and compares what it made. The third makes the run up to those stages once, and then each of them `kills`
times more, each time killed at a moment drawn from a step drawn at random or from what comes before the first, in processes
that are forked from one that has loaded what they need: it compares what they made, the numbers of all steps (those that tell
of speed aside), and the last checkpoint, which has the optimizer's moments and the stage's state. Exit status 1 if a bit
differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import whetstone
from benchmarks._measure import hardware, write
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import Recipe, read_recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.run.folder import hash_file, hash_folder, read_json
from whetstone.run.metrics import read_metrics
from whetstone.run.processes import fork

POLL = 0.02  # seconds between looks at a child
SPEED = ("tokens_per_second", "tokens_per_cpu_second", "mfu", "padding", "memory", "seconds_left")  # since a start
PATIENCE = 10.0  # seconds; on a busy machine a process may wait that long for its turn to end


def start(recipe: Path, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """`whetstone run RECIPE` in `folder`, as a process in a session of its own; its output goes to folder/log.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "whetstone.cli", "run", str(recipe), "--set", f"run.folder={folder}", *words]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finish(recipe: Path, folder: Path, *words: str) -> float:
    """Run to the end; returns wall seconds. Raises RuntimeError with the end of its output if it fails."""
    began = time.perf_counter()
    child = start(recipe, folder, *words)
    with not_left_behind(child):
        child.wait()
    if child.returncode:
        said = (folder / "log.txt").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"whetstone run {recipe} ended with status {child.returncode}:\n{said}")
    return time.perf_counter() - began


def kill_when(child: "subprocess.Popen[bytes] | Forked", moment: Callable[[], bool]) -> bool:
    """Wait for the moment, then `kill -9` the process alone. False if it ended before.

    Its grading and training processes must end by themselves; those that have not after PATIENCE are an error.
    """
    with not_left_behind(child):
        while child.poll() is None and not moment():
            time.sleep(POLL)
    if child.poll() is not None:
        return False
    child.kill()
    child.wait()
    patience = time.perf_counter() + PATIENCE
    while left := session(child.pid):
        if time.perf_counter() > patience:
            os.killpg(child.pid, signal.SIGKILL)
            raise RuntimeError(f"{len(left)} processes outlived the killed run: {left}")
        time.sleep(POLL)
    return True


@contextmanager
def not_left_behind(child: "subprocess.Popen[bytes] | Forked") -> Iterator[None]:
    """An interrupt of the measurement interrupts the run too."""
    try:
        yield
    except BaseException:
        child.kill()
        raise


def session(leader: int) -> list[int]:
    """Living processes of a session, by /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (process / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(sid) == leader and state != "Z":
            found.append(int(process.name))
    return found


class Forked:
    """`whetstone run --to STAGE` in a fork of this process, which has loaded all modules. Has Popen's methods."""

    def __init__(self, recipe: Recipe, stage: str):
        log = recipe.run.folder / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)

        def work() -> None:
            os.setsid()
            with log.open("ab") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            run_recipe(recipe, last=stage)

        self.status: int | None = None
        self.pid = fork("run", work)

    def poll(self) -> int | None:
        return self.wait(os.WNOHANG)

    def wait(self, how: int = 0) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, how)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def bits(run: Path) -> dict[str, str]:
    """Hashes of all files of a run's stages, without the report, which has times."""
    found = {"scores.json": hash_file(run / "scores.json")}
    for path in sorted(run.glob("[0-9]*-*/manifest.json")):
        for artifact in read_json(path)["outputs"]:
            if artifact != "report":
                found[f"{path.parent.name}/{artifact}"] = hash_folder(path.parent / artifact)
    return found


def where(run: Path) -> str:
    """What the last process was doing: the unfinished stage with its steps, or the scores."""
    for path in sorted([*run.glob("[0-9]*-*/started.json"), *run.glob("scores/*/started.json")]):
        steps = len(read_metrics(path.parent))
        return f"{path.parent.relative_to(run)}{f', step {steps}' if steps else ''}"
    return "between stages" if any(run.glob("[0-9]*-*")) else "start-up"


def code() -> str:
    """Hash of the package's sources: only runs of the same code can be compared."""
    texts = sorted(Path(whetstone.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()


@dataclass(frozen=True)
class Trial:
    """One killed and resumed run against the undisturbed one."""

    killed_at: str
    compared: int
    different: list[str]


def compare(expected: dict[str, str], found: dict[str, str], killed_at: str) -> Trial:
    names = list(dict.fromkeys([*expected, *found]))
    return Trial(killed_at, len(names), [name for name in names if expected.get(name) != found.get(name)])


def random_kills(recipe: Path, kills: int, seed: int, work: Path, sets: Sequence[str]) -> list[Trial]:
    """One undisturbed run, then `kills` runs each killed once at a moment drawn evenly from its duration."""
    words = [word for value in sets for word in ("--set", value)]
    name = read_recipe(recipe, sets).run.name
    before = code()
    wall = finish(recipe, work / "undisturbed", *words)
    expected = bits(work / "undisturbed" / name)
    print(f"undisturbed: {wall:.1f} s, {len(expected)} things to compare", flush=True)
    rng = random.Random(seed)
    trials: list[Trial] = []
    while len(trials) < kills:
        folder = work / f"killed-{len(trials) + 1}"
        seconds = rng.uniform(0, wall)
        if not kill_when(start(recipe, folder, *words), after(seconds)):
            shutil.rmtree(folder)  # it ended sooner than the undisturbed run: no kill, so it does not count
            continue
        place = f"{seconds:.1f} s: {where(folder / name)}"
        finish(recipe, folder, *words)
        if code() != before:
            raise RuntimeError(
                "whetstone's sources changed while its runs were compared: measure in a checkout at rest."
            )
        trials.append(compare(expected, bits(folder / name), place))
        print(row(len(trials), trials[-1]), flush=True)
        shutil.rmtree(folder)
    return trials


def once_in_each_stage(recipe: Recipe, work: Path, sets: Sequence[str]) -> list[Trial]:
    """Each training stage of a finished run once more, killed half-way through its steps."""
    words = [word for value in sets for word in ("--set", value)]
    trials = []
    for stage in recipe.stages:
        if not stage.room.trains:
            continue
        undisturbed = recipe.folder / stage.folder_name
        if not (undisturbed / "manifest.json").exists():
            raise ValueError(
                f"{undisturbed}/manifest.json is missing: the run to compare with is not finished. Run whetstone run "
                f"{recipe.path} first."
            )
        half = max(1, len(read_metrics(undisturbed)) // 2)
        run = work / stage.name / recipe.run.name
        copy_above(recipe, stage, run)
        folder = run / stage.folder_name
        words_here = (*words, "--to", stage.name)
        child = start(recipe.path, run.parent, *words_here)
        killed = kill_when(child, lambda folder=folder, half=half: len(read_metrics(folder)) >= half)
        if not killed or (folder / "manifest.json").exists():
            raise RuntimeError(f"{stage.name} ended before it could be killed:\n{(run.parent / 'log.txt').read_text()}")
        place = where(run)
        child = start(recipe.path, run.parent, *words_here)
        kill_when(child, (folder / "manifest.json").exists)  # stops before its scores, which are not compared here
        if not (folder / "manifest.json").exists():
            raise RuntimeError(f"{stage.name} could not be resumed:\n{(run.parent / 'log.txt').read_text()[-2000:]}")
        made = {a: hash_folder(folder / a) for a in read_json(folder / "manifest.json")["outputs"]}
        expected = {a: hash_folder(undisturbed / a) for a in read_json(undisturbed / "manifest.json")["outputs"]}
        trials.append(compare(expected, made, place))
        print(row(len(trials), trials[-1]), flush=True)
        shutil.rmtree(run.parent)
    return trials


def copy_above(recipe: Recipe, stage: RecipeStage, run: Path) -> None:
    """Copies what a stage of a finished run began with into another run's folder."""
    for above in recipe.above(stage):
        shutil.copytree(recipe.folder / above.folder_name, run / above.folder_name)
        if (recipe.folder / "scores" / above.name).exists():
            shutil.copytree(recipe.folder / "scores" / above.name, run / "scores" / above.name)
    if run.joinpath("scores").exists():
        shutil.copytree(recipe.folder / "scores" / "base", run / "scores" / "base", dirs_exist_ok=True)


def at_random_steps(
    path: Path, names: Sequence[str], kills: int, seed: int, work: Path, sets: Sequence[str]
) -> list[Trial]:
    """Each of those stages `kills` times, killed in or soon after a step drawn evenly from all but the last."""
    from transformers import Phi3ForCausalLM  # noqa: F401 (loaded once, for all forks)

    from whetstone import chat, model  # noqa: F401
    from whetstone.learner import steps  # noqa: F401

    whole = read_recipe(path, [*sets, f"run.folder={work / 'undisturbed'}"])
    if status := Forked(whole, max(names, key=lambda name: whole.stages.index(whole.stage(name)))).wait():
        raise RuntimeError(f"the undisturbed run ended with status {status}:\n{log_of(whole)}")
    rng = random.Random(seed)
    trials: list[Trial] = []
    for stage in map(whole.stage, names):
        undisturbed = whole.folder / stage.folder_name
        expected, total = left_by(undisturbed), len(read_metrics(undisturbed))
        a_step = read_json(undisturbed / "manifest.json")["wall_seconds"] / (total + 1)
        print(f"{stage.name}: {total} steps, {len(expected)} things to compare", flush=True)
        wanted = len(trials) + kills
        while len(trials) < wanted:
            recipe = read_recipe(path, [*sets, f"run.folder={work / 'killed'}"])
            folder = recipe.folder / stage.folder_name
            at, seconds = rng.randrange(total), rng.uniform(0, a_step)
            copy_above(whole, stage, recipe.folder)
            reached = seen_so_far(folder, at)
            if (
                not kill_when(Forked(recipe, stage.name), later(reached, seconds))
                or (folder / "manifest.json").exists()
            ):
                shutil.rmtree(
                    recipe.run.folder
                )  # it ended sooner than the undisturbed run: no kill, so it does not count
                continue
            place = where(recipe.folder)
            kill_when(Forked(recipe, stage.name), (folder / "manifest.json").exists)  # stops before its scores
            if not (folder / "manifest.json").exists():
                raise RuntimeError(f"{stage.name} could not be resumed:\n{log_of(recipe)}")
            trials.append(compare(expected, left_by(folder), place))
            print(row(len(trials), trials[-1]), flush=True)
            shutil.rmtree(recipe.run.folder)
    return trials


def seen_so_far(folder: Path, steps: int) -> Callable[[], bool]:
    """Whether a stage has begun, and has done so many steps."""
    return lambda: (folder / "started.json").exists() and len(read_metrics(folder)) >= steps


def later(reached: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """A number of seconds after something is reached."""
    since: list[float] = []

    def moment() -> bool:
        if not since and reached():
            since.append(time.perf_counter())
        return bool(since) and time.perf_counter() >= since[0] + seconds

    return moment


def left_by(folder: Path) -> dict[str, str]:
    """Hashes of a stage's artifacts, of the numbers of all its steps, and of its last checkpoint."""
    lines = [{name: line[name] for name in line if name not in SPEED} for line in read_metrics(folder)]
    made = {name: hash_folder(folder / name) for name in read_json(folder / "manifest.json")["outputs"]}
    last = max((folder / "checkpoints").glob("step-*"))
    return made | {
        "numbers": hashlib.sha256(json.dumps(lines).encode()).hexdigest(),
        f"checkpoint {last.name}": hash_folder(last),
    }


def log_of(recipe: Recipe) -> str:
    return (recipe.run.folder / "log.txt").read_text(errors="replace")[-2000:]


def row(number: int, trial: Trial) -> str:
    verdict = f"equal ({trial.compared})" if not trial.different else f"DIFFERENT: {', '.join(trial.different)}"
    return f"{number:>3}  {trial.killed_at:<40} {verdict}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/smoke.toml"))
    parser.add_argument("--kills", type=int, default=10, help="runs, each killed once (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--once-in-each-stage", action="store_true", help="of a finished run, in the middle of the steps"
    )
    parser.add_argument(
        "--at-random-steps", action="append", metavar="STAGE", help="of this training stage, kills times. Repeatable"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="as for whetstone run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the trials here")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as aside:
        if chosen.at_random_steps:
            work = Path(aside)
            trials = at_random_steps(chosen.recipe, chosen.at_random_steps, chosen.kills, chosen.seed, work, chosen.set)
        elif chosen.once_in_each_stage:
            recipe = read_recipe(chosen.recipe, chosen.set)
            sets = [value for value in chosen.set if not value.startswith("run.folder=")]
            trials = once_in_each_stage(recipe, Path(aside), sets)
        else:
            trials = random_kills(chosen.recipe, chosen.kills, chosen.seed, Path(aside), chosen.set)
    if chosen.json:
        known = {"recipe": str(chosen.recipe), "set": chosen.set, "seed": chosen.seed, "date": date.today().isoformat()}
        told = {"equal": sum(not trial.different for trial in trials), "of": len(trials)} | known
        write(told | {"hardware": hardware(), "trials": [vars(trial) for trial in trials]}, chosen.json)
    equal = sum(not trial.different for trial in trials)
    print(f"{equal} of {len(trials)} killed runs of {chosen.recipe} end with the bits of an undisturbed one")
    sys.exit(equal != len(trials))


if __name__ == "__main__":
    main()
