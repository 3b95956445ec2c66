"""TRL's own numbers beside ours: RewardTrainer's loss, GKD's divergence, the tail of a served teacher, corrections in GRPO.

Run by `make test-peers`. TRL's β is the weight of the teacher's KL too, and its ends mean the two plain directions.
"""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed here: `make test-peers` runs this where it is")

from trl import RewardTrainer
from trl.experimental.gkd import GKDTrainer

from tests.rl.test_rl_beside_trl import padded, trl_loss
from tests.rl.worlds import batch_of, moved, random_groups, setup
from whetstone.batch import Row, collate_groups
from whetstone.learner.divergence import Listed, Whole, chunked_divergence
from whetstone.reward.loss import BradleyTerry, weighted
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.correction import CorrectionSettings, bounded, corrected, importance
from whetstone.rl.credit import normalised

N, C, K, V = 7, 5, 6, 11
KINDS = [("forward", 0.5, 0), ("reverse", 0.5, 1), ("jensen_shannon", 0.5, 0.5), ("jensen_shannon", 0.1, 0.1)]


def close(ours, theirs, of) -> None:
    assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)
    gradients = [torch.autograd.grad(x, of, retain_graph=True) for x in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-10, rtol=0)


def models():
    torch.manual_seed(0)
    hidden, weight, taught, teacher = (torch.randn(s, dtype=torch.float64) for s in ((N, C), (V, C), (N, K), (V, K)))
    return hidden.requires_grad_(), weight.requires_grad_(), taught, teacher


@pytest.mark.parametrize(("kind", "beta", "theirs"), KINDS)
def test_the_divergence_is_that_of_gkd(kind, beta, theirs):
    hidden, weight, taught, teacher = models()
    heat = torch.full((N,), 0.8, dtype=torch.float64)
    targets = torch.arange(N)
    ours = chunked_divergence(hidden, weight, Whole(taught, teacher), targets, heat, kind, beta, chunk=3)[0].sum() / N
    logits = (hidden @ weight.T)[None], (taught @ teacher.T)[None]
    labels = torch.zeros(1, N, dtype=torch.long)
    close(ours, GKDTrainer.generalized_jsd_loss(*logits, labels, beta=theirs, temperature=0.8), (hidden, weight))


@pytest.mark.parametrize(("kind", "beta", "theirs"), KINDS)
def test_the_tail_of_a_served_teacher_is_its_one_more_outcome(kind, beta, theirs):
    from trl.experimental.server_distillation.server_distillation_trainer import _add_tail_bucket, _jsd_divergence

    hidden, weight, taught, teacher = models()
    log_p, log_q = (hidden @ weight.T).log_softmax(-1), (taught @ teacher.T).log_softmax(-1)
    ids = log_q.topk(3).indices
    listed = Listed(ids, log_q.gather(-1, ids))
    heat = torch.ones(N, dtype=torch.float64)
    ours = chunked_divergence(hidden, weight, listed, torch.arange(N), heat, kind, beta)[0].sum()
    known = torch.ones_like(ids, dtype=torch.bool)
    (p, mask), (q, _) = (_add_tail_bucket(x.gather(-1, ids), known) for x in (log_p, log_q))
    close(ours, _jsd_divergence(p, q, theirs, mask).sum(), (hidden, weight))


@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.0, 0.01), (0.7, 0.1)])
def test_the_loss_of_a_reward_model_is_that_of_reward_trainer(margin, centring):
    """The same rewards of four pairs: TRL has the chosen sides first, then the rejected ones."""
    torch.manual_seed(1)
    rewards = torch.randn(8, dtype=torch.float64, requires_grad=True)
    pairs = [[Row([1, 2], 1, segment={"right": 1.0}), Row([1, 3, 4], 1, segment={"right": 0.0})] for _ in range(4)]
    batch = collate_groups(weighted(pairs), torch.float64)
    values = torch.zeros(batch.size, dtype=torch.float64).index_put((batch.ends,), rewards)
    ours = BradleyTerry(margin, centring)(values, batch)[0]
    trainer = MagicMock()
    trainer.args = SimpleNamespace(center_rewards_coefficient=centring or None)
    logits = torch.cat([rewards[0::2], rewards[1::2]])[:, None]
    inputs = {"attention_mask": torch.ones(8, 3)}
    inputs |= {"margin": torch.full((4,), margin, dtype=torch.float64)} if margin else {}
    theirs = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits), inputs)
    close(ours, theirs, (rewards,))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["truncate", "mask"])
def test_a_correction_weights_grpo_as_it_weights_that_of_trl(kind, level):
    """The sampler's log-probabilities differ from the old policy's; the weights are the same numbers in both losses."""
    groups = random_groups(4, reference=True)
    algorithm = grpo(setup())
    batch = batch_of(algorithm, groups)
    known = CorrectionSettings(kind=kind, level=level, limit=1.3)
    torch.manual_seed(2)
    lengths = [len(r.ids) for g in groups for r in g.rollouts]
    parts = batch.token["old"].split(lengths)
    weights = [
        torch.tensor(
            [
                bounded(w, known)
                for w in importance(part.tolist(), (part + 0.3 * torch.randn(len(part))).tolist(), level)
            ],
            dtype=torch.float64,
        )
        for part in parts
    ]
    batch.token["correction"] = torch.cat(weights)
    logprobs = moved(batch, 5)
    ours = corrected(algorithm.loss)(logprobs, torch.zeros_like(logprobs), batch)[0]
    advantages = torch.tensor([a for g in groups for a in normalised(g)], dtype=torch.float64)
    theirs = trl_loss("grpo", "token", groups, logprobs, advantages, 0.2, 0.2, importance=padded(weights))
    close(ours, theirs, (logprobs,))
