"""The loss of pairs is the paper's, to the last digit of float64."""

import math

import pytest
import torch

from whetstone.batch import Row, collate
from whetstone.dpo.loss import DPOLoss, pair_rows, weigh


def pairs(count: int, seed: int) -> list[list[Row]]:
    rng = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=rng))

    made = []
    for _ in range(count):
        prompt = [draw(0, 50) for _ in range(draw(1, 5))]
        sides = [[draw(0, 50) for _ in range(draw(1, 9))] for _ in range(2)]
        reference = tuple(float(x) for x in -10 * torch.rand(2, generator=rng, dtype=torch.float64))
        made.append(pair_rows(prompt, *sides, reference))
    return weigh(made)


def transcription(parts: list[torch.Tensor], rows: list[Row], beta: float, normalised: bool, nll: float):
    """Rafailov et al. 2023, eq. 7: -log sigmoid(beta log pi(y_w)/ref(y_w) - beta log pi(y_l)/ref(y_l)), pair mean."""
    total, chosen_tokens, chosen_sum = 0.0, 0, 0.0
    for i in range(0, len(rows), 2):
        gain = []
        for part, row in zip(parts[i : i + 2], rows[i : i + 2], strict=True):
            log_ratio = part.sum() - row.segment["reference"]
            gain.append(log_ratio / len(part) if normalised else log_ratio)
        total = total - torch.log(1 / (1 + torch.exp(-(beta * gain[0] - beta * gain[1]))))
        chosen_tokens += len(parts[i])
        chosen_sum = chosen_sum + parts[i].sum()
    return total / (len(rows) / 2) - nll * chosen_sum / chosen_tokens


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("nll", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradient_are_those_of_the_papers_formula(normalised, nll, seed):
    rows = [row for pair in pairs(6, seed) for row in pair]
    batch = collate(rows, torch.float64)
    rng = torch.Generator().manual_seed(seed)
    logprobs = -3 * torch.rand(len(batch.targets), generator=rng, dtype=torch.float64)
    logprobs.requires_grad_()
    loss, _ = DPOLoss(0.3, normalised, nll)(logprobs, torch.zeros_like(logprobs), batch)
    (found,) = torch.autograd.grad(loss, logprobs)
    expected = transcription(list(logprobs.split([row.scored for row in rows])), rows, 0.3, normalised, nll)
    (gradient,) = torch.autograd.grad(expected, logprobs)
    assert abs(loss.item() - expected.item()) < 1e-10
    assert (found - gradient).abs().max() < 1e-10


def test_one_pair_by_hand():
    """beta 0.5; chosen -1-1 = -2 against -3 gains 1, rejected -4 against -2 loses 2: margin 0.5 * 3 = 1.5.

    Loss log(1 + e^-1.5) = 0.201413. The slope on every token is sigmoid(-1.5) beta = 0.182426 * 0.5 = 0.091213.
    """
    rows = weigh([pair_rows([9], [1, 2], [3], (-3.0, -2.0))])[0]
    logprobs = torch.tensor([-1.0, -1.0, -4.0], dtype=torch.float64, requires_grad=True)
    loss, seen = DPOLoss(beta=0.5)(logprobs, torch.zeros(3), collate(rows, torch.float64))
    loss.backward()
    assert loss.item() == pytest.approx(0.2014133, abs=1e-6)
    assert logprobs.grad.tolist() == pytest.approx([-0.0912128, -0.0912128, 0.0912128], abs=1e-6)
    assert seen == pytest.approx(
        {
            "margin": 1.5,
            "accuracy": 1.0,
            "chosen_reward": 0.5,
            "rejected_reward": -1.0,
            "chosen_logprob": -1.0,
            "rejected_logprob": -4.0,
        }
    )


def test_the_model_that_is_its_own_reference_pays_ln_2_with_no_margin():
    rows = weigh([pair_rows([9], [1, 2], [3, 4, 5], (-2.0, -3.0))])[0]
    loss, seen = DPOLoss()(-torch.ones(5), torch.zeros(5), collate(rows))
    assert loss.item() == pytest.approx(math.log(2))
    assert seen["margin"] == 0 and seen["accuracy"] == 0


def test_a_step_split_into_micro_batches_has_the_loss_and_numbers_of_the_whole():
    made = pairs(4, 0)
    whole = collate([row for pair in made for row in pair], torch.float64)
    logprobs = -torch.rand(len(whole.targets), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss, seen = DPOLoss(chosen_nll=1.0)(logprobs, logprobs, whole)
    parts = [
        DPOLoss(chosen_nll=1.0)(part, part, collate(pair, torch.float64))
        for pair, part in zip(made, logprobs.split([pair[0].scored + pair[1].scored for pair in made]), strict=True)
    ]
    assert sum(part.item() for part, _ in parts) == pytest.approx(loss.item(), abs=1e-12)
    for name, value in seen.items():
        assert sum(sums[name] for _, sums in parts) == pytest.approx(value, abs=1e-12)
