"""A right and a wrong trace of one problem, from the teacher: the paper's Rollout DPO data.

How the paper pairs is not published. Here: a trace serves in at most one pair, and of all the pairs there could be the
closest in length come first, so that the preference is about being right and not about being short.
"""

from whetstone.records import Pair, Problem, Trace


def make_pairs(problem: Problem, right: list[Trace], wrong: list[Trace], limit: int, match_length: bool) -> list[Pair]:
    """At most `limit` pairs of this problem's traces; traces of another problem are refused."""
    strangers = {trace.problem_id for trace in (*right, *wrong)} - {problem.id}
    if strangers:
        raise ValueError(
            f"pairs of {problem.id} were asked of traces of {sorted(strangers)}: pairs never mix problems."
        )
    candidates = [(right_one, wrong_one) for right_one in right for wrong_one in wrong]
    if match_length:
        candidates.sort(key=lambda pair: abs(len(pair[0].text) - len(pair[1].text)))  # stable: ties by index
    pairs: list[Pair] = []
    used: set[int] = set()
    for chosen, rejected in candidates:
        if len(pairs) == limit:
            break
        if chosen.index in used or rejected.index in used:
            continue
        used |= {chosen.index, rejected.index}
        pairs.append(Pair(problem.id, problem.question, chosen.text, rejected.text, source="teacher"))
    return pairs
