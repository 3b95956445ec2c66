"""Importance weights against a sampler that is not the learner: by hand, as exact expectations, and through the updates."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from tests.rl.test_update import Counted, sampled, updated  # noqa: F401
from tests.rl.worlds import setup
from tests.scripted import stage
from tests.tiny_world import logged
from whetstone.batch import Row, collate
from whetstone.rl import loop
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.correction import CorrectionSettings, bounded, corrected, importance, with_correction
from whetstone.rl.loss import observed
from whetstone.rl.settings import Settings
from whetstone.rl.update import credited, gradient, mean_of

RNG = np.random.default_rng(0)
PI, MU = (x / x.sum(-1, keepdims=True) for x in RNG.random((2, 3, 3)))  # (state, token): the state is the token before
ADVANTAGE = RNG.normal(size=(3, 3))  # of the two tokens of a text


def weights(old, sampler, **settings):
    known = CorrectionSettings(**settings)
    return [bounded(weight, known) for weight in importance(old, sampler, known.level)]


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_the_ratios_within_their_bounds(level):
    old, sampler = np.log(RNG.random((2, 6)))
    ratios = np.exp(old - sampler) if level == "token" else np.full(6, np.exp((old - sampler).sum()))
    cut = weights(old, sampler, kind="truncate", level=level, limit=1.2)
    assert cut == pytest.approx(np.minimum(ratios, 1.2), rel=1e-12)
    masked = weights(old, sampler, kind="mask", level=level, limit=1.5, floor=0.5)
    assert masked == pytest.approx(np.where((ratios >= 0.5) & (ratios <= 1.5), ratios, 0), rel=1e-12)


def test_a_ratio_that_would_overflow_is_cut():
    assert weights([0.0], [-1e4], kind="truncate") == [2.0] and weights([0.0], [-1e4], kind="mask") == [0.0]


@pytest.mark.parametrize(("level", "exact"), [("sequence", True), ("token", False)])
def test_the_mean_gradient_over_the_samplers_texts_is_that_over_the_learners(level, exact):
    """All texts of two tokens from state 0, each weighted by its probability under the sampler; ratio 1, nothing clipped.

    Token weights keep the distribution of the states that mu visits, and are therefore biased.
    """

    def mean_gradient(distribution, corrects):
        logits = torch.tensor(np.log(PI), requires_grad=True)
        loss = grpo(setup()).loss
        total = 0.0
        for a, b in product(range(3), repeat=2):
            old = [math.log(PI[0, a]), math.log(PI[a, b])]
            sampler = [math.log(MU[0, a]), math.log(MU[a, b])]
            scales = weights(old, sampler, kind="truncate", level=level, limit=1e6) if corrects else [1.0, 1.0]
            token = {"advantage": [float(ADVANTAGE[a, b])] * 2, "old": old, "correction": scales}
            batch = collate([Row([5, a, b], 1, 1.0, token)], torch.float64)
            logprobs = torch.stack([logits.log_softmax(-1)[0, a], logits.log_softmax(-1)[a, b]])
            total = total + distribution[0, a] * distribution[a, b] * corrected(loss)(logprobs, None, batch)[0]
        return torch.autograd.grad(total, logits)[0]

    wanted, found = mean_gradient(PI, corrects=False), mean_gradient(MU, corrects=True)
    assert torch.allclose(found, wanted, atol=1e-10) is exact
    assert not torch.allclose(mean_gradient(MU, corrects=False), wanted, atol=1e-3)


def corrected_update(sampled, shift, **settings):  # noqa: F811
    """(gradient, metrics) of one update on rollouts whose sampler gave each token exp(`shift`) times its probability."""
    learner, groups = sampled
    shifted = [
        replace(g, rollouts=[replace(r, logprobs=[x + shift for x in r.logprobs]) for r in g.rollouts]) for g in groups
    ]
    algorithm = grpo(setup())
    known = CorrectionSettings(**settings)
    trained, facts = with_correction(learner, credited(algorithm, shifted, shifted), known)
    for _, rows in trained:
        for row in rows:
            row.segment["fresh"] = 1.0
    counted = Counted(learner)
    sums = gradient(counted, observed(corrected(algorithm.loss)), trained)
    counted.step()
    return counted.gradients[0], facts | mean_of([sums | {"gradient_norm": 0.0}])


def test_the_update_is_scaled_by_the_bounded_weight_and_the_ratio_starts_at_1(sampled):  # noqa: F811
    (true,) = updated(sampled)[0].gradients
    for scale, settings in ((math.e**0.5, {}), (1.5, {"limit": 1.5}), (0.0, {"kind": "mask", "limit": 1.5})):
        found, metrics = corrected_update(sampled, -0.5, **({"kind": "truncate"} | settings))
        assert torch.allclose(found, scale * true, atol=1e-5)
        assert metrics["clipped"] == 0 and metrics["importance"] == pytest.approx(math.e**0.5, rel=1e-4)
        assert metrics["corrected"] == float("limit" in settings)
        assert metrics["sampler_gap"] == pytest.approx(0.5, abs=1e-4)


def test_what_the_samples_are_worth_is_logged_without_a_correction():
    """Two rollouts of one token: the learner finds one twice and the other half as likely as the sampler did."""
    rows = [Row([5, 6], 1, 0.5, {"advantage": [1.0], "old": [-1.0]}, {"fresh": 1.0}) for _ in range(2)]
    batch = collate(rows, torch.float64)
    logprobs = torch.tensor([-1 + math.log(2), -1 - math.log(2)], dtype=torch.float64)
    _, sums = observed(grpo(setup()).loss)(logprobs, torch.zeros(2), batch)
    metrics = mean_of([sums | {"loss": 0.0, "gradient_norm": 0.0}])
    assert metrics["sample_size"] == pytest.approx(2.5**2 / (2 * 4.25))
    assert metrics["sampler_kl"] == pytest.approx((2 - 1 - math.log(2) + 0.5 - 1 + math.log(2)) / 2)
    assert metrics["sampler_gap"] == pytest.approx(math.log(2))


def test_rollouts_of_older_steps_are_weighted_too(sampled):  # noqa: F811
    learner, groups = sampled
    trained, _ = with_correction(
        learner,
        credited(grpo(setup()), [replace(g, step=-1) for g in groups], groups),
        CorrectionSettings(kind="truncate"),
    )
    assert all(
        "correction" in row.token and row.token["sampler"] != row.token["old"] for _, rows in trained for row in rows
    )


def test_no_groups_have_no_weights():
    assert with_correction(None, [], CorrectionSettings(kind="mask")) == ([], {})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"limit": 3.0}, "limit = 3.0 has no effect: set kind"),
        ({"kind": "truncate", "floor": 0.5}, 'floor = 0.5 belongs to kind = "mask"'),
        ({"kind": "mask", "limit": 0.9}, "greater than 1"),
    ],
)
def test_options_that_have_no_effect_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        CorrectionSettings(**table)


def test_a_table_with_defaults_alone_is_no_mistake():
    for table in ({"kind": "none"}, {"kind": "mask", "limit": 3.0}):
        read = Settings(kind="rl", correction=table)
        assert Settings.model_validate(read.model_dump(mode="json")) == read


def test_a_stage_logs_its_weights_which_are_1_where_sampler_and_learner_agree(tmp_path, world, adder):
    settings = {"steps": 1, "prompts_per_step": 4, "samples": 3, "max_tokens": 40, "pool": {"samples": 0}, "updates": 2}
    settings |= {"stabilisers": [], "correction": {"kind": "mask", "level": "sequence", "floor": 0.5}}
    inputs = {"model": adder, "prompts": world["prompts"]}
    loop.run(stage(tmp_path / "r", loop.Settings(kind="rl", **settings), **inputs))
    found = {name: logged(tmp_path / "r", name) for name in ("importance", "sample_size", "corrected")}
    assert found["importance"] and all(
        x == pytest.approx(1, abs=1e-4) for x in found["importance"] + found["sample_size"]
    )
    assert not any(found["corrected"])
