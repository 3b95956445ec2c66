"""Prompt optimisation (Phi-4-Mini-Reasoning): before RL, keep prompts whose responses have fairly uniform length.

The paper samples several rounds with the distilled model and gives neither metric nor threshold. Here the metric is the
coefficient of variation of a prompt's response lengths (standard deviation over mean), at most `most_spread`; and a prompt
must not be too easy (accuracy at most `threshold`) and, where `solvable` is asked for, have one right response. Few rounds
cannot tell a hard prompt from an impossible one: then leave the latter to reward rebalancing, which samples on. Responses
that the verifier could not decide count for neither.
"""

from collections import Counter
from collections.abc import Sequence

from whetstone.records import Problem, Rollout


def length_spread(group: Sequence[Rollout]) -> float:
    """Standard deviation of the response lengths over their mean."""
    lengths = [len(r.ids) for r in group]
    mean = sum(lengths) / len(lengths)
    return (sum((n - mean) ** 2 for n in lengths) / len(lengths)) ** 0.5 / max(1e-9, mean)


def optimise_prompts(
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Rollout]],
    most_spread: float,
    threshold: float,
    uniform: bool = True,
    solvable: bool = True,
) -> tuple[list[Problem], list[dict[str, object]], Counter[str]]:
    """(kept, dropped rows with reason, counts by reason). `uniform` off: only the rule on accuracy."""
    kept, dropped, counts = [], [], Counter()
    for problem, group in zip(problems, groups, strict=True):
        decided = [r.correct for r in group if r.correct is not None]
        accuracy = sum(decided) / max(1, len(decided))
        spread = length_spread(group)
        if not decided:
            reason = "undecided"
        elif accuracy > threshold:
            reason = "too easy"
        elif solvable and accuracy == 0:
            reason = "never solved"
        elif uniform and spread > most_spread:
            reason = "uneven lengths"
        else:
            kept.append(problem)
            counts["kept"] += 1
            continue
        counts[reason] += 1
        dropped.append({"problem_id": problem.id, "reason": reason, "accuracy": accuracy, "spread": spread})
    return kept, dropped, counts
