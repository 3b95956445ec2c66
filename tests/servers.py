"""A small real server that speaks as much of OpenAI's protocol as its script says."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def said(text: str, stop: str = "stop", **message) -> dict:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": stop}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 20}}


class World:
    """What the server saw: bodies, headers, and how many requests were with it at once."""

    def __init__(self):
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.tries: Counter[str] = Counter()
        self.open = self.most = 0
        self.lock = threading.Lock()


Answer = Callable[[BaseHTTPRequestHandler, dict, int], None]


@contextmanager
def server(answer: Answer, models: tuple[str, ...] = ("mine",)) -> Iterator[tuple[str, World]]:
    """`answer(handler, body, attempt)` writes the response; `attempt` counts requests with this question from 1. The server
    lists `models`; none: it has no list.
    """
    world = World()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            send(self, {"data": [{"id": name} for name in models]}, 200 if models else 404)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"] if "messages" in body else str(body["prompt"])
            with world.lock:
                world.bodies.append(body)
                world.headers.append(dict(self.headers))
                world.times.append(time.monotonic())
                world.tries[question] += 1
                attempt = world.tries[question]
                world.open += 1
                world.most = max(world.most, world.open)
            try:
                answer(self, body, attempt)
            finally:
                with world.lock:
                    world.open -= 1

        def log_message(self, *_):
            pass

    with listening(Handler) as address:
        yield address, world


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address, up to /v1, at which this handler answers."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, body: dict | str, status: int = 200, **headers: str) -> None:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def echo(handler, body, attempt):
    send(handler, said(f"answer to {body['messages'][-1]['content']}"))
