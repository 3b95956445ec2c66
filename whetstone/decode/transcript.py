"""The text of a completion while it grows: what may be shown already, and whether a stop string is there.

Ids are decoded a few at a time, behind a piece of what came before (some tokenizers write a word differently at the start of
a text); a character whose bytes are not all there yet is held back, and so is what may become a stop string.
"""

from collections.abc import Sequence

from whetstone.chat import Chat

HALF = "\ufffd"  # what a tokenizer writes for bytes that are no character (yet)
RECALLED = 8  # ids by which it is noticed that some were taken back


class Transcript:
    """Call `read` with all ids so far; `text` is what they say, up to the first of `stops` once `stopped`."""

    def __init__(self, chat: Chat, stops: Sequence[str] = (), held: Sequence[str] = ()):
        self.chat = chat
        self.stops = tuple(stops)
        self.held = (*stops, *held)  # not shown until they turn out to be something else
        self.shown = 0  # characters given out
        self._restart()

    def _restart(self) -> None:
        self.text = ""
        self.stopped = False
        # ids before `_read` are in `text`; those from `_context` on are decoded with them
        self._context = self._read = 0
        self._last: list[int] = []

    def read(self, ids: Sequence[int], done: bool = False) -> str:
        """The text that may be shown now and was not before. `done`: nothing will follow.

        Ids may have been taken back since: what was shown stays shown.
        """
        if list(ids[max(0, self._read - RECALLED) : self._read]) != self._last:
            self._restart()
        before = self.chat.text(ids[self._context : self._read])
        now = self.chat.text(ids[self._context :])
        if done or (len(now) > len(before) and not now.endswith(HALF)):
            searched = max(0, len(self.text) - max(map(len, self.stops), default=0))
            self.text += now[len(before) :]
            self._context, self._read = self._read, len(ids)
            self._last = list(ids[-RECALLED:])
            found = [at for stop in self.stops if (at := self.text.find(stop, searched)) >= 0]
            if found:
                self.text, self.stopped = self.text[: min(found)], True
        end = len(self.text) if done or self.stopped else len(self.text) - self._held()
        piece = self.text[self.shown : end]
        self.shown = max(self.shown, end)
        return piece

    def _held(self) -> int:
        """Characters at the end that begin a held string."""
        longest = max(map(len, self.held), default=0)
        for n in range(min(longest, len(self.text)), 0, -1):
            if any(string.startswith(self.text[-n:]) for string in self.held):
                return n
        return 0
