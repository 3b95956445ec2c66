"""The size and shape of the source tree, now and at another revision: `python -m benchmarks.house [--before REVISION]`.

Everything is read from the source text, so an old revision needs no environment of its own.

lines, files       Python files below `whetstone/`, blank lines and comments included; data files beside them apart
settings           fields that the recipe's tables (pydantic models) declare themselves; an inherited field counts once
circles            groups of modules that import each other, imports inside functions and for type checkers included
reachable          modules and lines that a room's main file imports, directly or by way of others
"""

import argparse
import ast
import json
import statistics
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

LONG_FILE = 400  # lines
LONG_FUNCTION = 50
DATA = (".css", ".toml", ".json")
ROOT = Path(__file__).parent.parent
LOOPS = {"midtrain": "midtrain", "sft": "sft", "dpo": "dpo.rollout_dpo", "rl": "rl.loop"}

Graph = dict[str, set[str]]


def read_modules(tree: Path) -> dict[str, str]:
    """Module name (without `whetstone.`) -> source, for every module of the package below `tree`."""
    package = tree / "whetstone"
    return {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        or "__init__": path.read_text(encoding="utf-8")
        for path in sorted(package.rglob("*.py"))
    }


def import_graph(modules: Mapping[str, str]) -> Graph:
    """Module -> modules of the package that it imports anywhere in its file."""
    return {name: set(_imported(source, modules)) - {name} for name, source in modules.items()}


def _imported(source: str, modules: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("whetstone."):
                yield from _module_of(name.removeprefix("whetstone."), modules)


def _module_of(name: str, modules: Mapping[str, str]) -> Iterator[str]:
    """The module of a dotted name: the name itself, or the module that it is an attribute of."""
    while name:
        if name in modules:
            yield name
            return
        name = name.rpartition(".")[0]


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(graph[module]):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            component = []
            while not component or component[-1] != module:
                component.append(stack.pop())
            if len(component) > 1:
                components.append(sorted(component))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return sorted(components)


def reachable(graph: Graph, start: str) -> set[str]:
    """Modules that `start` imports, directly or by way of others, and itself."""
    reached, unseen = set(), [start]
    while unseen:
        module = unseen.pop()
        if module not in reached:
            reached.add(module)
            unseen += graph[module]
    return reached


def settings_fields(modules: Mapping[str, str]) -> dict[str, int]:
    """Class of settings (`module.Class`) -> number of fields that it declares itself."""
    classes = {}
    for name, source in modules.items():
        tree = ast.parse(source)
        names = {
            alias.asname: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.asname
        }
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                classes[f"{name}.{node.name}"] = (node, {names.get(base, base) for base in bases})
    tables: dict[str, int] = {}
    parents, known = {"BaseModel"}, -1
    while len(tables) > known:  # each round adds the classes whose parents are known
        known = len(tables)
        for name, (node, bases) in classes.items():
            if bases & parents and name not in tables:
                tables[name] = sum(map(_is_field, node.body))
                parents.add(node.name)
    return tables


def _is_field(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not node.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(node.annotation)
    )


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def function_lengths(modules: Mapping[str, str]) -> list[int]:
    return [
        node.end_lineno - node.lineno + 1
        for source in modules.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def measure(tree: Path) -> dict[str, object]:
    """Every figure of the table, by name."""
    modules = read_modules(tree)
    lines = {name: source.count("\n") for name, source in modules.items()}
    graph = import_graph(modules)
    functions = function_lengths(modules)
    figures: dict[str, object] = {
        "lines in whetstone/": sum(lines.values()),
        "of these in verify/": sum(count for name, count in lines.items() if name.split(".")[0] == "verify"),
        "lines of data files": sum(_lines(path) for path in (tree / "whetstone").rglob("*") if path.suffix in DATA),
        "files": len(modules),
        f"files over {LONG_FILE} lines": sum(count > LONG_FILE for count in lines.values()),
        "lines of a function, median": statistics.median(functions),
        f"functions over {LONG_FUNCTION} lines, %": round(
            100 * sum(n > LONG_FUNCTION for n in functions) / len(functions), 1
        ),
        "settings fields": sum(settings_fields(modules).values()),
        "classes of settings": len(settings_fields(modules)),
        "import circles": len(circles(graph)),
    }
    for name, module in LOOPS.items():
        reached = reachable(graph, module)
        figures[f"reachable from {name}, modules"] = len(reached)
        figures[f"reachable from {name}, lines"] = sum(lines[m] for m in reached)
    return figures


def at_revision(revision: str, folder: Path) -> Path:
    """The package as it was at a git revision, unpacked into `folder`. Raises CalledProcessError for an unknown revision."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, "whetstone"], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a git revision to compare with")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    columns = {"today": measure(ROOT)}
    if arguments.before:
        with tempfile.TemporaryDirectory() as folder:
            columns = {"before": measure(at_revision(arguments.before, Path(folder))), **columns}
    print("| | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for name in columns["today"]:
        print(f"| {name} | " + " | ".join(f"{figures[name]:,}" for figures in columns.values()) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(columns, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
