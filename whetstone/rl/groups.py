"""The groups of a step: sampled, graded and rewarded, until the algorithm has enough; and their metrics."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from whetstone.prompting import BARE, Prompting
from whetstone.records import Generator, Rollout, Sampling, Verifier
from whetstone.rl.algorithm import Algorithm, Group, State
from whetstone.rl.keep import rewards_differ
from whetstone.rl.random_verdicts import Judge
from whetstone.rl.tripwires import repeats_itself
from whetstone.sample import sample_groups, share_cut_off, share_unanswered

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
    prompting: Prompting = BARE,
    judge: Judge | None = None,
) -> tuple[list[Group], float]:
    """(the step's groups, the temperature that was sampled at last). `seed` is the stage's. A `judge` changes verdicts.

    Several processes share the work; each gets all groups, and the same state.
    """
    groups: dict[str, Group] = {}
    temperature = 1.0
    while (draw := algorithm.draw(state, step, list(groups.values()))).problems:
        temperature = draw.temperature
        for problem in draw.problems:
            groups.setdefault(problem.id, Group(problem, [], step=step))
        # One random stream per (step, problem, rollout): a problem that is drawn in two steps gives other rollouts.
        sampling = Sampling(temperature, max_tokens, seed=seed * 1_000_003 + step + 1)
        drawn = list(zip(draw.problems, draw.counts, strict=True))
        for first in sorted({groups[p.id].sampled for p in draw.problems}):
            asked = [(p, n) for p, n in drawn if groups[p.id].sampled == first]
            problems, counts = [p for p, _ in asked], [n for _, n in asked]
            options = {"first": first, "reward": None if judge else algorithm.reward, "process_group": process_group}
            fresh = sample_groups(generator, problems, counts, sampling, verifier, **options, prompting=prompting)
            for problem, sampled in zip(problems, fresh, strict=True):
                if judge:
                    right = (groups[problem.id].verified or 0) + sum(r.correct is True for r in sampled)
                    groups[problem.id] = replace(groups[problem.id], verified=right)
                    sampled = [
                        replace(r, reward=algorithm.reward(problem, r)) for r in (judge(step, r) for r in sampled)
                    ]
                groups[problem.id] = grown(groups[problem.id], sampled)
    return list(groups.values()), temperature


def grown(group: Group, sampled: Sequence[Rollout]) -> Group:
    """The group with more rollouts; those without a reward are left out and counted."""
    kept = [r for r in sampled if r.reward is not None]
    undecided = [*group.undecided, *(r for r in sampled if r.reward is None)]
    return replace(
        group,
        rollouts=[*group.rollouts, *kept],
        left_out=group.left_out + len(sampled) - len(kept),
        undecided=undecided,
    )


def describe(groups: Sequence[Group], kept: Sequence[Group], temperature: float, step: int = 0) -> dict[str, float]:
    """The step's metrics before its updates. `kept` groups of an earlier step are counted as carried over."""
    rollouts = [r for g in groups for r in g.rollouts]
    fresh = [g for g in kept if g.step == step]
    n = max(1, len(rollouts))
    verified = [g.verified for g in groups if g.verified is not None]
    return {
        "accuracy": sum(r.correct is True for r in rollouts) / n,
        "reward": sum(r.reward for r in rollouts) / n,
        "response_length": sum(len(r.ids) for r in rollouts) / n,
        "truncated": share_cut_off(rollouts),
        "unanswered": share_unanswered(rollouts),
        "repetition": sum(map(repeats_itself, rollouts)) / n,
        "zero_advantage": sum(not rewards_differ(g) for g in groups) / max(1, len(groups)),
        "temperature": temperature,
        "rollouts": len(rollouts),
        "undecided": sum(g.left_out for g in groups),
        "kept_groups": len(fresh) / max(1, len(groups)),
        "kept_rollouts": sum(len(g.rollouts) for g in fresh) / n,
        "carried_groups": len(kept) - len(fresh),
        **({"verified_accuracy": sum(verified) / n} if verified else {}),
    }


def signs(groups: Sequence[Group]) -> dict[str, int]:
    """How many groups are all right, all wrong, undecided, and mixed."""
    kinds = Counter[str]()
    for group in groups:
        right = sum(rollout.correct is True for rollout in group.rollouts)
        if not group.rollouts:
            kinds["undecided"] += 1
        else:
            kinds["all right" if right == len(group.rollouts) else "mixed" if right else "all wrong"] += 1
    return dict(kinds.most_common())
