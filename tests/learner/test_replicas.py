"""Forked processes give the gradient of one and get its updates; a dead or failing one is an error; all end with the parent."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.tiny_models import random_model
from whetstone.batch import Row
from whetstone.learner import replicas
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.learner.replicas import shares
from whetstone.run.settings import OptimizerSettings, ParallelSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked replicas are for Linux")
V = 50


@pytest.fixture(autouse=True)
def one_thread():
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


def groups(count: int, seed: int = 0) -> list[list[Row]]:
    rng = random.Random(seed)
    rows = [Row([rng.randrange(V) for _ in range(rng.randint(40, 90))], prompt=rng.randint(1, 3)) for _ in range(count)]
    return [[row] for row in token_mean(rows)]


def made_learner(processes: int, dtype=torch.float64, optimizer="adamw") -> Learner:
    parallel = ParallelSettings(device="cpu", forks=processes)
    return Learner(random_model("phi3", V, dtype), V, parallel, OptimizerSettings(name=optimizer))


def trained(
    processes: int, steps: int = 3, dtype=torch.float64, optimizer="adamw"
) -> tuple[list[dict[str, float]], torch.Tensor]:
    learner = made_learner(processes, dtype, optimizer)
    history = []
    for step in range(steps):
        sums = learner.gradient(groups(12, step), next_token_loss)
        history.append(sums | {"norm": learner.step(1e-3)})
    learner.close()
    return history, torch.cat([p.detach().flatten() for p in learner.model.parameters()])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_like_one(processes, optimizer):
    one, alone = trained(1, optimizer=optimizer)
    several, together = trained(processes, optimizer=optimizer)
    for a, b in zip(one, several, strict=True):
        assert b == pytest.approx(a, rel=1e-9)
    assert (alone - together).abs().max() < 1e-8


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_same_steps_give_the_same_bits(optimizer):
    first, second = (trained(2, dtype=torch.float32, optimizer=optimizer)[1] for _ in range(2))
    assert torch.equal(first, second)


def test_shares_are_even_and_complete():
    given = groups(30)
    parts = shares(given, 3)
    sizes = [sum(len(row.ids) for group in part for row in group) for part in parts]
    assert max(sizes) - min(sizes) <= 90
    assert sorted(id(group) for part in parts for group in part) == sorted(map(id, given))


def test_a_small_step_stays_in_one_process():
    assert len(shares(groups(3), 8)) == 1
    assert len(shares(groups(8), 8)) == sum(len(g[0].ids) for g in groups(8)) // replicas.SMALLEST_SHARE
    assert len(shares(groups(1)[:1], 2)) == 1


def test_another_loss_reaches_the_children():
    learner = made_learner(2)

    def doubled(logprobs, entropy, batch):
        loss, sums = next_token_loss(logprobs, entropy, batch)
        return 2 * loss, sums

    once = learner.gradient(groups(12), next_token_loss)["loss"]
    learner.model.zero_grad()
    assert learner.gradient(groups(12), doubled)["loss"] == pytest.approx(2 * once)
    learner.close()


def test_a_dead_process_is_an_error_and_a_new_learner_works():
    learner = made_learner(2)
    learner.gradient(groups(12), next_token_loss)
    ((pid, _, _),) = learner._replicas[1].children
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=rf"training process {pid} died .* nothing was updated"):
        learner.gradient(groups(12), next_token_loss)
    learner.close()
    assert len(trained(2, steps=1)[0]) == 1


def test_a_failure_in_a_process_shows_its_traceback():
    learner = made_learner(2)
    here = os.getpid()

    def failing(logprobs, entropy, batch):
        if os.getpid() != here:
            raise ValueError("no such token")
        return next_token_loss(logprobs, entropy, batch)

    with pytest.raises(RuntimeError, match=r"(?s)a training process failed:.*ValueError: no such token"):
        learner.gradient(groups(12), failing)
    learner.close()


PARENT = """
import os, sys, torch
torch.set_num_threads(1)
from tests.learner.test_replicas import groups, made_learner
from whetstone.learner.next_token import next_token_loss
learner = made_learner(3)
learner.gradient(groups(12), next_token_loss)
print(*(pid for pid, _, _ in learner._replicas[1].children), flush=True)
sys.stdin.readline()
"""


def test_processes_end_when_their_parent_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    until = time.monotonic() + 120
    while any(alive(pid) for pid in children):
        assert time.monotonic() < until, "a training process outlives its parent"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
