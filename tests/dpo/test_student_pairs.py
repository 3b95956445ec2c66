"""Pairs: of one problem, right over wrong, each rollout once, nothing cut off preferred."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import problem, rollout
from whetstone.pairing import RULES, build_pairs, ranked_pairs

ROLLOUTS = st.lists(
    st.tuples(st.sampled_from([True, False, None]), st.sampled_from(["end", "length"]), st.integers(1, 40)),
    max_size=16,
)


@given(ROLLOUTS, st.integers(1, 20), st.integers(0, 9))
def test_every_pair_is_right_over_wrong_and_each_rollout_is_used_once(marks, most, seed):
    group = [rollout("p", i, correct, tokens, stop) for i, (correct, stop, tokens) in enumerate(marks)]
    by_text = {r.text: r for r in group}
    pairs = build_pairs(problem("p"), group, most, seed)
    chosen, rejected = [by_text[p.chosen] for p in pairs], [by_text[p.rejected] for p in pairs]
    assert all(r.correct is True and r.stop == "end" for r in chosen)
    assert all(r.correct is False for r in rejected)
    assert len({r.index for r in [*chosen, *rejected]}) == 2 * len(pairs)
    assert [(p.chosen_ids, p.rejected_ids) for p in pairs] == [
        (c.ids, r.ids) for c, r in zip(chosen, rejected, strict=True)
    ]
    right, wrong = sides(group)
    assert len(pairs) == min(most, right, wrong)
    assert pairs == build_pairs(problem("p"), group, most, seed)


def sides(group) -> tuple[int, int]:
    """How many rollouts may be chosen, and how many rejected."""
    right = sum(r.correct is True and r.stop == "end" for r in group)
    return right, sum(r.correct is False and r.stop == "end" for r in group) or sum(r.correct is False for r in group)


@given(ROLLOUTS, st.integers(1, 20), st.sampled_from(sorted(RULES)), st.integers(0, 9))
def test_every_rule_pairs_right_over_wrong_never_two_alike_and_as_many_as_it_says(marks, most, rule, seed):
    group = [rollout("p", i, correct, tokens, stop) for i, (correct, stop, tokens) in enumerate(marks)]
    by_text = {r.text: r for r in group}
    pairs = build_pairs(problem("p"), group, most, seed, rule)
    met = [(by_text[p.chosen], by_text[p.rejected]) for p in pairs]
    assert all(c.correct is True and c.stop == "end" and r.correct is False for c, r in met)
    assert len({(c.index, r.index) for c, r in met}) == len(pairs)
    right, wrong = sides(group)
    most_pairs = {"one": min(1, right, wrong), "all": right * wrong}.get(rule, min(right, wrong))
    assert len(pairs) == min(most, most_pairs)


def test_the_hardest_pair_is_the_likeliest_wrong_answer_and_the_least_likely_right_one():
    def sampled(index, correct, logprobs):
        return replace(rollout(index=index, correct=correct, tokens=len(logprobs)), logprobs=logprobs)

    group = [
        sampled(0, True, [-0.1, -0.1]),
        sampled(1, True, [-0.9, -0.7]),
        sampled(2, False, [-2.0]),
        sampled(3, False, [-0.2, -0.4, -0.3]),  # less likely as a whole than 4, likelier a token
        sampled(4, False, [-0.8]),
    ]
    pairs = build_pairs(problem(), group, 9, 0, "hardest")
    assert [(p.chosen, p.rejected) for p in pairs] == [("p/1", "p/3"), ("p/0", "p/4")]


def test_pairs_never_mix_problems():
    with pytest.raises(ValueError, match="rollouts of other problems in the group of p1"):
        build_pairs(problem("p1"), [rollout("p1", 0, True), rollout("p2", 1, False)], 4, 0)


def test_the_right_rollout_nearest_in_length_is_chosen():
    group = [rollout(index=0, tokens=30), rollout(index=1, tokens=11), rollout(index=2, correct=False, tokens=10)]
    assert [p.chosen for p in build_pairs(problem(), group, 2, 0)] == ["p/1"]


def test_a_cut_off_rollout_is_rejected_only_if_no_finished_one_is_wrong():
    cut = rollout(index=1, correct=False, stop="length")
    assert [p.rejected for p in build_pairs(problem(), [rollout(), cut], 2, 0)] == ["p/1"]
    finished = rollout(index=2, correct=False)
    assert [p.rejected for p in build_pairs(problem(), [rollout(), cut, finished], 2, 0)] == ["p/2"]


def test_a_reward_model_pairs_the_best_with_the_worst_whatever_the_verdicts():
    """Rewards 5 and 1, then 4 and 2; the rollout with 9 was cut off, and equal rewards make no pair."""
    group = [rollout(index=i, correct=i == 0, stop="length" if i == 5 else "end") for i in range(6)]
    pairs = ranked_pairs(problem(), group, [1.0, 5.0, 2.0, 4.0, 3.0, 9.0], 9)
    assert [(p.chosen, p.rejected) for p in pairs] == [("p/1", "p/0"), ("p/3", "p/2")]
    assert ranked_pairs(problem(), group, [1.0, 5.0, 2.0, 4.0, 3.0, 9.0], 1) == pairs[:1]
    assert ranked_pairs(problem(), group, [1.0] * 6, 9) == []


def test_equal_rollouts_make_no_pair_however_their_numbers_are_rounded():
    same = [replace(rollout(index=i), ids=[7, 2]) for i in range(2)]
    assert ranked_pairs(problem(), same, [0.4, 0.4 + 1e-8], 9) == []
