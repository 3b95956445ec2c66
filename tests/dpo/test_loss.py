"""The loss of pairs is the paper's, to the last digit of float64."""

import math

import pytest
import torch

from whetstone.batch import Row, collate
from whetstone.dpo.loss import PairLoss, make_loss, pair_rows, weighted, with_reference
from whetstone.dpo.settings import Settings


def pairs(count: int, seed: int, reference: bool = True) -> list[list[Row]]:
    rng = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=rng))

    drawn = []
    for _ in range(count):
        prompt = [draw(0, 50) for _ in range(draw(1, 5))]
        sides = [[draw(0, 50) for _ in range(draw(1, 9))] for _ in range(2)]
        likelihoods = [reference * float(x) for x in -10 * torch.rand(2, generator=rng, dtype=torch.float64)]
        drawn.append(pair_rows(prompt, *sides, tuple(likelihoods)))
    return weighted(drawn)


def sigma(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + torch.exp(-x))


# The papers' formulas, of (log-ratio or log-probability, number of tokens) of both sides; each written out by itself
def dpo(w, l, n_w, n_l):  # noqa: E741
    """2305.18290, eq. 7: -log sigmoid(beta log pi(y_w)/ref(y_w) - beta log pi(y_l)/ref(y_l))"""
    return -torch.log(sigma(0.3 * w - 0.3 * l))


def dpo_per_token(w, l, n_w, n_l):  # noqa: E741
    return -torch.log(sigma(0.3 / n_w * w - 0.3 / n_l * l))


def conservative(w, l, n_w, n_l):  # noqa: E741
    """Mitchell 2023: the labels are wrong with probability 0.1, so the binary cross-entropy's target is 0.9."""
    right = sigma(0.3 * (w - l))
    return -0.9 * torch.log(right) - 0.1 * torch.log(1 - right)


def robust_dpo(w, l, n_w, n_l):  # noqa: E741
    """2403.00409: ((1 - e) L(y_w > y_l) - e L(y_l > y_w)) / (1 - 2 e)"""
    return (0.9 * dpo(w, l, n_w, n_l) - 0.1 * dpo(l, w, n_l, n_w)) / 0.8


def ipo_paper(w, l, n_w, n_l):  # noqa: E741
    """2310.12036, eq. 17: (h - 1/(2 tau))^2 with h = log (pi(y_w) ref(y_l)) / (pi(y_l) ref(y_w))"""
    return (w - l - 1 / (2 * 0.3)) ** 2


def ipo_per_token(w, l, n_w, n_l):  # noqa: E741
    return (w / n_w - l / n_l - 1 / (2 * 0.3)) ** 2


def simpo_paper(w, l, n_w, n_l):  # noqa: E741
    """2405.14734, eq. 6: -log sigmoid(beta/|y_w| log pi(y_w) - beta/|y_l| log pi(y_l) - gamma)"""
    return -torch.log(sigma(0.3 / n_w * w - 0.3 / n_l * l - 0.5))


FORMULAS = {
    "sigmoid": (dpo, {"loss": "sigmoid"}),
    "sigmoid, per token": (dpo_per_token, {"loss": "sigmoid", "length_normalised": True}),
    "conservative": (conservative, {"loss": "sigmoid", "label_smoothing": 0.1}),
    "robust": (robust_dpo, {"loss": "robust", "label_smoothing": 0.1}),
    "ipo of whole sequences": (ipo_paper, {"loss": "ipo", "length_normalised": False}),
    "ipo": (ipo_per_token, {"loss": "ipo"}),
    "simpo": (simpo_paper, {"loss": "simpo", "target_margin": 0.5}),
}


@pytest.mark.parametrize("nll", [0.0, 0.7])
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_those_of_the_papers_formula(name, nll, seed):
    formula, settings = FORMULAS[name]
    rows = [row for pair in pairs(6, seed, reference=name != "simpo") for row in pair]
    batch = collate(rows, torch.float64)
    rng = torch.Generator().manual_seed(seed)
    logprobs = -3 * torch.rand(len(batch.targets), generator=rng, dtype=torch.float64)
    logprobs.requires_grad_()
    loss, _ = make_loss(Settings(kind="dpo", beta=0.3, chosen_nll=nll, **settings))(logprobs, logprobs, batch)
    (ours,) = torch.autograd.grad(loss, logprobs)

    parts = logprobs.split([row.scored for row in rows])
    ratios = [part.sum() - row.segment["reference"] for part, row in zip(parts, rows, strict=True)]
    sizes = [len(part) for part in parts]
    each = [formula(ratios[i], ratios[i + 1], sizes[i], sizes[i + 1]) for i in range(0, len(rows), 2)]
    anchor = torch.cat(parts[0::2]).mean()
    expected = sum(each) / len(each) - nll * anchor
    (gradient,) = torch.autograd.grad(expected, logprobs)
    assert abs(loss.item() - expected.item()) < 1e-10
    assert (ours - gradient).abs().max() < 1e-10


def test_one_pair_by_hand():
    """beta 0.5; log-ratios 1 (chosen -1-1 = -2 against -3) and -2 (rejected -4 against -2): margin 0.5 * 3 = 1.5.

    Loss log(1 + e^-1.5) = 0.201413. The slope on every token is sigmoid(-1.5) beta = 0.182426 * 0.5 = 0.091213.
    """
    rows = weighted([pair_rows([9], [1, 2], [3], (-3.0, -2.0))])[0]
    logprobs = torch.tensor([-1.0, -1.0, -4.0], dtype=torch.float64, requires_grad=True)
    loss, metrics = PairLoss(beta=0.5)(logprobs, torch.zeros(3), collate(rows, torch.float64))
    loss.backward()
    assert loss.item() == pytest.approx(0.2014133, abs=1e-6)
    assert logprobs.grad.tolist() == pytest.approx([-0.0912128, -0.0912128, 0.0912128], abs=1e-6)
    assert metrics == pytest.approx(
        {
            "margin": 1.5,
            "accuracy": 1.0,
            "chosen_reward": 0.5,
            "rejected_reward": -1.0,
            "chosen_logprob": -1.0,
            "rejected_logprob": -4.0,
            "chosen_log_ratio": 0.5,
            "chosen_length": 2.0,
            "rejected_length": 1.0,
        }
    )


def test_weighting_a_step_leaves_the_pairs_as_they_were():
    drawn = [pair_rows([9], [1, 2], [3], (-3.0, -2.0)), pair_rows([8], [1], [3, 4])]
    assert drawn[1][0].segment["reference"] == 0.0
    ((chosen, rejected), _), _ = weighted(drawn), weighted(drawn[:1])
    assert (chosen.weights, rejected.weights, chosen.segment["share"]) == (1 / 3, 0.0, 0.5)
    assert drawn[0][0].weights == 1.0 and "share" not in drawn[0][0].segment
    scored = with_reference(drawn, [-1.0, -2.0, -3.0, -4.0])
    assert [row.segment["reference"] for pair in scored for row in pair] == [-1.0, -2.0, -3.0, -4.0]


def test_the_loss_is_ln_2_if_the_model_is_its_own_reference():
    rows = weighted([pair_rows([9], [1, 2], [3, 4, 5], (-2.0, -3.0))])[0]
    loss, metrics = PairLoss()(-torch.ones(5), torch.zeros(5), collate(rows))
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["margin"] == 0 and metrics["accuracy"] == 0


def test_a_step_split_into_micro_batches_has_the_loss_and_numbers_of_the_whole():
    drawn = pairs(4, 0)
    whole = collate([row for pair in drawn for row in pair], torch.float64)
    logprobs = -torch.rand(len(whole.targets), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss, metrics = PairLoss(chosen_nll=1.0)(logprobs, logprobs, whole)
    parts = [
        PairLoss(chosen_nll=1.0)(part, part, collate(pair, torch.float64))
        for pair, part in zip(drawn, logprobs.split([pair[0].scored + pair[1].scored for pair in drawn]), strict=True)
    ]
    assert sum(part.item() for part, _ in parts) == pytest.approx(loss.item(), abs=1e-12)
    for name, value in metrics.items():
        assert sum(sums[name] for _, sums in parts) == pytest.approx(value, abs=1e-12)
