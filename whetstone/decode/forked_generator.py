"""An engine on several cores: each call forks child processes, which share the weights of that moment.

A step of few rows is bound by memory and by calls, so threads that split a product gain little; several processes that each
sample a share of the prompts gain all of their cores. A fork takes some tens of milliseconds and copies no weights: what the
engine makes of them (packed matrices) is made before. Each child writes its completions to a file, which the parent reads
between its own steps. CPU and Linux only: elsewhere, and for few prompts, the engine works alone. The shares depend on the
prompts and the number of processes alone: the same call gives the same completions again.
"""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from whetstone.decode.engine import Controls, Engine
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.processes import can_fork, cores, fork, one_thread
from whetstone.run.settings import ParallelSettings

SMALLEST_SHARE = 32  # prompts; a fork does not pay for fewer
PAUSE = 0.02  # seconds between two looks for what children have written


class ForkedGenerator:
    """A Generator over `engine` and `processes` - 1 forked copies of it.

    `generate` raises RuntimeError if a child process dies, as its prompts then have no completions.
    """

    def __init__(self, engine: Engine, processes: int):
        self.engine = engine
        self.processes = processes if can_fork(next(engine.model.parameters()).device.type) else 1

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling, control: Controls | None = None
    ) -> Iterator[Completion]:
        """Completions as they finish, in this process or in a child. The samples of a problem stay in one process."""
        groups = [list(group) for _, group in groupby(prompts, key=lambda p: p.problem_id)]
        count = max(1, min(self.processes, sum(map(len, groups)) // SMALLEST_SHARE, len(groups)))
        shares = [[p for group in groups[i::count] for p in group] for i in range(count)]
        if count == 1:
            yield from self.engine.generate(shares[0], sampling, control)
            return
        with (
            tempfile.TemporaryDirectory(prefix="whetstone-") as folder,
            one_thread(),
            self.engine.runner.weights_made(),
        ):
            files = [Path(folder) / str(i) for i in range(1, count)]
            work = zip(shares[1:], files, strict=True)
            children = [self._fork(share, sampling, control, path) for share, path in work]
            try:
                with ExitStack() as stack:
                    written = [stack.enter_context(path.open("rb")) for path in files]
                    decoding = self.engine.decode(shares[0], sampling, control)
                    while decoding.busy or children:
                        if decoding.busy:
                            yield from decoding.step()
                        else:
                            time.sleep(PAUSE)
                        _reap(children)
                        for file in written:  # after the look at the children: all that an ended one wrote is there
                            yield from _new_completions(file)
            finally:
                for child in children:  # the caller stopped early, or something failed
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)

    def _fork(self, share: list[Prompt], sampling: Sampling, control: Controls | None, path: Path) -> int:
        """The process id of a child that writes the completions of its share to `path`."""
        path.touch()

        def work() -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
            with path.open("w", encoding="utf-8") as out:
                for completion in self.engine.generate(share, sampling, control):
                    out.write(json.dumps(asdict(completion)) + "\n")
                    out.flush()

        return fork("sampling", work)


def _reap(children: list[int]) -> None:
    """Remove the children that have ended from the list. Raises RuntimeError if one failed."""
    for child in tuple(children):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            children.remove(child)
        if status:
            raise RuntimeError(
                f"a sampling process ended with status {status} (out of memory?): set [parallel] forks = 1 to sample in "
                "one process."
            )


def _new_completions(file: BinaryIO) -> Iterator[Completion]:
    """What was written since the last call. A line that is not complete yet is left for the next."""
    while (line := file.readline()).endswith(b"\n"):
        yield Completion(**json.loads(line))
    file.seek(-len(line), os.SEEK_CUR)


def sampler(
    model: Any, tokenizer: Any, parallel: ParallelSettings, processes: int = 1, int8: bool = False, max_batch: int = 256
) -> ForkedGenerator:
    """The in-process engine with `[parallel] forks` processes. `int8` and `max_batch` are explained at `Engine`.

    0 means one per core that this process may use, or just this one if several training `processes` sample together.
    """
    engine = Engine(model, tokenizer, max_batch=max_batch, int8=int8)
    return ForkedGenerator(engine, parallel.forks or (cores() if processes == 1 else 1))
