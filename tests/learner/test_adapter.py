"""Adapters by peft: their gradient, the merged weights, and stages that train them."""

import pytest
import torch

from tests.scripted import Killed, kill_after, stage
from tests.tiny_models import random_model
from tests.tiny_world import logged
from whetstone import sft
from whetstone.batch import Row, collate
from whetstone.dpo import rollout_dpo
from whetstone.learner import checkpoint
from whetstone.learner.adapter import adapted, add_adapter, plain_weights, publish, without_adapter
from whetstone.learner.four_bit import HALVES, is_rounded
from whetstone.learner.head import chunked_logprobs
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss
from whetstone.learner.student import load as load_student
from whetstone.model import load, save
from whetstone.reward_model import with_scalar_head
from whetstone.rl import loop
from whetstone.rl.algorithm import CriticSettings
from whetstone.rl.critic import build_critic
from whetstone.run.folder import hash_folder
from whetstone.run.settings import AdapterSettings, ParallelSettings

peft = pytest.importorskip("peft")
VOCABULARY = 64
ROWS = [Row([3, 5, 8, 13, 21, 34], 2, weights=0.25), Row([2, 4, 6, 8, 10], 1, weights=0.25)]
CPU = ParallelSettings(device="cpu", forks=1)


def moved(kind: str = "llama", **settings):
    """A float64 model and its adapter, no longer at its start."""
    model = random_model(kind, VOCABULARY, torch.float64)
    add_adapter(model, AdapterSettings(rank=3, **settings), seed=0)
    model.to(torch.float64)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.add_(0.1 * torch.randn_like(p))
    return model


def gradient(model) -> tuple[float, dict[str, torch.Tensor]]:
    learner = Learner(model, VOCABULARY, CPU)
    sums = learner.forward_backward([collate(ROWS, torch.float64)], next_token_loss)
    return sums["loss"], {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def plain(model, kind: str = "llama"):
    """A model without adapters that has the merged weights."""
    copy = random_model(kind, VOCABULARY, torch.float64)
    weights = dict(copy.named_parameters())
    with torch.no_grad():
        for name, weight in plain_weights(model):
            weights[name].copy_(weight)
    return copy


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_the_gradient_is_the_full_one_projected_onto_the_factors(kind):
    """W' = W + s B A, so dL/dB = s dL/dW' Aᵀ and dL/dA = s Bᵀ dL/dW'."""
    model = moved(kind)
    loss, ours = gradient(model)
    full_loss, full = gradient(plain(model, kind))
    assert loss == pytest.approx(full_loss, abs=1e-12)
    for name, layer in adapted(model):
        a, b, scale = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]
        of_weight = full[f"{name}.weight"]
        assert torch.allclose(ours[f"{name}.lora_B.default.weight"], scale * of_weight @ a.T, atol=1e-12)
        assert torch.allclose(ours[f"{name}.lora_A.default.weight"], scale * b.T @ of_weight, atol=1e-12)
    assert all("lora_" in name for name in ours), "the base is frozen"


@pytest.mark.parametrize("dora", [False, True])
def test_merged_weights_compute_what_the_adapter_does(dora):
    model = moved(dora=dora)
    assert gradient(model)[0] == pytest.approx(gradient(plain(model))[0], abs=1e-10)


def test_without_its_adapter_it_is_the_base_and_a_new_adapter_changes_nothing():
    base, model = random_model("llama", VOCABULARY, torch.float64), moved()
    ids = torch.tensor([[3, 5, 8]])
    with without_adapter(model):
        assert torch.equal(model(ids, use_cache=False).logits, base(ids, use_cache=False).logits)
    assert not torch.allclose(model(ids, use_cache=False).logits, base(ids, use_cache=False).logits)
    fresh = random_model("llama", VOCABULARY, torch.float64)
    add_adapter(fresh, AdapterSettings(rank=3), seed=0)
    assert torch.equal(fresh.to(torch.float64)(ids, use_cache=False).logits, base(ids, use_cache=False).logits)


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"\[adapter\] targets = \['nowhere'\]"):
        add_adapter(random_model("llama", VOCABULARY), AdapterSettings(rank=2, targets=["nowhere"]), seed=0)


@pytest.mark.parametrize("ids", [64, 16_500])
def test_a_head_that_is_frozen_gives_the_same_gradient_to_the_layers_below_and_none_itself(ids):
    torch.manual_seed(0)
    weight, targets, heat = torch.randn(ids, 5), torch.arange(6), torch.ones(6)
    gradients = []
    for trained in (True, False):
        hidden, head = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(), weight.clone()
        logprobs, entropy = chunked_logprobs(hidden, head.requires_grad_(trained), targets, heat)
        (logprobs.sum() + entropy.sum()).backward()
        gradients.append(hidden.grad)
        assert (head.grad is not None) == trained
    assert torch.equal(*gradients)


def with_adapter(stage, **settings):
    from dataclasses import replace

    return replace(stage, adapter=AdapterSettings(**({"rank": 4} | settings)))


def sft_room(folder, world, adder, **settings):
    known = {"epochs": 3, "batch_tokens": 64, "checkpoint_every": 2, "optimizer": {"learning_rate": 5e-3}}
    inputs = {"model": adder, "data": world["subset"]}
    return with_adapter(stage(folder, sft.Settings(kind="sft", **known), **inputs), **settings)


def test_a_stage_trains_an_adapter_saves_both_and_resumes_to_the_bit(tmp_path, world, adder, monkeypatch):
    summary = sft.run(sft_room(tmp_path / "one", world, adder))
    losses = logged(tmp_path / "one", "loss")
    assert losses[-1] < losses[0]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        sft.run(sft_room(tmp_path / "two" / "one", world, adder))
    assert sft.run(sft_room(tmp_path / "two" / "one", world, adder)) == summary
    for artifact in ("model", "adapter"):
        assert hash_folder(tmp_path / "two" / "one" / artifact) == hash_folder(tmp_path / "one" / artifact)
    merged, _ = load(tmp_path / "one" / "model")
    base, _ = load(adder)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "one" / "adapter").merge_and_unload()
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))
    alone, _ = load(tmp_path / "one" / "adapter")
    of_all = (model.named_parameters() for model in (merged, theirs, alone))
    for (name, ours), (_, other), (_, named) in zip(*of_all, strict=True):
        assert torch.allclose(ours, other, atol=1e-6) and torch.allclose(ours, named, atol=1e-6), name


def test_rl_samples_merged_weights_and_its_reference_is_the_base(tmp_path, world, adder):
    known = {"steps": 3, "prompts_per_step": 2, "samples": 4, "max_tokens": 40, "pool": {"samples": 0}}
    known |= {"stabilisers": [], "kl": {"coefficient": 0.01}, "optimizer": {"learning_rate": 5e-3}}
    inputs = {"model": adder, "prompts": world["prompts"]}
    loop.run(with_adapter(stage(tmp_path / "r", loop.Settings(kind="rl", **known), **inputs)))
    assert max(logged(tmp_path / "r", "sampler_gap")) < 1e-4
    kl = logged(tmp_path / "r", "kl")
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[-1] > 1e-6


def dpo_room(folder, world, adder):
    known = {"source": "teacher", "batch_pairs": 4, "checkpoint_every": 1, "optimizer": {"learning_rate": 5e-3}}
    return stage(folder, rollout_dpo.Settings(kind="dpo", **known), model=adder, pairs=world["pairs"])


def ppo_room(folder, world, adder):
    known = {
        "algorithm": "ppo",
        "steps": 2,
        "prompts_per_step": 2,
        "samples": 2,
        "max_tokens": 24,
        "checkpoint_every": 1,
    }
    known |= {
        "pool": {"samples": 0},
        "kl": {"coefficient": 0.01, "estimator": "k1"},
        "optimizer": {"learning_rate": 5e-3},
    }
    return stage(folder, loop.Settings(kind="rl", **known), model=adder, prompts=world["prompts"])


@pytest.mark.parametrize(("run", "room"), [(rollout_dpo.run, dpo_room), (loop.run, ppo_room)], ids=["dpo", "ppo"])
def test_dpo_and_ppo_with_its_critic_resume_adapters_to_the_bit(run, room, tmp_path, world, adder, monkeypatch):
    made = [with_adapter(room(tmp_path / name / "s", world, adder)) for name in ("undisturbed", "killed")]
    run(made[0])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        run(made[1])
    run(made[1])
    for artifact in ("model", "adapter", "checkpoints/step-000002"):
        assert hash_folder(made[0].folder / artifact) == hash_folder(made[1].folder / artifact)


@pytest.mark.parametrize("start", ["policy", "reward_model"])
def test_a_critic_trains_an_adapter_of_its_own_and_its_head(start, tmp_path, adder):
    tokenizer = load(adder)[1]
    room = with_adapter(stage(tmp_path / "r", loop.Settings(kind="rl"), model=adder, reward_model=tmp_path / "judge"))
    student = load_student(room)
    save(with_scalar_head(load(adder)[0], student.chat, seed=0), tokenizer, tmp_path / "judge")
    critic = build_critic(room, student, student.learner(), CriticSettings(start=start))
    trained = {name for name, _, _ in critic.learner.owned()}
    assert trained == {name for name in trained if "lora_" in name} | {"score.weight"} and len(trained) > 10


# --- QLoRA


def rounded_to_nf4(weight: torch.Tensor) -> torch.Tensor:
    """Each number becomes the nearest of 16 quantiles of the normal distribution, times the largest of its block of 64."""
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type("nf4", device="cpu")
    blocks = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64)).reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / largest)[..., None].sub(levels).abs().argmin(-1)
    return (levels[nearest] * largest).flatten()[: weight.numel()].reshape(weight.shape)


def rounded_model(dtype, dora: bool = False, **shape):
    """A model in 4 bits with an adapter at its start, and a plain one of its plain weights."""
    pytest.importorskip("bitsandbytes")
    model, plain_model = (random_model("llama", VOCABULARY, dtype, **shape) for _ in range(2))
    add_adapter(model, AdapterSettings(rank=2, weights="nf4", dora=dora), seed=0)
    publish(plain_weights(model), plain_model)
    return model, plain_model


def logprobs(model) -> torch.Tensor:
    return torch.cat(Learner(model, VOCABULARY, CPU).row_logprobs(ROWS))


# rows of whole blocks of 64 numbers; rows of one block and a half; rows of less than one, with a last block that is not full
SHAPES = [{"intermediate_size": 128}, {"intermediate_size": 96}, {"hidden_size": 16, "intermediate_size": 18}]


@pytest.mark.parametrize("shape", SHAPES, ids=["whole", "half", "part"])
@pytest.mark.parametrize("dtype", HALVES)
def test_plain_weights_are_the_rounded_ones_and_products_are_computed_with_them(dtype, shape):
    """On CPUs with AVX-512 bitsandbytes reads the scales by another kernel (four_bit.py)."""
    model, plain_model = rounded_model(dtype, **shape)
    assert is_rounded(model)
    stored = random_model("llama", VOCABULARY, dtype, **shape)
    changed = 0
    for name, p in stored.named_parameters():
        plain = plain_model.get_parameter(name)
        if "proj" in name:
            wanted = rounded_to_nf4(p.detach().float())
            assert (plain.float() - wanted).abs().max() < 0.02 * wanted.abs().max(), name  # the scales are rounded too
            changed += 1
        else:
            assert torch.equal(plain, p)
    assert changed == 14
    assert torch.allclose(logprobs(model), logprobs(plain_model), atol=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype", HALVES[:2])
def test_plain_weights_in_4_bits_stay_the_same_in_passes_and_come_back_with_a_checkpoint(dtype, tmp_path):
    """On CPUs with AVX-512 for bfloat16 bitsandbytes would repack them in the first pass without gradient."""
    model, plain_model = rounded_model(dtype)
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    learner = Learner(model, VOCABULARY, CPU)
    learner.row_logprobs(ROWS)
    learner.forward_backward([collate(ROWS)], next_token_loss)
    for name, weight in plain_weights(model):
        assert torch.equal(weight, plain_model.get_parameter(name)), name
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    learner.step(1e-2)
    learner.row_logprobs(ROWS)
    checkpoint.save(tmp_path, 1, learner, {})
    again = rounded_model(dtype)[0]
    assert checkpoint.load_newest(tmp_path, Learner(again, VOCABULARY, CPU)) == (1, {})
    for (name, weight), (_, other) in zip(plain_weights(model), plain_weights(again), strict=True):
        assert torch.equal(weight, other), name
        assert torch.equal(weight, plain_model.get_parameter(name)) == ("proj" not in name), name
    assert torch.equal(logprobs(model), logprobs(again))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_beside_weights_in_4_bits_learns_from_the_rounded_ones(dtype):
    """The gradient is that of a plain model with the rounded weights; the adapter is in fp32."""
    model, plain_model = rounded_model(dtype)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    add_adapter(plain_model, AdapterSettings(rank=2), seed=0)
    losses, gradients = zip(*(gradient_in_fp32(m) for m in (model, plain_model)), strict=True)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6 if dtype == torch.float32 else 2e-2)
    assert gradients[0].keys() == gradients[1].keys()
    for name, wanted in gradients[1].items():
        bound = 1e-5 if dtype == torch.float32 else 5e-2
        assert (gradients[0][name] - wanted).abs().max() <= bound * wanted.abs().max(), name


def test_dora_beside_weights_in_4_bits_begins_at_the_rounded_ones():
    """The lengths of the rows, which peft reads by itself, are those of the rounded weights."""
    (model, plain_model), (_, base) = rounded_model(torch.float32, dora=True), rounded_model(torch.float32)
    for name, p in plain_model.named_parameters():
        assert torch.allclose(p, base.get_parameter(name), rtol=1e-5), name
    assert torch.allclose(logprobs(model), logprobs(base), atol=1e-5)


def gradient_in_fp32(model) -> tuple[float, dict[str, torch.Tensor]]:
    sums = Learner(model, VOCABULARY, CPU).forward_backward([collate(ROWS)], next_token_loss)
    return sums["loss"], {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_stage_beside_weights_in_4_bits_samples_and_saves_what_it_trained(tmp_path, world, adder):
    """Its reference is the rounded base: the divergence from it begins at 0."""
    pytest.importorskip("bitsandbytes")
    known = {"steps": 2, "prompts_per_step": 2, "samples": 4, "max_tokens": 24, "pool": {"samples": 0}}
    known |= {"stabilisers": [], "kl": {"coefficient": 0.01}, "optimizer": {"learning_rate": 5e-3}}
    room = stage(tmp_path / "r", loop.Settings(kind="rl", **known), model=adder, prompts=world["prompts"])
    loop.run(with_adapter(room, weights="nf4"))
    assert max(logged(tmp_path / "r", "sampler_gap")) < 1e-4
    assert logged(tmp_path / "r", "kl")[0] == pytest.approx(0, abs=1e-6)
    assert "quantization_config" not in (tmp_path / "r" / "model" / "config.json").read_text()
    saved, base = load(tmp_path / "r" / "model")[0], load(adder)[0]
    name = "model.layers.0.mlp.down_proj.weight"
    a, b = saved.get_parameter(name), base.get_parameter(name)
    assert 0.02 < (a - b).norm() / b.norm() < 0.3  # rounded, and trained


def test_a_stage_beside_weights_in_4_bits_resumes_to_the_bit_and_saves_the_rounded_ones(
    tmp_path, world, adder, monkeypatch
):
    pytest.importorskip("bitsandbytes")
    rooms = [sft_room(tmp_path / name / "s", world, adder, weights="nf4") for name in ("undisturbed", "killed")]
    summary = sft.run(rooms[0])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        sft.run(rooms[1])
    assert sft.run(rooms[1]) == summary
    for artifact in ("model", "adapter"):
        assert hash_folder(rooms[0].folder / artifact) == hash_folder(rooms[1].folder / artifact)
    merged, base = load(rooms[0].folder / "model")[0], load(adder)[0]
    with torch.no_grad():
        for name, p in base.named_parameters():
            if "proj" in name:
                p.copy_(rounded_to_nf4(p))
    wanted = peft.PeftModel.from_pretrained(base, rooms[0].folder / "adapter").merge_and_unload()
    for (name, ours), (_, theirs) in zip(merged.named_parameters(), wanted.named_parameters(), strict=True):
        assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max(), name  # the scales are rounded too
