"""One of the processes that sample a model's answers together: `torchrun … --module whetstone.sampling_worker TASK.json`.

Each samples and grades its share, and the first keeps the journal (sample.py). The process that started them reads the
answers from it, so a call that was killed goes on where it stopped, in any number of processes.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from whetstone.candidate import Answers, Candidate, LocalModel, local_candidate
from whetstone.prompting import prompting_of
from whetstone.records import Problem, Sampling, Verifier
from whetstone.run.folder import read_json, write_json
from whetstone.run.torchrun import process, run_processes
from whetstone.run.visible import guard_libraries
from whetstone.sample import finished

TASK = "task.json"
SILENCE = 900.0  # seconds after which a process that is gone is named


@dataclass(frozen=True)
class Task:
    """What the processes are given, as JSON."""

    model: LocalModel
    problems: list[Problem]
    samples: int
    sampling: Sampling
    journal: Path
    label: str
    one_thread: bool  # in each; else its share of the cores


@dataclass(frozen=True)
class Shared(Candidate):
    """A model folder that `[parallel] processes` processes sample, each a share."""

    model: LocalModel = field(kw_only=True)

    def answers(
        self, problems: Sequence[Problem], samples: int, sampling: Sampling, verifier: Verifier, journal: Path, label: str
    ) -> Answers:  # fmt: skip
        import torch

        groups = finished(journal, problems, samples)
        if groups is None:
            task = Task(self.model, list(problems), samples, sampling, journal, label, torch.get_num_threads() == 1)
            sample_in_processes(task, journal.parent / "processes")
            groups = finished(journal, problems, samples)
            assert groups is not None, f"the processes ended, and {journal} is not complete"
        return Answers(groups)


def open_candidate(model: LocalModel) -> Candidate:
    """Sampled in this process, or in several, in which case this one loads no weights."""
    if model.parallel.processes == 1:
        return local_candidate(model)
    from whetstone.model import load_chat

    prompting = prompting_of(model.prompt, model.folder)
    chat, context = load_chat(model.folder, prompting.thinking)
    return Shared(None, prompting, chat, context, model.weights, model=model)


def sample_in_processes(task: Task, folder: Path) -> None:
    """Start the processes and wait for them. Raises as `run_processes` does; their messages then stay in `folder`."""
    write_json(folder / TASK, TypeAdapter(Task).dump_python(task, mode="json"))
    parallel = task.model.parallel
    run_processes("whetstone.sampling_worker", folder / TASK, parallel.processes, folder, parallel.launch, SILENCE)
    shutil.rmtree(folder)


def sample_share(path: Path) -> None:
    """In each of the processes: sample and grade its share of the task in a file."""
    from whetstone.learner import parallel
    from whetstone.model import choose_device
    from whetstone.verify import MathVerifier

    task = TypeAdapter(Task).validate_python(read_json(path))
    parallel.settle(int(task.one_thread))
    settings = task.model.parallel
    group = parallel.join(settings, choose_device(settings.device))
    candidate = replace(local_candidate(task.model), process_group=group)
    with MathVerifier() as verifier:
        candidate.answers(task.problems, task.samples, task.sampling, verifier, task.journal, task.label)
    parallel.leave()


def main() -> None:
    guard_libraries()
    path = Path(sys.argv[1])
    with process(path.parent):
        sample_share(path)


if __name__ == "__main__":
    main()
