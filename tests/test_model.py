"""Any class that can be packed is loaded, any other is refused; Phi-4-mini's tokenizer and template are handled."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DiffLlamaConfig,
    DiffLlamaForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from tests.chat_templates import taught
from tests.tiny_models import (
    CLASSES,
    GAP,
    SHAPE,
    TEXTS,
    UNUSED,
    WINDOWED,
    phi4_mini,
    random_model,
    tiny,
    windowed_model,
)
from whetstone import model as models
from whetstone.batch import Row, collate
from whetstone.chat import Chat
from whetstone.decode.engine import Engine
from whetstone.learner.learner import Learner
from whetstone.records import Message, Prompt, Sampling
from whetstone.run.settings import ParallelSettings


@pytest.fixture(scope="module")
def tokenizer():
    return tiny()[1]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", [*CLASSES, *(f"{kind} windowed" for kind in WINDOWED)])
def test_a_saved_folder_of_each_class_loads_unchanged(kind, tied, tokenizer, tmp_path):
    name, _, windowed = kind.partition(" ")
    original = (windowed_model if windowed else random_model)(name, len(tokenizer) + 7, tie_word_embeddings=tied)
    models.save(original, tokenizer, tmp_path)
    model, _ = models.load(tmp_path)
    assert type(model) is type(original) and models.parameters(model) == models.parameters(original)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=0, atol=2e-5)
    assert "whetstone" not in (tmp_path / "config.json").read_text()


LATENT = {  # the small one of tests: keys of 16 = 8 rotary + 8 plain
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2,
}  # fmt: skip
REFUSED = {  # class -> why
    "latent attention": (DeepseekV3Config, DeepseekV3ForCausalLM, LATENT, "config.json says 4 of 8 .latent"),
    "one key for all queries": (GPTBigCodeConfig, GPTBigCodeForCausalLM, {}, "keys of 1 heads .* config.json says 2"),
    "two attentions in a layer": (DiffLlamaConfig, DiffLlamaForCausalLM, {}, "computes attention twice in a layer"),
    "a soft cap": (Gemma2Config, Gemma2ForCausalLM, {}, "soft cap"),
    "a scaled head": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 3.0}, "more than a product with the head"),
    "a head with a bias": (PhiConfig, PhiForCausalLM, {}, "more than a product with the head"),
    "its own attention": (
        BloomConfig, BloomForCausalLM, {"n_layer": 2, "n_head": 4}, "packed sequences other logits than separate ones",
    ),
    "a recurrent layer": (
        MambaConfig, MambaForCausalLM, {"state_size": 4}, "packed sequences other logits than separate ones",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_class_that_cannot_be_packed_is_refused_with_the_reason(what, tokenizer, tmp_path):
    config, build, more, why = REFUSED[what]
    torch.manual_seed(0)
    model = build(config(vocab_size=len(tokenizer), **(SHAPE | more)))
    for name, p in model.named_parameters():
        if name == "lm_head.bias":
            p.data.normal_()
        elif p.dim() > 1:
            p.data.mul_(3.0)
    models.save(model, tokenizer, tmp_path)
    with pytest.raises(ValueError, match=why):
        models.load(tmp_path)


def test_a_class_without_a_context_is_refused(tokenizer, tmp_path):
    models.save(BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=64)), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="a bloom has no max_position_embeddings"):
        models.load(tmp_path)


def test_a_class_that_chooses_among_attentions_of_its_own_is_refused(tokenizer, tmp_path):
    config = FalconConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    models.save(FalconForCausalLM(config), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="among attentions of its own and does not use transformers' interface"):
        models.load(tmp_path)


def test_a_class_with_other_module_names_is_packed_and_its_dropout_is_switched_off(tokenizer, tmp_path, capsys):
    """GPT-2 calls its base model `transformer` and has dropout in three places."""
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    models.save(GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)), tokenizer, tmp_path)
    model, _ = models.load(tmp_path)
    assert "attn_pdrop was 0.1" in capsys.readouterr().err
    rows = [Row([5, 6, 7, 8, 9], prompt=2)]
    learner = Learner(model, len(tokenizer), ParallelSettings(activation_checkpointing=1))
    model.train()
    once, again = (learner.root(batch)[0] for batch in [collate(rows)] * 2)
    assert torch.equal(once, again)


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(tokenizer, tmp_path):
    models.save(random_model("qwen2", len(tokenizer) - 1), tokenizer, tmp_path)
    with pytest.raises(ValueError, match=r"the tokenizer has an id \d+, but the model's embedding has \d+ rows"):
        models.load(tmp_path)


# --- Phi-4-mini


@pytest.fixture(scope="module")
def phi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phi")
    models.save(*phi4_mini(TEXTS), folder)
    return models.load(folder)


def test_special_ids_behind_a_gap_are_in_use_and_slots_behind_them_are_not(phi):
    model, tokenizer = phi
    chat = Chat(tokenizer)
    ids = tokenizer.get_vocab()
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == ids["<|endoftext|>"]
    assert len(tokenizer) < ids["<|end|>"] < chat.size == len(tokenizer) + GAP
    assert model.get_output_embeddings().weight.shape[0] == chat.size + UNUSED
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert chat.end == ids["<|end|>"] and set(chat.stops) == {chat.end, tokenizer.eos_token_id}
    learner = Learner(model, chat.size, ParallelSettings())
    (logprobs,) = learner.row_logprobs([Row([1, 2, chat.end], prompt=1)])
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, chat.end]]), use_cache=False).logits[0, :2, : chat.size]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[[0, 1], [2, chat.end]], rtol=0, atol=1e-5)


def test_the_template_has_no_newline_and_a_turn_ends_with_its_own_token(phi):
    tokenizer = phi[1]
    chat = Chat(tokenizer)
    text = tokenizer.decode(chat.prompt_ids((Message("system", "Be brief."), Message("user", "1 + 1?"))))
    assert text == "<|system|>Be brief.<|end|><|user|>1 + 1?<|end|><|assistant|>"
    ids = taught(chat, "2").answer_ids
    assert ids == [*tokenizer.encode("2"), chat.end] and ids.count(chat.end) == 1
    assert chat.text(ids) == "2"


def test_the_end_of_the_turn_is_scored_although_bos_eos_and_pad_are_one_id(phi):
    """Masked by length, never by id: end of turn and end of text are scored if the model wrote them."""
    chat = Chat(phi[1])
    eos = phi[1].eos_token_id
    batch = collate([Row([eos, 5, 6, chat.end], prompt=2), Row([7, eos], prompt=1)])
    assert batch.targets.tolist() == [6, chat.end, eos]


def test_an_exported_folder_stops_at_the_end_of_the_turn(phi, tmp_path):
    """A base whose configuration lists only the end of text would not stop after its turn in vLLM."""
    model, tokenizer = phi
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    models.save(model, tokenizer, tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == list(Chat(tokenizer).stops)


def test_unused_slots_of_the_embedding_are_never_sampled(phi):
    model, tokenizer = phi
    with torch.no_grad():
        kept = model.lm_head.weight.clone()
        model.lm_head.weight[Chat(tokenizer).size :] = 50.0 * kept[:UNUSED].sign()  # far likelier than all the others
    prompts = [Prompt("p", i, (Message("user", "1 + 1?"),)) for i in range(8)]
    completions = list(Engine(model, tokenizer).generate(prompts, Sampling(1.0, 20, seed=1)))
    model.lm_head.weight.data.copy_(kept)
    assert max(max(c.ids) for c in completions) < Chat(tokenizer).size


def test_partial_rotary_covers_three_quarters_of_each_head(phi):
    model = phi[0]
    config = model.config
    assert len(model.model.rotary_emb.inv_freq) * 2 == 0.75 * config.hidden_size // config.num_attention_heads
    assert AutoConfig.for_model("phi3").rope_parameters["partial_rotary_factor"] == 1.0  # that of Phi-3, for contrast


def test_models_that_several_threads_read_at_once_are_whole(tmp_path):
    """transformers replaces functions of its classes while it reads, so that two at once left heads untied for good."""
    model, tokenizer = tiny()
    models.save(model, tokenizer, tmp_path)
    with ThreadPoolExecutor(4) as pool:
        read = [loaded for loaded, _ in pool.map(lambda _: models.load(tmp_path), range(12))]
    for loaded in [*read, tiny()[0]]:
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
        assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("device", ["meta", "no such device", "cuda:99"])
def test_a_device_that_cannot_compute_is_refused(device):
    with pytest.raises(ValueError, match="torch cannot use it here"):
        models.choose_device(device)
