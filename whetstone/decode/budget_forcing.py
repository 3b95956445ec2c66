"""Budget forcing (s1, Muennighoff et al. 2025, arXiv 2501.19393, section 3.1): how long a model thinks is set from outside.

maximum   after `most` tokens of thinking the block is closed, and the model writes its answer
minimum   when the model would end its thinking before `least` tokens, the end is taken back and "Wait" written instead,
          at most `waits` times: it goes on, and often mends what it got wrong

    engine.generate(prompts, sampling, control=BudgetForcing(engine.chat, most=400))

Differs from s1, which stops and asks anew: here the end of the thinking may be several tokens, which are taken back out of
the cache, and the forced tokens are part of the completion. They were not drawn: their log-probability is 0, and such
completions are no rollouts to train on.
"""

from collections.abc import Sequence

from whetstone.chat import Chat
from whetstone.decode.decoding import Edit
from whetstone.records import Prompt

END_OF_THINKING = "</think>"


class BudgetForcing:
    """Gives each completion its `Control`. Tokens are counted from the completion's first.

    `answer` follows the end of thinking where that is forced, for models that then need to be told to answer.
    """

    def __init__(
        self,
        chat: Chat,
        most: int | None = None,
        least: int = 0,
        waits: int = 2,
        wait: str = "Wait",
        end: str = END_OF_THINKING,
        answer: str = "\n",
    ):
        if most is not None and not least <= most:
            raise ValueError(f"least = {least} and most = {most} tokens of thinking: least must not be above most.")
        if least < 0 or waits < 0 or not end:
            raise ValueError(
                f"least = {least}, waits = {waits}, end = {end!r}: no number below 0, and an end to look for."
            )
        self.chat = chat
        self.most = most
        self.least = least
        self.waits = waits
        self.end = end
        self.wait_ids = chat.ids(wait)
        self.close_ids = chat.ids(end + answer)

    def __call__(self, prompt: Prompt) -> "_Thinking":
        return _Thinking(self)


class _Thinking:
    """One completion's thinking: watched until it ends."""

    def __init__(self, settings: BudgetForcing):
        self.settings = settings
        self.held: Sequence[str] = (settings.end,)
        self.waits = 0
        self.over = False

    def __call__(self, ids: list[int]) -> Edit | None:
        if self.over:
            return None
        settings = self.settings
        ended = self._end(ids)
        if ended:
            if len(ids) - ended < settings.least and self.waits < settings.waits:
                self.waits += 1
                return Edit(ended, settings.wait_ids)
            self.over = True
            return None
        if settings.most is not None and len(ids) >= settings.most:
            self.over = True
            return Edit(0, settings.close_ids)
        return None

    def _end(self, ids: Sequence[int]) -> int:
        """How many ids at the end make up the end of thinking, or of the turn; 0 when it goes on."""
        chat, end = self.settings.chat, self.settings.end
        if ids[-1] in chat.stops:
            return 1
        if end not in chat.text(ids[-len(end) - 8 :]):  # a token is a character at least, and may begin earlier
            return 0
        return next(n for n in range(1, len(ids) + 1) if end in chat.text(ids[-n:]))
