"""The recipes that are installed with the package: `tiny` stands for recipes/tiny.toml wherever the command is run."""

from pathlib import Path

from whetstone.run.mistakes import suggestion

FOLDER = Path(__file__).parent / "recipes"


def recipe_file(given: Path) -> Path:
    """The file itself. A bare name, or `recipes/NAME.toml` where there is no such file, is the installed recipe's.

    Raises FileNotFoundError for a bare name that is no installed recipe's.
    """
    shipped = FOLDER / f"{given.stem}.toml"
    bare = given.suffix == "" and given.parent == Path(".")
    if given.exists() or not (bare or given == Path("recipes") / shipped.name):
        return given
    if shipped.is_file():
        return shipped
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    raise FileNotFoundError(
        f"There is no recipe {given}{suggestion(str(given.stem), names)} Name a TOML file, or an installed recipe: "
        f"{', '.join(names)}."
    )
