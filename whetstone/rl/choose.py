"""The algorithm that a recipe names, with its options, rewards and stabilisers.

Each algorithm is a module of its own, with a function of that name: its parameters beside `setup` are the options it has.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.kl import kl_in_loss, kl_in_reward
from whetstone.rl.reward import build_reward
from whetstone.rl.stabilisers.covariance import clip_cov, kl_cov
from whetstone.rl.stabilisers.reward_rebalancing import reward_rebalancing
from whetstone.rl.stabilisers.temperature_annealing import temperature_annealing

if TYPE_CHECKING:
    from whetstone.records import Problem
    from whetstone.rl.loop import Settings

Name = Literal["grpo", "dr_grpo", "dapo", "srpo", "rloo", "reinforce_pp", "gspo", "cispo"]
Stabiliser = Literal["prompt_optimization", "reward_rebalancing", "temperature_annealing", "clip_cov", "kl_cov"]
OPTIONS = ("clip_low", "clip_high", "average", "baseline", "rounds", "soft_tokens", "mask_overlong")
PAPER: tuple[Stabiliser, ...] = ("prompt_optimization", "reward_rebalancing", "temperature_annealing")
KL = {"loss": kl_in_loss, "reward": kl_in_reward}

# In this order, whatever the recipe's; prompt_optimization is done before the first step (prompts.py)
WRAPPERS: dict[str, Callable[[Algorithm, "Settings", int], Algorithm]] = {
    "reward_rebalancing": lambda algorithm, settings, seed: reward_rebalancing(
        algorithm, most_accurate(settings), settings.oversample, settings.samples, seed
    ),
    "temperature_annealing": lambda algorithm, settings, seed: temperature_annealing(
        algorithm, settings.steps, end=settings.anneal_to
    ),
    "clip_cov": lambda algorithm, settings, seed: clip_cov(algorithm, settings.covariance_share, seed=seed),
    "kl_cov": lambda algorithm, settings, seed: kl_cov(algorithm, settings.covariance_share),
}


def build(settings: "Settings", problems: Sequence["Problem"], seed: int) -> Algorithm:
    setup = Setup(
        problems=problems,
        prompts=settings.prompts_per_step,
        samples=settings.samples,
        reward=build_reward(settings.reward),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=seed,
    )
    algorithm = function(settings.algorithm)(setup, **options(settings))
    for name, wrap in WRAPPERS.items():
        if name in stabilisers(settings):
            algorithm = wrap(algorithm, settings, seed)
    if settings.kl_coefficient:
        algorithm = KL[settings.kl_in](algorithm, settings.kl_coefficient, settings.kl_estimator)
    if settings.entropy_bonus:
        from whetstone.rl.loss import with_entropy_bonus

        algorithm = replace(algorithm, loss=with_entropy_bonus(algorithm.loss, settings.entropy_bonus))
    return replace(algorithm, reference=algorithm.reference or settings.tripwires.kl > 0)


def function(name: Name) -> Callable[..., Algorithm]:
    return getattr(import_module(f"whetstone.rl.{name}"), name)


def options(settings: "Settings") -> Mapping[str, Any]:
    """Those that the recipe sets; the others are the algorithm's own."""
    return {name: value for name in OPTIONS if (value := getattr(settings, name)) is not None}


def refuse_foreign_options(settings: "Settings") -> None:
    """Raises ValueError for an option that the algorithm does not have."""
    known = [name for name in inspect.signature(function(settings.algorithm)).parameters if name != "setup"]
    for name, value in options(settings).items():
        if name not in known:
            have = [other for other in get_args(Name) if name in inspect.signature(function(other)).parameters]
            raise ValueError(
                f'{name} = {value!r} is an option of {", ".join(have)}; algorithm = "{settings.algorithm}" has '
                f"{', '.join(known)}. Leave it out, or choose another algorithm"
            )


def stabilisers(settings: "Settings") -> tuple[Stabiliser, ...]:
    """Left out: the paper's three with GRPO, which is what they were made for, and none with the others."""
    if settings.stabilisers is not None:
        return settings.stabilisers
    return PAPER if settings.algorithm == "grpo" else ()


def most_accurate(settings: "Settings") -> float:
    """The accuracy above which prompts and groups are dropped; left out: 0.5 with the paper's stabilisers, else none."""
    if settings.threshold is not None:
        return settings.threshold
    return 0.5 if {"prompt_optimization", "reward_rebalancing"} & set(stabilisers(settings)) else 1.0
