"""A peer in a process of its own, perhaps in an environment of its own: a line of work in, a line of results out.

It is stopped outside its turns, so that threads of its own that wait do not take CPU time from the other side.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._measure import descendants

BENCH = Path(".venv-bench/bin/python")  # TRL, llama.cpp, lm-evaluation-harness
VLLM = Path(".venv-vllm/bin/python")
WAIT = 20  # seconds for a peer to end by itself


class Piped:
    """`command` after it has said that it is ready. Its output on standard error is shown if it fails."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        self.name = Path(command[1]).stem.strip("_")
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            command, env=os.environ | dict(environment or {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True,
        )  # fmt: skip
        self.ready = self._read()
        self._signal(signal.SIGSTOP)

    def ask(self, work: Mapping[str, Any]) -> dict[str, Any]:
        """What it answers to `work`. Raises RuntimeError if it ended instead."""
        assert self.process.stdin
        self._signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        self._signal(signal.SIGSTOP)
        return answer

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.log.seek(0)
            last = "".join(self.log.readlines()[-15:])
            raise RuntimeError(f"{self.name} ended with status {status}. `make bench-env` installs the peers.\n{last}")
        return json.loads(line)

    def _signal(self, number: int) -> None:
        for pid in (self.process.pid, *descendants(self.process.pid)):
            os.kill(pid, number)

    def close(self) -> None:
        if self.process.poll() is None:
            self._signal(signal.SIGCONT)
            assert self.process.stdin
            self.process.stdin.close()
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()
        self.log.close()


def installed(python: Path, package: str) -> str | None:
    """The version of a package in another environment; None without it."""
    if not python.exists():
        return None
    code = f"from importlib.metadata import version; print(version({package!r}))"
    told = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return told.stdout.strip() or None
