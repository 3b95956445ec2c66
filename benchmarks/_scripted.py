"""Answers that end where a script says, so that neither side of a benchmark gains by stopping."""

from whetstone.decode.sequence import Edit


class Script:
    """Ends an answer at a length of its own, and nowhere else."""

    removable = ()

    def __init__(self, length: int, stop: str = "length"):
        self.length, self.stop = length, stop

    def __call__(self, ids: list[int]) -> Edit:
        return Edit(ends=self.stop if len(ids) >= self.length else "")
