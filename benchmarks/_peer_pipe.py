"""The peer's end of `_piped.Piped`, for a script in an environment of its own: it imports nothing of the project."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


def take_output() -> TextIO:
    """Standard output, for answers alone: what libraries print goes to standard error from now on."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def serve(pipe: TextIO, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Say that it is ready, then answer each line of work with a line until the work ends."""
    pipe.write(json.dumps({"ready": True}) + "\n")
    pipe.flush()
    for line in sys.stdin:
        pipe.write(json.dumps(answer(json.loads(line))) + "\n")
        pipe.flush()
