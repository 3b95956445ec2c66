"""Answers whose lengths a script sets, so that neither side of a benchmark gains by stopping early."""

from whetstone.decode.sequence import Edit


class Script:
    """Ends an answer at its own given length."""

    removable = ()

    def __init__(self, length: int, stop: str = "length"):
        self.length, self.stop = length, stop

    def __call__(self, ids: list[int]) -> Edit:
        return Edit(ends=self.stop if len(ids) >= self.length else "")
