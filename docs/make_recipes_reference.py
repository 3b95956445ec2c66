"""Writes the settings part of docs/recipes.md from the settings classes themselves: a test holds the two together.

    python docs/make_recipes_reference.py

A setting's meaning is its description, or the comment behind it in the source; its default is the class's own.
"""

import ast
import inspect
import io
import tokenize
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from whetstone.corpus.build import EvaluationSet, PairFile
from whetstone.decode.server_generator import Server
from whetstone.questions.asdiv import AsdivSource
from whetstone.questions.gather import ProceduralSource
from whetstone.questions.gym import GymSource
from whetstone.questions.metamath import MetamathSettings
from whetstone.questions.published import PublishedSource
from whetstone.questions.sources import Columns, FileSource, Shares
from whetstone.recipe import KINDS, SHARED, Kind
from whetstone.rl.tripwires import Tripwires
from whetstone.run.settings import OptimizerSettings, SpikeSettings, StageSettings

PAGE = Path(__file__).with_name("recipes.md")
BEGIN, END = "<!-- settings: written by make_recipes_reference.py -->", "<!-- end of settings -->"
BELOW: dict[str, dict[str, type[BaseModel]]] = {
    "questions": {
        '`[[stage.source]]` with `kind = "procedural"`': ProceduralSource,
        '`[[stage.source]]` with `kind = "file"`': FileSource,
        "`columns = { … }` of a file": Columns,
        "`split = { … }` of a file": Shares,
        '`[[stage.source]]` with `kind = "published"`': PublishedSource,
        '`[[stage.source]]` with `kind = "asdiv"`': AsdivSource,
        '`[[stage.source]]` with `kind = "reasoning_gym"`': GymSource,
        "`[stage.metamath]`": MetamathSettings,
    },
    "rollouts": {"`teacher = { … }` and `judge = { … }`": Server},
    "corpus": {"`[[stage.against]]`": EvaluationSet, "`[[stage.imported_pairs]]`": PairFile},
}
UNIVERSAL = ("kind", *StageSettings.model_fields)


def reference() -> str:
    parts = ["## Shared tables"]
    for name, settings in SHARED.items():
        parts += [f"### `[{name}]`", _first_line(settings), _table(settings)]
    parts.append("## Stages")
    for name, kind in KINDS.items():
        parts.append(f'### `kind = "{name}"`')
        if kind.missing:
            parts.append(f"Not there yet: {kind.missing}.")
            continue
        module = kind.load()
        parts += [_first_line(module), _reads(kind), _table(module.Settings, (*UNIVERSAL, *kind.inputs))]
        for heading, settings in BELOW.get(name, {}).items():
            parts += [f"#### {heading}", _first_line(settings), _table(settings, ("kind",))]
        if name == "rl":
            parts += ["#### `[stage.tripwires]`", _first_line(Tripwires), _table(Tripwires)]
    for name, settings in {"optimizer": OptimizerSettings, "spikes": SpikeSettings}.items():
        parts += [f"### `[stage.{name}]` of a training stage", _first_line(settings), _table(settings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _first_line(thing: Any) -> str:
    text = inspect.cleandoc(thing.__dict__.get("__doc__") or "")
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return "" if paragraph.startswith("Settings") else paragraph.removesuffix(":")


def _reads(kind: Kind) -> str:
    told = []
    if kind.inputs:
        inputs = [
            f"`{name}` ({' or '.join(wanted.accepts)}{', optional' if wanted.optional else ''})"
            for name, wanted in kind.inputs.items()
        ]
        told.append(f"Inputs: {', '.join(inputs)}.")
    if kind.gives:
        told.append(f"Gives: {', '.join(kind.gives)}.")
    return " ".join(told)


def _table(settings: type[BaseModel], left_out: tuple[str, ...] = ()) -> str:
    meanings = _meanings(settings)
    rows = []
    for name, field in settings.model_fields.items():
        if name in left_out:
            continue
        default = "(needed)" if field.is_required() else _toml(field.get_default(call_default_factory=True))
        described = (field.description or meanings.get(name, "")).replace("|", "\\|")
        meaning = "; ".join(part for part in (described, _choices(field.annotation)) if part)
        rows.append(f"| `{name}` | {default} | {meaning} |".replace("  |", " |"))
    if not rows:
        return "No settings of its own."
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *rows])


def _meanings(settings: type[BaseModel]) -> dict[str, str]:
    """Field -> the comment at the end of its line, or of its last line."""
    source = inspect.getsource(settings)
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, str] = {}
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.end_lineno, node.lineno - 1, -1)
            comment = next((comments[line] for line in lines if line in comments), "")
            found[node.target.id] = comment.replace("None:", "left out:")
    return found


def _choices(annotation: Any) -> str:
    """The values a setting can take, where they are few."""
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{_plain(value)}`" for value in get_args(annotation))
    found = [text for inner in get_args(annotation) if (text := _choices(inner))]
    return found[0].replace("one of", "any of") if found and get_origin(annotation) is tuple else "".join(found[:1])


def _toml(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, BaseModel):
        own = {name: given for name, given in value if given != type(value).model_fields[name].default}
        return (
            f"`{{ {', '.join(f'{name} = {_plain(given)}' for name, given in own.items())} }}`" if own else "see below"
        )
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f'"{value}"' if isinstance(value, str | Path) else f"{value:g}" if isinstance(value, float) else str(value)


def with_reference(page: str) -> str:
    """The page with its settings part made anew; what stands around it stays."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE} has lost its marks {BEGIN} and {END}"
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
