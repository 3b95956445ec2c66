"""A recipe: one TOML file, an ordered list of `[[stage]]` tables and a few shared tables, read into checked settings.

    extends = "tiny.toml"              # optional: that file's tables and stages come first

    [run]
    name = "tiny"

    [[stage]]
    kind = "sft"
    data = "corpus/subset"             # an input named; left out, it is the latest fitting artifact above

Reading a recipe loads the rooms' settings, which import no torch, and runs nothing. Every mistake is a `ValueError`
that says where it is, why it cannot be, and what would do.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings, StageSettings


@dataclass(frozen=True)
class Input:
    """What a stage reads. `accepts` is in order of preference: the second is taken where the first is nowhere above."""

    accepts: tuple[str, ...]
    optional: bool = False
    only_named: bool = False  # read only where the recipe names it
    made_by: tuple[str, ...] = ()  # kinds the default is looked for in; () is any. A named input may come from any kind


@dataclass(frozen=True)
class Kind:
    """A kind of stage: the room that does it, what it reads and gives, which shared settings its result depends on."""

    module: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    gives: tuple[str, ...] = ()
    uses: tuple[str, ...] = ("run.seed",)
    trains: bool = False  # gives a model that the pipeline scores
    divides: bool = False  # several processes may do it together
    reads_run: bool = False  # reads everything above and the scores; cheap, so redone without being forced
    missing: str = ""  # why it cannot be used in this version

    def load(self) -> ModuleType:
        return import_module(self.module)


MODEL = Input(("model",))
OPTIONAL_MODEL = Input(("model",), optional=True)
PROBLEMS = Input(("problems",))
NAMED_ROLLOUTS = Input(("rollouts",), optional=True, only_named=True)
TRAINING = ("run.seed", "model", "parallel.compute")  # micro-batches, threads and device never change what is learnt

KINDS: dict[str, Kind] = {
    "questions": Kind("whetstone.questions.gather", gives=("problems", "traces")),
    "rollouts": Kind(
        "whetstone.rollouts.collect",
        {"problems": PROBLEMS, "traces": Input(("traces",), optional=True)},
        ("rollouts",),
    ),
    "corpus": Kind(
        "whetstone.corpus.build",
        {"problems": PROBLEMS, "rollouts": Input(("rollouts",)), "weak": NAMED_ROLLOUTS, "strong": NAMED_ROLLOUTS},
        ("corpus", "subset", "pairs", "prompts"),
    ),
    "midtrain": Kind(
        "whetstone.midtrain",
        {"corpus": Input(("corpus",)), "model": OPTIONAL_MODEL},
        ("model",),
        uses=TRAINING,
        trains=True,
        divides=True,
    ),
    "sft": Kind(
        "whetstone.sft",
        {"data": Input(("subset", "pairs")), "model": OPTIONAL_MODEL},
        ("model",),
        uses=TRAINING,
        trains=True,
        divides=True,
    ),
    "dpo": Kind(
        "whetstone.dpo.rollout_dpo",
        {"model": MODEL, "prompts": Input(("prompts",)), "pairs": Input(("pairs",), made_by=("corpus",))},
        ("model", "pairs"),
        uses=TRAINING,
        trains=True,
        divides=True,
    ),
    "reward": Kind("", missing="the preference reward model and PPO are not part of this version. Use an `rl` stage"),
    "rl": Kind(
        "whetstone.rl.loop",
        {"model": MODEL, "problems": PROBLEMS, "prompts": Input(("prompts",))},
        ("model",),
        uses=TRAINING,
        trains=True,
        divides=True,
    ),
    "evaluate": Kind(
        "whetstone.evaluate.evaluate",
        {"problems": PROBLEMS, "model": OPTIONAL_MODEL},
        ("evaluation",),
        uses=("run.seed",),
        reads_run=True,
    ),
    "report": Kind("whetstone.report.report", gives=("report",), uses=(), reads_run=True),
}

SHARED: dict[str, type[BaseModel]] = {
    "run": RunSettings,
    "model": ModelSettings,
    "parallel": ParallelSettings,
    "scores": ScoreSettings,
}
PROMPT_TOKENS = 1024  # that a prompt is taken to have at most, where only the answer's length is set
RESERVED_NAMES = (*SHARED, "base")  # `--set` and scores.json use these


@dataclass(frozen=True)
class Source:
    """Where an input comes from: an artifact of a stage above."""

    stage: str
    artifact: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.artifact}"


@dataclass(frozen=True)
class RecipeStage:
    number: int  # 1 is the first; the NN of the stage's folder
    name: str
    kind: str
    settings: StageSettings
    sources: Mapping[str, Source]  # by input name; an optional input that nothing fits is left out

    @property
    def folder_name(self) -> str:
        return f"{self.number:02d}-{self.name}"


@dataclass(frozen=True)
class Recipe:
    path: Path
    run: RunSettings
    model: ModelSettings
    parallel: ParallelSettings
    scores: ScoreSettings
    stages: tuple[RecipeStage, ...]

    @property
    def folder(self) -> Path:
        return self.run.folder / self.run.name

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence of the whole run, prompt and answer: `[model] longest`, or what the stages ask for."""
        if self.model.longest:
            return self.model.longest
        rooms = [stage.settings for stage in self.stages]
        whole = [getattr(room, name, 0) for room in rooms for name in ("sequence_length", "max_length")]
        answers = [getattr(room, "max_tokens", 0) for room in (*rooms, self.scores)]
        return max(*whole, PROMPT_TOKENS + max(answers))

    def stage(self, name: str) -> RecipeStage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise ValueError(
            f"{self.path} has no stage {name!r}{suggestion(name, names)} Its stages are {', '.join(names)}."
        )

    def shared(self, uses: Iterable[str]) -> dict[str, Any]:
        """The shared settings a kind depends on, by dotted name: `run.seed`, or a whole table."""
        found: dict[str, Any] = {}
        for use in uses:
            table, _, key = use.partition(".")
            values = getattr(self, table).model_dump(mode="json")
            found |= {f"{table}.{k}": v for k, v in values.items() if not key or k == key}
        return found

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, defaults included."""
        return {
            **{name: getattr(self, name).model_dump(mode="json") for name in SHARED},
            "stage": [
                stage.settings.model_dump(mode="json") | {"inputs": {k: str(v) for k, v in stage.sources.items()}}
                for stage in self.stages
            ],
        }


@dataclass
class _Table:
    """A TOML table as written, and where: for messages."""

    values: dict[str, Any]
    label: str  # `[run]`, `[[stage]] "sft"`
    file: Path
    stage_index: int | None = None  # among the stages of its own file
    lines: Sequence[str] = ()

    def place(self, *path: str | int) -> str:
        """`recipes/tiny.toml:12: [[stage]] "sft"`, with the line of the key at `path` where it is found."""
        table, index = ("stage", self.stage_index) if self.stage_index is not None else (self.label.strip("[]"), 0)
        number = _line_number(self.lines, table, index, path)
        return f"{self.file}{f':{number}' if number else ''}: {self.label}"


def read_recipe(path: Path, sets: Sequence[str] = ()) -> Recipe:
    """Read, merge what it extends, apply `--set name.key=value`, check. Runs nothing and writes nothing."""
    shared, stages = _read_tables(Path(path), ())
    shared["run"].values.setdefault("name", Path(path).stem)
    if not stages:
        raise ValueError(
            f'{path} has no [[stage]]: there is nothing to run. Begin with\n    [[stage]]\n    kind = "questions"'
        )
    for table in stages:
        _check_kind(table)
        table.values.setdefault("name", table.values["kind"])
        table.label = f'[[stage]] "{table.values["name"]}"'
    _check_names(stages)
    for assignment in sets:
        _assign(assignment, shared, stages)
    read: list[RecipeStage] = []
    for number, table in enumerate(stages, 1):
        read.append(_read_stage(number, table, read))
    tables = {name: _validated(SHARED[name], shared[name]) for name in SHARED}
    return Recipe(path=Path(path), stages=tuple(read), **tables)


# --- files -> tables


def _read_tables(path: Path, extending: tuple[Path, ...]) -> tuple[dict[str, _Table], list[_Table]]:
    if path.resolve() in extending:
        raise ValueError(f"{path} extends itself by way of {extending[-1]}: remove one `extends`.")
    document, lines = _parse(path)
    known = ["extends", "stage", *SHARED]
    for key in document:
        if key not in known:
            number = _line_number(lines, key, 0, ()) or _key_line(lines, key, range(len(lines)))
            raise ValueError(
                f"{path}{f':{number}' if number else ''}: unknown table or key {key!r}{suggestion(key, known)} "
                f"A recipe has {', '.join(f'[{name}]' for name in SHARED)}, [[stage]] and `extends`."
            )
    shared = {name: _Table({}, f"[{name}]", path, None, lines) for name in SHARED}
    stages: list[_Table] = []
    if "extends" in document:
        base = path.parent / str(document["extends"])
        if not base.is_file():
            raise FileNotFoundError(
                f"{path} extends {document['extends']!r}, but there is no {base}: paths are relative to the recipe."
            )
        shared, stages = _read_tables(base, (*extending, path.resolve()))
    for name in SHARED:
        values = document.get(name, {})
        if not isinstance(values, dict):
            raise ValueError(
                f"{path}: {name} = {values!r} is not a table: write [{name}] on a line and its keys below."
            )
        if values:
            shared[name] = _Table(shared[name].values | values, f"[{name}]", path, None, lines)
    tables = document.get("stage", [])
    if not isinstance(tables, list):
        raise ValueError(f"{path}: [stage] is one table, but a recipe has a list of stages: write [[stage]].")
    for index, values in enumerate(tables):
        label = f"[[stage]] number {len(stages) + 1}"
        stages.append(_Table(dict(values), label, path, index, lines))
    return shared, stages


def _parse(path: Path) -> tuple[dict[str, Any], list[str]]:
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"There is no recipe {path}: name a TOML file{suggestion(str(path), near)}"
            + (f" Beside it are {', '.join(near)}." if near else "")
        )
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): TOML must be. Save it as UTF-8.") from error
    try:
        return tomllib.loads(text), text.splitlines()
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            f"{path} is not valid TOML: {error}. Strings need quotes, tables are [name], stages are [[stage]]."
        ) from error


def _line_number(lines: Sequence[str], table: str, index: int, path: Sequence[str | int]) -> int | None:
    """The line of the key at `path` in the index-th table of that name (of its header for no path), as far as found."""
    region = _region(lines, table, index, range(len(lines)))
    if region is None:
        return None
    line = region.start + 1
    for position, part in enumerate(path):
        if isinstance(part, int):
            if (inner := _region(lines, table, part, region)) is not None:
                region, line = inner, inner.start + 1
        elif key_line := _key_line(lines, part, region):
            line = key_line
        elif (inner := _region(lines, f"{table}.{part}", 0, region)) is not None:
            table, line = f"{table}.{part}", inner.start + 1
            if not any(isinstance(part, int) for part in path[position + 1 : position + 2]):
                region = inner
    return line


def _header(line: str) -> str:
    found = re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]", line)
    return found[1] if found else ""


def _region(lines: Sequence[str], table: str, index: int, within: range) -> range | None:
    """The lines of the index-th table of that name, the tables below it included."""
    starts = [n for n in within if _header(lines[n]) == table]
    if index >= len(starts):
        return None
    rest = range(starts[index] + 1, within.stop)
    stop = next((n for n in rest if _header(lines[n]) and not _header(lines[n]).startswith(table + ".")), within.stop)
    return range(starts[index], stop)


def _key_line(lines: Sequence[str], key: str, region: range) -> int | None:
    """The line, from 1, of a key of the region's own table: before the first header below it."""
    for n in region:
        if n > region.start and _header(lines[n]):
            return None
        if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", lines[n]):
            return n + 1
    return None


# --- tables -> settings


def _check_kind(table: _Table) -> None:
    kind = table.values.get("kind")
    if kind is None:
        raise ValueError(f'{table.place()} has no kind: add kind = "…", one of {", ".join(KINDS)}.')
    if kind not in KINDS:
        raise ValueError(
            f"{table.place('kind')} kind = {kind!r} is not a kind of stage{suggestion(str(kind), KINDS)} "
            f"Kinds are {', '.join(KINDS)}."
        )
    if KINDS[kind].missing:
        raise ValueError(f"{table.place('kind')} kind = {kind!r}: {KINDS[kind].missing}.")


def _check_names(stages: Sequence[_Table]) -> None:
    seen: dict[str, _Table] = {}
    for table in stages:
        name = table.values["name"]
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ValueError(
                f"{table.place('name')} name = {name!r}: it becomes a folder's name, so only letters, digits, `_`, `-` "
                "and `.` will do."
            )
        if name in RESERVED_NAMES:
            raise ValueError(
                f"{table.place('name')} name = {name!r} is taken by the recipe itself: choose another name."
            )
        if name in seen:
            raise ValueError(
                f"{table.place()} is the second stage of that name (first: {seen[name].place()}): names must differ, "
                f'inputs are named by them. Add name = "{name}_2" or what it is for.'
            )
        seen[name] = table


def _assign(assignment: str, shared: dict[str, _Table], stages: Sequence[_Table]) -> None:
    """`sft.optimizer.learning_rate=1e-3`; the value is read as TOML and, where it is none, as a string."""
    target, equals, text = assignment.partition("=")
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
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    _put(tables[name].values, keys, value, f"--set {assignment}")


def _put(values: Any, keys: Sequence[str], value: object, what: str) -> None:
    """Set `values[keys[0]][keys[1]]…`, making tables on the way; the number of an entry chooses it in a list."""
    key, *rest = keys
    if isinstance(values, list):
        if not key.isdigit() or int(key) >= len(values):
            raise ValueError(f"{what}: {key!r} chooses one of a list of {len(values)}: write a number from 0.")
        if rest:
            _put(values[int(key)], rest, value, what)
        else:
            values[int(key)] = value
    elif isinstance(values, dict):
        if rest:
            _put(values.setdefault(key, {}), rest, value, what)
        else:
            values[key] = value
    else:
        raise ValueError(f"{what}: {values!r} is not a table, so it has no {key!r}. Set it as a whole.")


def _read_stage(number: int, table: _Table, above: Sequence[RecipeStage]) -> RecipeStage:
    kind = KINDS[table.values["kind"]]
    try:
        settings_class: type[StageSettings] = kind.load().Settings
    except ModuleNotFoundError as error:
        if error.name != kind.module:
            raise
        raise ValueError(f"{table.place('kind')}: this version has no {kind.module}, which does that stage.") from error
    inputs = {name: table.values[name] for name in kind.inputs if name in table.values}
    sources = {}
    for name, wanted in kind.inputs.items():
        source = _find_source(table, name, wanted, inputs.get(name), above)
        if source is not None:
            sources[name] = source
    own = {k: v for k, v in table.values.items() if k not in inputs or k in settings_class.model_fields}
    known = [*settings_class.model_fields, *kind.inputs]
    settings = _validated(settings_class, _Table(own, table.label, table.file, table.stage_index, table.lines), known)
    return RecipeStage(number, settings.name, settings.kind, settings, MappingProxyType(sources))


def _find_source(
    table: _Table, name: str, wanted: Input, reference: object, above: Sequence[RecipeStage]
) -> Source | None:
    """The artifact that input `name` reads. An empty reference says that an optional input is not wanted."""
    fitting = [
        Source(stage.name, artifact)
        for artifact in wanted.accepts
        for stage in reversed(above)
        if artifact in KINDS[stage.kind].gives
    ]
    offer = f"Fitting above it: {', '.join(map(str, fitting))}." if fitting else "Nothing above it fits."
    if reference == "" and wanted.optional:
        return None
    if reference is None and wanted.only_named:
        return None
    if reference is None:
        kinds = {stage.name: stage.kind for stage in above}
        default = [s for s in fitting if not wanted.made_by or kinds[s.stage] in wanted.made_by] or fitting
        if default or wanted.optional:
            return default[0] if default else None
        makers = [kind for kind, k in KINDS.items() if set(k.gives) & set(wanted.accepts)]
        raise ValueError(
            f"{table.place()} reads {' or '.join(wanted.accepts)} ({name}), and no stage above it gives that. "
            f"Put a stage of kind {' or '.join(makers)} before it."
        )
    if not isinstance(reference, str):
        raise ValueError(f"{table.place(name)} {name} = {reference!r}: name a stage above, or stage/artifact. {offer}")
    stage_name, _, artifact = reference.partition("/")
    stage = next((stage for stage in above if stage.name == stage_name), None)
    if stage is None:
        raise ValueError(
            f"{table.place(name)} {name} = {reference!r}: there is no stage {stage_name!r} above it"
            f"{suggestion(stage_name, [s.name for s in above])} {offer}"
        )
    for given in [artifact] if artifact else wanted.accepts:
        if given in wanted.accepts and given in KINDS[stage.kind].gives:
            return Source(stage.name, given)
    raise ValueError(
        f"{table.place(name)} {name} = {reference!r}: it reads {' or '.join(wanted.accepts)}, and the {stage.kind} "
        f"stage {stage_name!r} gives {', '.join(KINDS[stage.kind].gives) or 'nothing to read'}. {offer}"
    )


def _validated(settings_class: type[Any], table: _Table, known: Sequence[str] = ()) -> Any:
    try:
        return settings_class.model_validate(table.values)
    except ValidationError as error:
        words = [_in_words(settings_class, table, one, known) for one in error.errors()]
        raise ValueError("\n".join(words)) from error


def _in_words(settings_class: type[BaseModel], table: _Table, error: Mapping[str, Any], known: Sequence[str]) -> str:
    """One pydantic error as what (with the value), why, remedy."""
    path = error["loc"]
    place, key = table.place(*path), _written(path, table.values, missing=error["type"] == "missing")
    fields = _fields_at(settings_class, path[:-1])
    if error["type"] == "extra_forbidden":
        names = list(dict.fromkeys(known if len(path) == 1 and known else fields))
        return f"{place} unknown key {key!r}{suggestion(str(path[-1]), names)} Known keys are {', '.join(names)}."
    if error["type"] == "missing":
        return f"{place} {key} is missing: it has no default. Add {path[-1]} = …"
    why = str(error["msg"]).removeprefix("Value error, ").removesuffix(".")
    value = error["input"]
    what = f"{key} = {value!r}: " if key and not isinstance(value, dict) else f"{key}: " if key else ""
    if error["type"] == "value_error":  # a room's own check, which says what to do
        return f"{place} {what}{why}."
    default = _default_at(settings_class, path)
    remedy = "" if default is None else f" The default is {default!r}: leave the line out or give a value like it."
    return f"{place} {what}{why[:1].lower()}{why[1:]}.{remedy}"


def _default_at(settings_class: type[BaseModel], path: Sequence[str | int]) -> Any:
    """The default of the setting at `path`, as the stage has it; None if there is none."""
    stage_default: Any = settings_class.model_construct()
    for part in path:
        stage_default = getattr(stage_default, str(part), None) if isinstance(stage_default, BaseModel) else None
    if stage_default is not None:
        return stage_default
    declared = _fields_at(settings_class, path[:-1]).get(path[-1])
    return None if declared is None or declared.is_required() else declared.get_default(call_default_factory=True)


def _written(path: Sequence[str | int], values: Any, missing: bool) -> str:
    """The path as the user wrote it: `source[0].digits`. What is no key of theirs (the tag of a union) is left out."""
    words = ""
    for position, part in enumerate(path):
        if isinstance(part, int) and isinstance(values, list | tuple) and part < len(values):
            words += f"[{part}]"
            values = values[part]
        elif isinstance(values, dict) and (part in values or (missing and position == len(path) - 1)):
            words += f".{part}"
            values = values.get(part)
    return words.removeprefix(".")


def _fields_at(settings_class: type[BaseModel], path: Sequence[str | int]) -> Mapping[str, Any]:
    """The fields of the table at `path` below the settings; none where that is not one table of settings."""
    here = [settings_class]
    for part in path:
        if isinstance(part, int):
            continue
        tagged = [c for c in here if "kind" in c.model_fields and part in get_args(c.model_fields["kind"].annotation)]
        here = tagged or [inner for c in here if part in c.model_fields for inner in _tables_in(c.model_fields[part])]
    return here[0].model_fields if len(here) == 1 else {}


def _tables_in(declared: Any) -> list[type[BaseModel]]:
    """The settings classes that a field's type names: a class, a tuple of it, a union of several."""
    found, unseen = [], [getattr(declared, "annotation", declared)]
    while unseen:
        one = unseen.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.append(one)
        unseen += get_args(one)
    return found


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'sft'?` where something is near, and a full stop where nothing is."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f": did you mean {near[0]!r}?" if near else "."
