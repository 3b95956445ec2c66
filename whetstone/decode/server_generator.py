"""A Generator behind HTTP: any OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, `transformers serve`, a paid service).

Many requests are in flight at once, each for one completion (servers interpret `n` differently). Transient failures are
retried after growing pauses: status 408, 409, 425, 429 and 5xx, answers that are not there after `timeout` seconds, dropped
connections, answers that hold no completion (`server_answer.py`). A server's Retry-After holds for all requests. So a prompt
takes at most (retries + 1) x (timeout + longest_pause) seconds. Permanent failures end the run with their reason: a wrong key,
model or address, a redirect, a server that does not listen, or one that refuses prompt after prompt in the same words and has
answered none. Requests that are in flight then are waited for, because they are paid for. A prompt whose retries all fail is
left out and kept in `failed`; if all its answers are empty, the answer is empty.

The key is read from the environment for each request, and is in no setting, message or record.
"""

import asyncio
import json
import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from whetstone.decode.server_answer import Unusable, estimated_usage, excerpt, read_body, read_completion
from whetstone.decode.server_settings import CHAT, PATIENCE, Server, chat_address, request_seed, secrets_of
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.progress import say
from whetstone.run.secrets import REDACTED, from_environment, redacted, without

TRANSIENT = frozenset({408, 409, 425, 429})  # and all from 500 on
PERMANENT = {
    401: "the key is not accepted",
    402: "there is no credit left",
    403: "the key may not do this",
    404: "there is no such model or address",
    405: "the address takes no chat requests",
    407: "a proxy in between wants a password",
}
FIRST_PAUSE = 1.0  # seconds before the first retry; doubled with each further one
LONGEST_CANCEL = 10.0  # seconds to wait for requests that are cancelled; a look-up of a name cannot be interrupted
SHORTEST_SECRET = 8  # characters; a shorter one is left out of messages, but not out of answers, where it may be a word


class ServerError(ConnectionError):
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
    """Tokens used so far, including earlier runs of a resumed stage. `estimated` counts the answers of this run whose server
    gave no number of tokens that can be right: theirs is estimated by the length of the text."""

    tokens_in: int = 0
    tokens_out: int = 0
    estimated: int = 0

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
    no more prompts are sent, if there is one. Raises ValueError for a `${NAME}` that the environment does not have.
    """

    path = CHAT  # below the server's address

    def __init__(self, settings: Server, spent: Spent | None = None):
        self.settings = settings
        self.spent = spent or Spent()
        self.failed: list[tuple[Prompt, str]] = []
        self.stopped = ""
        self.name = redacted(settings.server)  # for messages
        self._extra = from_environment(settings.extra)
        server = from_environment(settings.server)
        self._address = chat_address(server, self.path)
        self._secrets = secrets_of(server, self._extra)
        self._in_a_row = 0
        self._answered = False
        self._failure: Exception | None = None  # that ends the run, once what is in flight has ended
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
            thread.join(timeout=LONGEST_CANCEL)

    async def _serve(
        self, prompts: Iterator[Prompt], sampling: Sampling, finished: queue.Queue, ended: threading.Event
    ) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=self.settings.in_flight)
        timeout = httpx2.Timeout(None, connect=min(30.0, self.settings.timeout))  # of all else: `_request`
        self._failure, self._given_up = None, asyncio.Event()
        async with httpx2.AsyncClient(limits=limits, timeout=timeout) as client:
            running: set[asyncio.Task] = set()
            try:
                while True:
                    self.stopped = self.stopped or self.spent.exhausts(self.settings)
                    while len(running) < self.settings.in_flight and not self.stopped and self._failure is None:
                        if (prompt := next(prompts, None)) is None:
                            break
                        running.add(asyncio.create_task(self._complete(client, prompt, sampling)))
                    if not running or ended.is_set():
                        break
                    done, running = await asyncio.wait(running, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                    for completion in await asyncio.gather(*done, return_exceptions=True):
                        if isinstance(completion, BaseException):
                            self._give_up(completion, len(running))
                        elif completion is not None:
                            finished.put(completion)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    def _give_up(self, failure: BaseException, running: int) -> None:
        """No prompt is sent any more, nor again; answers that are on their way still come."""
        if self._failure is None and running:
            most = f"{self.settings.timeout:g} s"
            say(f"{self.name} is given up; requests in flight: {running}, whose answers are waited for, at most {most}")
        self._failure = self._failure or failure
        self._given_up.set()

    async def _complete(self, client: Any, prompt: Prompt, sampling: Sampling) -> Completion | None:
        """With retries. None for a prompt that is refused, fails to the end, or is not sent as the server is given up."""
        for attempt in range(self.settings.retries + 1):
            await self._sleep(self._resume_at - time.monotonic())
            if self._given_up.is_set():
                return None
            try:
                completion = await self._request(client, prompt, sampling)
                self._in_a_row, self._answered = 0, True
                return completion
            except _Transient as error:
                failure = error
                if error.pause is not None:
                    self._resume_at = max(self._resume_at, time.monotonic() + error.pause)
                elif attempt < self.settings.retries:
                    await self._sleep(self._pause(attempt))
            except _Refused as error:
                return self._refuse(prompt, str(error))
        if failure.empty is not None:
            self._in_a_row, self._answered = 0, True
            return failure.empty
        self.failed.append((prompt, str(failure)))
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE or failure.gone:
            raise ServerError(
                f"{self.name} failed {self._in_a_row} prompts in a row, each {self.settings.retries + 1} times; "
                f"last: {failure}. What was answered is kept: repair the server and run again."
            )
        return None

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until the server is given up."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._given_up.wait(), seconds)

    def _refuse(self, prompt: Prompt, reason: str) -> None:
        self.failed.append((prompt, reason))
        self._refusals[reason] += 1
        if not self._answered and self._refusals[reason] >= PATIENCE:
            raise ServerError(
                f"{self.name} refused {self._refusals[reason]} prompts in the same words and answered none: "
                f"{reason}. The cause is in the request: check model ({self.settings.model!r}), max_tokens and extra."
            )

    def _pause(self, attempt: int) -> float:
        """Seconds: doubled each time, half of them random, so that requests which failed together are not retried together."""
        longest = min(self.settings.longest_pause, FIRST_PAUSE * 2**attempt)
        return longest * (0.5 + random.random() / 2)

    async def _request(self, client: Any, prompt: Prompt, sampling: Sampling) -> Completion:
        """One attempt. What it used is counted, even if it is to be tried again."""
        import httpx2

        try:
            async with asyncio.timeout(self.settings.timeout):
                status, headers, body = await self._post(client, self._body(prompt, sampling))
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _Transient(f"no whole answer after {self.settings.timeout:g} s") from error
        except httpx2.TransportError as error:
            gone = isinstance(error, httpx2.ConnectError)
            raise _Transient(
                self._hidden(f"connection: {type(error).__name__} {error}".strip(" .")), gone=gone
            ) from error
        except httpx2.InvalidURL as error:
            raise ServerError(f"server = {self.name!r} is not an address: {self._hidden(str(error))}.") from error
        except Unusable as error:
            raise _Transient(str(error)) from error
        if status != 200:
            self._raise_for(status, headers, body)
        try:
            completion = self._read(prompt, body)
        except Unusable as error:
            raise _Transient(f"{error}: {self._excerpt(body)}{self._path_hint()}") from error
        return self._counted(prompt, completion)

    def _read(self, prompt: Prompt, body: bytes) -> Completion:
        """Raises Unusable if the body holds no completion."""
        return read_completion(prompt, body, self.settings.opens_thinking)

    async def _post(self, client: Any, body: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer. An error's body that cannot be read is replaced by the reason."""
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        content = json.dumps(body).encode()
        async with client.stream("POST", self._address, content=content, headers=headers) as response:
            try:
                return response.status_code, response.headers, await read_body(response)
            except Unusable as error:
                if response.status_code == 200:
                    raise
                return response.status_code, response.headers, str(error).encode()

    def _counted(self, prompt: Prompt, completion: Completion) -> Completion:
        """The completion, with its usage added to what is spent, and without secrets. Raises _Transient if it is empty."""
        if completion.usage[0] < 0:
            self.spent.estimated += 1
            completion = replace(completion, usage=estimated_usage(prompt, completion.text))
        self.spent.add(*completion.usage)
        if not completion.text:
            raise _Transient("an empty answer", empty=completion)
        return replace(completion, text=self._hidden(completion.text, SHORTEST_SECRET))

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request_seed(sampling.seed, prompt.problem_id, prompt.index),
            **({"top_k": sampling.top_k} if sampling.top_k else {}),
            **self._extra,
        }

    def _raise_for(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        said = self._excerpt(body)
        if 300 <= status < 400:
            target = excerpt(headers.get("Location", "").encode(errors="replace"), self._hidden)
            raise ServerError(
                f"{self.name} answered {status}, a redirect to {target!r}. Redirects are not followed, because the key "
                "would go along: write the address that it leads to."
            )
        if status in PERMANENT:
            raise ServerError(
                f"{self.name} answered {status}: {PERMANENT[status]}. It says: {said or 'nothing'}. Check server, model "
                f"({self.settings.model!r}) and the key in the environment variable {self.settings.key_variable}."
                f"{self._path_hint() if status in (404, 405) else ''}"
            )
        if status < 400 or status in TRANSIENT or status >= 500:
            pause = _retry_after(headers.get("Retry-After"), self.settings.longest_pause)
            raise _Transient(f"status {status}: {said}", pause)
        raise _Refused(f"status {status}: {said}")

    def _path_hint(self) -> str:
        """What to try if the address is not as most servers have it."""
        address, query, rest = self.name.partition("?")
        if "/v1" in address:
            return ""
        return f' Most servers answer below /v1: try server = "{address.rstrip("/")}/v1{query}{rest}".'

    # --- secrets

    def _key(self) -> str:
        """Raises ServerError for a key that no header can hold."""
        key = os.environ.get(self.settings.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ServerError(
                f"the environment variable {self.settings.key_variable} holds characters that no key has (control characters "
                "or letters with accents). Set it again."
            )
        return key

    def _excerpt(self, body: bytes) -> str:
        return excerpt(body, self._hidden)

    def _hidden(self, text: str, shortest: int = 1) -> str:
        """The text without the key and the secrets of the recipe, which a server may repeat."""
        key = os.environ.get(self.settings.key_variable, "").strip()
        for secret, shown in ((key, "[key]"), *((secret, REDACTED) for secret in self._secrets)):
            if len(secret) >= shortest:
                text = without(text, secret, shown)
        return text


def _retry_after(header: str | None, longest: float) -> float | None:
    """Seconds, from a number or a date, at most `longest`. None if the header is absent or unreadable."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), longest)
