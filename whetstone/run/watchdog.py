"""Reports a phase that hangs (forward, generate, checkpoint, …), so that a run does not stand still unnoticed.

A phase that lasts longer than `seconds` is reported once, with its step, its duration and the Python stacks of all threads, on
standard error and in `hang-PROCESS.txt` in the stage's folder. With `end` the process is killed as well.

The watcher is a process of its own. It reads the phase from shared memory, and asks for the stacks by a signal that
faulthandler answers in C. A thread could do neither while a thread that hangs holds the interpreter's lock. The process runs
this file, so the file imports nothing of ours.
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

PLACE = struct.Struct("dq48s")  # when the phase began (monotonic seconds), its step, its name
ASK = signal.SIGUSR2  # write the stacks
ANSWER = 1.0  # seconds that writing the stacks may take


class Watchdog:
    """Does nothing with seconds = 0. Phases that forked children of the process mark are ignored."""

    def __init__(self, folder: Path, seconds: float, end: bool = False):
        self.folder, self.seconds, self.end = folder, seconds, end
        self._place: mmap.mmap | None = None

    def __enter__(self) -> "Watchdog":
        if self.seconds:
            # The first page holds the phase, the rest the stacks. The file has no name, so that a kill leaves nothing behind
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
    """Watch until the process that started this one has ended. `number` is the descriptor of the shared file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that trains
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched = os.getppid()
    place = mmap.mmap(number, mmap.PAGESIZE, prot=mmap.PROT_READ)
    reported = 0.0
    while os.getppid() == watched:
        since, step, name = PLACE.unpack_from(place)
        lasts = time.monotonic() - since
        if lasts > seconds and since != reported:
            reported = since
            report(number, watched, name.rstrip(b"\0").decode(errors="replace"), step, lasts, end, folder)
            if end:
                os.kill(watched, signal.SIGKILL)
                return
        time.sleep(min(1.0, seconds / 10))


def report(number: int, watched: int, phase: str, step: int, lasts: float, end: bool, folder: Path) -> None:
    stacks = stacks_of(number, watched)
    path = folder / f"hang-{watched}.txt"
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = (
        f"{now}: process {watched} hangs: {phase} of step {step} has lasted {lasts:.0f} s. "
        + ("It is killed now. Run again: it continues from the last checkpoint." if end else "It is left running.")
        + f"\nThe stacks (also in {path}):\n{stacks}\n"
    )
    print(text, file=sys.stderr, flush=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(text)


def stacks_of(number: int, watched: int) -> str:
    """The text that faulthandler writes after the first page; an explanation if it does not answer."""
    before = os.fstat(number).st_size
    os.kill(watched, ASK)
    size, until = before, time.monotonic() + ANSWER
    while time.monotonic() < until:
        time.sleep(0.05)
        if os.fstat(number).st_size == size > before:
            break
        size = os.fstat(number).st_size
    stacks = os.pread(number, size - before, before).decode(errors="replace")
    return stacks or "(the process does not answer: it was stopped, or waits in the kernel)"


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1", Path(sys.argv[4]))
