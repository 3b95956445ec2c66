"""A recipe: one TOML file, an ordered list of `[[stage]]` tables and a few shared tables, read into checked settings.

    extends = "tiny.toml"              # optional: that file's tables and stages come first

    [run]
    name = "tiny"

    [[stage]]
    kind = "sft"
    data = "corpus/subset"             # an input; by default the latest artifact above that fits

Reading a recipe loads the rooms, which import no torch at their top, and runs nothing. A mistake is a `ValueError` that
names file and line, the reason and the remedy.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from whetstone.controls import Known, with_controls
from whetstone.recipe_stage import RecipeStage, Source
from whetstone.run.control_settings import ControlSettings
from whetstone.run.mistakes import shown, suggestion, validated
from whetstone.run.names import require_stage_name
from whetstone.run.prompt_settings import PromptSettings
from whetstone.run.room import PROMPT_TOKENS, Input, Room
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.secrets import literal_secrets, redacted
from whetstone.run.settings import (
    AdapterSettings,
    ModelSettings,
    ParallelSettings,
    RunSettings,
    ScoreSettings,
)
from whetstone.run.toml import DEEPEST, Keys, Table, parse, parse_value, place, put
from whetstone.run.user_file import file_of, load

KINDS: dict[str, str] = {  # kind of stage -> the module whose ROOM does it
    "questions": "whetstone.questions.gather",
    "rollouts": "whetstone.rollouts.collect",
    "corpus": "whetstone.corpus.build",
    "midtrain": "whetstone.midtrain",
    "sft": "whetstone.sft",
    "dpo": "whetstone.dpo.rollout_dpo",
    "reward": "whetstone.reward.train",
    "rl": "whetstone.rl.loop",
    "distill": "whetstone.distill.train",
    "evaluate": "whetstone.evaluate.evaluate",
    "report": "whetstone.report.report",
}

SHARED: dict[str, type[BaseModel]] = {
    "run": RunSettings,
    "model": ModelSettings,
    "adapter": AdapterSettings,
    "sampler": SamplerSettings,
    "parallel": ParallelSettings,
    "scores": ScoreSettings,
    "prompt": PromptSettings,
    "controls": ControlSettings,
}
RESERVED_NAMES = (*SHARED, "base")  # `--set` and scores.json use these
MOST_EXTENDS = 16  # recipes of which each extends the next


@dataclass(frozen=True)
class Recipe:
    path: Path
    run: RunSettings
    model: ModelSettings
    adapter: AdapterSettings
    sampler: SamplerSettings
    parallel: ParallelSettings
    scores: ScoreSettings
    prompt: PromptSettings
    controls: ControlSettings
    stages: tuple[RecipeStage, ...]  # in the order in which they run, controls included
    notes: tuple[str, ...] = ()  # which controls cannot be made, and why

    @property
    def folder(self) -> Path:
        return self.run.folder / self.run.name

    @property
    def longest(self) -> int:
        """Tokens of the run's longest sequence, prompt and answer: `[model] longest`, or the most that a stage asks for."""
        stages = (stage.room.longest(stage.settings) for stage in self.stages if not stage.control)
        return self.model.longest or max(PROMPT_TOKENS + self.scores.max_tokens, *stages)

    def stage(self, name: str) -> RecipeStage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise ValueError(
            f"{self.path} has no stage {name!r}{suggestion(name, names)} Its stages are {', '.join(names)}."
        )

    def adapter_of(self, stage: RecipeStage) -> AdapterSettings:
        """What a stage trains beside the weights: its own `adapter`, or [adapter]."""
        return getattr(stage.settings, "adapter", None) or self.adapter

    def above(self, stage: RecipeStage) -> tuple[RecipeStage, ...]:
        """The stages that run before a stage."""
        return self.stages[: [other.name for other in self.stages].index(stage.name)]

    def wanted(self, stage: RecipeStage) -> tuple[str, ...]:
        """The artifacts of a stage that stages below cannot do without."""
        read = [
            source.artifact
            for below in self.stages
            for name, source in below.sources.items()
            if source.stage == stage.name and not below.room.inputs[name].optional
        ]
        return tuple(dict.fromkeys(read))

    def shared(self, uses: Iterable[str]) -> dict[str, Any]:
        """The values of shared settings named as `run.seed`, or of all of a table's, by dotted name."""
        values: dict[str, Any] = {}
        for use in uses:
            table, _, key = use.partition(".")
            settings = getattr(self, table).model_dump(mode="json")
            values |= {f"{table}.{name}": value for name, value in settings.items() if key in ("", name)}
        return values

    def warnings(self) -> list[str]:
        """What a user should know before it runs: where a secret stands in the recipe, and which controls it lacks."""
        tables = {name: getattr(self, name) for name in SHARED} | {stage.name: stage.settings for stage in self.stages}
        return [
            f"warning: {name} in {self.path} is a secret. It is left out of all that is written, but stands in the recipe: "
            'name an environment variable instead, as "${NAME}", or key_variable = "NAME" for a server\'s key.'
            for table, settings in tables.items()
            for name in literal_secrets(settings.model_dump(), table)
        ] + list(self.notes)

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, defaults included and secrets left out."""
        return {
            **{name: getattr(self, name).model_dump(mode="json") for name in SHARED},
            "stage": [
                stage.settings.model_dump(mode="json") | {"inputs": {k: str(v) for k, v in stage.sources.items()}}
                for stage in self.stages
            ],
            **({"notes": self.notes} if self.notes else {}),
        }


def load_room(kind: str) -> Room:
    """The room that does this kind of stage: one of KINDS, or a user's own `file.py:ROOM`.

    Raises ValueError if the name in the file is missing or no Room, FileNotFoundError if there is no such file.
    """
    if kind in KINDS:
        return import_module(KINDS[kind]).ROOM
    room = load(kind)
    if not isinstance(room, Room):
        raise ValueError(f"{kind} is of type {type(room).__name__}, not Room: write ROOM = Room(settings=…, run=…).")
    return room


def read_recipe(path: Path, sets: Sequence[str] = ()) -> Recipe:
    """Read, merge with the recipe that it extends, apply `--set name.key=value`, check. Runs nothing and writes nothing."""
    path = Path(path)
    shared, stages = _read_tables(path, ())
    shared["run"].values.setdefault("name", path.stem)
    if not stages:
        raise ValueError(
            f'{path} has no [[stage]]: there is nothing to run. Begin with\n    [[stage]]\n    kind = "questions"'
        )
    for table in stages:
        _check_kind(table)
        file = file_of(table.values["kind"])
        table.values.setdefault("name", file.stem if file else table.values["kind"])
        table.label = f'[[stage]] "{table.values["name"]}"'
    _check_names(stages)
    for assignment in sets:
        _assign(assignment, shared, stages)
    above: list[RecipeStage] = []
    has_path = bool(shared["model"].values.get("path"))
    for number, table in enumerate(stages, 1):
        above.append(_read_stage(number, table, above, has_path))
    settings = {name: validated(SHARED[name], shared[name]) for name in SHARED}
    if not settings["run"].name:
        raise ValueError(f"{shared['run'].place('name')} name is empty: it names the folder. Name it or leave it out.")
    known = Known(settings["controls"], above, load_room, has_path)
    with_all, notes = with_controls(known, shared["controls"].place)
    return Recipe(path=path, stages=with_all, notes=notes, **settings)


# --- files -> tables


def _read_tables(path: Path, extending: tuple[Path, ...]) -> tuple[dict[str, Table], list[Table]]:
    """The shared tables by name and the list of stages. `extending` are the recipes that led here by `extends`."""
    document, lines = _read_document(path)
    shared, stages = _read_base(path, document, lines, extending)
    for name in SHARED:
        values = document.get(name, {})
        if not isinstance(values, dict):
            raise ValueError(
                f"{path}: {name} = {shown(values)} is not a table: write [{name}] on a line and its keys below."
            )
        if values:
            shared[name] = Table(shared[name].values | values, f"[{name}]", path, lines, (name,))
    tables = document.get("stage", [])
    if not isinstance(tables, list):
        raise ValueError(f"{path}: [stage] is one table, but a recipe has a list of stages: write [[stage]].")
    for index, values in enumerate(tables):
        if not isinstance(values, dict):
            raise ValueError(
                f"{place(path, lines.get(('stage',)))}: stage[{index}] = {shown(values)} is not a table: write [[stage]] on a "
                "line of its own and the stage's keys below."
            )
        stages.append(Table(dict(values), f"[[stage]] number {len(stages) + 1}", path, lines, ("stage", index)))
    return shared, stages


def _read_document(path: Path) -> tuple[dict[str, Any], dict[Keys, int]]:
    """The values of a recipe file and their lines. Raises FileNotFoundError, ValueError for a table unknown to recipes."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a recipe: name a TOML file in it.")
    if not path.is_file():
        others = sorted(map(str, path.parent.glob("*.toml")))
        raise FileNotFoundError(
            f"There is no recipe {path}: name a TOML file{suggestion(str(path), others)}"
            + (f" Beside it are {', '.join(others)}." if others else "")
        )
    try:
        document, lines = parse(path)
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}. Give permission, or name another recipe.") from error
    known = ["extends", "stage", *SHARED]
    for key in document:
        if key not in known:
            raise ValueError(
                f"{place(path, lines.get((key,)))}: unknown table or key {key!r}{suggestion(key, known)} "
                f"A recipe has {', '.join(f'[{name}]' for name in SHARED)}, [[stage]] and `extends`."
            )
    return document, lines


def _read_base(
    path: Path, document: Mapping[str, Any], lines: Mapping[Keys, int], extending: tuple[Path, ...]
) -> tuple[dict[str, Table], list[Table]]:
    """The tables of the recipe that this one extends; empty ones without `extends`."""
    if "extends" not in document:
        return {name: Table({}, f"[{name}]", path, lines, (name,)) for name in SHARED}, []
    if not isinstance(document["extends"], str):
        where = place(path, lines.get(("extends",)))
        raise ValueError(f"{where}: extends = {shown(document['extends'])} is no path: name one recipe, in quotes.")
    base = path.parent / document["extends"]
    if not base.is_file():
        raise FileNotFoundError(
            f"{path} extends {shown(document['extends'])}, but there is no such file: paths are relative to the recipe."
        )
    if base.resolve() in (*extending, path.resolve()):
        raise ValueError(f"{base} extends itself by way of {path}: remove one `extends`.")
    if len(extending) >= MOST_EXTENDS:
        raise ValueError(
            f"{path} is the end of a chain of {MOST_EXTENDS} recipes, each extending the next: shorten it."
        )
    return _read_tables(base, (*extending, path.resolve()))


# --- tables -> settings


def _check_kind(table: Table) -> None:
    kind = table.values.get("kind")
    if kind is None:
        raise ValueError(f'{table.place()} has no kind: add kind = "…", one of {", ".join(KINDS)}.')
    if str(kind) not in KINDS and file_of(str(kind)) is None:
        raise ValueError(
            f"{table.place('kind')} kind = {shown(kind)} is not a kind of stage{suggestion(str(kind), KINDS)} "
            f'Kinds are {", ".join(KINDS)}, and rooms of your own as "my_room.py:ROOM".'
        )


def _check_names(stages: Sequence[Table]) -> None:
    first: dict[str, Table] = {}
    for table in stages:
        name = table.values["name"]
        try:
            require_stage_name(name)
        except ValueError as error:
            raise ValueError(f"{table.place('name')} name = {shown(name)}: {error}.") from error
        if name in RESERVED_NAMES:
            raise ValueError(
                f"{table.place('name')} name = {name!r} is taken by the recipe itself: choose another name."
            )
        if name.lower() in first:
            raise ValueError(
                f"{table.place()} is the second stage of that name (first: {first[name.lower()].place()}): names must "
                f'differ, in more than capitals: inputs and folders are named by them. Add name = "{name}_2" or what it is for.'
            )
        first[name.lower()] = table


def _assign(assignment: str, shared: dict[str, Table], stages: Sequence[Table]) -> None:
    """`sft.optimizer.learning_rate=1e-3`; the value is read as TOML, or as a string if it is not TOML."""
    target, equals, text = assignment.partition("=")
    assignment = redacted(assignment)  # from here on only shown
    name, *keys = target.strip().split(".")
    tables = shared | {table.values["name"]: table for table in stages}
    if not equals or not keys or not all(keys):
        raise ValueError(f"--set {assignment}: write name.key=value, for instance --set run.seed=1.")
    if name not in tables:
        raise ValueError(
            f"--set {assignment}: there is no table or stage {name!r}{suggestion(name, tables)} "
            f"There are {', '.join(tables)}."
        )
    if keys[0] in ("kind", "name") and name not in shared:
        raise ValueError(f"--set {assignment}: a stage's {keys[0]} is fixed by the recipe. Change it there.")
    what = f"--set {target.strip()}"
    if len(keys) > DEEPEST:
        raise ValueError(f"{what[:100]}… is nested too deeply: {DEEPEST} levels are allowed.")
    put(tables[name].values, keys, parse_value(text, what), what)


def _read_stage(number: int, table: Table, above: Sequence[RecipeStage], has_path: bool) -> RecipeStage:
    """`has_path`: whether the recipe has a `[model] path`."""
    try:
        room = load_room(table.values["kind"])
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{table.place('kind')} {error}") from error
    own = {key: value for key, value in table.values.items() if key not in room.inputs}
    settings = validated(room.settings, replace(table, values=own), [*room.settings.model_fields, *room.inputs])
    sources = {}
    for name, wanted in room.inputs.items():
        if name not in table.values and not wanted.used(settings):
            continue
        wanted = replace(wanted, optional=wanted.optional or (wanted.or_path and has_path))
        if source := _find_source(table, name, wanted, above):
            sources[name] = source
    return RecipeStage(number, settings.name, settings.kind, room, settings, MappingProxyType(sources))


def _find_source(table: Table, name: str, wanted: Input, above: Sequence[RecipeStage]) -> Source | None:
    """The artifact that input `name` reads. An empty reference declines an optional input."""
    reference = table.values.get(name)
    if (reference == "" and wanted.optional) or (reference is None and wanted.only_named):
        return None
    fitting = [
        Source(stage.name, artifact)
        for artifact in wanted.accepts
        for stage in reversed(above)
        if artifact in stage.room.gives
    ]
    if reference is not None:
        return _named_source(table, name, wanted, reference, fitting, above)
    kinds = {stage.name: stage.kind for stage in above}
    preferred = [source for source in fitting if not wanted.made_by or kinds[source.stage] in wanted.made_by]
    if fitting:
        return (preferred or fitting)[0]
    if wanted.optional:
        return None
    makers = [kind for kind in KINDS if set(load_room(kind).gives) & set(wanted.accepts)]
    raise ValueError(
        f"{table.place()} reads {' or '.join(wanted.accepts)} ({name}), and no stage above it gives that. "
        f"Put a stage of kind {' or '.join(makers)} before it{', or set [model] path' * wanted.or_path}."
    )


def _named_source(
    table: Table, name: str, wanted: Input, reference: object, fitting: Sequence[Source], above: Sequence[RecipeStage]
) -> Source:
    offer = f"Fitting above it: {', '.join(map(str, fitting))}." if fitting else "Nothing above it fits."
    what = f"{table.place(name)} {name} = {shown(reference)}:"
    if not isinstance(reference, str):
        raise ValueError(f"{what} name a stage above, or stage/artifact. {offer}")
    stage_name, _, artifact = reference.partition("/")
    stage = next((stage for stage in above if stage.name == stage_name), None)
    if stage is None:
        near = suggestion(stage_name, [stage.name for stage in above])
        raise ValueError(f"{what} there is no stage {stage_name!r} above it{near} {offer}")
    for choice in [artifact] if artifact else wanted.accepts:
        if choice in wanted.accepts and choice in stage.room.gives:
            return Source(stage.name, choice)
    raise ValueError(
        f"{what} it reads {' or '.join(wanted.accepts)}, and the {stage.kind} stage {stage_name!r} gives "
        f"{', '.join(stage.room.gives) or 'nothing to read'}. {offer}"
    )
