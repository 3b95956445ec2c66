"""Generators and graders that follow a script, and stages built by hand: rooms are tested without a pipeline."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from whetstone.learner.steps import Steps
from whetstone.records import Completion, Problem, Prompt, Rollout, Sampling, Verdict
from whetstone.run.folder import Stage
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings, StageSettings

TINY = ModelSettings(layers=2, hidden=64, mlp=96, heads=2, kv_heads=1, vocabulary=300, context=256)


class Killed(BaseException):
    """A kill: nothing in the house may catch it."""


def stage(folder: Path, settings: StageSettings, **inputs: Path) -> Stage:
    folder.mkdir(parents=True, exist_ok=True)
    run = RunSettings(name="test", folder=folder.parent)
    return Stage(
        folder.name, settings.kind, folder, settings, inputs, run, TINY, ParallelSettings(device="cpu"), ScoreSettings()
    )


def kill_after(monkeypatch, steps: int) -> None:
    """The process dies once so many steps are logged, before the checkpoint that would follow."""
    plain = Steps.log
    seen = 0

    def log(self, step, tokens, **values):
        nonlocal seen
        plain(self, step, tokens, **values)
        seen += 1
        if seen == steps:
            raise Killed

    monkeypatch.setattr(Steps, "log", log)


def problem(name: str = "p", answer: str = "1", **more) -> Problem:
    return Problem(id=name, question=f"{name}?", answer=answer, **more)


def rollout(
    name: str = "p", index: int = 0, correct: bool | None = True, tokens: int = 3, stop: str = "end", **more
) -> Rollout:
    ids = [7 + index] * tokens
    return Rollout(name, index, [1, 2], ids, [-1.0] * tokens, 1.0, stop, f"{name}/{index}", correct, **more)


class Scripted:
    """A Generator: the text of (problem, index) by a function; `order` turns what is asked into the order of finishing."""

    def __init__(self, text=lambda prompt, sampling: f"{prompt.problem_id}/{prompt.index}", order=list):
        self.text, self.order = text, order
        self.asked: list[tuple[str, int]] = []
        self.dies_after = -1

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        for prompt in self.order(list(prompts)):
            if len(self.asked) == self.dies_after:
                raise Killed
            self.asked.append((prompt.problem_id, prompt.index))
            text = self.text(prompt, sampling)
            yield Completion(prompt.problem_id, prompt.index, text, "end", [1, 2], [5] * len(text), [-0.5] * len(text))


class Grader:
    """A Verifier: right when the text contains the gold answer, undecided when it contains a question mark."""

    def check(self, text: str, gold: str, policy: str = "math") -> Verdict:
        if "?" in text:
            return Verdict(None, "timeout")
        return Verdict(gold in text, "equal" if gold in text else "different", text[-1:])

    def check_many(self, items: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        return [self.check(*item) for item in items]

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        pass
