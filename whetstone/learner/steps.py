"""The steps of a training stage as an iterator that resumes, shows progress, logs, checkpoints, and stops cleanly.

    with Steps(stage, learner, total=len(plan)) as steps:
        for step in steps:
            …
            norm = steps.update(step, loss, rate)
            if norm is None:  # it went back to a checkpoint
                continue
            steps.log(step, tokens, loss=…, learning_rate=…)

The loop stays in the room; what surrounds every loop is here.

SIGTERM and Ctrl-C end the step that is under way, write a checkpoint and stop the run; a second one stops it at once. A
stage that goes back restores its newest checkpoint with the state that was saved, goes through the same steps to the same
bits, and leaves out the step at which it went back: so a run that is killed in between ends as one that is not.
"""

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

from whetstone.learner import checkpoint
from whetstone.learner.learner import Learner
from whetstone.learner.pace import Pace
from whetstone.learner.spikes import highest_usual
from whetstone.records import Completion, Generator, Prompt, Sampling
from whetstone.run.folder import Stage
from whetstone.run.metrics import Metrics, open_sinks
from whetstone.run.processes import Terminated
from whetstone.run.progress import progress, say
from whetstone.run.settings import TrainingSettings
from whetstone.run.watchdog import Watchdog

SHOWN = {"loss": "loss", "learning_rate": "lr", "gradient_norm": "norm", "accuracy": "accuracy", "margin": "margin"}
SHOWN |= {"reward": "reward", "validation_loss": "validation"}  # in the line, under shorter names


class _Watched:
    """A Generator that says how far it is."""

    def __init__(self, generator: Generator, phase: Callable[[str], None]):
        self.generator, self.phase = generator, phase

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        self.phase("generate")
        for completion in self.generator.generate(prompts, sampling):
            yield completion
            self.phase("generate")
        self.phase("grade")  # what is not graded yet


class Steps:
    """`state` is the stage's own: whatever it puts there comes back after a kill, and after going back. It must be JSON.

    Of its keys `losses`, `left_out`, `best_loss`, `best_step` and `worse` are written here.
    """

    def __init__(self, stage: Stage, learner: Learner, total: int):
        settings: TrainingSettings = stage.settings
        self.stage, self.learner, self.total = stage, learner, total
        self.every, self.spikes = settings.checkpoint_every, settings.spikes
        self.state: dict[str, Any] = {}
        self.folder = stage.folder / "checkpoints"
        # of several processes one keeps the stage's metrics, the others have a folder of their own
        self.main = learner.process_group.main
        self.own = stage.folder if self.main else stage.folder / "processes" / str(learner.process_group.rank)
        self.own.mkdir(parents=True, exist_ok=True)
        self.watchdog = Watchdog(self.own, stage.run.watchdog, stage.run.on_hang == "end")
        self._at = 0
        self._going_back = ""  # why
        self._stop_signal = 0

    def __enter__(self) -> "Steps":
        with ExitStack() as stack:  # what follows may fail: then all of it is closed
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        name = self.stage.name
        stack.callback(self.learner.close)
        stack.enter_context(self.watchdog)
        self.learner.phase = self.phase
        self.metrics = stack.enter_context(Metrics(self.own, open_sinks(self.stage) if self.main else ()))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.first = 0
        if found := checkpoint.load_newest(self.folder, self.learner):
            self.first, self.state = found
            say(f"{name}: goes on after step {self.first} of {self.total}")
        elif "go_back" in (self.spikes.not_finite, self.spikes.spike):
            self._save(0)  # there must be somewhere to go back to
        self.metrics.rewind(self.first)
        self._bar = stack.enter_context(progress(self.total, name, unit="steps", done=self.first))
        self._pace = Pace(self.learner, self.total)
        with suppress(ValueError):  # not in the main thread: signals stay as they are
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, self._ask_to_stop))

    def _ask_to_stop(self, name: int, frame: object) -> None:
        if self._stop_signal:
            raise self._stopped()
        self._stop_signal = name
        say(f"{self.stage.name}: stopping after this step (again: at once)")

    def _stopped(self) -> KeyboardInterrupt:
        return Terminated() if self._stop_signal == signal.SIGTERM else KeyboardInterrupt()

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while step < self.total:
            if step in self.state.get("left_out", ()):
                self.metrics.log(step + 1, left_out=sum(at <= step for at in self.state["left_out"]))
                self._bar.advance(1)
            else:
                self._at = step
                self.phase("draw")
                yield step
                if self._going_back:
                    step = self._restore(step)
                    continue
            step += 1
            best = self.state.get("best_step") == step
            stop = self.learner.process_group.any(bool(self._stop_signal))  # one is asked, all stop after the same step
            if step % self.every == 0 or step == self.total or best or stop:
                self._save(step)
            if stop:
                raise self._stopped()

    def phase(self, name: str) -> None:
        """What begins now, for the watchdog: whatever may take long says so."""
        self.watchdog.phase(name, self._at + 1)

    def watched(self, generator: Generator) -> Generator:
        """The same generator; each completion is a heartbeat."""
        return _Watched(generator, self.phase)

    def _save(self, step: int) -> None:
        self.phase("checkpoint")
        self.metrics.sync()
        kept, best = self.stage.run.keep_checkpoints, self.state.get("best_step")
        checkpoint.save(self.folder, step, self.learner, self.state, kept, best)

    def update(self, step: int, loss: float, rate: float) -> float | None:
        """Clip, update, clear: the gradient's norm. None where the stage's `spikes` say to go back, and it did.

        Raises FloatingPointError where they say to stop. Either way nothing was updated.
        """
        if not math.isfinite(loss):
            return self._refuse(step, f"the loss is {loss}", self.spikes.not_finite)
        losses = self.state.setdefault("losses", [])
        usual = highest_usual(losses, self.spikes)
        if usual is not None and loss > usual and self.spikes.spike != "ignore":
            why = f"the loss jumped to {loss:.4g}, above the {usual:.4g} that the last {len(losses)} steps make usual"
            if self.spikes.spike != "warn":
                return self._refuse(step, why, self.spikes.spike)
            say(f"{self.stage.name}: step {step + 1}: {why}")
        try:
            norm = self.learner.step(rate)
        except FloatingPointError as error:
            return self._refuse(step, str(error), self.spikes.not_finite)
        self.state["losses"] = [*losses, loss][-self.spikes.window :]
        return norm

    def _refuse(self, step: int, why: str, then: str) -> None:
        self.learner.clear()
        if then == "go_back":
            return self.go_back(step, why)
        raise FloatingPointError(
            f"{self.stage.name}: step {step + 1}: {why}; nothing was updated. Lower the stage's optimizer.learning_rate, or "
            'let it go back and leave such steps out (spikes.not_finite or spikes.spike = "go_back"), and run again: it '
            "goes on from the last checkpoint."
        )

    def go_back(self, step: int, why: str) -> None:
        """When this step's turn is over, restore the newest checkpoint; when the step comes again, it is left out.

        What the room does until then is undone with it. Raises FloatingPointError once that was done `spikes.go_backs` times.
        """
        left_out = self.state.get("left_out", [])
        if len(left_out) >= self.spikes.go_backs:
            steps = ", ".join(str(at + 1) for at in left_out) or "none"
            raise FloatingPointError(
                f"{self.stage.name}: step {step + 1}: {why}; it went back {len(left_out)} times already (steps left out: "
                f"{steps}), and spikes.go_backs = {self.spikes.go_backs}. Lower the stage's optimizer.learning_rate, or raise "
                "go_backs."
            )
        self._going_back = why

    def _restore(self, step: int) -> int:
        """The step to go on with."""
        self.phase("checkpoint")
        left_out, why, self._going_back = [*self.state.get("left_out", ()), step], self._going_back, ""
        found = checkpoint.load_newest(self.folder, self.learner)
        if found is None:
            raise FloatingPointError(
                f"{self.stage.name}: step {step + 1}: {why}; and {self.folder} has no checkpoint to go back to. Run again."
            )
        first, self.state = found
        self.state["left_out"] = left_out
        self.metrics.rewind(first)
        self._bar.advance(first - step)
        say(f"{self.stage.name}: step {step + 1}: {why}; back to step {first}, and without that step from there")
        return first

    def validated(self, step: int, loss: float) -> None:
        """The held-out loss after this step; the checkpoint of the lowest is kept. `state["worse"]` counts those since."""
        if loss < self.state.get("best_loss", math.inf):
            self.state |= {"best_loss": loss, "best_step": step + 1, "worse": 0}
        else:
            self.state["worse"] = self.state.get("worse", 0) + 1

    def restore_best(self) -> None:
        """The weights with the lowest held-out loss, after the last step; those of the last where they are damaged."""
        best = self.state.get("best_step")
        if not self.state.get("worse"):
            return
        try:
            checkpoint.load(self.folder, best, self.learner)
        except checkpoint.Damaged as damage:
            say(
                f"warning: {self.stage.name}: the best checkpoint, of step {best}, is damaged: {damage}; the last is used"
            )

    def log(self, step: int, tokens: int, **values: Any) -> None:
        """The step's line. `tokens` were trained on in it."""
        pace = self._pace.add(step, tokens)
        self.metrics.log(step + 1, tokens=tokens, **values, **pace)
        shown = {short: f"{values[name]:.3g}" for name, short in SHOWN.items() if name in values}
        self._bar.advance(
            1,
            **shown,
            **{"tok/s": f"{pace['tokens_per_second']:,}", "MFU": f"{pace['mfu']:.0%}"},
            memory=f"{pace['memory'] / 1e9:.2f} GB",
        )

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        # the room may have left the loop of its own accord in the step in which one was asked to stop
        if error[0] is None and self.learner.process_group.any(bool(self._stop_signal)):
            raise self._stopped()
