"""The books of the real server's benchmark add up with a server that can be killed, and tell when they do not."""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import real_server
from benchmarks.real_server import KILLS, Ledger, count, read, run, why_not
from tests.servers import said, send

TEXTS = ["How many are there?", "\\boxed{4}", "\\boxed{?}", "Say how many.", "", "\\boxed{4+}"]


class Mortal:
    """A server as `ServeProcess` is one: after `kill` nobody listens, and connections that are there break."""

    model, starts, kills, answered = "canned", 0, 0, 0

    def __init__(self):
        self.texts = itertools.cycle(TEXTS)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, port: int = 0) -> None:
        outer, life = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if not life.is_set():
                    self.close_connection = True
                    return self.connection.close()
                outer.answered += 1
                return send(self, said(next(outer.texts)))

            def log_message(self, *_):
                pass

        life.set()
        self.life, self.running = life, ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.running.server_port
        self.starts += 1
        threading.Thread(target=self.running.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        self.kills += 1
        self.stop()

    def stop(self) -> None:
        self.life.clear()
        self.running.shutdown()
        self.running.server_close()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder, ledger = tmp_path_factory.mktemp("real_server"), Ledger(Mortal())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(real_server, "JUDGES_RETRIES", "retries = 9, longest_pause = 0.1")
        return folder, ledger, run(folder, ledger)


def test_three_kills_lose_nothing_and_nothing_is_asked_twice(done):
    _, _, found = done
    assert all(found["checks"].values()), found["checks"]
    assert found["server"]["kills"] == len(KILLS) and len(found["ended"]) >= 2
    assert sum(row["failed"] for row in found["roles"].values()) >= 2, "each run that ended had failed at something"
    assert any(row["empty"] for row in found["roles"].values())


def test_an_answer_that_came_twice_and_one_that_is_lost_are_told(done):
    folder, ledger, _ = done
    recipe = read(folder, ledger.server)
    (key, *_) = ledger.came["answer"]
    ledger.came["answer"][key] += 1
    assert not count(recipe, ledger)["checks"]["no answer came twice"]
    ledger.came["answer"][key] -= 1
    ledger.came["answer"]["nobody", 0] = 1
    assert not count(recipe, ledger)["checks"]["what is kept is what came, each once"]


def test_an_environment_that_cannot_serve_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        real_server.main(["--python", str(tmp_path / "python")])
    assert "python is missing: `make bench-env` installs transformers[serving]" in capsys.readouterr().err
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'fastapi'\" >&2; exit 1\n")
    script.chmod(0o755)
    assert why_not(script) == "cannot serve (ModuleNotFoundError: No module named 'fastapi')"


def test_the_model_says_what_it_was_given(tmp_path):
    """Every step that it can take stands in a canned sentence, and it says something readable by nobody, too."""
    import torch

    from whetstone import model as models
    from whetstone.chat import Chat

    real_server.build_model(tmp_path)
    model, tokenizer = models.load(tmp_path)
    ids = torch.tensor([Chat(tokenizer).question_ids("How many?")])
    with torch.no_grad():
        chances = model(ids).logits[0, -1].softmax(-1)
    firsts = {tokenizer.decode([place]) for place in (chances > 1e-3).nonzero().flatten().tolist()}
    assert {text.split()[0] for _, text in real_server.CANNED if text} | {"<|end|>"} == firsts
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
