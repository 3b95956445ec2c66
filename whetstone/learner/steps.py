"""The steps of a training stage as an iterator that resumes, shows progress, logs, writes checkpoints, and stops cleanly.

    with Steps(stage, learner, total=len(plan)) as steps:
        for step in steps:
            …
            norm = steps.update(step, loss, rate)
            if norm is None:  # it goes back to a checkpoint
                continue
            steps.log(step, tokens, loss=…, learning_rate=…)

The loop itself stays in the room.

SIGTERM and Ctrl-C let the current step end, write a checkpoint and stop the run; a second signal stops it at once. A stage
that goes back restores its newest checkpoint with the saved state, repeats the same steps to the same bits, and leaves out
the step at which it went back. A run that is killed in between therefore ends with the same weights.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

from whetstone.learner import checkpoint
from whetstone.learner.learner import Learner, Part, Together
from whetstone.learner.pace import Pace
from whetstone.learner.spikes import highest_usual
from whetstone.records import Completion, Generator, Prompt, Sampling
from whetstone.run.folder import Stage
from whetstone.run.metrics import Metrics
from whetstone.run.processes import Terminated
from whetstone.run.progress import PLAIN_SECONDS, clock, progress, say
from whetstone.run.settings import TrainingSettings
from whetstone.run.trackers import open_trackers
from whetstone.run.watchdog import Watchdog

SHOWN = {"loss": "loss", "learning_rate": "lr", "gradient_norm": "norm", "accuracy": "accuracy", "margin": "margin"}
SHOWN |= {
    "reward": "reward",
    "waiting": "waiting",
    "validation_loss": "validation",
}  # metric -> its name in the progress line
USUAL_MFU = 0.5  # share of the peak that is guessed before the first step
GO_BACKS = 3  # times that a stage goes back, at most


class _Watched:
    """A Generator that reports each completion as a phase."""

    def __init__(self, generator: Generator, phase: Callable[[str], None]):
        self.generator, self.phase = generator, phase

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        self.phase("generate")
        for completion in self.generator.generate(prompts, sampling):
            yield completion
            self.phase("generate")
        self.phase("grade")  # of the last completions


class Steps:
    """`state` belongs to the stage: what it puts there is restored after a kill and when going back. It must be JSON.

    The keys `losses`, `left_out`, `best_loss`, `best_step` and `worse` are written here.
    """

    def __init__(self, stage: Stage, learner: Learner, total: int, critic: Learner | None = None):
        settings: TrainingSettings = stage.settings
        self.stage, self.learner, self.total = stage, learner, total
        self.kept = Together(policy=learner, critic=critic) if critic else learner  # what a checkpoint holds
        self.critic = critic
        self.every, self.spikes = settings.checkpoint_every, settings.spikes
        self.state: dict[str, Any] = {}
        self.folder = stage.folder / "checkpoints"
        # with several processes, the main one writes the stage's metrics; the others have folders of their own
        self.main = learner.process_group.main
        self.own = stage.folder if self.main else stage.folder / "processes" / str(learner.process_group.rank)
        self.own.mkdir(parents=True, exist_ok=True)
        self.watchdog = Watchdog(self.own, stage.run.watchdog, stage.run.on_hang == "end")
        self._at = 0
        self._going_back = ""  # the reason
        self._stop_signal = 0
        self._owner = os.getpid()  # forked processes of the learner say nothing
        self._began = 0.0  # when the step's gradient did

    def __enter__(self) -> "Steps":
        with ExitStack() as stack:  # closes what is open if something fails
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        name = self.stage.name
        stack.callback(self.learner.close)
        if self.critic:
            stack.callback(self.critic.close)
        stack.enter_context(self.watchdog)
        self.learner.phase = self.phase
        stack.callback(setattr, self.learner, "part", self.learner.part)
        self.learner.part = self._part
        if self.critic:
            self.critic.phase = self.phase
        self.metrics = stack.enter_context(Metrics(self.own, open_trackers(self.stage) if self.main else ()))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.first = 0
        if newest := checkpoint.load_newest(self.folder, self.kept):
            self.first, self.state = newest
            say(f"{name}: goes on after step {self.first} of {self.total}")
        elif "go_back" in (self.spikes.not_finite, self.spikes.spike):
            self._save(0)  # going back needs a checkpoint
        self.metrics.rewind(self.first)
        self._bar = stack.enter_context(progress(self.total, name, unit="steps", done=self.first))
        self._pace = Pace(self.learner, self.total)
        with suppress(ValueError):  # outside the main thread, signals cannot be handled
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
            stop = self.learner.process_group.any(bool(self._stop_signal))  # all stop after the same step
            if step % self.every == 0 or step == self.total or best or stop:
                self._save(step)
            if stop:
                raise self._stopped()

    def phase(self, name: str) -> None:
        """Tell the watchdog that a phase begins; every phase that may take long is announced."""
        self.watchdog.phase(name, self._at + 1)

    def _part(self, part: Part) -> None:
        """Show how far a slow step is. Of a first step that will be slow, say so before anything of it is done."""
        if not self.main or os.getpid() != self._owner:
            return
        now = time.monotonic()
        if not part.number:
            self._began = now
            seconds = part.flops / (self._pace.peak * USUAL_MFU)
            if self._at == self.first and seconds > PLAIN_SECONDS:
                begins = f"{self.stage.name}: step {self._at + 1} of {self.total} begins: {part.tokens:,} tokens in"
                say(f"{begins} {part.count} micro-batches in each process, at a guess {clock(seconds)}")
        elif part.done:
            rate = part.done * part.tokens / max(1e-9, now - self._began)
            self._bar.within(part.done, **{"micro-batch": f"{part.number + 1}/{part.count}", "tok/s": f"{rate:,.0f}"})

    def watched(self, generator: Generator) -> Generator:
        """The same generator; the watchdog sees each completion."""
        return _Watched(generator, self.phase)

    def _save(self, step: int) -> None:
        self.phase("checkpoint")
        self.metrics.sync()
        kept, best = self.stage.run.keep_checkpoints, self.state.get("best_step")
        checkpoint.save(self.folder, step, self.kept, self.state, kept, best)

    def update(self, step: int, loss: float, rate: float) -> float | None:
        """Clip, update, clear. Returns the gradient's norm, or None if the stage goes back to a checkpoint.

        Raises FloatingPointError if the stage's `spikes` say to stop. In both cases nothing was updated.
        """
        if not math.isfinite(loss):
            return self._refuse(step, f"the loss is {loss}", self.spikes.not_finite)
        losses = self.state.setdefault("losses", [])
        usual = highest_usual(losses, self.spikes.window)
        if usual is not None and loss > usual and self.spikes.spike != "ignore":
            why = f"the loss jumped to {loss:.4g}, above {usual:.4g}, the highest usual after the last {len(losses)} steps"
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
        if self.critic:
            self.critic.clear()
        if then == "go_back":
            return self.go_back(step, why)
        raise FloatingPointError(
            f"{self.stage.name}: step {step + 1}: {why}; nothing was updated. Lower the stage's optimizer.learning_rate, or "
            'let it go back and leave such steps out (spikes.not_finite or spikes.spike = "go_back"), and run again: it '
            "goes on from the last checkpoint."
        )

    def go_back(self, step: int, why: str) -> None:
        """Restore the newest checkpoint when this step ends, and leave the step out when it comes again.

        Everything that the room does in this step is undone. Raises FloatingPointError after GO_BACKS times.
        """
        left_out = self.state.get("left_out", [])
        if len(left_out) >= GO_BACKS:
            steps = ", ".join(str(at + 1) for at in left_out)
            raise FloatingPointError(
                f"{self.stage.name}: step {step + 1}: {why}; it went back {len(left_out)} times already (steps left out: "
                f"{steps}), and does so {GO_BACKS} times at most. Lower the stage's optimizer.learning_rate."
            )
        self._going_back = why

    def _restore(self, step: int) -> int:
        """Go back. Returns the step to go on with."""
        self.phase("checkpoint")
        left_out, why, self._going_back = [*self.state.get("left_out", ()), step], self._going_back, ""
        newest = checkpoint.load_newest(self.folder, self.kept)
        if newest is None:
            raise FloatingPointError(
                f"{self.stage.name}: step {step + 1}: {why}; and {self.folder} has no checkpoint to go back to. Run again."
            )
        first, self.state = newest
        self.state["left_out"] = left_out
        self.metrics.rewind(first)
        self._bar.advance(first - step)
        say(f"{self.stage.name}: step {step + 1}: {why}; back to step {first}, and without that step from there")
        return first

    def validated(self, step: int, loss: float) -> None:
        """Note the held-out loss after a step. The best checkpoint is kept; `state["worse"]` counts losses since."""
        if loss < self.state.get("best_loss", math.inf):
            self.state |= {"best_loss": loss, "best_step": step + 1, "worse": 0}
        else:
            self.state["worse"] = self.state.get("worse", 0) + 1

    def restore_best(self) -> None:
        """After the last step, load the weights with the lowest held-out loss. If they are damaged, the last ones stay."""
        best = self.state.get("best_step")
        if not self.state.get("worse"):
            return
        try:
            checkpoint.load(self.folder, best, self.kept)
        except checkpoint.Damaged as damage:
            name = self.stage.name
            say(f"warning: {name}: the best checkpoint, of step {best}, is damaged: {damage}; the last is used")

    def log(self, step: int, tokens: int, **values: Any) -> None:
        """Log the step, which trained on `tokens`."""
        pace = self._pace.add(step, tokens)
        self.metrics.log(step + 1, tokens=tokens, **values, **pace)
        shown = {short: f"{values[name]:.3g}" for name, short in SHOWN.items() if name in values}
        shown |= {"tok/s": f"{pace['tokens_per_second']:,}", "MFU": f"{pace['mfu']:.0%}"}
        self._bar.advance(1, **shown, memory=f"{pace['memory'] / 1e9:.2f} GB")

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        # the room may have left the loop in the very step in which a signal came
        if error[0] is None and self.learner.process_group.any(bool(self._stop_signal)):
            raise self._stopped()
