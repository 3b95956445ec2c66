"""SRPO's history: what was all right in an epoch is not drawn in the next; what never was, is."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rl.worlds import group, made, setup
from whetstone.rl.algorithms.srpo import finished, srpo


def drawn_in(algorithm, state, step, marks) -> list[str]:
    draw = algorithm.draw(state, step, [])
    groups = [group(p.id, marks[p.id], step=step) for p in draw.problems]
    assert not algorithm.draw(state, step, groups).problems
    algorithm.keep(state, step, groups)
    state.update(json.loads(json.dumps(state)))
    return [p.id for p in draw.problems]


def test_all_right_problems_leave_and_never_right_ones_stay():
    marks = {"p0": "++", "p1": "+-", "p2": "--", "p3": "++", "p4": "--", "p5": "+-"}
    algorithm, state = made(srpo, setup(count=6, prompts=3)), {}
    first = [name for step in (0, 1) for name in drawn_in(algorithm, state, step, marks)]
    assert sorted(first) == sorted(marks)
    second = [name for step in (2, 3) for name in drawn_in(algorithm, state, step, marks)]
    assert {"p0", "p3"} & set(second) == set() and {"p1", "p2", "p4", "p5"} <= set(second)


def test_if_all_problems_are_solved_an_epoch_takes_all():
    marks = {f"p{i}": "++" for i in range(4)}
    algorithm, state = made(srpo, setup(count=4, prompts=4)), {}
    assert sorted(drawn_in(algorithm, state, 0, marks)) == sorted(marks)
    assert sorted(drawn_in(algorithm, state, 1, marks)) == sorted(marks), "none is left: the epoch takes all"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["++", "+-", "--"]), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 3))
def test_no_step_draws_a_problem_twice_and_no_epoch_draws_solved_ones(signs, prompts, seed):
    marks = {f"p{i}": m for i, m in enumerate(signs)}
    algorithm, state = made(srpo, setup(count=len(signs), prompts=prompts, seed=seed)), {}
    met = []
    for step in range(30):
        copy = json.loads(json.dumps(state))
        names = drawn_in(algorithm, state, step, marks)
        assert drawn_in(algorithm, copy, step, marks) == names and copy == state, "resumed from JSON"
        assert 0 < len(names) == len(set(names)) <= prompts
        met += names
    assert set(met) == set(marks)
    if {"+-", "--"} & set(signs):  # something is left to learn: the mastered are met in the first epoch, or at its end
        assert all(met.count(name) <= 2 for name, mark in marks.items() if mark == "++")


def test_a_rollout_that_was_cut_off_has_advantage_0_and_its_tokens_count():
    whole = group("p", "+-<", tokens=lambda i: 3)
    assert finished(whole)[2] == 0 and finished(whole)[0] > 0 > finished(whole)[1]
    (rows,) = made(srpo, setup()).credit([whole], [whole])
    assert [row.weights for row in rows] == [1 / 9] * 3
