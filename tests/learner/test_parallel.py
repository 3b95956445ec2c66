"""Several processes give the updates, checkpoints and exports of one, for every number and kind."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp._fully_shard import _fsdp_param_group

from tests.learner.group import in_group
from tests.learner.test_invariance import LOSSES, USED, V, gradient_of, learner, step_of
from tests.tiny_models import random_model, tiny
from whetstone import model as models
from whetstone.batch import collate
from whetstone.learner import checkpoint
from whetstone.learner.adapter import add_adapter, plain_weights, without_adapter
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss
from whetstone.learner.parallel import ProcessGroup, join
from whetstone.run.settings import AdapterSettings, OptimizerSettings, ParallelSettings

KINDS = [
    ("ddp", "adamw"),
    ("fsdp", "adamw"),
    ("ddp", "muon"),
    ("fsdp", "muon"),
    ("ddp", "adamw", {"rank": 2}),
    ("fsdp", "adamw", {"rank": 2, "dora": True}),
    ("fsdp", "muon", {"rank": 2}),
]


def make_learner(optimizer: str = "adamw", adapter: dict[str, Any] | None = None, **parallel: object) -> Learner:
    settings = ParallelSettings(**{"device": "cpu", "forks": 1, "micro_batch_tokens": 60} | parallel)
    chosen = OptimizerSettings(name=optimizer, weight_decay=0.1)
    model = random_model("phi3", V, torch.float64)
    if adapter:
        add_adapter(model, AdapterSettings(**adapter), seed=0)
    return Learner(model, USED, settings, chosen)


def train(trained: Learner, first: int, last: int) -> list[float]:
    """Losses, log-probabilities and norms of the steps; log-probabilities between gradient and update use the old weights."""
    numbers = []
    for step in range(first, last):
        groups = step_of("tokens", 4 + step)
        numbers.append(trained.gradient(groups, next_token_loss)["loss"])
        numbers.append(float(trained.row_logprobs([groups[0][0]])[0].sum()))
        numbers.append(trained.step(3e-3))
        numbers.append(float(sum(part.sum() for part in trained.logprobs(map(collate, groups)))))
        with without_adapter(trained.model):  # a reference
            numbers.append(float(trained.row_logprobs([groups[0][0]])[0].sum()))
    return numbers


def weights(trained: Learner) -> dict[str, torch.Tensor]:
    """What is trained, the optimizer's state, and the weights that a sampler gets."""
    whole = trained.process_group.whole
    found = {name: whole(tensor).clone() for name, tensor in checkpoint.tensors(trained)}
    return found | {f"plain/{name}": weight.clone() for name, weight in plain_weights(trained.model, whole)}


def trained_in_process(folder: Path) -> list:
    results = []
    for number, (shard, *kind) in enumerate(KINDS):
        trained = make_learner(*kind, processes=2, shard=shard)
        place = folder / str(number)
        numbers = train(trained, 0, 3)
        checkpoint.save(place, 3, trained, {"seen": 3})
        trained = make_learner(*kind, processes=2, shard=shard)
        assert checkpoint.load_newest(place, trained) == (3, {"seen": 3})
        results.append((numbers + train(trained, 3, 5), weights(trained)))
    return results


@pytest.mark.slow
def test_two_processes_train_resume_and_measure_as_one_does(tmp_path):
    """Updates by AdamW and Muon, clipping, validation and log-probabilities, of all weights and of an adapter, and the
    reference that is the model without it; one process resumes what two saved."""
    first, second = in_group(tmp_path, 2, trained_in_process, tmp_path)
    for at, (kind, (numbers, state), (numbers_too, state_too)) in enumerate(zip(KINDS, first, second, strict=True)):
        what = str(kind)
        alone = make_learner(*kind[1:])
        expected = train(alone, 0, 5)
        assert numbers == pytest.approx(expected, rel=1e-9), what
        assert numbers == numbers_too, what
        for name, tensor in weights(alone).items():
            assert torch.equal(state[name], state_too[name]), (what, name)
            torch.testing.assert_close(state[name], tensor, rtol=1e-7, atol=1e-8)
        fewer = make_learner(*kind[1:])
        assert checkpoint.load_newest(tmp_path / str(at), fewer) == (3, {"seen": 3})
        assert train(fewer, 3, 5) == pytest.approx(expected[15:], rel=1e-9), what


def resumed_in_process(folder: Path) -> list[float]:
    trained = make_learner(processes=2, shard="fsdp")
    assert checkpoint.load_newest(folder, trained) == (3, {})
    return train(trained, 3, 5)


@pytest.mark.slow
def test_two_processes_resume_what_one_saved(tmp_path):
    alone = make_learner()
    train(alone, 0, 3)
    checkpoint.save(tmp_path, 3, alone, {})
    for numbers in in_group(tmp_path, 2, resumed_in_process, tmp_path):
        assert numbers == pytest.approx(train(made_from(tmp_path), 3, 5), rel=1e-9)


def made_from(folder: Path) -> Learner:
    trained = make_learner()
    checkpoint.load_newest(folder, trained)
    return trained


def counting(counts: Counter, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **more: Any) -> Any:
        counts[name] += 1
        return plain(*arguments, **more)

    return counted


def exported_in_process(folder: Path) -> dict[str, Counter]:
    counts = {}
    for shard in ("ddp", "fsdp"):
        model, tokenizer = tiny()
        trained = Learner(model, 300, ParallelSettings(device="cpu", processes=2, shard=shard, micro_batch_tokens=40))
        counts[shard] = Counter()
        with pytest.MonkeyPatch.context() as patch:
            for where, name in ((dist, "all_reduce"), (_fsdp_param_group, "foreach_reduce")):
                patch.setattr(where, name, counting(counts[shard], name, getattr(where, name)))
            trained.gradient(step_of("tokens", 9), next_token_loss)
        trained.model.zero_grad()
        trained.save_model(tokenizer, folder / shard)
    return counts


@pytest.mark.slow
def test_gradients_are_sent_once_per_step_and_the_whole_model_is_exported(tmp_path):
    model, tokenizer = tiny()
    models.save(model, tokenizer, tmp_path / "alone")
    counts, _ = in_group(tmp_path, 2, exported_in_process, tmp_path)
    assert counts["ddp"] == {"all_reduce": 1}  # one bucket holds this model
    assert counts["fsdp"] == {"foreach_reduce": 3}  # two layers and the root
    expected = (tmp_path / "alone" / "model.safetensors").read_bytes()
    for shard in ("ddp", "fsdp"):
        assert (tmp_path / shard / "model.safetensors").read_bytes() == expected, shard
        assert (tmp_path / shard / "config.json").read_bytes() == (tmp_path / "alone" / "config.json").read_bytes()


def failures_in_process() -> list[str]:
    said = []
    trained = make_learner(processes=2)
    rank = trained.process_group.rank
    assert trained.process_group.any(rank == 1) and not trained.process_group.any(False)
    model = random_model("phi3", V)
    if rank:
        model.model.norm.weight.data[0] += 1
    try:
        Learner(model, USED, ParallelSettings(device="cpu", processes=2))
    except RuntimeError as error:
        said.append(str(error))
    # a loss that only one of them sees blow up stops both, and nothing is updated
    groups = step_of("tokens", 2)
    groups[0][0].weights = float("inf")
    before = weights(trained)
    trained.gradient(groups, LOSSES["tokens"])
    try:
        trained.step(1.0)
    except FloatingPointError as error:
        said.append(str(error))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trained).items())
    return said


def test_processes_with_different_weights_or_infinite_gradients_stop_together(tmp_path):
    for said in in_group(tmp_path, 2, failures_in_process):
        assert "begin with different weights" in said[0]
        assert "the gradient's norm is" in said[1]


def test_shares_are_of_about_the_same_size_and_complete():
    pair = ProcessGroup()
    pair.count = 2
    sizes = [5, 9, 1, 7, 3, 3]
    mine, theirs = pair.divide(list("abcdef"), sizes)
    assert sorted(mine + theirs) == list("abcdef")
    assert sum(sizes["abcdef".index(x)] for x in mine) == 15  # of 28
    assert pair.divide(["a"], [3]) == [["a"], []]


def test_another_number_of_processes_than_in_the_settings_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"processes = 2, but this process was started as one of 1. Start it with"):
        join(ParallelSettings(processes=2), "cpu")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"processes = 1, but this process was started as one of 4"):
        join(ParallelSettings(), "cpu")


def test_an_existing_gradient_is_added_to_and_not_summed_again(tmp_path):
    for gradients in in_group(tmp_path, 2, accumulated_in_process):
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


def accumulated_in_process() -> tuple[torch.Tensor, torch.Tensor]:
    once, twice = learner("llama", torch.float64, processes=2), learner("llama", torch.float64, processes=2)
    once.gradient(step_of("tokens", 4), next_token_loss)
    for _ in range(2):
        twice.gradient(step_of("tokens", 4), next_token_loss)
    return 2 * gradient_of(once), gradient_of(twice)


def published_in_process() -> list[bool]:
    """Whether a copy, of the same type or another, gets the complete weights after an update."""
    equal = []
    for shard in ("ddp", "fsdp"):
        trained = make_learner(processes=2, shard=shard)
        groups = step_of("tokens", 4)
        trained.gradient(groups, next_token_loss)
        trained.step(3e-3)
        for dtype in (torch.float64, torch.bfloat16):
            copy = random_model("phi3", V, dtype)
            trained.publish(copy)
            missing = {name: p.detach() for name, p in copy.named_parameters()}
            for name, p in trained.model.named_parameters():
                equal.append(torch.equal(trained.process_group.whole(p.detach()).to(dtype), missing.pop(name)))
            equal.append(not missing)
    return equal


def test_the_sampler_is_given_the_complete_weights(tmp_path):
    first, second = in_group(tmp_path, 2, published_in_process)
    assert all(first) and all(second) and len(first) == len(second) > 20
    alone = make_learner()
    alone.publish(alone.model)
