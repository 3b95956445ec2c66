"""Data parallelism for a tiny model on a CPU: forked processes share the weights and each compute a part of the gradient.

A tiny model's matrices are too small for two threads, but two processes can each take half of a step's rows. The weights are
in shared memory, so an update by the parent needs no sending. Each child writes its gradient to its own buffer, and the parent
adds these in a fixed order. Muon's matrices are divided too. The result depends on the rows and the number of processes, never
on time.

It needs Linux and one thread per process. Large models on GPUs are divided by learner/parallel.py instead.
"""

import mmap
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import torch

from whetstone.batch import Row, tokens_of
from whetstone.learner.muon import orthogonalise
from whetstone.run.processes import fork

SMALLEST_SHARE = 192  # tokens; a smaller share costs more than it saves

Groups = Sequence[Sequence[Row]]
Sums = dict[str, float]
# (groups of rows, temperature) -> the loss and its sums; adds the gradient to the parameters
Work = Callable[[Groups, float], Sums]


def shares(groups: Groups, count: int) -> list[list[Sequence[Row]]]:
    """At most `count` shares with about the same number of tokens; fewer if they would be too small."""
    sizes = list(map(tokens_of, groups))
    count = max(1, min(count, sum(sizes) // SMALLEST_SHARE, len(groups)))
    return [[groups[i] for i in part] for part in divide(sizes, count)]


def divide(sizes: Sequence[float], count: int) -> list[list[int]]:
    """Indices in `count` parts: the largest item first, each to the part with the smallest sum."""
    parts: list[list[int]] = [[] for _ in range(count)]
    used = [0.0] * count
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = used.index(min(used))
        parts[least].append(i)
        used[least] += sizes[i]
    return parts


class Replicas:
    """`processes` - 1 forked copies of this process that compute for it, with `work` as it was when they were forked.

    `matrices` are the parameters that Muon updates. The methods raise RuntimeError if a process dies or fails; the gradient
    is then incomplete, and no update may follow.
    """

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], processes: int, work: Work,
        matrices: Sequence[torch.nn.Parameter] = (),
    ):  # fmt: skip
        self.work, self.parameters = work, parameters
        share_memory(parameters)
        self.directions = shared_like(matrices)
        self.parts = divide([m.numel() * min(m.shape) for m in matrices], processes)
        self.children = [self._fork() for _ in range(processes - 1)]

    def gradient(self, groups: Groups, temperature: float) -> Sums:
        """Add the gradient of all groups to the parameters. Returns the sums over all rows."""
        first, *others = shares(groups, len(self.children) + 1)
        busy = self.children[: len(others)]
        for (pid, pipe, _), share in zip(busy, others, strict=True):
            self._ask(pid, pipe, ("gradient", share, temperature))
        totals = self.work(first, temperature)
        for pid, pipe, gradients in busy:
            sums = self._answer(pid, pipe)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad += gradient
            for name, amount in sums.items():
                totals[name] = totals.get(name, 0.0) + amount
        return totals

    def orthogonalise(self, matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Muon's orthogonalised matrices; each process computes some. The next call overwrites the result."""
        for place, matrix in zip(self.directions, matrices, strict=True):
            place.copy_(matrix)
        first, *others = self.parts
        for (pid, pipe, _), part in zip(self.children, others, strict=True):
            self._ask(pid, pipe, ("orthogonalise", part, 0.0))
        self._orthogonalise(first)
        for pid, pipe, _ in self.children:
            self._answer(pid, pipe)
        return self.directions

    def _orthogonalise(self, part: Sequence[int]) -> None:
        with torch.no_grad():
            for i in part:
                self.directions[i].copy_(orthogonalise(self.directions[i]))

    @staticmethod
    def _ask(pid: int, pipe: Connection, message: tuple[str, Any, float]) -> None:
        try:
            pipe.send(message)
        except OSError:
            raise RuntimeError(died(pid)) from None

    @staticmethod
    def _answer(pid: int, pipe: Connection) -> Sums:
        try:
            failure, sums = pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(died(pid)) from None
        if failure:
            raise RuntimeError(f"a training process failed:\n{failure}")
        return sums

    def close(self) -> None:
        for pid, pipe, _ in self.children:
            pipe.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.children = []

    def _fork(self) -> tuple[int, Connection, list[torch.Tensor]]:
        gradients = shared_like(self.parameters)
        ours, theirs = Pipe()

        def work() -> None:
            ours.close()
            for number in (
                signal.SIGINT,
                signal.SIGTERM,
            ):  # the parent gets them too: it finishes the step, then ends us
                signal.signal(number, signal.SIG_IGN)
            with suppress(EOFError, OSError):  # the parent is gone
                self._serve(theirs, gradients)

        pid = fork("training", work)
        theirs.close()
        return pid, ours, gradients

    def _serve(self, pipe: Connection, gradients: list[torch.Tensor]) -> None:
        while True:
            what, share, temperature = pipe.recv()
            sums: Sums = {}
            try:
                if what == "gradient":
                    for parameter, gradient in zip(self.parameters, gradients, strict=True):
                        parameter.grad = gradient.zero_()
                    sums = self.work(share, temperature)
                else:
                    self._orthogonalise(share)
            except Exception:
                pipe.send((traceback.format_exc(), {}))
            else:
                pipe.send(("", sums))


def died(pid: int) -> str:
    return (
        f"training process {pid} died (out of memory?): nothing was updated. Run again: it goes on from the last checkpoint. "
        "With parallel.forks = 1 one process does everything."
    )


def shared_like(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Zeros of the same shapes and types in anonymous memory that forked children share (/dev/shm may be small)."""
    align = 64
    sizes = [-(-t.numel() * t.element_size() // align) * align for t in tensors]
    memory = memoryview(mmap.mmap(-1, sum(sizes) or align))
    places, at = [], 0
    for t, size in zip(tensors, sizes, strict=True):
        places.append(torch.frombuffer(memory, dtype=t.dtype, count=t.numel(), offset=at).view(t.shape))
        at += size
    return places


def share_memory(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Move the parameters to memory that forked children share."""
    for parameter, place in zip(parameters, shared_like(parameters), strict=True):
        with torch.no_grad():
            place.copy_(parameter)
        parameter.data = place
