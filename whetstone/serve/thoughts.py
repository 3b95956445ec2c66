"""Thinking and answer apart, in a text that comes in pieces.

`<think>…</think>` at the beginning of an answer is thinking, without the white space at its ends, closed or not.
The white space before the answer is left out. The pieces join to the same two texts whatever the pieces are.
"""

from typing import NamedTuple

from whetstone.chat import CLOSE, OPEN


class Part(NamedTuple):
    """New text of the thinking, and of the answer after it."""

    thinking: str = ""
    answer: str = ""


class Thoughts:
    """The state of one text."""

    def __init__(self) -> None:
        self._waiting = ""  # what may be a tag, or white space at an end
        self._place = "start"  # start | thinking | gap | answer
        self._begun = False  # whether thinking has begun to be written

    def add(self, text: str, done: bool = False) -> Part:
        """What can be said after this piece; with `done`, the rest."""
        self._waiting += text
        thinking = ""
        if self._place == "start":
            self._start(done)
        if self._place == "thinking":
            thinking = self._think(done)
        if self._place == "gap":
            self._waiting = self._waiting.lstrip()
            self._place = "answer" if self._waiting else "gap"
        if self._place != "answer":
            return Part(thinking)
        answer, self._waiting = self._waiting, ""
        return Part(thinking, answer)

    def _start(self, done: bool) -> None:
        begin = self._waiting.lstrip()
        if begin.startswith(OPEN):
            self._waiting, self._place = begin.removeprefix(OPEN), "thinking"
        elif done or not OPEN.startswith(begin):
            self._place = "answer"  # as it stands

    def _think(self, done: bool) -> str:
        thought, closed, rest = self._waiting.partition(CLOSE)
        if not self._begun:
            thought = thought.lstrip()
        if closed:
            self._waiting, self._place = rest, "gap"
            return thought.rstrip()
        held = 0 if done else next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
        said = thought[: len(thought) - held].rstrip()
        self._begun = self._begun or bool(said)
        self._waiting = "" if done else thought[len(said) :]
        return said


def apart(text: str) -> Part:
    r"""
    >>> apart("<think>\n2 + 3 = 5\n</think>\nThe answer is 5.")
    Part(thinking='2 + 3 = 5', answer='The answer is 5.')
    """
    return Thoughts().add(text, done=True)
