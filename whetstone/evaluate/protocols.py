"""Protocols by name: how often, at which temperature and how long published scores let a model answer (protocols.toml)."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from whetstone.run.mistakes import suggestion
from whetstone.run.settings import ScoreSettings, Settings

FILE = Path(__file__).with_name("protocols.toml")
NAMES = ("samples", "temperature", "top_p", "top_k", "max_tokens")  # of a score's settings that a protocol may set


class Protocol(Settings):
    source: str = Field(description="where the values were read")
    open: str = Field("", description="what the source does not say")
    temperature: float = Field(0.6, description="of the answers; 0 is greedy")
    top_p: float = Field(1.0, description="share of the probability from which tokens are sampled")
    max_tokens: int = Field(512, description="longest answer")
    sets: dict[str, dict[str, int | float]] = Field(
        description="problem set -> what it has of its own, its samples at least"
    )

    def of(self, name: str, benchmark: str) -> dict[str, Any]:
        """The settings for a problem set. Raises ValueError for one that the protocol does not have."""
        if benchmark not in self.sets:
            raise ValueError(
                f"--protocol {name} has no problem set {benchmark!r}{suggestion(benchmark, self.sets)} It has "
                f"{', '.join(self.sets)}. A file is known by its name: call it {next(iter(self.sets))}.jsonl, or leave out "
                "--protocol."
            )
        own = {key: getattr(self, key) for key in ("temperature", "top_p", "max_tokens")}
        return own | self.sets[benchmark]


@cache
def protocols() -> Mapping[str, Protocol]:
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: Protocol.model_validate(table) for name, table in tables.items()}


def find_protocol(name: str) -> Protocol:
    """Raises ValueError for an unknown one."""
    known = protocols()
    if name not in known:
        raise ValueError(f"--protocol {name} is not known{suggestion(name, known)} Known are {', '.join(known)}.")
    return known[name]


def settings_for(benchmark: str, protocol: str | None, given: Mapping[str, Any]) -> ScoreSettings:
    """How a problem set is asked: as `given`, for the rest as the protocol says, or by default."""
    own = find_protocol(protocol).of(protocol, benchmark) if protocol else {}
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return ScoreSettings(main=benchmark, **own | chosen)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = str(wrong["loc"][0]).replace("_", "-").replace("problems", "limit")
        raise ValueError(f"--{option} {wrong['input']}: {wrong['msg'][:1].lower()}{wrong['msg'][1:]}.") from error
