"""One controller and the processes that torchrun starts for it.

The standard input of all the processes is one pipe from the controller. A line on it asks them to stop: one of them reads it,
and they agree on the step. If the pipe is closed, the controller is gone, and they end too. Each process gives signs of life
(signs_of_life.py), by which those that do not have the pipe hear the same, some seconds later, and writes how it ended to
`rank-N.json`. The first writes messages to the controller's standard error, the others to `rank-N.log`, torchrun itself to
`torchrun.log`.
"""

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from whetstone.run.folder import read_json, write_json
from whetstone.run.signs_of_life import Signs, give_signs

# Errors whose message is enough for the user, without a traceback
USERS = {error.__name__: error for error in (ValueError, OSError, ImportError, FloatingPointError)}
SHOWN = 12  # lines of a launcher's messages
ENDED = r" +rank +: (\d+) \(local_rank: \d+\)\n +exitcode +: (-?\d+)"  # as torchrun lists processes
LOST = ("Connection", "connection", "peer", "NCCL", "gloo")  # words of errors that follow from another process's end


def run_processes(
    module: str, argument: Path, count: int, folder: Path, launch: Sequence[str] = (), silence: float = 0, end: bool = False
) -> None:  # fmt: skip
    """Run `python -m module argument` in `count` processes under torchrun, until all have ended.

    `launch` is a command that starts torchrun with the arguments that are appended, on as many machines as it likes, and that
    ends when all have ended. Raises the error of one of them (a user's mistake as it is, another as RuntimeError with the
    traceback), ChildProcessError if one died, ValueError if a launcher started none, and KeyboardInterrupt after they stopped
    because they were asked to.

    A process that gives no sign of life for `silence` seconds is named; 0: none is. With `end` all are then ended, and
    ChildProcessError is raised.
    """
    for old in folder.glob("rank-*.json"):
        old.unlink()
    signs = Signs(folder, count, silence, end)
    alone = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    with (folder / "torchrun.log").open("wb") as log:
        # In a session of its own Ctrl-C does not reach it: the controller asks, once
        command = [*(launch or alone), "--module", module, str(argument)]
        agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, stderr=log, start_new_session=True)
        try:
            _wait(agent, signs)
        finally:
            agent.stdin.close()  # ends processes that are left
            signs.close()
            if agent.poll() is None:  # with all that it started on this machine, and with those that are stopped
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
    _raise_what_failed(folder, count, bool(launch), signs)


def _wait(agent: subprocess.Popen[bytes], signs: Signs) -> None:
    """Until the processes have ended. The first interrupt asks them to stop, a second one is raised at once."""
    try:
        _watch(agent, signs)
    except KeyboardInterrupt:
        with suppress(OSError):
            agent.stdin.write(b"stop\n")
            agent.stdin.flush()
        signs.ask_to_stop()
        _watch(agent, signs)
        raise


def _watch(agent: subprocess.Popen[bytes], signs: Signs) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            agent.wait(signs.every)
            return
        signs.look()


def _raise_what_failed(folder: Path, count: int, launched: bool, signs: Signs) -> None:
    """Raise the first error that is a cause, and not a consequence of the end of another process."""
    ends = {rank: _end(folder, rank) for rank in range(count)}
    if launched and not any(ends.values()):
        raise ValueError(_never_began(folder))
    failed = sorted((end for end in ends.values() if end.get("error")), key=lambda end: end["time"])
    died = [rank for rank, end in ends.items() if not end]
    causes = [end for end in failed if not any(word in end["message"] for word in LOST)]
    if causes:
        _raise(causes[0])
    if died:
        raise ChildProcessError(
            f"{_who_died(folder, died, signs)} without a message (-9: killed, or out of memory): the step under way is lost. "
            f"Run again: it continues from what was saved last. The messages of the processes are in {folder}."
        )
    if failed:
        _raise(failed[0])
    if any(end["stopped"] for end in ends.values()):
        raise KeyboardInterrupt


def _who_died(folder: Path, died: Sequence[int], signs: Signs) -> str:
    """The process that an agent of torchrun saw dying first. Those of a machine that is gone were seen by none."""
    log = (folder / "torchrun.log").read_text(errors="replace")
    for rank, status in re.findall(rf"Root Cause (?:.*\n)+?{ENDED}", log):
        if int(rank) in died:
            return f"{signs.named([int(rank)])} ended with status {status}"
    seen = [int(rank) for rank, _ in re.findall(ENDED, log)]
    return f"{signs.named([rank for rank in died if rank not in seen] or died)} is gone"


def _never_began(folder: Path) -> str:
    """After a launch of which no process wrote how it ended. They may have been killed, or have another disk."""
    log = (folder / "torchrun.log").read_text(errors="replace").splitlines()
    return "\n".join(
        [
            f"[parallel] launch: its command ended, and no training process wrote into {folder}. It must run torchrun with "
            "the arguments that it is given, on machines that see this folder. The end of its messages "
            f"({folder / 'torchrun.log'}):",
            *(log[-SHOWN:] or ["(none)"]),
        ]
    )


def _end(folder: Path, rank: int) -> dict[str, Any]:
    path = folder / f"rank-{rank}.json"
    return read_json(path) if path.exists() else {}


def _raise(end: dict[str, Any]) -> NoReturn:
    for kind in end["error"]:
        if kind in USERS:
            raise USERS[kind](end["message"])
    raise RuntimeError(f"process {end['rank']} failed:\n{end['traceback']}")


# --- in a process that torchrun started


@contextmanager
def process(folder: Path) -> Iterator[int]:
    """Gives its rank, listens to the controller, and writes into `folder` how it ends. An error ends it with status 1."""
    rank = int(os.environ["RANK"])
    if rank == 0:
        os.dup2(1, 2)  # torchrun was started with the controller's standard error as its standard output
    else:
        log = os.open(folder / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
    asked = _Asked()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    give_signs(folder, rank, asked)
    end: dict[str, Any] = {"rank": rank, "stopped": False, "error": [], "message": ""}
    try:
        yield rank
    except KeyboardInterrupt:
        end["stopped"] = True
    except BaseException as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        end |= {"error": kinds, "message": str(error), "traceback": traceback.format_exc()}
    write_json(folder / f"rank-{rank}.json", end | {"time": time.time()})
    if end["error"]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # exit handlers would wait for the other processes


class _Asked:
    """Stops this process as Ctrl-C would, once, however often it is asked."""

    def __init__(self) -> None:
        self._first = threading.Lock()

    def __call__(self) -> None:
        if self._first.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGTERM)


def _listen(asked: _Asked) -> None:
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return  # started by hand, or by a launcher that does not pass it on
    while os.read(0, 1):
        asked()
        while os.read(0, 1) not in (b"\n", b""):
            pass
    os._exit(1)  # the controller is gone
