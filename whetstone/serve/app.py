"""The web application: what is asked at which address.

GET  /health                 whether it works, and how busy it is
GET  /v1/models              the names of the models
POST /v1/chat/completions    and /v1/completions, as OpenAI's
GET  /                       the page, if it is wanted (page.py)
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from whetstone.serve import answers
from whetstone.serve.decoder import Echo, Finished
from whetstone.serve.guard import Guard
from whetstone.serve.page import add_page
from whetstone.serve.requests import BadRequest, ChatRequest, TextRequest, read_request
from whetstone.serve.running import Running
from whetstone.serve.service import Service
from whetstone.serve.thoughts import Part, Thoughts

RETRY_AFTER = 2  # seconds, said to clients that find the queue full


def application(service: Service) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.decoder.start()
        yield
        await asyncio.to_thread(service.decoder.stop)

    app = FastAPI(title="Whetstone", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.decoder = service.decoder
    app.add_middleware(Guard, service=service)

    @app.exception_handler(BadRequest)
    async def refused(_: Request, error: BadRequest) -> Response:
        headers = {"Retry-After": str(RETRY_AFTER)} if error.status == 429 else None
        return JSONResponse(answers.error_body(error), error.status, headers)

    @app.exception_handler(Exception)  # a fault of ours, which uvicorn logs
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse(answers.error_body(error), 500)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Any) -> Response:
        why = BadRequest(f"there is no {request.method} {request.url.path[:100]} here.", status=error.status_code)
        return JSONResponse(answers.error_body(why), error.status_code)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> dict[str, Any]:
        decoder = service.decoder
        return {
            "status": "ok",
            "in_flight": decoder.in_flight,
            "batch": decoder.max_batch,
            "queue": service.queue,
            "loaded": list(decoder.lanes),
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_row(name) for name in service.models()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model_row(service.find(name)[0])

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _chat(service, request, read_request(ChatRequest, await request.body()))

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await _complete(service, request, read_request(TextRequest, await request.body()))

    if service.page:
        add_page(app, service.runs)
    return app


def _model_row(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "whetstone"}


# --- one request


async def _chat(service: Service, request: Request, asked: ChatRequest) -> Response:
    running = Running(service, request, asked, "chatcmpl")
    if asked.stream:
        return await _streamed(running, _chat_chunks(running, asked))
    return await _whole(running, "chat.completion", asked.n, lambda one: answers.chat_choice(one, running.tokens))


async def _complete(service: Service, request: Request, asked: TextRequest) -> Response:
    running = Running(service, request, asked, "cmpl")
    if asked.stream:
        return await _streamed(running, _text_chunks(running, asked))
    return await _whole(running, "text_completion", asked.n, lambda one: _text_choice(running, asked, one))


def _text_choice(running: Running, asked: TextRequest, one: Finished) -> dict[str, Any]:
    echoed, echo = _echoed(running, asked, one.index)
    text, end = one.completion.text.removeprefix(running.chat.opening), answers.ENDS[one.completion.stop]
    return answers.text_choice(one.index, echoed + text, running.tokens, one.notes, 0, end, echo)


def _echoed(running: Running, asked: TextRequest, index: int) -> tuple[str, Echo | None]:
    """The prompt of a choice, as text and as ids, if it is to be repeated."""
    if not asked.echo:
        return "", None
    given, echo = asked.prompts()[index // asked.n], running.echoes[index // asked.n]
    return given if isinstance(given, str) else running.chat.tokenizer.decode(given), echo


async def _whole(running: Running, kind: str, n: int, choice: Callable[[Finished], dict[str, Any]]) -> Response:
    """All choices in order; an error if the request failed. `n` are of each prompt."""
    try:
        done = [event async for event in running.events() if isinstance(event, Finished)]
    except ConnectionResetError:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:
        return JSONResponse(answers.error_body(error), answers.status_of(error))
    finally:
        running.close()
    done.sort(key=lambda one: one.index)
    body = answers.head(running.name, kind, running.model)
    return JSONResponse(body | {"choices": list(map(choice, done)), "usage": answers.usage(done, n)})


async def _streamed(running: Running, chunks: AsyncIterator[dict[str, Any]]) -> Response:
    """Server-sent events. A request that is refused has its status, as nothing is sent before the first event."""
    try:
        await running.begin()
    except Exception as error:
        running.close()
        return JSONResponse(answers.error_body(error), answers.status_of(error))

    async def lines() -> AsyncIterator[str]:
        try:
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
            yield "data: [DONE]\n\n"
        except ConnectionResetError:
            return
        except Exception as error:
            yield f"data: {json.dumps(answers.error_body(error))}\n\n"
        finally:
            running.close()

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _chat_chunks(running: Running, asked: ChatRequest) -> AsyncIterator[dict[str, Any]]:
    thoughts = [Thoughts() for _ in range(asked.n)]
    noted = [0] * asked.n  # tokens whose notes are sent
    begun = [False] * asked.n
    done: list[Finished] = []
    body = answers.head(running.name, "chat.completion.chunk", running.model)
    async for event in running.events():
        index, end = event.index, None
        if not begun[index]:
            yield body | {"choices": [answers.chat_delta(index, Part(), role=True)]}
            begun[index] = True
        if isinstance(event, Finished):
            done.append(event)
            end = answers.ENDS[event.completion.stop]
            part = thoughts[index].add(event.completion.text if asked.beams > 1 else "", done=True)
        else:
            part = thoughts[index].add(event.text)
        notes = event.notes[noted[index] :] if isinstance(event, Finished) else event.notes
        noted[index] += len(notes)
        if end or notes or part != Part():
            yield body | {"choices": [answers.chat_delta(index, part, running.tokens, notes, end=end)]}
    if asked.stream_options.include_usage:
        yield body | {"choices": [], "usage": answers.usage(done, asked.n)}


async def _text_chunks(running: Running, asked: TextRequest) -> AsyncIterator[dict[str, Any]]:
    count = len(asked.prompts()) * asked.n
    noted, offsets, begun = [0] * count, [0] * count, [False] * count
    done: list[Finished] = []
    body = answers.head(running.name, "text_completion", running.model)
    async for event in running.events():
        index, end, echo = event.index, None, None
        text = "" if isinstance(event, Finished) else event.text
        if not begun[index]:
            echoed, echo = _echoed(running, asked, index)
            text = echoed + text.removeprefix(running.chat.opening)
            begun[index] = True
        if isinstance(event, Finished):
            done.append(event)
            end = answers.ENDS[event.completion.stop]
        notes = event.notes[noted[index] :] if isinstance(event, Finished) else event.notes
        noted[index] += len(notes)
        if end or notes or text or echo:
            choice = answers.text_choice(index, text, running.tokens, notes, offsets[index], end, echo)
            yield body | {"choices": [choice]}
        offsets[index] += len(text)
    if asked.stream_options.include_usage:
        yield body | {"choices": [], "usage": answers.usage(done, asked.n)}
