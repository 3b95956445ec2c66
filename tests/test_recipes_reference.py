"""The settings in docs/recipes.md and in the schema for editors are those that the classes declare."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from whetstone.run.settings import Settings
from whetstone.schema import recipe_schema

DOCS = Path(__file__).parent.parent / "docs"
RECIPES = sorted((DOCS.parent / "recipes").glob("*.toml"))


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import make_recipes_reference

    yield make_recipes_reference
    sys.modules.pop("make_recipes_reference")


def test_the_page_is_up_to_date(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.with_reference(page), "run python docs/make_recipes_reference.py"


def all_settings(parent: type[Settings] = Settings) -> list[type[Settings]]:
    """The package's classes of settings; importing the schema has loaded the rooms that declare them."""
    if parent is Settings:
        recipe_schema()
    below = [table for child in parent.__subclasses__() for table in (child, *all_settings(child))]
    return [table for table in dict.fromkeys(below) if table.__module__.startswith("whetstone.")]


def test_every_setting_has_a_description():
    missing = [
        f"{table.__module__}.{table.__name__}.{name}"
        for table in all_settings()
        for name, declared in table.model_fields.items()
        if not declared.description and name != "kind"
    ]
    assert not missing, f"declare them as Field(…, description=…): {', '.join(missing)}"


# --- the schema


def fits(schema: dict[str, Any], value: Any, whole: dict[str, Any]) -> bool:
    """Whether a value fits, as far as recipes need JSON Schema."""
    if "$ref" in schema:
        return fits(whole["$defs"][schema["$ref"].rpartition("/")[2]], value, whole)
    if "anyOf" in schema and not any(fits(part, value, whole) for part in schema["anyOf"]):
        return False
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if "pattern" in schema and not re.search(schema["pattern"], str(value)):
        return False
    if isinstance(value, list):
        return all(fits(schema.get("items", {}), entry, whole) for entry in value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if set(schema.get("required", ())) - set(value) or (
            schema.get("additionalProperties") is False and set(value) - set(known)
        ):
            return False
        return all(fits(known.get(key, {}), entry, whole) for key, entry in value.items())
    return True


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_fits_the_schema(path):
    schema, recipe = recipe_schema(), tomllib.loads(path.read_text())
    unfit = [stage for stage in recipe["stage"] if not fits(schema["properties"]["stage"]["items"], stage, schema)]
    assert not unfit and fits(schema, recipe, schema)


@pytest.mark.parametrize(
    "stage",
    [
        {"kind": "sft", "epocs": 2},
        {"kind": "sft", "epochs": "two"},
        {"kind": "sfft"},
        {"kind": "sft", "optimizer": {"learning_rat": 1}},
        {"kind": "sft", "optimizer": "adam"},
    ],
)
def test_the_schema_refuses_what_a_recipe_refuses(stage):
    schema = recipe_schema()
    assert not fits(schema, {"stage": [stage]}, schema)


def test_the_schema_knows_inputs_names_of_optimizers_and_stages_of_the_users():
    schema = recipe_schema()
    assert fits(schema, {"stage": [{"kind": "sft", "data": "dpo/pairs", "optimizer": "muon"}]}, schema)
    assert fits(schema, {"stage": [{"kind": "mine.py:ROOM", "anything": 1}]}, schema)
