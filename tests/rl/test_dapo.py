"""DAPO's dynamic sampling is bounded, refills, and throws nothing away; overlong rollouts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rl.worlds import LONGEST, group, made, setup
from tests.scripted import problem, rollout
from whetstone.rl.algorithm import Group
from whetstone.rl.algorithms.dapo import dapo, soft_overlong
from whetstone.rl.reward import plus_minus_one


def step_of(algorithm, state, step, marks_of) -> tuple[list[Group], list[Group]]:
    """(drawn, kept) of one step, with rollouts as `marks_of` a problem's name has them; the state goes through JSON."""
    drawn: list[Group] = []
    for _ in range(100):
        draw = algorithm.draw(state, step, drawn)
        if not draw.problems:
            kept = algorithm.keep(state, step, drawn)
            state.update(json.loads(json.dumps(state)))
            return drawn, kept
        drawn += [group(p.id, marks_of(p.id, step), step=step) for p in draw.problems]
    raise AssertionError("it draws for ever")


def test_it_draws_until_there_are_enough_groups_with_signal():
    dead = {"p0", "p1", "p2", "p5", "p7"}
    algorithm = made(dapo, setup(count=12, prompts=4))
    drawn, kept = step_of(algorithm, {}, 0, lambda name, _: "----" if name in dead else "+---")
    assert len(kept) == 4 and all(g.problem.id not in dead for g in kept)
    assert len({g.problem.id for g in drawn}) == len(drawn) > 4


@pytest.mark.parametrize("rounds", [1, 3])
def test_without_signal_drawing_stops_after_the_last_round(rounds):
    algorithm = made(dapo, setup(count=100, prompts=4), rounds=rounds)
    drawn, kept = step_of(algorithm, {}, 0, lambda *_: "++++")
    assert kept == [] and len(drawn) == 4 * rounds


def test_drawing_stops_once_every_problem_was_drawn():
    drawn, kept = step_of(made(dapo, setup(count=6, prompts=4), rounds=50), {}, 0, lambda *_: "----")
    assert len(drawn) == 6 and kept == []


def test_surplus_is_carried_over_with_its_rollouts_and_trained_on_first():
    algorithm = made(dapo, setup(count=40, prompts=4))
    state: dict = {}
    marks = {0: ["+---", "----", "----", "----"]}  # one of four has signal, so the next round asks for many

    def marks_of(name, step):
        return marks[step].pop(0) if marks.get(step) else "+-"

    drawn, kept = step_of(algorithm, state, 0, marks_of)
    surplus = [g for g in drawn if 0 < g.accuracy < 1][4:]
    assert len(kept) == 4 and surplus
    again, later = step_of(algorithm, state, 1, marks_of)
    assert later[: len(surplus)] == surplus, "the same rollouts, ids and log-probabilities"
    assert len(later) == 4 and len(again) == 4 - len(surplus)
    assert {g.step for g in later} == {0, 1}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["++++", "----", "+---"]), min_size=1, max_size=30), st.integers(1, 6))
def test_a_state_read_from_json_continues_like_the_state_in_memory(marks, prompts):
    """Every problem has its turn, no step has too many groups, and resuming from JSON changes nothing."""
    algorithm = made(dapo, setup(count=len(marks), prompts=prompts), rounds=4)
    state: dict = {}
    met, kept_before = set(), 0
    for step in range(8):
        carried = len(state.get("surplus", []))
        copy = json.loads(json.dumps(state))
        once = step_of(algorithm, state, step, lambda name, _: marks[int(name[1:])])
        assert step_of(algorithm, copy, step, lambda name, _: marks[int(name[1:])]) == once and copy == state
        drawn, kept = once
        met |= {g.problem.id for g in drawn}
        usable = carried + sum(0 < g.accuracy < 1 for g in drawn)
        assert len(kept) == min(prompts, usable) and len(state["surplus"]) == usable - len(kept) < prompts
        kept_before += len(kept)
    assert kept_before or "+---" not in marks


def test_a_short_batch_is_trained_on_with_the_weight_of_a_full_one():
    algorithm = made(dapo, setup(prompts=4))
    full = [group(f"p{i}", "+-") for i in range(4)]
    weights = {n: [row.weights for part in algorithm.credit(full[:n], full) for row in part] for n in (2, 4)}
    assert weights[2][0] == weights[4][0] == pytest.approx(1 / (4 * 2 * 3))
    assert sum(w * 3 for w in weights[2]) == pytest.approx(0.5)


def test_rollouts_that_were_cut_off_can_be_left_out_of_the_loss_but_not_of_the_baseline():
    whole = group("p", "+-<", tokens=lambda i: 2 + i)
    (all_rows,) = made(dapo, setup(prompts=1)).credit([whole], [whole])
    (rows,) = made(dapo, setup(prompts=1), mask_overlong=True).credit([whole], [whole])
    assert len(all_rows) == 3 and len(rows) == 2
    assert [r.token["advantage"] for r in rows] == [r.token["advantage"] for r in all_rows[:2]]
    assert [r.weights for r in rows] == [1 / 5] * 2 and all_rows[0].weights == 1 / 9


def test_the_length_penalty_is_a_ramp_added_to_the_reward():
    """Longest 20, ramp 4, as in the paper's eq. 13 with L_max 20 and L_cache 4."""
    reward = soft_overlong(plus_minus_one, longest=20, ramp=4)

    def of(tokens, correct):
        return reward(problem(), rollout(tokens=tokens, correct=correct))

    assert [of(n, True) for n in (1, 16, 17, 18, 20, 21)] == [1, 1, 0.75, 0.5, 0, 0]
    assert of(20, False) == -2 and of(20, None) is None
    assert made(dapo, setup()).reward(problem(), rollout(tokens=LONGEST)) == 0.0, "the default ramp is a fifth"
    assert made(dapo, setup(), soft_tokens=0).reward(problem(), rollout(tokens=LONGEST)) == 1.0


def test_equal_verdicts_with_unequal_lengths_are_no_signal():
    both_right = group("p", "++")
    shaped = Group(both_right.problem, [r for r in both_right.rollouts])
    assert made(dapo, setup()).keep({}, 0, [shaped]) == []
