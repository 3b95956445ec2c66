"""What is answered: OpenAI's chat completions and completions, whole or in chunks, and errors."""

import time
from collections.abc import Iterable
from typing import Any

from whetstone.chat import Chat
from whetstone.serve.decoder import Echo, Finished, Notes
from whetstone.serve.requests import BadRequest
from whetstone.serve.thoughts import Part, apart

ENDS = {"end": "stop", "stop": "stop", "length": "length"}
INCOMPLETE = "\ufffd"  # what a tokenizer writes for bytes that are not a whole character


class Tokens:
    """The texts of single ids, as they are in the middle of a text."""

    def __init__(self, chat: Chat):
        self.chat = chat
        self._before = chat.ids("\n")
        self._start = len(self._decoded(self._before))
        self._known: dict[int, str] = {}

    def text(self, number: int) -> str:
        if number not in self._known:
            self._known[number] = self._decoded([*self._before, number])[self._start :]
        return self._known[number]

    def _decoded(self, ids: list[int]) -> str:
        return self.chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def of_chat(self, notes: Notes) -> dict[str, Any]:
        """`logprobs` of a chat's choice. The ids that end a turn are no part of its text."""
        kept = [note for note in notes if note[0][0] not in self.chat.stops]
        content = [
            self._entry(*own) | {"top_logprobs": [self._entry(*other) for other in others]} for own, *others in kept
        ]
        return {"content": content, "refusal": None}

    def of_text(self, notes: Notes, offset: int, echo: Echo | None = None) -> dict[str, Any]:
        """`logprobs` of a completion's choice, whose first new character is at `offset`. The prompt that is repeated comes
        first, and its first token has none."""
        kept = [note for note in notes if note[0][0] not in self.chat.stops]
        ids = [own[0] for own, *_ in kept]
        if echo:
            ids, kept = [*echo.ids, *ids], [*echo.notes, *kept]
        texts = [self.text(number) for number in ids]
        unknown: list[None] = [None] * (len(ids) - len(kept))
        return {
            "tokens": texts,
            "token_logprobs": [*unknown, *(own[1] for own, *_ in kept)],
            "top_logprobs": [
                *unknown,
                *({self.text(number): logprob for number, logprob in others} for _, *others in kept),
            ],
            "text_offset": [offset + sum(map(len, texts[:place])) for place in range(len(texts))],
        }

    def _entry(self, number: int, logprob: float) -> dict[str, Any]:
        text = self.text(number)
        return {
            "token": text,
            "logprob": logprob,
            "bytes": None if INCOMPLETE in text else list(text.encode(errors="replace")),
        }


def head(name: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


def chat_choice(done: Finished, tokens: Tokens | None) -> dict[str, Any]:
    thinking, answer = apart(done.completion.text)
    message = {"role": "assistant", "content": answer, "refusal": None}
    if thinking:
        message["reasoning_content"] = thinking
    return {
        "index": done.index,
        "message": message,
        "logprobs": tokens.of_chat(done.notes) if tokens else None,
        "finish_reason": ENDS[done.completion.stop],
    }


def chat_delta(
    index: int, part: Part, tokens: Tokens | None = None, notes: Notes = (), role: bool = False, end: str | None = None
) -> dict[str, Any]:  # fmt: skip
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if role else {}
    if part.thinking:
        delta["reasoning_content"] = part.thinking
    if part.answer:
        delta["content"] = part.answer
    logprobs = tokens.of_chat(notes) if tokens and notes else None
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}


def text_choice(
    index: int, text: str, tokens: Tokens | None = None, notes: Notes = (), offset: int = 0, end: str | None = None,
    echo: Echo | None = None,
) -> dict[str, Any]:  # fmt: skip
    logprobs = tokens.of_text(notes, offset, echo) if tokens else None
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": end}


def usage(done: Iterable[Finished], choices_per_prompt: int) -> dict[str, int]:
    """A prompt counts once, however many choices it has."""
    every = list(done)
    prompts = sum(len(one.completion.prompt_ids) for one in every if one.index % choices_per_prompt == 0)
    completions = sum(len(one.completion.ids) for one in every)
    return {"prompt_tokens": prompts, "completion_tokens": completions, "total_tokens": prompts + completions}


def status_of(error: BaseException) -> int:
    """A ValueError is about the request (a prompt that the template refuses); anything else is the server's."""
    if isinstance(error, BadRequest):
        return error.status
    return 400 if isinstance(error, ValueError) else 503 if isinstance(error, ConnectionError) else 500


def error_body(error: BaseException) -> dict[str, Any]:
    status = status_of(error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    text = str(error) if status < 500 or isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    details = {"param": getattr(error, "param", None), "code": getattr(error, "code", None)}
    return {"error": {"message": text, "type": kind, **details}}
