"""A run's model as a folder to publish: complete or absent, with its scores, data, licences, and nothing of this machine."""

import json
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.report import fake_run
from tests.tiny_models import tiny
from whetstone import model as models
from whetstone.export.export import export, published
from whetstone.export.gguf import NEAR_CUTS, SCRIPT, byte_level, convert, converter_in, near_cuts, program
from whetstone.model import train_tokenizer
from whetstone.model_folder import find_model
from whetstone.pipeline.outputs import content_of
from whetstone.run.folder import read_json, write_json


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run whose RL stage has a real model, which began from a base with a licence."""
    root = tmp_path_factory.mktemp("runs")
    folder = fake_run.make(root / "mine")
    model, tokenizer = tiny()
    for stage in ("05-sft", "07-rl"):
        shutil.rmtree(folder / stage / "model")
        models.save(model, tokenizer, folder / stage / "model")
        manifest = read_json(folder / stage / "manifest.json")
        write_json(
            folder / stage / "manifest.json", manifest | {"outputs": {"model": content_of(folder / stage / "model")}}
        )
    (folder / "03-corpus" / "card.md").write_text("# Data card: corpus\n")
    base = root / "some-base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "phi3"}')
    (base / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    (base / "LICENSE").write_text("MIT License")
    run = read_json(folder / "run.json")
    run["recipe"] |= {
        "model": {"path": str(base)},
        "scores": {"max_tokens": 288},
        "token": "hf_" + "0123456789" * 4,
    }
    write_json(folder / "run.json", run)
    return folder


@pytest.fixture(scope="module")
def exported(run_folder) -> Path:
    return export(run_folder, run_folder.parent / "out" / "my-reasoner", licence="apache-2.0")


def test_the_folder_is_the_stages_model_in_plain_transformers(exported, run_folder):
    theirs = AutoModelForCausalLM.from_pretrained(run_folder / "07-rl" / "model").state_dict()
    ours = AutoModelForCausalLM.from_pretrained(exported)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.state_dict().items())
    assert AutoTokenizer.from_pretrained(exported).chat_template
    held = ours.generation_config
    assert (held.temperature, held.max_new_tokens, held.top_k, held.top_p) == (0.6, 288, 0, 1.0), "as it was scored"


def test_the_card_has_scores_with_intervals_data_licences_and_what_the_hub_reads(exported, run_folder):
    card = ModelCard.load(exported / "README.md")
    assert card.data["license"] == "apache-2.0" and card.data["library_name"] == "transformers"
    score = next(s for s in read_json(run_folder / "scores.json")["scores"] if s["stage"] == "rl" and s["main"])
    assert card.data.eval_results[0].metric_value == round(100 * score["mean"], 2)
    assert f"| {100 * score['low']:.1f} to {100 * score['high']:.1f} |" in card.text
    for text in (
        "at most 288 tokens",
        "60 × 8",
        "41 equal",
        "- data: Apache-2.0, 11,893 rows",
        "- base `some-base`: mit",
    ):
        assert text in card.text
    assert (exported / "base_LICENSE").read_text() == "MIT License" and (exported / "data_card.md").is_file()
    stages = [row["stage"] for row in read_json(exported / "scores.json")["scores"]]
    assert list(dict.fromkeys(stages)) == ["base", "midtrain", "sft", "dpo", "rl"], "the way to this model"


def test_nothing_of_this_machine_or_its_secrets_is_in_it(exported, run_folder):
    texts = [path.read_text() for path in exported.iterdir() if path.suffix in (".md", ".json")]
    assert not any(str(run_folder.parent) in text or "hf_0123" in text for text in texts)
    assert published({"a": ["/home/me/data.jsonl", "data.jsonl", 3]}) == {"a": ["data.jsonl", "data.jsonl", 3]}


def test_a_stage_may_be_named_and_one_without_a_model_is_refused(run_folder, tmp_path):
    folder = export(run_folder, tmp_path / "sft", stage="sft")
    assert {row["stage"] for row in read_json(folder / "scores.json")["scores"]} == {"base", "midtrain", "sft"}
    assert 'name = "sft"' in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=r"no finished stage 'slt' .*[Dd]id you mean.*sft"):
        export(run_folder, tmp_path / "x", stage="slt")


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(run_folder, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="exists, and nothing in it is written over"):
        export(run_folder, taken)
    monkeypatch.setenv("WHETSTONE_GGUF_CONVERTER", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"converter\. Install it with\n    pip install --no-deps --target"):
        export(run_folder, tmp_path / "new", gguf=["F16"])
    changed = Path(shutil.copytree(run_folder, tmp_path / "changed"))
    (changed / "07-rl" / "model" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"07-rl.*Put the files back"):
        export(changed, tmp_path / "new")
    (tmp_path / SCRIPT).write_text("raise NotImplementedError('BPE pre-tokenizer was not recognized')")
    with pytest.raises(ValueError, match="cannot write new as GGUF, Q8_0: NotImplementedError: BPE pre-tokenizer"):
        export(run_folder, tmp_path / "new", gguf=["q8_0"], converter=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed", SCRIPT, "taken"]
    assert (taken / "mine.txt").read_text() == "kept"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as an upload of small files asks for."""

    asked: list[tuple[str, dict | list]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        lines = [json.loads(line) for line in body.splitlines()]
        self.asked.append((self.path, lines[0] if len(lines) == 1 else lines))
        if "refused" in body or "/refused/" in self.path:
            return self.reply(403, {"error": "no right to write"})
        if self.path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            return self.reply(200, {"files": files})
        url = f"http://{self.headers['Host']}/me/model"
        return self.reply(200, {"url": url, "repoId": "me/model", "commitUrl": f"{url}/commit/1", "commitOid": "1"})

    def do_GET(self):
        return self.reply(200, {"sha": "0" * 40, "id": "me/model", "siblings": []})

    def reply(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


PUSH = """if True:
    import sys
    from pathlib import Path
    from whetstone.export.hub import push

    for name in ("me/model", "refused/model"):
        try:
            print(push(Path(sys.argv[1]), name))
        except OSError as error:
            print("error:", error)
"""


def test_an_upload_is_one_commit_of_all_files_and_a_refusal_says_what_to_do(exported):
    """In a process of its own: huggingface_hub reads the address of the Hub once."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Listening", (Hub,), {"asked": (asked := [])}))
    Thread(target=server.serve_forever, daemon=True).start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0"}
    more = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-c", PUSH, exported]
    done = subprocess.run(command, env=more | address, capture_output=True, text=True, check=False)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    pushed, refused = done.stdout.strip().split("\n", 1)
    assert pushed.endswith("me/model")
    assert refused.startswith("error: --push refused/model: the Hub did not take it: ") and "hf auth login" in refused
    assert "is complete" in refused
    assert asked[0][0] == "/api/repos/create" and "private" in json.dumps(asked[0][1])
    (commit,) = [body for path, body in asked if path.endswith("/commit/main")]
    sent = {line["value"]["path"] for line in commit if line["key"] == "file"}
    assert sent == {path.name for path in exported.iterdir()}


def test_a_tokenizer_that_was_trained_in_its_run_is_cut_in_llama_cpp_as_it_was_trained_or_refused(tmp_path):
    train_tokenizer(["So 12 + 30 = 42, isn't it?", "a_b: \\frac{1}{2}"] * 3, 300).save_pretrained(tmp_path)
    assert near_cuts(tmp_path) == NEAR_CUTS
    train_tokenizer(["if x:\n    y  = 2"] * 3, 300).save_pretrained(tmp_path)  # runs of spaces become one token
    with pytest.raises(ValueError, match=r"llama\.cpp would read ' +=' as other tokens.*without --gguf"):
        near_cuts(tmp_path)


def test_the_converter_reads_a_phi_3_class_model_with_a_byte_level_tokenizer(exported, tmp_path):
    """Stand-ins for the converter's parts show what the real one is told."""
    (tmp_path / "conversion").mkdir()
    base = "class TextModel:\n def _set_vocab_gpt2(self): return 'gpt2, cut as ' + self.get_vocab_base_pre(None)\n"
    (tmp_path / "conversion" / "base.py").write_text(
        f"{base} def get_vocab_base_pre(self, tokenizer): return 'published'\n"
    )
    phi = "from .base import TextModel\nclass Phi3MiniModel(TextModel):\n def set_vocab(self): return 'sentencepiece'\n"
    (tmp_path / "conversion" / "phi.py").write_text(phi)
    script = tmp_path / SCRIPT
    script.write_text("import sys; from conversion.phi import *; print(Phi3MiniModel().set_vocab(), sys.argv[1])")

    def told(folder: Path) -> str:
        command = [sys.executable, *program(script, folder), "FOLDER"]
        return subprocess.check_output(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True).strip()

    assert told(exported) == f"gpt2, cut as {NEAR_CUTS} FOLDER"
    other = Path(shutil.copytree(exported, tmp_path / "published"))
    file = other / "tokenizer.json"
    write_json(file, read_json(file) | {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}})
    assert told(other) == "gpt2, cut as published FOLDER"
    write_json(file, read_json(file) | {"pre_tokenizer": None})
    assert byte_level(other) == [] and told(other) == "sentencepiece FOLDER"


@pytest.mark.real
def test_a_real_model_as_gguf_has_its_weights_rounded_and_its_tokens(tmp_path):
    """By llama.cpp's own converter, read back by our door, which dequantises as transformers does."""
    folder = Path(os.environ.get("WHETSTONE_REAL_MODEL") or "models/smollm2")
    try:
        script = converter_in()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    if not (folder / "config.json").is_file():
        pytest.skip(f"the real model {folder} is not there")
    file = tmp_path / "smollm2.gguf"
    convert(script, folder, file, "F16", "smollm2")
    model, tokenizer = models.load(folder)
    back, their_tokenizer = models.load(find_model(file))
    weights = back.state_dict()
    for name, weight in model.state_dict().items():
        rounded = weight if weight.dim() == 1 else weight.half().float()
        assert torch.equal(weights[name], rounded), name
    text = "Solve \\frac{1}{2}x = 7. Explain, 12345 times!"
    assert tokenizer(text)["input_ids"] == their_tokenizer(text)["input_ids"]
