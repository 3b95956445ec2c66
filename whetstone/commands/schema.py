"""`whetstone schema`: the JSON schema of recipes."""

from whetstone.run.visible import write_line


def schema() -> None:
    """Print the JSON schema of recipes, for an editor that completes and checks TOML (see docs/recipes.md)."""
    import json

    from whetstone.schema import recipe_schema

    write_line(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))
