"""Which prompts a student is tried on, and its rollouts of them: used by Rollout DPO, reward models and RL."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from whetstone.records import Problem, Rollout, Sampling
from whetstone.run.folder import Stage
from whetstone.run.settings import Settings, TrainingSettings
from whetstone.run.tables import read_records
from whetstone.sample import sample_journalled, share_cut_off, share_right, share_unanswered, shortcomings
from whetstone.window import UNASKABLE, Window, named

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup
    from whetstone.learner.student import Student


class PoolSettings(Settings):
    """The prompts that are tried, of those that the corpus stage gives, or else of the training problems."""

    prompts: int = Field(256, gt=0, description="prompts that are tried, at most")
    levels: tuple[int, ...] | None = Field(None, description="their levels; None: those of the prompts table")
    domains: tuple[str, ...] | None = Field(None, description="their domains; None: all")
    samples: int = Field(
        8, ge=0, le=10**6, description="rollouts of each; rl: 0 tries none, and all prompts are trained on"
    )


class StudentSettings(TrainingSettings):
    """What a stage has that trains on what the student itself samples."""

    max_tokens: int = Field(512, gt=0, le=2**30, description="longest rollout")
    temperature: float = Field(1.0, gt=0, le=100, description="of the student's rollouts")


def pool_of(
    path: Path, settings: PoolSettings, stream: str, window: Window | None = None
) -> tuple[list[Problem], list[dict[str, str]]]:
    """(the prompts of a table that fit, shuffled; a row for each that was drawn and cannot be used). `stream` names the
    random stream; `window` is that of the model which is asked.

    Raises ValueError if there is no prompt.
    """
    fitting = candidates(path, settings)
    random.Random(stream).shuffle(fitting)
    pool: list[Problem] = []
    dropped: list[dict[str, str]] = []
    while fitting and len(pool) < settings.prompts:
        count = settings.prompts - len(pool)
        drawn, fitting = fitting[:count], fitting[count:]
        unaskable = window.unaskable(drawn) if window else {}
        pool += [problem for problem in drawn if problem.id not in unaskable]
        dropped += [{"problem_id": name, "reason": UNASKABLE, "detail": why} for name, why in unaskable.items()]
    if not pool:
        raise ValueError(
            f"pool: none of the {len(dropped)} prompts of {path} can be asked: {named(unaskable)}. Lower max_tokens, shorten "
            "the questions, or take a model with a longer context."
        )
    return pool, dropped


def candidates(path: Path, settings: PoolSettings) -> list[Problem]:
    """The training problems of a table of prompts or problems that have an answer and fit the settings.

    Raises ValueError if there is none.
    """
    levels, domains = settings.levels, settings.domains
    fitting, left_out = list[Problem](), Counter[str]()
    for problem in read_records(Problem, path):
        if problem.split != "train":
            left_out["not for training"] += 1
        elif not problem.answer.strip():
            left_out["no answer to verify"] += 1
        elif (levels is not None and problem.level not in levels) or (
            domains is not None and problem.domain not in domains
        ):
            left_out["another level or domain"] += 1
        else:
            fitting.append(problem)
    if not fitting:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common()) or "it is empty"
        raise ValueError(
            f"pool: {path} has no prompt of levels = {levels} and domains = {domains} (None: any): {counts}. Name other "
            "pool.levels or pool.domains, or see that the questions stage gives training problems with answers."
        )
    return fitting


@dataclass(frozen=True)
class Tried:
    """A student's graded rollouts of the pool's prompts, a group of G for each of P problems."""

    problems: Sequence[Problem]
    groups: list[list[Rollout]]
    dropped: list[dict[str, str]]  # a row for each prompt that cannot be used
    lacks: dict[str, str]  # what most rollouts lack, in words

    @property
    def counts(self) -> dict[str, Any]:
        """Facts for the manifest."""
        rollouts = [rollout for group in self.groups for rollout in group]
        return {
            "problems": len(self.problems),
            "rollouts": len(rollouts),
            "right": share_right(rollouts),
            "truncated": share_cut_off(rollouts),
            "unanswered": share_unanswered(rollouts),
        }


def try_student(stage: Stage, student: "Student", process_group: "ProcessGroup") -> Tried:
    """Sample and grade `pool.samples` rollouts of each prompt of the pool. They are kept in the stage's folder, and a
    resumed stage samples only what is missing.
    """
    from whetstone.decode.forked_generator import sampler
    from whetstone.verify import MathVerifier

    settings = stage.settings
    policy = student.sampler()
    window = Window(student.chat, policy.config.max_position_embeddings, settings.max_tokens, student.prompting)
    problems, dropped = pool_of(stage.inputs["prompts"], settings.pool, f"{stage.seed}/pairs", window)
    sampling = Sampling(settings.temperature, settings.max_tokens, seed=stage.seed)
    engine = sampler(policy, student.tokenizer, stage.parallel, process_group.count)
    journal, label = stage.folder / "rollouts.jsonl", f"{stage.name}: the student's rollouts"
    with MathVerifier() as verifier:
        groups = sample_journalled(
            engine, problems, settings.pool.samples, sampling, verifier, journal, label,
            process_group=process_group, prompting=student.prompting,
        )  # fmt: skip
    lacks = shortcomings([rollout for group in groups for rollout in group], settings.max_tokens)
    return Tried(problems, groups, dropped, lacks)


def stop_on_mismatch(step: int, gap: float, allowed: float, consequence: str) -> None:
    """Raises ValueError if the log-probabilities of sampler and learner differ by more than `allowed`, in nats per token.

    `consequence` says what training would be then.
    """
    if gap > allowed:
        raise ValueError(
            f"step {step}: the sampler's and the learner's log-probabilities differ by {gap:.3g} nats per token on average "
            f"(allowed: {allowed}): {consequence}. Use the same dtype for both ([parallel] compute, [model] dtype), or raise "
            "sampler_tolerance, in rl with a correction (correction.kind)."
        )
