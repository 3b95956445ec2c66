"""The algorithm of an `rl` stage, with its options, reward and stabilisers, and with what the recipe adds to its loss."""

from collections.abc import Sequence
from dataclasses import replace

from whetstone.records import Problem
from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.kl import kl_in_loss, kl_in_reward
from whetstone.rl.registry import ALGORITHMS, STABILISERS
from whetstone.rl.reward import build_reward
from whetstone.rl.settings import Settings


def build(settings: Settings, problems: Sequence[Problem], seed: int) -> Algorithm:
    setup = Setup(
        problems=problems,
        prompts=settings.prompts_per_step,
        samples=settings.samples,
        reward=build_reward(settings.reward),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=seed,
        steps=settings.steps,
    )
    algorithm = ALGORITHMS.function_of(settings.algorithm.name)(setup, settings.algorithm)
    for stabiliser in settings.chosen_stabilisers:
        algorithm = STABILISERS.function_of(stabiliser.name)(algorithm, setup, stabiliser)
    if settings.kl.coefficient:
        add = kl_in_loss if settings.kl.part_of == "loss" else kl_in_reward
        algorithm = add(algorithm, settings.kl.coefficient, settings.kl.estimator)
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
