"""A JSON schema of recipes, for editors: they complete keys, show what each means, and mark mistakes.

    whetstone schema > recipe.schema.json

A recipe names it in its first line, `#:schema recipe.schema.json` (taplo; Even Better TOML in VS Code). It is made from the
classes of the settings, like the reference in docs/recipes.md.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from whetstone.recipe import KINDS, SHARED, load_room
from whetstone.run.room import Input, Room
from whetstone.run.settings import Settings

OWN_KIND = r"\.py:\w+$"  # a user's own kind of stage, whose keys are not known


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe as a TOML document."""
    rooms = {kind: load_room(kind) for kind in KINDS}
    tables = [*SHARED.values(), *(room.settings for room in rooms.values())]
    references, schema = models_json_schema([(table, "validation") for table in tables])
    definitions = schema["$defs"]
    for table in tables:
        _allow_names(definitions, table, references[table, "validation"])
    for kind, room in rooms.items():
        _complete_stage(_definition(definitions, references[room.settings, "validation"]), kind, room)
    stages = [references[room.settings, "validation"] for room in rooms.values()]
    own = {"properties": {"kind": {"type": "string", "pattern": OWN_KIND}}, "required": ["kind"]}
    properties = {
        "extends": {"type": "string", "description": "another recipe, whose tables and stages come first"},
        **{name: references[table, "validation"] for name, table in SHARED.items()},
        "stage": {"type": "array", "items": {"anyOf": [*stages, own]}},
    }
    return _for_toml(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            "$defs": definitions,
        }
    )


def _definition(definitions: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    return definitions[reference["$ref"].rpartition("/")[2]]


def _complete_stage(stage: dict[str, Any], kind: str, room: Room) -> None:
    """The kind as a constant, and the inputs, which are keys of the recipe but not of the settings."""
    stage["properties"]["kind"] = {"const": kind}
    stage["properties"] |= {
        name: {"type": "string", "description": described(wanted)} for name, wanted in room.inputs.items()
    }


def described(wanted: Input) -> str:
    """What an input reads, and its default."""
    default = "none" if wanted.only_named else "the latest, if there is one" if wanted.optional else "the latest"
    what = wanted.description or " or ".join(wanted.accepts)
    return f"{what}: a stage above, or stage/artifact; default: {default}"


def _allow_names(definitions: dict[str, Any], table: type[BaseModel], reference: dict[str, Any]) -> None:
    """`optimizer = "muon"` sets the name of a table that has a default: the string is allowed, too."""
    properties = _definition(definitions, reference)["properties"]
    for name, declared in table.model_fields.items():
        if isinstance(declared.default, Settings) and "name" in type(declared.default).model_fields:
            inner = definitions[type(declared.default).__name__]["properties"]["name"]
            if "$ref" in properties[name]:
                properties[name]["anyOf"] = [{"$ref": properties[name].pop("$ref")}, inner]


def _for_toml(schema: Any) -> Any:
    """Without what TOML cannot write (null), and without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_for_toml(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    plain = {}
    for key, value in schema.items():
        if value is None or (key == "title" and isinstance(value, str)):
            continue
        plain[key] = _for_toml(value)
    if isinstance(plain.get("anyOf"), list) and len(plain["anyOf"]) == 1:
        plain |= plain.pop("anyOf")[0]
    return plain
