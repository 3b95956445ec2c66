"""The program's side: the libraries it may import, and the code that runs in a child of the sandbox process.

The libraries are loaded before the sandbox process is isolated, because an empty root has none to load later.
"""

# ruff: noqa: SIM905 (long lists of names read better as text)

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import sys
import types
import warnings
from typing import Any, NoReturn

from whetstone.verify.isolation.kernel import NotObtained, die_with_parent, lock_in, set_limits

REPORT = 3  # descriptor that a program's report is written to

STANDARD = (
    "math cmath fractions decimal itertools functools operator collections random statistics re string datetime "
    "calendar time heapq bisect copy typing dataclasses enum sys os json array numbers textwrap pprint abc "
    "collections.abc contextlib types warnings traceback io locale _strptime timeit hashlib struct inspect "
    "encodings.ascii encodings.latin_1 encodings.unicode_escape unicodedata logging pydoc"
).split()
# sympy imports parts of itself when they are first used, so these packages are imported with all their modules
SYMPY = (
    "abc assumptions calculus combinatorics concrete core discrete functions geometry integrals logic matrices ntheory "
    "parsing.sympy_parser polys printing.latex printing.pretty printing.str printing.lambdarepr printing.pycode "
    "printing.numpy printing.c printing.cxx printing.fortran printing.rust sets series simplify solvers stats "
    "stats.sampling.sample_numpy tensor utilities vector codegen.ast codegen.abstract_nodes codegen.pynodes "
    "physics.units physics.matrices"
).split()
# Modules among them that are slow to import, deprecated, or for sympy's developers
LEFT_OUT = (
    "tests benchmarks plotting sampling _compilation autowrap utilities.codegen runtests _wrapper compatibility _doc. "
    "core.trace utilities.pytest utilities.randtest utilities.tmpfiles"
).split()


def load_libraries() -> None:
    """Imports all that a program may import."""
    warnings.simplefilter("ignore")
    for name in STANDARD:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        import numpy

        numpy.set_printoptions(legacy="1.25")  # scalars print as 3.0, not as np.float64(3.0)
        numpy.random.seed(0)  # a program that draws random numbers gives the same answer every time
    with contextlib.suppress(ImportError):
        import sympy

        warnings.simplefilter("ignore")  # sympy has turned its own warnings on
        for part in SYMPY:
            _import_package(f"{sympy.__name__}.{part}")
    os.register_at_fork(after_in_child=lambda: random.seed(0))  # random seeds itself anew in a child
    sys.set_int_max_str_digits(0)  # programs may print long integers; the deadline bounds the time that takes
    sys.dont_write_bytecode = True
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _import_package(name: str) -> None:
    """Imports a module and all modules below it."""
    try:
        module = importlib.import_module(name)
    except Exception:  # an optional part of sympy that needs another library
        return
    for part in pkgutil.iter_modules(getattr(module, "__path__", ()), name + "."):
        if not any(word in part.name + "." for word in LEFT_OUT):
            _import_package(part.name)


def become_program(question: dict[str, Any], out: int, report: int, null: int, memory_bytes: int) -> NoReturn:
    """Turns this child into the program: keeps four descriptors, locks the process in, runs the code and reports.

    `out` takes what the program prints and `report` its answer; `null` is /dev/null.
    """
    try:
        die_with_parent()
        _keep_descriptors(out, report, null)
        gc.enable()
        set_limits(question["seconds"], memory_bytes)
        lock_in()
        _write_report(run_code(question["code"]))
    except NotObtained as error:  # the program was not run
        _write_report({"reason": "crashed", "detail": str(error)})
    finally:
        os._exit(0)


def _keep_descriptors(out: int, report: int, null: int) -> None:
    """0 is a pipe that nobody writes to, 1 `out`, 2 /dev/null, 3 `report`; all others are closed."""
    high = max(out, report, null) + 1
    os.dup2(report, high)
    os.dup2(out, 1)
    os.dup2(null, 2)
    os.dup2(high, REPORT)
    nothing, other_end = os.pipe()
    os.dup2(nothing, 0)
    os.closerange(REPORT + 1, max(high, nothing, other_end) + 64)


def _write_report(report: dict[str, Any]) -> None:
    text = json.dumps(report).encode()
    while text:
        text = text[os.write(REPORT, text) :]


def run_code(code: str) -> dict[str, Any]:
    """Runs a program. Returns its answer, or the kind of error that ended it."""
    sys.argv = ["program"]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    try:
        compiled = compile(code, "<program>", "exec", dont_inherit=True)
    except MemoryError:
        return {"reason": "memory", "detail": "compiling the program"}
    except BaseException as error:
        return {"reason": "syntax", "detail": _in_one_line(error)}
    try:
        with contextlib.suppress(SystemExit):
            exec(compiled, main.__dict__)
        answer = _answer(main.__dict__)
        with contextlib.suppress(ValueError):
            sys.stdout.flush()
        return {"reason": "", "answer": answer}
    except MemoryError as error:
        return {"reason": "memory", "detail": _in_one_line(error)}
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        return {"reason": "error", "detail": _in_one_line(error)}


def _in_one_line(error: BaseException) -> str:
    """The error's type and text, even if its own `__str__` raises."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"[:500]


def _answer(names: dict[str, Any]) -> str | None:
    """What `solution()` returns, else `ans` or `answer`. None if the answer is what the program printed."""
    function = names.get("solution")
    if isinstance(function, types.FunctionType) and not _needs_arguments(function):
        value = function()
        if value is not None:
            return str(value)
    for name in ("ans", "answer"):
        value = names.get(name)
        if value is not None and not isinstance(value, types.FunctionType | types.ModuleType | type):
            return str(value)
    return None


def _needs_arguments(function: types.FunctionType) -> bool:
    code = function.__code__
    positional = code.co_argcount - len(function.__defaults__ or ())
    return positional > 0 or code.co_kwonlyargcount > len(function.__kwdefaults__ or {})
