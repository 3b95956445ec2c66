"""A stage of a recipe that was read: its kind, its checked settings, where its inputs come from, whether it is a control."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from whetstone.run.room import Room
from whetstone.run.settings import StageSettings


@dataclass(frozen=True)
class Source:
    """Where an input comes from: an artifact of a stage above."""

    stage: str
    artifact: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.artifact}"


@dataclass(frozen=True)
class Control:
    """What makes a stage a control (`controls.py`)."""

    name: str  # midtraining, rejection …
    of: str  # the stage that it questions
    takes: Mapping[str, str]  # a setting -> the number in the summary of that stage that it is set to


@dataclass(frozen=True)
class RecipeStage:
    number: int  # 1 is the first; the NN of the stage's folder. A control has its stage's
    name: str
    kind: str  # one of KINDS, or "file.py:ROOM"
    room: Room
    settings: StageSettings
    sources: Mapping[str, Source]  # by input name; an optional input without a source is left out
    control: Control | None = None

    @property
    def folder_name(self) -> str:
        return f"{self.number:02d}-{self.name}"

    def settled(self, summary: Mapping[str, Any]) -> "RecipeStage":
        """A control with the numbers that it takes from the summary of its stage; another stage as it is.

        Raises ValueError if one is not there, or cannot be used.
        """
        if self.control is None:
            return self
        numbers = {}
        for setting, key in self.control.takes.items():
            if not summary.get(key):
                raise ValueError(
                    f"{self.name} needs the number of {key} from the manifest of {self.control.of}, which says "
                    f"{summary.get(key, 'nothing')}. Leave the control out ([controls] {self.control.name}); if "
                    f"{self.control.of} is of an older version of Whetstone, use another run: --set run.name=NAME."
                )
            numbers[setting] = summary[key]
        return replace(self, settings=type(self.settings).model_validate(dict(self.settings) | numbers))
