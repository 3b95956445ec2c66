"""TRL's own DPO and SimPO losses on the same log-probabilities: the same loss and the same gradient."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from tests.dpo.test_loss import pairs
from whetstone.batch import collate
from whetstone.dpo.loss import make_loss
from whetstone.dpo.settings import Settings

pytest.importorskip("trl", reason="TRL is a peer, not a dependency: make bench-env")


def padded(parts) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows -> (B, T), as TRL has them, and the mask."""
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(p)) for p in parts], batch_first=True)
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True), mask


def trl_loss(kind: str, parts, reference, beta: float, smoothing: float) -> torch.Tensor:
    """`DPOTrainer._compute_loss` of a model that gives these log-probabilities; rows are chosen, …, rejected, …"""
    from trl import DPOTrainer

    order = [*range(0, len(parts), 2), *range(1, len(parts), 2)]
    logprobs, mask = padded([parts[i] for i in order])
    trainer = MagicMock()
    trainer.model.training, trainer.accelerator.device = True, "cpu"
    trainer.accelerator.gather_for_metrics = trainer.accelerator.gather = lambda x: x
    trainer.configure_mock(
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl",
        loss_types=[kind], loss_weights=[1.0], label_smoothing=smoothing, beta=beta, use_weighting=False,
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    first = torch.zeros(len(parts), 1)
    inputs = {
        "input_ids": torch.cat([first, mask], 1).long(),
        "attention_mask": torch.cat([first + 1, mask], 1),
        "completion_mask": torch.cat([first, mask], 1),
        "ref_chosen_logps": torch.tensor(reference[0::2], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor(reference[1::2], dtype=torch.float64),
    }
    numbers = dict.fromkeys(("entropy", "mean_logits"), torch.zeros_like(mask))
    outputs = SimpleNamespace(log_probs=logprobs, is_top1=mask.bool(), **numbers)
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


SAME = {
    "sigmoid": {"loss": "sigmoid"},
    "sigmoid_norm": {"loss": "sigmoid", "length_normalised": True},
    "ipo": {"loss": "ipo"},
    "robust": {"loss": "robust", "label_smoothing": 0.1},
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_trls(kind, seed):
    rows = [row for pair in pairs(6, seed) for row in pair]
    batch = collate(rows, torch.float64)
    logprobs = -3 * torch.rand(len(batch.targets), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logprobs.requires_grad_()
    settings = Settings(kind="dpo", beta=0.3, **SAME[kind])
    loss, _ = make_loss(settings)(logprobs, logprobs, batch)
    reference = [row.segment["reference"] for row in rows]
    theirs = trl_loss(kind, logprobs.split([row.scored for row in rows]), reference, 0.3, settings.label_smoothing)
    gradients = [torch.autograd.grad(value, logprobs)[0] for value in (loss, theirs)]
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10


@pytest.mark.parametrize("seed", range(3))
def test_simpo_is_that_of_trls_cpo_trainer(seed):
    from trl.experimental.cpo import CPOTrainer

    rows = [row for pair in pairs(6, seed, reference=False) for row in pair]
    batch = collate(rows, torch.float64)
    logprobs = -3 * torch.rand(len(batch.targets), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss, _ = make_loss(Settings(kind="dpo", beta=2.0, loss="simpo", target_margin=0.5))(logprobs, logprobs, batch)
    means = torch.stack([part.mean() for part in logprobs.split([row.scored for row in rows])])
    trainer = MagicMock(loss_type="simpo", simpo_gamma=0.5, beta=2.0, label_smoothing=0.0, alpha=0.0)
    trainer.accelerator.device = "cpu"
    theirs, _, _ = CPOTrainer.cpo_loss(trainer, means[0::2], means[1::2])
    assert loss.item() == pytest.approx(theirs.mean().item(), abs=1e-10)
