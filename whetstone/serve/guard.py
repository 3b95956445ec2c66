"""What every request passes first: who may ask, and how much it may send."""

import re
import secrets

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whetstone.serve import answers
from whetstone.serve.requests import BadRequest
from whetstone.serve.service import Service

LARGEST_BODY = 8 << 20  # bytes
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """In front of everything: the key, the size of a body, and pages of other sites in this machine's browser."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
            if scope["method"] == "POST":
                receive = _once(await _body(headers, receive), receive)
        except BadRequest as error:
            extra = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            await JSONResponse(answers.error_body(error), error.status, extra)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises BadRequest. The page itself holds no secret: what it asks for needs the key."""
        host = headers.get("host", "")
        if self.service.local and re.sub(r":\d+$", "", host) not in LOOPBACK:
            raise BadRequest(f"the host {host[:100]!r} is not this machine's: ask for localhost.", status=403)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise BadRequest("pages of other sites may not use this server.", code="foreign_origin", status=403)
        secret = scope["path"].startswith(("/v1/", "/run"))
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self.service.key and secret and not secrets.compare_digest(given, self.service.key.encode()):
            raise BadRequest("the API key is missing or wrong.", code="invalid_api_key", status=401)


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    """Raises BadRequest if it is too long, without reading it to its end."""
    body, more = bytearray(), True
    length = headers.get("content-length", "0")
    while more and len(body) <= LARGEST_BODY and length.isdecimal() and int(length) <= LARGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if more:
        raise BadRequest(f"the body has more than {LARGEST_BODY >> 20} MiB.", status=413)
    return bytes(body)


def _once(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body, then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again
