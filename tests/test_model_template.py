"""Base models: refused without a chat template, and with one trained, sampled and exported as any other model."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_models import random_model, tiny
from tests.tiny_world import SUMS, answer
from whetstone import model as models
from whetstone.base_templates import SHIPPED
from whetstone.chat import Chat, Exchange
from whetstone.cli import main
from whetstone.model_template import open_model
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import read_recipe
from whetstone.records import Message
from whetstone.run.folder import read_json


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path_factory):
    """A base model's folder: no chat template, and none of ChatML's tokens."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny()[1]
    model = random_model("llama", len(tokenizer), tie_word_embeddings=request.param)
    models.save(model, tokenizer, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def row(folder, said="It is 2."):
    model, tokenizer = models.load(folder)
    chat = Chat(tokenizer, model.generation_config.eos_token_id)
    (taught,) = chat.rows([Exchange((Message("user", "1 + 1?"),), said)])
    return chat, taught


def test_a_base_model_is_refused_with_the_setting_that_gives_it_a_template(base):
    with pytest.raises(ValueError, match=r'\[model\] chat_template = "chatml".*--chat-template chatml'):
        models.load(base)
    with pytest.raises(ValueError, match=r'\[model\] chat_template = "chatml"'):
        models.load_chat(base)


def test_tokens_that_the_tokenizer_lacks_are_added_and_start_from_the_mean(base):
    folder = open_model(base, "chatml")
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    old, new = before["model.embed_tokens.weight"], after["model.embed_tokens.weight"]
    assert len(new) == len(old) + 2 and torch.equal(new[: len(old)], old)
    assert torch.allclose(new[len(old) :], old.mean(0).expand(2, -1))
    if "lm_head.weight" in before:
        assert torch.allclose(after["lm_head.weight"][-1], before["lm_head.weight"].mean(0))
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if "layers" in name)


def test_a_new_end_of_turn_is_taught_stops_and_is_exported(base, tmp_path):
    folder = open_model(base, "chatml")
    chat, taught = row(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert taught.answer_ids[-1] == end == chat.stops[0] and tokenizer.eos_token_id in chat.stops
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "It is 2."}]
    expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
    assert (
        [*taught.prompt_ids, *taught.answer_ids] == expected[: expected.index(end, -3) + 1]
        if end in expected[-3:]
        else False
    )
    models.save(*models.load(folder), tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert end in exported.generation_config.eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == SHIPPED["chatml"]


def test_as_text_nothing_is_added_and_the_eos_ends_a_turn(base):
    folder = open_model(base, "chatml", "text")
    chat, taught = row(folder)
    assert taught.answer_ids[-1] == chat.tokenizer.eos_token_id == chat.end
    assert (folder / "model.safetensors").samefile(base / "model.safetensors"), "the weights are not copied"
    assert "<|im_start|>user\n1 + 1?" in chat.tokenizer.decode(taught.prompt_ids)


def test_tokens_that_the_tokenizer_has_are_used_as_they_are(base, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(models.CHAT_TEMPLATE)
    folder = open_model(base, str(own))
    chat, taught = row(folder)
    assert chat.tokenizer.decode(taught.answer_ids[-1:]) == "<|end|>"
    assert (folder / "model.safetensors").samefile(base / "model.safetensors")


@pytest.mark.parametrize("name", list(SHIPPED))
def test_every_shipped_template_asks_answers_and_ends(name, base):
    chat, taught = row(open_model(base, name))
    assert "1 + 1?" in chat.text(taught.prompt_ids) and chat.text(taught.answer_ids).strip() == "It is 2."
    assert taught.answer_ids[-1] == chat.end
    system = chat.prompt_ids((Message("system", "Be brief."), Message("user", "1 + 1?")))
    assert "Be brief." in chat.text(system)


def test_a_shipped_template_begins_as_the_tokenizer_begins_a_text(base, tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    folder = tmp_path / "with bos"
    shutil.copytree(base, folder)
    tokenizer.save_pretrained(folder)
    assert row(open_model(folder, "question_answer"))[1].prompt_ids[0] == tokenizer.bos_token_id


def test_a_template_is_put_on_once_and_again_if_base_or_template_change(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    own = tmp_path / "own.jinja"
    own.write_text(SHIPPED["plain"])
    first = open_model(folder, str(own))
    assert open_model(folder, str(own)) == first
    own.write_text(SHIPPED["question_answer"])
    second = open_model(folder, str(own))
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert len({first, second, open_model(folder, str(own))}) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("chatlm", "did you mean 'chatml'"),
        ("{folder}/none.jinja", "nor a file"),
        ("{folder}/empty.jinja", "is empty"),
        ("{folder}/loop.jinja", "chat template"),
    ],
)
def test_a_template_that_cannot_be_used_is_said_before_anything_is_made(given, said, base, tmp_path):
    (tmp_path / "empty.jinja").write_text("\n")
    (tmp_path / "loop.jinja").write_text("{% for message in messages %}no content{% endfor %}")
    with pytest.raises((ValueError, OSError), match=said):
        open_model(base, given.format(folder=tmp_path))


def recipe(folder, base, template: str):
    rows = [{"id": f"{a}+{b}", "question": f"Compute {a} + {b}.", "answer": str(a + b)} for a, b in SUMS]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chats = [{"question": f"Compute {a} + {b}.", "answer": answer(a, b)} for a, b in SUMS]
    pairs = [{"prompt": c["question"], "chosen": c["answer"], "rejected": "No."} for c in chats]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    path = folder / "r.toml"
    path.write_text(f'''
        run = {{ name = "r", folder = "{folder}" }}
        model = {{ path = "{base}"{template} }}
        parallel = {{ device = "cpu", forks = 1 }}
        scores = {{ samples = 1, max_tokens = 8, problems = 2 }}
        [[stage]]
        kind = "questions"
        source = [{{ kind = "file", path = "{folder}/sums.jsonl", columns = {{ id = "id" }}, test = 0.3, benchmark = "sums" }}]
        [[stage]]
        kind = "corpus"
        imported_pairs = [{{ path = "{folder}/pairs.jsonl" }}]
        [[stage]]
        kind = "sft"
        data = "corpus/pairs"
        epochs = 1
    ''')
    return path


def test_a_recipe_trains_the_template_in_scores_the_base_with_it_and_exports_it(base, tmp_path):
    path = recipe(tmp_path, base, ', chat_template = "chatml"')
    run_recipe(read_recipe(path))
    out = tmp_path / "r" / "03-sft" / "model"
    assert AutoTokenizer.from_pretrained(out).chat_template == SHIPPED["chatml"]
    new = load_file(out / "model.safetensors")["model.embed_tokens.weight"][-2:]
    assert not torch.equal(new[0], new[1]), "the new tokens were trained apart"
    manifest = read_json(tmp_path / "r" / "03-sft" / "manifest.json")
    assert manifest["started_from"] == {"name": str(base), "chat_template": SHIPPED["chatml"]}
    assert [score["stage"] for score in read_json(tmp_path / "r" / "scores.json")["scores"]] == ["base", "sft"]
    again = read_recipe(path)
    run_recipe(again)  # nothing is to do


def command(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["whetstone", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize("name", ["plan", "run"])
@pytest.mark.parametrize(
    ("given", "said"), [(', chat_template = "chatlm"', "did you mean 'chatml'"), ("", "has no chat template")]
)
def test_a_recipe_says_at_once_that_its_template_is_unknown_or_missing(
    given, said, name, base, tmp_path, monkeypatch, capsys
):
    assert command(monkeypatch, name, recipe(tmp_path, base, given)) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "r").glob("0*"))


def test_an_adapter_is_not_trained_beside_new_tokens(base, tmp_path, monkeypatch, capsys):
    """It leaves embeddings as they are. As text, or with tokens that the tokenizer has, there is nothing new."""
    pytest.importorskip("peft")
    path = recipe(tmp_path, base, ', chat_template = "chatml"')
    adapter = "--set", "adapter.rank=2"
    assert command(monkeypatch, "plan", path, *adapter) == 2
    assert "adds <|im_start|>, <|im_end|> to the tokenizer" in capsys.readouterr().err
    assert command(monkeypatch, "plan", path, *adapter, "--set", "model.template_tokens=text") == 0
    assert command(monkeypatch, "plan", path, *adapter, "--set", "sft.adapter={rank = 0}") == 0


def test_a_command_takes_a_template(base, monkeypatch, capsys):
    asked = "generate", "-m", base, "1 + 1?", "--max-tokens", 3
    assert command(monkeypatch, *asked) == 2
    assert "--chat-template chatml" in capsys.readouterr().err
    assert command(monkeypatch, *asked, "--chat-template", "plain") == 0
    assert capsys.readouterr().out


def test_a_run_that_cannot_have_its_model_ends_before_its_first_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert command(monkeypatch, "run", recipe(tmp_path, "never/seen@v1", "")) == 2
    said = capsys.readouterr().err
    assert "no folder never/seen@v1" in said and "HF_HUB_OFFLINE is set" in said
    assert not list((tmp_path / "r").glob("0*"))
