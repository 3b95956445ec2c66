"""The paper's three stabilisers, as its summary gives them."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.rl.worlds import batch_of, group, made, moved, random_groups, setup
from tests.scripted import problem, rollout, stage
from whetstone.rl.algorithm import Group
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.covariance import covariances
from whetstone.rl.loss import clipped
from whetstone.rl.prompts import chosen, unfit
from whetstone.rl.settings import Settings
from whetstone.rl.stabilisers import clip_cov, kl_cov
from whetstone.rl.stabilisers.prompt_optimization import length_spread
from whetstone.rl.stabilisers.reward_rebalancing import reward_rebalancing
from whetstone.rl.stabilisers.temperature_annealing import temperature, temperature_annealing

FOUR = setup(count=4, prompts=4)
TWO = setup(count=4, prompts=2)


def kept_of(algorithm, step: int, whole: Group) -> Group | None:
    return next(iter(algorithm.keep({}, step, [whole])), None)


def test_the_temperature_falls_from_1_to_0_6_over_the_first_half_and_stays():
    assert [temperature(s, 40) for s in (0, 10, 20, 30, 40)] == pytest.approx([1.0, 0.8, 0.6, 0.6, 0.6])
    draw = made(temperature_annealing, grpo(TWO), setup(steps=40)).draw
    assert [draw({}, s, []).temperature for s in (0, 10, 20, 40)] == pytest.approx([1.0, 0.8, 0.6, 0.6])
    assert draw({}, 10, []).problems == grpo(TWO).draw({}, 10, []).problems


def rebalanced(most: int = 16, seed: int = 0, threshold: float = 0.5):
    return made(reward_rebalancing, grpo(FOUR), setup(seed=seed), threshold=threshold, oversample=most)


@given(st.lists(st.booleans(), min_size=1, max_size=24), st.integers(0, 9))
def test_all_right_rollouts_are_kept_and_as_many_wrong_ones_drawn(marks, step):
    whole = group("a", "".join("+" if mark else "-" for mark in marks))
    kept = kept_of(rebalanced(), step, whole)
    right = sum(marks)
    if right == 0 or right / len(marks) > 0.5:
        assert kept is None
        return
    assert [r for r in kept.rollouts if r.correct] == [r for r in whole.rollouts if r.correct]
    assert sum(not r.correct for r in kept.rollouts) == right
    assert set(r.index for r in kept.rollouts) <= set(range(len(marks)))
    assert kept == kept_of(rebalanced(), step, whole)


def test_exactly_half_right_is_kept_and_more_is_dropped():
    assert len(kept_of(rebalanced(), 0, group("a", "++--")).rollouts) == 4
    assert kept_of(rebalanced(), 0, group("a", "+++--")) is None


def test_in_a_rebalanced_group_every_advantage_is_one():
    algorithm = rebalanced()
    kept = kept_of(algorithm, 0, group("a", "+-------"))
    advantages = [row.token["advantage"][0] for row in algorithm.credit([kept], [kept])[0]]
    assert advantages == pytest.approx([1.0, -1.0], rel=1e-5)


def test_which_wrong_ones_are_drawn_depends_on_seed_and_step_and_is_even():
    wrong = [[r.index for r in kept_of(rebalanced(seed=s), 0, group("a", "+----")).rollouts][1] for s in range(400)]
    counts = [wrong.count(i) for i in (1, 2, 3, 4)]
    assert sum(counts) == 400
    # 400 draws of 4: standard deviation 8.7; four of them out of 100 happens less than once in 10,000 seeds
    assert all(abs(count - 100) < 35 for count in counts)


def test_only_prompts_without_a_right_rollout_are_sampled_again():
    draw = rebalanced().draw
    first = draw({}, 0, [])
    assert len(first.problems) == 4
    more = draw({}, 0, [group("a", "----"), group("b", "+---"), group("c", "++++"), group("d", "----")])
    assert [p.id for p in more.problems] == ["a", "d"] and more.counts == [4, 4]


@pytest.mark.parametrize("most", [4, 9, 16])
def test_oversampling_stops_at_most(most):
    draw, have, rounds = rebalanced(most).draw, group("a", "----"), 0
    while (more := draw({}, 0, [have])).problems:
        rounds += 1
        have = group("a", "-" * (len(have.rollouts) + more.counts[0]))
        assert rounds < 10
    assert len(have.rollouts) == most


def test_rollouts_left_out_as_undecided_count_as_sampled():
    draw = rebalanced(most=6).draw
    assert draw({}, 0, [Group(problem(), [], left_out=4)]).counts == [2]
    assert not draw({}, 0, [Group(problem(), [], left_out=6)]).problems


def lengths(name: str, *marks: tuple[bool | None, int]):
    return [rollout(name, i, correct, tokens) for i, (correct, tokens) in enumerate(marks)]


def test_the_spread_of_lengths_by_hand():
    """10 and 30 tokens: mean 20, standard deviation 10."""
    assert length_spread(lengths("a", (True, 10), (False, 30))) == 0.5
    assert length_spread(lengths("a", (True, 7), (False, 7))) == 0


def test_prompts_are_dropped_each_for_its_reason(tmp_path):
    names = ["fine", "easy", "never", "uneven", "undecided", "half decided"]
    groups = [
        lengths("fine", (True, 10), (False, 12)),
        lengths("easy", (True, 10), (True, 10), (False, 10)),
        lengths("never", (False, 10), (False, 10)),
        lengths("uneven", (True, 10), (False, 30)),
        lengths("undecided", (None, 10), (None, 10)),
        lengths("half decided", (True, 10), (None, 10), (None, 10), (False, 10)),
    ]
    stage_of = stage(tmp_path / "r", Settings(kind="rl", stabilisers=["prompt_optimization"]))
    kept, counts, dropped = chosen(stage_of, [problem(n) for n in names], groups)
    assert [p.id for p in kept] == ["fine", "half decided"]
    assert {row["problem_id"]: row["reason"] for row in dropped} == {
        "easy": "too easy",
        "never": "never solved",
        "uneven": "uneven lengths",
        "undecided": "undecided",
    }
    assert counts == {"kept": 2, "too easy": 1, "never solved": 1, "uneven lengths": 1, "undecided": 1}
    assert dropped[2]["spread"] == 0.5 and dropped[2]["accuracy"] == 0.5


def test_without_prompt_optimisation_lengths_do_not_matter():
    uneven, easy = lengths("a", (True, 10), (False, 30)), lengths("a", (True, 10), (True, 10), (False, 10))
    assert unfit(Settings(kind="rl", stabilisers=[]), uneven) == unfit(Settings(kind="rl", stabilisers=[]), easy) == ""
    assert unfit(Settings(kind="rl", stabilisers=[], pool={"threshold": 0.5}), easy) == "too easy"
    assert unfit(Settings(kind="rl", stabilisers=["reward_rebalancing"]), easy) == "too easy"
    assert unfit(Settings(kind="rl"), uneven) == "uneven lengths"


def test_a_wrapped_algorithm_changes_only_what_it_says():
    plain = grpo(TWO)
    balanced = made(reward_rebalancing, plain, TWO)
    annealed = made(temperature_annealing, balanced, TWO)
    assert (balanced.reward, balanced.credit, balanced.loss) == (plain.reward, plain.credit, plain.loss)
    assert (annealed.keep, annealed.credit, annealed.loss) == (balanced.keep, balanced.credit, balanced.loss)


def test_the_order_of_rollouts_is_kept():
    marks = ["+", "-", "-", "+", "-", "-", "-"]
    random.Random(0).shuffle(marks)
    kept = kept_of(rebalanced(), 3, group("a", "".join(marks)))
    assert [r.index for r in kept.rollouts] == sorted(r.index for r in kept.rollouts)


def step_of_tokens(algorithm, seed: int, mark: str):
    """A batch of the algorithm's rows, (log-probability, advantage, mark) of each token, and log-probabilities after a move."""
    batch = batch_of(algorithm, random_groups(seed))
    old, advantage, marks = batch.token["old"], batch.token["advantage"], batch.token[mark]
    return batch, (old - old.mean()) * (advantage - advantage.mean()), marks.bool(), moved(batch, seed)


@pytest.mark.parametrize("seed", range(3))
def test_kl_cov_penalises_the_tokens_of_largest_covariance(seed, monkeypatch):
    monkeypatch.setattr(kl_cov, "COEFFICIENT", 0.7)
    algorithm = made(kl_cov.kl_cov, grpo(FOUR), FOUR, share=0.1)
    batch, cov, mark, logprobs = step_of_tokens(algorithm, seed, kl_cov.MARK)
    assert mark.sum() == max(1, int(0.1 * len(mark))) and cov[mark].min() >= cov[~mark].max()
    value, _ = algorithm.loss(logprobs, logprobs, batch)
    plain, _ = clipped(0.2, 0.2)(logprobs, logprobs, batch)
    expected = plain + 0.7 * (batch.weights * mark * (logprobs - batch.token["old"]).abs()).sum()
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_clip_cov_takes_the_gradient_of_some_tokens_in_the_band_and_of_no_others(seed, monkeypatch):
    monkeypatch.setattr(clip_cov, "LOW", 0.2)
    monkeypatch.setattr(clip_cov, "HIGH", 0.9)
    algorithm = made(clip_cov.clip_cov, grpo(FOUR), setup(seed=seed), share=0.1)
    batch, cov, mark, logprobs = step_of_tokens(algorithm, seed, clip_cov.MARK)
    band = (cov > 0.2) & (cov < 0.9)
    assert 0 < mark.sum() == min(int(band.sum()), max(1, int(0.1 * len(mark)))) and not (mark & ~band).any()
    (ours,) = torch.autograd.grad(algorithm.loss(logprobs, logprobs, batch)[0], logprobs)
    (plain,) = torch.autograd.grad(clipped(0.2, 0.2)(logprobs, logprobs, batch)[0], logprobs)
    assert torch.equal(ours, plain * ~mark)
    again = made(clip_cov.clip_cov, grpo(FOUR), setup(seed=seed), share=0.1)
    assert torch.equal(step_of_tokens(again, seed, clip_cov.MARK)[2], mark), "the same tokens after a resume"


def test_clip_cov_and_kl_cov_together_hold_back_their_own_tokens(monkeypatch):
    monkeypatch.setattr(clip_cov, "LOW", 0.2)
    inner = made(clip_cov.clip_cov, grpo(FOUR), FOUR, share=0.1)
    batch = batch_of(made(kl_cov.kl_cov, inner, FOUR, share=0.1), random_groups(0))
    alone = batch_of(inner, random_groups(0))
    assert torch.equal(batch.token[clip_cov.MARK], alone.token[clip_cov.MARK])
    assert not torch.equal(batch.token[kl_cov.MARK], batch.token[clip_cov.MARK])


def test_covariances_by_hand():
    """Log-probabilities -1, -1, -3 (mean -5/3) and advantages 1, 1, -1 (mean 1/3)."""
    from whetstone.batch import Row

    rows = [
        Row([1, 2, 3], token={"old": [-1.0, -1.0], "advantage": [1.0, 1.0]}),
        Row([1, 2], token={"old": [-3.0], "advantage": [-1.0]}),
    ]
    assert covariances(rows) == pytest.approx([4 / 9, 4 / 9, 16 / 9])
