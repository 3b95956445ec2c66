"""What the README says can be typed, read and found."""

import re
import tomllib
from pathlib import Path

import pytest

from whetstone.recipe import KINDS, read_recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def test_its_recipe_is_one(tmp_path):
    (tmp_path / "mine.toml").write_text(blocks("toml")[0], encoding="utf-8")
    recipe = read_recipe(tmp_path / "mine.toml")
    assert [stage.kind for stage in recipe.stages] == [kind for kind in KINDS if kind not in ("reward", "distill", "evaluate")]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_can_be_read_and_is_named(path):
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    base = Path(recipe.get("extends", path.name)).stem  # a recipe that extends another adds to its run
    assert read_recipe(path).run.name == base
    assert path.name in README


def test_its_verdict_is_the_verifiers():
    code = next(block for block in blocks("python") if "import verify" in block)
    call, said = re.search(r"^(verify\(.*\)) +# (.*)$", code, flags=re.MULTILINE).groups()
    from whetstone.records import Verdict
    from whetstone.verify import verify

    assert eval(call, {"verify": verify}) == eval(said, {"Verdict": Verdict})


def test_its_python_compiles_and_its_imports_are_there():
    for code in blocks("python"):
        compile(code, "README.md", "exec")
        for line in code.splitlines():
            if line.startswith(("from ", "import ")):
                exec(line, {})


@pytest.mark.parametrize("row", [row for row in README.splitlines() if row.startswith("| ") and "`" in row])
def test_the_files_it_names_are_there(row):
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", row):
        assert (ROOT / "whetstone" / name).exists(), f"README names {name}"


def test_the_files_of_its_tree_are_there():
    tree = next(block for block in blocks("") if block.startswith("recipes/"))
    folder = ROOT
    for line in tree.splitlines():
        if not line.startswith(" "):
            folder = ROOT / line.split()[0]
            assert folder.is_dir(), line
        for name in re.findall(r"^  ([\w/]+\.py|\w+/)|  (\w+\.(?:py|toml))(?=\s|$)", line):
            assert (folder / "".join(name)).exists(), f"README's tree names {''.join(name)}"


def test_the_questions_that_it_says_the_demo_answers_are_worded_as_the_demos_problems_are():
    """Only in these words does the demo's model know arithmetic."""
    told = [line.split("|") for line in README.splitlines() if re.match(r"\| .* \| \d \|$", line)]
    right = {cells[1].strip(): int(cells[2]) for cells in told}
    assert len(right) >= 5 and max(right.values()) == 8
    number = r"\d{1,3}"
    chain = rf"(What is|Compute) [(]?{number}([-+*][(]?{number}[)]?)+[?.]"
    equation = rf"Solve for x: x([-+]{number})+={number}\."
    story = rf"\w+ has {number} \w+\. First .* {number}.*\. How many \w+ does \w+ have now\?"
    for question, count in right.items():
        assert (count > 4) == bool(re.fullmatch(f"{chain}|{equation}|{story}", question)), question
    for question in re.findall(r'generate [^\n]*"(.*?)"|question="(.*?)"', README):
        assert "".join(question) in right, question
