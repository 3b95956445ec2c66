"""The shortcut is the model: the same tokens and log-probabilities with and without it, and none for what it does not know."""

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.tiny_models import CLASSES, SHAPE, random_model, tiny
from whetstone.chat import ask
from whetstone.decode import engine as engines
from whetstone.decode.engine import Engine
from whetstone.decode.plain_forward import fits
from whetstone.records import Sampling

PROMPTS = [ask(f"p{i}", f"Compute {i} + {i * 37}" + " + 1" * i, 0) for i in range(5)]


def both_ways(model, tokenizer, monkeypatch):
    sampling = Sampling(max_tokens=25, seed=2)
    assert fits(model)
    short = list(Engine(model, tokenizer).generate(PROMPTS, sampling))
    monkeypatch.setattr(engines, "fits", lambda model: False)
    return short, list(Engine(model, tokenizer).generate(PROMPTS, sampling))


@pytest.mark.parametrize("kind", [*CLASSES, "tiny"])
def test_the_shortcut_gives_the_tokens_and_logprobs_of_the_modules(kind, monkeypatch):
    model, tokenizer = tiny()
    if kind != "tiny":  # the tiny default turns only a part of each head
        model = random_model(kind, len(tokenizer))
    for short, long in zip(*both_ways(model, tokenizer, monkeypatch), strict=True):
        assert short.ids == long.ids
        assert short.logprobs == pytest.approx(long.logprobs, abs=1e-5)


def test_anything_replaced_or_unknown_is_left_to_the_module():
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
    assert not fits(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("kind", ["phi3", "qwen2"])
def test_a_sliding_window_is_that_of_transformers(kind, tmp_path):
    _, tokenizer = tiny()
    torch.manual_seed(0)
    window = {"sliding_window": 11}
    shape = dict(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, pad_token_id=0, **SHAPE)
    if kind == "phi3":
        model = Phi3ForCausalLM(Phi3Config(**shape, **window))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**shape, **window, use_sliding_window=True, max_window_layers=1))
    for p in model.parameters():
        if p.dim() > 1:
            p.data.mul_(3.0)
    engine = Engine(model.eval(), tokenizer, prefill_tokens=20)
    for done in engine.generate(PROMPTS, Sampling(0.0, 40)):
        ids = torch.tensor([done.prompt_ids])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
            eos_token_id=list(engine.chat.stops), pad_token_id=0,
        )  # fmt: skip
        assert done.ids == out[0, ids.shape[1] :].tolist()
