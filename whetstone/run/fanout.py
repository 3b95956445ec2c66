"""The same work on many parts of a table, its results in the order of the parts: here, in processes, or on Ray's machines.

    for made in fan_out(work, parts, stage.parallel):

`work` is called with one part at a time, and no result depends on the parts before it: so it does not matter who does what, or
how many there are. It is pickled once for each process; parts and results are pickled, and results wait in memory, at most
IN_FLIGHT a process. A process that is killed, as when memory runs out, costs its part, which another does again.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from whetstone.run.processes import cores
from whetstone.run.progress import say
from whetstone.run.settings import ParallelSettings

P, R = TypeVar("P"), TypeVar("R")

FEW = 4  # parts; fewer are done in this process: others take a second to start
IN_FLIGHT = 2  # parts per process that are sent or wait for an earlier one
ATTEMPTS = 3  # times that processes may end without having done a part


def fan_out(work: Callable[[P], R], parts: Iterable[P], parallel: ParallelSettings) -> Iterator[R]:
    """work(part) for each part, in their order. Parts are taken as they are needed.

    Raises what `work` raises, ChildProcessError if processes end again and again, ImportError without Ray.
    """
    count, parts = parallel.forks or cores(), iter(parts)
    if parallel.data == "ray":
        return _on_ray(work, parts, parallel.forks)
    first = list(islice(parts, FEW))
    every = chain(first, parts)
    return map(work, every) if count == 1 or len(first) < FEW else _in_processes(work, every, count)


def _in_processes(work: Callable[[P], R], parts: Iterator[P], count: int) -> Iterator[R]:
    pool, waiting = _Pool(work, count), deque[tuple[P, Future[R]]]()
    try:
        while True:
            waiting += ((part, pool.submit(part)) for part in islice(parts, IN_FLIGHT * count - len(waiting)))
            if not waiting:
                return
            part, future = waiting[0]
            try:
                result = future.result()
            except BrokenProcessPool:
                pool.restart()
                for place, (part, future) in enumerate(waiting):
                    if not future.done() or future.cancelled() or future.exception():
                        waiting[place] = part, pool.submit(part)
                continue
            waiting.popleft()
            pool.failures = 0
            yield result
    finally:
        pool.close()


class _Pool:
    """Processes that have the work. They are started afresh, so that neither threads nor locks of this one are copied."""

    def __init__(self, work: Callable[[Any], Any], count: int):
        self.work, self.count, self.failures = work, count, 0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=(self.work,))

    def submit(self, part: Any) -> Future[Any]:
        try:
            return self.executor.submit(_do, part)
        except BrokenProcessPool as error:  # it ended between two parts
            broken = Future[Any]()
            broken.set_exception(error)
            return broken

    def restart(self) -> None:
        """After a process has ended, which ends the others too."""
        self.failures += 1
        self.close()
        if self.failures == ATTEMPTS:
            raise ChildProcessError(
                f"the processes that share the data ended {ATTEMPTS} times before they had done a part: memory may be too "
                "small for them ([parallel] forks = 1 needs the least), or a script starts the run outside of `if __name__ == "
                '"__main__":`.'
            )
        say("a process that shares the data was killed: its part is done again")
        self.start()

    def close(self) -> None:
        self.executor.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any]  # of this process
_held: list[Any] = []  # where Ray has it


def _begin(work: Callable[[Any], Any]) -> None:
    """In a new process: it ends with its parent, and leaves Ctrl-C to it."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)


def _do(part: Any) -> Any:
    return _work(part)


def _on_ray(work: Callable[[P], R], parts: Iterator[P], count: int) -> Iterator[R]:
    """Ray repeats the parts of a worker or machine that it loses. Without RAY_ADDRESS it runs on this machine, meanwhile."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    own = not ray.is_initialized()
    if own:
        here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": count or cores(), "include_dashboard": False}
        _start(ray, **here)
    try:
        count = count or int(ray.cluster_resources().get("CPU", 1))
        held = [ray.put(work)]  # in a list: Ray would unpickle a bare reference for each part
        begin, waiting = ray.remote(max_retries=ATTEMPTS)(_on_worker).remote, deque[Any]()
        while True:
            waiting += (begin(held, part) for part in islice(parts, IN_FLIGHT * count - len(waiting)))
            if not waiting:
                return
            yield ray.get(waiting.popleft())
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any, **settings: Any) -> None:
    try:
        ray.init(logging_level="error", log_to_driver=False, **settings)
    except Exception as error:  # Ray gives up after half a minute, as on a busy machine
        ray.shutdown()
        raise ChildProcessError(
            f"Ray did not start: {error} Start it by `ray start --head` and set RAY_ADDRESS=auto, or leave out [parallel] data."
        ) from error


def _on_worker(held: list[Any], part: Any) -> Any:
    """In a worker, which other fan-outs use, too: it keeps the work that it did last."""
    import ray

    global _work, _held
    if _held != held:
        _work, _held = ray.get(held[0]), held
    return _work(part)
