"""Text of others (models, data, servers, file names) on its way to the terminal: what would steer it is shown instead.

`write_line` is the only `print` of the package; tables, bars and answers pass their text through `visible`.
"""

import json
import logging
import re
import sys
import traceback
import warnings
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, TextIO

# Control characters (C0 without tab and newline, DEL, C1), line and paragraph separators, what turns the direction of
# writing (embeddings, overrides, isolates), and surrogates, which UTF-8 cannot hold
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NOT_ASCII = re.compile(r"[^\x20-\x7e]")
BREAKING = re.compile(f"[\t\n]|{STEERING.pattern}")


def visible(text: str, one_line: bool = False) -> str:
    r"""The text with characters that steer a terminal as escapes. Tabs and newlines stay, except in `one_line`.

    >>> visible("a\x1b[2J\u202eb\n")
    'a\\x1b[2J\\u202eb\n'
    """
    return (BREAKING if one_line else STEERING).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


def write_json_line(text: str, stream: TextIO | None = None) -> None:
    r"""Write a line of JSON. What would steer a terminal is escaped as JSON does it (`\u001b`): a reader gets it back."""
    stream = stream or sys.stdout
    unicode = (stream.encoding or "utf-8").lower().startswith("utf")
    escaped = (STEERING if unicode else NOT_ASCII).sub(lambda match: json.dumps(match[0])[1:-1], text)
    stream.write(escaped + "\n")


def write_line(text: str = "", stream: TextIO | None = None, end: str = "\n") -> None:
    """Write to standard output or another stream."""
    print(visible(text), end=end, file=stream or sys.stdout, flush=stream is not None)


@cache
def guard_libraries() -> None:
    """Make what libraries log, what they warn of, and tracebacks visible too: they quote model folders and data."""
    make_record, format_warning = logging.getLogRecordFactory(), warnings.formatwarning

    def record(*args: Any, **named: Any) -> logging.LogRecord:
        made = make_record(*args, **named)
        with suppress(TypeError, ValueError, KeyError):  # a message that does not fit its values, which logging reports
            made.msg, made.args = visible(made.getMessage()), ()
        return made

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        write_line("".join(traceback.format_exception(kind, error, trace)), sys.stderr, end="")

    logging.setLogRecordFactory(record)
    warnings.formatwarning = lambda *args, **named: visible(format_warning(*args, **named))
    sys.excepthook = show
