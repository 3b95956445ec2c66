"""Promise: no rollout of a vLLM server is lost or doubled when servers or the trainer are killed, or a server stands still.

    python -m benchmarks rollout_server_faults --model runs/tiny/05-sft/model --command .venv-vllm/bin/vllm serve \
        --json benchmarks/results/rollout_server_faults.json

One run of RL, a step off policy, by real vLLM servers that it launches. After given steps a server is killed, another one is
stopped for longer than `[sampler] timeout` (and goes on later), and at last the trainer is killed, with all of its servers, and
the same command is given again. Counted: the rollouts of each step by (problem, index); those that had arrived before the kill
and are in the table at the end with the same text. `--adapter` trains one, which the servers load beside their weights.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from benchmarks.rollout_servers import RECIPE
from whetstone.run.tables import read_rows

STEPS, PROMPTS, SAMPLES = 8, 4, 8
TIMEOUT = 30.0  # seconds without a byte until a server is lost


class Trainer:
    """`whetstone run`, its steps and its servers' processes."""

    def __init__(self, recipe: Path, stage: Path):
        self.stage, self.log = stage, recipe.with_suffix(".log")
        with self.log.open("ab") as out:
            command = [sys.executable, "-c", "from whetstone.cli import main; main()", "run", str(recipe)]
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def wait_for(self, step: int) -> None:
        """Until so many steps are logged. Raises RuntimeError if the run ends before."""
        metrics = self.stage / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < step:
            if self.process.poll() is not None:
                raise RuntimeError(f"the run has ended with status {self.process.returncode}: {self.log}")
            time.sleep(0.2)

    def wait_for_sampling(self) -> None:
        """Until a step's rollouts have begun to arrive."""
        before = len(arrived(self.stage))
        ends = time.monotonic() + TIMEOUT
        while len(arrived(self.stage)) <= before and time.monotonic() < ends and self.process.poll() is None:
            time.sleep(0.02)

    def servers(self) -> list[int]:
        """The process ids of its API servers, in the order of their ports' numbers in the log."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if str(self.stage / "published" / "start") in words and "--port" in words:
                found[words[words.index("--port") + 1]] = int(process.name)
        ports = [line.split("--port ")[1].split()[0] for line in self.log.read_text().splitlines() if "--port " in line]
        return [found[port] for port in dict.fromkeys(ports) if port in found]


def arrived(stage: Path) -> dict[tuple[int, str, int], str]:
    """(step, problem, index) -> text of what is kept in the journals."""
    rows = {}
    for path in sorted((stage / "sampled").glob("step-*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                rows[int(path.stem.removeprefix("step-")) + 1, row["problem_id"], row["index"]] = row["text"]
    return rows


def disturbed(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    table = {"launch": 2, "command": chosen.command, "options": chosen.options, "timeout": TIMEOUT}
    sampler = "[sampler]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    if chosen.adapter:
        sampler += "\nadapter = true\n[adapter]\nrank = 8"
    recipe, stage = folder / "faults.toml", folder / "faults" / "02-rl"
    values = {"name": "faults", "folder": folder, "seed": 0, "model": Path(chosen.model).resolve()}
    text = RECIPE.format(**values, steps=STEPS, prompts=PROMPTS, staleness=1, sampler=sampler)
    recipe.write_text(text.replace("stabilisers = []", "stabilisers = []\ncheckpoint_every = 100"))
    events = []
    trainer = Trainer(recipe, stage)
    trainer.wait_for(2)
    trainer.wait_for_sampling()
    os.kill(trainer.servers()[0], signal.SIGKILL)
    events.append("after step 2, the first server is killed")
    trainer.wait_for(3)
    trainer.wait_for_sampling()
    stopped = trainer.servers()[-1]
    os.kill(stopped, signal.SIGSTOP)
    events.append("after step 3, the second server is stopped")
    trainer.wait_for(5)
    os.kill(stopped, signal.SIGCONT)
    events.append("after step 5, it goes on")
    trainer.wait_for(6)
    trainer.wait_for_sampling()
    trainer.process.kill()
    trainer.process.wait()
    before = arrived(stage)
    events.append("after step 6, the trainer is killed, and run again; there is no checkpoint")
    again = Trainer(recipe, stage)
    status = again.process.wait()
    rows = list(read_rows(stage / "rollouts"))
    counts = Counter((row["step"], row["problem_id"], row["index"]) for row in rows)
    after = {(row["step"], row["problem_id"], row["index"]): row["text"] for row in rows}
    metrics = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    log = trainer.log.read_text()
    return {
        "events": events,
        "status": status,
        "rollouts": len(rows),
        "expected": STEPS * PROMPTS * SAMPLES,
        "doubled": sum(count > 1 for count in counts.values()),
        "arrived_before_the_kill": len(before),
        "of_these_lost": sum(after.get(key) != text for key, text in before.items()),
        "times_that_a_server_was_lost": {
            "in sampling": log.count("is lost:"),
            "with new weights": log.count("is left out until"),
        },
        "times_that_a_server_was_started_again": log.count("is started again"),
        "staleness": [row["staleness"] for row in metrics],
        "sampler_gap": max(row["sampler_gap"] for row in metrics if "sampler_gap" in row),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a fine-tuned model of recipes/tiny.toml")
    parser.add_argument("--command", nargs="+", default=["vllm", "serve"], help="what starts a server")
    parser.add_argument("--options", nargs="*", default=["--enforce-eager", "--max-model-len=512"])
    parser.add_argument("--adapter", action="store_true", help="train an adapter, and load it as one")
    parser.add_argument("--folder", type=Path, help="where the run is kept; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="whetstone-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "name": "rollout_server_faults",
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(["torch", "transformers"]),
        "settings": {
            "steps": STEPS,
            "prompts": PROMPTS,
            "samples": SAMPLES,
            "timeout": TIMEOUT,
            "adapter": chosen.adapter,
        },
        **disturbed(chosen, folder),
    }
    print(json.dumps(result, indent=1))
    write(result, chosen.json)


if __name__ == "__main__":
    main()
