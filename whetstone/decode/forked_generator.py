"""An engine on several cores: each call forks children that share the weights as they are at that moment.

A tiny model's matrices are too small for two threads to share, but two processes can sample two halves of the prompts.
A fork costs some tens of milliseconds and copies nothing, so there are no weights to publish and none to go stale. Each
child writes its completions to a file, which the parent reads between those of its own share. CPU and Linux only:
elsewhere, and for a single share, the engine works alone.

Which prompts go together depends on the number of processes and the prompts, never on time: the same call gives the same
completions again.
"""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from whetstone.decode.decoding import Control
from whetstone.decode.engine import Engine
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.processes import cores, fork, may_fork
from whetstone.run.settings import ParallelSettings

SMALLEST_SHARE = 32  # prompts; fewer are not worth a fork


class ForkedGenerator:
    """A Generator over `engine` and `processes` - 1 forked copies of it.

    Raises RuntimeError when a child dies: its prompts have no completions then.
    """

    def __init__(self, engine: Engine, processes: int):
        self.engine = engine
        self.processes = processes if may_fork(next(engine.model.parameters()).device.type) else 1

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling, control: Callable[[Prompt], Control] | None = None
    ) -> Iterator[Completion]:
        """Completions as they finish, here or in the children."""
        groups = [list(group) for _, group in groupby(prompts, key=lambda p: p.problem_id)]
        count = max(1, min(self.processes, sum(map(len, groups)) // SMALLEST_SHARE, len(groups)))
        shares = [[p for group in groups[i::count] for p in group] for i in range(count)]
        with tempfile.TemporaryDirectory(prefix="whetstone-") as folder:
            files = [Path(folder) / str(i) for i in range(1, count)]
            children = [
                self._fork(share, sampling, control, path) for share, path in zip(shares[1:], files, strict=True)
            ]
            with ExitStack() as stack:
                written = [stack.enter_context(path.open("rb")) for path in files]
                try:
                    for done in self.engine.generate(shares[0], sampling, control):
                        yield done
                        for lines in written:
                            yield from _whole_lines(lines)
                    statuses = [os.waitpid(children.pop(0), 0)[1] for _ in shares[1:]]
                finally:
                    for child in children:  # stopped before the end: nobody waits for these any more
                        os.kill(child, signal.SIGKILL)
                        os.waitpid(child, 0)
                for lines, status in zip(written, statuses, strict=True):
                    if status:
                        raise RuntimeError(
                            f"a sampling process ended with status {status} (out of memory?): set [run] threads = 2 or "
                            "more to sample in one process."
                        )
                    yield from _whole_lines(lines)

    def _fork(
        self, share: list[Prompt], sampling: Sampling, control: Callable[[Prompt], Control] | None, path: Path
    ) -> int:
        path.touch()

        def work() -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this one
            with path.open("w", encoding="utf-8") as out:
                for completion in self.engine.generate(share, sampling, control):
                    out.write(json.dumps(asdict(completion)) + "\n")
                    out.flush()

        return fork("sampling", work)


def _whole_lines(lines: BinaryIO) -> Iterator[Completion]:
    """What was written since the last time; a line that is not whole yet is left for the next."""
    while (line := lines.readline()).endswith(b"\n"):
        yield Completion(**json.loads(line))
    lines.seek(-len(line), os.SEEK_CUR)


def sampler(model: Any, tokenizer: Any, parallel: ParallelSettings, processes: int = 1) -> ForkedGenerator:
    """The in-process engine with as many samplers as the recipe asks for.

    0 is one for each core that the process may use, and this one alone where several `processes` sample together.
    """
    return ForkedGenerator(Engine(model, tokenizer), parallel.samplers or (cores() if processes == 1 else 1))
