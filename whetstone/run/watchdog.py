"""Names the phase that hangs: forward, generate, checkpoint, … instead of a run that says nothing for a night.

    with Watchdog(stage.folder, seconds=1800) as watchdog:
        watchdog.phase("forward", step)      # a heartbeat: what begins now
        …

A phase that lasts longer than `seconds` is named, with its step, how long it lasts and the Python stacks of all threads,
on standard error and in `hang-PROCESS.txt` in the stage's folder; once a phase. With `end` the process is ended as well.

The watcher is a process of its own that reads the phase from shared memory and asks for the stacks by a signal which
faulthandler answers in C: a thread could do neither while the one that hangs holds the interpreter's lock. This file is
what that process runs, so it imports nothing of ours.
"""

import faulthandler
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

PLACE = struct.Struct("dq48s")  # since when (monotonic seconds), in which step, which phase
ASK = signal.SIGUSR2  # for the stacks
ANSWER = 1.0  # seconds that writing the stacks may take


class Watchdog:
    """Does nothing with seconds = 0. Forked children of the process may mark phases, too: those do not count."""

    def __init__(self, folder: Path, seconds: float, end: bool = False):
        self.folder, self.seconds, self.end = folder, seconds, end
        self._place: mmap.mmap | None = None

    def __enter__(self) -> "Watchdog":
        if self.seconds:
            # The first page holds the place, the rest takes the stacks; it has no name, so a kill leaves no litter
            self._file: BinaryIO = tempfile.TemporaryFile()
            self._file.truncate(mmap.PAGESIZE)
            self._file.seek(mmap.PAGESIZE)
            self._place, self._owner = mmap.mmap(self._file.fileno(), mmap.PAGESIZE), os.getpid()
            self.phase("start")
            faulthandler.register(ASK, file=self._file, all_threads=True)
            number = str(self._file.fileno())
            command = [sys.executable, "-I", __file__, number, str(self.seconds), str(int(self.end)), str(self.folder)]
            self._watcher = subprocess.Popen(command, pass_fds=[self._file.fileno()], stdin=subprocess.DEVNULL)
        return self

    def phase(self, name: str, step: int = 0) -> None:
        """What begins now. Costs a microsecond."""
        if self._place is not None and os.getpid() == self._owner:
            PLACE.pack_into(self._place, 0, time.monotonic(), step, name.encode()[:48])

    def __exit__(self, *_: object) -> None:
        if self._place is not None:
            self._watcher.kill()
            self._watcher.wait()
            faulthandler.unregister(ASK)
            self._place.close()
            self._place = None
            self._file.close()


def watch(number: int, seconds: float, end: bool, folder: Path) -> None:
    """Until the process that started this one is gone. `number` is the descriptor of the shared file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched = os.getppid()
    place = mmap.mmap(number, mmap.PAGESIZE, prot=mmap.PROT_READ)
    said = 0.0
    while os.getppid() == watched:
        since, step, name = PLACE.unpack_from(place)
        lasts = time.monotonic() - since
        if lasts > seconds and since != said:
            said = since
            say(number, watched, name.rstrip(b"\0").decode(errors="replace"), step, lasts, end, folder)
            if end:
                os.kill(watched, signal.SIGKILL)
                return
        time.sleep(min(1.0, seconds / 10))


def say(number: int, watched: int, phase: str, step: int, lasts: float, end: bool, folder: Path) -> None:
    stacks = stacks_of(number, watched)
    path = folder / f"hang-{watched}.txt"
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    told = (
        f"{now}: process {watched} hangs: {phase} of step {step} has lasted {lasts:.0f} s. "
        + ("It is ended now; run again, it goes on from the last checkpoint." if end else "It is left to go on.")
        + f"\nWhere it is (also in {path}):\n{stacks}\n"
    )
    print(told, file=sys.stderr, flush=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(told)


def stacks_of(number: int, watched: int) -> str:
    """What faulthandler writes behind the first page."""
    before = os.fstat(number).st_size
    os.kill(watched, ASK)
    size, until = before, time.monotonic() + ANSWER
    while time.monotonic() < until:
        time.sleep(0.05)
        if os.fstat(number).st_size == size > before:
            break
        size = os.fstat(number).st_size
    stacks = os.pread(number, size - before, before).decode(errors="replace")
    return stacks or "(it does not answer: it was stopped, or waits in the kernel)"


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1", Path(sys.argv[4]))
