"""How fast this machine's processor computes, from a probe of a second, for the hours that `plan` estimates.

The probe runs in a process of its own, as it loads torch. Its result is kept for a week in the user's cache folder, per
processor, threads and version of torch. Times are the best of many, in CPU time with one thread, so that other work beside it
matters little.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from whetstone.run.cpu import cpu_name
from whetstone.run.folder import write_text

SECONDS = 0.25  # per quantity
KEPT_SECONDS = 7 * 86_400
ROWS, INPUTS, OUTPUTS = 1024, 576, 1536  # of the products: tokens, and a matrix of a model with 135 M weights


@dataclass(frozen=True)
class Speed:
    """Of one process with the given threads."""

    float32: float  # operations per second of products in fp32
    bfloat16: float  # the same in bf16
    passes: float  # bytes per second of an elementwise function
    gpu: bool  # whether there is one, which training would use instead


def measured_speed(threads: int) -> Speed:
    """The kept result, else that of a new probe. Raises RuntimeError if the probe fails."""
    path = cache_folder() / "speed.json"
    key = f"{cpu_name()}, {threads} threads, torch {importlib.metadata.version('torch')}"
    kept = _kept(path)
    with suppress(KeyError, TypeError):
        if time.time() - kept[key]["at"] < KEPT_SECONDS:
            return Speed(**kept[key]["speed"])
    command = [sys.executable, "-c", f"from whetstone.run.speed import probe; probe({threads})"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the speed of this machine could not be measured: {done.stderr.strip()[-500:]}")
    speed = Speed(**json.loads(done.stdout))
    with suppress(OSError):  # a cache folder that cannot be written: it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(kept | {key: {"at": time.time(), "speed": asdict(speed)}}, indent=1) + "\n")
    return speed


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whetstone"


def _kept(path: Path) -> dict:
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text())
        return kept if isinstance(kept, dict) else {}
    return {}


def probe(threads: int) -> None:
    """Measure, and write the result as JSON."""
    import torch

    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter

    def rate(amount: float, work: Callable[[], object]) -> float:
        best, end = float("inf"), clock() + SECONDS
        while clock() < end:
            start = clock()
            work()
            best = min(best, clock() - start)
        return amount / best

    def products(dtype: torch.dtype) -> float:
        a, b = torch.ones(ROWS, INPUTS, dtype=dtype), torch.ones(OUTPUTS, INPUTS, dtype=dtype)
        return rate(2 * ROWS * INPUTS * OUTPUTS, lambda: a @ b.T)

    x = torch.ones(ROWS, OUTPUTS)
    speed = Speed(
        float32=products(torch.float32),
        bfloat16=products(torch.bfloat16),
        passes=rate(x.nbytes, lambda: torch.nn.functional.silu(x)),
        gpu=torch.cuda.is_available(),
    )
    sys.stdout.write(json.dumps(asdict(speed)))
