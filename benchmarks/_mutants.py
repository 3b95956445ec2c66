"""Mutants of what users bring, as hypothesis strategies: recipes, rows, files of a run folder, answers of a server."""

import json
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

NASTY = (
    "", " ", "../../x", "/etc/x", "a/b", ".", "..", "x\ny", "x\x00y", "\x1b[31mred\x1b[0m", "[red]", "[/]", "\u202eabc",
    "\ud800", "nan", "None", "True", "{'a': 1}", "<|end|>", "<think>", r"\boxed{}", "42", "-1", "1e400", "²", "٣", "x" * 5000,
    "\ufeff", "CON",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    10**14,
    -(10**20),
    2**63,
    2**64,
    0.0,
    -0.0,
    0.5,
    1.5,
    -0.1,
    1e-320,
    1e308,
    1e999,
    -1e999,
    float("nan"),
)

texts = st.sampled_from(NASTY) | st.text(max_size=20)
scalars = st.sampled_from(NUMBERS) | texts | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
DEEP = 100_000


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """One cut, flipped, doubled, inserted or removed stretch."""
    at = draw(st.integers(0, len(content)))
    end = min(len(content), at + draw(st.sampled_from((1, 1, 2, 7, 50))))
    inserted = draw(
        st.sampled_from((b"\xff\xfe", b"\x00", b"\xef\xbb\xbf", b"\n", b'"', b"}", b"[", b"\\ud800", b"'", b",", b"="))
    )
    match draw(st.integers(0, 5)):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes(byte ^ 0x15 for byte in content[at:end]) + content[end:]
        case 2:
            return content[:end] + content[at:end] + content[end:]
        case 3:
            return content[:at] + inserted + content[at:]
        case 4:
            return content[:at] + content[end:]
        case _:
            return draw(
                st.sampled_from(
                    (b"", b"[]", b"{}", b"null", b"0", b"[" * DEEP, content * 2, b"\xff" * 9, content[::-1])
                )
            )


# --- recipes

TOML_VALUES = (
    "0", "1", "-1", "100000000000000", "1e14", "0.5", "-0.0", "nan", "inf", "true", "false", '""', '" "',
    '"../../x"', '"/x"', '"x\\ny"', '"\\u0000"', '"\\u001b[31m"', '"[red]"', '"[/]"', "[]", "[1, 2]", "[[]]",
    '["a", "b"]', "{}", "{ a = 1 }", "{ name = 1 }", "1979-05-27", "07:32:00", '"^"', '"+"', '"sft"',
    '"midtrain"', '"grpo"', '"nobody.py:f"', "[true]", '[""]', "[nan]", '{ kind = "procedural" }', "0x10",
    "9223372036854775808", "'''a\nb'''", "[" * 3000 + "]" * 3000,
)  # fmt: skip
ASSIGNMENT = re.compile(r"^(\s*)([\w.\"-]+)(\s*=\s*)(.+)$")


@st.composite
def recipes(draw: st.DrawFn, sources: Sequence[str]) -> bytes:
    """One to three changes of a recipe's lines, or of its bytes."""
    text = draw(st.sampled_from(sources))
    if draw(st.integers(0, 5)) == 0:
        return draw(spoilt_bytes(text.encode()))
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        settable = [number for number, line in enumerate(lines) if ASSIGNMENT.match(line)]
        at = draw(st.sampled_from(settable)) if settable else 0
        match = ASSIGNMENT.match(lines[at])
        if match is None:
            break
        indent, key, equals, value = match.groups()
        change = draw(st.integers(0, 9))
        if change < 6:
            value = draw(st.sampled_from(TOML_VALUES))
        elif change == 6:
            key += draw(st.sampled_from(("s", "x", ".x", "_")))
        lines[at] = f"{indent}{key}{equals}{value}"
        if change == 7:
            del lines[at]
        elif change == 8:
            lines.insert(
                at,
                draw(
                    st.sampled_from((lines[at], "[[stage]]", "[stage]", "[run]", "[scores]", "[x]", "[[stage.source]]"))
                ),
            )
        elif change == 9:
            lines.append(lines.pop(at))
    return "\n".join(lines).encode()


# --- JSON, of rows, manifests and answers


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of a JSON value, itself first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in paths_of(part, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with one place replaced by a wild one, left out, or doubled."""
    value = json.loads(json.dumps(value))
    path = draw(st.sampled_from(paths_of(value)))
    if not path:
        return draw(values)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    last = path[-1]
    match draw(st.integers(0, 4)):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, list):
            holder.append(holder[last])
        case 2 if isinstance(holder[last], int | float):
            holder[last] = -holder[last]
        case _:
            holder[last] = draw(values)
    return value


def as_json(value: Any) -> bytes:
    """Lone surrogates stay escapes, as a server or `json.dump` writes them."""
    return json.dumps(value).encode()


@st.composite
def json_files(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON or JSON-lines file with one value changed, or spoilt bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(spoilt_bytes(content))
    try:
        return as_json(draw(changed(json.loads(content))))
    except ValueError:
        lines = content.splitlines()
        at = draw(st.integers(0, len(lines) - 1)) if lines else 0
        return b"\n".join(
            [*lines[:at], *(as_json(draw(changed(json.loads(line)))) for line in lines[at : at + 1]), *lines[at + 1 :]]
        )


# --- HTTP answers

STATUSES = (
    "200 OK",
    "200 OK",
    "200 OK",
    "200 OK",
    "204 No Content",
    "301 Moved",
    "400 Bad",
    "401 No",
    "403 No",
    "404 None",
    "429 Slow",
    "500 Oops",
    "503 Busy",
)
HEADERS = (
    "Content-Type: application/json; charset=utf-7", "Content-Type: text/html; charset=klingon",
    "Content-Encoding: gzip", "Content-Encoding: deflate", "Content-Encoding: br",
    "Transfer-Encoding: chunked", "Retry-After: nan", "Retry-After: -5", "Retry-After: 1e400",
    "Retry-After: Wed, 99 Foo", "Location: http://127.0.0.1:9/",
    "Content-Type: application/json; charset=utf-16", "X: \x1b[31m", "Content-Type: text/event-stream",
)  # fmt: skip


@st.composite
def answers(draw: st.DrawFn, body: dict[str, Any]) -> bytes:
    """The bytes of an HTTP response around a changed or spoilt body."""
    content = as_json(draw(changed(body))) if draw(st.booleans()) else draw(json_files(as_json(body)))
    status = draw(st.sampled_from(STATUSES))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2))
    length = len(content) + draw(st.sampled_from((0, 0, 0, 0, 5, -3)))
    if not any(header.startswith("Transfer") for header in headers):
        headers.append(f"Content-Length: {max(0, length)}")
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""])
    return head.encode() + content
