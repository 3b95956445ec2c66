"""Which prompts a student is tried on: used by Rollout DPO and RL."""

import random
from collections import Counter
from pathlib import Path

from pydantic import Field

from whetstone.records import Problem
from whetstone.run.settings import Settings, TrainingSettings
from whetstone.run.tables import read_records
from whetstone.window import UNASKABLE, Window, named


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
