"""The machine and the versions that a run was made with, and how fast the machine was at the time."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import whetstone
from whetstone.run.processes import cores

PROBE_SECONDS = 0.2  # of matrix products before and after a run
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pyarrow", "pydantic", "math-verify")


def threads(wanted: int) -> int:
    """The recipe's number, else the user's OMP_NUM_THREADS, else the cores that this process may use."""
    return wanted or int(os.environ.get("OMP_NUM_THREADS", "0") or 0) or cores()


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
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        match = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        cpu = match[1] if match else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory": memory, "system": platform.platform()}


def versions() -> dict[str, str | None]:
    """Of this package and of those that results depend on; None if one is not installed."""
    versions: dict[str, str | None] = {"whetstone": whetstone.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


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
