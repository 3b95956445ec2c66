"""docs/recipes.md says what the settings classes say."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def load_maker():
    spec = importlib.util.spec_from_file_location("make_recipes_reference", DOCS / "make_recipes_reference.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return maker


def test_the_settings_in_the_document_are_those_of_the_classes():
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert load_maker().with_reference(page) == page, "run: python docs/make_recipes_reference.py"


def test_every_setting_has_a_meaning():
    unexplained = [line for line in load_maker().reference().splitlines() if line.endswith("| |")]
    assert not unexplained, "write the meaning as a comment behind the setting"


def test_a_meaning_is_the_comment_behind_a_setting_that_takes_several_lines():
    from whetstone.rl.loop import Settings

    assert load_maker()._meanings(Settings)["length_spread"].startswith("prompt_optimization: most uneven")
