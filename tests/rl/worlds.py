"""Groups made by hand or at random, for tests of the five answers."""

import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from tests.scripted import problem, rollout
from whetstone.batch import Batch, collate
from whetstone.rl.algorithm import Algorithm, Group, Setup
from whetstone.rl.reward import plus_minus_one

LONGEST = 12  # tokens


def setup(count: int = 4, prompts: int = 4, samples: int = 4, **more) -> Setup:
    return Setup([problem(f"p{i}") for i in range(count)], prompts, samples, plus_minus_one, LONGEST, **more)


def made(function: Callable[..., Algorithm], *given: Setup | Algorithm, **options) -> Algorithm:
    """An algorithm of a setup, or an algorithm that a stabiliser wraps, with these options."""
    return function(*given, sys.modules[function.__module__].Settings(**options))


def group(name: str, marks: str, tokens=lambda i: 3, **more) -> Group:
    """`+` a right rollout, `-` a wrong one, each with ±1; `<` a wrong one that was cut off."""
    return Group(
        problem(name),
        [
            rollout(
                name, i, mark == "+", tokens(i), "length" if mark == "<" else "end", reward=1.0 if mark == "+" else -1.0
            )
            for i, mark in enumerate(marks)
        ],
        **more,
    )


def random_groups(seed: int, marks=("+-+-", "+---", "-<+-"), reference: bool = False) -> list[Group]:
    """Groups of rollouts of 1 to `LONGEST` tokens with random log-probabilities, and those of a reference on request."""
    rng = torch.Generator().manual_seed(seed)

    def logprobs(n: int) -> list[float]:
        return (-2 * torch.rand(n, generator=rng, dtype=torch.float64)).tolist()

    groups = []
    for g, signs in enumerate(marks):
        lengths = torch.randint(1, LONGEST + 1, (len(signs),), generator=rng).tolist()
        plain = group(f"p{g}", signs, lambda i, lengths=lengths: lengths[i])
        sampled = [replace(r, logprobs=logprobs(len(r.ids))) for r in plain.rollouts]
        scored = [logprobs(len(r.ids)) for r in sampled] if reference else []
        groups.append(replace(plain, rollouts=sampled, reference=scored))
    return groups


def batch_of(algorithm: Algorithm, groups: list[Group]) -> Batch:
    """The learner's batch of a step in which these groups were drawn and kept."""
    rows = [row for part in algorithm.credit(groups, groups) for row in part]
    for row in rows:
        row.segment["fresh"] = 1.0
    return collate(rows, torch.float64)


def moved(batch: Batch, seed: int, by: float = 0.5) -> torch.Tensor:
    """Log-probabilities of a policy that has moved away from the one that sampled."""
    rng = torch.Generator().manual_seed(seed)
    old = batch.token["old"]
    return (old + by * torch.randn(len(old), generator=rng, dtype=torch.float64)).requires_grad_()
