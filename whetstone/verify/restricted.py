"""A smaller Python for machines whose kernel isolates nothing: the weakest level, a fence and no wall.

Three layers, each of which was got round somewhere before: a program's syntax tree may only hold what is listed here
(no underscore names, no frames, no modules but those named, of which only the plain parts); sympy's reading of text,
which is `eval`, passes the same check; and an audit hook refuses files, processes, sockets and ctypes whoever asks.
Beneath them the limits of `jail.set_limits` hold: no new descriptor, no process, no bytes into files.
"""

# ruff: noqa: SIM905 (long lists of names read better as text)

import ast
import builtins
import importlib
import sys
import types
from functools import cache
from typing import Any

MODULES = (
    "math cmath fractions decimal itertools functools operator collections random statistics re datetime calendar time "
    "heapq bisect copy typing enum string numpy numpy.linalg numpy.polynomial numpy.random numpy.fft sympy sympy.abc "
    "sympy.ntheory sympy.solvers sympy.geometry sympy.combinatorics sympy.calculus sympy.functions sympy.matrices "
    "sympy.series sympy.sets sympy.simplify sympy.integrals sympy.concrete sympy.logic sympy.polys sympy.core "
    "sympy.core.numbers sympy.solvers.solveset sympy.solvers.inequalities sympy.functions.elementary.miscellaneous "
    "sympy.stats sympy.core.symbol sympy.ntheory.modular sympy.ntheory.factor_ sympy.ntheory.primetest"
).split()

# Builtins that a program does not have; it may use the names for its own
BUILTINS = frozenset(
    "eval exec compile open input breakpoint help globals locals vars dir getattr setattr delattr memoryview "
    "exit quit license credits copyright".split()
)
# No attribute of anything has these names: they read code, files, memory or frames
REFUSED = BUILTINS | frozenset(
    "attrgetter methodcaller Formatter Template mro ctypes ctypeslib f2py distutils strides as_strided lib testing "
    "save savez savez_compressed fromfile tofile memmap loadtxt genfromtxt savetxt fromregex DataSource dump dumps "
    "frombuffer getbuffer lambdify autowrap ufuncify codegen preview view_sympy textplot plot_implicit plot_parametric "
    "init_printing init_session interactive parsing doctest printing external utilities print_gtk get_source "
    "show_config show_runtime get_include update_wrapper wraps SystemRandom NamedTuple get_type_hints ForwardRef "
    "singledispatch singledispatchmethod lazy_function import_module threaded xthreaded "
    "gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame ag_code ag_await tb_frame tb_next "
    "f_back f_builtins f_code f_globals f_locals f_trace f_generator".split()
)
# Nor are these in a module; elsewhere they are ordinary words
HIDDEN = REFUSED | frozenset(
    "load data core rec char ndarray plot source test include info lookfor capture timed public "
    "deprecated debug".split()
)
# The underscore names a program may define or read
DUNDERS = frozenset(
    "__init__ __str__ __repr__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __bool__ __len__ __iter__ __next__ "
    "__contains__ __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__ __mod__ "
    "__pow__ __neg__ __abs__ __call__ __getitem__ __setitem__ __post_init__ __name__".split()
)
NODES = (
    ast.Module, ast.Expression, ast.Expr, ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.Return, ast.Delete, ast.Assign,
    ast.AugAssign, ast.AnnAssign, ast.For, ast.While, ast.If, ast.With, ast.withitem, ast.Raise, ast.Try, ast.Assert,
    ast.ExceptHandler, ast.Import, ast.ImportFrom, ast.alias, ast.Global, ast.Nonlocal, ast.Pass, ast.Break,
    ast.Continue, ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.Set, ast.ListComp,
    ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Yield, ast.YieldFrom, ast.Compare, ast.Call,
    ast.keyword, ast.FormattedValue, ast.JoinedStr, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name,
    ast.List, ast.Tuple, ast.Slice, ast.arguments, ast.arg, ast.expr_context, ast.boolop, ast.operator, ast.unaryop,
    ast.cmpop,
)  # fmt: skip
EVENTS = frozenset(
    "compile exec import builtins.id sys._getframe object.__getattr__ object.__setattr__ object.__delattr__ "
    "array.__new__ time.sleep sys.unraisablehook sys.excepthook sys.set_int_max_str_digits".split()
)


def check(tree: ast.AST, own: bool = True) -> None:
    """PermissionError naming the first thing in a syntax tree that is not allowed.

    With `own`, names that the tree itself gives to something are its own. Text that others evaluate has none: there a
    builtin of that name is at hand.
    """
    nodes = list(ast.walk(tree))
    given = {name for node in nodes if own for name in _given(node)}
    for node in nodes:
        if not isinstance(node, NODES):
            raise PermissionError(f"{type(node).__name__} is not in the restricted language")
        if isinstance(node, ast.Import):
            for alias in node.names:
                _require_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            _require_module("." if node.level else node.module or ".")
        for name in [*_given(node), *_used(node)]:
            if name.startswith("_") and name not in DUNDERS and name.strip("_"):
                raise PermissionError(f"the name {name!r} is not in the restricted language")
        for name in _used(node):
            if name in BUILTINS - given if isinstance(node, ast.Name) else name in REFUSED:
                raise PermissionError(f"the name {name!r} is not in the restricted language")


def _given(node: ast.AST) -> list[str]:
    """The names that a node gives to something."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.alias):
        return [node.asname] if node.asname else []
    if isinstance(node, ast.Global | ast.Nonlocal):
        return list(node.names)
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler):
        return [node.name] if node.name else []
    return [node.arg] if isinstance(node, ast.arg | ast.keyword) and node.arg else []


def _used(node: ast.AST) -> list[str]:
    """The names by which a node reaches for something."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return [part for part in node.name.split(".") if part != "*"] if isinstance(node, ast.alias) else []


def _require_module(name: str) -> None:
    if name not in MODULES:
        raise PermissionError(f"the module {name!r} is not in the restricted language")


@cache
def facade(name: str) -> types.ModuleType:
    """A module of the same name that holds only the plain parts: no submodules but those listed, none of HIDDEN."""
    real = importlib.import_module(name)
    shown = types.ModuleType(name)
    for key in getattr(real, "__all__", None) or dir(real):
        if key.startswith("_") or key in HIDDEN:
            continue
        value = getattr(real, key, None)
        if isinstance(value, types.ModuleType):
            if f"{name}.{key}" not in MODULES:
                continue
            value = facade(f"{name}.{key}")
        setattr(shown, key, value)
    shown.__all__ = [key for key in vars(shown) if not key.startswith("_")]
    return shown


def _import(name: str, globals_: Any = None, locals_: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if name not in MODULES and name in sys.modules:
        # Asked for by numpy's or datetime's C code, which comes by here and then takes the module from sys.modules
        return types.ModuleType(name)
    _require_module("." if level else name)
    return facade(name if fromlist else name.partition(".")[0])


def _safe_builtins() -> dict[str, Any]:
    shown = {key: value for key, value in vars(builtins).items() if not key.startswith("_") and key not in BUILTINS}
    return {**shown, "__import__": _import, "__build_class__": builtins.__build_class__}


def _guard_sympy() -> None:
    """sympy evaluates the text that its functions are given: that text passes the same check first."""
    try:
        from sympy.parsing import sympy_parser
    except ImportError:
        return
    as_code = sympy_parser.stringify_expr

    def checked(*arguments: Any) -> str:
        code = as_code(*arguments)
        check(ast.parse(code.strip(), mode="eval"), own=False)
        return code

    sympy_parser.stringify_expr = checked


_guard_sympy()
_BUILTINS = _safe_builtins()
for _name in MODULES:
    try:
        facade(_name)
    except ImportError:
        continue


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in EVENTS:
        raise PermissionError(f"{event} is not for programs")


def prepared(code: str) -> tuple[types.CodeType, dict[str, Any]]:
    """The program compiled, and the names it starts with; from here on the audit hook holds in this process."""
    tree = ast.parse(code, "<program>")
    check(tree)
    compiled = compile(tree, "<program>", "exec", dont_inherit=True)
    sys.addaudithook(_audit)
    return compiled, {"__name__": "__main__", "__builtins__": _BUILTINS}
