"""Which problems a model can be asked: the prompt and the longest answer must fit into its context."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetstone.records import Problem

if TYPE_CHECKING:
    from whetstone.chat import Chat

TOO_LONG = "prompt too long"  # the reason of a problem that is left out
AT_ONCE = 1000  # questions tokenised together
NAMED = 5  # problems named in a message


@dataclass(frozen=True)
class Window:
    """The context of a model, and the longest answer that must fit into it beside the prompt."""

    chat: "Chat"
    context: int
    max_tokens: int

    @classmethod
    def of(cls, config: Any, tokenizer: Any, max_tokens: int) -> "Window":
        from whetstone.chat import Chat

        return cls(Chat(tokenizer), config.max_position_embeddings, max_tokens)

    @classmethod
    def of_folder(cls, model: Path | str, max_tokens: int) -> "Window":
        """Of a model folder or hub name, whose weights are not read."""
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        return cls.of(config, AutoTokenizer.from_pretrained(model, trust_remote_code=False), max_tokens)

    def too_long(self, problems: Iterable[Problem]) -> dict[str, str]:
        """Problem id -> why it cannot be asked, for those that do not fit."""
        return {
            problem.id: f"{tokens:,} tokens of prompt and {self.max_tokens:,} of answer (max_tokens) exceed the model's "
            f"context of {self.context:,}"
            for problem, tokens in self._lengths(problems)
            if tokens + self.max_tokens > self.context
        }

    def _lengths(self, problems: Iterable[Problem]) -> Iterator[tuple[Problem, int]]:
        left = iter(problems)
        while some := list(islice(left, AT_ONCE)):
            rows = self.chat.many_question_ids([problem.question for problem in some])
            yield from zip(some, map(len, rows), strict=True)


def named(reasons: Mapping[str, str]) -> str:
    """The first problems of `too_long`, in words."""
    shown = [f"{name} ({why})" for name, why in list(reasons.items())[:NAMED]]
    more = f" and {len(reasons) - NAMED:,} more" if len(reasons) > NAMED else ""
    return "; ".join(shown) + more
