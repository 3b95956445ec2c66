"""Messages between this process and its children: four bytes of length, then JSON. Both ends use these functions.

Only the standard library is imported: a child imports this file before it isolates itself.
"""

import json
import os
import select
import struct
import time
from collections.abc import Sequence
from typing import Any

PATIENCE = 5  # seconds of wall time that a second of processor time may take on a busy machine


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Writes a whole message. Raises OSError if the other end is closed."""
    body = json.dumps(message).encode()
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor: int, deadline: float | None = None) -> dict[str, Any] | None:
    """The next message; None at the end of the input. Raises TimeoutError after `deadline` (of `time.monotonic`)."""
    head = _read(descriptor, 4, deadline)
    body = _read(descriptor, struct.unpack(">I", head)[0], deadline) if head else b""
    return json.loads(body) if body else None


def _read(descriptor: int, length: int, deadline: float | None) -> bytes:
    """So many bytes; b"" if the input ends before."""
    data = bytearray()
    while len(data) < length:
        if deadline is not None and not readable(descriptor, deadline - time.monotonic()):
            raise TimeoutError
        piece = os.read(descriptor, length - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)


def readable(descriptor: int, seconds: float) -> bool:
    """Whether the descriptor has input, or is at its end, within so many seconds."""
    return first_readable((descriptor,), seconds) is not None


def first_readable(descriptors: Sequence[int], seconds: float) -> int | None:
    """The first descriptor that has input, or is at its end; None if none has within so many seconds."""
    if seconds <= 0:
        return None
    poll = select.poll()  # select.select() takes no descriptor above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poll.poll(max(1, int(seconds * 1000)))}
    return next((descriptor for descriptor in descriptors if descriptor in ready), None)


def as_table(text: str) -> dict[str, Any] | None:
    """The JSON object in untrusted text; None if it holds none."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None
