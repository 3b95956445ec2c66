"""What `whetstone evaluate` and `compare` do: problem sets by name, scores listed where they are of test sets, and printed."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.evaluate.any_model import ModelOptions, Task, evaluate_model
from whetstone.evaluate.problem_sets import read_problems
from whetstone.evaluate.protocols import find_protocol, settings_for
from whetstone.evaluate.published import beside
from whetstone.model_folder import check_model
from whetstone.problems.columns import AnswerFrom, read_mapping
from whetstone.records import Score, to_row
from whetstone.run.progress import say
from whetstone.terminal import print_published, print_scores
from whetstone.test_runs import is_test_set, listed


@dataclass(frozen=True)
class Sets:
    """The problem sets of a command, and how they are asked: `given` are the options that say so."""

    names: Sequence[str]
    protocol: str | None = None
    given: Mapping[str, Any] | None = None
    policy: str | None = None
    columns: Sequence[str] = ()
    answer_from: AnswerFrom = "column"

    def tasks(self) -> list[tuple[Task, bool]]:
        """Each with whether it is a published test set. Raises ValueError if none is named."""
        names, given = self.names, self.given or {}
        if self.protocol:
            known = find_protocol(self.protocol)
            names = names or list(known.sets)
            say(f"protocol {self.protocol}: {known.source}{f' (not said there: {known.open})' if known.open else ''}")
            changed = [f"{name} = {value}" for name, value in given.items() if value is not None]
            if changed:
                say(f"warning: {', '.join(changed)}: given beside the protocol, whose scores these are then not")
        if not names:
            raise ValueError(
                "no problem set is named. Name one with --benchmark (a file, or a known name), or a --protocol."
            )
        return [(self._task(name, given), is_test_set(name)) for name in names]

    def _task(self, name: str, given: Mapping[str, Any]) -> Task:
        problems = read_problems(name, self.policy, read_mapping(self.columns), self.answer_from)
        return Task(problems, settings_for(problems[0].benchmark, self.protocol, given))


def score(options: ModelOptions, sets: Sets, seed: int, output: Path | None) -> list[Score]:
    if not options.is_server:
        check_model(options.name)  # before a problem is read; nothing is downloaded for it
    tasks = sets.tasks()
    tests = {id(task) for task, is_test in tasks if is_test}

    def noted(task: Task, model: str) -> Any:
        return listed(task, model, seed) if id(task) in tests else nullcontext([])

    return evaluate_model(options, [task for task, _ in tasks], seed, output, noted)


def score_and_print(options: ModelOptions, sets: Sets, seed: int, output: Path | None) -> None:
    scores = score(options, sets, seed, output)
    print_scores(scores)
    print_published(beside([to_row(score) for score in scores]))
