"""The steps of a training stage as an iterator that resumes, shows progress, logs, checkpoints, and stops cleanly.

    with Steps(stage, learner, total=len(plan), every=settings.checkpoint_every) as steps:
        for step in steps:
            …
            steps.log(step, tokens, loss=…, learning_rate=…)

The loop stays in the room; what surrounds every loop is here.
"""

import signal
from collections.abc import Iterator
from typing import Any

from whetstone.learner import checkpoint
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import Pace
from whetstone.run.folder import Stage
from whetstone.run.metrics import Metrics
from whetstone.run.progress import progress, say


class Steps:
    """`state` is the stage's own: whatever it puts there comes back after a kill. It must be JSON."""

    def __init__(self, stage: Stage, learner: Learner, total: int, every: int, unit: str = "steps"):
        self.stage, self.learner, self.total, self.every, self.unit = stage, learner, total, every, unit
        self.state: dict[str, Any] = {}
        self.folder = stage.folder / "checkpoints"
        self._stop_signal = 0

    def __enter__(self) -> "Steps":
        self.metrics = Metrics(self.stage.folder).__enter__()
        self.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load_newest(self.folder, self.learner)
        self.first = 0
        if found:
            self.first, self.state = found
            say(f"{self.stage.name}: goes on after step {self.first} of {self.total}")
        self.metrics.rewind(self.first)
        self._bar_context = progress(self.total, self.stage.name, unit=self.unit, done=self.first)
        self._bar = self._bar_context.__enter__()
        self._pace = Pace()
        self._handlers = {}
        try:
            for name in (signal.SIGINT, signal.SIGTERM):
                self._handlers[name] = signal.signal(name, self._ask_to_stop)
        except ValueError:  # not the main thread: signals stay as they are
            pass
        return self

    def _ask_to_stop(self, name: int, frame: object) -> None:
        if self._stop_signal:
            raise KeyboardInterrupt
        self._stop_signal = name
        say(f"{self.stage.name}: stopping after this step (again: at once)")

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while step < self.total:
            yield step
            step += 1
            if step % self.every == 0 or step == self.total or self._stop_signal:
                checkpoint.save(self.folder, step, self.learner, self.state)
            if self._stop_signal:
                raise KeyboardInterrupt

    def log(self, step: int, tokens: int, **values: Any) -> None:
        """The step's line. `tokens` were trained on in it."""
        pace = self._pace.add(tokens)
        self.metrics.log(step + 1, tokens=tokens, **values, **pace)
        shown = {k: v for k, v in values.items() if k in ("loss", "accuracy", "margin", "reward", "right")}
        self._bar.advance(1, **{k: f"{v:.3g}" for k, v in shown.items()}, **{"tok/s": pace["tokens_per_second"]})

    def __exit__(self, *error: Any) -> None:
        self.learner.close()
        for name, handler in self._handlers.items():
            signal.signal(name, handler)
        self._bar_context.__exit__(*error)
        self.metrics.__exit__(*error)
        if self._stop_signal and error[0] is None:  # the room left the loop of its own accord in this step
            raise KeyboardInterrupt
