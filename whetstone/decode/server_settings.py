"""The settings of an OpenAI-compatible server, its address, and the secrets that are sent to it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pydantic import ConfigDict, Field, NonNegativeFloat, field_validator, model_validator

from whetstone.run.secrets import VARIABLE, from_environment, is_secret, redacted
from whetstone.run.settings import Operational, Settings

PATIENCE = 8  # prompts in a row that may fail for good before the server is given up
CHAT, COMPLETIONS = "/chat/completions", "/completions"
OURS = ("messages", "n", "stream")  # of a request: `extra` may not change them


class Server(Settings):
    """An OpenAI-compatible endpoint and how to use it. `"${NAME}"` in `server` and `extra` is the value of an environment
    variable, so that no secret stands in a recipe.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    server: Annotated[str, Operational] = Field(description="its address up to and including /v1")
    model: str = Field(description="the model's name there")
    key_variable: Annotated[str, Operational] = Field(
        "OPENAI_API_KEY", description="environment variable of the key; empty: no key is sent"
    )
    temperature: float = Field(0.6, ge=0, description="of the answers; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="share of the probability from which tokens are sampled")
    max_tokens: int = Field(16384, ge=1, description="tokens of the longest answer")
    in_flight: Annotated[int, Operational] = Field(32, ge=1, description="requests at once")
    timeout: Annotated[float, Operational] = Field(
        1200, gt=0, le=1e6, description="seconds until a whole answer must have arrived, however slowly it comes"
    )
    retries: Annotated[int, Operational] = Field(6, ge=0, description="of a request that failed")
    longest_pause: Annotated[float, Operational] = Field(
        60, gt=0, le=1e6, description="seconds before a retry, at most"
    )
    opens_thinking: bool = Field(False, description="its template writes <think>, and its answers do not repeat it")
    extra: dict[str, Any] = Field({}, description="sent along with every request, as in { top_k = 20 }")
    prices: Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Operational] = Field(
        (0, 0), description="of a million tokens, in and out"
    )
    budget: float = Field(0, ge=0, description="what may be spent: money if there are prices, else tokens; 0: no limit")

    MOVED: ClassVar[Mapping[str, str]] = {
        "first_pause": "longest_pause: pauses begin at 1 s, or at longest_pause if that is less",
        "patience": f"fixed: a server that fails {PATIENCE} prompts in a row is given up",
        **dict.fromkeys(("price_in", "price_out"), "prices = [of prompts, of completions]"),
        **dict.fromkeys(
            ("api_key", "api_key_env"), 'key_variable = "NAME", an environment variable that holds the key'
        ),
        **dict.fromkeys(("budget_tokens", "budget_money"), "budget: money if there are prices, else tokens"),
    }

    @field_validator("server")
    @classmethod
    def is_an_address(cls, server: str) -> str:
        if not VARIABLE.search(server):
            chat_address(server)
        return server

    @field_validator("key_variable")
    @classmethod
    def is_the_name_of_a_variable(cls, name: str) -> str:
        if not re.fullmatch(r"|[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ValueError(
                "it is the name of an environment variable that holds the key, not the key: "
                'write key_variable = "MY_KEY" and, in the shell, export MY_KEY=…'
            )
        return name

    @field_validator("extra")
    @classmethod
    def can_be_sent(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if fixed := [name for name in OURS if name in extra]:
            raise ValueError(f"{fixed[0]} is not for you to set: each request is one prompt for one whole answer")
        try:
            json.dumps(extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"it is sent as JSON, which cannot hold it ({error})") from None
        return extra

    def require_variables(self) -> None:
        """Raises ValueError for a `${NAME}` that the environment does not have."""
        from_environment([self.server, self.extra])


class ScoringServer(Server):
    """A server that scores the student's tokens. Sampling settings are those of text that it writes (`text = "teacher"`)."""

    top_logprobs: int = Field(
        20, ge=1, le=1000, description="tokens that it lists at each position; most servers allow 20"
    )
    scores_by: Literal["prompt_logprobs", "echo"] = Field(
        "prompt_logprobs", description="how it is asked: vLLM's parameter, or OpenAI's `echo` with `logprobs`"
    )

    @model_validator(mode="after")
    def _scoring_is_asked_for_here(self) -> "ScoringServer":
        if fixed := [
            name for name in ("prompt", "prompt_logprobs", "logprobs", "echo", "max_tokens") if name in self.extra
        ]:
            raise ValueError(f"extra: {fixed[0]} is not for you to set: see top_logprobs and scores_by")
        return self


def request_seed(seed: int, problem_id: str, index: int) -> int:
    """The seed of a request for one completion: its random stream's name in 31 bits."""
    name = f"{seed}/{problem_id}/{index}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") >> 1


def chat_address(server: str, path: str = CHAT) -> str:
    """Where requests are sent. Raises ValueError if `server` is no address."""
    try:
        parts = urlsplit(server)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or any(not c.isprintable() or c == " " for c in server):
        raise ValueError(f"server = {redacted(server)!r} is not an address: write it as in http://127.0.0.1:8000/v1")
    base = parts.path.rstrip("/")
    if base.endswith("/completions"):
        extra = CHAT if base.endswith(CHAT) else COMPLETIONS
        raise ValueError(f"server = {redacted(server)!r}: leave out {extra}, which is added")
    return urlunsplit(parts._replace(path=base + path, fragment=""))


def secrets_of(server: str, extra: dict[str, Any]) -> list[str]:
    """The secret texts in an address and in what is sent along, the longest first."""
    return sorted({*_in_address(server), *_in_table(extra)} - {""}, key=len, reverse=True)


def _in_address(server: str) -> Iterator[str]:
    """The secrets of an address, in the forms in which they are sent."""
    parts = urlsplit(server)
    if parts.password or parts.username:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        yield from (parts.password or parts.username, password or user)
        yield base64.b64encode(f"{user}:{password}".encode()).decode()
    for name, value in parse_qsl(parts.query):
        if redacted(f"?{name}=x") != f"?{name}=x":
            yield value


def _in_table(value: Any, key: str = "") -> Iterator[str]:
    """The secret texts of `extra`."""
    for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
        inner = key if isinstance(value, list) or is_secret(key) else str(name)
        if isinstance(entry, dict | list):
            yield from _in_table(entry, inner)
        elif isinstance(entry, str) and redacted(entry, inner) != entry:
            yield entry
