"""A request while it is answered: its job in the decoder, and the events of it. A client that goes away cancels the job."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request

from whetstone.chat import Chat
from whetstone.prompting import BARE, Prompting, stored_prompt
from whetstone.serve import answers
from whetstone.serve.decoder import Echo, Finished, Job, Lane, Work, Written
from whetstone.serve.requests import ChatRequest, TextRequest
from whetstone.serve.service import Service
from whetstone.serve.work import chat_work, text_work


class Running:
    """A job of this request. Its events are read by `events`; leaving `with` cancels what is not done."""

    def __init__(self, service: Service, request: Request, asked: ChatRequest | TextRequest, kind: str):
        self.service, self.request = service, request
        self.model, folder = service.find(asked.model)
        prompts = len(asked.prompts()) if isinstance(asked, TextRequest) else 1
        service.admit(prompts * asked.n)
        self.name = f"{kind}-{secrets.token_hex(12)}"
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        self.echoes: list[Echo] = []  # of the prompts, if they are to be repeated
        if isinstance(asked, ChatRequest):
            work = chat_work(asked, self.name, seed, lambda: _trained(folder))
        else:
            work = text_work(asked, self.name, seed, self.echoes)
        self.chat: Chat | None = None  # known from the first event on, as `tokens`
        self.tokens: answers.Tokens | None = None
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

        def prepare(lane: Lane) -> Work:
            self.chat = lane.engine.chat
            self.tokens = answers.Tokens(self.chat) if asked.alternatives is not None else None
            return work(lane)

        def tell(event: Any) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, event)

        self.job = Job(self.name, folder, prompts * asked.n, prepare, tell)
        self._gone = asyncio.ensure_future(self._disconnected())
        self._first: Any = None
        self._over = False
        service.decoder.submit(self.job)

    async def begin(self) -> None:
        """Waits for the first event. Raises what the request is refused with."""
        self._first = await self._next()

    async def events(self) -> AsyncIterator[Written | Finished]:
        """Until the job is done. Raises its error, or ConnectionResetError once the client is gone."""
        event = self._first or await self._next()
        while event is not None:
            yield event
            event = await self._next()
        self._over = True

    async def _next(self) -> Any:
        waiting = asyncio.ensure_future(self._queue.get())
        await asyncio.wait((waiting, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise ConnectionResetError("the client is gone")
        event = waiting.result()
        if isinstance(event, Exception):
            self._over = True
            raise event
        return event

    async def _disconnected(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    def close(self) -> None:
        self._gone.cancel()
        if not self._over:
            self.service.decoder.cancel(self.job)


def _trained(folder: str) -> Prompting:
    return stored_prompt(folder, unknown=BARE)
