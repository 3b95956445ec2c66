"""The groups of each step, sampled up to `staleness` steps ahead of training.

Step s is sampled by the weights that step s - staleness began with (the first ones by those of step 0), as in PRIME-RL
(INTELLECT-2, arXiv 2505.07291): a rule that no timing changes. Drawing, sampling, rewarding and keeping never see the learner.
They are a chain of their own, with the algorithm's state: the loop takes a step's groups together with the state after them,
which goes into the checkpoint.

Servers sample in a thread of the main process, beside training; the other processes are given the groups. This process's own
engine samples in the same order, but training waits for it: that shows what staleness does to learning, and gains no time.
"""

import copy
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from shutil import rmtree
from typing import TYPE_CHECKING

from whetstone.learner import checkpoint
from whetstone.records import Completion, Generator, Prompt, Sampling
from whetstone.rl.algorithm import Algorithm, Group, State
from whetstone.rl.completions import FOLDER, KeptCompletions, forget_before
from whetstone.run.folder import Stage

if TYPE_CHECKING:
    from whetstone.learner.steps import Steps
    from whetstone.rl.sampler import RolloutSampler, Weights

ALGORITHM = "algorithm"  # the key of the algorithm's state in the stage's state
LOOK = 2.0  # seconds between two looks at what is sampled
PATIENCE = 10.0  # seconds that a thread which was called off is waited for

Sample = Callable[[Generator, State, int], tuple[list[Group], float]]


@dataclass(frozen=True)
class Sampled:
    """Of one step."""

    groups: list[Group]
    kept: list[Group]
    temperature: float
    state: State  # the algorithm's, after it kept them
    gap: float | None  # of the servers to the learner, when both had the weights that sampled, in nats per token
    seconds: float  # that sampling took


class Ahead:
    """`with Ahead(...) as ahead: ahead.take(step)`. `sample` draws and samples the groups of a step: (groups, temperature)."""

    def __init__(
        self, stage: Stage, sampler: "RolloutSampler", steps: "Steps", algorithm: Algorithm, sample: Sample
    ):  # fmt: skip
        self.stage, self.sampler, self.steps, self.algorithm, self.sample = stage, sampler, steps, algorithm, sample
        self.process_group = steps.learner.process_group
        self.samples = self.process_group.main or not sampler.apart  # whether this process does
        self.keeps = sampler.apart or stage.settings.staleness > 0  # completions, until a checkpoint has their step
        self.asked: dict[int, Future[Sampled]] = {}  # by step
        self.state: State = {}  # of the algorithm, after the last step that was sampled
        self.rollouts = 0  # sampled up to there
        self.arrived = 0  # completions
        self.thread: _Thread | None = None
        self.began = self.waited = 0.0

    def __enter__(self) -> "Ahead":
        return self

    def take(self, step: int) -> Sampled:
        """The groups of a step; those after it are asked for too. Every process of a group must call it."""
        self.began = time.monotonic()
        self.steps.phase("publish")
        weights = self.sampler.snapshot(step)
        if self.samples:
            self._ask(step, weights)
        asked = time.monotonic()
        sampled = self._wait(step)
        self.waited = time.monotonic() - asked
        self.steps.state[ALGORITHM] = copy.deepcopy(sampled.state)
        if self.keeps:
            forget_before(self.steps.own, min(checkpoint.steps(self.steps.folder), default=0))
        return sampled

    def described(self, step: int, sampled: Sampled) -> dict[str, float]:
        """Metrics, at the end of a step: `staleness` is by how many steps the weights that sampled are older, on average over
        the groups that are trained on; `waiting` is the share of the step's time in which training waited for rollouts.
        """
        if not self.keeps:
            return {}
        lags = [step - group.step + group.behind for group in sampled.kept or sampled.groups]
        elapsed = max(1e-9, time.monotonic() - self.began)
        found = {"waiting": self.waited / elapsed, "sampling_seconds": sampled.seconds}
        found["training_seconds"] = elapsed - self.waited  # and of giving the weights away
        found |= {"staleness": sum(lags) / len(lags)} if lags else {}
        return found if sampled.gap is None else found | {"sampler_gap": sampled.gap}

    def _ask(self, step: int, weights: "Weights") -> None:
        """For this step and for those after it, as far as they may be ahead."""
        if not self.asked:
            self.state = copy.deepcopy(self.steps.state.get(ALGORITHM, {}))
            self.rollouts = self.steps.state.get("rollouts", 0)
        last = min(step + self.stage.settings.staleness, self.steps.total - 1)
        for ahead in range(step, last + 1):
            if ahead not in self.asked and ahead not in self.steps.state.get("left_out", ()):
                self.asked[ahead] = self._begin(ahead, weights)

    def _begin(self, step: int, weights: "Weights") -> "Future[Sampled]":
        if self.sampler.apart:
            self.thread = self.thread or _Thread()
            return self.thread.submit(lambda: self._sampled(step, weights))
        done: Future[Sampled] = Future()
        done.set_result(self._sampled(step, weights))
        return done

    def _sampled(self, step: int, weights: "Weights") -> Sampled:
        limit = self.stage.settings.rollouts
        if limit and self.rollouts >= limit:  # the loop ends before this step
            return Sampled([], [], 1.0, self.state, None, 0.0)
        began = time.monotonic()
        self.sampler.load(weights)
        generator, oldest = self.sampler.generator, weights.step
        if not self.sampler.apart:
            generator = self.steps.watched(generator)
        if self.keeps:
            one_by_one = self.sampler.apart
            generator = kept_ones = KeptCompletions(generator, self.steps.own, step, weights.step, one_by_one)
        groups, temperature = self.sample(_Counted(generator, self), self.state, step)
        if self.keeps:
            oldest = kept_ones.oldest if self.sampler.apart else min(self.process_group.gather(kept_ones.oldest))
            groups = [replace(group, behind=step - oldest) for group in groups]
        kept = self.algorithm.keep(self.state, step, groups)
        self.rollouts += sum(group.sampled for group in groups)
        seconds = time.monotonic() - began
        return Sampled(groups, kept, temperature, copy.deepcopy(self.state), self.sampler.gap, seconds)

    def _wait(self, step: int) -> Sampled:
        """Raises what sampling raised; in the other processes RuntimeError. The watchdog sees each completion."""
        if not self.sampler.apart:
            return self.asked.pop(step).result()
        future = self.asked.pop(step, None)
        seen = None
        while True:
            done = arrived = failed = None
            if future:
                with suppress(TimeoutError):
                    failed = future.exception(timeout=LOOK) is not None
                done, arrived = future.done(), self.arrived
            done, arrived, failed = self.process_group.first((done, arrived, failed))
            if arrived != seen:
                self.steps.phase("generate")
            seen = arrived
            if done:
                break
        if failed and not future:
            raise RuntimeError("sampling failed in the main process, which says why.")
        return self.process_group.first(future.result() if future else None)

    def forget(self, patience: float | None = None) -> None:
        """Forget what was asked for: training goes back to a checkpoint. What a server is asked may take `patience` seconds."""
        if thread := self.thread:
            self.sampler.call_off(lambda: thread.end(patience))
            self.thread = None
        self.asked.clear()

    def finish(self) -> None:
        """After the last step: the completions are in the table of rollouts, if the recipe wants it, and in the weights."""
        rmtree(self.steps.own / FOLDER, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.forget(PATIENCE)


class _Counted:
    """A Generator that counts what has arrived."""

    def __init__(self, generator: Generator, ahead: Ahead):
        self.generator, self.ahead = generator, ahead

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        for completion in self.generator.generate(prompts, sampling):
            self.ahead.arrived += 1
            yield completion


class _Thread:
    """Calls one after the other, in a thread that a process which ends does not wait for."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[Callable[[], Sampled], Future[Sampled]] | None] = queue.SimpleQueue()
        self.failed = False
        self.thread = threading.Thread(target=self._work, name="sampling", daemon=True)
        self.thread.start()

    def submit(self, call: Callable[[], Sampled]) -> "Future[Sampled]":
        future: Future[Sampled] = Future()
        self.calls.put((call, future))
        return future

    def _work(self) -> None:
        while work := self.calls.get():
            call, future = work
            if self.failed:  # later steps begin with the state that the failed one should have left
                future.cancel()
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                self.failed = True
                future.set_exception(error)

    def end(self, patience: float | None) -> bool:
        """Wait for the call in progress; the others are not made. Whether it has ended after so many seconds."""
        while not self.calls.empty():
            with suppress(queue.Empty):
                self.calls.get_nowait()
        self.calls.put(None)
        self.thread.join(patience)
        return not self.thread.is_alive()
