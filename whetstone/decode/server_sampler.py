"""A Generator over vLLM servers that hold the weights of a model in training: completions with ids and log-probabilities.

`publish` writes the weights as a folder that all servers can read, and has each server load it in place. A server samples only
after three proofs: its digests of the weights that it keeps as they are (the vectors: norms) are those of the folder; it keeps
a head of its own, if the folder has one; and of a completion that it samples, the learner computes the same log-probabilities.
vLLM keeps the old head on a CPU if head and embedding are tied, so the folder always holds both (`untie`).

The samples of a problem go to one server, which prefills their prompt once. A server that fails, answers what cannot be, or was
started again with other weights is lost: what it had not answered goes to the others. It is looked for again when no other is
left, for `wait` seconds, and with the next weights.

The servers are vLLM's (tested with 0.32), started with VLLM_SERVER_DEV_MODE=1 and --logprobs-mode processed_logprobs. These
endpoints change weights: let nobody else reach them.
"""

import hashlib
import json
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from whetstone.chat import Chat
from whetstone.decode.server_answer import Unusable, read_json
from whetstone.decode.server_settings import request_seed
from whetstone.prompting import BARE
from whetstone.records import Completion, Problem, Prompt, Sampling
from whetstone.run.progress import say
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.secrets import from_environment, redacted

HEAD = "lm_head.weight"
NAME = "student"  # what the servers call the model
PAUSE = 2.0  # seconds between two looks for a lost server
TRIES = 3  # of a request, before its server is lost
PROBE = BARE.prompt(Problem("probe", "What is 12 + 30 - 7?", "35"), 0)
PROBE_SAMPLING = Sampling(temperature=0.7, max_tokens=16)
NOTHING = hashlib.sha256(b"").hexdigest()  # the digest of a weight that a server has packed in another form
START = (
    "Start it with VLLM_SERVER_DEV_MODE=1 in its environment, --served-model-name {name}, --logprobs-mode processed_logprobs, "
    "the learner's --dtype, and from a folder that an earlier run published or from the model's own, if its head is not tied."
)


class SamplerLost(ConnectionError):
    """No server is left that could sample."""


class _Failed(Exception):
    """A server did not do what it was asked to. The message says what it answered."""


@dataclass
class _Server:
    address: str  # without /v1
    model: str = NAME
    ready: bool = False  # it holds the published weights
    why: str = "it holds no weights of this run yet"
    lost: int = 0  # how often
    waiting: list[Prompt] = field(default_factory=list)  # of a problem that it has begun
    asked: dict[int, Prompt] = field(default_factory=dict)  # in flight, by thread

    @property
    def name(self) -> str:
        """For messages: its address without secrets."""
        return redacted(self.address)


class VllmSampler:
    """Raises ValueError for an address that is none."""

    def __init__(
        self, settings: SamplerSettings, addresses: Iterable[str], chat: Chat, folder: Path,
        again: Callable[[str], None] = lambda address: None,
    ):  # fmt: skip
        """`folder` is where weights are published; `again` starts a server that was launched here, if it has ended."""
        import httpx2

        self.settings, self.chat, self.folder, self._again = settings, chat, folder, again
        self.servers = [_Server(from_environment(address).rstrip("/").removesuffix("/v1")) for address in addresses]
        limits = httpx2.Limits(max_connections=settings.in_flight * max(1, len(self.servers)) + 8)
        self._client = httpx2.Client(timeout=httpx2.Timeout(settings.timeout, connect=10.0), limits=limits)
        self.version = ""
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        self._client.close()

    # --- weights

    def publish(self, version: str) -> list[Completion]:
        """Every server loads what lies in `folder`. A probe of each that did, in the servers' order, for the learner to judge.

        Raises SamplerLost if none did within `wait` seconds.
        """
        self.version, self._digests = version, digests(self.folder)
        for server in self.servers:
            server.ready = False
        self._bring_back()
        return [self._sample(server, PROBE, PROBE_SAMPLING) for server in self._ready()]

    def adopt(self, version: str) -> None:
        """In a process that another one publishes for: take the servers that hold these weights."""
        self.version, self._digests = version, digests(self.folder)
        for server in self.servers:
            server.ready = self._holds_weights(server)

    def _bring_back(self) -> None:
        """Give the published weights to all servers that lack them; wait until one has them."""
        began = time.monotonic()
        while True:
            lacking = [server for server in self.servers if not server.ready]
            for server in lacking:
                self._again(
                    server.address
                )  # in this thread: a server that was launched ends with its launcher's thread
            with ThreadPoolExecutor(max(1, len(lacking))) as pool:
                list(pool.map(self._load, lacking))
            if self._ready():
                break
            if time.monotonic() - began > self.settings.wait:
                raise self._lost()
            time.sleep(PAUSE)
        for server in self.servers:
            if not server.ready:
                say(f"warning: the sampler {server.name} is left out until the next weights: {server.why}")

    def _lost(self) -> SamplerLost:
        reasons = "; ".join(f"{server.name}: {server.why}" for server in self.servers)
        return SamplerLost(
            f"no server can sample: {reasons}. They were waited for {self.settings.wait:g} s ([sampler] wait). Start them "
            "again and run again: finished steps are kept."
        )

    def _load(self, server: _Server) -> None:
        """Has the server load the published weights, and proves it."""
        try:
            server.model = self._model(server)
            path = str(self.folder.resolve())
            self._post(server, "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
            self._post(server, "/reset_prefix_cache", {})
            self._compare(server)
            self._post(server, "/update_weight_version", {"new_version": self.version})
        except _Failed as error:
            server.why = str(error)
        else:
            server.ready, server.why = True, ""

    def _model(self, server: _Server) -> str:
        models = self._get(server, "/v1/models").get("data")
        if not models:
            raise _Failed("it serves no model")
        return str(models[0].get("id"))

    def _compare(self, server: _Server) -> None:
        """Raises ValueError if the server's weights are not the published ones."""
        answer = self._post(server, "/weight_checker", {"action": "checksum"}).get("checksums", {})
        theirs = {name.rpartition(":")[2]: digest for name, digest in answer.items() if digest != NOTHING}
        names = {name.rpartition(":")[2] for name in answer}
        common = [name for name in self._digests if name in theirs]
        wrong = [name for name in common if theirs[name] != self._digests[name]]
        if HEAD not in names:
            why = "its head and embedding are one tensor, and such a head is not replaced when weights are loaded"
        elif wrong:
            why = (
                f"after it loaded the weights, {wrong[0]} is not what was published, as is one of {len(wrong)} weights"
            )
        elif not common:
            why = "none of the weights that it names could be compared"
        else:
            return
        raise ValueError(
            f"the sampler {server.name} does not hold the student's weights: {why}. {START.format(name=NAME)}"
        )

    # --- completions

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions as they finish. Raises SamplerLost, and ValueError for a prompt that the servers refuse."""
        if not sampling.plain or sampling.stop or sampling.stop_ids:
            raise ValueError(
                f"{sampling} asks for more than a temperature, which is all that these servers are asked for."
            )
        work = deque(list(group) for _, group in groupby(prompts, key=lambda p: p.problem_id))
        left = sum(map(len, work))
        finished: queue.Queue[Completion | Exception] = queue.Queue()
        stopped = threading.Event()
        self._look_again()
        answered = time.monotonic()
        while left:
            if not self._ready():
                self._bring_back()
            threads = [
                threading.Thread(target=self._work, args=(server, work, sampling, finished, stopped), daemon=True)
                for server in self._ready()
                for _ in range(self.settings.in_flight)
            ]
            for thread in threads:
                thread.start()
            try:
                while any(thread.is_alive() for thread in threads) or not finished.empty():
                    with suppress(queue.Empty):
                        item = finished.get(timeout=0.05)
                        if isinstance(item, Exception):
                            raise item
                        left, answered = left - 1, time.monotonic()
                        yield item
            finally:
                stopped.set()  # a caller that ends early waits for no answer
            stopped.clear()
            if left and not self._ready() and time.monotonic() - answered > self.settings.wait:
                raise self._lost()

    def _look_again(self) -> None:
        """A server that was started again since the weights were published has lost them."""
        for server in self._ready():
            try:
                if self._get(server, "/weight_info").get("weight_version") != self.version:
                    raise _Failed("it was started again")
            except _Failed as error:
                self._lose(server, str(error), deque())

    def _work(
        self, server: _Server, work: deque[list[Prompt]], sampling: Sampling, finished: queue.Queue, stopped: threading.Event
    ) -> None:  # fmt: skip
        me = threading.get_ident()
        while server.ready and not stopped.is_set():
            with self._lock:
                if not server.waiting and work:
                    server.waiting = list(reversed(work.popleft()))
                if not server.waiting or not server.ready:
                    return
                prompt = server.asked[me] = server.waiting.pop()
            try:
                completion = self._patiently(server, prompt, sampling)
            except _Failed as error:
                self._lose(server, str(error), work)
                return
            except Exception as error:
                finished.put(error)
                return
            with self._lock:
                if server.asked.pop(me, None) is None:  # it was lost meanwhile, and this prompt is another's now
                    return
            finished.put(completion)

    def _patiently(self, server: _Server, prompt: Prompt, sampling: Sampling) -> Completion:
        for attempt in range(TRIES):
            try:
                return self._sample(server, prompt, sampling)
            except _Failed:
                held = self._holds_weights(server)
                if attempt == TRIES - 1 or not held or not server.ready:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def _holds_weights(self, server: _Server) -> bool:
        with suppress(_Failed):
            return self._get(server, "/weight_info").get("weight_version") == self.version
        return False

    def _lose(self, server: _Server, why: str, work: deque[list[Prompt]]) -> None:
        """What it has not answered goes back to the others."""
        with self._lock:
            if not server.ready:
                return
            server.ready, server.why, server.lost = False, why, server.lost + 1
            back = [*server.asked.values(), *reversed(server.waiting)]
            server.asked, server.waiting = {}, []
            if back:
                work.appendleft(back)
        say(f"warning: the sampler {server.name} is lost: {why}; {len(back)} prompts go to the others")

    def _sample(self, server: _Server, prompt: Prompt, sampling: Sampling) -> Completion:
        ids = self.chat.prompt_ids(prompt.messages)
        body = {
            "model": server.model,
            "prompt": ids,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": request_seed(sampling.seed, prompt.problem_id, prompt.index),
            "stop_token_ids": list(self.chat.stops),
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        return read_rollout(prompt, ids, self._post(server, "/v1/completions", body), self.chat, sampling)

    def _ready(self) -> list[_Server]:
        return [server for server in self.servers if server.ready]

    # --- requests

    def _get(self, server: _Server, path: str) -> dict[str, Any]:
        return self._ask(server, "GET", path)

    def _post(self, server: _Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask(server, "POST", path, json=body)

    def _ask(self, server: _Server, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Raises _Failed for no answer or a broken one, ValueError for a request that the server refuses."""
        import httpx2

        try:
            response = self._client.request(method, server.address + path, **more)
        except (httpx2.TransportError, RuntimeError) as error:
            raise _Failed(f"{type(error).__name__} {error}".strip()) from error
        except httpx2.InvalidURL as error:
            raise ValueError(f"[sampler] servers: {server.name!r} is not an address: {error}.") from error
        if response.status_code == 404:
            raise ValueError(f"the sampler {server.name} knows no {path}. {START.format(name=NAME)}")
        if 400 <= response.status_code < 500 and response.status_code not in (408, 409, 425, 429):
            raise ValueError(f"the sampler {server.name} refuses {path}: {response.text[:300]}")
        if response.status_code >= 400:
            raise _Failed(f"status {response.status_code} for {path}: {response.text[:200]}")
        try:
            answer = read_json(response.content or b"{}")
        except Unusable as error:
            raise _Failed(f"{error} for {path}") from error
        if not isinstance(answer, dict):
            raise _Failed(f"a JSON {type(answer).__name__} for {path}")
        return answer


def read_rollout(
    prompt: Prompt, asked: list[int], answer: dict[str, Any], chat: Chat, sampling: Sampling
) -> Completion:
    """The completion in an answer. Raises _Failed if it cannot be one of this prompt."""
    try:
        choice = answer["choices"][0]
        ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        echoed, reason = choice.get("prompt_token_ids"), choice["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise _Failed(f"an answer without ids and log-probabilities ({error!r})") from error
    wrong = (
        ("the ids of another prompt", echoed is not None and echoed != asked),
        ("no ids", not isinstance(ids, list) or not ids or len(ids) > sampling.max_tokens),
        ("ids that the tokenizer does not have", not all(type(i) is int and 0 <= i < chat.size for i in ids or ())),
        ("another number of log-probabilities than of ids", len(logprobs) != len(ids or ())),
        (
            "log-probabilities that are none",
            not all(isinstance(x, float | int) and math.isfinite(x) and x <= 1e-4 for x in logprobs),
        ),
        ("an end that is none", reason not in ("stop", "length")),
        ("a stop without an id that stops", reason == "stop" and bool(ids) and ids[-1] not in chat.stops),
    )
    for what, is_so in wrong:
        if is_so:
            raise _Failed(f"an answer with {what}")
    stop = "end" if reason == "stop" else "length"
    return Completion(
        prompt.problem_id, prompt.index, chat.completion(ids), stop, asked, ids, [float(x) for x in logprobs]
    )


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the bytes of each vector (norm) in a folder's weights: servers join, pad and pack matrices, but not vectors."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dictionary)
                if len(weights.get_slice(name).get_shape()) == 1 and not name.endswith(".bias"):
                    found[name] = hashlib.sha256(_bytes(weights.get_tensor(name))).hexdigest()
    return found


def _bytes(tensor: Any) -> bytes:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def untie(folder: Path, embedding: str) -> None:
    """Give a folder whose head is its embedding a head of its own, with the same numbers. `embedding` is the weight's name."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text())
    if not config.get("tie_word_embeddings"):
        return
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.exists():  # a folder of several files needs an index, and is read as one only if they have other names
        single.rename(folder / "model-1.safetensors")
        with safe_open(folder / "model-1.safetensors", framework="pt") as weights:
            files = dict.fromkeys(weights.keys(), "model-1.safetensors")
    else:
        files = json.loads(index.read_text())["weight_map"]
    with safe_open(folder / files[embedding], framework="pt") as weights:
        head = weights.get_tensor(embedding)
    save_file({HEAD: head}, folder / "model-head.safetensors", metadata={"format": "pt"})
    listed = {"metadata": {}, "weight_map": files | {HEAD: "model-head.safetensors"}}
    index.write_text(json.dumps(listed))
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}, indent=2))
