"""The gradient is the same for any micro-batches, accumulation, packing, order of rows and division among processes."""

import random
import sys
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from tests.learner.group import in_group
from tests.tiny_models import CLASSES, random_model
from whetstone.batch import Batch, Row, by_prompt, collate, collate_groups, micro_batches, tokens_of
from whetstone.dpo.loss import PairLoss, pair_rows, weighted
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import token_mean
from whetstone.run.settings import ParallelSettings

V, USED = 50, 47  # slots of the embedding, and ids in use
BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}
DTYPES = list(BOUND)

Groups = list[list[Row]]


def token_loss(logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy with an entropy bonus, both with the denominator in the weights."""
    bonus = (batch.weights * entropy).sum()
    return -(batch.weights * logprobs).sum() - 0.05 * bonus, {"entropy": float(bonus.detach())}


def sequence_loss(logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """Not linear in a sequence's tokens, like GSPO's ratio: it would show if a sequence were divided."""
    mean = batch.sum_by_segment(logprobs) / batch.segment["tokens"]
    likely = (batch.segment["share"] * mean.exp()).sum()
    return -likely, {"likely": float(likely.detach())}


LOSSES = {"tokens": token_loss, "sequences": sequence_loss, "pairs": PairLoss(0.3, chosen_nll=0.2)}


def ids(rng: random.Random, least: int, most: int) -> list[int]:
    return [rng.randrange(USED) for _ in range(rng.randint(least, most))]


def step_of(kind: str, count: int = 10) -> Groups:
    """The groups of a step, for a loss of that kind."""
    rng = random.Random(count)
    if kind == "pairs":
        return weighted(
            [pair_rows(ids(rng, 2, 9), ids(rng, 3, 30), ids(rng, 3, 30), (-9.0, -8.0)) for _ in range(count)]
        )
    rows = [Row(ids(rng, 5, 40), prompt=rng.randint(1, 4)) for _ in range(count)]
    for row in rows:
        row.segment = {"tokens": float(row.scored), "share": 1 / count}
    return [[row] for row in token_mean(rows)]


def learner(kind: str, dtype: torch.dtype, tied: bool = True, **parallel: object) -> Learner:
    settings = {"device": "cpu", "forks": 1, "micro_batch_tokens": 100} | parallel
    return Learner(random_model(kind, V, dtype, tie_word_embeddings=tied), USED, ParallelSettings(**settings))


def gradient_of(trained: Learner) -> torch.Tensor:
    return torch.cat([trained.process_group.whole(p.grad).flatten().clone() for p in trained.model.parameters()])


def gradient(
    model: str, dtype: torch.dtype, loss: str, steps: Sequence[Groups], tied: bool = True, **parallel: object
) -> tuple[dict[str, float], torch.Tensor]:
    """The sums and the gradient, accumulated over parts of a step."""
    trained = learner(model, dtype, tied, **parallel)
    totals: dict[str, float] = {}
    for groups in steps:
        for name, amount in trained.gradient(groups, LOSSES[loss]).items():
            totals[name] = totals.get(name, 0.0) + amount
    return totals, gradient_of(trained)


def assert_same(results, expected, dtype: torch.dtype, what: object = "") -> None:
    (sums, gradient), (expected_sums, expected_gradient) = results, expected
    assert expected_gradient.abs().max() > 1e-3, "nothing to compare"
    error = (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
    assert error <= BOUND[dtype], f"{what}: gradients differ by {error:.1e} of the largest"
    assert sums == pytest.approx(expected_sums, rel=BOUND[dtype], abs=BOUND[dtype]), what


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", CLASSES)
def test_the_gradient_does_not_depend_on_how_a_step_is_cut(model, loss, dtype):
    groups = step_of(loss)
    unsplit = gradient(model, dtype, loss, [groups], micro_batch_tokens=10_000)
    shuffled = random.Random(1).sample(groups, len(groups))
    ways = {
        "each group alone": ([groups], 1),
        "packed by twos and threes": ([groups], 100),
        "another order of rows": ([shuffled], 10_000),
        "accumulated in three parts": ([groups[:3], groups[3:4], groups[4:]], 100),
    }
    for way, (steps, budget) in ways.items():
        assert_same(gradient(model, dtype, loss, steps, micro_batch_tokens=budget), unsplit, dtype, way)


def test_the_gradient_equals_that_of_the_full_logits():
    """The oracle: transformers' own logits of each row by itself, in float64, with the loss written out."""
    groups = step_of("tokens", 4)
    results = gradient("qwen2", torch.float64, "tokens", [groups])
    model = random_model("qwen2", V, torch.float64)
    loss, total = torch.zeros((), dtype=torch.float64), 0.0
    for (row,) in groups:
        logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, row.prompt - 1 : -1, :USED]
        log_p = logits.log_softmax(-1)
        entropy = row.weights * -(log_p.exp() * log_p).sum()
        crossed = row.weights * F.cross_entropy(logits, torch.tensor(row.ids[row.prompt :]), reduction="sum")
        loss, total = loss + crossed - 0.05 * entropy, total + float(entropy.detach())
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert_same(results, ({"loss": float(loss.detach()), "entropy": total}, expected), torch.float64)


# --- a prompt that rows share is computed once


def of_one_prompt(kind: str, count: int = 4) -> Groups:
    """Groups whose rows have one prompt: pairs, or three rollouts each."""
    if kind == "pairs":
        return step_of(kind, count)
    rng = random.Random(count)
    groups = []
    for _ in range(count):
        prompt = ids(rng, 3, 9)
        groups.append([Row([*prompt, *ids(rng, 1, 20)], prompt=len(prompt)) for _ in range(3)])
    rows = token_mean([row for group in groups for row in group])
    for row in rows:
        row.segment = {"tokens": float(row.scored), "share": 1 / len(rows)}
    return [rows[at : at + 3] for at in range(0, len(rows), 3)]


def norms_in_their_own_type(model: torch.nn.Module) -> None:
    """transformers' norms compute in fp32 for every type, which rounds a prompt's gradient once, or once per row."""
    for norm in model.modules():
        if type(norm).__name__.endswith("RMSNorm"):
            norm.forward = lambda x, norm=norm: F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", CLASSES)
def test_a_shared_prompt_gives_the_same_gradient_as_prompts_in_every_row(model, loss, dtype):
    groups = of_one_prompt(loss)
    rows = [row for group in groups for row in group]
    shared, apart = collate_groups(groups, dtype), collate(rows, dtype)
    assert shared.size < apart.size == sum(len(row.ids) for row in rows)
    assert shared.ids[0, shared.ends].tolist() == apart.ids[0, apart.ends].tolist() == [row.ids[-1] for row in rows]
    results = []
    for batch in (shared, apart):
        trained = learner(model, dtype)
        norms_in_their_own_type(trained.model)
        sums = trained.forward_backward([batch], LOSSES[loss])
        results.append((sums, gradient_of(trained)))
    assert_same(*results, dtype)


@pytest.mark.parametrize("model", CLASSES)
def test_log_probabilities_are_the_same_with_a_shared_prompt_and_any_neighbours(model):
    rows = [row for group in of_one_prompt("tokens") for row in group]
    rows += [
        Row(rows[0].ids[: rows[0].prompt], prompt=rows[0].prompt),
        rows[0],
    ]  # nothing to score, then the same again
    trained = learner(model, torch.float64, micro_batch_tokens=60)
    together = trained.row_logprobs(rows)
    for row, shared in zip(rows, together, strict=True):
        (alone,) = trained.row_logprobs([row])
        torch.testing.assert_close(shared, alone, rtol=0, atol=1e-12)


def test_rows_are_grouped_by_their_prompts_within_the_budget():
    one, other = [Row([1, 2, 3, *[4] * n], prompt=3) for n in (5, 5, 5)], [Row([1, 2, 5, 6], prompt=3)]
    assert by_prompt([*one, *other, one[0]], budget=13) == [one[:2], one[2:], other, one[:1]]
    assert tokens_of(one) == 3 + 15
    assert [batch.size for batch in micro_batches([one, other], budget=18)] == [18, 4]


# --- two processes

CASES = [
    (model, dtype, loss, count, tied)
    for dtype in DTYPES
    for model, loss, count, tied in [
        ("phi3", "tokens", 10, True),
        ("qwen2", "tokens", 10, True),
        ("llama", "tokens", 1, True),  # one row: the other process has none
        ("phi3", "pairs", 5, False),
        ("qwen2", "sequences", 5, False),
        ("llama", "tokens", 3, False),
    ]
]


def gradients_in_process(shard: str) -> list:
    results = []
    for model, dtype, loss, count, tied in CASES:
        groups = step_of(loss, count)
        # the first part is one group: accumulation, and a process that has none of it
        parts = [groups[:1], groups[1:]] if count == 5 else [groups]
        results.append(gradient(model, dtype, loss, parts, tied, processes=2, shard=shard, micro_batch_tokens=60))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_processes_give_the_gradient_of_one(shard, tmp_path):
    """Phi-3, Qwen2 and Llama, with tied and untied heads; the processes have different numbers of micro-batches."""
    first, second = in_group(tmp_path, 2, gradients_in_process, shard)
    for case, mine, theirs in zip(CASES, first, second, strict=True):
        model, dtype, loss, count, tied = case
        alone = gradient(model, dtype, loss, [step_of(loss, count)], tied)
        assert_same(mine, alone, dtype, (shard, *case))
        assert mine[0] == theirs[0] and torch.equal(mine[1], theirs[1]), (shard, *case)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forked replicas are for Linux")
@pytest.mark.parametrize("loss", LOSSES)
def test_forked_replicas_give_the_gradient_of_one_process(loss):
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        groups = step_of(loss, 30)
        alone = gradient("phi3", torch.float64, loss, [groups])
        trained = learner("phi3", torch.float64, forks=2)
        sums = trained.gradient(groups, LOSSES[loss])
        assert len(trained._replicas[1].children) == 1
        trained.close()
        assert_same((sums, gradient_of(trained)), alone, torch.float64)
    finally:
        torch.set_num_threads(kept)
