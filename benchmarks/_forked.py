"""Commands in forks of this process, with their output, bounds of time and memory, and whether they ended clearly."""

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CPU_BOUND = 60  # CPU seconds of one command
WALL_BOUND = 240  # seconds, for a command that waits without computing
MEMORY_BOUND = 1500 << 20  # bytes above what the process that forks holds
PAUSE = 0.02


@dataclass(frozen=True)
class Ended:
    """What a forked command left."""

    status: int
    out: str
    err: str
    hung: bool
    peak: int  # bytes


def command(folder: Path, *words: str) -> Ended:
    """`whetstone WORDS` in a fork of this process, in `folder`."""

    def work() -> None:
        from whetstone.cli import main

        sys.argv = ["whetstone", *words]
        main()

    return forked(folder, work)


def forked(folder: Path, work: Callable[[], None]) -> Ended:
    """`work` in a fork whose output is kept; it is killed at its bound."""
    out, err = folder.parent / "out", folder.parent / "err"
    begin = time.monotonic()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_BOUND, CPU_BOUND))
            for file, stream in ((out, 1), (err, 2)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.chdir(folder)
            try:
                work()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - begin > WALL_BOUND:
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(PAUSE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    killed = os.WIFSIGNALED(status)
    text = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return Ended(os.waitstatus_to_exitcode(status), *text, killed, usage.ru_maxrss * 1024)


def complaint(ended: Ended) -> str:
    """Why this is no clear end; "" if it is one."""
    if ended.hung:
        return "did not end within its bound"
    if "Traceback (most recent call last)" in ended.err + ended.out:
        return "traceback: " + ended.err.strip().rpartition("\n")[2][:200]
    if ended.status not in (0, 2):
        return f"exit status {ended.status}: {ended.err[-200:]}"
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    if ended.status == 2 and not (errors and len(errors[0]) > 20) and "Usage:" not in ended.err:
        return f"exit status 2 without an error line: {ended.err[-200:]}"
    if any(ord(letter) < 32 and letter not in "\n\t\r" for letter in ended.err):
        return "a control character reached the terminal"
    if ended.peak > MEMORY_BOUND + HELD:
        return f"held {ended.peak >> 20} MiB"
    return ""


HELD = 0  # bytes of the process that forks, set by `warm`


def warm() -> None:
    """Import once what every fork needs."""
    global HELD
    import pyarrow.parquet
    import torch

    import whetstone.cli
    import whetstone.pipeline.running
    from whetstone.recipe import KINDS, load_room

    torch.set_num_threads(1)
    for kind in KINDS:
        load_room(kind)
    HELD = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert pyarrow.parquet and whetstone.cli and whetstone.pipeline.running
