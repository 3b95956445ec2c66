"""Messages between us and our children: four bytes of length, then JSON. Both ends read and write them here.

Only the standard library: a child imports this before it has shut itself in.
"""

import json
import os
import select
import struct
import time
from typing import Any


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Writes a message whole. OSError when no one reads any more."""
    body = json.dumps(message).encode()
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor: int, deadline: float | None = None) -> dict[str, Any] | None:
    """The next message; None at the end of input. TimeoutError past `deadline` (of `time.monotonic`)."""
    head = _read(descriptor, 4, deadline)
    body = _read(descriptor, struct.unpack(">I", head)[0], deadline) if head else b""
    return json.loads(body) if body else None


def _read(descriptor: int, wanted: int, deadline: float | None) -> bytes:
    data = b""
    while len(data) < wanted:
        if deadline is not None and not readable(descriptor, deadline - time.monotonic()):
            raise TimeoutError
        piece = os.read(descriptor, wanted - len(data))
        if not piece:
            return b""
        data += piece
    return data


def readable(descriptor: int, seconds: float) -> bool:
    """Is there something to read, or the end, within so many seconds?"""
    if seconds <= 0:
        return False
    poll = select.poll()  # unlike select(), also for descriptors above 1023
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(1, int(seconds * 1000))))


def as_table(text: str) -> dict[str, Any] | None:
    """A JSON object that someone untrusted wrote; None where it is none."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None
