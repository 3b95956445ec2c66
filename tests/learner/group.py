"""Run a function in several processes that train together (gloo, this machine), as torchrun would start them."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from whetstone.learner import parallel

START = "fork" if sys.platform == "linux" else "spawn"  # a fork need not import torch again


def in_group(folder: Path, count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(*arguments)` returns in each process, by rank. `work` must be a module's function."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _process, (count, port, folder, work, arguments), nprocs=count, start_method=START
    )
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(count)]


def _process(rank: int, count: int, port: int, folder: Path, work: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(work(*arguments), folder / f"rank-{rank}.pt")
    parallel.leave()
