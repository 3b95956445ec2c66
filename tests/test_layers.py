"""The floors of the house, and what may be imported where. The list below is the architecture."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import whetstone
from benchmarks.house import circles, import_graph, read_modules

ROOT = Path(whetstone.__file__).parent

FLOORS = [
    ("records", "base_templates"),
    (
        "model", "model_adapter", "model_files", "model_folder", "model_gguf", "model_hub", "model_remote", "model_template",
        "model_weights", "model_card", "browser", "attention", "longrope", "chat", "template", "batch", "arithmetic", "verify",
        "run", "problems", "prompting",
    ),
    ("learner", "decode"),
    (
        "sample", "window", "pool", "pairing", "answer", "judge", "reward_model", "candidate", "sampling_worker", "measure",
    ),
    (
        "questions", "rollouts", "corpus", "midtrain", "sft", "choose_prompt", "dpo", "reward", "rl", "distill", "evaluate",
        "report",
    ),
    (
        "recipe", "recipe_stage", "shipped_recipes", "controls", "schema", "pipeline", "worker", "show", "ask", "export",
        "terminal", "test_runs", "evaluation", "comparing", "commands", "follow", "watch", "serve", "cli",
    ),
]  # fmt: skip
ROOMS = FLOORS[4]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Heavy libraries and their only doors; the rest of the house does not name them
DOORS = {
    "torch.distributed": ("learner/parallel.py", "learner/checkpoint.py"),
    "ray": ("run/fanout.py",),
    "sympy": ("verify/",),
    "math_verify": ("verify/",),
    "httpx2": ("decode/server_generator.py", "decode/served_models.py", "decode/server_sampler.py"),
    "numba": ("run/compiled.py", "decode/cpu_kernels.py", "decode/cpu_step.py", "decode/simd.py"),
    "llvmlite": ("decode/cpu_kernels.py", "decode/simd.py"),
    "triton": ("decode/gpu_kernels.py", "learner/head_kernels.py"),
    "httpx": (),
    "requests": (),
    "urllib.request": (),
    "fsspec": ("run/remote.py",),
    "datasets": ("questions/sources/published.py",),
    "reasoning_gym": ("questions/sources/reasoning_gym.py",),
    "typer": ("cli.py", "commands/"),
    "rich": ("terminal.py", "watch.py", "run/progress.py"),
    "tensorboard": ("run/trackers.py",),
    "wandb": ("run/trackers.py",),
    "trackio": ("run/trackers.py",),
    "pickle": (),
    "fastapi": ("serve/",),
    "starlette": ("serve/",),
    "uvicorn": ("serve/server.py",),
    "peft": ("learner/adapter.py", "model_adapter.py"),
    "bitsandbytes": ("learner/four_bit.py",),
}
LOADS_TORCH = (
    "model",
    "model_weights",
    "attention",
    "batch",
    "chat",
    "learner",
    "decode",
    "reward_model",
)  # may import it at the top


def sources() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def imports(path: Path, top_only: bool = False) -> Iterator[str]:
    """Dotted names of all imports, those inside functions and for a type checker included; or those that run at the top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen: list[ast.AST] = [tree]
    while unseen:
        node = unseen.pop()
        if top_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            unseen += node.orelse
            continue
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        unseen += ast.iter_child_nodes(node)


def part_of(path: Path) -> str:
    """The name in FLOORS that a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def test_every_file_has_a_floor():
    homeless = {part_of(path) for path in sources()} - set(FLOOR_OF) - {"__init__"}
    assert not homeless, f"say in FLOORS on which floor {homeless} live"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_never_from_room_to_room(path):
    here = part_of(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        there = rest.partition(".")[0]
        if top != "whetstone" or here in (there, "__init__") or there in ("", "__version__"):
            continue
        assert there in FLOOR_OF, f"{path} imports {name}, which is on no floor"
        assert not (here in ROOMS and there in ROOMS), f"room {here} imports room {there}: they meet on disk only"
        assert FLOOR_OF[there] <= FLOOR_OF[here], f"{here} (floor {FLOOR_OF[here]}) imports {name} from above it"


def test_no_modules_import_each_other():
    """Not even by way of others, inside functions or for a type checker: a circle has no bottom to begin reading at."""
    found = circles(import_graph(read_modules(ROOT.parent)))
    assert not found, "move what they share to a module below: " + "; ".join(" <-> ".join(circle) for circle in found)


def test_a_package_is_imported_from_outside_only():
    """Its `__init__` imports its modules; one that imports the package again would depend on all of them."""
    packages = {path.parent for path in sources() if path.name == "__init__.py"} - {ROOT}
    graph = import_graph(read_modules(ROOT.parent))
    inside = {name for name, imported in graph.items() if name.rpartition(".")[0] in imported}
    assert packages
    assert not inside, f"{inside} import their own package: import the module that has the name"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_have_few_doors(path):
    own = str(path.relative_to(ROOT))
    for name in imports(path):
        for library, doors in DOORS.items():
            if name == library or name.startswith(library + "."):
                assert own.startswith(doors or "\0"), f"{own} imports {name}; its doors are {doors}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_reading_settings_never_loads_torch(path):
    if part_of(path) in LOADS_TORCH or path.name == "loss.py":  # a loss is tensors; its room imports it when it runs
        return
    heavy = {"torch", "transformers", "datasets"}
    found = [name for name in imports(path, top_only=True) if name.partition(".")[0] in heavy]
    assert not found, f"{path} imports {found} at its top: import it inside the function that needs it"


def test_importing_every_room_that_stands_loads_no_torch():
    """The import graph, not only the text: a room may reach torch by way of a floor module."""
    from whetstone.recipe import KINDS

    script = "\n".join(
        [
            "import sys, importlib",
            "import whetstone.cli, whetstone.pipeline.running, whetstone.show",
            f"for name in {[*KINDS.values()]!r}:",
            "    importlib.import_module(name)",
            "    heavy = {'torch', 'transformers', 'sympy'} & set(sys.modules)",
            "    assert not heavy, f'importing {name} loads {heavy}'",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_door_exists():
    doors = {door for doors in DOORS.values() for door in doors}
    assert not [door for door in doors if not (ROOT / door).exists()], "a door to a file that is not there"


def test_no_store_rooms():
    refused = {"utils", "common", "core", "misc", "helpers"}
    assert not [path for path in sources() if refused & set(path.relative_to(ROOT).with_suffix("").parts)]
