"""Starts the server: settings -> a decoder, an application, and uvicorn."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from whetstone.model_folder import check_model
from whetstone.run.mistakes import install_hint
from whetstone.run.progress import say
from whetstone.serve.offered import is_run, offered

if TYPE_CHECKING:
    from fastapi import FastAPI

    from whetstone.decode.engine import Engine

KEY = "WHETSTONE_API_KEY"
GRACE = 3  # seconds that answers on their way have when the server is told to stop


@dataclass(frozen=True)
class Serving:
    """The options of `whetstone serve`."""

    models: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 8000
    batch: int = 32  # choices that are decoded at once
    queue: int = 256  # and that may wait
    kept: int = 2  # models in memory at once
    cache: float | None = None  # GiB of keys and values of each model
    thinking: bool | None = None
    chat_template: str | None = None
    int8: bool = False
    page: bool = False
    device: str = "auto"


def application_for(serving: Serving, key: str = "") -> "FastAPI":
    """Raises ValueError or OSError for a model that stands for nothing, ImportError without the extra."""
    try:
        from whetstone.serve.app import application
    except ImportError as error:
        raise ImportError(f"whetstone serve needs FastAPI and uvicorn: {install_hint('serve')}") from error
    from whetstone.serve.decoder import Decoder
    from whetstone.serve.service import Service

    runs = tuple(name for name in serving.models if is_run(name))
    for name in serving.models:
        if name not in runs:
            check_model(name)
    decoder = Decoder(lambda name: load(serving, name), serving.batch, serving.kept)
    local = is_loopback(serving.host)
    service = Service(decoder, partial(offered, serving.models), serving.queue, key, local, runs, serving.page)
    return application(service)


def load(serving: Serving, name: str) -> "Engine":
    from whetstone.decode.engine import load_engine
    from whetstone.model_template import open_model

    engine = load_engine(
        open_model(name, serving.chat_template), serving.device, serving.batch, serving.thinking, serving.int8
    )
    if serving.cache is not None:
        engine.runner.cache_bytes = int(serving.cache * (1 << 30))
    return engine


def serve(serving: Serving, key: str = "") -> None:
    """Until Ctrl-C or SIGTERM. Raises ValueError for other machines without a key and for a key that nobody can send, OSError
    for a port that is taken.
    """
    if not is_loopback(serving.host) and not key:
        raise ValueError(
            f"--host {serving.host} lets other machines ask, and no key is set: anybody in the network could use the models. "
            f"Set the environment's {KEY} to a secret of your choice, or leave --host out."
        )
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(
            f"the environment's {KEY} holds white space or letters outside ASCII, which clients cannot send. Set another."
        )
    app = application_for(serving, key)
    import uvicorn

    with _bound(serving.host, serving.port) as opened:
        port = opened.getsockname()[1]
        shown = f"[{serving.host}]" if ":" in serving.host else serving.host
        names = ", ".join(offered(serving.models)) or "none yet"
        say(f"models: {names}")
        say(f"http://{shown}:{port}/v1 for OpenAI's clients" + f"; http://{shown}:{port}/ in a browser" * serving.page)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE, ws="none"
        )
        server = uvicorn.Server(config)
        go = server.handle_exit

        def end(number: int, frame: FrameType | None) -> None:
            app.state.decoder.shut()  # streams end with their error now, so that nobody is waited for
            go(number, frame)

        server.handle_exit = end  # type: ignore[method-assign]
        server.run(sockets=[opened])


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError with the remedy."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise OSError(
            f"{host}, port {port}: {error.strerror or error}. Use another: --port N; 0 takes a free one."
        ) from error
