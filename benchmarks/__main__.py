"""`python -m benchmarks` lists what can be measured; `python -m benchmarks NAME …` measures it."""

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def found() -> dict[str, str]:
    """Name -> the first line of its docstring."""
    modules = (path for path in sorted(HERE.glob("*.py")) if not path.name.startswith("_"))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in modules}


def main() -> None:
    benchmarks = found()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        width = max(map(len, benchmarks))
        for name, line in benchmarks.items():
            print(f"{name:{width}}  {line}")
        print("\npython -m benchmarks NAME --help tells its options.")
        return
    name = sys.argv[1]
    if name not in benchmarks:
        sys.exit(f"error: there is no benchmark {name!r}. There are {', '.join(benchmarks)}.")
    sys.argv[:2] = [f"python -m benchmarks {name}"]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
