"""The text of a completion while it grows: what may be streamed already, and whether a stop string has occurred.

New ids are decoded together with a few before them, as some tokenizers write a word differently at the start of a text. Held
back are characters whose bytes are not complete yet, and text that may become a stop string.
"""

from collections.abc import Sequence

from whetstone.chat import Chat

INCOMPLETE = "\ufffd"  # what a tokenizer writes for bytes that are not a whole character
COMPARED = 8  # ids that are compared to notice that some were removed


class Detokenizer:
    """`text` is what the ids say, up to the first of the `stops` once one has occurred (`stopped`), after the thinking that
    the prompt opened.

    `removable`: strings that a control may remove again; their beginnings are held back like those of `stops`.
    """

    def __init__(self, chat: Chat, stops: Sequence[str], removable: Sequence[str]):
        self.chat = chat
        self.stops = tuple(stops)
        self.held_back = (*stops, *removable)
        self.streamed = 0  # characters
        self._restart()

    def _restart(self) -> None:
        self.text = self.chat.opening
        self.stopped = False
        # ids before `_read` are in `text`; those from `_context` on are decoded again with the next ones
        self._context = self._read = 0
        self._last: list[int] = []

    def update(self, ids: Sequence[int], done: bool = False) -> str:
        """Read all ids so far, and return the text that can be streamed now. `done`: no ids will follow.

        Ids may have been removed since the last call; text that was already streamed cannot be taken back.
        """
        if list(ids[max(0, self._read - COMPARED) : self._read]) != self._last:
            self._restart()
        before = self.chat.text(ids[self._context : self._read])
        now = self.chat.text(ids[self._context :])
        if done or (len(now) > len(before) and not now.endswith(INCOMPLETE)):
            searched = max(len(self.chat.opening), len(self.text) - max(map(len, self.stops), default=0))
            self.text += now[len(before) :]
            self._context, self._read = self._read, len(ids)
            self._last = list(ids[-COMPARED:])
            matches = [at for stop in self.stops if (at := self.text.find(stop, searched)) >= 0]
            if matches:
                self.text, self.stopped = self.text[: min(matches)], True
        end = len(self.text) if done or self.stopped else len(self.text) - self._held()
        piece = self.text[self.streamed : end]
        self.streamed = max(self.streamed, end)
        return piece

    def _held(self) -> int:
        """Characters at the end that begin a string which is held back."""
        longest = max(map(len, self.held_back), default=0)
        lengths = range(min(longest, len(self.text)), 0, -1)
        return next((n for n in lengths if any(s.startswith(self.text[-n:]) for s in self.held_back)), 0)
