"""A rollout in a vLLM server's answer: ids, log-probabilities and an end that fit together, or an error."""

import math
from typing import Any

from whetstone.chat import Chat
from whetstone.records import Completion, Prompt, Sampling


class Failed(Exception):
    """A server did not do what it was asked to. The message says what it answered."""


def read_rollout(
    prompt: Prompt, asked: list[int], answer: dict[str, Any], chat: Chat, sampling: Sampling
) -> Completion:
    """The completion in an answer. Raises Failed if it cannot be one of this prompt."""
    try:
        choice = answer["choices"][0]
        ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        echoed, reason = choice.get("prompt_token_ids"), choice["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise Failed(f"an answer without ids and log-probabilities ({error!r})") from error
    wrong = (
        ("the ids of another prompt", echoed is not None and echoed != asked),
        ("no ids", not isinstance(ids, list) or not ids or len(ids) > sampling.max_tokens),
        ("ids that the tokenizer does not have", not all(type(i) is int and 0 <= i < chat.size for i in ids or ())),
        ("another number of log-probabilities than of ids", len(logprobs) != len(ids or ())),
        (
            "log-probabilities that are none",
            not all(isinstance(x, float | int) and math.isfinite(x) and x <= 1e-4 for x in logprobs),
        ),
        ("an end that is none", reason not in ("stop", "length")),
        ("a stop without an id that stops", reason == "stop" and bool(ids) and ids[-1] not in chat.stops),
    )
    for what, is_so in wrong:
        if is_so:
            raise Failed(f"an answer with {what}")
    stop = "end" if reason == "stop" else "length"
    return Completion(
        prompt.problem_id, prompt.index, chat.completion(ids), stop, asked, ids, [float(x) for x in logprobs]
    )
