"""GGUF files through the door for models: converted once, as transformers reads them, or refused with the reason."""

import hashlib
import json
import sys

import pytest
import torch

from tests.test_model_template import recipe
from tests.tiny_gguf import HIDDEN, LAYERS, MLP, write_gguf
from tests.tiny_models import TEXTS
from whetstone import model as models
from whetstone.cli import main
from whetstone.model_folder import check_model, find_model, local_model, provenance
from whetstone.model_template import check_template, open_model
from whetstone.pipeline.running import run_recipe
from whetstone.pipeline.staleness import plan_recipe
from whetstone.recipe import read_recipe
from whetstone.run.folder import read_json

pytest.importorskip("gguf", reason="the extra gguf is not installed")
pytest.importorskip("accelerate", reason="the extra gguf is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf", "Q4_1")


def refusal(name) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        check_model(name)
    message = str(refused.value)
    assert str(name) in message and "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("quantisation", ["Q4_1", "Q8_0", "F16", "BF16"])
def test_the_weights_are_those_that_transformers_reads_to_the_bit(quantisation, tmp_path):
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "a.gguf", quantisation)
    ours = models.load(path)[0].state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_a_tensor_is_what_llama_cpps_own_package_dequantises(file):
    import gguf

    read = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}["blk.1.ffn_down.weight"]
    expected = torch.from_numpy(gguf.quants.dequantize(read.data, read.tensor_type).copy())
    assert read.tensor_type.name == "Q4_1"
    assert torch.equal(models.load(file)[0].model.layers[1].mlp.down_proj.weight, expected)


def test_a_file_and_the_folder_that_holds_it_are_one_model_that_is_converted_once(file, tmp_path, capsys):
    assert local_model(file) is None
    folder = find_model(file)
    assert "GGUF, Q4_1" in capsys.readouterr().err
    made = (folder / "model.safetensors").stat().st_mtime_ns
    copy = tmp_path / "elsewhere" / "other name.gguf"
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    (copy.parent / "mmproj-tiny.gguf").write_bytes(b"GGUF")
    for name in (file, file.parent, copy, copy.parent):
        assert find_model(name) == local_model(name) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made and not capsys.readouterr().err


def test_the_quantisation_is_said_and_stays_with_the_folder_and_what_is_trained_from_it(file, tmp_path):
    known = provenance(file)["converted_from"] if find_model(file) else {}
    assert known["quantisation"] == "Q4_1" and known["file"] == "tiny.Q4_1.gguf"
    assert known["weights"]["Q4_1"] > known["weights"]["F32"]
    models.save(*models.load(file), tmp_path / "trained")
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["converted_from"] == known
    assert "quantised as Q4_1" in (tmp_path / "trained" / "README.md").read_text()
    assert "quantization_config" not in json.loads((tmp_path / "trained" / "config.json").read_text())


def test_plain_weights_in_the_folder_come_first(file, tmp_path):
    models.save(*models.load(file), tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(file.read_bytes())
    assert find_model(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a.bin"}, "Rename it to a.bin.gguf"),
        ({"strings": {"general.type": "mmproj"}}, "the vision part of a model"),
        ({"architecture": "clip"}, "the vision part of a model"),
        ({"strings": {"general.type": "adapter"}}, "it holds adapter, not a model"),
        ({"architecture": "rwkv7"}, "no GGUF files of the architecture rwkv7"),
        ({"numbers": {"split.count": 3}}, "one of 3 parts of a model. Join them"),
        ({"vocabulary": False}, "it holds no tokenizer"),
        ({"strings": {"llama.rope.scaling.type": "yarn"}}, "its positions are scaled (yarn)"),
        ({"numbers": {"llama.logit_scale": 8}}, "logit_scale changes what it computes"),
    ],
)
def test_a_file_that_is_no_whole_language_model_is_refused_from_its_header(changes, said, tmp_path):
    assert said in refusal(write_gguf(tmp_path / changes.pop("name", "a.gguf"), **changes))


def test_a_vocabulary_alone_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.tiny_gguf.shapes", lambda _: {})
    assert "a vocabulary and no weights" in refusal(write_gguf(tmp_path / "a.gguf"))


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.99])
def test_a_file_that_was_cut_off_is_refused(keep, file, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    assert "cut off" in refusal(cut) and "Copy or download it again" in refusal(cut)


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF\3\0\0\0",
        b"GGUF" + b"\xff" * 40,
        b"GGUF\3\0\0\0" + b"\0" * 8 + b"\1" + b"\0" * 7 + b"\1" + b"\0" * 7 + b"a\x09\0\0\0\4\0\0\0" + b"\xff" * 8,
        b"GGUF\3\0\0\0" + b"\0" * 8 + b"\1" + b"\0" * 7 + b"\1" + b"\0" * 7 + b"a\x09\0\0\0\x08\0\0\0" + b"\xff" * 8,
        b"version https://git-lfs.github.com/spec/v1",
    ],
)
def test_a_damaged_file_is_refused_at_once(content, tmp_path):
    (tmp_path / "a.gguf").write_bytes(content)
    assert "cut off" in refusal(tmp_path / "a.gguf")


def test_several_files_in_a_folder_are_named(file, tmp_path):
    for name in ("a.Q4_0.gguf", "b.Q8_0.gguf"):
        (tmp_path / name).write_bytes(file.read_bytes())
    assert "2 GGUF files (a.Q4_0.gguf, b.Q8_0.gguf)" in refusal(tmp_path) and "/a.Q4_0.gguf." in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"drop": ("blk.1.ffn_up.weight",)},
            "1 weights of a LlamaForCausalLM are missing: model.layers.1.mlp.up_proj.weight",
        ),
        ({"more": {"rope_freqs.weight": (8,)}}, "does not read all of them (rope_freqs.weight)"),
        ({"more": {"blk.0.attn_sinks.weight": (4,)}}, "does not read all of them"),
    ],
)
def test_weights_that_transformers_would_invent_or_leave_out_are_refused(changes, said, tmp_path, cache):
    with pytest.raises(ValueError, match="gguf") as refused:
        find_model(write_gguf(tmp_path / "a.gguf", **changes))
    assert said in str(refused.value)
    assert not list(cache.glob("models/gguf-*/config.json")), "nothing is left that looks converted"


def test_without_the_packages_the_error_says_what_to_install(file, monkeypatch):
    monkeypatch.setattr("whetstone.model_gguf.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs gguf and accelerate.*pip install \"whetstone-reasoner\[gguf\]\""):
        check_model(file)


def test_a_cache_that_cannot_be_written_says_how_to_name_another(file, tmp_path, monkeypatch):
    (tmp_path / "blocked").touch()
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "blocked"))
    with pytest.raises(OSError, match="environment variable WHETSTONE_CACHE"):
        find_model(file)


def command(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["whetstone", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_command_takes_a_gguf_file_and_says_its_quantisation_each_time(file, monkeypatch, capsys):
    for _ in range(2):
        assert command(monkeypatch, "generate", "-m", file, "1 + 1?", "--max-tokens", 4, "--temperature", 0) == 0
        said = capsys.readouterr()
        assert said.out.strip() and "from GGUF, Q4_1" in said.err


def test_a_file_without_a_template_needs_one_which_plan_says_before_it_is_converted(tmp_path):
    path = write_gguf(tmp_path / "base.gguf", template=False)
    with pytest.raises(ValueError, match=r"base\.gguf has no chat template"):
        check_template(path, None)
    with pytest.raises(ValueError, match=r"base\.gguf has no chat template"):
        open_model(path)
    assert open_model(path, "plain") != find_model(path)


def test_a_plan_converts_nothing_and_knows_size_and_quantisation(file, cache, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'''
        run = {{ folder = "{tmp_path}" }}
        model = {{ path = "{file}" }}
        [[stage]]
        kind = "questions"
        source = [{{ kind = "procedural", train = 4, validation = 2, test = 2, benchmark = "b" }}]
        [[stage]]
        kind = "rl"
    ''')
    assert command(monkeypatch, "plan", recipe) == 0
    out = capsys.readouterr().out
    assert "GGUF, Q4_1, not converted yet" in out and f"{parameters():,} parameters" in out
    assert not cache.exists()


def parameters() -> int:
    """Of the tiny Llama, by hand: embedding, and for each layer q and o, k and v, the feed-forward part, two norms; a norm."""
    tokens = len(models.train_tokenizer(TEXTS, 300))
    layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN // 2 + 3 * HIDDEN * MLP + 2 * HIDDEN
    return tokens * HIDDEN + LAYERS * layer + HIDDEN


def test_a_recipe_starts_from_a_gguf_file_says_so_in_its_manifest_and_is_done_afterwards(file, tmp_path):
    path = recipe(tmp_path, file, "")
    run_recipe(read_recipe(path))
    manifest = read_json(tmp_path / "r" / "03-sft" / "manifest.json")
    assert manifest["started_from"]["converted_from"]["quantisation"] == "Q4_1"
    assert manifest["inputs"]["[model] path"]["hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {state.status for _, state in plan_recipe(read_recipe(path))} == {"done"}
    assert "quantised as Q4_1" in (tmp_path / "r" / "03-sft" / "model" / "README.md").read_text()
