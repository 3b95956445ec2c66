"""An adapter's folder is a model: it is merged into the base that it names, as peft does, or refused with a remedy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.tiny_models import random_model, tiny
from whetstone import model as models
from whetstone.learner.shape import shape_of
from whetstone.model_folder import check_model, find_model, local_model, provenance
from whetstone.model_template import check_template
from whetstone.pipeline.staleness import base_hash
from whetstone.run.settings import ModelSettings

peft = pytest.importorskip("peft")
IDS = torch.arange(5, 25)[None]
LINEAR = ["q_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A Llama whose head is its embedding."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny()[1]
    models.save(random_model("llama", len(tokenizer)), tokenizer, folder)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))


def trained(base: Path, folder: Path, config, rows: int = 0) -> torch.Tensor:
    """Save an adapter that is no longer at its start, as peft does. Returns peft's own logits."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with_adapter = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in with_adapter.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    with_adapter.save_pretrained(folder, save_embedding_layers=bool(rows) or "auto")
    with torch.no_grad():
        return with_adapter.eval()(IDS).logits


def logits(name) -> torch.Tensor:
    with torch.no_grad():
        return models.load(name)[0](IDS, use_cache=False).logits


def configured(folder: Path, **values) -> None:
    config = json.loads((folder / "adapter_config.json").read_text()) | values
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    trained(base, tmp_path / "adapter", peft.LoraConfig(r=3, target_modules=LINEAR, task_type="CAUSAL_LM"))
    return tmp_path / "adapter"


KINDS = {
    "dora": lambda: peft.LoraConfig(r=3, target_modules="all-linear", use_dora=True, use_rslora=True, lora_alpha=5),
    "the head of a tied model": lambda: peft.LoraConfig(r=3, target_modules=["lm_head", "q_proj"]),
    "its embedding": lambda: peft.LoraConfig(r=3, target_modules=["embed_tokens"]),
    "the head by a pattern": lambda: peft.LoraConfig(r=3, target_modules=r"(.*\.)?(q_proj|lm_head)"),
    "the embedding by a pattern": lambda: peft.LoraConfig(r=3, target_modules=r".*(q_proj|embed_tokens)"),
    "the head's weight": lambda: peft.LoraConfig(r=3, target_modules=["q_proj"], target_parameters=["lm_head.weight"]),
    "tokens of both ends": lambda: peft.LoraConfig(
        r=3, target_modules=["q_proj"], trainable_token_indices={"lm_head": [3, 4], "embed_tokens": [5]}
    ),
    "the embedding and with it the head": lambda: peft.LoraConfig(
        r=3, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True
    ),
    "both ends as one": lambda: peft.LoraConfig(
        r=3, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True
    ),
    "a layer trained whole": lambda: peft.LoraConfig(r=3, target_modules=LINEAR, modules_to_save=["norm", "lm_head"]),
    "ranks": lambda: peft.LoraConfig(
        r=3, target_modules=LINEAR, rank_pattern={"q_proj": 5}, alpha_pattern={"down_proj": 1}
    ),
    "adalora": lambda: peft.AdaLoraConfig(target_modules=LINEAR, total_step=9),
    "loha": lambda: peft.LoHaConfig(r=3, target_modules=LINEAR),
    "lokr": lambda: peft.LoKrConfig(r=3, target_modules=LINEAR),
    "ia3": lambda: peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"]),
    "oft": lambda: peft.OFTConfig(oft_block_size=8, target_modules=LINEAR),
    "vera": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_what_peft_says(kind, base, tmp_path):
    expected = trained(base, tmp_path / "adapter", KINDS[kind]())
    assert not torch.allclose(expected, logits(base), atol=1e-2)
    assert torch.allclose(logits(tmp_path / "adapter"), expected, atol=2e-4)


def test_new_tokens_that_are_saved_with_an_adapter_get_their_rows(base, tmp_path):
    tokenizer = models.load(base)[1]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    config = peft.LoraConfig(r=3, target_modules=LINEAR)
    expected = trained(base, tmp_path / "adapter", config, rows=len(tokenizer) + 3)
    tokenizer.save_pretrained(tmp_path / "adapter")
    assert torch.allclose(logits(tmp_path / "adapter"), expected, atol=2e-4)
    assert "<new>" in models.load(tmp_path / "adapter")[1].get_vocab()


def test_it_is_merged_once_and_known_before_that(adapter, base, capsys):
    assert local_model(adapter) is None and shape_of(adapter, ModelSettings()) == shape_of(base, ModelSettings())
    check_model(adapter)
    check_template(adapter, None)
    before = base_hash(str(adapter))
    folder = find_model(adapter)
    assert "an adapter of" in capsys.readouterr().err
    assert find_model(adapter) == folder == local_model(adapter) and not capsys.readouterr().err
    assert base_hash(str(adapter)) == before != base_hash(str(base))
    assert provenance(adapter)["adapter_of"]["name"] == str(base)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: 2 * w for name, w in weights.items()}, adapter / "adapter_model.safetensors")
    assert base_hash(str(adapter)) != before and find_model(adapter) != folder


def test_a_base_may_lie_beside_the_adapter(adapter, base):
    shutil.copytree(base, adapter / "base")
    before = logits(adapter)
    configured(adapter, base_model_name_or_path="base")
    assert torch.equal(logits(adapter), before)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "an adapter of type PROMPT_TUNING is not merged here"),
        ({"peft_type": None}, "an adapter of type None"),
        ({"task_type": "SEQ_CLS"}, "it is no adapter of a causal language model"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "repeats layers of its base"),
        ({"alora_invocation_tokens": [1]}, "counts only behind certain tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "it has changed its base"),
        ({"r": 10**9}, "a rank is at most"),
        ({"rank_pattern": {"q_proj": 10**9}}, "a rank is at most"),
        ({"base_model_name_or_path": None}, "it does not name its base"),
        ({"base_model_name_or_path": "/no/such/base"}, "which cannot be used: There is no folder /no/such/base"),
        ({"r": 4}, "does not fit its base"),
        ({"target_modules": ["q_proj", "down_proj", "up_proj"]}, "are missing"),
        ({"target_modules": ["q_proj"]}, "have no place"),
        ({"target_modules": ["nowhere"]}, "does not fit its base"),
        ({"a_later_setting": 3}, "does not know a_later_setting"),
    ],
)
def test_what_cannot_be_merged_is_refused(values, said, adapter, base):
    configured(adapter, **values)
    with pytest.raises((ValueError, OSError)) as refused:
        check_model(adapter)
        models.load(adapter)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_matrices_that_are_missing_or_damaged_are_refused(adapter):
    matrices = adapter / "adapter_model.safetensors"
    matrices.rename(adapter / "adapter_model.bin")
    with pytest.raises(
        ValueError, match=r"has no adapter_model.safetensors, and pickles are never read\. Save it again"
    ):
        check_model(adapter)
    matrices.write_bytes(b"cut off")
    with pytest.raises(ValueError, match="is damaged or cut off"):
        check_model(adapter)


def test_an_adapter_of_an_adapter_and_one_of_a_quantised_base_are_refused(adapter, base, tmp_path):
    shutil.copytree(adapter, tmp_path / "second")
    configured(tmp_path / "second", base_model_name_or_path=str(adapter))
    with pytest.raises(ValueError, match="is an adapter too"):
        check_model(tmp_path / "second")
    rounded = Path(shutil.copytree(base, tmp_path / "rounded"))
    config = json.loads((rounded / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "bitsandbytes"}
    }
    (rounded / "config.json").write_text(json.dumps(config))
    configured(adapter, base_model_name_or_path=str(rounded))
    with pytest.raises(
        ValueError, match=r"which cannot be used: .*quantised.* write its place as base_model_name_or_path"
    ):
        check_model(adapter)
