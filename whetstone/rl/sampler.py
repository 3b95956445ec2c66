"""What samples RL's rollouts, and how it gets the trained weights: this process, or vLLM servers ([sampler]).

with rollout_sampler(stage, student, learner) as sampler:
    sampler.publish(step)
    sampler.generator.generate(…)
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from whetstone.pool import stop_on_mismatch
from whetstone.records import Generator
from whetstone.rl.prompts import WRONG_GRADIENT, sampler_gap
from whetstone.run.folder import Stage

if TYPE_CHECKING:
    from whetstone.decode.server_sampler import VllmSampler
    from whetstone.learner.learner import Learner
    from whetstone.learner.student import Student


class RolloutSampler(Protocol):
    generator: Generator

    def publish(self, step: int) -> None:
        """The generator samples from the learner's weights from here on. Every process of a group must call it."""


class InProcess:
    """The engine of this process. It shares the learner's weights, or has a copy of them (`Student.sampler`)."""

    def __init__(self, stage: Stage, student: "Student", learner: "Learner"):
        from whetstone.decode.forked_generator import sampler

        self.learner = learner
        self.policy = student.sampler(copied=learner.process_group.sharded)
        self.generator = sampler(self.policy, student.tokenizer, stage.parallel, learner.process_group.count)

    def publish(self, step: int) -> None:
        self.learner.publish(self.policy)


class OnServers:
    """vLLM servers. The main process gives them the weights; all processes ask them for their shares of the rollouts."""

    def __init__(self, stage: Stage, student: "Student", learner: "Learner", generator: "VllmSampler"):
        self.stage, self.student, self.learner, self.generator = stage, student, learner, generator

    def publish(self, step: int) -> None:
        """Raises ValueError if a server's log-probabilities are not the learner's, SamplerLost if there is no server."""
        from whetstone.decode.server_sampler import PROBE_SAMPLING, untie

        group, folder = self.learner.process_group, self.generator.folder
        self.learner.save_model(self.student.tokenizer, folder)
        version, probes = f"{self.stage.name}-{step}", []
        if group.main:
            untie(folder, embedding_name(self.student.model))
            probes = self.generator.publish(version)
        probes = group.first(probes)
        if not group.main:
            self.generator.adopt(version)
        for completion in probes:
            gap = sampler_gap([completion], self.learner, PROBE_SAMPLING.temperature)
            stop_on_mismatch(step, gap, self.stage.settings.sampler_tolerance, WRONG_GRADIENT)


def embedding_name(model: object) -> str:
    """Of the input embedding's weight, as it is called in a saved folder."""
    embedding = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is embedding) + ".weight"


@contextmanager
def rollout_sampler(stage: Stage, student: "Student", learner: "Learner") -> Iterator[RolloutSampler]:
    """Servers that are launched end with it, and what was published for them is removed."""
    folder = stage.folder / "published"
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
            fleet = Fleet(stage.sampler, folder, stage.folder, student.sampling_dtype, _first_gpu(stage, student))
            stack.callback(fleet.close)
            addresses, again = learner.process_group.first(fleet.addresses), fleet.again
        if learner.process_group.main:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        generator = VllmSampler(stage.sampler, addresses, student.chat, folder, *([again] if again else []))
        stack.callback(generator.close)
        sampler = OnServers(stage, student, learner, generator)
        sampler.publish(0)  # candidate prompts are tried before the first step
        yield sampler


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
