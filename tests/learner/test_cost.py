"""Estimates agree with what stages take, and Phi-4-mini's numbers with those worked out by hand."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from tests.scripted import TINY, stage
from tests.tiny_models import SHAPE, random_model
from tests.tiny_world import SUMS
from whetstone import midtrain, sft
from whetstone import model as models
from whetstone.batch import Row, collate
from whetstone.dpo import rollout_dpo
from whetstone.learner.accelerators import ACCELERATORS
from whetstone.learner.adapter import add_adapter
from whetstone.learner.cost import training_estimate, with_sampling
from whetstone.learner.learner import Learner
from whetstone.learner.memory import activation_bytes, adapter_size, fitting_tokens, training_memory
from whetstone.learner.shape import Shape, shape_in_settings, shape_of
from whetstone.recipe import read_recipe
from whetstone.rl import loop
from whetstone.run.cpu import cpu_name
from whetstone.run.folder import Stage, write_text
from whetstone.run.settings import (
    AdapterSettings,
    ModelSettings,
    ParallelSettings,
    RunSettings,
    ScoreSettings,
    StageSettings,
)
from whetstone.run.speed import Speed, cache_folder, measured_speed

TEXTS = [f"Compute {a} + {b}. word{a} words{b}" for a in range(40) for b in range(40)]
PHI = read_recipe(Path(__file__).parents[2] / "recipes" / "phi4_mini.toml").model


def untrained(model: ModelSettings, parallel: ParallelSettings = ParallelSettings()) -> Stage:  # noqa: B008
    """A stage without inputs."""
    return Stage(
        "m", "midtrain", Path(), StageSettings(kind="midtrain"), {}, RunSettings(), model, parallel, ScoreSettings()
    )


@pytest.mark.parametrize("vocabulary", [256, 265])
def test_the_parameters_of_a_shape_are_those_of_the_model_made_from_it(vocabulary, tmp_path):
    shape = ModelSettings(layers=2, hidden=64, mlp=96, heads=4, kv_heads=2, vocabulary=vocabulary, context=64)
    model, tokenizer = models.build_tiny(shape, TEXTS, seed=0)
    assert shape_in_settings(shape).parameters == models.parameters(model)
    models.save(model, tokenizer, tmp_path)
    stored = shape_of(tmp_path, ModelSettings())
    assert stored.parameters == models.parameters(model) and stored.tied
    assert replace(stored, most=True) == shape_of(None, shape)  # for a model that is not made yet: the upper bound


def test_the_shape_of_a_hub_name_is_not_guessed():
    estimate = training_estimate(untrained(ModelSettings(path="some/model")), step_tokens=512, row_tokens=64)
    assert estimate.lines == {} and estimate.memory is None


def test_phi_4_minis_shape_gives_its_published_number_of_parameters():
    assert shape_in_settings(PHI).parameters == 3_836_021_760
    assert shape_of(PHI.path, PHI).keys == 8 * 128


@pytest.mark.parametrize("length, billions", [(4096, 25.4), (16384, 32.7), (32768, 42.3)])
def test_phi_4_minis_operations_per_token(length, billions):
    """6 x 3.836e9 + 6 x 32 x 3072 x length."""
    assert shape_of(PHI.path, PHI).training_flops(length) == pytest.approx(billions * 1e9, rel=0.005)


def test_an_untied_embedding_is_looked_up_and_not_multiplied():
    tied = Shape(2, 64, 96, 64, 32, 50, 10_000)
    untied = Shape(2, 64, 96, 64, 32, 50, 10_000 + 50 * 64, tied=False)
    assert tied.training_flops(10) == untied.training_flops(10)


def kept_bytes(
    compute: str, lengths: list[int], every: int, dtype: str = "float32", adapter: AdapterSettings | None = None
) -> int:
    """Bytes that autograd keeps of a forward pass through the layers, besides the weights; each storage counts once."""
    model = random_model("phi3", 50, getattr(torch, dtype), intermediate_size=160)
    if adapter:
        add_adapter(model, adapter, seed=0)
    learner = Learner(model, 50, ParallelSettings(device="cpu", compute=compute, activation_checkpointing=every))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.dim() > 1 and sum(lengths) in tensor.shape:
            storages[storage.data_ptr()] = storage
        return tensor

    model.train()
    batch = collate([Row([1] * n) for n in lengths])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), learner._compute():
        models.hidden_states(model, batch.ids, batch.positions, lengths=lengths)
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_activations_are_what_autograd_keeps(compute):
    lengths = [700]
    kept = kept_bytes(compute, lengths, every=0)
    shape = Shape(2, 64, 160, 64, 32, 50, 0)
    assert SHAPE["num_hidden_layers"] == 2
    expected = 2 * sum(lengths) * activation_bytes(shape, "float32", compute, on_gpu=False)
    assert expected == pytest.approx(kept, rel=0.2)  # the last norm is counted, and is a part of two layers


def test_memory_of_phi_4_mini_on_one_h200_at_16k_tokens():
    """By hand: weights, gradients and two moments of 3.836e9 in fp32 are 61.4 GB, their bf16 copy 7.7 GB. A token and layer
    keeps 16 x 3072 (norms) + 4 x 3072 + 2 x 5120 + 2 x 4096 + 2 x 3072 + 8 x 8192 = 151,552 bytes: 79.5 GB in all, or with
    checkpointing 4 x 3072 a layer (6.4 GB) and one layer's (2.5 GB). The head: 2.46 GB of gradient, 1.23 GB of its bf16 copy,
    3 x 0.82 GB of logits. The sampler's copy in bf16 is 7.7 GB, and none where both have one type."""
    parallel = ParallelSettings(compute="bfloat16", accelerator="H200")
    shape = shape_of(PHI.path, PHI)
    none = training_memory(shape, "float32", parallel, 16384)
    every = training_memory(shape, "float32", parallel.model_copy(update={"activation_checkpointing": 1}), 16384)
    assert sum(none[name] for name in ("weights", "gradients", "moments")) == pytest.approx(61.4e9, rel=1e-3)
    assert none["weights in bfloat16"] == pytest.approx(7.67e9, rel=1e-3)
    assert none["activations"] == pytest.approx(79.5e9, rel=1e-3)
    assert every["activations"] == pytest.approx(6.44e9 + 2.48e9, rel=1e-3)
    assert every["head"] == pytest.approx(2.458e9 + 1.229e9 + 3 * 0.8195e9, rel=1e-3)
    rl = training_memory(shape, "float32", parallel, 16384, samples=True)
    halves = training_memory(shape, "bfloat16", parallel, 16384, samples=True)
    assert rl["sampler's copy"] == pytest.approx(7.67e9, rel=1e-3) and not halves["sampler's copy"]
    assert halves["head"] == pytest.approx(2.458e9 + 3 * 0.8195e9, rel=1e-3)
    assert sum(every.values()) < 141e9 < sum(none.values())


def test_fsdp_divides_weights_gradients_and_moments():
    shape = shape_of(PHI.path, PHI)
    alone = training_memory(shape, "float32", ParallelSettings(accelerator="H200"), 1024)
    eight = training_memory(shape, "float32", ParallelSettings(accelerator="H200", processes=8, shard="fsdp"), 1024)
    replicated = training_memory(shape, "float32", ParallelSettings(accelerator="H200", processes=8, shard="ddp"), 1024)
    assert eight["moments"] == alone["moments"] / 8 and replicated == alone
    assert eight["gathered"] == pytest.approx(4 * (614_596_608 + 2 * 100_669_440), rel=1e-3)


def test_every_accelerator_of_the_settings_is_known():
    names = get_args(ParallelSettings.model_fields["accelerator"].annotation)
    assert set(names) - {""} <= set(ACCELERATORS)


def test_a_stage_that_does_not_fit_is_reported_with_the_remedy():
    room = untrained(PHI, ParallelSettings(accelerator="RTX 4090"))
    estimate = training_estimate(room, step_tokens=4096, row_tokens=4096)
    assert "RTX 4090 has 24.0 GB" in estimate.lines["does not fit"]


def test_sampling_time_follows_from_the_bandwidth():
    """Keys and values of a sequence of 8,192 tokens in bf16 are 1.07 GB: 141 - 80.4 GB beside weights, gradients, moments,
    two bf16 copies and the head hold 56. Each step reads 7.7 GB of weights and 56 x 0.54 GB, at 2.4 TB/s."""
    parallel = ParallelSettings(accelerator="H200", compute="bfloat16", activation_checkpointing=1)
    room = untrained(PHI, parallel)
    estimate = with_sampling(training_estimate(room, step_tokens=8192, row_tokens=8192), room, 1_000_000, 8192)
    assert "56 sequences at once" in estimate.lines["sampling time"]
    assert estimate.seconds == pytest.approx(1e6 / 56 * (7.672e9 + 56 * 0.5369e9) / 2.4e12, rel=0.01)


def test_training_time_is_operations_divided_by_a_share_of_the_peak():
    """150e9 tokens x 32.7e9 operations on 128 x 989e12 at 40 %: 27 hours."""
    parallel = ParallelSettings(accelerator="H100", processes=128, shard="fsdp", compute="bfloat16")
    estimate = training_estimate(
        untrained(PHI, parallel), step_tokens=2**21, row_tokens=16384, tokens=150_000_000_000, steps=71_526
    )
    assert estimate.seconds / 3600 == pytest.approx(26.9, abs=0.1)


SMOLLM2 = Shape(30, 576, 1536, 576, 192, 49_152, 134_515_008)


def test_memory_of_135_m_weights_on_a_cpu():
    """By hand, with micro-batches of 1,024 tokens: 0.4 GB of libraries; weights, gradients and two moments of 134.5 M in fp32
    are 2.15 GB. A token and layer keeps 16 x 576 (norms) + 8 x 576 + 4 x 960 + 4 x 768 + 8 x 576 + 16 x 1536 = 49,920 bytes:
    1.53 GB. The head: 113 MB of gradient, two buffers of 17 MB. Moments in bf16 take half. A second process has its own
    gradient, activations and head."""
    one = training_memory(SMOLLM2, "float32", ParallelSettings(device="cpu"), 1024)
    assert one["activations"] == pytest.approx(1.534e9, rel=1e-3)
    assert one["head"] == pytest.approx(0.1132e9 + 2 * 16.8e6, rel=0.01)
    assert sum(one.values()) == pytest.approx(0.4e9 + 2.152e9 + 1.534e9 + 0.147e9, rel=1e-3)
    half = training_memory(SMOLLM2, "float32", ParallelSettings(device="cpu"), 1024, moments="bfloat16")
    assert half["moments"] == one["moments"] / 2
    two = training_memory(SMOLLM2, "float32", ParallelSettings(device="cpu"), 1024, forks=2)
    assert sum(two.values()) - sum(one.values()) == pytest.approx(0.538e9 + 1.534e9 + 0.147e9, rel=1e-3)


@pytest.mark.parametrize(("room", "tokens"), [(30e9, 8192), (10e9, 2048), (5.1e9, 1024), (1e9, 512)])
def test_the_largest_micro_batch_that_fits_is_chosen(room, tokens):
    """By hand: 8,192, 4,096, 2,048 and 1,024 tokens take 15.0, 8.8, 5.8 and 4.2 GB, which may be 85 % of the room. If even 512
    do not fit, they are tried."""
    assert fitting_tokens(SMOLLM2, "float32", ParallelSettings(device="cpu"), room, 1, "weights") == tokens


def test_time_on_this_cpu_follows_from_the_kept_probe(tmp_path, monkeypatch):
    """1e6 tokens x 6 x 1e6 operations at 1e11 per second are 60 s; 2 layers keep bytes for each, 14 passes over which at 1e9
    bytes per second add to that; two processes share both."""
    shape = Shape(2, 64, 96, 64, 32, 265, 1_000_000)
    seconds = (60 + 14 * 1e6 * 2 * activation_bytes(shape, "float32", "float32", False) / 1e9) / 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = f"{cpu_name()}, 1 threads, torch {torch.__version__}"
    known = Speed(float32=1e11, bfloat16=4e11, passes=1e9, gpu=False)
    write_text(cache_folder() / "speed.json", json.dumps({key: {"at": time.time(), "speed": asdict(known)}}))
    monkeypatch.setattr("whetstone.learner.cost.shape_of", lambda *_: shape)
    room = replace(untrained(TINY, ParallelSettings(device="cpu", forks=2)), run=RunSettings(threads=1))
    estimate = training_estimate(room, step_tokens=512, row_tokens=1, tokens=1_000_000)
    attention = 6 * 2 * 64 * 1e6 / 1e11 / 2
    assert estimate.seconds == pytest.approx(seconds + attention, rel=1e-3)
    assert "on 2 processes of this CPU: 6e+12 operations at 100 GFLOP/s each" in estimate.lines["training time"]


def test_the_probe_measures_this_cpu():
    speed = measured_speed(1)
    assert 1e8 < speed.float32 < 1e14 and 1e7 < speed.passes < 1e13 and measured_speed(1) == speed


def test_before_any_input_exists_only_what_follows_from_the_settings_is_estimated(tmp_path):
    absent = {name: tmp_path / name for name in ("corpus", "data", "model", "problems", "pairs", "prompts")}
    for room, kind in ((midtrain, "midtrain"), (sft, "sft")):
        estimate = room.plan(stage(tmp_path / kind, room.Settings(kind=kind), **absent))
        assert list(estimate.lines) == ["model", "memory", "disk"] and estimate.tokens is estimate.steps is None
    limited = midtrain.Settings(kind="midtrain", tokens=10_000, batch_tokens=100)
    assert midtrain.plan(stage(tmp_path / "m", limited, **absent)).lines["steps"] == "at most 100"
    estimate = rollout_dpo.plan(stage(tmp_path / "d", rollout_dpo.Settings(kind="dpo", source="teacher"), **absent))
    assert "pairs" not in estimate.lines and "rollouts" not in estimate.lines
    estimate = loop.plan(stage(tmp_path / "r", loop.Settings(kind="rl", steps=7), **absent))
    assert estimate.steps == 7 and estimate.lines["rollouts per step"].startswith("256, at most 512")


def test_with_data_and_tokenizer_the_estimated_tokens_are_about_those_spent(tmp_path, world):
    settings = sft.Settings(kind="sft", batch_tokens=100, epochs=2)
    room = stage(tmp_path / "s", settings, data=world["subset"], model=world["model"])
    estimate, done = sft.plan(room), sft.run(room)
    assert estimate.tokens == pytest.approx(done["tokens"], rel=0.15)
    assert abs(estimate.steps - done["steps"]) <= 3
    assert estimate.lines["model"] == f"{models.parameters(models.load(world['model'])[0]):,} parameters"


def test_the_students_pairs_stay_below_the_bound(tmp_path, world, adder):
    settings = rollout_dpo.Settings(kind="dpo", pool={"samples": 6, "prompts": len(SUMS)}, max_tokens=40, batch_pairs=4)
    inputs = {"model": adder, "prompts": world["prompts"], "pairs": world["pairs"]}
    room = stage(tmp_path / "d", settings, **inputs)
    estimate, done = rollout_dpo.plan(room), rollout_dpo.run(room)
    assert 0 < done["pairs"] <= 32 and estimate.lines["pairs"].startswith("at most 32 of")
    assert done["steps"] <= estimate.steps == 8 and done["tokens"] <= estimate.tokens
    taught = rollout_dpo.Settings(kind="dpo", source="teacher", batch_pairs=3)
    assert rollout_dpo.plan(stage(tmp_path / "t", taught, **inputs)).lines["pairs"].startswith("8 of")


def test_a_model_that_does_not_exist_yet_has_the_shape_of_the_settings():
    estimate = training_estimate(untrained(TINY), step_tokens=512, row_tokens=64)
    assert estimate.lines["model"] == f"at most {shape_in_settings(TINY).parameters:,} parameters"


# --- adapters, references, critics

LORA = AdapterSettings(rank=16)
QLORA = AdapterSettings(rank=16, weights="nf4")


def test_the_size_of_an_adapter_is_that_of_the_one_peft_makes():
    pytest.importorskip("peft")
    for kind in ("phi3", "llama"):
        for settings in ({"rank": 3}, {"rank": 2, "dora": True, "targets": ["o_proj", "down_proj"]}):
            model = random_model(kind, 50)
            adapter = AdapterSettings(**settings)
            add_adapter(model, adapter, seed=0)
            shape = Shape(2, 64, 96, 64, 32, 50, 0, fused=kind == "phi3")
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
            assert adapter_size(shape, adapter) == trained, (kind, settings)


@pytest.mark.parametrize(
    ("dtype", "compute"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
)
def test_activations_beside_an_adapter_are_what_autograd_keeps(dtype, compute):
    pytest.importorskip("peft")
    kept = kept_bytes(compute, [700], every=0, dtype=dtype, adapter=AdapterSettings(rank=8))
    expected = 2 * 700 * activation_bytes(
        Shape(2, 64, 160, 64, 32, 50, 0, fused=True), dtype, compute, False, AdapterSettings(rank=8)
    )  # fmt: skip
    assert expected == pytest.approx(kept, rel=0.2)


def test_memory_of_lora_and_qlora_of_phi_4_mini_on_small_cards():
    """By hand. A layer's four matrices have 3072 x (5120 + 3072 + 16384 + 8192) = 100.7 M weights, 3.221e9 in 32 layers; rank
    16 adds 16 x (8192 + 6144 + 19456 + 11264) = 0.721 M to each, 23.1 M in all: 4 bytes for each of adapter, gradient and two
    moments are 0.37 GB. The base in bf16 is 7.67 GB; in NF4 its layers are 3.221e9 x 0.5159 = 1.66 GB, and the rest, 0.615e9,
    is 1.23 GB. RL's sampler has a copy of 7.67 GB in bf16. The head is frozen: 3 x 0.82 GB of logits."""
    shape = shape_of(PHI.path, PHI)
    parallel = ParallelSettings(compute="bfloat16", accelerator="L4", activation_checkpointing=1)
    known = {"samples": True, "reference": True}
    lora, qlora = (training_memory(shape, "bfloat16", parallel, 4096, adapter=a, **known) for a in (LORA, QLORA))
    assert adapter_size(shape, LORA) == pytest.approx(23.07e6, rel=1e-3)
    for memory in (lora, qlora):
        assert sum(memory[name] for name in ("adapter", "gradients", "moments")) == pytest.approx(0.369e9, rel=1e-2)
        assert memory["sampler's copy"] == pytest.approx(7.67e9, rel=1e-3) and not memory["reference"]
        assert memory["head"] == pytest.approx(3 * 0.8195e9, rel=1e-3)
    assert lora["weights"] == pytest.approx(7.67e9, rel=1e-3)
    assert qlora["weights"] == pytest.approx(1.66e9 + 1.23e9, rel=3e-3)
    critic = training_memory(shape, "bfloat16", parallel, 4096, adapter=QLORA, critic=True, **known)["critic"]
    assert critic == pytest.approx(2.89e9 + 0.369e9, rel=1e-2)
    full = training_memory(shape, "bfloat16", parallel, 4096, critic=True, **known)
    assert full["reference"] == pytest.approx(7.67e9, rel=1e-3) and full["critic"] == pytest.approx(
        4 * 7.67e9, rel=1e-3
    )


def test_a_plan_says_what_an_adapter_saves(tmp_path):
    room = replace(untrained(PHI, ParallelSettings(accelerator="L4", compute="bfloat16")), adapter=LORA)
    whole, beside = (training_estimate(stage, step_tokens=64, row_tokens=64) for stage in (untrained(PHI), room))
    assert beside.lines["adapter"] == "23,068,672 parameters, of rank 16"
    assert "12 bytes" not in beside.lines["disk"] and beside.disk < whole.disk / 2
    ppo = loop.Settings(kind="rl", algorithm="ppo", kl={"coefficient": 0.1}, max_tokens=64)
    lines = loop.plan(replace(room, settings=ppo)).lines["memory"]
    assert "critic" in lines and "sampler's copy" in lines and "reference" not in lines
    assert "reference" in loop.plan(replace(untrained(PHI), settings=ppo)).lines["memory"]
