"""A right and a wrong trace of one problem, from the teacher: the paper's Rollout DPO data.

How the paper pairs is not published. Here a trace serves in at most one pair, and the pairs that are closest in length come
first, so that the preference is about being right and not about being short.
"""

from whetstone.records import Pair, Problem, Trace


def make_pairs(problem: Problem, right: list[Trace], wrong: list[Trace], limit: int) -> list[Pair]:
    """At most `limit` pairs of this problem's traces."""
    others = {trace.problem_id for trace in (*right, *wrong)} - {problem.id}
    assert not others, f"pairs of {problem.id} from traces of {sorted(others)}: pairs never mix problems"
    candidates = [(chosen, rejected) for chosen in right for rejected in wrong]
    candidates.sort(key=lambda pair: abs(len(pair[0].text) - len(pair[1].text)))  # stable: ties by index
    pairs: list[Pair] = []
    used: set[int] = set()
    for chosen, rejected in candidates:
        if len(pairs) < limit and used.isdisjoint((chosen.index, rejected.index)):
            used |= {chosen.index, rejected.index}
            texts = problem.question, chosen.text, rejected.text
            pairs.append(Pair(problem.id, *texts, source="teacher", system=problem.system, policy=problem.policy))
    return pairs
