"""What our reader makes of a LaTeX text, as a sympy object, and whether two sympy objects are one value.

A test's expectation in sympy's notation is read as a syntax tree and never run as code.
"""

import ast
import re
from functools import reduce
from typing import Any

import sympy

from whetstone.verify.answers.forms import Bracket, Chain, Combined, Expression, Items, Matrix, Statement, Value
from whetstone.verify.answers.reading import read

FUNCTIONS = {
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    "arcsinh": sympy.asinh, "arccosh": sympy.acosh, "arctanh": sympy.atanh,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "ln": sympy.log, "abs": sympy.Abs,
    "factorial": sympy.factorial, "binomial": sympy.binomial, "floor": sympy.floor, "ceil": sympy.ceiling,
    "gcd": lambda *values: reduce(sympy.gcd, values),
    "lcm": lambda *values: reduce(sympy.lcm, values), "max": sympy.Max, "min": sympy.Min,
    "log": lambda value, base=10: sympy.log(value, base), "lg": lambda value: sympy.log(value, 10),
}  # fmt: skip
CONSTANTS = {"~i": sympy.I, "pi": sympy.pi, "e": sympy.E, "oo": sympy.oo}
RELATIONS = {"=": sympy.Eq, "<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge, "!=": sympy.Ne}
EXPECTED = {
    "_Add": sympy.Add, "_Mul": sympy.Mul, "_Pow": sympy.Pow, "_Abs": sympy.Abs, "_log": sympy.log,
    "_factorial": sympy.factorial, "igcd": sympy.igcd, "ilcm": sympy.ilcm, "UnevaluatedExpr": lambda value: value,
    "gcd": sympy.gcd, "lcm": sympy.lcm, "sqrt": sympy.sqrt, "root": sympy.root, "Matrix": sympy.Matrix,
    **{name: getattr(sympy, name) for name in ("Max", "Min", "Add", "Mul", "Pow")},
}  # fmt: skip


class NotSaid(ValueError):
    """No sympy object stands for this."""


def read_as_sympy(latex: str) -> Any:
    """Raises Unreadable or TooLarge if our reader does, and NotSaid if its value has no sympy form here."""
    return as_sympy(read(latex)[0])


def as_sympy(value: Value) -> Any:
    match value:
        case Expression():
            return from_term(value.term)
        case Statement():
            return sympy.Symbol(" ".join(map(str, value.parts)))
        case Items():
            return sympy.FiniteSet(*map(as_sympy, value.items))
        case Combined(operation="\\cup"):
            return sympy.Union(*map(as_sympy, value.items))
        case Bracket() if len(value.items) == 2 and value.opening in "([":
            ends = [as_sympy(item) for item in value.items]
            return sympy.Interval(*ends, value.opening == "(", value.closing == ")")
        case Bracket():
            return sympy.Tuple(*map(as_sympy, value.items))
        case Matrix():
            return sympy.Matrix([[as_sympy(item) for item in row] for row in value.rows])
        case Chain() if len(value.relations) == 1 and value.relations[0] in RELATIONS:
            return RELATIONS[value.relations[0]](*map(as_sympy, value.items))
    raise NotSaid(type(value).__name__)


def from_term(term: Any) -> Any:
    """A term of ours (`whetstone.verify.answers.terms`) in sympy."""
    if not term:
        raise NotSaid("a matrix that was computed")
    kind = term[0]
    if kind == "n":
        return sympy.Rational(term[1].numerator, term[1].denominator)
    if kind == "s":
        return CONSTANTS.get(term[1], symbol(term[1]))
    parts = [from_term(part) for part in term[1:] if isinstance(part, tuple)]
    match kind:
        case "+":
            return sympy.Add(*parts)
        case "*":
            return sympy.Mul(*parts)
        case "-":
            return -parts[0]
        case "i":
            return 1 / parts[0]
        case "^":
            return parts[0] ** parts[1]
        case "r":
            return sympy.root(parts[0], term[2])
    return FUNCTIONS.get(term[1], sympy.Function(term[1]))(*parts)


def symbol(name: str) -> Any:
    """By letters only, so that \\theta, theta and {\\theta} are one."""
    return sympy.Symbol(re.sub(r"[\\{}\s]", "", name))


def expected(text: str) -> Any:
    """The sympy object that a test writes down; NotSaid if it uses more than names, numbers, calls and arithmetic."""
    return _walk(ast.parse(text, mode="eval").body)


def _walk(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str()):
            return node.value
        case ast.Constant():
            return sympy.Rational(str(node.value)) if isinstance(node.value, float) else sympy.sympify(node.value)
        case ast.Name(id="E" | "I" | "pi" | "oo"):
            return getattr(sympy, node.id)
        case ast.Name():
            return symbol(node.id)
        case ast.Attribute(value=ast.Name(id="S")) if node.attr in ("EmptySet", "Naturals", "Rationals", "Reals"):
            return getattr(sympy.S, node.attr)
        case ast.UnaryOp(op=ast.USub()):
            return -_walk(node.operand)
        case ast.BinOp():
            left, right = _walk(node.left), _walk(node.right)
            match node.op:
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Mult():
                    return left * right
                case ast.Div():
                    return left / right
                case ast.Pow():
                    return left**right
        case ast.Tuple() | ast.List():
            return [_walk(item) for item in node.elts]
        case ast.Call(func=ast.Name(id=name)):
            arguments = [_walk(argument) for argument in node.args]
            if name == "Symbol":
                return symbol(arguments[0])
            if name in ("Rational", "Float", "Integer"):
                return sympy.Rational(*(str(argument) for argument in arguments))
            kept = {k.arg: _walk(k.value) for k in node.keywords if k.arg in ("right_open", "left_open", "dir")}
            call = EXPECTED.get(name) or getattr(sympy, name, None)
            if name in EXPECTED or (isinstance(call, type) and issubclass(call, sympy.Basic)):
                return call(*arguments, **kept)
    raise NotSaid(ast.dump(node)[:60])


def one_value(a: Any, b: Any) -> bool:
    """Do two sympy objects denote the same? Floating point on either side counts to nine digits."""
    a, b = (side.doit() if hasattr(side, "doit") else side for side in (a, b))
    if a == b:
        return True
    if isinstance(a, sympy.FiniteSet) and isinstance(b, sympy.FiniteSet):
        return len(a) == len(b) and all(any(one_value(x, y) for y in b) for x in a)
    if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
        first, second = (side.subs({s: symbol(s.name) for s in side.free_symbols}) for side in (a, b))
        difference = sympy.simplify(first - second)
        size = 1 + abs(sympy.N(second)) if second.is_number else 1
        return bool(difference == 0 or (difference.is_number and abs(sympy.N(difference)) < 1e-9 * size))
    return (
        type(a) is type(b)
        and a.func == b.func
        and len(a.args) == len(b.args) > 0
        and all(map(one_value, a.args, b.args))
    )
