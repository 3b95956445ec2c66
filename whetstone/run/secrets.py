"""Secrets in a recipe: found by the name of their key or by their form, and left out of all that is written or shown.

    redacted({"api_key": "sk-1", "top_k": 20})          # {"api_key": "[redacted]", "top_k": 20}
    redacted("https://me:pass@host/v1?token=abc&n=1")   # "https://[redacted]@host/v1?token=[redacted]&n=1"

`run/settings.py` applies `redacted` wherever settings become JSON or text, so the manifests, run.json, the report and the
trackers hold no secret and no hash of one. A changed secret makes no stage stale. A recipe that names an environment
variable, `"${NAME}"`, holds no secret at all.
"""

# ruff: noqa: SIM905 (lists of names read better as text)

import html
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"
VARIABLE = re.compile(r"\$\{(\w+)\}")

# In the words of a key: `apiKey`, `x-api-key` and `API_KEY` are all api_key
_ALWAYS = (
    "password passwd passphrase passcode pwd secret secrets credential credentials authorization bearer cookie apikey jwt"
).split()
_KEYS = (
    "api access private subscription account auth signing encryption license server service client master admin "
    "openai anthropic azure google gemini groq mistral deepseek together fireworks openrouter nvidia xai cohere"
).split()
_TOKENS = "api access auth hf hub huggingface bearer refresh id session security github gitlab wandb personal".split()

# Of texts. The password of an address may hold a slash; its port is no password
_ADDRESS = re.compile(r"(?<=//)(?:[^\s/?#]*|[^\s/?#:@]*:(?!\d+[/?#])[^\s@]*)@")
_ASSIGNED = re.compile(r"([\w-]+)(?:=[\"']?|[\"']\s?:\s?[\"'])(?=[^\s&\"',;#])")
_VALUE = re.compile(r"\$\{\w+\}|[^\s&\"',;#]+")
_QUERY = re.compile(
    r"(?<=[?&])(?:key|sig|signature|code)=(?!\$\{)[^\s&#\"']+", re.I
)  # elsewhere these names have other uses
_SHAPES = re.compile(
    r"\b(?:sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}"
    r"|gsk_\w{20,}|xai-[\w-]{20,}|nvapi-[\w-]{20,}|glpat-[\w-]{20,}|r8_\w{20,}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*)|(?<=\bBearer )[^\s\"',]+|(?<=\bBasic )[A-Za-z0-9+/=]{8,}"
)


def without(text: str, secret: str, shown: str = REDACTED) -> str:
    """The text with `shown` for the secret, whether it stands there as it is or escaped for JSON, an address or HTML.

    >>> without(r'{"error": "no such key: ab\\/cd\\u002be"}', "ab/cd+e")
    '{"error": "no such key: [redacted]"}'
    """
    return _spellings(secret).sub(lambda _: shown, text) if secret else text


@lru_cache(64)
def _spellings(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spellings_of, secret)))


def _spellings_of(character: str) -> str:
    """Of one character: itself, behind a backslash, `\\u002f`, `%2F`, `&#47;` or `&#x2f;`."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    in_json = "".join(rf"\\+u{units[i : i + 4]}" for i in range(0, len(units), 4))
    in_address = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    in_html = f"&#0*{ord(character)};|&#x0*{ord(character):x};"
    named = html.escape(character)
    return rf"(?:\\*{re.escape(character)}|{re.escape(named)}|(?i:{in_json}|{in_address}|{in_html}))"


def is_secret(key: str) -> bool:
    """Whether a key of this name holds a secret.

    >>> [is_secret(key) for key in ("x-api-key", "authToken", "token", "max_tokens", "stop_token", "key_variable")]
    [True, True, True, False, False, False]
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).casefold()
    *before, last = re.split(r"[^a-z0-9]+", words.strip("-_. ")) or [""]
    above = before[-1] if before else ""
    if last == "token":
        return not above or above in _TOKENS
    return any(word in _ALWAYS for word in (*before, last)) or (last == "key" and above in _KEYS)


def redacted(value: Any, key: str = "") -> Any:
    """A copy of plain data (tables, lists, texts, numbers) without secrets; `key` is the name that the value has.

    >>> redacted([{"headers": {"Authorization": "Bearer abc"}}, "--set=teacher.extra.api_key=abc"])
    [{'headers': {'Authorization': '[redacted]'}}, '--set=teacher.extra.api_key=[redacted]']
    """
    if isinstance(value, dict):
        inner = key if is_secret(key) else ""
        return {name: redacted(entry, inner or str(name)) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(entry, key) for entry in value) if type(value) in (list, tuple) else value
    if is_secret(key) and value not in ("", None) and not isinstance(value, bool):
        return value if isinstance(value, str) and VARIABLE.fullmatch(value) else REDACTED
    return _without_secrets(value) if isinstance(value, str) else value


def _without_secrets(text: str) -> str:
    text = _ADDRESS.sub(lambda found: found[0] if _is_variable(found[0]) else f"{REDACTED}@", text)
    text = _QUERY.sub(lambda found: f"{found[0].partition('=')[0]}={REDACTED}", text)
    text, whole = "", _SHAPES.sub(REDACTED, text)
    end = 0
    for found in _ASSIGNED.finditer(whole):
        if found.start() >= end and is_secret(found[1]):
            value = _VALUE.match(whole, found.end())[0]
            text += whole[end : found.end()] + (value if VARIABLE.fullmatch(value) else REDACTED)
            end = found.end() + len(value)
    return text + whole[end:]


def _is_variable(userinfo: str) -> bool:
    """Whether the password of an address's `user:password@`, or its user if it has none, is an environment variable's."""
    user, _, password = userinfo.removesuffix("@").partition(":")
    return bool(VARIABLE.fullmatch(password or user))


def literal_secrets(value: Any, name: str = "") -> Iterator[str]:
    """The dotted names of the values in a table that hold a secret as it is.

    >>> list(literal_secrets({"teacher": {"server": "http://me:pass@host/v1", "extra": {"api_key": "${MY_KEY}"}}}))
    ['teacher.server']
    """
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from literal_secrets(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from literal_secrets(entry, f"{name}[{number}]")
    elif value != redacted(value, re.sub(r"\[\d+\]$", "", name).rpartition(".")[2]):
        yield name


def from_environment(value: Any) -> Any:
    """A copy with the value of the environment variable in place of every `${NAME}`. Raises ValueError if it is not set."""
    if isinstance(value, dict):
        return {key: from_environment(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [from_environment(entry) for entry in value]
    return VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(found: re.Match[str]) -> str:
    try:
        return os.environ[found[1]]
    except KeyError:
        raise ValueError(
            f"The recipe names the environment variable {found[1]} (as {found[0]}), which is not set. "
            f"Set it: export {found[1]}=…"
        ) from None
