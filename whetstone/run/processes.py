"""Processes of one machine: the cores there are for them, and forks that share what their parent has in memory."""

import gc
import os
import sys
from collections.abc import Callable


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def may_fork(device: str) -> bool:
    """Whether forked children may compute: a thread pool that the parent started is dead in them, and so is a GPU."""
    import torch

    return device == "cpu" and sys.platform == "linux" and torch.get_num_threads() == 1


def fork(what: str, work: Callable[[], None]) -> int:
    """The id of a child that does `work` and ends, with status 1 and a line on standard error if that raised."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    child = os.fork()
    if child:
        return child
    code = 1
    try:  # the child: no return into the caller's stack, no exit handlers of the parent
        gc.freeze()  # its collector must not touch, and so copy, what is shared
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{what} process: {error!r}\n".encode())
    finally:
        os._exit(code)
