"""A step's groups: sampled, graded and rewarded, drawing again until the algorithm has enough; and what they look like."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from whetstone.records import Generator, Rollout, Sampling, Verifier
from whetstone.rl.algorithm import Algorithm, Group, State
from whetstone.rl.keep import rewards_differ
from whetstone.rl.tripwires import repeats_itself

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup


def sample_step(
    generator: Generator,
    verifier: Verifier,
    algorithm: Algorithm,
    state: State,
    step: int,
    max_tokens: int,
    seed: int,
    process_group: "ProcessGroup | None" = None,
) -> tuple[list[Group], float]:
    """(the step's groups, the temperature they were last sampled at). `seed` is the stage's.

    Several processes share the work; each has all groups, and the state that follows from them.
    """
    from whetstone.sample import sample_groups

    have: dict[str, Group] = {}
    temperature = 1.0
    while (draw := algorithm.draw(state, step, list(have.values()))).problems:
        temperature = draw.temperature
        for problem in draw.problems:
            have.setdefault(problem.id, Group(problem, [], step=step))
        # One stream a (step, problem, rollout): a problem drawn in two steps is not sampled alike.
        sampling = Sampling(temperature, max_tokens, seed=seed * 1_000_003 + step + 1)
        drawn = list(zip(draw.problems, draw.counts, strict=True))
        for first in sorted({have[p.id].sampled for p in draw.problems}):
            asked = [(p, n) for p, n in drawn if have[p.id].sampled == first]
            problems, counts = [p for p, _ in asked], [n for _, n in asked]
            fresh = sample_groups(
                generator,
                problems,
                counts,
                sampling,
                verifier,
                first=first,
                reward=algorithm.reward,
                process_group=process_group,
            )
            for problem, sampled in zip(problems, fresh, strict=True):
                have[problem.id] = grown(have[problem.id], sampled)
    return list(have.values()), temperature


def grown(group: Group, sampled: Sequence[Rollout]) -> Group:
    """The group with more rollouts; those without a reward are left out and counted."""
    kept = [r for r in sampled if r.reward is not None]
    return replace(group, rollouts=[*group.rollouts, *kept], left_out=group.left_out + len(sampled) - len(kept))


def describe(groups: Sequence[Group], kept: Sequence[Group], temperature: float, step: int = 0) -> dict[str, float]:
    """What the step looked like, before the update. `kept` groups of an earlier step are counted as carried over."""
    rollouts = [r for g in groups for r in g.rollouts]
    fresh = [g for g in kept if g.step == step]
    n = max(1, len(rollouts))
    return {
        "accuracy": sum(r.correct is True for r in rollouts) / n,
        "reward": sum(r.reward for r in rollouts) / n,
        "response_length": sum(len(r.ids) for r in rollouts) / n,
        "truncated": sum(r.stop == "length" for r in rollouts) / n,
        "repetition": sum(map(repeats_itself, rollouts)) / n,
        "zero_advantage": sum(not rewards_differ(g) for g in groups) / max(1, len(groups)),
        "temperature": temperature,
        "rollouts": len(rollouts),
        "undecided": sum(g.left_out for g in groups),
        "kept_groups": len(fresh) / max(1, len(groups)),
        "kept_rollouts": sum(len(g.rollouts) for g in fresh) / n,
        "carried_groups": len(kept) - len(fresh),
    }
