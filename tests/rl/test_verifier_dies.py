"""Reward workers are killed in the middle of RL: rewards, groups and weights stay those of an undisturbed run, to the bit."""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.rl.test_loop import EVERY, UNTRIED, room
from tests.tiny_world import SUMS, logged, problem
from whetstone.records import to_row
from whetstone.rl import groups, loop
from whetstone.run.folder import hash_folder
from whetstone.run.tables import write_rows
from whetstone.verify import verdict_cache
from whetstone.verify.workers import Worker

NUMBERS = ("reward", "accuracy", "undecided", "rollouts", "kept_groups", "carried_groups", "loss", "gradient_norm")


@pytest.fixture
def hard_prompts(tmp_path, world) -> dict[str, Path]:
    """Sums whose reference only computer algebra can read."""
    rows = [to_row(problem(a, b)) | {"answer": rf"\sum_{{k=1}}^{{1}} {a + b}", "pass_rate": 0.5} for a, b in SUMS]
    write_rows(tmp_path / "prompts", rows)
    return world | {"prompts": tmp_path / "prompts"}


def forks_of(pid: int) -> list[int]:
    """The process that computes for a worker, which itself only watches. None for a moment after the last one was killed."""
    with suppress(FileNotFoundError):
        return [int(fork) for fork in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def end(pid: int) -> None:
    """Killed, whether or not it is reaped already."""
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            pass


def kill_now_and_then(patch: pytest.MonkeyPatch, done: Counter) -> None:
    """Now and then a question meets a worker that is dead, whose fork is, or that is killed while it is asked."""
    plain, rng = Worker.ask, random.Random(0)
    last = "nothing"

    def ask(self, question, seconds):
        nonlocal last
        what = rng.choice(["watcher", "fork", "midway"]) if last == "nothing" and rng.random() < 0.15 else "nothing"
        done[what], last = done[what] + 1, what
        if what == "watcher":
            end(self.process.pid)
        elif what == "fork":
            for fork in forks_of(self.process.pid):
                end(fork)
        elif what == "midway":
            threading.Timer(0.001 * rng.random(), self.signal_end).start()
        return plain(self, question, seconds)

    patch.setattr(Worker, "ask", ask)


def trained(folder: Path, world: dict[str, Path], adder: Path, **settings) -> tuple[dict, list]:
    """The stage's summary, and each step's groups as they were drawn and graded."""
    drawn = []
    plain = groups.sample_step

    def sample_step(*arguments):
        step, temperature = plain(*arguments)
        drawn.append([group.as_row() for group in step])
        return step, temperature

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "sample_step", sample_step)
        patch.setattr(verdict_cache, "MOST_BYTES", 0)  # each rollout is a question of its own
        return loop.run(room(folder, world, adder, **settings)), drawn


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc tells which process computes for a worker")
def test_reward_workers_that_are_killed_change_nothing(tmp_path, hard_prompts, adder):
    settings = UNTRIED | EVERY["dapo"] | {"steps": 3, "optimizer": {"learning_rate": 1e-3}}
    expected = trained(tmp_path / "one" / "r", hard_prompts, adder, **settings)
    done: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        kill_now_and_then(patch, done)
        assert trained(tmp_path / "two" / "r", hard_prompts, adder, **settings) == expected
    assert min(done[what] for what in ("watcher", "fork", "midway")) >= 1, done
    assert expected[0]["updates"] > 0 and sum(logged(tmp_path / "one" / "r", "undecided")) == 0
    for name in NUMBERS:
        assert logged(tmp_path / "two" / "r", name) == logged(tmp_path / "one" / "r", name), name
    assert hash_folder(tmp_path / "two" / "r" / "model") == hash_folder(tmp_path / "one" / "r" / "model")
