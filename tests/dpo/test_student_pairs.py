"""Pairs: of one problem, right over wrong, each rollout once, nothing cut off preferred."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import problem, rollout
from whetstone.dpo.pairs import build_pairs

ROLLOUTS = st.lists(
    st.tuples(st.sampled_from([True, False, None]), st.sampled_from(["end", "length"]), st.integers(1, 40)),
    max_size=16,
)


@given(ROLLOUTS, st.integers(1, 20), st.integers(0, 9))
def test_every_pair_is_right_over_wrong_and_each_rollout_is_used_once(made, most, seed):
    group = [rollout("p", i, correct, tokens, stop) for i, (correct, stop, tokens) in enumerate(made)]
    by_text = {r.text: r for r in group}
    pairs = build_pairs(problem("p"), group, most, seed)
    chosen, rejected = [by_text[p.chosen] for p in pairs], [by_text[p.rejected] for p in pairs]
    assert all(r.correct is True and r.stop == "end" for r in chosen)
    assert all(r.correct is False for r in rejected)
    assert len({r.index for r in [*chosen, *rejected]}) == 2 * len(pairs)
    assert [(p.chosen_ids, p.rejected_ids) for p in pairs] == [
        (c.ids, r.ids) for c, r in zip(chosen, rejected, strict=True)
    ]
    right = sum(r.correct is True and r.stop == "end" for r in group)
    wrong = sum(r.correct is False and r.stop == "end" for r in group) or sum(r.correct is False for r in group)
    assert len(pairs) == min(most, right, wrong)
    assert pairs == build_pairs(problem("p"), group, most, seed)


def test_pairs_never_mix_problems():
    with pytest.raises(ValueError, match="rollouts of other problems in the group of p1"):
        build_pairs(problem("p1"), [rollout("p1", 0, True), rollout("p2", 1, False)], 4, 0)


def test_the_right_rollout_nearest_in_length_is_chosen():
    group = [rollout(index=0, tokens=30), rollout(index=1, tokens=11), rollout(index=2, correct=False, tokens=10)]
    assert [p.chosen for p in build_pairs(problem(), group, 2, 0)] == ["p/1"]


def test_a_cut_off_rollout_is_rejected_only_where_no_finished_one_is_wrong():
    cut = rollout(index=1, correct=False, stop="length")
    assert [p.rejected for p in build_pairs(problem(), [rollout(), cut], 2, 0)] == ["p/1"]
    finished = rollout(index=2, correct=False)
    assert [p.rejected for p in build_pairs(problem(), [rollout(), cut, finished], 2, 0)] == ["p/2"]
