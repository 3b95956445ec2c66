"""What a client asks for, checked: OpenAI's chat completions and completions, with a few settings more.

A parameter that would change the answer and that this server does not know is refused, with its name. Those that change nothing
(`user`, `metadata`, `store`, …) and those at their neutral value (`tools: []`, `presence_penalty: 0`) are accepted. A null is
a parameter that is not given.

Beyond OpenAI's: `top_k`, `min_p`, `repetition_penalty`, `stop_token_ids` and `chat_template_kwargs` as in vLLM; `think_most`
and `think_least` (tokens of thinking), `beams` (beam search) and `as_trained` (the prompt of training is put around what the
user says).
"""

import json
import math
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whetstone.records import Message, Sampling
from whetstone.run.mistakes import shown, suggestion
from whetstone.template import SWITCHES

MOST_CHOICES = 64  # of a request: its prompts times n
MOST_LIKELIEST = 20  # alternatives per token
IGNORED = frozenset(  # they say nothing about the answer
    (
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "parallel_tool_calls",
    )
)  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {  # what this server cannot do, and the values that do not ask for it
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "suffix": ("",),
    "web_search_options": (),
    "prediction": (),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "chat_template_kwargs": ({},),  # of completions: a chat takes them
}
REMEDY = {
    "reasoning_effort": "Use think_most and think_least, the bounds of its thinking in tokens.",
    "chat_template_kwargs": "Ask for a chat completion: a completion's prompt has no template.",
    "frequency_penalty": "Use repetition_penalty.",
    "presence_penalty": "Use repetition_penalty.",
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class BadRequest(ValueError):
    """A request that cannot be answered: HTTP status, OpenAI's code, and the parameter."""

    def __init__(self, why: str, param: str | None = None, code: str | None = None, status: int = 400):
        super().__init__(why)
        self.param, self.code, self.status = param, code, status


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")  # clients send back whole messages, with their empty fields
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Any] | None = None


class Request(BaseModel):
    """What both kinds of request have. None: the model's own value, or else OpenAI's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = ""
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100, allow_inf_nan=False)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = {}
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stop: str | list[str] = []
    stop_token_ids: list[int] = []
    seed: int | None = None
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens are wanted for each token; None: no log-probabilities."""
        raise NotImplementedError

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """(id, number added to its logit). Raises BadRequest."""
        return tuple((_token(name), value) for name, value in self.logit_bias.items())

    def sampling(self, own: Sampling, room: int) -> Sampling:
        """`own` holds the model's values for what is not given, `room` the tokens that are left for an answer."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        return Sampling(
            temperature=own.temperature if self.temperature is None else self.temperature,
            top_p=own.top_p if self.top_p is None else self.top_p,
            top_k=own.top_k if self.top_k is None else max(0, self.top_k),  # -1 is vLLM's "all"
            max_tokens=room if self.max_tokens is None else self.max_tokens,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            bias=self.biases,
            stop=tuple(stop for stop in stops if stop),
            stop_ids=tuple(self.stop_token_ids),
        )


class ChatRequest(Request):
    messages: list[_Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)
    think_most: int | None = Field(None, ge=1)
    think_least: int = Field(0, ge=0)
    beams: int = Field(1, ge=1, le=MOST_CHOICES)
    as_trained: bool = False
    chat_template_kwargs: dict[str, Any] = {}

    @property
    def thinking(self) -> bool | None:
        """The chat template's switch; None: as the server was started. Raises BadRequest."""
        values = set()
        for name, value in self.chat_template_kwargs.items():
            if name not in SWITCHES or not isinstance(value, bool):
                why = f"chat_template_kwargs: {name} = {shown(value)}: it takes {SWITCHES[0]}, true or false."
                raise BadRequest(why, "chat_template_kwargs")
            values.add(value)
        if len(values) > 1:
            raise BadRequest(
                f"chat_template_kwargs: {' and '.join(SWITCHES)} differ: give one.", "chat_template_kwargs"
            )
        return next(iter(values), None)

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def turns(self) -> tuple[Message, ...]:
        return tuple(_message(turn, f"messages[{number}]") for number, turn in enumerate(self.messages))


class TextRequest(Request):
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)
    echo: bool = False
    best_of: int | None = None

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    def prompts(self) -> list[str | list[int]]:
        """Each a text or ids."""
        alone = isinstance(self.prompt, str) or (bool(self.prompt) and isinstance(self.prompt[0], int))
        return [self.prompt] if alone else list(self.prompt)  # type: ignore[list-item]


R = TypeVar("R", bound=Request)


def read_request(kind: type[R], body: bytes) -> R:
    """Raises BadRequest."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(given, dict):
        raise BadRequest("The body is not a JSON object.")
    given = {name: value for name, value in given.items() if value is not None and name not in IGNORED}
    for name in (NEUTRAL.keys() - kind.model_fields.keys()) & given.keys():
        if given.pop(name) not in NEUTRAL[name]:
            raise BadRequest(f"{name} is not supported by this server. {REMEDY.get(name, 'Leave it out.')}", name)
    try:
        request = kind.model_validate(given, strict=True)
    except ValidationError as error:
        raise _in_words(kind, error) from None
    _check(request)
    return request


def _in_words(kind: type[Request], error: ValidationError) -> BadRequest:
    first = error.errors()[0]
    if not first["loc"]:  # a name that is no text
        return BadRequest(f"The body cannot be read: {first['msg']}.")
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return BadRequest(f"unknown parameter {name!r}{suggestion(name, kind.model_fields)}", name, "unknown_parameter")
    if first["type"] == "missing":
        return BadRequest(f"{name} is missing.", name, "missing_required_parameter")
    words = first["msg"][:1].lower() + first["msg"][1:]
    return BadRequest(f"{name} = {shown(first['input'])}: {words}.", name)


def _check(request: Request) -> None:
    """What the fields' types do not say."""
    if any(math.isnan(value) for _, value in request.biases):
        raise BadRequest("logit_bias holds a value that is not a number.", "logit_bias")
    if isinstance(request, ChatRequest):
        _ = request.thinking  # raises for what is no switch
        if request.top_logprobs is not None and not request.logprobs:
            raise BadRequest("top_logprobs is given without logprobs: set logprobs to true.", "top_logprobs")
        if request.beams > 1:
            _check_beams(request)
    elif isinstance(request, TextRequest):
        prompts = request.prompts()
        if not prompts or not all(prompts):
            raise BadRequest("prompt is empty: it has at least one token.", "prompt")
        if len(prompts) * request.n > MOST_CHOICES:
            many = f"{len(prompts)} prompts times n = {request.n}"
            raise BadRequest(f"{many} are more than {MOST_CHOICES} choices: send several requests.", "prompt")
        if request.best_of not in (None, request.n):
            raise BadRequest("best_of is not supported by this server: give the same number as n.", "best_of")


def _check_beams(request: ChatRequest) -> None:
    """A beam search has one setting, the number of beams, and gives the best answers."""
    fields = (
        "logprobs",
        "stop",
        "stop_token_ids",
        "logit_bias",
        "think_most",
        "think_least",
        "top_p",
        "top_k",
        "min_p",
    )
    for name in fields:
        if getattr(request, name):
            raise BadRequest(
                f"beams = {request.beams} with {name}: a beam search does not take it. Leave out one.", name
            )
    if request.repetition_penalty != 1:
        raise BadRequest("a beam search takes no repetition_penalty: leave it out.", "repetition_penalty")
    if request.n > request.beams:
        raise BadRequest(f"n = {request.n} of beams = {request.beams}: ask for at most as many answers.", "n")


def _message(turn: _Turn, place: str) -> Message:
    if turn.role not in ROLES:
        why = f"{place}.role = {shown(turn.role)}: it is one of {', '.join(ROLES)}"
        raise BadRequest(f"{why}{'; tools are not supported' * (turn.role in ('tool', 'function'))}.", "messages")
    if turn.tool_calls:
        raise BadRequest(f"{place}.tool_calls: tools are not supported by this server.", "messages")
    if turn.content is None and turn.role != "assistant":
        raise BadRequest(f"{place}.content is missing.", "messages")
    parts = turn.content if isinstance(turn.content, list) else [{"type": "text", "text": turn.content or ""}]
    for part in parts:
        if part.get("type") not in ("text", "refusal") or not isinstance(part.get("text", ""), str):
            raise BadRequest(
                f"{place} has a part of type {shown(part.get('type'))}: this server reads text.", "messages"
            )
    return Message(ROLES[turn.role], "".join(part.get("text", "") for part in parts))


def _token(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise BadRequest(f"logit_bias: {name!r} is not the id of a token.", "logit_bias") from None
