"""Checkpoints restore to the bit; a half-written or altered one is never loaded; a full disk is reported."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny_models import random_model
from whetstone.batch import Row, collate
from whetstone.learner import checkpoint
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.run.disk import DiskFull
from whetstone.run.processes import fork
from whetstone.run.settings import OptimizerSettings, ParallelSettings

V = 50
FILES = ("weights-00001.safetensors", "state.json", "SHA256SUMS")
NEWEST = "step-000002"


def learner(kind: str = "phi3", optimizer: str = "adamw", dtype: torch.dtype = torch.float32) -> Learner:
    name, _, moments = optimizer.partition(", ")
    settings = OptimizerSettings(name=name, moments=moments or "weights")
    return Learner(random_model(kind, V, dtype), V, ParallelSettings(), settings)


def train(trained: Learner, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        rows = token_mean([Row([(7 * step + i * n) % V for n in range(3, 9 + i)]) for i in range(1, 4)])
        trained.forward_backward([collate(rows)], next_token_loss)
        trained.step(1e-2)


def everything(trained: Learner) -> dict[str, torch.Tensor]:
    """A copy of weights and moments."""
    return {name: tensor.clone() for name, tensor in checkpoint.tensors(trained)}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("optimizer", "dtype", "shard"),
    [
        ("adamw", torch.float32, checkpoint.SHARD),
        ("adamw", torch.bfloat16, checkpoint.SHARD),
        ("muon", torch.float32, 20_000),
        ("adamw, bfloat16", torch.float32, checkpoint.SHARD),
    ],
)
def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path, monkeypatch, optimizer, dtype, shard):
    monkeypatch.setattr(checkpoint, "SHARD", shard)
    straight, first, second = (learner(optimizer=optimizer, dtype=dtype) for _ in range(3))
    train(straight, 6)
    train(first, 3)
    checkpoint.save(tmp_path, 3, first, {"seen": [1, 2], "loss": 0.1 + 0.2})
    assert (len(list((tmp_path / "step-000003").glob("weights-*"))) > 3) == (shard == 20_000)
    assert checkpoint.load_newest(tmp_path, second) == (3, {"seen": [1, 2], "loss": 0.1 + 0.2})
    assert same(everything(second), everything(first)) and len(everything(first)) > len(list(first.owned()))
    train(second, 3, start=3)
    assert same(everything(second), everything(straight))


@pytest.fixture
def two(tmp_path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder with checkpoints of steps 1 and 2, and the tensors saved in the first."""
    trained = learner()
    train(trained, 1)
    checkpoint.save(tmp_path, 1, trained, {"tokens": 10})
    good = everything(trained)
    train(trained, 1, start=1)
    checkpoint.save(tmp_path, 2, trained, {"tokens": 20})
    return tmp_path, good


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink], ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(two, name, damage, capsys):
    folder, good = two
    damage(folder / NEWEST / name)
    trained = learner()
    assert checkpoint.load_newest(folder, trained) == (1, {"tokens": 10})
    assert same(everything(trained), good)
    said = capsys.readouterr().err
    assert f"{NEWEST} is skipped" in said and name in said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_checkpoint_with_a_flipped_bit_is_never_loaded(two, data):
    folder, good = two
    file = folder / NEWEST / data.draw(st.sampled_from(FILES))
    written = file.read_bytes()
    at, bit = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 7))
    file.write_bytes(written[:at] + bytes([written[at] ^ (1 << bit)]) + written[at + 1 :])
    trained = learner()
    try:
        assert checkpoint.load_newest(folder, trained) == (1, {"tokens": 10})
    finally:
        file.write_bytes(written)
    assert same(everything(trained), good)


def test_an_undamaged_checkpoint_is_loaded(two):
    folder, good = two
    trained = learner()
    assert checkpoint.load_newest(folder, trained) == (2, {"tokens": 20})
    assert not same(everything(trained), good)


def test_without_a_complete_checkpoint_the_learner_is_unchanged(two):
    folder, _ = two
    for file in folder.glob("*/state.json"):
        truncate(file)
    trained = learner()
    before = everything(trained)
    assert checkpoint.load_newest(folder, trained) is None
    assert same(everything(trained), before)


def test_a_complete_checkpoint_of_another_model_is_an_error(two):
    folder, _ = two
    other = learner("qwen2")
    before = everything(other)
    with pytest.raises(ValueError, match=r"step-000002 is of another model: .*remove the stage's checkpoints"):
        checkpoint.load_newest(folder, other)
    assert same(everything(other), before)


def test_the_newest_and_the_best_are_kept_and_later_ones_removed(tmp_path):
    trained = learner()
    for step in (10, 20, 30, 40):
        checkpoint.save(tmp_path, step, trained, {}, keep=2, best=10)
    assert checkpoint.steps(tmp_path) == [10, 30, 40]
    checkpoint.save(tmp_path, 35, trained, {}, keep=2, best=10)  # training went back to 30, or 40 was damaged
    assert checkpoint.steps(tmp_path) == [10, 30, 35]
    checkpoint.save(tmp_path, 1_000_000, trained, {}, keep=1)
    assert checkpoint.steps(tmp_path) == [1_000_000]


def test_what_a_killed_writer_left_is_not_loaded_and_is_removed(two):
    folder, _ = two
    shutil.copytree(folder / NEWEST, folder / ".writing-99")
    assert checkpoint.load_newest(folder, learner())[0] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", NEWEST]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_sha256sum_can_check_a_checkpoint(two):
    folder, _ = two
    check = ["sha256sum", "--quiet", "-c", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder / NEWEST, check=False).returncode == 0
    flip(folder / NEWEST / FILES[0])
    assert subprocess.run(check, cwd=folder / NEWEST, check=False, capture_output=True).returncode == 1


def test_a_state_that_json_cannot_hold_is_refused_and_leaves_no_files(two):
    folder, _ = two
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(folder, 3, learner(), {"path": Path("here")})
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", NEWEST]


# --- a full disk


def runs_full(folder: Path, fill: Callable[[], object], clear: Callable[[], object]) -> list[DiskFull]:
    """Save, fill the disk, fail to save, clear the disk, save and restore to the bit.

    The save fails twice: in the check beforehand, and by the kernel's refusal.
    """
    trained, refused = learner(), []
    train(trained, 1)
    checkpoint.save(folder, 1, trained, {"tokens": 10})
    train(trained, 1, start=1)
    fill()
    try:
        for look in (shutil.disk_usage, lambda _: SimpleNamespace(free=1 << 60)):
            with mock.patch("shutil.disk_usage", look), pytest.raises(DiskFull) as full:
                checkpoint.save(folder, 2, trained, {"tokens": 20})
            refused.append(full.value)
            left = [path.name for path in folder.iterdir() if path.name != "ballast"]
            assert left == ["step-000001"], f"left behind: {left}"
        other = learner()
        assert checkpoint.load_newest(folder, other) == (1, {"tokens": 10})
    finally:
        clear()
    train(other, 1, start=1)
    checkpoint.save(folder, 2, other, {"tokens": 20})
    assert checkpoint.load_newest(folder, learner())[0] == 2 and same(everything(other), everything(trained))
    return refused


def in_a_small_file_system(folder: Path, work: Callable[[], None]) -> int:
    """The exit status of a forked process that has a file system of 4 MB at `folder`."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()

    def mounted() -> None:
        if libc.unshare(0x10020000):  # CLONE_NEWUSER and CLONE_NEWNS
            os._exit(77)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        if libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, b"size=4m"):
            os._exit(77)
        work()

    return os.waitstatus_to_exitcode(os.waitpid(fork("test", mounted), 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="a small file system needs Linux namespaces")
def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint_complete(tmp_path):
    ballast = tmp_path / "ballast"

    def work() -> None:
        before, by_kernel = runs_full(tmp_path, lambda: ballast.write_bytes(b"." * 2_800_000), ballast.unlink)
        assert "no room for the checkpoint of step 2: it needs 1.8 MB, and" in str(before), before
        assert "0.6 MB free" in str(before) and before.__cause__ is None, before
        assert "os error 28" in str(by_kernel.__cause__), by_kernel.__cause__

    status = in_a_small_file_system(tmp_path, work)
    if status == 77:
        pytest.skip("this machine lets nobody mount a small file system")
    assert status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_a_limit_on_file_sizes_is_reported_like_a_full_disk(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    refusals = runs_full(
        tmp_path,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before),
    )
    assert all("or a quota or limit is reached" in str(full) for full in refusals)
    assert all("os error 27" in str(full.__cause__) for full in refusals)


def test_other_errors_while_writing_are_not_reported_as_a_full_disk(two, monkeypatch):
    folder, _ = two

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(PermissionError) as raised:
        checkpoint.save(folder, 3, learner(), {})
    assert not isinstance(raised.value, DiskFull)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", NEWEST]


def test_folders_that_are_no_checkpoints_are_left_alone(two):
    folder, _ = two
    (folder / NEWEST).rename(folder / "step-old")
    (folder / "step-000009").write_text("a file")
    (folder / "step-9").mkdir()
    trained = learner()
    assert checkpoint.load_newest(folder, trained) == (1, {"tokens": 10})
    checkpoint.save(folder, 3, trained, {})
    assert {path.name for path in folder.glob("step-*")} >= {"step-old", "step-000009", "step-9", "step-000003"}


@pytest.mark.parametrize(
    "content", [{}, {"state.json": "[]"}, {"state.json": "{}"}, {"weights-00001.safetensors": "x"}]
)
def test_a_checkpoint_whose_sums_fit_and_whose_files_do_not_is_skipped(two, content, capsys):
    folder, _ = two
    if content:
        for name, text in content.items():
            (folder / NEWEST / name).write_text(text)
        (folder / NEWEST / "SHA256SUMS").write_text(checkpoint._sums(folder / NEWEST))
    else:
        shutil.rmtree(folder / NEWEST)
        (folder / NEWEST).mkdir()
        (folder / NEWEST / "SHA256SUMS").touch()
    assert checkpoint.load_newest(folder, learner()) == (1, {"tokens": 10})
    assert f"{NEWEST} is skipped" in capsys.readouterr().err
