"""Models on the Hub: a local server speaks as much of its API as a download asks for, and one process asks it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tiny_models import random_model, tiny
from whetstone import model as models
from whetstone.model_hub import hub_name

COMMITS = {"main": "b" * 40, "v1": "a" * 40}
PREFIX = "/api/models/"


class Hub(BaseHTTPRequestHandler):
    """Repository -> revision -> folder, in `folder`. A repository of the name `gated` asks for its terms."""

    folder: Path

    def do_GET(self, body: bool = True):
        name = self.path.removeprefix(PREFIX).lstrip("/").split("?")[0]
        repository, _, rest = "/".join(name.split("/")[:2]), "", "/".join(name.split("/")[2:])
        kind, _, rest = rest.partition("/")
        if repository.endswith("gated"):
            return self.refuse(403, "GatedRepo")
        if not (self.folder / repository).is_dir():
            return self.refuse(404, "RepoNotFound")
        revision, _, file = rest.partition("/")
        by_commit = {commit: revision for revision, commit in COMMITS.items()}
        folder = self.folder / repository / by_commit.get(revision, revision)
        if not folder.is_dir():
            return self.refuse(404, "RevisionNotFound")
        commit = COMMITS[folder.name]
        if kind == "revision":
            files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            return self.reply({"id": repository, "sha": commit, "siblings": files}, commit, body)
        if kind == "tree":
            files = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "x"} for p in folder.iterdir()]
            return self.reply(files, commit, body)
        return self.reply((folder / file).read_bytes(), commit, body)

    def do_HEAD(self):
        self.do_GET(body=False)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def reply(self, content, commit: str, body: bool) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content)}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


SCRIPT = """if True:
    import json, sys
    from huggingface_hub import constants
    from whetstone.model_folder import find_model, local_model, provenance

    def of(name):
        try:
            folder = find_model(name)
            width = json.loads((folder / "config.json").read_text())["hidden_size"]
            return {"width": width, "files": sorted(path.name for path in folder.iterdir()), **provenance(name)}
        except (ValueError, OSError) as error:
            return {"error": str(error)}

    found = {name: of(name) for name in json.loads(sys.argv[1])}
    constants.HF_HUB_OFFLINE = True
    found |= {f"offline {name}": of(name) for name in ("some/model", "some/model@v1", "never/seen")}
    constants.HF_HUB_OFFLINE, constants.ENDPOINT = False, "http://127.0.0.1:9"
    found["no network"] = of("never/seen")
    print(json.dumps(found))
"""
ASKED = ["some/model", "some/model@v1", "some/model@" + COMMITS["v1"], "some/model@v9", "some/gated", "no/such", "many/files",
         "many/files/b.gguf", "one/file"]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> what the door says of it."""
    folder = tmp_path_factory.mktemp("hub")
    tokenizer = tiny()[1]
    for revision, hidden in (("main", 64), ("v1", 32)):
        models.save(
            random_model("llama", len(tokenizer), hidden_size=hidden), tokenizer, folder / "some/model" / revision
        )
    (folder / "some/model/main/modeling_llama.py").write_text("raise SystemExit")
    for name in (
        "many/files/main/a.gguf",
        "many/files/main/b.gguf",
        "one/file/main/c.gguf",
        "one/file/main/mmproj-c.gguf",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"GGUF")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = {
        "HF_HOME": str(folder / "cache"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, json.dumps(ASKED)]
    done = subprocess.run(command, env=os.environ | hub, capture_output=True, text=True, check=False)
    server.shutdown()
    shutil.rmtree(folder / "cache")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_revision_is_another_model_and_its_commit_is_known(found):
    main, tag, commit = (found[name] for name in ASKED[:3])
    assert (main["width"], tag["width"], commit["width"]) == (64, 32, 32)
    assert (main["revision"], main["commit"]) == ("main", COMMITS["main"])
    assert (tag["revision"], tag["commit"]) == ("v1", COMMITS["v1"])
    assert commit["revision"] == commit["commit"] == COMMITS["v1"]
    assert "modeling_llama.py" not in main["files"]


def test_what_was_downloaded_is_there_without_a_network(found):
    assert found["offline some/model"]["width"] == 64 and found["offline some/model@v1"]["width"] == 32


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("offline never/seen", "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or download"),
        ("no network", "If there is no network here, download it where there is one"),
        ("some/model@v9", "It has no branch, tag or commit 'v9'"),
        ("some/gated", "Accept the terms on the model's page, and log in"),
        ("no/such", "Check the name; if the model is private, log in"),
    ],
)
def test_a_model_that_cannot_be_had_says_why_and_what_to_do(name, remedy, found):
    assert remedy in found[name]["error"] and "\n" not in found[name]["error"]


def test_of_several_gguf_files_one_must_be_named_and_only_that_is_fetched(found):
    assert "many/files holds 2 GGUF files (a.gguf, b.gguf)" in found["many/files"]["error"]
    assert "Name one of them: many/files/a.gguf" in found["many/files"]["error"]
    for name, file in (("many/files/b.gguf", "b.gguf"), ("one/file", "c.gguf")):
        assert f"/{file} " in found[name]["error"], "it was fetched, and is no whole GGUF file"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/b", ("a/b", "", "main")),
        ("a-1/b.c@refs/pr/2", ("a-1/b.c", "", "refs/pr/2")),
        ("a/b/c.Q4_K_M.gguf@v1", ("a/b", "c.Q4_K_M.gguf", "v1")),
        ("a/b@", None), ("a/b/c", None), ("a", None), ("../b", None), ("a/..", None), ("a/b@../x", None),
    ],
)  # fmt: skip
def test_names_on_the_hub(text, parts):
    assert hub_name(text) == parts
