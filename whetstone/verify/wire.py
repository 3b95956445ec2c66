"""Messages between us and our children: four bytes of length, then JSON. Both ends read and write them here.

Only the standard library: a child imports this before it has shut itself in.
"""

import json
import os
import select
import struct
import time
from collections.abc import Sequence
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
    return first_readable((descriptor,), seconds) is not None


def first_readable(descriptors: Sequence[int], seconds: float) -> int | None:
    """The first of the descriptors with something to read, or at its end; None when none is within so many seconds."""
    if seconds <= 0:
        return None
    poll = select.poll()  # unlike select(), also for descriptors above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poll.poll(max(1, int(seconds * 1000)))}
    return next((descriptor for descriptor in descriptors if descriptor in ready), None)


def as_table(text: str) -> dict[str, Any] | None:
    """A JSON object that someone untrusted wrote; None where it is none."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None
