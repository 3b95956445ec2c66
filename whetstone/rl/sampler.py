"""What samples RL's rollouts, and how it gets the trained weights: this process, or vLLM servers ([sampler]).

with rollout_sampler(stage, student, learner) as sampler:
    weights = sampler.snapshot(step)
    sampler.load(weights)
    sampler.generator.generate(…)
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from whetstone.pool import stop_on_mismatch
from whetstone.records import Generator
from whetstone.rl.prompts import WRONG_GRADIENT, sampler_gap
from whetstone.run.folder import Stage
from whetstone.run.sampler_settings import LORA_RANKS

if TYPE_CHECKING:
    from whetstone.decode.published import Published
    from whetstone.decode.server_sampler import VllmSampler
    from whetstone.learner.learner import Learner
    from whetstone.learner.student import Student

START = "start"  # the folder of the weights that servers are started with


class Weights(Protocol):
    step: int  # that began with them


class RolloutSampler(Protocol):
    generator: Generator
    apart: bool  # whether it can sample while this process trains; the main process then samples for all
    gap: float | None  # to the learner with the loaded weights, in nats per token, if it is measured

    def snapshot(self, step: int) -> Weights:
        """Keep the learner's weights, with which a step begins. Every process of a group must call it."""

    def load(self, weights: Weights) -> None:
        """The generator samples with these weights from here on."""

    def call_off(self, ended: Callable[[], bool]) -> None:
        """End the generation that another thread is at; `ended` waits for that thread, and says whether it has ended."""


@dataclass(frozen=True)
class Present:
    """The weights that the learner has."""

    step: int


class InProcess:
    """The engine of this process. It shares the learner's weights, or has a copy of them (`Student.sampler`)."""

    apart = False
    gap = None

    def __init__(self, stage: Stage, student: "Student", learner: "Learner"):
        from whetstone.decode.forked_generator import sampler

        self.learner = learner
        self.policy = student.sampler(copied=learner.process_group.sharded)
        self.generator = sampler(self.policy, student.tokenizer, stage.parallel, learner.process_group.count)

    def snapshot(self, step: int) -> Present:
        self.learner.publish(self.policy)
        return Present(step)

    def load(self, weights: Weights) -> None:
        """They are loaded: the engine samples before training goes on."""

    def call_off(self, ended: Callable[[], bool]) -> None:
        """No other thread samples."""


class OnServers:
    """vLLM servers. The main process gives them the weights and asks for rollouts.

    A folder for each step's weights, `published/step-000012`, stays until the servers have later ones. With `[sampler]
    adapter` it has an adapter alone.
    """

    apart = True

    def __init__(self, stage: Stage, student: "Student", learner: "Learner", generator: "VllmSampler"):
        self.stage, self.student, self.learner, self.generator = stage, student, learner, generator
        self.folder = folder_of(stage)
        self.run = learner.process_group.first(os.urandom(4).hex())  # of this process: no version is another run's
        self.probe: tuple[list[int], int] | None = None  # ids, and how many of them, at the end, are compared

    @property
    def gap(self) -> float | None:
        return self.generator.gap

    def begin(self) -> None:
        """Before the first step: the servers get the weights, and what they sample is compared with the learner. Every
        process of a group must call it; each can ask the servers afterwards.

        Raises ValueError if a server's log-probabilities are not the learner's, SamplerLost if there is no server.
        """
        from whetstone.decode.published import PROBE_SAMPLING

        group = self.learner.process_group
        published = self._published(self.folder / START, 0)
        if self.stage.sampler.adapter:
            published = self.snapshot(0)
        probes = []
        if group.main:
            self.generator.publish(published)
            probes = self.generator.probes()
        probes = group.first(probes)
        if not group.main:
            self.generator.adopt(published)
        for completion in probes:
            gap = sampler_gap([completion], self.learner, PROBE_SAMPLING.temperature)
            stop_on_mismatch(0, gap, self.stage.settings.sampler_tolerance, WRONG_GRADIENT)
        self.probe = [*probes[0].prompt_ids, *probes[0].ids], len(probes[0].ids)

    def snapshot(self, step: int) -> "Published":
        return self._published(self.folder / f"step-{step:06d}", step, self.stage.sampler.adapter)

    def _published(self, folder: Path, step: int, adapter: bool = False) -> "Published":
        from whetstone.batch import Row
        from whetstone.decode.published import Published, untie

        if self.learner.process_group.main:
            shutil.rmtree(folder, ignore_errors=True)
        if adapter:
            self.student.save_adapter(self.learner, folder)
        else:
            self.learner.save_model(self.student.tokenizer, folder)
            if self.learner.process_group.main:
                untie(folder, embedding_name(self.student.model))
        self.learner.process_group.wait()
        ids, logprobs = [], []
        if self.probe:
            ids, count = self.probe
            (scored,) = self.learner.row_logprobs([Row(ids, len(ids) - count, 1.0)])
            logprobs = scored.tolist()
        version = f"{self.stage.name}-{step}-{self.run}"
        return Published(version, folder, step, ids, logprobs, adapter)

    def load(self, weights: "Published") -> None:
        """Raises ValueError if a server's log-probabilities are not the learner's, SamplerLost if there is no server."""
        if self.generator.published == weights:
            return
        self.generator.publish(weights)
        for older in self.folder.glob("step-*"):
            if older.name < weights.folder.name:
                shutil.rmtree(older, ignore_errors=True)

    def call_off(self, ended: Callable[[], bool]) -> None:
        self.generator.cancelled.set()
        if ended():
            self.generator.cancelled.clear()


def embedding_name(model: object) -> str:
    """Of the input embedding's weight, as it is called in a saved folder."""
    embedding = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is embedding) + ".weight"


@contextmanager
def rollout_sampler(stage: Stage, student: "Student", learner: "Learner") -> Iterator[RolloutSampler]:
    """Servers that are launched end with it, and what was published for them is removed."""
    folder = folder_of(stage)
    if not stage.sampler.used:
        if learner.process_group.main:
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt with servers, which was killed
        yield InProcess(stage, student, learner)
        return
    from whetstone.decode.server_launch import Fleet
    from whetstone.decode.server_sampler import VllmSampler

    with ExitStack() as stack:
        addresses, again = stage.sampler.servers, None
        if stage.sampler.launch:
            fleet = Fleet(
                stage.sampler, folder / START, stage.folder, student.sampling_dtype, _first_gpu(stage, student),
                _largest_rank(stage) if stage.sampler.adapter else 0,
            )  # fmt: skip
            stack.callback(fleet.close)
            addresses, again = learner.process_group.first(fleet.addresses), fleet.again
        if learner.process_group.main:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        tolerance = stage.settings.sampler_tolerance
        generator = VllmSampler(stage.sampler, addresses, student.chat, tolerance, *([again] if again else []))
        stack.callback(generator.close)
        sampler = OnServers(stage, student, learner, generator)
        sampler.begin()  # candidate prompts are tried before the first step
        yield sampler


def folder_of(stage: Stage) -> Path:
    return stage.folder / "published"


def _largest_rank(stage: Stage) -> int:
    """For --max-lora-rank."""
    return next(rank for rank in LORA_RANKS if rank >= stage.adapter.rank)


def _first_gpu(stage: Stage, student: "Student") -> int | None:
    """Of the launched servers: the first one that does not train. None on a CPU."""
    import torch

    if student.model.device.type == "cpu":
        return None
    there, needed = torch.cuda.device_count(), stage.parallel.processes + stage.sampler.launch
    if there < needed:
        raise ValueError(
            f"[sampler] launch = {stage.sampler.launch} and [parallel] processes = {stage.parallel.processes} need {needed} "
            f"GPUs, and there are {there}. Lower one of them."
        )
    return stage.parallel.processes
