"""A real HTTP server over the engine, with the endpoints of vLLM that `decode/server_sampler.py` uses, and faults."""

import hashlib
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch

from tests.servers import listening, send
from whetstone import model as models
from whetstone.decode.engine import Engine
from whetstone.decode.sampling import draws
from whetstone.decode.sequence import Sequence
from whetstone.records import Message, Prompt, Sampling


class Vllm:
    """`answer` may change a completion's choice, or raise ConnectionError to drop the connection without a word."""

    def __init__(
        self,
        folder: Path,
        answer=lambda choice, count: choice,
        reloads: bool = True,
        tied: bool = False,
        lacks: str = "",
        answer_404: dict[str, str] | None = None,
    ):
        self.start_folder, self.answer, self.reloads, self.tied, self.lacks = folder, answer, reloads, tied, lacks
        self.answer_404 = answer_404 or {}
        self.lock = threading.Lock()
        self.asked: list[list[int]] = []
        self.calls: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        """As after a restart: with the weights and the version that it was started with."""
        self.adapters: dict[str, Path] = {}
        self.load(self.start_folder)
        self.version = "default"

    def load(self, folder: Path, adapter: Path | None = None) -> None:
        self.adapter = adapter
        model, tokenizer = models.load(folder, "cpu")
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        self.engine, self.weights = Engine(model, tokenizer), model

    def reply(self, path: str, body: dict) -> dict[str, Any]:
        self.calls[path] += 1
        if path == "/v1/models":
            return {"data": [{"id": name} for name in ("student", *self.adapters)]}
        if path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = Path(body["lora_path"])
            self.load(self.start_folder, Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        if path == "/weight_info":
            return {"weight_version": self.version}
        if path == "/update_weight_version":
            self.version = body["new_version"]
        if path == "/collective_rpc" and self.reloads:
            assert body["method"] == "reload_weights"
            self.load(Path(body["kwargs"]["weights_path"]))
        if path == "/weight_checker":
            return {"checksums": dict(self.digests())}
        if path == "/v1/completions":
            if body["model"] not in ("student", *self.adapters):
                raise LookupError
            return self.complete(body)
        return {}

    def digests(self):
        """As vLLM names them on a CPU: matrices are packed, so that theirs are those of nothing."""
        for name, weight in self.weights.named_parameters(remove_duplicate=False):
            if not (self.tied and name == "lm_head.weight"):
                content = weight.detach().numpy().tobytes() if weight.ndim == 1 else b""
                yield f"dp0:pp0:pcp0:tp0:{name}", hashlib.sha256(content).hexdigest()

    def score(self, ids: list[int]) -> list[dict | None]:
        with torch.no_grad():
            logprobs = self.weights(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return [None, *({str(i): {"logprob": float(row[i])}} for i, row in zip(ids[1:], logprobs, strict=True))]

    def complete(self, body: dict) -> dict[str, Any]:
        if "prompt_logprobs" in body:
            return {"choices": [{"prompt_logprobs": self.score(body["prompt"])}]}
        self.asked.append(body["prompt"])
        sampling = Sampling(body["temperature"], body["max_tokens"])
        prompt = Prompt("x", 0, (Message("user", "x"),))
        sequence = Sequence(prompt, body["prompt"], sampling, draws(body["seed"], "x", 0), None)
        with self.lock, torch.no_grad():
            decoding = self.engine.decode_sequences([sequence])
            while decoding.busy:
                for done in decoding.step():
                    completion = done
        choice = {
            "token_ids": completion.ids,
            "prompt_token_ids": body["prompt"],
            "logprobs": {"token_logprobs": completion.logprobs},
            "finish_reason": "stop" if completion.stop == "end" else "length",
        }
        return {"choices": [self.answer(choice, len(self.asked))]}


@contextmanager
def vllm(folder: Path, **faults):
    """(its address, the server)."""
    served = Vllm(folder, **faults)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.do({})

        def do_POST(self):
            self.do(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

        def do(self, body):
            try:
                lacks = self.path == served.lacks
                send(self, served.answer_404, 404) if lacks else send(self, served.reply(self.path, body))
            except LookupError:
                send(self, {"error": {"message": f"The model {body['model']} does not exist."}}, 404)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_):
            pass

    with listening(Handler) as address:
        yield address, served


def dies(*counts: int):
    """Drops the connection from the given completion on, for ever, or up to a second one."""
    first, last = (*counts, 10**9)[:2]

    def answer(choice, count):
        if first <= count <= last:
            raise ConnectionError
        return choice

    return answer


def sleeps(seconds: float):
    def answer(choice, count):
        if count > 2:
            time.sleep(seconds)
        return choice

    return answer
