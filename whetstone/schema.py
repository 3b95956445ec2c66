"""A JSON schema of recipes, for editors: they complete keys, show what each means, and mark mistakes.

    whetstone schema > recipe.schema.json

A recipe names it in its first line, `#:schema recipe.schema.json` (taplo; Even Better TOML in VS Code). It is made from the
classes of the settings, like the reference in docs/recipes.md.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import to_jsonable_python

from whetstone.recipe import KINDS, SHARED, load_room
from whetstone.run.room import Input
from whetstone.run.settings import Settings


class _OwnStage(BaseModel):
    """A user's own kind of stage, whose other keys are not known."""

    kind: str = Field(pattern=r"\.py:\w+$")


class _Generator(GenerateJsonSchema):
    """Without what TOML cannot write (null), and without titles, which would repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """`optimizer = "muon"` sets the name of a table that has a default: the string is allowed, too."""
        default = schema.get("default")
        inner = self.generate_inner(schema["schema"])
        if isinstance(default, Settings) and "name" in type(default).model_fields and "anyOf" not in inner:
            names = get_args(type(default).model_fields["name"].annotation)
            inner = {"anyOf": [inner, {"enum": [*names]}]}
        return inner if default is None else inner | {"default": to_jsonable_python(default, exclude_none=True)}


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe as a TOML document."""
    extends = (str, Field("", description="another recipe, whose tables and stages come first"))
    shared: dict[str, Any] = {name: (table, Field(default_factory=table)) for name, table in SHARED.items()}
    stages: Any = _OwnStage
    for kind in KINDS:
        stages |= _stage(kind)
    closed = ConfigDict(extra="forbid")
    recipe = create_model("Recipe", __config__=closed, extends=extends, **shared, stage=(list[stages], []))
    return {"$schema": _Generator.schema_dialect, **recipe.model_json_schema(schema_generator=_Generator)}


def _stage(kind: str) -> type[BaseModel]:
    """The settings of the kind, with its inputs, which are keys of the recipe but not of the settings."""
    room = load_room(kind)
    inputs: dict[str, Any] = {name: (str, Field("", description=_described(i))) for name, i in room.inputs.items()}
    return create_model(kind, __base__=room.settings, kind=(Literal[kind], ...), **inputs)


def _described(wanted: Input) -> str:
    """What an input reads, and its default."""
    default = "none" if wanted.only_named else "the latest, if there is one" if wanted.optional else "the latest"
    default += ", or [model] path" * wanted.or_path
    what = wanted.description or " or ".join(wanted.accepts)
    return f"{what}: a stage above, or stage/artifact; default: {default}"
