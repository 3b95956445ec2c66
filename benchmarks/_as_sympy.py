"""What our reader makes of a LaTeX text, as a sympy object, and whether two sympy objects are one value.

A test's expectation in sympy's notation is read as a syntax tree and never run as code.
"""

import ast
import re
from fractions import Fraction
from typing import Any

import sympy

from whetstone.verify.exact import ONE, Scalar
from whetstone.verify.reading import Bracket, Chain, Expression, Items, Matrix, Union, Value, Word, read

FUNCTIONS = {
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "ln": sympy.log, "abs": sympy.Abs,
    "factorial": sympy.factorial, "binomial": sympy.binomial, "rfloor": sympy.floor, "rceil": sympy.ceiling,
    "power": sympy.Pow,
}  # fmt: skip
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
            return scalar(value.value)
        case Word():
            return sympy.Symbol(value.words)
        case Items():
            return sympy.FiniteSet(*map(as_sympy, value.items))
        case Union():
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


def scalar(value: Scalar) -> Any:
    top = sum((rational(c) * product(term) for term, c in value.num.items()), sympy.Integer(0))
    if value.den is ONE:
        return top
    return top / sum((rational(c) * product(term) for term, c in value.den.items()), sympy.Integer(0))


def rational(number: Fraction | int) -> Any:
    return sympy.Rational(number.numerator, number.denominator)


def product(term: Any) -> Any:
    return sympy.Mul(*(atom(name) ** rational(power) for name, power in term))


def atom(name: str) -> Any:
    if name.startswith("f:"):
        return function(name[2:])
    if name[0] == "#":
        return sympy.Integer(int(name[1:]))
    constants = {"~i": sympy.I, "pi": sympy.pi, "e": sympy.E, "oo": sympy.oo}
    return constants.get(name, symbol(name))


def symbol(name: str) -> Any:
    """By letters only, so that \\theta, theta and {\\theta} are one."""
    return sympy.Symbol(re.sub(r"[\\{}\s]", "", name))


def function(text: str) -> Any:
    """`sin(1/1*x^1)`: a name and the canonical texts of its arguments."""
    name, inside = text.split("(", 1)
    arguments = [canonical(part) for part in parts(inside[:-1], ",")]
    if name in FUNCTIONS:
        return FUNCTIONS[name](*arguments)
    if name.startswith("root"):
        return sympy.root(arguments[0], int(name[4:]))
    if name == "log":
        return sympy.log(arguments[0], 10)
    if name.startswith("log_"):
        return sympy.log(arguments[0], read_as_sympy(name[4:]))
    return sympy.Function(name)(*arguments)


def canonical(text: str) -> Any:
    """The text that `exact.key` gives an expression, read back."""
    over = parts(text, "/")
    if len(over) == 2 and all(part[0] == "(" and part[-1] == ")" for part in over):
        return canonical(over[0][1:-1]) / canonical(over[1][1:-1])
    total = sympy.Integer(0)
    for term in parts(text, "+") if text else ():
        coefficient, *factors = parts(term, "*")
        upper, lower = coefficient.split("/")
        value = sympy.Rational(int(upper, 16), int(lower, 16))
        for factor in filter(None, factors):
            base, _, power = factor.rpartition("^")
            value *= atom(base) ** sympy.Rational(power)
        total += value
    return total


def parts(text: str, separator: str) -> list[str]:
    """Split at the separators outside brackets."""
    found, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == separator and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


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
