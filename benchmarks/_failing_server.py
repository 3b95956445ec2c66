"""An OpenAI-compatible server that fails in every way that docs/data.md lists, and then answers.

    python -m benchmarks._failing_server PORT SHARE LOG

A request is known by its question and its seed, and its answer follows from them alone. SHARE of the tries of a request fail,
its last one of TRIES aside, each in a way that follows from the request and the number of the try. LOG gets a line for each
request: its name and what it got. With a file LOG.key beside it, every request is answered with 401.
"""

import asyncio
import gzip
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRIES = 4  # of a request that may fail
SLOW = 8.0  # seconds; the client waits less
LARGEST = 16 << 20
GOOD, ODD_USAGE = "good", "good, with impossible numbers of tokens"
_WORDS = "so then we add both numbers and check the sum again because it follows that nothing else is asked for here"
WORDS = _WORDS.split()


def answer_to(question: str, seed: int) -> str:
    """A right or a wrong chain of thought of 200 to 2,200 characters."""
    digest = hashlib.sha256(f"{question}/{seed}".encode()).digest()
    a, b = (int(word) for word in question.split() if word.isdecimal())
    thoughts = " ".join(WORDS[digest[i % 32] % len(WORDS)] + str(i) * (i % 7 == 0) for i in range(40 + digest[0]))
    wrong = digest[1] % 3 == 0
    return f"<think>\n{thoughts}, {a} + {b} = {a + b}\n</think>\n\nThe answer is \\boxed{{{a + b + wrong}}}."


def completion(text: str, stop: str = "stop", usage: Any = None) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": stop}
    usage = {"prompt_tokens": 30, "completion_tokens": len(text) // 4} if usage is None else usage
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def response(body: bytes | dict[str, Any], status: str = "200 OK", head: str = "", length: int | None = None) -> bytes:
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    return (
        f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body
    )


def _failures() -> dict[str, Callable[[bytes], bytes]]:
    """Name -> what is sent instead of a good body. The connection is closed after it."""
    page = b"<html><body>Bad gateway</body></html>"
    json_of = json.loads

    def changed(**fields: Any) -> Callable[[bytes], bytes]:
        return lambda good: response(json_of(good) | fields)

    def choice(**fields: Any) -> Callable[[bytes], bytes]:
        return lambda good: response({**json_of(good), "choices": [json_of(good)["choices"][0] | fields]})

    statuses = {
        f"status {status}": lambda good, status=status: response(b"busy", f"{status} x")
        for status in (408, 409, 425, 500, 503, 504)
    }
    return {
        **statuses,
        "status 429 with a pause": lambda good: response(b"slower", "429 x", "Retry-After: 0.02\r\n"),
        "status 429 with a date": lambda good: response(b"", "429 x", "Retry-After: Mon, 02 Jan 2006 15:04:05 GMT\r\n"),
        "status 500 with a pause that is none": lambda good: response(b"", "500 x", "Retry-After: never\r\n"),
        "status 502 with a page": lambda good: response(page, "502 x", "Content-Type: text/html\r\n"),
        "status 204": lambda good: response(b"", "204 No Content"),
        "a closed connection": lambda good: b"",
        "a cut-off head": lambda good: b"HTTP/1.1 200",
        "no HTTP": lambda good: b"SSH-2.0-OpenSSH_9.6\r\n",
        "a cut-off body": lambda good: response(good[: len(good) // 2], length=len(good)),
        "broken chunks": lambda good: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "a page with status 200": lambda good: response(page),
        "half of a JSON text": lambda good: response(good[: len(good) // 2]),
        "deeply nested JSON": lambda good: response(b"[" * 100_000),
        "an empty body": lambda good: response(b""),
        "latin-1": lambda good: response('{"é": 1}'.encode("latin-1")),
        "an error with status 200": changed(choices=None, error={"message": "overloaded"}),
        "no choices": changed(choices=[]),
        "two choices": lambda good: response({**json_of(good), "choices": json_of(good)["choices"] * 2}),
        "a choice without a message": choice(message=None),
        "content that is a number": choice(message={"content": 7}),
        "an unknown end": choice(finish_reason="banana"),
        "filtered": choice(finish_reason="content_filter"),
        "an empty answer": choice(message={"role": "assistant", "content": ""}),
        "a stream of events": lambda good: response(b"data: " + good + b"\n\ndata: [DONE]\n\n"),
        "gzip that is none": lambda good: response(good, head="Content-Encoding: gzip\r\n"),
        "gzip cut off": lambda good: response(gzip.compress(good)[:-9], head="Content-Encoding: gzip\r\n"),
        "an unknown coding": lambda good: response(good, head="Content-Encoding: br\r\n"),
    }


FAILURES = _failures()
RARE = ("an answer of 17 MiB", "an answer that comes too late")
RARITY = 300  # of so many failures one is of these


def outcome(question: str, seed: int, attempt: int, share: float) -> str:
    """What this try of a request gets."""
    digest = hashlib.sha256(f"{attempt}/{question}/{seed}".encode()).digest()
    if attempt < TRIES and int.from_bytes(digest[:4], "big") < share * 2**32:
        kind = int.from_bytes(digest[4:8], "big")
        return RARE[kind // RARITY % 2] if kind % RARITY == 0 else list(FAILURES)[kind % len(FAILURES)]
    return ODD_USAGE if share and digest[8] % 8 == 0 else GOOD


class FailingServer:
    """One event loop serves all connections. `log` is called with each request's name and what it got."""

    def __init__(self, share: float, log: Callable[[str, str], None], locked: Callable[[], bool] = lambda: False):
        self.share, self.log, self.locked = share, log, locked
        self.tries: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                if not await self._answer(json.loads(await reader.readexactly(length)), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        question, seed = body["messages"][-1]["content"], body["seed"]
        name = hashlib.sha256(f"{question}/{seed}".encode()).hexdigest()[:16]
        if self.locked():
            self.log(name, "status 401")
            writer.write(response(b"no", "401 x"))
            await writer.drain()
            return True
        self.tries[name] += 1
        kind = outcome(question, seed, self.tries[name], self.share)
        self.log(name, kind)
        usage = {"prompt_tokens": -1, "completion_tokens": "many"} if kind == ODD_USAGE else None
        good = json.dumps(completion(answer_to(question, seed), usage=usage)).encode()
        if kind in (GOOD, ODD_USAGE):
            writer.write(response(good))
        elif kind == RARE[0]:
            writer.write(response(bytes(LARGEST + (1 << 20))))
        elif kind == RARE[1]:
            await asyncio.sleep(SLOW)
        else:
            writer.write(FAILURES[kind](good))
        await writer.drain()
        return kind in (GOOD, ODD_USAGE)


async def main(port: int, share: float, log: Path) -> None:
    with log.open("ab", buffering=0) as out:
        server = FailingServer(
            share, lambda name, kind: out.write(f"{name} {kind}\n".encode()), Path(f"{log}.key").exists
        )
        async with await asyncio.start_server(server.serve, "127.0.0.1", port, limit=1 << 20) as running:
            await running.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])))
