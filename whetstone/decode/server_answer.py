"""What a server answered: bytes -> JSON -> completion. Nothing in it is trusted.

An answer has at most LARGEST bytes, compressed and uncompressed. It is one JSON object with one choice, whose text is a string,
or parts of text, and whose `finish_reason` is a known one. A number of tokens that cannot be right is no number: the caller
estimates it. Log-probabilities and ids of tokens are not asked for and not read here (server_scorer.py).
"""

import json
import zlib
from collections.abc import Callable
from typing import Any

from whetstone.records import Completion, Prompt

LARGEST = 16 << 20  # bytes
MOST_TOKENS = 10_000_000  # that an answer may claim to have used
ENDS = {None, "stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "completed"}
LENGTHS = {"length", "max_tokens", "max_length", "model_length"}
SHOWN = 300  # characters of a server's answer in a message
BYTES_PER_TOKEN = 3  # of text, for an estimate that is rather too high


class Unusable(ValueError):
    """The answer holds no completion; the text says why."""


async def read_body(response: Any) -> bytes:
    """The body of an httpx response, uncompressed."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        _check_size(body)
    codings = response.headers.get("Content-Encoding", "").split(",")
    for coding in reversed([coding.strip().casefold() for coding in codings]):
        if coding not in ("", "identity"):
            body = _uncompressed(body, coding)
    return bytes(body)


def _check_size(body: bytes | bytearray) -> None:
    if len(body) > LARGEST:
        raise Unusable(f"an answer of more than {LARGEST >> 20} MiB")


def _uncompressed(body: bytes | bytearray, coding: str) -> bytes:
    """At most LARGEST bytes. Servers are asked for plain bodies, and some compress all the same."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Unusable(f"an answer with Content-Encoding {coding[:20]!r}, though none was asked for")
    raw = coding == "deflate" and body[:1] != b"\x78"  # some send deflate without zlib's header
    stream = zlib.decompressobj(-15 if raw else 47)
    try:
        plain = stream.decompress(body, LARGEST + 1)
    except zlib.error as error:
        raise Unusable(f"an answer that is not {coding}, as its Content-Encoding says ({error})") from None
    _check_size(plain)
    if not stream.eof:
        raise Unusable(f"an answer whose {coding} is cut off")
    return plain


def excerpt(body: bytes, hidden: Callable[[str], str]) -> str:
    """The beginning of an answer on one line, without secrets and control characters."""
    text = hidden(body[: 64 * SHOWN].decode(errors="replace"))
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN else line[:SHOWN] + " …"


def read_completion(prompt: Prompt, body: bytes, opened: bool = False) -> Completion:
    """The completion in a body. `opened`: the server's prompt ends inside the thinking, and its answers do not repeat the tag.

    Its usage is (-1, -1) if the server's numbers of tokens cannot be right.
    """
    answer = read_json(body)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Unusable("no choices")
    if len(choices) > 1:
        raise Unusable(f"{len(choices)} choices, though one was asked for")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Unusable("a choice without a message")
    thinking = _text(message.get("reasoning_content") or message.get("reasoning"), "reasoning_content")
    text = _text(message.get("content"), "content")
    stop = _stop(choice.get("finish_reason"), empty=not (text or thinking))
    text = _with_thinking(text, thinking, stop, opened)
    return Completion(prompt.problem_id, prompt.index, text, stop, usage=_usage(answer.get("usage"), text))


def _with_thinking(text: str, thinking: str, stop: str, opened: bool) -> str:
    """The answer after its thinking, which begins with its tag, and ends with one unless it was cut off."""
    before, closed, _ = text.partition("</think>")
    if thinking and not closed:
        cut = not text and stop == "length"
        return f"<think>\n{thinking.strip()}" + ("" if cut else f"\n</think>\n\n{text.strip()}")
    begun = closed or (opened and text)  # thinking that the prompt opened
    return f"<think>\n{text.lstrip()}" if begun and "<think>" not in before else text


def read_json(body: bytes) -> Any:
    """JSON is UTF-8, UTF-16 or UTF-32, with or without a byte order mark, whatever a header says."""
    try:
        return json.loads(body)
    except RecursionError:
        raise Unusable("JSON that is nested too deeply") from None
    except UnicodeDecodeError:
        raise Unusable("text in another encoding than UTF-8") from None
    except ValueError:
        stream = body.lstrip().startswith((b"data:", b"event:"))
        raise Unusable("a stream of events, though none was asked for" if stream else "no JSON") from None


def _text(value: Any, name: str) -> str:
    """A string or a list of text parts; "" for None. A half of a surrogate pair, which no file can hold, becomes U+FFFD."""
    if isinstance(value, list):
        wrong = [part for part in value if not isinstance(part, dict) or not isinstance(part.get("text"), str)]
        if wrong:
            kind = wrong[0].get("type") if isinstance(wrong[0], dict) else wrong[0]
            raise Unusable(f"{name} with a part that is no text ({str(kind)[:40]!r})")
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str | None):
        raise Unusable(f"{name} that is no text but of type {type(value).__name__}")
    return (value or "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _stop(reason: Any, empty: bool) -> str:
    known = reason.casefold() if isinstance(reason, str) else reason
    if isinstance(known, list | dict) or known not in ENDS | LENGTHS:
        raise Unusable(f"finish_reason = {str(reason)[:40]!r}")
    if empty and reason is None:
        raise Unusable("neither content nor reasoning_content")
    return "length" if known in LENGTHS else "end"


def _usage(usage: Any, text: str) -> tuple[int, int]:
    """Tokens of prompt and completion; (-1, -1) if they cannot be right."""
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    right = [type(count) in (int, float) and 0 <= count <= MOST_TOKENS and count == int(count) for count in counts]
    if not counts or not all(right) or (text and not counts[1]):
        return -1, -1
    return int(counts[0]), int(counts[1])


def estimated_usage(prompt: Prompt, text: str) -> tuple[int, int]:
    """Tokens of prompt and completion by the length of their texts."""
    texts = "".join(message.content for message in prompt.messages), text
    prompt_tokens, tokens = (-(-len(part.encode(errors="replace")) // BYTES_PER_TOKEN) for part in texts)
    return prompt_tokens, tokens
