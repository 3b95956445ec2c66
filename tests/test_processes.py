"""Several processes under one controller: what they compute, how they stop, what is reported if one fails or dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from tests.learner.group import in_group
from tests.scripted import stage
from tests.tiny_world import logged
from whetstone import sft
from whetstone.learner.steps import Steps
from whetstone.run.folder import Stage, hash_folder
from whetstone.run.settings import AdapterSettings, ParallelSettings
from whetstone.run.signs_of_life import Signs
from whetstone.run.torchrun import run_processes
from whetstone.worker import read_stage, run_in_processes, to_json


def start(folder: Path, what: str) -> None:
    (folder / "what.txt").write_text(what)
    run_processes("tests.processes_worker", folder / "what.txt", 2, folder)


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("mistake", OSError, "^there is no corpus$"),
        ("bug", RuntimeError, r"(?s)process 1 failed:\nTraceback.*AssertionError: this cannot be"),
        (
            "killed",
            ChildProcessError,
            r"process 1 of 2 \(node 0, .*, process id \d+\) ended with status -9 without a message .* continues from what",
        ),
    ],
)
def test_the_failure_of_one_ends_all_and_is_reported(what, error, words, tmp_path, capfd):
    """The first writes to the user's standard error, the others to files, torchrun to its log."""
    with pytest.raises(error, match=words):
        start(tmp_path, what)
    assert capfd.readouterr().err == "rank 0 speaks\n"
    assert (tmp_path / "rank-1.log").read_text() == "rank 1 speaks\n"


def test_a_launcher_starts_the_processes(tmp_path):
    """As torchrun on two machines would, but without its seconds: one process each, told its rank."""
    (tmp_path / "what.txt").write_text("nothing")
    one = f'LOCAL_RANK=0 WORLD_SIZE=2 {sys.executable} -m "$2" "$3" <&0 & '
    launch = ["sh", "-c", f"RANK=0 {one} RANK=1 {one} wait", "launch"]
    run_processes("tests.processes_worker", tmp_path / "what.txt", 2, tmp_path, launch)
    assert (tmp_path / "rank-0.json").exists() and (tmp_path / "rank-1.log").read_text() == "rank 1 speaks\n"


def test_a_launcher_that_starts_nothing_is_quoted(tmp_path):
    with pytest.raises(
        ValueError, match=r"(?s)launch: its command ended.*machines that see this folder.*no nodes left"
    ):
        run_processes("tests.processes_worker", tmp_path, 2, tmp_path, ["sh", "-c", "echo no nodes left >&2; exit 3"])


def test_a_process_that_stands_still_is_named_and_all_are_ended(tmp_path):
    """On a busy machine the other may have been held up as well."""
    (tmp_path / "what.txt").write_text("frozen")
    one = f'LOCAL_RANK=0 WORLD_SIZE=2 {sys.executable} -m "$2" "$3" <&0 & '
    launch = ["sh", "-c", f"GROUP_RANK=0 RANK=0 {one} GROUP_RANK=1 RANK=1 {one} wait", "launch"]
    words = r"process(es 0,)? 1 of 2 \((node 0, .*)?node 1, .*, process id \d+\): no sign of life for 2 s.*are ended"
    with pytest.raises(ChildProcessError, match=words):
        run_processes("tests.processes_worker", tmp_path / "what.txt", 2, tmp_path, launch, silence=2, end=True)
    until_ended(tmp_path)


def test_a_process_without_signs_is_named_once_and_again_after_it_came_back(tmp_path, monkeypatch, capsys):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    signs = Signs(tmp_path, 3, silence=10, end=False)
    (tmp_path / "alive-2").write_text("node 2\n0\n")  # it ends at once
    for number, gone in enumerate("··11··11·"):  # a look each 6 seconds; 1 is gone twice
        for rank in "01" if gone == "·" else "0":
            (tmp_path / f"alive-{rank}").write_text(f"node {rank}\n{number}\n")
        (tmp_path / "rank-2.json").touch()
        signs.look()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all("process 1 of 3 (node 1): no sign of life for 10 s" in line for line in said)


@pytest.fixture
def interruptible():
    """SIGINT is ignored in what some job runners start."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


def when(ready, act) -> threading.Thread:
    """Call `act` as soon as `ready()` is true."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not ready() and time.monotonic() < until:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_asks_all_to_stop_and_waits_for_them(tmp_path, interruptible):
    when(
        lambda: all((tmp_path / f"ready-{rank}").exists() for rank in (0, 1)),
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, "stop")
    assert (tmp_path / "stopped").exists()


def test_processes_end_when_their_controller_is_killed(tmp_path):
    command = [sys.executable, "-c", "import sys; from pathlib import Path; from tests.test_processes import start; "]
    command[-1] += "start(Path(sys.argv[1]), 'stop')"
    killed_when_ready([*command, str(tmp_path)], tmp_path)
    until_ended(tmp_path)


def killed_when_ready(command: list[str], folder: Path) -> None:
    controller = subprocess.Popen(command)
    when(lambda: all((folder / f"ready-{rank}").exists() for rank in (0, 1)), controller.kill).join()
    controller.wait()


def start_deaf(folder: Path) -> None:
    """By a launcher that passes no standard input on, and starts processes that its end does not end."""
    (folder / "what.txt").write_text("stop")
    one = f'LOCAL_RANK=0 WORLD_SIZE=2 setsid {sys.executable} -m "$2" "$3" </dev/null & '
    launch = ["sh", "-c", f"RANK=0 {one} RANK=1 {one} wait", "launch"]
    run_processes("tests.processes_worker", folder / "what.txt", 2, folder, launch, silence=40)


def test_processes_that_get_no_standard_input_are_stopped_by_ctrl_c_all_the_same(tmp_path, interruptible):
    when(
        lambda: all((tmp_path / f"ready-{rank}").exists() for rank in (0, 1)),
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    with pytest.raises(KeyboardInterrupt):
        start_deaf(tmp_path)
    assert (tmp_path / "stopped").exists()
    until_ended(tmp_path)


def test_processes_that_outlived_their_controller_end_when_the_run_begins_again(tmp_path):
    command = "import sys; from pathlib import Path; from tests.test_processes import start_deaf; start_deaf(Path(sys.argv[1]))"
    killed_when_ready([sys.executable, "-c", command, str(tmp_path)], tmp_path)
    assert with_argument(tmp_path / "what.txt")
    Signs(tmp_path, 2, silence=0, end=False)
    until_ended(tmp_path)


def until_ended(folder: Path) -> None:
    until = time.monotonic() + 60
    while with_argument(folder / "what.txt"):
        assert time.monotonic() < until, "processes outlive their controller"
        time.sleep(0.05)


def with_argument(path: Path) -> list[str]:
    """Living processes that were given this file."""
    result = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in result.splitlines() if str(path) in line.split()]


# --- a training stage


def room(folder: Path, world: dict[str, Path], processes: int = 1, shard: str = "ddp", **settings: object) -> Stage:
    known = {"batch_tokens": 100, "epochs": 3, "checkpoint_every": 3} | settings
    made = stage(folder, sft.Settings(kind="sft", **known), data=world["subset"], model=world["model"])
    parallel = ParallelSettings(device="cpu", forks=1, processes=processes, shard=shard, micro_batch_tokens=60)
    threads = made.run.model_copy(update={"threads": 1})
    return Stage(
        **{name: getattr(made, name) for name in Stage.__dataclass_fields__} | {"parallel": parallel, "run": threads}
    )


def test_a_stage_survives_being_written_and_read(tmp_path, world):
    made = replace(room(tmp_path / "s", world, processes=2), longest=4096)
    (tmp_path / "stage.json").write_text(json.dumps(to_json(made)))
    assert read_stage(tmp_path / "stage.json") == made


def losses(folder: Path) -> list[float]:
    return logged(folder, "loss")


@pytest.mark.slow
@pytest.mark.parametrize(("shard", "rank"), [("ddp", 0), ("fsdp", 0), ("fsdp", 4)])
def test_two_processes_train_like_one(shard, rank, tmp_path, world):
    adapter = AdapterSettings(rank=rank)
    result = sft.run(replace(room(tmp_path / "one", world), adapter=adapter))
    given = replace(room(tmp_path / "two" / "one", world, processes=2, shard=shard), adapter=adapter)
    assert in_group(tmp_path, 2, sft.run, given)[0] == result
    for name in ("loss", "gradient_norm", "entropy", "tokens"):
        assert logged(given.folder, name) == pytest.approx(logged(tmp_path / "one", name), rel=1e-4), name
    for path in (tmp_path / "one").glob("*/*.safetensors"):  # the model, and the adapter
        theirs = load_file(given.folder / path.parent.name / path.name)
        assert all(torch.allclose(theirs.pop(name), ours, atol=1e-4) for name, ours in load_file(path).items())
        assert not theirs


def stopped_in_process(given: Stage) -> str:
    """One of the processes is asked to stop, in its fourth step."""
    plain = Steps.log

    def log(self, step: int, tokens: int, **values: object) -> None:
        plain(self, step, tokens, **values)
        if step == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "log", log)
        try:
            sft.run(given)
        except KeyboardInterrupt:
            return "stopped"
    return "done"


@pytest.mark.slow
def test_all_stop_after_the_same_step_if_one_is_asked_and_continue_to_the_same_bits(tmp_path, world):
    undisturbed = room(tmp_path / "undisturbed" / "s", world, processes=2)
    in_group(tmp_path, 2, sft.run, undisturbed)
    given = room(tmp_path / "s", world, processes=2, checkpoint_every=1000)
    assert in_group(tmp_path, 2, stopped_in_process, given) == ["stopped", "stopped"]
    assert [found.name for found in (given.folder / "checkpoints").glob("step-*")] == ["step-000004"]
    assert len(losses(given.folder)) == 4 < len(losses(undisturbed.folder))
    result = run_in_processes(given)
    assert result["summary"]["steps"] == len(losses(given.folder)) and result["peak_memory"] > 1e7
    assert hash_folder(given.folder / "model") == hash_folder(undisturbed.folder / "model")
    assert losses(given.folder) == losses(undisturbed.folder)


def killed_in_process(given: Stage, after: int) -> None:
    """The last of the processes is killed, after so many steps."""
    plain = Steps.log

    def log(self, step: int, tokens: int, **values: object) -> None:
        plain(self, step, tokens, **values)
        if step + 1 == after and os.environ["RANK"] == str(given.parallel.processes - 1):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "log", log)
        sft.run(given)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_killed_in_two_processes_then_in_one_it_ends_in_two_with_the_losses_of_one(shard, tmp_path, world):
    sft.run(room(tmp_path / "one" / "s", world))
    two, one = (room(tmp_path / "s", world, processes=count, shard=shard) for count in (2, 1))
    for given, after in ((two, 4), (one, 7)):
        with pytest.raises((ProcessExitedException, ProcessRaisedException)):  # that of the other may come first
            in_group(tmp_path, given.parallel.processes, killed_in_process, given, after)
        assert (given.folder / "checkpoints" / f"step-{after - 1:06d}").exists() and len(losses(given.folder)) <= after
    in_group(tmp_path, 2, sft.run, two)
    assert (
        losses(two.folder) == pytest.approx(losses(tmp_path / "one" / "s"), abs=1e-6) and len(losses(two.folder)) == 8
    )
