"""What a kind of stage is. Each room's file ends with `ROOM = Room(...)`, and the pipeline knows the room only through it.

`docs/extending.md` has an example.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whetstone.run.folder import Stage
from whetstone.run.settings import StageSettings

PROMPT_TOKENS = 1024  # assumed length of the longest prompt, if only the length of the answer is set
# Shared settings that the result of training depends on. Micro-batches, threads and the device never change what is learnt.
TRAINING = ("run.seed", "model", "adapter", "parallel.compute", "prompt")


@dataclass(frozen=True)
class Input:
    """An artifact that a stage reads. `accepts` is in order of preference.

    The default is the latest artifact above the stage that fits; a recipe may name another.
    """

    accepts: tuple[str, ...]
    optional: bool = False
    only_named: bool = False  # read only if the recipe names it
    made_by: tuple[str, ...] = ()  # kinds that the default comes from; (): any. A named input may come from any kind
    or_path: bool = False  # a model: `[model] path` stands in for it if no stage above gives one, or if it is ""
    used: Callable[[Any], bool] = lambda settings: (
        True
    )  # whether a stage with these settings reads it unless it is named
    description: str = ""  # if the name does not say it; for the reference and the schema


@dataclass(frozen=True)
class Estimate:
    """What a stage will take, as `whetstone plan` prints it. None is a number that is not known beforehand.

    `bound` stands before tokens and time, and before the steps if they follow from the tokens: "at most ", "about " or "".
    """

    lines: dict[str, str] = field(default_factory=dict)  # further facts, by name
    tokens: int | None = None  # trained on
    steps: int | None = None  # optimizer steps
    steps_bound: str = ""
    memory: float | None = None  # bytes per device
    disk: float | None = None  # bytes in the run folder
    seconds: float | None = None
    bound: str = ""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the pipeline must know of a kind of stage."""

    settings: type[StageSettings]
    run: Callable[[Stage], dict[str, Any]]  # does the work; returns the summary for the manifest
    plan: Callable[[Stage], Estimate] | None = None  # what the stage will take; must not load torch
    inputs: Mapping[str, Input] = field(default_factory=dict)  # by the name that the recipe uses
    gives: tuple[str, ...] = ()  # artifacts that the stage always writes
    uses: tuple[str, ...] = ("run.seed",)  # shared settings that the result depends on
    asks: Callable[[Any], bool] = lambda settings: (
        False
    )  # whether it puts problems to a model without training: [prompt]
    prompts: bool = False  # gives a prompt, with which the pipeline scores the model that the stage starts from
    trains: bool = False  # gives a model that the pipeline scores; may run in several processes
    base: Callable[[Stage], Path] | None = None  # makes the model to start from, without an input and `[model] path`
    reads_run: bool = False  # reads all stages above and the scores; cheap, so it is redone without --force
    # Called before any stage runs or old work is thrown away; raises ValueError if the stage cannot be done on this machine
    check: Callable[[Any], None] = lambda settings: None
    reads: Callable[[Any], Iterable[Path]] = lambda settings: ()  # files of the user's that the result depends on
    # Folders, runs, files or hub names of other models that the result depends on
    models: Callable[[Any], Iterable[str]] = lambda settings: ()
    # Names of the problem sets that its test problems belong to, as far as the settings say them
    benchmarks: Callable[[Any], Iterable[str]] = lambda settings: ()
    longest: Callable[[Any], int] = lambda settings: 0  # tokens of the longest sequence, prompt included
