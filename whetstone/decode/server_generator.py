"""A Generator behind HTTP: any OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, `transformers serve`, a paid service).

Many requests are in flight at once, each for one completion (servers interpret `n` differently). Transient failures are
retried after growing pauses: status 408, 409, 429 and 5xx, time-outs, dropped connections, answers that are not JSON or have
no text. A server's Retry-After holds for all requests. Permanent failures end the run with their reason: a wrong key, model or
address, a server that does not listen, or one that refuses prompt after prompt in the same words and has answered none. A
prompt whose retries all fail is left out and kept in `failed`; if all its answers are empty, the answer is empty.

The key is read from the environment for each request, and is in no setting, message or record.
"""

import asyncio
import hashlib
import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeFloat

from whetstone.chat import CLOSE, OPEN, with_opening
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.settings import Operational, Settings

TRANSIENT = frozenset({408, 409, 425, 429})  # and all from 500 on
PERMANENT = {401: "the key is not accepted", 403: "the key may not do this", 404: "there is no such model or address"}
STOPS = {"length": "length", "max_tokens": "length"}
FIRST_PAUSE = 1.0  # seconds before the first retry; doubled with each further one
PATIENCE = 8  # prompts in a row that may fail for good before the server is given up
SHOWN = 300  # characters of a server's answer in a message


class Server(Settings):
    """An OpenAI-compatible endpoint and how to use it."""

    server: Annotated[str, Operational] = Field(description="its address up to and including /v1")
    model: str = Field(description="the model's name there")
    key_variable: Annotated[str, Operational] = Field("OPENAI_API_KEY", description="environment variable of the key")
    temperature: float = Field(0.6, ge=0, description="of the answers; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="share of the probability from which tokens are sampled")
    max_tokens: int = Field(16384, ge=1, description="tokens of the longest answer")
    in_flight: Annotated[int, Operational] = Field(32, ge=1, description="requests at once")
    timeout: Annotated[float, Operational] = Field(600, gt=0, description="seconds until an answer must have arrived")
    retries: Annotated[int, Operational] = Field(6, ge=0, description="of a request that failed")
    longest_pause: Annotated[float, Operational] = Field(60, gt=0, description="seconds before a retry, at most")
    opens_thinking: bool = Field(False, description="its template writes <think>, and its answers do not repeat it")
    extra: dict[str, Any] = Field({}, description="sent along with every request, as in { top_k = 20 }")
    prices: Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Operational] = Field(
        (0, 0), description="of a million tokens, in and out"
    )
    budget: float = Field(0, ge=0, description="what may be spent: money if there are prices, else tokens; 0: no limit")

    MOVED: ClassVar[Mapping[str, str]] = {
        "first_pause": "longest_pause: pauses begin at 1 s, or at longest_pause if that is less",
        "patience": f"fixed: a server that fails {PATIENCE} prompts in a row is given up",
        **dict.fromkeys(("price_in", "price_out"), "prices = [of prompts, of completions]"),
        **dict.fromkeys(("budget_tokens", "budget_money"), "budget: money if there are prices, else tokens"),
    }


class ServerError(RuntimeError):
    """The server cannot be used. The message says why and what to do."""


class _Transient(Exception):
    """A request failed and may be retried. `pause`: seconds that the server asks for; `gone`: nothing listens there; `empty`:
    the completion, if it has no text (from a busy server, or meant by the model)."""

    def __init__(
        self, reason: str, pause: float | None = None, gone: bool = False, empty: Completion | None = None
    ) -> None:
        super().__init__(reason)
        self.pause, self.gone, self.empty = pause, gone, empty


class _Refused(Exception):
    """The server does not accept this prompt."""


@dataclass
class Spent:
    """Tokens used so far, including earlier runs of a resumed stage."""

    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, tokens_in: int, tokens_out: int) -> None:
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out

    def money(self, server: Server) -> float:
        price_in, price_out = server.prices
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6

    def exhausts(self, server: Server) -> str:
        """Says that the budget is used up; "" if it is not."""
        spent = self.money(server) if any(server.prices) else self.tokens_in + self.tokens_out
        return f"budget = {server.budget:,.15g} is spent" if server.budget and spent >= server.budget else ""


class ServerGenerator:
    """Completions from `settings.server` as they finish.

    `failed` holds the prompts without a completion and their reasons, `spent` the tokens used, and `stopped` the reason why
    no more prompts are sent, if there is one.
    """

    def __init__(self, settings: Server, spent: Spent | None = None):
        self.settings = settings
        self.spent = spent or Spent()
        self.failed: list[tuple[Prompt, str]] = []
        self.stopped = ""
        self._in_a_row = 0
        self._answered = False
        self._refusals: Counter[str] = Counter()
        self._resume_at = 0.0  # time.monotonic() before which nothing is sent

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Takes prompts only when they can be sent. Raises ServerError if the server cannot be used."""
        finished: queue.Queue[Completion | BaseException | None] = queue.Queue()
        ended = threading.Event()

        def work() -> None:
            try:
                asyncio.run(self._serve(iter(prompts), sampling, finished, ended))
                finished.put(None)
            except BaseException as error:
                finished.put(error)

        thread = threading.Thread(target=work, name="server requests", daemon=True)
        thread.start()
        try:
            while (item := finished.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()  # a caller that stops early does not wait for what is in flight
            thread.join(timeout=self.settings.longest_pause)

    async def _serve(
        self, prompts: Iterator[Prompt], sampling: Sampling, finished: queue.Queue, ended: threading.Event
    ) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=self.settings.in_flight)
        timeout = httpx2.Timeout(self.settings.timeout, connect=min(30.0, self.settings.timeout))
        async with httpx2.AsyncClient(limits=limits, timeout=timeout) as client:
            running: set[asyncio.Task] = set()
            try:
                while True:
                    self.stopped = self.stopped or self.spent.exhausts(self.settings)
                    while len(running) < self.settings.in_flight and not self.stopped:
                        prompt = next(prompts, None)
                        if prompt is None:
                            break
                        running.add(asyncio.create_task(self._complete(client, prompt, sampling)))
                    if not running or ended.is_set():
                        return
                    done, running = await asyncio.wait(running, timeout=1, return_when=asyncio.FIRST_COMPLETED)
                    for result in await asyncio.gather(*done, return_exceptions=True):
                        if isinstance(result, BaseException):
                            raise result
                        if result is not None:
                            finished.put(result)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def _complete(self, client: Any, prompt: Prompt, sampling: Sampling) -> Completion | None:
        """With retries. None for a prompt that is refused or fails to the end."""
        for attempt in range(self.settings.retries + 1):
            await asyncio.sleep(max(0.0, self._resume_at - time.monotonic()))
            try:
                return self._accept(await self._request(client, prompt, sampling))
            except _Transient as error:
                failure = error
                if error.pause is not None:
                    self._resume_at = max(self._resume_at, time.monotonic() + error.pause)
                elif attempt < self.settings.retries:
                    await asyncio.sleep(self._pause(attempt))
            except _Refused as error:
                return self._refuse(prompt, str(error))
        if failure.empty is not None:
            return self._accept(failure.empty)
        self.failed.append((prompt, str(failure)))
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE or failure.gone:
            raise ServerError(
                f"{self.settings.server} failed {self._in_a_row} prompts in a row, each {self.settings.retries + 1} times; "
                f"last: {failure}. What was answered is kept: repair the server and run again."
            )
        return None

    def _accept(self, completion: Completion) -> Completion:
        self._in_a_row, self._answered = 0, True
        self.spent.add(*completion.usage)
        return completion

    def _refuse(self, prompt: Prompt, reason: str) -> None:
        self.failed.append((prompt, reason))
        self._refusals[reason] += 1
        if not self._answered and self._refusals[reason] >= PATIENCE:
            raise ServerError(
                f"{self.settings.server} refused {self._refusals[reason]} prompts in the same words and answered none: "
                f"{reason}. The cause is in the request: check model ({self.settings.model!r}), max_tokens and extra."
            )

    def _pause(self, attempt: int) -> float:
        """Seconds: doubled each time, half of them random, so that requests which failed together are not retried together."""
        longest = min(self.settings.longest_pause, FIRST_PAUSE * 2**attempt)
        return longest * (0.5 + random.random() / 2)

    async def _request(self, client: Any, prompt: Prompt, sampling: Sampling) -> Completion:
        import httpx2

        key = os.environ.get(self.settings.key_variable, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = f"{self.settings.server.rstrip('/')}/chat/completions"
        try:
            answer = await client.post(address, json=self._body(prompt, sampling), headers=headers)
        except httpx2.TimeoutException as error:
            raise _Transient(f"time-out after {self.settings.timeout:g} s ({type(error).__name__})") from error
        except httpx2.TransportError as error:
            gone = isinstance(error, httpx2.ConnectError)
            raise _Transient(f"connection: {type(error).__name__} {error}".strip(), gone=gone) from error
        except httpx2.InvalidURL as error:
            raise ServerError(
                f"server = {self.settings.server!r} is not an address: {error}. Write it as in http://127.0.0.1:8000/v1."
            ) from error
        if answer.status_code != 200:
            self._raise_for(answer, key)
        try:
            completion = self._read(prompt, answer.json())
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _Transient(f"no completion in the answer: {_excerpt(answer.text, key)}") from error
        if not completion.text:
            raise _Transient("an empty answer", empty=completion)
        return completion

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        stream = f"{sampling.seed}/{prompt.problem_id}/{prompt.index}"
        return {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "big") >> 1,
            **({"top_k": sampling.top_k} if sampling.top_k else {}),
            **self.settings.extra,
        }

    def _raise_for(self, answer: Any, key: str) -> None:
        status, excerpt = answer.status_code, _excerpt(answer.text, key)
        if status in PERMANENT:
            raise ServerError(
                f"{self.settings.server} answered {status}: {PERMANENT[status]}. It says: {excerpt}\nCheck server, model "
                f"({self.settings.model!r}) and the key in the environment variable {self.settings.key_variable}."
            )
        if status in TRANSIENT or status >= 500:
            longest = self.settings.longest_pause
            raise _Transient(f"status {status}: {excerpt}", _retry_after(answer.headers.get("Retry-After"), longest))
        raise _Refused(f"status {status}: {excerpt}")

    def _read(self, prompt: Prompt, answer: dict[str, Any]) -> Completion:
        choice = answer["choices"][0]
        message = choice["message"]
        thinking = message.get("reasoning_content") or message.get("reasoning") or ""
        text = message.get("content") or ""
        unfinished = not (text or thinking) and not choice.get("finish_reason")
        if not isinstance(text, str) or not isinstance(thinking, str) or unfinished:
            raise ValueError("neither content nor reasoning_content")
        if thinking:
            cut = not text and STOPS.get(choice.get("finish_reason")) == "length"
            text = f"{OPEN}\n{thinking.strip()}" + ("" if cut else f"\n{CLOSE}\n\n{text.strip()}")
        elif self.settings.opens_thinking and text and OPEN not in text:
            text = f"{OPEN}\n{text.lstrip()}"
        text = with_opening(text)
        usage = answer.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        stop = STOPS.get(choice.get("finish_reason"), "end")
        return Completion(prompt.problem_id, prompt.index, text, stop, usage=tokens)


def _retry_after(header: str | None, longest: float) -> float | None:
    """Seconds, from a number or a date, at most `longest`. None if the header is absent or unreadable."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(0.0, seconds), longest)


def _excerpt(text: str, key: str) -> str:
    """The beginning of a server's answer on one line, without the key."""
    line = " ".join((text.replace(key, "[key]") if key else text).split())
    return line if len(line) <= SHOWN else line[:SHOWN] + " …"
