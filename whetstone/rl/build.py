"""The algorithm of an `rl` stage, with its options, reward and stabilisers, and with what the recipe adds to its loss."""

from collections.abc import Sequence
from dataclasses import replace

from whetstone.records import Problem
from whetstone.rl.algorithm import Algorithm, Reward, Setup
from whetstone.rl.correction import corrected
from whetstone.rl.kl import with_kl
from whetstone.rl.registry import ALGORITHMS, STABILISERS
from whetstone.rl.reward import build_reward
from whetstone.rl.settings import Settings


def build(settings: Settings, problems: Sequence[Problem], seed: int, reward_model: Reward | None = None) -> Algorithm:
    setup = Setup(
        problems=problems,
        prompts=settings.prompts_per_step,
        samples=settings.samples,
        reward=build_reward(settings.reward, reward_model),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=seed,
        steps=settings.steps,
    )
    algorithm = ALGORITHMS.function_of(settings.algorithm.name)(setup, settings.algorithm)
    for stabiliser in settings.chosen_stabilisers:
        algorithm = STABILISERS.function_of(stabiliser.name)(algorithm, setup, stabiliser)
    if settings.correction.kind != "none":
        algorithm = replace(algorithm, loss=corrected(algorithm.loss))
    if settings.kl.coefficient:
        algorithm = with_kl(algorithm, settings.kl)
    if settings.entropy_bonus:
        from whetstone.rl.loss import with_entropy_bonus

        algorithm = replace(algorithm, loss=with_entropy_bonus(algorithm.loss, settings.entropy_bonus))
    return replace(algorithm, reference=algorithm.reference or settings.tripwires.kl > 0)


def most_rollouts(settings: Settings) -> int:
    """How many rollouts a step samples at most."""
    most = settings.algorithm.most_rollouts(settings.prompts_per_step * settings.samples)
    for stabiliser in settings.chosen_stabilisers:
        most = stabiliser.most_rollouts(most, settings.samples)
    return most
