"""The fused forward pass gives the modules' tokens and log-probabilities, and is used for known models only."""

import pytest
import torch

from tests.tiny_models import WINDOWED, random_model, tiny, windowed_model
from whetstone import model as models
from whetstone.chat import ask
from whetstone.decode import runner
from whetstone.decode.engine import Engine
from whetstone.decode.fused_forward import fits
from whetstone.records import Sampling

PROMPTS = [ask(f"p{i}", f"Compute {i} + {i * 37}" + " + 1" * i, 0) for i in range(5)]


def both_ways(model, tokenizer, monkeypatch):
    sampling = Sampling(max_tokens=25, seed=2)
    assert fits(model)
    fused = list(Engine(model, tokenizer).generate(PROMPTS, sampling))
    monkeypatch.setattr(runner, "fits", lambda model: False)
    return fused, list(Engine(model, tokenizer).generate(PROMPTS, sampling))


@pytest.mark.parametrize("kind", ["phi3", "qwen2", "llama", "tiny"])
def test_it_gives_the_tokens_and_logprobs_of_the_modules(kind, monkeypatch):
    model, tokenizer = tiny()
    if kind != "tiny":  # the tiny default rotates only a part of each head
        model = random_model(kind, len(tokenizer))
    for fused, modules in zip(*both_ways(model, tokenizer, monkeypatch), strict=True):
        assert fused.ids == modules.ids
        assert fused.logprobs == pytest.approx(modules.logprobs, abs=1e-5)


def test_models_with_replaced_parts_and_unknown_classes_run_through_their_modules():
    _, tokenizer = tiny()
    model = random_model("llama", len(tokenizer))
    assert fits(model)
    hook = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert not fits(model)
    hook.remove()

    class Adapted(torch.nn.Linear):
        pass

    model.model.layers[1].mlp.up_proj.__class__ = Adapted
    assert not fits(model)
    assert not fits(random_model("qwen3", len(tokenizer))), "its attention has norms of its own"


@pytest.mark.parametrize("kind", WINDOWED)
def test_a_sliding_window_is_that_of_transformers(kind, tmp_path):
    _, tokenizer = tiny()
    model = windowed_model(kind, len(tokenizer))
    engine = Engine(model, tokenizer, prefill_tokens=20)  # prompts in parts, which attend to what is cached
    models.save(model, tokenizer, tmp_path)
    plain = type(model).from_pretrained(tmp_path)
    for done in engine.generate(PROMPTS, Sampling(0.0, 40)):
        ids = torch.tensor([done.prompt_ids])
        out = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
            eos_token_id=list(engine.chat.stops), pad_token_id=0,
        )  # fmt: skip
        assert done.ids == out[0, ids.shape[1] :].tolist()
