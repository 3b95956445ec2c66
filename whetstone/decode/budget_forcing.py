"""Budget forcing (s1, Muennighoff et al. 2025, arXiv 2501.19393, section 3.1): bounds on how long a model thinks.

maximum   after `most` tokens the end of thinking is appended, and the model writes its answer
minimum   if the model ends its thinking before `least` tokens, the end is replaced by "Wait", at most `waits` times: the model
          continues, and often corrects itself

    engine.generate(prompts, sampling, control=BudgetForcing(engine.chat, most=400))

Differs from s1, which sends a new request: here the end of thinking, which may be several tokens, is removed from the
completion and the cache, and the forced tokens are part of the completion. They were not sampled and their log-probability is
0, so such completions must not be trained on as rollouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.chat import Chat
from whetstone.decode.sequence import Edit
from whetstone.records import Prompt

END_OF_THINKING = "</think>"


@dataclass
class BudgetForcing:
    """Makes the `Control` of each completion. Tokens are counted from the first of the completion.

    `answer` is appended after a forced `end` of thinking, for models that need a prompt for their answer. Raises ValueError
    if the numbers contradict each other or `end` is empty.
    """

    chat: Chat
    most: int | None = None
    least: int = 0
    waits: int = 2
    wait: str = "Wait"
    end: str = END_OF_THINKING
    answer: str = "\n"

    def __post_init__(self) -> None:
        if self.most is not None and not self.least <= self.most:
            bounds = f"least = {self.least} and most = {self.most}"
            raise ValueError(f"{bounds} tokens of thinking: raise most, or lower least.")
        if self.least < 0 or self.waits < 0 or not self.end:
            raise ValueError(
                f"least = {self.least}, waits = {self.waits}, end = {self.end!r}: least and waits are 0 or more, and end is "
                "not empty."
            )
        self.wait_ids = self.chat.ids(self.wait)
        self.close_ids = self.chat.ids(self.end + self.answer)

    def __call__(self, prompt: Prompt) -> "_Thinking":
        return _Thinking(self)


class _Thinking:
    """The control of one completion: watches until its thinking ends."""

    def __init__(self, settings: BudgetForcing):
        self.settings = settings
        self.removable: Sequence[str] = (settings.end,)
        self.waits = 0
        self.over = settings.chat.closed  # the prompt says that there is no thinking

    def __call__(self, ids: list[int]) -> Edit | None:
        if self.over:
            return None
        settings = self.settings
        ended = self._end(ids)
        if ended and len(ids) - ended < settings.least and self.waits < settings.waits:
            self.waits += 1
            return Edit(ended, settings.wait_ids)
        too_long = settings.most is not None and len(ids) >= settings.most
        self.over = bool(ended) or too_long
        return Edit(0, settings.close_ids) if too_long and not ended else None

    def _end(self, ids: Sequence[int]) -> int:
        """How many of the last ids make up the end of thinking, or of the turn; 0 if there is none."""
        chat, end = self.settings.chat, self.settings.end
        if ids[-1] in chat.stops:
            return 1
        # a token has one character or more, and the first may begin before `end`
        if end not in chat.text(ids[-len(end) - 8 :]):
            return 0
        return next(n for n in range(1, len(ids) + 1) if end in chat.text(ids[-n:]))
