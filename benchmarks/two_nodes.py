"""Promise: two nodes train and sample as one process does, and a run goes on after a node died or stood still.

    python -m benchmarks two_nodes --json benchmarks/results/two_nodes.json

A node is one agent of torchrun with its training process; both run on the loopback of this machine and meet by torchrun's own
rendezvous, as `[parallel] launch` starts them (docs/your_cluster.md). The work is recipes/smoke.toml.

whole      all stages by two nodes, and all scores, beside those of one process
one_node   mid-training by two nodes beside two processes on one node: the same bits
resumed    a stage that goes from two nodes to one process and back to two, each killed with `kill -9`, beside an undisturbed
           process: mid-training with DDP and with FSDP2, and RL with an adapter under FSDP2
vanished   a training process, a node, and the node with the rendezvous are killed, a node is stopped, a process is stopped and
           goes on: what is said, after how long, the exit status, and the losses in the end

Other numbers of processes add gradients in another order, and training at smoke.toml's rate (8e-3) makes more of such a
difference from step to step. So all but `whole` train at 2e-4. With --folder, a second call goes on with the cases that are
missing.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks._measure import descendants, hardware, versions, write
from benchmarks.kill_and_resume import copy_above, finish, start
from whetstone.recipe import Recipe, read_recipe
from whetstone.run.folder import MANIFEST, read_json
from whetstone.run.metrics import read_metrics
from whetstone.run.tables import read_rows

RECIPE = Path(__file__).parent.parent / "recipes" / "smoke.toml"
WATCHDOG = 40.0  # seconds; a process that is gone is named after half of them
SETS = ["parallel.device=cpu", "parallel.forks=1", "rl.steps=6", "scores.problems=4", "rl.checkpoint_every=1"]
ADAPTER = ["rl.adapter={rank = 4}"]
GENTLE = ["midtrain.optimizer.learning_rate=2e-4", "midtrain.epochs=12", "midtrain.checkpoint_every=3"]
NODES = """port=$({python} -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
for node in 0 1; do
    {python} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d \\
        --rdzv-endpoint 127.0.0.1:$port --rdzv-id $$ "$@" <&0 &
    echo $! > {folder}/node-$node
done
wait
"""


def nodes(folder: Path, shard: str = "ddp") -> list[str]:
    """Settings with which two nodes train; `folder` gets the launcher, and the agents' process ids."""
    script = folder / "two_nodes.sh"
    script.write_text(NODES.format(python=sys.executable, folder=folder))
    launch = f'parallel.launch=["bash", "{script}"]'
    return ["parallel.processes=2", f'parallel.shard="{shard}"', launch]


def words(sets: Sequence[str], *more: str) -> list[str]:
    return [word for value in [*SETS, *sets] for word in ("--set", value)] + list(more)


@dataclass
class Disturbed:
    """A stage of a run whose processes are killed and stopped, and which is started again each time."""

    folder: Path  # of the run's folder
    stage: Path
    to: str  # name of the stage
    sets: Sequence[str] = ()
    events: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, how: Sequence[str], *more: str) -> None:
        sets = [*self.sets, *how, f"run.watchdog={WATCHDOG}", *more]
        self.seen = len(self.log())
        self.run = start(RECIPE, self.folder, *words(sets, "--to", self.to))

    def log(self) -> str:
        path = self.folder / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, step: int) -> None:
        """Until this start has done a step, at least the given one. Raises RuntimeError if the run ends before."""
        self.until(lambda: "goes on after" in self.log()[self.seen :] or not step or not self.events, "its start")
        self.until(lambda: len(read_metrics(self.stage)) >= step, f"step {step}")

    def until(self, reached: Callable[[], bool], what: str) -> None:
        while not reached():
            if self.run.poll() is not None:
                raise RuntimeError(f"the run ended with {self.run.returncode} before {what}:\n{self.log()[-3000:]}")
            time.sleep(0.02)

    def node(self, number: int) -> list[int]:
        """The agent, and all that it has started."""
        agent = int((self.folder / f"node-{number}").read_text())
        return [agent, *descendants(agent)]

    def send(self, pids: Sequence[int], number: int) -> None:
        for pid in pids:
            os.kill(pid, number)

    def event(self, what: str, act: Callable[[], None], named: str = "") -> None:
        """Do it, and wait until it is named, or else until the run has ended. What was said and how long it took is kept."""
        steps, began, before = len(read_metrics(self.stage)), time.monotonic(), len(self.log())
        act()
        while named not in self.log()[before:] if named else self.run.poll() is None:
            time.sleep(0.05)
        seconds = time.monotonic() - began
        said = [line for line in self.log()[before:].splitlines() if "process" in line and " of 2 " in line]
        told = {"event": what, "after_step": steps, "seconds": round(seconds, 1), "status": self.run.poll()}
        self.events.append(told | {"said": said[-1] if said else ""})
        print(f"{what}: {self.events[-1]}", flush=True)

    def end(self) -> None:
        """Until the stage is complete. Its scores are not waited for."""
        self.until((self.stage / "manifest.json").exists, "its end")
        left = [pid for number in (0, 1) if (self.folder / f"node-{number}").exists() for pid in self.node(number)]
        self.run.kill()
        self.run.wait()
        while any(map(alive, left)):
            time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def disturbed(whole: Recipe, name: str, work: Path, sets: Sequence[str] = ()) -> Disturbed:
    """A stage that begins with what a finished run has above it."""
    recipe = read_recipe(RECIPE, [*SETS, *sets, f"run.folder={work}"])
    stage = recipe.stage(name)
    copy_above(whole, stage, recipe.folder)
    return Disturbed(work, recipe.folder / stage.folder_name, name, sets)


def losses_beside(one: Path, other: Path) -> dict[str, Any]:
    """The largest differences over all steps, and over all weights."""
    pairs = list(zip(losses(one), losses(other), strict=True))
    weights, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    norms = zip(losses(one, "gradient_norm"), losses(other, "gradient_norm"), strict=True)
    return {
        "steps": len(pairs),
        "largest_loss_gap": max(abs(a - b) for a, b in pairs),
        "largest_loss": max(abs(a) for a, _ in pairs),
        "losses_equal_to_the_bit": sum(a == b for a, b in pairs),
        "largest_gap_of_a_gradient_norm": max(abs(a - b) / a for a, b in norms),
        "largest_weight_gap": max(float((weights[name] - theirs[name]).abs().max()) for name in weights),
    }


def losses(stage: Path, name: str = "loss") -> list[float]:
    return [float(row[name]) for row in read_metrics(stage)]


def answers_beside(one: Path, other: Path) -> dict[str, dict[str, int]]:
    """Model -> how many answers two runs have, and how many are the same text for the same sample. The base is one model, the
    others differ by rounding.
    """
    return {name: _same(answers_of(one, name), answers_of(other, name)) for name in sorted(os.listdir(one / "scores"))}


def _same(ours: dict[tuple[str, int], str], theirs: dict[tuple[str, int], str]) -> dict[str, int]:
    return {"answers": len(ours), "also": len(theirs), "equal": sum(theirs.get(key) == ours[key] for key in ours)}


def answers_of(run: Path, model: str) -> dict[tuple[str, int], str]:
    rows = [row for table in sorted((run / "scores" / model).glob("*/")) for row in read_rows(table)]
    found = {(row["problem_id"], row["index"]): row["text"] for row in rows}
    assert len(found) == len(rows), "an answer is kept twice"
    return found


def by_two_nodes(whole: Recipe, work: Path) -> dict[str, Any]:
    work.mkdir(exist_ok=True)
    finish(RECIPE, work, *words(nodes(work), "--to", "rl"))
    run = work / whole.run.name
    stages = [stage for stage in whole.stages if stage.room.trains]
    compared = {s.name: losses_beside(whole.folder / s.folder_name, run / s.folder_name) for s in stages}
    return {"stages": compared, "scores": answers_beside(whole.folder, run)}


def one_node(whole: Recipe, name: str, work: Path, sets: Sequence[str]) -> dict[str, Any]:
    (work / "two").mkdir(parents=True)
    stages = []
    for folder, how in ((work / "one", ["parallel.processes=2"]), (work / "two", nodes(work / "two"))):
        run = disturbed(whole, name, folder, sets)
        run.begin(how)
        run.end()
        stages.append(run.stage)
    return {"stage": name, "sets": list(sets)} | losses_beside(*stages)


def resumed(
    whole: Recipe, name: str, shard: str, steps: tuple[int, int], work: Path, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """2 -> 1 -> 2."""
    work.mkdir()
    again = disturbed(whole, name, work, sets)
    two, one = nodes(work, shard), ["parallel.processes=1"]
    again.begin(two)
    again.wait_for(steps[0])
    again.event("node 1 is killed", lambda: again.send(again.node(1), signal.SIGKILL))
    again.begin(one)
    again.wait_for(steps[1])
    again.event("the one process is killed", again.run.kill)
    again.begin(two)
    again.end()
    return {"stage": name, "shard": shard, "sets": list(sets), "events": again.events} | losses_beside(
        whole.folder / again.stage.name, again.stage
    )


def vanished(whole: Recipe, name: str, every: int, work: Path, sets: Sequence[str]) -> dict[str, Any]:
    work.mkdir()
    again = disturbed(whole, name, work, sets)
    two, ends = nodes(work), 'run.on_hang="end"'

    def killed(what: str, at: int, pids: Callable[[], list[int]]) -> None:
        again.begin(two)
        again.wait_for(at)
        again.event(what, lambda: again.send(pids(), signal.SIGKILL))

    killed("the training process of node 1 is killed", every, lambda: again.node(1)[1:2])
    killed("node 1 is killed", 2 * every, lambda: again.node(1))
    killed("node 0, with the rendezvous, is killed", 3 * every, lambda: again.node(0))
    again.begin(two, ends)
    again.wait_for(4 * every)
    stopped = again.node(1)
    again.event('node 1 is stopped, on_hang = "end"', lambda: again.send(stopped, signal.SIGSTOP))
    left = list(filter(alive, stopped))
    again.send(left, signal.SIGCONT)
    again.events[-1]["stopped_processes_left"] = len(left)
    again.begin(two)
    again.wait_for(5 * every)
    stopped = again.node(1)[1:2]
    again.event(
        'the training process of node 1 is stopped, on_hang = "say"',
        lambda: again.send(stopped, signal.SIGSTOP),
        named="no sign of life",
    )
    again.send(stopped, signal.SIGCONT)
    again.end()
    return {"stage": name, "events": again.events} | losses_beside(whole.folder / again.stage.name, again.stage)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--folder", type=Path, help="where the runs are kept; default: a temporary folder")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        result = measured(chosen.folder or Path(temporary), chosen.json)
    for name, case in result["cases"].items():
        print(name, {key: case.get(key) for key in ("steps", "largest_loss_gap", "losses_equal_to_the_bit", "scores")})


def measured(folder: Path, file: Path | None) -> dict[str, Any]:
    one, adapted, gentle = (
        undisturbed(folder / name, sets, to)
        for name, sets, to in (("one", [], "rl"), ("adapted", ADAPTER, "rl"), ("gentle", GENTLE, "midtrain"))
    )
    cases: dict[str, Callable[[Path], dict[str, Any]]] = {
        "whole": lambda work: by_two_nodes(one, work),
        "one_node": lambda work: one_node(gentle, "midtrain", work, GENTLE),
        "resumed_ddp": lambda work: resumed(gentle, "midtrain", "ddp", (8, 20), work, GENTLE),
        "vanished": lambda work: vanished(gentle, "midtrain", 5, work, GENTLE),
        "resumed_fsdp": lambda work: resumed(gentle, "midtrain", "fsdp", (8, 20), work, GENTLE),
        "resumed_rl_adapter_fsdp": lambda work: resumed(adapted, "rl", "fsdp", (2, 4), work, ADAPTER),
    }
    result = {
        "name": "two_nodes",
        "date": date.today().isoformat(),
        "versions": versions(["whetstone", "torch", "transformers"]),
        "hardware": hardware(),
        "watchdog_seconds": WATCHDOG,
        "cases": {},
    }
    for name, case in cases.items():
        done = folder / f"{name}.json"
        if not done.exists():
            write(case(folder / name), done)
        result["cases"][name] = read_json(done)
        write(result, file)
    return result


def undisturbed(folder: Path, sets: Sequence[str], to: str) -> Recipe:
    """The run of one process."""
    recipe = read_recipe(RECIPE, [*SETS, *sets, f"run.folder={folder}"])
    if not (recipe.folder / recipe.stage(to).folder_name / MANIFEST).exists():
        finish(RECIPE, folder, *words(sets, "--to", to))
    return recipe


if __name__ == "__main__":
    main()
