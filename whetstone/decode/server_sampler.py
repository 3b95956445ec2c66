"""A Generator over vLLM servers that hold the weights of a model in training: completions with ids and log-probabilities.

`publish` has each server load a folder that all can read: weights in place, or an adapter beside the server's own weights. A
server samples only after proofs: of weights, its digests of those that it keeps as they are (the vectors: norms) are those of
the folder, and it has a head of its own (vLLM keeps the old head on a CPU if head and embedding are tied, so the folder always
holds both: `untie`); of both, it gives given ids the log-probabilities that the learner gives them.

The samples of a problem go to one server, which prefills their prompt once. A server that fails, answers what cannot be, or was
started again with other weights is lost: what it had not answered goes to the others. It is looked for again when no other is
left, for `wait` seconds, and with the next weights.

The servers are vLLM's (tested with 0.32), started with VLLM_SERVER_DEV_MODE=1 and --logprobs-mode processed_logprobs. These
endpoints change weights: let nobody else reach them.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from whetstone.chat import Chat
from whetstone.decode.published import PROBE, PROBE_SAMPLING, Published
from whetstone.decode.server_answer import Unusable, read_json
from whetstone.decode.server_rollout import Failed, read_rollout
from whetstone.decode.server_settings import request_seed
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.progress import say
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.secrets import from_environment, redacted

NAME = "student"  # what the servers call the model
PAUSE = 2.0  # seconds between two looks for a lost server
TRIES = 3  # of a request, before its server is lost
COMPLETIONS, LOAD_ADAPTER = "/v1/completions", "/v1/load_lora_adapter"
START = (
    "Start it with VLLM_SERVER_DEV_MODE=1 in its environment, --served-model-name {name}, --logprobs-mode processed_logprobs, "
    "the learner's --dtype, and from a folder that an earlier run published or from the model's own, if its head is not tied."
)
START_FOR_ADAPTERS = (
    "Start it from the model that the stage begins with, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, "
    "--enable-lora, a --max-lora-rank that suffices, --logprobs-mode processed_logprobs and the learner's --dtype; or "
    "leave out [sampler] adapter, so that merged weights are loaded."
)


class SamplerLost(ConnectionError):
    """No server is left that could sample."""


class Cancelled(Exception):
    """`generate` was called off by another thread."""


@dataclass
class _Server:
    address: str  # without /v1
    model: str = NAME  # what is asked for: its model, or an adapter
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
        self, settings: SamplerSettings, addresses: Iterable[str], chat: Chat, tolerance: float = 0.05,
        again: Callable[[str], None] = lambda address: None,
    ):  # fmt: skip
        """`tolerance`: mean difference of a server's log-probabilities to the learner's, in nats, at which it is refused.
        `again` starts a server that was launched here, if it has ended.
        """
        import httpx2

        self.settings, self.chat, self.tolerance, self._again = settings, chat, tolerance, again
        self.servers = [_Server(from_environment(address).rstrip("/").removesuffix("/v1")) for address in addresses]
        limits = httpx2.Limits(max_connections=settings.in_flight * max(1, len(self.servers)) + 8)
        self._client = httpx2.Client(timeout=httpx2.Timeout(settings.timeout, connect=10.0), limits=limits)
        self.published: Published | None = None
        self.gap = 0.0  # the largest of a server that has the published weights, in nats per token
        self.cancelled = threading.Event()  # set by another thread: `generate` and `publish` raise Cancelled
        self._lock = threading.Lock()

    def close(self) -> None:
        self._client.close()

    # --- weights

    def publish(self, published: Published) -> None:
        """Every server loads these weights. Raises SamplerLost if none did within `wait` seconds, ValueError if one does not
        have them afterwards.
        """
        self.published, self.gap = published, 0.0
        for server in self.servers:
            server.ready = False
        self._bring_back()

    def probes(self) -> list[Completion]:
        """A completion of each server that has the weights, in the servers' order, for the learner to judge.

        Raises SamplerLost if none gives one.
        """
        found = []
        for server in self._ready():
            try:
                found.append(self._patiently(server, PROBE, PROBE_SAMPLING))
            except Failed as error:
                self._lose(server, str(error), deque())
        if not found:
            raise self._lost()
        return found

    def adopt(self, published: Published) -> None:
        """In a process that another one publishes for: take the servers that hold these weights."""
        self.published = published
        for server in self.servers:
            server.model = published.version if published.adapter else server.model
            server.ready = self._holds_weights(server)

    def _bring_back(self) -> None:
        """Give the published weights to all servers that lack them; wait until one has them."""
        began = time.monotonic()
        while True:
            lacking = [server for server in self.servers if not server.ready]
            for server in lacking:  # not in the pool: a server that was launched ends with the thread that launched it
                self._again(server.address)
            with ThreadPoolExecutor(max(1, len(lacking))) as pool:
                list(pool.map(self._load, lacking))
            if self._ready():
                break
            if time.monotonic() - began > self.settings.wait:
                raise self._lost()
            if self.cancelled.wait(PAUSE):
                raise Cancelled
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
        """Has the server load what is published, and proves it."""
        assert self.published
        try:
            if self.published.adapter:
                self._load_adapter(server, self.published)
            else:
                self._load_weights(server, self.published)
            self._compare_logprobs(server, self.published)
        except Failed as error:
            server.why = str(error)
        else:
            server.ready, server.why = True, ""

    def _load_weights(self, server: _Server, published: Published) -> None:
        server.model = self._models(server)[0]
        path = str(published.folder.resolve())
        self._post(server, "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        self._post(server, "/reset_prefix_cache", {})
        answer = self._post(server, "/weight_checker", {"action": "checksum"}).get("checksums", {})
        if why := published.differs(answer):
            raise ValueError(
                f"the sampler {server.name} does not hold the student's weights: {why}. {START.format(name=NAME)}"
            )
        self._post(server, "/update_weight_version", {"new_version": published.version})

    def _load_adapter(self, server: _Server, published: Published) -> None:
        """In the place of the one before. Each has a name of its own, so that no request can reach another one."""
        models = self._models(server)
        if published.version in models:
            return
        if server.model in models[1:]:
            self._ask(server, "POST", "/v1/unload_lora_adapter", json={"lora_name": server.model})
        adapter = {"lora_name": published.version, "lora_path": str(published.folder.resolve())}
        self._ask(server, "POST", LOAD_ADAPTER, json=adapter)
        server.model = published.version

    def _models(self, server: _Server) -> list[str]:
        """What it can be asked for: its own model, then adapters."""
        models = self._get(server, "/v1/models").get("data")
        if not models:
            raise Failed("it serves no model")
        return [str(model.get("id")) for model in models]

    def _compare_logprobs(self, server: _Server, published: Published) -> None:
        """Raises ValueError if it gives the published ids other log-probabilities than the learner does."""
        if not published.logprobs:
            return
        body = {"model": server.model, "prompt": published.ids, "max_tokens": 1, "prompt_logprobs": 0}
        answer = self._post(server, COMPLETIONS, body)
        scored = published.ids[-len(published.logprobs) :]
        try:
            rows = answer["choices"][0]["prompt_logprobs"][-len(scored) :]
            theirs = [float(row[str(i)]["logprob"]) for row, i in zip(rows, scored, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Failed(f"an answer without the prompt's log-probabilities ({error!r})") from error
        gap = sum(abs(a - b) for a, b in zip(theirs, published.logprobs, strict=True)) / len(scored)
        if not gap <= self.tolerance:
            raise ValueError(
                f"the sampler {server.name} has loaded {published.version}, and its log-probabilities differ from the "
                f"learner's by {gap:.3g} nats per token (allowed: {self.tolerance}): it computes with other weights, or in "
                f"another type. {START_FOR_ADAPTERS if published.adapter else START.format(name=NAME)}"
            )
        self.gap = max(self.gap, gap)

    # --- completions

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions as they finish. Raises SamplerLost, and ValueError for a prompt that the servers refuse."""
        if not sampling.plain or sampling.stop or sampling.stop_ids:
            raise ValueError(
                f"{sampling} asks for more than a temperature, which is all that these servers are asked for."
            )
        with self._lock:  # what an earlier call has left behind, that was called off
            for server in self.servers:
                server.waiting, server.asked = [], {}
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
                    if self.cancelled.is_set():
                        raise Cancelled
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
                if not self._holds(server):
                    raise Failed("it was started again, or has got other weights")
            except Failed as error:
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
            except Failed as error:
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
            except Failed:
                held = self._holds_weights(server)
                if attempt == TRIES - 1 or not held or not server.ready:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def _holds_weights(self, server: _Server) -> bool:
        with suppress(Failed):
            return self._holds(server)
        return False

    def _holds(self, server: _Server) -> bool:
        assert self.published
        if self.published.adapter:
            return self.published.version in self._models(server)
        return self._get(server, "/weight_info").get("weight_version") == self.published.version

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
        return read_rollout(prompt, ids, self._post(server, COMPLETIONS, body), self.chat, sampling)

    def _ready(self) -> list[_Server]:
        return [server for server in self.servers if server.ready]

    # --- requests

    def _get(self, server: _Server, path: str) -> dict[str, Any]:
        return self._table(self._ask(server, "GET", path), path)

    def _post(self, server: _Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._table(self._ask(server, "POST", path, json=body), path)

    def _table(self, content: bytes, path: str) -> dict[str, Any]:
        try:
            answer = read_json(content or b"{}")
        except Unusable as error:
            raise Failed(f"{error} for {path}") from error
        if not isinstance(answer, dict):
            raise Failed(f"a JSON {type(answer).__name__} for {path}")
        return answer

    def _ask(self, server: _Server, method: str, path: str, **more: Any) -> bytes:
        """Raises Failed for no answer or a broken one, ValueError for a request that the server refuses."""
        import httpx2

        try:
            response = self._client.request(method, server.address + path, **more)
        except (httpx2.TransportError, RuntimeError) as error:
            raise Failed(f"{type(error).__name__} {error}".strip()) from error
        except httpx2.InvalidURL as error:
            raise ValueError(f"[sampler] servers: {server.name!r} is not an address: {error}.") from error
        status, text = response.status_code, response.text[:300]
        if status < 400:
            return response.content
        adapter = self.published is not None and self.published.adapter
        if status == 404 and adapter and path == COMPLETIONS:
            raise Failed("it no longer has the adapter")
        if status == 404 and "error" not in text:
            start = START_FOR_ADAPTERS if adapter else START.format(name=NAME)
            raise ValueError(f"the sampler {server.name} knows no {path}. {start}")
        if path == LOAD_ADAPTER and "EngineDead" not in text:  # whatever is wrong with an adapter has the status 500
            raise ValueError(f"the sampler {server.name} does not load the adapter: {text}. {START_FOR_ADAPTERS}")
        if status < 500 and status not in (408, 409, 425, 429):
            raise ValueError(f"the sampler {server.name} refuses {path}: {text}")
        raise Failed(f"status {status} for {path}: {text}")
