"""Which problems a model can be asked: the prompt and the longest answer must fit into its context."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING

from whetstone.prompting import BARE, Prompting
from whetstone.records import Problem
from whetstone.run.mistakes import first_few
from whetstone.run.progress import say

if TYPE_CHECKING:
    from whetstone.chat import Chat

UNASKABLE = "cannot be asked"  # the reason of a problem that is left out
NAMED = 5  # problems named in a message


@dataclass(frozen=True)
class Window:
    """The context of a model in tokens, and the longest answer that must fit into it beside the prompt, examples included."""

    chat: "Chat"
    context: int
    max_tokens: int
    prompting: Prompting = BARE

    @classmethod
    def of_model(cls, name: Path | str, max_tokens: int = 0, prompting: Prompting = BARE) -> "Window":
        """Of the model that a name stands for, whose weights are not read."""
        from whetstone.model import load_chat

        return cls(*load_chat(name, prompting.thinking), max_tokens, prompting)

    def unaskable(self, problems: Iterable[Problem]) -> dict[str, str]:
        """Problem id -> why it cannot be asked; those that can be are left out."""
        reasons = ((problem.id, self._why_not(problem)) for problem in problems)
        return {name: why for name, why in reasons if why}

    def report(self, what: str, problems: Sequence[Problem], then: str, looked_at: int | None = None) -> dict[str, str]:
        """`unaskable` of the problems, and says so; `then` is what becomes of them.

        With `looked_at`, only so many problems are tried, those with the longest questions. Raises ValueError if no problem
        can be asked.
        """
        longest = (
            problems if looked_at is None else nlargest(looked_at, problems, key=lambda problem: len(problem.question))
        )
        reasons = self.unaskable(longest)
        if reasons and len(reasons) == len(problems):
            raise ValueError(
                f"{what}: none of its {len(problems):,} problems can be asked: {named(reasons)}. Lower max_tokens, shorten the "
                f"questions{' or give fewer examples' * bool(self.prompting.examples)}, or take a model with a longer context."
            )
        if reasons:
            count = f"{'at least ' * (len(reasons) == looked_at)}{len(reasons):,} of {len(problems):,}"
            say(f"warning: {what}: {count} problems cannot be asked and {then}: {named(reasons)}")
        return reasons

    def _why_not(self, problem: Problem) -> str:
        try:
            tokens = len(self.chat.prompt_ids(self.prompting.prompt(problem, 0).messages))
        except ValueError as error:
            return str(error)
        if tokens + self.max_tokens <= self.context:
            return ""
        sizes = f"{tokens:,} tokens of prompt and {self.max_tokens:,} of answer (max_tokens)"
        return f"{sizes} exceed the model's context of {self.context:,}"


def named(reasons: Mapping[str, str]) -> str:
    """The first problems that cannot be asked, in words."""
    return first_few([f"{name} ({why})" for name, why in reasons.items()], NAMED, "; ")
