"""One LongRoPE table per run: equal logits on both sides of the limit, packed, separate, and in plain transformers."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny_models import ORIGINAL, TEXTS, phi4_mini
from whetstone import model as models
from whetstone.longrope import fix_table
from whetstone.model import hidden_states

CROSSING = [ORIGINAL // 2, ORIGINAL, ORIGINAL + 1, 2 * ORIGINAL]  # tokens


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder as it is published, with two tables."""
    folder = tmp_path_factory.mktemp("base")
    models.save(*phi4_mini(TEXTS), folder)
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    assert rope["short_factor"] != rope["long_factor"]
    return folder


def sequences(vocabulary: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (n,), generator=generator) for n in CROSSING]


def packed_logits(model, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    positions = torch.cat([torch.arange(len(part)) for part in parts])
    hidden = hidden_states(model, torch.cat(parts)[None], positions[None], lengths=[len(part) for part in parts])[0]
    return list((hidden @ model.lm_head.weight.T).split([len(part) for part in parts]))


@torch.no_grad()
def test_without_fixing_the_table_a_short_sequence_changes_beside_a_long_one(base):
    """What transformers does by itself: the reason for fixing the table."""
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation=models.ATTENTION)
    parts = sequences(model.config.vocab_size)
    alone, beside = packed_logits(model, parts[:1])[0], packed_logits(model, parts)[0]
    assert (alone - beside).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("longest", [ORIGINAL, ORIGINAL + 1, 0])
def test_one_table_on_both_sides_of_the_limit_packed_alone_and_exported(base, tmp_path, longest):
    model, tokenizer = models.load(base, longest=longest)
    parts = sequences(model.config.vocab_size)
    packed = packed_logits(model, parts)
    models.save(model, tokenizer, tmp_path / "exported")
    for implementation in ("eager", "sdpa"):
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", attn_implementation=implementation)
        for part, ours in zip(parts, packed, strict=True):
            (alone,) = packed_logits(model, [part])
            torch.testing.assert_close(alone, ours, rtol=0, atol=2e-5)
            theirs = plain(input_ids=part[None], use_cache=False).logits[0]
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
        # token by token past the limit, where transformers alone would change the table under a cache made with the other
        stepped = plain(input_ids=parts[3][None, : ORIGINAL - 2], use_cache=True)
        for at in range(ORIGINAL - 2, ORIGINAL + 3):
            token = parts[3][None, at : at + 1]
            stepped = plain(input_ids=token, past_key_values=stepped.past_key_values, use_cache=True)
            torch.testing.assert_close(stepped.logits[0, -1], packed[3][at], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("longest", [ORIGINAL, ORIGINAL + 1])
def test_the_table_is_the_one_that_transformers_uses_for_such_lengths(base, longest):
    """The published model's own logits, below and beyond the limit, with the factor on the logits."""
    model, _ = models.load(base, longest=longest)
    part = sequences(model.config.vocab_size)[1 if longest == ORIGINAL else 2]
    plain = AutoModelForCausalLM.from_pretrained(base, attn_implementation="sdpa")
    theirs = plain(input_ids=part[None], use_cache=False).logits[0]
    torch.testing.assert_close(packed_logits(model, [part])[0], theirs, rtol=0, atol=1e-4)
    # sqrt(1 + ln(512 / 48) / ln 48)
    assert model.base_model.rotary_emb.attention_scaling == pytest.approx((1 + 2.3671236 / 3.8712010) ** 0.5)


def test_a_folder_keeps_its_table_and_a_run_on_the_other_side_of_the_limit_is_refused(base, tmp_path):
    models.save(*models.load(base, longest=ORIGINAL), tmp_path)
    again, _ = models.load(tmp_path)  # asked for nothing, it stays
    rope = again.config.rope_parameters
    assert rope["short_factor"] == rope["long_factor"] == [1.0] * len(rope["short_factor"])
    with pytest.raises(
        ValueError, match=rf"sequences of up to {ORIGINAL} tokens, and this run has sequences of up to 500"
    ):
        models.load(tmp_path, longest=500)


def test_other_models_are_unchanged():
    config = AutoConfig.for_model("qwen3")
    before = config.to_dict()
    fix_table(config, 100_000)
    assert config.to_dict() == before


def test_a_class_with_a_factor_on_the_logits_for_each_table_gets_both_from_one():
    config = AutoConfig.for_model("llama")
    config.rope_parameters = {
        "rope_type": "longrope", "original_max_position_embeddings": 64, "rope_theta": 1e4,
        "short_factor": [1.0], "long_factor": [2.0], "short_mscale": 1.1, "long_mscale": 1.2,
    }  # fmt: skip
    fix_table(config, 65)
    assert config.rope_parameters["short_factor"] == [2.0] and config.rope_parameters["short_mscale"] == 1.2
