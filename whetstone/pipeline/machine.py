"""The machine and the versions that a run was made with, and how fast the machine was at the time."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import whetstone
from whetstone.run.cpu import cpu_name
from whetstone.run.processes import cores
from whetstone.run.settings import ParallelSettings

PROBE_SECONDS = 0.2  # of matrix products before and after a run
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pyarrow", "pydantic", "math-verify")


def computed_on(parallel: ParallelSettings) -> dict[str, Any]:
    """What the last bits of a result depend on, besides inputs and settings: equal values give equal bits on a CPU."""
    import torch

    on_gpu = parallel.device != "cpu" and torch.cuda.is_available()
    rounding = ("forks", "processes", "shard", "micro_batch_tokens", "activation_checkpointing", "compile")
    return {
        "device": torch.cuda.get_device_name() if on_gpu else hardware()["cpu"],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "whetstone": code(),
        **{name: getattr(parallel, name) for name in rounding},
    }


def machine_speed() -> float:
    """GFLOP/s of an fp32 512 x 512 matrix product, the best of several: shows whether the machine was busy."""
    import torch

    a = torch.ones(512, 512)
    best, end = float("inf"), time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return round(2 * 512**3 / best / 1e9, 1)


def hardware() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "memory": memory, "system": platform.platform()}


def versions() -> dict[str, str | None]:
    """Of this package and of those that results depend on; None if one is not installed."""
    versions: dict[str, str | None] = {"whetstone": whetstone.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def code() -> str:
    """Which Whetstone this is: the checkout's commit, or the version of an installed package."""
    return git_revision() or whetstone.__version__


@cache
def git_revision() -> str | None:
    """The checkout's commit, with `-dirty` if files differ from it; None for an installed package."""
    root = Path(whetstone.__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None
