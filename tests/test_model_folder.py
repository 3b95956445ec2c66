"""Folders from elsewhere: one whole causal model is loaded, anything else is refused in one line with a remedy."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.tiny_models import random_model, tiny
from whetstone import model as models
from whetstone.cli import main
from whetstone.model_folder import find_model, local_model
from whetstone.model_weights import wrapped
from whetstone.records import Sampling
from whetstone.run.folder import stage_folders
from whetstone.serve.offered import offered

IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Kind -> a folder that loads: tied Qwen 2, Llama with a head of its own."""
    folders = {}
    for kind, tied in (("qwen2", True), ("llama", False)):
        folders[kind] = tmp_path_factory.mktemp(kind)
        tokenizer = tiny()[1]
        models.save(random_model(kind, len(tokenizer), tie_word_embeddings=tied), tokenizer, folders[kind])
    return folders


@pytest.fixture
def tied(made, tmp_path) -> Path:
    return Path(shutil.copytree(made["qwen2"], tmp_path / "tied"))


@pytest.fixture
def untied(made, tmp_path) -> Path:
    return Path(shutil.copytree(made["llama"], tmp_path / "untied"))


def configure(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def reweigh(folder: Path, change) -> None:
    """`change` gets the stored weights by name and gives others."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        models.load(folder)
    message = str(refused.value)
    assert str(folder) in message and "\n" not in message and len(message) < 900
    return message


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return models.load(folder)[0](IDS, use_cache=False).logits


# --- weights


def without(*names):
    return lambda weights: {name: weight for name, weight in weights.items() if name not in names}


def test_missing_weights_are_named_and_counted(untied):
    layer = "model.layers.1.mlp"
    reweigh(untied, without(*(f"{layer}.{part}_proj.weight" for part in ("gate", "up", "down")), "model.norm.weight"))
    assert (
        f"4 are missing: {layer}.down_proj.weight, {layer}.gate_proj.weight, {layer}.up_proj.weight and 1 more"
        in refusal(untied)
    )


def test_a_weight_that_the_model_has_no_place_for_is_refused(untied):
    reweigh(untied, lambda weights: weights | {"v_head.weight": torch.ones(1, 64)})
    assert "1 are left over: v_head.weight" in refusal(untied)


def test_a_weight_of_another_shape_is_named_with_both(untied):
    reweigh(untied, lambda weights: weights | {"model.norm.weight": torch.ones(63)})
    assert "1 have another shape: model.norm.weight (63,), not (64,)" in refusal(untied)


def test_weights_of_another_architecture_are_refused(tied, untied):
    shutil.copy(tied / "model.safetensors", untied / "model.safetensors")
    message = refusal(untied)
    assert "are left over: model.layers.0.self_attn.k_proj.bias" in message and "lm_head.weight" in message


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"model.{name}",
        lambda name: f"student.base_model.{name}",
        lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
    ],
    ids=["_orig_mod", "module", "both", "model twice", "any prefix", "inside"],
)
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_wrapped_models_names_are_read_without_the_wrapper_and_it_is_said(kind, rename, request, capsys):
    folder = request.getfixturevalue(kind)
    before = logits(folder)
    reweigh(folder, lambda weights: {rename(name): weight for name, weight in weights.items()})
    assert torch.equal(logits(folder), before)
    assert "the weights have a wrapped model's names" in capsys.readouterr().err


def test_names_that_fit_are_not_changed():
    assert wrapped({"model.a": 1}, {"model.a": 1, "a": 1}) == wrapped({"x.b": 1}, {"a": 1}) == []


def test_only_the_base_without_its_prefix_is_read_as_transformers_reads_it(tied):
    before = logits(tied)
    reweigh(tied, lambda weights: {name.removeprefix("model."): weight for name, weight in weights.items()})
    assert torch.equal(logits(tied), before)


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_file_that_was_cut_off_is_refused(keep, untied):
    path = untied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is damaged or cut off" in refusal(untied)


def test_a_pointer_of_git_lfs_is_said_to_be_one(untied):
    (untied / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refusal(untied)


def shard(folder: Path) -> list[Path]:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    halves = {name: dict(list(weights.items())[number::2]) for number, name in enumerate(names)}
    for name, half in halves.items():
        save_file(half, folder / name, metadata={"format": "pt"})
    where = {key: name for name, half in halves.items() for key in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return [folder / name for name in names]


def test_shards_are_read_and_one_that_is_missing_is_named(untied):
    before = logits(untied)
    parts = shard(untied)
    assert torch.equal(logits(untied), before)
    parts[1].unlink()
    assert "lacks model-00002-of-00002.safetensors, of the 2 files" in refusal(untied)


def test_a_weight_in_two_shards_is_refused(untied):
    parts = shard(untied)
    save_file(load_file(parts[0]) | load_file(parts[1]), parts[1], metadata={"format": "pt"})
    assert "stands in two files" in refusal(untied)


def test_an_unmerged_adapter_among_the_weights_is_told_to_be_merged(untied):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    reweigh(untied, lambda weights: weights | {name: torch.ones(2, 64)})
    assert "merge_and_unload" in refusal(untied)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../a.safetensors"}}'])
def test_an_index_that_is_no_table_is_refused(index, untied):
    shard(untied)
    (untied / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(untied)


def test_an_index_without_metadata_says_what_to_add(untied):
    shard(untied)
    index = untied / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"]}))
    assert 'Add "metadata": {}.' in refusal(untied)


def test_pickles_are_never_read(untied):
    torch.save(load_file(untied / "model.safetensors"), untied / "pytorch_model.bin")
    (untied / "model.safetensors").unlink()
    assert "as pickles (pytorch_model.bin), which can execute code" in refusal(untied)


def test_weights_under_another_name_are_found_for_the_user(untied):
    (untied / "model.safetensors").rename(untied / "consolidated.safetensors")
    assert "Rename consolidated.safetensors to model.safetensors" in refusal(untied)


@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (-float("inf"), "infinite")]
)
def test_weights_that_are_not_finite_are_named(value, said, tied):
    def spoil(weights):
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
        return weights

    reweigh(tied, spoil)
    assert f"1 weights hold no numbers to compute with (model.layers.1.mlp.up_proj.weight: {said})" in refusal(tied)


def test_an_embedding_of_zeros_is_refused(tied):
    reweigh(tied, lambda weights: weights | {"model.embed_tokens.weight": 0 * weights["model.embed_tokens.weight"]})
    assert "model.embed_tokens.weight: zeros" in refusal(tied)


def test_weights_so_large_that_logits_are_infinite_are_refused(tied):
    reweigh(tied, lambda weights: {name: weight.clamp(0, 1e-6) + 3e38 for name, weight in weights.items()})
    with pytest.raises(ValueError, match="logits that are not finite"):
        models.load(tied)


# --- tied heads


def test_a_head_that_is_stored_is_used_although_the_configuration_ties_it_and_the_export_says_so(
    untied, tmp_path, capsys
):
    before = logits(untied)
    configure(untied, tie_word_embeddings=True)
    assert torch.equal(logits(untied), before)
    assert "the files hold another head: it is used" in capsys.readouterr().err
    models.save(*models.load(untied), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(plain(IDS).logits, before, rtol=0, atol=2e-5)


def test_a_head_that_is_neither_stored_nor_tied_is_refused_with_the_setting_to_change(tied):
    configure(tied, tie_word_embeddings=False)
    message = refusal(tied)
    assert "1 are missing: lm_head.weight" in message and 'set "tie_word_embeddings": true' in message


def test_a_head_stored_twice_and_equal_is_tied(tied):
    before = logits(tied)
    reweigh(tied, lambda weights: weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    assert torch.equal(logits(tied), before)
    model = models.load(tied)[0]
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight


# --- folders of another kind


def test_an_adapter_is_refused_beside_a_base_and_without_its_settings(tied):
    (tied / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", "peft_type": "LORA"}))
    assert "holds an adapter beside a whole model (adapter_config.json)" in refusal(tied)
    (tied / "config.json").unlink()
    (tied / "adapter_config.json").rename(tied / "adapter_model.safetensors")
    assert "holds an adapter without its adapter_config.json" in refusal(tied)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised (quantization_config)"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "quantised (quantization)"),
        ({"vision_config": {"hidden_size": 8}}, "a model of several parts (vision_config)"),
        ({"text_config": {"num_hidden_layers": 10**12}}, "a model of several parts (text_config)"),
        ({"is_encoder_decoder": True}, "an encoder with a decoder"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "no causal language model"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "architectures BertForMaskedLM is no causal"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "no causal language model"),
        ({"architectures": ["LlamaForCausalLM"]}, "no causal language model"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}, "the folder's own code is never run"),
        ({"model_type": "mine"}, "has no model_type 'mine'"),
        ({"model_type": ...}, "it has no model_type"),
        ({"model_type": 7}, "it has no model_type"),
    ],
)  # fmt: skip
def test_a_model_of_another_kind_is_refused_by_name(values, said, tied):
    configure(tied, **values)
    assert said in refusal(tied)


def test_code_in_the_folder_is_ignored_where_transformers_has_the_class_and_is_not_named_in_the_export(tied, tmp_path):
    """Phi-4-mini ships auto_map beside a model_type that transformers has."""
    before = logits(tied)
    configure(tied, auto_map={"AutoModelForCausalLM": "modeling_qwen2.Qwen2ForCausalLM"})
    (tied / "modeling_qwen2.py").write_text("raise SystemExit('executed')\n")
    assert torch.equal(logits(tied), before)
    models.save(*models.load(tied), tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out/config.json").read_text())


def test_eight_bit_weights_are_refused(untied):
    name = "model.layers.0.mlp.up_proj.weight"
    reweigh(untied, lambda weights: weights | {name: weights[name].to(torch.float8_e4m3fn)})
    assert f"1 weights are not stored as full numbers ({name} F8_E4M3)" in refusal(untied)


def test_a_single_file_is_no_model(untied):
    assert "is a file. Name a Hugging Face folder" in refusal(untied / "model.safetensors")


# --- files that are missing, empty or broken


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', "[" * 300_000, "\ud800"])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_broken_json_file_is_named(name, text, tied):
    (tied / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert str(tied / name) in refusal(tied)


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": "four"},
        {"hidden_size": -64},
        {"num_hidden_layers": None},
        {"num_hidden_layers": "2"},
        {"rope_parameters": {"rope_type": "longrope"}},
        {"rope_parameters": {"rope_type": "nothing"}},
        {"hidden_act": "no_such_function"},
        {"vocab_size": 1.5},
        {"architectures": 3},
        {"dtype": "float31"},
        {"max_position_embeddings": 0},
        {"rope_theta": -5.0},
        {"use_sliding_window": True, "sliding_window": 0},
        {"use_sliding_window": True, "sliding_window": -3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": -4.0}},
        {"rope_scaling": {"type": "linear", "factor": float("nan")}, "rope_parameters": ...},
    ],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_one_line(values, tied):
    configure(tied, **values)
    refusal(tied)


@pytest.mark.parametrize(
    "values",
    [
        {"return_dict": False},
        {"output_attentions": True},
        {"dtype": "float8_e4m3fn"},
        {"architectures": "Qwen2ForCausalLM"},
        {"vocab_size_per_layer_input": 262_144},
        {"use_sliding_window": False, "sliding_window": 0},
    ],
)
def test_settings_that_say_nothing_of_the_model_change_nothing(values, tied):
    before = logits(tied)
    configure(tied, **values)
    assert torch.equal(logits(tied), before)


def test_a_template_that_tokenizers_do_not_read_is_refused(untied):
    template, old = untied / "chat_template.jinja", untied / "chat_template.json"
    old.write_text(json.dumps({"chat_template": template.read_text()}))
    models.load(untied)  # the other one is read
    template.unlink()
    assert "Put the text of its chat_template into chat_template.jinja" in refusal(untied)
    template.write_text("\n")
    assert "chat_template.jinja is empty" in refusal(untied)


def test_a_folder_without_configuration_weights_or_tokenizer_says_which(untied):
    for name, said in (
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
        ("config.json", "has no config.json"),
    ):
        (untied / name).unlink()
        assert said in refusal(untied)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "\0" * 9])
def test_a_broken_tokenizer_is_refused(text, untied):
    (untied / "tokenizer.json").write_text(text)
    refusal(untied)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "README.md"])
def test_loops_of_links_and_pipes_are_refused_and_never_waited_for(name, untied):
    (untied / name).unlink(missing_ok=True)
    (untied / name).symlink_to(name)
    assert name in refusal(untied)
    (untied / name).unlink()
    os.mkfifo(untied / name)
    assert name in refusal(untied)


def test_a_name_that_is_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert "a link that leads nowhere" in refusal(tmp_path / "loop")


# --- gigantic models


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000: it is at most 4,096"),
        ({"num_hidden_layers": 1e12}, "it is at most 4,096"),
        ({"num_labels": 10**12}, "num_labels = 1000000000000"),
        ({"num_hidden_layers": 4096}, "asks for 4,096 layers (num_hidden_layers), and the weights are of 2"),
        ({"hidden_size": 10**9}, "describes a model of"),
        ({"intermediate_size": 10**9}, "describes a model of"),
        ({"vocab_size": 10**10}, "describes a model of"),
        ({"hidden_size": 10**15}, "cannot be loaded"),
        ({"vocab_size": 2**63}, "cannot be loaded"),
    ],
)
def test_a_gigantic_model_is_refused_before_it_is_built(values, said, tied):
    configure(tied, **values)
    assert said in refusal(tied)


def test_positions_cost_nothing(tied):
    configure(tied, max_position_embeddings=10**12)
    models.load(tied)


# --- names


def test_a_run_stands_for_its_last_complete_model_and_a_stage_for_its_own(tied, tmp_path):
    run = tmp_path / "run"
    for name, complete in (("04-midtrain", True), ("05-sft", True), ("06-rl", False)):
        shutil.copytree(tied, run / name / "model")
        if complete:
            (run / name / "manifest.json").write_text("{}")
    assert find_model(run) == run / "05-sft/model"
    assert find_model(run / "04-midtrain") == run / "04-midtrain/model"
    assert find_model(run / "06-rl/model") == run / "06-rl/model"


@pytest.mark.parametrize(
    "name", ["", "none", "./none", "/none/at/all", "a/b/c", "org/..", "https://hf.co/a/b", "a b/c"]
)
def test_a_name_of_nothing_is_refused_with_what_is_accepted(name):
    with pytest.raises(
        (FileNotFoundError, ValueError), match="the name of a model on the Hugging Face Hub, OWNER/NAME"
    ):
        models.load(name)


def test_a_hub_name_that_is_not_on_this_machine_says_why_and_what_is_accepted():
    """The tests run offline."""
    with pytest.raises(
        FileNotFoundError, match=r"no folder some/model, and the Hugging Face Hub does not give .*OWNER/NAME"
    ):
        models.load("some/model")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a download asks for: one model, `some/model`, of the files in `folder`."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self, body: bool = True):
        if self.path.startswith("/api/models/some/model/revision/main"):
            files = [{"rfilename": path.name} for path in self.folder.iterdir()]
            return self.reply(json.dumps({"id": "some/model", "sha": self.commit, "siblings": files}).encode(), body)
        if self.path.startswith(f"/api/models/some/model/tree/{self.commit}"):
            files = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "x"} for p in self.folder.iterdir()
            ]
            return self.reply(json.dumps(files).encode(), body)
        path = self.folder / self.path.rpartition("/")[2]
        if self.path.startswith(f"/some/model/resolve/{self.commit}/") and path.is_file():
            return self.reply(path.read_bytes(), body)
        return self.send_error(404)

    def do_HEAD(self):
        self.do_GET(body=False)

    def reply(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Length", len(content)),
            ("ETag", f'"{hash(content)}"'),
            ("X-Repo-Commit", self.commit),
        ):
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_a_hub_name_is_downloaded_and_its_code_and_pickles_are_not(tied, tmp_path):
    for name in ("modeling_qwen2.py", "pytorch_model.bin"):
        (tied / name).write_text("raise SystemExit")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), {"folder": tied}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = """if True:
        from whetstone.model_folder import check_folder, find_model, local_model
        folder = find_model("some/model")
        check_folder(folder)
        print(*sorted(path.name for path in folder.iterdir()))
        (folder / "model.safetensors").unlink()  # as if the download had been interrupted
        assert local_model("some/model") == folder == find_model("some/model") and (folder / "model.safetensors").exists()
        find_model("no/such")
    """
    hub = {
        "HF_HOME": str(tmp_path / "hub"),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
    }
    environment = os.environ | hub | {"NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    server.shutdown()
    wanted = sorted(path.name for path in tied.iterdir() if path.suffix not in (".py", ".bin"))
    assert done.stdout.split() == wanted, done.stderr
    assert "There is no folder no/such, and the Hugging Face Hub does not give a model of that name" in done.stderr


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_recipes_model_is_checked_before_anything_is_made(command, tied, tmp_path, monkeypatch, capsys):
    (tied / "adapter_model.safetensors").touch()
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'''
        run = {{ folder = "{tmp_path}" }}
        model = {{ path = "{tied}" }}
        [[stage]]
        kind = "questions"
        source = [{{ kind = "procedural", train = 4, validation = 2, test = 2, benchmark = "b" }}]
        [[stage]]
        kind = "rollouts"
        [[stage]]
        kind = "corpus"
        [[stage]]
        kind = "sft"
    ''')
    monkeypatch.setattr(sys, "argv", ["whetstone", command, str(recipe)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "holds an adapter" in capsys.readouterr().err
    assert not list((tmp_path / "mine").glob("0*"))


# --- export


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_an_exported_folder_holds_what_was_scored_and_nothing_of_the_bases_sampling(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    base = {
        "do_sample": True,
        "temperature": 0.9,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.1,
        "max_length": 7,
    }
    (folder / "generation_config.json").write_text(json.dumps(base | {"eos_token_id": [9], "suppress_tokens": [3]}))
    model, tokenizer = models.load(folder)
    models.save(model, tokenizer, tmp_path / "out", sampling=Sampling(0.7, top_k=40, top_p=0.95))
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    written.pop("transformers_version")
    end, text = (tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<|endoftext|>"))
    assert written == {
        "bos_token_id": text, "eos_token_id": [end, text, 9], "pad_token_id": text,
        "do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.95,
    }  # fmt: skip
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()) and plain.config.tie_word_embeddings == (kind == "tied")
    torch.testing.assert_close(plain(IDS).logits, logits(folder), rtol=0, atol=2e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


def test_a_model_that_is_scored_greedily_is_exported_greedy(tied, tmp_path):
    models.save(*models.load(tied), tmp_path / "out", sampling=Sampling(0.0))
    assert GenerationConfig.from_pretrained(tmp_path / "out").do_sample is False


def test_the_folder_is_named_in_every_refusal_of_a_class(tied):
    configure(tied, rms_norm_eps=float("nan"))
    assert "gives logits that are not finite" in refusal(tied)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_an_attention_that_the_configuration_names_is_neither_used_nor_fetched(key, tied):
    before = logits(tied)
    configure(tied, **{key: "someones/kernel"})
    assert torch.equal(logits(tied), before)


@pytest.mark.parametrize("value", ["x", -1, 1.5, True, [3, "x"], {}])
def test_an_eos_that_is_no_id_is_refused(value, tied):
    (tied / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    assert "generation_config.json: eos_token_id" in refusal(tied)


def test_other_weight_files_than_the_usual_are_refused(tied):
    configure(tied, transformers_weights="../../other.safetensors")
    assert "transformers_weights names other files" in refusal(tied)


def test_control_characters_of_a_file_never_reach_the_terminal_and_long_names_are_cut(tied):
    reweigh(tied, lambda weights: weights | {"\x1b[31mred\n": torch.ones(2), "k" * 9999: torch.ones(2)})
    assert "\\x1b[31mred\\n" in refusal(tied)


def test_the_last_stage_of_a_run_is_the_one_with_the_largest_number(tmp_path):
    for name in ("02-a", "99-b", "100-c", "9x-no", "101-unfinished"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        if name != "101-unfinished":
            (tmp_path / name / "manifest.json").write_text("{}")
    assert [path.name for path in stage_folders(tmp_path)] == ["02-a", "99-b", "100-c", "101-unfinished"]
    assert local_model(tmp_path) == tmp_path / "100-c" / "model"
    assert list(offered([str(tmp_path)]))[:2] == ["c", "b"]
