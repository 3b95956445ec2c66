"""A real server over a tiny model, in this process, and the official client for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from whetstone.decode.engine import Engine, load_engine
from whetstone.serve import server
from whetstone.serve.decoder import Decoder
from whetstone.serve.server import Serving

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is in the extras serve and dev")
pytest.importorskip("fastapi", reason="FastAPI is in the extras serve and dev")
openai = pytest.importorskip("openai", reason="the client is in the extra dev")


PATIENCE = 600.0  # seconds, also for a connection, where the client's own default is 5: tests depend on no load


class Served(NamedTuple):
    url: str
    decoder: Decoder

    def client(self, key: str = "none", **more: Any) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **{"timeout": PATIENCE} | more)


def exact(serving: Serving, name: str) -> Engine:
    """An engine whose answers do not depend on what is decoded beside them."""
    engine = load_engine(name, "cpu")
    return Engine(engine.model, engine.chat.tokenizer, row_block=4)


@contextmanager
def served(*models: str, key: str = "", load: Callable[..., Engine] = exact, **options: Any) -> Iterator[Served]:
    before, server.load = server.load, load
    serving = Serving([str(model) for model in models], **options)
    try:
        app = server.application_for(serving, key)
        opened = server._bound("127.0.0.1", 0)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([opened],), daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        decoder = app.state.decoder
        yield Served(f"http://127.0.0.1:{opened.getsockname()[1]}", decoder)
        running.should_exit = True
        thread.join()
    finally:
        server.load = before
        opened.close()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)
