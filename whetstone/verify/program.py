r"""Programs of thought: runs Python that a model wrote, isolated, and takes its answer.

    from whetstone.verify.program import Sandbox, run_program

    run_program("def solution():\n    return 6 * 7").answer                # "42"
    with Sandbox(size=2) as sandbox:
        outcomes = sandbox.run_many(programs)

The answer is what `solution()` returns (PAL, Gao et al. 2023, arXiv 2211.10435), else the variable `ans` or `answer`,
else the last line printed (MAmmoTH, Yue et al. 2023, arXiv 2309.05653; ToRA, Gou et al. 2024, arXiv 2309.17452, whose
text holds several ```python blocks: the last one counts). It is what the program claims: compare it, do not trust it.

Differs from those papers, which run programs with `exec` and an alarm in the trainer's own process: here a program runs
in a forked child of a separate process, at the stronger of two levels of isolation that the machine offers
(`isolation/kernel.py`), or not at all. The level is in `Sandbox.level` and in every outcome. A sandbox that has started at
one level never continues at a weaker one.

Measured on gsm_hard's 1,319 programs, one process on a 2-core x86 machine busy with other work: 66 to 100 programs per
second at either level, about 7 ms of processor time per program. Nearly all of it is for forking a process that holds
sympy (80 MB).
"""

import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from whetstone.verify.children import Child, Died, Killed, NotStarted, Pool
from whetstone.verify.isolation.kernel import LEVELS
from whetstone.verify.wire import as_table

REASONS = (
    "answered",
    "no program",  # the text holds none
    "no answer",  # it ended well and neither returned, named nor printed anything
    "syntax",  # it is not Python
    "error",  # it raised
    "timeout",
    "memory",
    "output",  # it wrote, or answered, more than allowed
    "crashed",  # it ended without a report
    "refused",  # nothing was run: this machine offers no level of isolation that is accepted
)
ANSWER_CHARS = 10_000
CODE_BYTES = 1 << 20
GRACE_SECONDS = 10.0  # past a program's deadline; then the sandbox process itself is taken for dead
PROMISE = "Programs that a model wrote are run isolated or not at all"
REMEDY = (
    "Allow user namespaces (Debian: sysctl kernel.unprivileged_userns_clone=1; Ubuntu 24.04: sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0; Docker: --security-opt seccomp=unconfined), or seccomp filters, or do "
    "without programs (`programs = 0` in a rollouts stage)."
)

FENCE = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE | re.I)
ANY_FENCE = re.compile(r"^[ \t]*```[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
CODE_LINE = re.compile(
    r"^(?:(?:import|from)\s+[\w.]+|def\s+\w+\s*\(|class\s+\w+|print\s*\(|[A-Za-z_][\w, ]*=[^=]|(?:for|while|if)\b.*:\s*$)"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    >>> Outcome("42", "answered").answer
    '42'
    """

    answer: str | None
    reason: str  # one of REASONS
    detail: str = ""  # the error's own words, or the remedy
    printed: str = ""  # the last 4 KiB of it
    level: str | None = None  # of isolation, one of LEVELS; None if nothing was run
    seconds: float = 0.0


def programs(text: str) -> list[str]:
    """The programs in a completion, in order: its python blocks, else its plain blocks, else its lines of code."""
    blocks = FENCE.findall(text) or [block for block in ANY_FENCE.findall(text) if _looks_like_code(block)]
    if blocks:
        return blocks
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if CODE_LINE.match(line):
            return ["\n".join(lines[number:])]
    return []


def _looks_like_code(text: str) -> bool:
    return any(CODE_LINE.match(line) for line in text.splitlines())


class Refused(ValueError):
    """No accepted level of isolation can be obtained; the text says what is missing and what to do."""


class Process(Child):
    """One sandbox process, which forks a child for each program."""

    def __init__(self, levels: Sequence[str]):
        if sys.platform != "linux":
            raise Refused(
                f"{PROMISE}, and this is {sys.platform}: isolation needs the namespaces or the seccomp filters of Linux. "
                "Use a Linux machine, container or virtual machine (Docker, WSL 2)."
            )
        # Nothing of ours is passed on but where libraries lie: a program can read its own memory
        libraries = ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        environment = {key: os.environ[key] for key in libraries if key in os.environ}
        for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[key] = "1"  # a process with threads may neither enter a user namespace nor fork safely
        environment |= {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}  # the same answer every time
        call = f"from whetstone.verify.isolation.host import serve; serve({(*levels,)!r})"
        super().__init__("sandbox", call, environment, "-P")
        try:
            offer = self.until_ready(f"Try `{sys.executable} -c 'import sympy, numpy'`. {REMEDY}")
        except Killed:
            raise
        except NotStarted as error:
            raise Refused(f"{PROMISE}, and {error}") from None
        self.level: str | None = offer["level"]
        self.missing: dict[str, str] = offer["missing"]
        if self.level is None:
            self.kill()
            reasons = "; ".join(f"{level}: {reason}" for level, reason in self.missing.items())
            raise Refused(f"{PROMISE}, and this machine offers no level of isolation ({reasons}). {REMEDY}")

    def run(self, question: dict[str, Any]) -> dict[str, Any]:
        """How the program ended. Raises TimeoutError or Died if the sandbox process itself failed."""
        return self.ask(question, question["seconds"] + GRACE_SECONDS)


class Sandbox(Pool[Process]):
    """Runs programs, at most `size` at a time. Safe from any thread, and in a forked child.

    `levels` are the levels of isolation that may be used; the strongest that the machine offers is taken, and kept.
    `seconds` (wall time), `memory_bytes` and `output_bytes` are limits of one program.
    """

    def __init__(
        self,
        size: int = 1,
        seconds: float = 2.0,
        memory_bytes: int = 512 << 20,
        output_bytes: int = 1 << 20,
        levels: Sequence[str] = LEVELS,
    ):
        if size < 1:
            raise ValueError(f"size = {size}: a program needs a process to run in. Use 1 or more.")
        if not seconds > 0:
            raise ValueError(f"seconds = {seconds}: no program ends in no time. Use seconds above 0, say 2.")
        unknown = [level for level in levels if level not in LEVELS]
        if unknown or not levels:
            problem = f"{unknown[0]!r} is not a level of isolation" if unknown else "programs are not run unisolated"
            raise ValueError(f"levels = {list(levels)}: {problem}. Use one or both of {', '.join(LEVELS)}.")
        self.seconds = seconds
        self.memory_bytes = memory_bytes
        self.output_bytes = output_bytes
        self.levels = tuple(level for level in LEVELS if level in levels)
        self.missing: dict[str, str] = {}  # what the machine lacks for the levels above the one obtained
        self._level: str | None = None
        self._refusal: Refused | None = None  # a refusal is not tried again for every program
        super().__init__(size)

    def __reduce__(self) -> tuple[type["Sandbox"], tuple[object, ...]]:
        return type(self), (self.size, self.seconds, self.memory_bytes, self.output_bytes, self.levels)

    def require(self) -> str:
        """The level of isolation; starts a process to find out. Raises Refused if none can be obtained."""
        if self._level is None:
            with self.lend():
                pass
        return self._level

    @property
    def level(self) -> str | None:
        """The level of isolation, None if none can be obtained; starts a process to find out."""
        with contextlib.suppress(Refused):
            return self.require()
        return None

    def in_words(self) -> str:
        """The level, and what the machine lacks for a stronger one. Raises Refused if none can be obtained."""
        level = self.require()
        lacking = "; ".join(f"{stronger}: {reason}" for stronger, reason in self.missing.items())
        return f"level {level!r}" + (f", as this machine has no stronger one ({lacking})" if lacking else "")

    def run(self, code: str, seconds: float | None = None) -> Outcome:
        """Runs one program. Nothing that the program is or does makes this raise."""
        seconds = self.seconds if seconds is None else seconds
        if len(code) > CODE_BYTES:
            return Outcome(None, "syntax", f"it has {len(code)} characters, and at most {CODE_BYTES} are read")
        question = {"code": code, "seconds": seconds, "memory": self.memory_bytes, "output": self.output_bytes}
        for attempt in (1, 2):
            start = time.monotonic()
            try:
                with self.lend() as process:
                    start = time.monotonic()
                    return _outcome(process.run(question), process.level)
            except (Refused, NotStarted) as error:
                return Outcome(None, "refused", str(error))
            except TimeoutError:
                return Outcome(None, "timeout", "", "", self._level, time.monotonic() - start)
            except (Died, ValueError):
                detail = "the sandbox process ended with it"
                return Outcome(None, "crashed", detail, "", self._level, time.monotonic() - start)
            except BrokenPipeError:  # it ended before it was asked, so the program is not the cause
                if attempt == 2:
                    return Outcome(None, "crashed", "the sandbox process keeps ending", "", self._level)
        raise AssertionError("unreachable")

    def run_text(self, completion: str) -> Outcome:
        """Runs the last program in a completion."""
        blocks = programs(completion)
        return self.run(blocks[-1]) if blocks else Outcome(None, "no program")

    def run_many(self, codes: Sequence[str]) -> list[Outcome]:
        """Outcomes in order."""
        if self.size == 1 or len(codes) < 2:
            return [self.run(code) for code in codes]
        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(self.run, codes))

    def start(self) -> Process:
        if self._refusal is not None:
            raise self._refusal
        try:
            process = Process(self.levels if self._level is None else (self._level,))
        except Refused as error:
            self._refusal = error
            raise
        with self.lock:
            if self._level is None:
                self._level, self.missing = process.level, process.missing
            settled = self._level
        if LEVELS.index(process.level) > LEVELS.index(settled):  # two started at once and obtained different levels
            process.kill()
            raise Refused(f"the level {settled} was obtained before and only {process.level} now. Start a new Sandbox.")
        return process


def _outcome(reply: dict[str, Any], level: str | None) -> Outcome:
    """The outcome of a program. A program can write any report, so nothing in it is trusted."""
    ended, printed, seconds = reply["ended"], reply["printed"], reply["seconds"]

    def without_answer(reason: str, detail: str = "") -> Outcome:
        return Outcome(None, reason, detail, printed, level, seconds)

    if ended in ("timeout", "output"):
        return without_answer(ended)
    report = as_table(reply["report"])
    if report is None or ended != "finished":
        return without_answer("crashed", ended if ended != "finished" else "it ended without a report")
    reason, answer, detail = report.get("reason"), report.get("answer"), str(report.get("detail", ""))[:500]
    if reason in REASONS:
        return without_answer("crashed") if reason in ("answered", "refused") else without_answer(reason, detail)
    if answer is None:
        lines = printed.split("\n")
        answer = next((line.strip() for line in reversed(lines) if line.strip()), None)
    if not isinstance(answer, str) or not answer.strip():
        return without_answer("no answer")
    if len(answer) > ANSWER_CHARS:
        return without_answer("output", f"an answer of {len(answer)} characters")
    return Outcome(answer.strip(), "answered", "", printed, level, seconds)


@lru_cache(maxsize=1)
def _shared() -> Sandbox:
    return Sandbox()


def require_isolation() -> str:
    """How programs are isolated on this machine, in words. Raises Refused if they cannot be."""
    with Sandbox() as sandbox:
        return sandbox.in_words()


def run_program(code: str, seconds: float = 2.0) -> Outcome:
    """Runs one program in a sandbox that all callers share."""
    return _shared().run(code, seconds)
