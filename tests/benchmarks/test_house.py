"""The figures of the house, on source trees of a few lines."""

from benchmarks.house import ROOT, circles, function_lengths, import_graph, measure, reachable, settings_fields


def test_an_import_inside_a_function_or_for_a_type_checker_counts():
    modules = {
        "a": "def f():\n    from whetstone.b import g\n",
        "b": "if TYPE_CHECKING:\n    from whetstone import c\n",
        "c": "import whetstone.a\n",
        "d": "import json\n",
    }
    graph = import_graph(modules)
    assert graph == {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}
    assert circles(graph) == [["a", "b", "c"]]
    assert reachable(graph, "d") == {"d"}


def test_two_circles_that_touch_are_one_and_a_chain_is_none():
    assert circles({"a": {"b"}, "b": {"a", "c"}, "c": {"b"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_settings_are_found_by_their_parents_even_under_another_name():
    modules = {
        "run.settings": "class Settings(BaseModel):\n    pass\n",
        "x": "from whetstone.run.settings import Settings as Table\nclass A(Table):\n    one: int = 1\n    two: str\n",
        "y": "class B(A):\n    MOVED: ClassVar[dict] = {}\n    _hidden: int = 0\n    three: float\nclass C:\n    no: int\n",
    }
    assert settings_fields(modules) == {"run.settings.Settings": 0, "x.A": 2, "y.B": 1}


def test_a_function_inside_a_function_is_counted_with_both():
    assert sorted(function_lengths({"a": "def f():\n    def g():\n        return 1\n    return g\n"})) == [2, 4]


def test_the_package_itself_is_measured():
    figures = measure(ROOT)
    assert figures["files"] > 100
    assert figures["reachable from rl, modules"] > figures["reachable from sft, modules"] > 10
