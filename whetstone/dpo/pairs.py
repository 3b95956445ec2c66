"""Right and wrong rollouts of one problem become pairs; problems never mix."""

import random
from collections.abc import Sequence

from whetstone.records import Pair, Problem, Rollout


def build_pairs(problem: Problem, group: Sequence[Rollout], most: int, seed: int) -> list[Pair]:
    """At most `most` pairs, each rollout in one pair at most, a wrong one joined to the right one closest in length.

    A rollout that was cut off is never chosen, and is rejected only where no finished one is wrong; the verifier's
    undecided ones are left out. Pairs of equal ids cannot occur: their verdicts differ.
    """
    if any(r.problem_id != problem.id for r in group):
        raise ValueError(f"rollouts of other problems in the group of {problem.id}: pairs never mix problems.")
    right = [r for r in group if r.correct is True and r.stop == "end"]
    wrong = [r for r in group if r.correct is False]
    finished = [r for r in wrong if r.stop == "end"]
    wrong = finished or wrong
    random.Random(f"{seed}/{problem.id}").shuffle(wrong)
    pairs = []
    for rejected in wrong[:most]:
        if not right:
            break
        chosen = min(right, key=lambda r: (abs(len(r.ids) - len(rejected.ids)), r.index))
        right.remove(chosen)
        pairs.append(
            Pair(
                problem.id,
                problem.question,
                chosen.text,
                rejected.text,
                chosen.prompt_ids,
                chosen.ids,
                rejected.ids,
                "student",
            )
        )
    return pairs
