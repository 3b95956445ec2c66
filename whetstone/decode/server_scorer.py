"""A teacher behind HTTP that scores given tokens: its most likely tokens at each, with their log-probabilities.

The tokens are sent as ids, so the server's model must have the same vocabulary. Two forms are understood:

prompt_logprobs   vLLM's: {"prompt_logprobs": K}; an answer lists, per token of the prompt, {id: {"logprob", "decoded_token"}}
echo              OpenAI's completions: {"echo": true, "logprobs": K}; an answer lists tokens as texts, or as "token_id:17"
                  (vLLM with extra = { return_tokens_as_token_ids = true }); a text that several tokens have is not used

Nothing in an answer is trusted. Log-probabilities that are none, lists of another length than what was sent, probabilities that
add up to more than 1, and a list without the token that was sent are failures of that request, which is tried again as others
are (server_generator.py). A token with another text than here ends the run: it is another vocabulary.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whetstone.decode.server_answer import Unusable, read_json
from whetstone.decode.server_generator import ServerError, ServerGenerator, Spent
from whetstone.decode.server_settings import COMPLETIONS, ScoringServer
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.progress import say

if TYPE_CHECKING:
    from whetstone.batch import Row

SLACK = 0.01  # by which listed probabilities may add up to more than 1: many servers compute in bfloat16
LOWEST = -1e3  # log-probability; what is below, and -infinity, counts as this
ID = re.compile("[0-9]{1,9}")
BY_ID = "token_id:"  # how vLLM writes a token's id in the place of its text
Probable = dict[int, float]  # id -> log-probability


@dataclass(frozen=True, slots=True)
class Scored(Completion):
    listed: tuple[Probable, ...] = ()  # one per scored token


class ServerScorer(ServerGenerator):
    """Adds a teacher's list to rows. `names` are the texts of the student's tokens, by id."""

    path = COMPLETIONS

    def __init__(self, settings: ScoringServer, names: Sequence[str], spent: Spent | None = None):
        super().__init__(settings, spent)
        self.names = names
        self._rows: Sequence[Row] = ()
        self._compared = 0  # tokens whose texts were compared
        once: dict[str, int | None] = {}
        for i, name in enumerate(names):
            once[name] = None if name in once else i
        self._ids = {name: i for name, i in once.items() if i is not None}

    def listed(self, rows: "Sequence[Row]") -> "list[Row]":
        """The rows with `teacher_ids` and `teacher_logprobs`, K numbers per token each; without those that got no answer.

        Raises ServerError if none did, if the server cannot be used, or if its budget is spent.
        """
        self._rows, self.failed = rows, []
        prompts = [Prompt(str(i), i, ()) for i in range(len(rows))]
        answers = {answer.index: answer for answer in self.generate(prompts, Sampling())}
        if self.stopped:
            raise ServerError(f"{self.name}: {self.stopped}, and distillation cannot go on. Raise it and run again.")
        if rows and not answers:
            raise ServerError(f"{self.name} scored none of {len(rows)} texts; the first: {self.failed[0][1]}")
        if answers and not self._compared:
            say(f"{self.name} names tokens by their ids alone: whether they are the student's cannot be checked")
            self._compared = 1
        return [self._with_list(row, answers[i].listed) for i, row in enumerate(rows) if i in answers]

    def _with_list(self, row: "Row", listed: Sequence[Probable]) -> "Row":
        width = self.settings.top_logprobs + 1  # the token itself is listed too
        ids, logprobs = [], []
        for token, probable in zip(row.ids[row.prompt :], listed, strict=True):
            likely = [token, *sorted(probable.keys() - {token}, key=lambda i: (-probable[i], i))][:width]
            spare = width - len(likely)
            ids.append([*map(float, likely), *[-1.0] * spare])
            logprobs.append([*(probable[i] for i in likely), *[0.0] * spare])
        return replace(row, token=row.token | {"teacher_ids": ids, "teacher_logprobs": logprobs})

    # --- one request

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        count = self.settings.top_logprobs
        asked: dict[str, Any] = {"prompt_logprobs": count, "max_tokens": 1}
        if self.settings.scores_by == "echo":
            asked = {"echo": True, "logprobs": count, "max_tokens": 0}
        ids = self._rows[prompt.index].ids
        return {"model": self.settings.model, "prompt": ids, "temperature": 1.0, **asked, **self._extra}

    def _read(self, prompt: Prompt, body: bytes) -> Scored:
        row = self._rows[prompt.index]
        answer = read_json(body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise Unusable("no choice, or several")
        read = _prompt_logprobs if self.settings.scores_by == "prompt_logprobs" else _echoed
        found = read(choices[0], row, self)
        listed = tuple(_checked(probable, row.ids[row.prompt + t]) for t, probable in enumerate(found))
        return Scored(prompt.problem_id, prompt.index, "scored", "end", usage=(len(row.ids), 0), listed=listed)

    def _counted(self, prompt: Prompt, completion: Completion) -> Completion:
        self.spent.add(*completion.usage)
        return completion

    def id_of(self, name: str) -> int | None:
        """The id of a listed token; None if its text is that of several tokens, or of none."""
        if name.startswith(BY_ID) and ID.fullmatch(name, len(BY_ID)):
            token = int(name[len(BY_ID) :])
            self.require(token, "")
            return token
        return self._ids.get(name)

    def require(self, token: int, text: Any) -> None:
        """Raises ServerError if the server's token of this id has another text than the student's."""
        ours = self.names[token] if 0 <= token < len(self.names) else None
        unknown = not isinstance(text, str) or not text or "\ufffd" in text + (ours or "")
        self._compared += not unknown
        if ours is None or not (unknown or _plain(text) == _plain(ours)):
            raise ServerError(
                f"{self.name}: its model has another vocabulary than the student (token {token} is {ours!r} here and "
                f"{str(text)[:40]!r} there), and probabilities are compared token by token. Serve a model of the student's "
                'family; let another one write text instead: a rollouts stage with teacher = { server = "…" }, then sft.'
            )


def _plain(text: str) -> str:
    """Servers differ in whether they write a token with its space, or with the mark that stands for it."""
    return text.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n").strip()


def _prompt_logprobs(choice: Mapping[str, Any], row: "Row", scorer: ServerScorer) -> list[Probable]:
    lists = choice.get("prompt_logprobs")
    if not isinstance(lists, list) or len(lists) != len(row.ids):
        length = len(lists) if isinstance(lists, list) else "none"
        raise Unusable(
            f'prompt_logprobs of length {length} for {len(row.ids)} tokens (scores_by = "echo" is OpenAI\'s form)'
        )
    found = []
    for entries in lists[row.prompt :]:
        if not isinstance(entries, dict):
            raise Unusable("prompt_logprobs with a token that has none")
        probable: Probable = {}
        for token, entry in entries.items():
            if not ID.fullmatch(token) or not isinstance(entry, dict):
                raise Unusable(f"prompt_logprobs with the key {token[:20]!r}, which is no id")
            scorer.require(int(token), entry.get("decoded_token"))
            probable[int(token)] = entry.get("logprob")
        found.append(probable)
    return found


def _echoed(choice: Mapping[str, Any], row: "Row", scorer: ServerScorer) -> list[Probable]:
    table = choice.get("logprobs")
    columns = [
        table.get(name) if isinstance(table, dict) else None for name in ("tokens", "token_logprobs", "top_logprobs")
    ]
    if any(not isinstance(column, list) or not len(row.ids) <= len(column) <= len(row.ids) + 1 for column in columns):
        raise Unusable(f"logprobs without tokens, token_logprobs and top_logprobs of {len(row.ids)} tokens each")
    texts, own, lists = columns
    found = []
    for t in range(row.prompt, len(row.ids)):
        token, text, entries = row.ids[t], texts[t], lists[t]
        if not isinstance(entries, dict) or not isinstance(text, str):
            raise Unusable("logprobs with a token that has none")
        if text != f"{BY_ID}{token}":
            scorer.require(token, text)
        probable = {i: value for name, value in entries.items() if (i := scorer.id_of(name)) is not None}
        found.append(probable | {token: own[t]})
    return found


def _checked(probable: Probable, token: int) -> Probable:
    """Raises Unusable if these cannot be log-probabilities of a list that holds the token."""
    if any(type(value) not in (int, float) or not value <= SLACK for value in probable.values()):
        raise Unusable("a log-probability that is no number, or above 0")
    if token not in probable:
        raise Unusable(f"no log-probability of token {token}, which was sent: the server reads ids otherwise")
    probable = {i: max(value, LOWEST) for i, value in probable.items()}
    total = math.fsum(map(math.exp, probable.values()))
    if total > 1 + SLACK:
        raise Unusable(f"probabilities that add up to {total:.3g}")
    shift = math.log(max(1.0, total))
    return {i: value - shift for i, value in probable.items()}
