"""Which prompts a student is tried on: used by Rollout DPO and RL."""

import random
from pathlib import Path

from pydantic import Field

from whetstone.records import Problem
from whetstone.run.settings import Settings, TrainingSettings
from whetstone.run.tables import read_records


class PoolSettings(Settings):
    """The prompts that are tried, of those that the corpus stage gives."""

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


def pool_of(path: Path, settings: PoolSettings, stream: str) -> list[Problem]:
    """The prompts of a table that fit, shuffled. `stream` names the random stream.

    Raises ValueError if there is none.
    """
    levels, domains = settings.levels, settings.domains
    fitting = [
        problem
        for problem in read_records(Problem, path)
        if (levels is None or problem.level in levels) and (domains is None or problem.domain in domains)
    ]
    if not fitting:
        raise ValueError(
            f"pool: {path} has no prompt of levels = {levels} and domains = {domains} (None: any). Name other pool.levels or "
            "pool.domains."
        )
    random.Random(stream).shuffle(fitting)
    return fitting[: settings.prompts]
