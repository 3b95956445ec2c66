"""The code around every training loop: stopping, going back, the best checkpoint, the progress line."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.scripted import stage
from tests.tiny_models import random_model
from tests.tiny_world import logged
from whetstone.batch import Row, collate
from whetstone.learner import checkpoint, flops
from whetstone.learner.accelerators import known
from whetstone.learner.flops import Flops
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.learner.steps import Steps
from whetstone.run.folder import Stage
from whetstone.run.metrics import read_metrics
from whetstone.run.processes import Terminated
from whetstone.run.settings import ParallelSettings, SpikeSettings, TrainingSettings

V, TOTAL, EVERY = 50, 14, 4
ONE = ParallelSettings(device="cpu", forks=1)
WARN = SpikeSettings()
GO_BACK = SpikeSettings(not_finite="go_back", spike="go_back", window=8)


def rows(step: int) -> list[Row]:
    return token_mean([Row([(7 * step + i * n) % V for n in range(12)], prompt=4) for i in range(1, 4)])


def training(folder: Path, every: int, spikes: SpikeSettings = WARN) -> Stage:
    return stage(folder, TrainingSettings(kind="walk", checkpoint_every=every, spikes=spikes))


def walk(folder: Path, spikes: SpikeSettings = WARN, bumps=None, at=None) -> tuple[dict, torch.Tensor]:
    """Run a stage of TOTAL steps: its state and weights. `bumps` are added to losses; `at(step, steps)` is called in each."""
    learner = Learner(random_model("phi3", V), V, ONE)
    with Steps(training(folder, EVERY, spikes), learner, TOTAL) as steps:
        for step in steps:
            data = rows(step)
            sums = learner.gradient([[row] for row in data], next_token_loss)
            loss = sums["loss"] + (bumps or {}).get(step, 0.0)
            norm = steps.update(step, loss, 1e-3)
            if norm is None:
                continue
            steps.state["seen"] = [*steps.state.get("seen", []), step]
            if at:
                at(step, steps)
            steps.log(step, sum(len(row.ids) for row in data), loss=loss, gradient_norm=norm)
    return steps.state, torch.cat([p.detach().flatten() for p in learner.model.parameters()])


# --- losses that blow up


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_a_remedy(tmp_path, loss):
    with pytest.raises(
        FloatingPointError, match=r"walk: step 7: the loss is (nan|inf); nothing was updated. Lower the"
    ):
        walk(tmp_path / "walk", bumps={6: loss})
    assert logged(tmp_path / "walk", "step") == [1, 2, 3, 4, 5, 6]
    assert checkpoint.steps(tmp_path / "walk" / "checkpoints") == [4]


def test_a_gradient_that_is_not_finite_stops_too(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match="walk: step 1: the gradient's norm is inf; nothing was updated"):
        walk(tmp_path / "walk")


def test_by_default_a_jump_is_reported_and_changes_nothing(tmp_path, capsys):
    _, plain = walk(tmp_path / "plain" / "walk")
    _, jumped = walk(tmp_path / "jumped" / "walk", bumps={11: 50.0})
    assert torch.equal(plain, jumped)
    assert "walk: step 12: the loss jumped to 5" in capsys.readouterr().err


def test_a_jump_stops_where_the_recipe_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss jumped to 5.* the highest usual after the last 8 steps"):
        walk(tmp_path / "walk", SpikeSettings(spike="stop", window=8), bumps={11: 50.0})


def test_going_back_leaves_the_step_out_and_counts_it(tmp_path, capsys):
    state, weights = walk(tmp_path / "walk", GO_BACK, bumps={6: float("nan"), 11: 50.0})
    expected = [step for step in range(TOTAL) if step not in (6, 11)]
    assert state["seen"] == expected and state["left_out"] == [6, 11]
    lines = read_metrics(tmp_path / "walk")
    assert [line["step"] for line in lines] == list(range(1, TOTAL + 1)), "each step has one line"
    assert [(line["step"], line["left_out"]) for line in lines if "left_out" in line] == [(7, 1), (12, 2)]
    said = capsys.readouterr().err
    assert "step 7: the loss is nan; back to step 4, and without that step from there" in said
    assert "step 12: the loss jumped to 5" in said and "back to step 8" in said

    learner = Learner(random_model("phi3", V), V, ONE)
    for step in expected:  # never disturbed, and never given those two steps
        learner.gradient([[row] for row in rows(step)], next_token_loss)
        learner.step(1e-3)
    learner.close()
    assert torch.equal(weights, torch.cat([p.detach().flatten() for p in learner.model.parameters()]))


@pytest.mark.parametrize("last", [3, 7, 10])
def test_a_kill_after_going_back_changes_nothing(tmp_path, last):
    bumps = {2: float("inf"), 6: float("nan"), 11: 50.0}
    undisturbed_state, undisturbed = walk(tmp_path / "one" / "walk", GO_BACK, bumps)

    def kill(step: int, steps: Steps) -> None:
        if step == last and len(steps.state.get("left_out", ())) == (1 if last < 6 else 2):
            raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        walk(tmp_path / "two" / "walk", GO_BACK, bumps, kill)
    state, weights = walk(tmp_path / "two" / "walk", GO_BACK, bumps)
    assert state == undisturbed_state and torch.equal(weights, undisturbed)
    assert logged(tmp_path / "two" / "walk", "loss") == logged(tmp_path / "one" / "walk", "loss")


def test_it_goes_back_at_most_as_often_as_allowed(tmp_path):
    bumps = dict.fromkeys(range(5, 9), float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"step 9: the loss is nan; it went back 3 times already \(steps left out: 6, 7, 8\)"
    ):
        walk(tmp_path / "walk", GO_BACK, bumps)


def test_a_room_may_go_back_for_its_own_reasons(tmp_path):
    done = []

    def collapse(step: int, steps: Steps) -> None:
        if step == 9 and not done:
            done.append(step)
            steps.go_back(step, "the entropy collapsed")

    state, _ = walk(tmp_path / "walk", at=collapse)  # it notes and logs the step nonetheless: that is undone
    assert state["left_out"] == [9] and state["seen"] == [step for step in range(TOTAL) if step != 9]
    assert logged(tmp_path / "walk", "step") == list(range(1, TOTAL + 1))


def test_without_a_checkpoint_it_cannot_go_back(tmp_path):
    with pytest.raises(FloatingPointError, match="has no checkpoint to go back to"):
        walk(tmp_path / "walk", at=lambda step, steps: steps.go_back(step, "no reason"))


# --- stopping


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_ends_the_step_writes_a_checkpoint_and_the_run_goes_on_from_there(tmp_path, number, kind):
    before = signal.getsignal(number)
    _, undisturbed = walk(tmp_path / "one" / "walk")
    with pytest.raises(KeyboardInterrupt) as stopped:
        walk(tmp_path / "two" / "walk", at=lambda step, _: step == 5 and os.kill(os.getpid(), number))
    assert type(stopped.value) is kind
    assert checkpoint.steps(tmp_path / "two" / "walk" / "checkpoints") == [4, 6]
    assert logged(tmp_path / "two" / "walk", "step") == [1, 2, 3, 4, 5, 6]
    _, weights = walk(tmp_path / "two" / "walk")
    assert torch.equal(weights, undisturbed)
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_at_once(tmp_path):
    def twice(step: int, _: Steps) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")

    with pytest.raises(Terminated):
        walk(tmp_path / "walk", at=twice)
    assert checkpoint.steps(tmp_path / "walk" / "checkpoints") == [4]
    assert logged(tmp_path / "walk", "step") == [1, 2, 3, 4, 5]


def test_a_signal_to_all_processes_lets_them_end_the_step(tmp_path):
    """Batch systems and Ctrl-C signal all processes: those that share the step must not end before it is finished."""
    learner = Learner(random_model("phi3", V), V, ParallelSettings(device="cpu", forks=2))
    if learner.processes == 1:
        pytest.skip("more processes need Linux and OMP_NUM_THREADS=1")
    data = [Row([i % V for i in range(200)]) for _ in range(4)]
    with pytest.raises(Terminated), Steps(training(tmp_path / "w", 4), learner, 4) as steps:
        for step in steps:
            if step == 1:
                (pid, *_), *_ = learner._replicas[1].children
                for process in (pid, os.getpid()):
                    os.kill(process, signal.SIGTERM)
            learner.gradient([[row] for row in token_mean(data)], next_token_loss)
            steps.update(step, 1.0, 1e-3)
    assert checkpoint.steps(steps.folder) == [2]


# --- the best


def test_the_best_checkpoint_stays_and_is_restored(tmp_path):
    held_out = {2: 3.0, 5: 1.0, 8: 2.0, 13: 1.5}
    weights = {}

    def validate(step: int, steps: Steps) -> None:
        weights[step] = torch.cat([p.detach().flatten() for p in steps.learner.model.parameters()])
        if step in held_out:
            steps.validated(step, held_out[step])
        if step == TOTAL - 1:
            steps.restore_best()

    state, _ = walk(tmp_path / "walk", at=validate)
    assert (state["best_step"], state["best_loss"], state["worse"]) == (6, 1.0, 2)
    assert checkpoint.steps(tmp_path / "walk" / "checkpoints") == [6, 12, 14]


@pytest.mark.parametrize("damaged", [False, True])
def test_if_the_best_is_damaged_the_last_is_used_and_that_is_reported(tmp_path, damaged, capsys):
    learner = Learner(random_model("phi3", V), V, ONE)
    kept = []
    with Steps(training(tmp_path / "walk", 2), learner, 4) as steps:
        for step in steps:
            learner.gradient([[row] for row in rows(step)], next_token_loss)
            steps.update(step, 1.0, 1e-2)
            steps.validated(step, [2.0, 1.0, 1.5, 1.2][step])
            kept.append(next(learner.model.parameters()).detach().clone())
        if damaged:
            (steps.folder / "step-000002" / "state.json").write_text("{}")
        steps.restore_best()
    assert torch.equal(next(learner.model.parameters()), kept[3 if damaged else 1])
    assert ("the best checkpoint, of step 2, is damaged" in capsys.readouterr().err) == damaged


# --- the line


def test_the_logged_line_has_the_cost_of_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "measured_peak", lambda *_: 1e9)
    walk(tmp_path / "walk")
    lines = read_metrics(tmp_path / "walk")
    last = lines[-1]
    assert last["tokens"] == 36 and last["padding"] == 0.0 and last["seconds_left"] == 0
    assert lines[0]["seconds_left"] >= lines[-2]["seconds_left"]
    assert 100e6 < last["memory"] < 100e9
    assert last["tokens_per_second"] > 0 and last["tokens_per_cpu_second"] > 0
    a_token = Flops(random_model("phi3", V), V).of(collate(rows(0))) / 36
    expected = a_token * last["tokens_per_second"] / 1e9
    assert last["mfu"] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_padding_is_measured(tmp_path, monkeypatch):
    """As if rows were padded: here twice as many positions are computed as there are tokens."""
    from whetstone.learner import learner as learners

    def padded(groups, dtype):
        batch = plain(groups, dtype)
        learner.work["positions"] += batch.size  # as many again that hold no token
        return batch

    plain = learners.collate_groups
    monkeypatch.setattr(learners, "collate_groups", padded)
    learner = Learner(random_model("phi3", V), V, ONE)
    with Steps(training(tmp_path / "walk", 1), learner, 1) as steps:
        for step in steps:
            learner.gradient([[row] for row in rows(step)], next_token_loss)
            steps.update(step, 1.0, 1e-3)
            steps.log(step, 36)
    assert read_metrics(tmp_path / "walk")[0]["padding"] == 0.5


def test_flops_by_hand():
    """Phi-3 of SHAPE: 2 layers of qkv 64 x 128, o 64 x 64, gate_up 64 x 192, down 96 x 64; 4 heads of 16; 40 ids in use.

    Rows of 3 and 2 tokens with 2 and 1 scored: 6 + 3 pairs see each other.
    """
    layers = 2 * (64 * 128 + 64 * 64 + 64 * 192 + 96 * 64)
    batch = collate([Row([1, 2, 3]), Row([4, 5])])
    expected = 6 * layers * 5 + 6 * 64 * 40 * 3 + 12 * 2 * 4 * 16 * (6 + 3)
    model = random_model("phi3", V)
    assert Flops(model, 40).of(batch) == expected
    model.requires_grad_(False)
    assert Flops(model, 40).of(batch) == 4 * layers * 5 + 4 * 64 * 40 * 3 + 12 * 2 * 4 * 16 * (6 + 3)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L40", None),
        ("NVIDIA H20", None),
    ],
)
def test_peaks_are_known_by_name(name, peak):
    accelerator = known(name)
    assert (accelerator and accelerator.flops) == peak


def test_another_device_is_measured_once():
    flops.measured_peak.cache_clear()
    peak_here = flops.peak("cpu", torch.float32)
    assert peak_here > 1e8 and flops.peak("cpu", torch.float32) == peak_here


def test_the_lines_are_json_that_any_reader_takes(tmp_path):
    walk(tmp_path / "walk")
    for line in (tmp_path / "walk" / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_slow_step_says_at_once_that_it_is_under_way_and_what_of_it_is_done(tmp_path, monkeypatch, capsys):
    """Three rows of 12 tokens in three micro-batches; after the first the bar counts a third of the step."""
    monkeypatch.setattr("whetstone.learner.steps.PLAIN_SECONDS", 0)
    monkeypatch.setattr("whetstone.run.progress.PLAIN_SECONDS", 0)
    learner = Learner(random_model("phi3", V), V, ONE.model_copy(update={"micro_batch_tokens": 12}))
    with Steps(training(tmp_path, EVERY), learner, total=1) as steps:
        for step in steps:
            data = rows(step)
            learner.gradient([[row] for row in data], next_token_loss)
            said = capsys.readouterr().err
            steps.update(step, 1.0, 1e-3)
            steps.log(step, 36, loss=1.0)
    assert "step 1 of 1 begins: 36 tokens in 3 micro-batches" in said
    assert "0/1 steps  33 %" in said and "micro-batch 2/3" in said and "micro-batch 3/3" in said and " left" in said
    assert "micro-batch" not in capsys.readouterr().err
