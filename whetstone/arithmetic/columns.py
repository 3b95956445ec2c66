"""One operation worked in columns, as school teaches it: the written lines, and the result that they arrive at.

    345-67    5-7=b8,4-6-1=b7,3-0-1=2 so 278
    12*34     2*4=8,1*4=4,so 48,2*3=6,1*3=3,so 360,8+0=8,4+6=c0,0+3+1=4,so 408 so 408
    281/100   <2 so 2.81

Columns run from the right; `c` carries one, `b` borrows one, and both are written before the digit: a small model learns
`7+5=c2` (first whether the sum passes ten, then the rest) many times sooner than the digit alone, of which neither 7 nor 5
says anything. A product's carry is a number: `7*8+2=c5:8`. `r` is the rest in a long division. Multiplying or dividing by a
power of ten only moves the point: `7.38*100:>2 so 738`.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from whetstone.arithmetic.expression import Number, Operation, Value, as_value, decimal_places, evaluate, write_number

MOST_DECIMALS = 6


class Slip(NamedTuple):
    """One wrong digit, `shift` too high modulo 10, in the `column`-th column worked on."""

    column: int
    shift: int


def work(sign: str, a: Value, b: Value, slip: Slip | None = None) -> tuple[str, Value]:
    """`a sign b` in columns: the text and the result, which is wrong if there is a slip.

    Raises ValueError for what columns cannot hold: negative results, divisions by zero or without a short decimal end.

    >>> work("-", 345, 67)
    ('5-7=b8,4-6-1=b7,3-0-1=2 so 278', 278)
    """
    if sign in "*/" and (zeros := _power_of_ten(b)):
        result = evaluate(Operation(sign, Number(a), Number(b)))
        return f"{'>' if sign == '*' else '<'}{zeros} so {write_number(result)}", result
    # Decimals are worked as whole numbers with the point set afterwards, as one does on paper.
    scale = max(_decimals(a), _decimals(b))
    x, y = int(a * 10**scale), int(b * 10**scale)
    if sign == "/" and y == 0:
        raise ValueError("a division by zero cannot be explained.")
    extra = _decimals(Fraction(x, y)) if sign == "/" else 0
    lines, digits = OPERATIONS[sign](x * 10**extra, y, slip)
    decimals = {"+": scale, "-": scale, "*": 2 * scale, "/": extra}[sign]
    result = as_value(Fraction(digits, 10**decimals))
    text = ",".join(lines) + " so "
    if decimals:
        text += f"{digits}p{decimals} so "  # the point goes so many digits from the right
    return text + write_number(result), result


def _decimals(value: Value) -> int:
    places = decimal_places(value)
    if places is None or places > MOST_DECIMALS:
        raise ValueError(f"{value} has more than {MOST_DECIMALS} decimals, which columns cannot hold.")
    return places


def _power_of_ten(value: Value) -> int:
    """The exponent of ten, 100, …; 0 for any other number."""
    digits = str(value.numerator) if value.denominator == 1 else ""
    return len(digits) - 1 if re.fullmatch("10+", digits) else 0


def _digit(value: int, column: int, slip: Slip | None) -> int:
    return (value + (slip.shift if slip and slip.column == column else 0)) % 10


def _columns(sign: str, a: int, b: int, width: int, slip: Slip | None) -> tuple[list[str], int]:
    """`width` columns of a + b, a - b, or a * b for a `b` of one digit: their lines, and the number that they arrive at.

    The carry or borrow is written before the digit: once it is known, the digit is no longer a sum modulo ten.
    """
    lines, carried, number = [], 0, 0
    again, letter = ("-", "b") if sign == "-" else ("+", "c")
    for column in range(width):
        x, y = a // 10**column % 10, b if sign == "*" else b // 10**column % 10
        total = x * y + carried if sign == "*" else x + y + carried if sign == "+" else x - y - carried
        digit = _digit(total, column, slip)
        before, carried = (f"{again}{carried}" if carried else ""), abs(total // 10)
        mark = "" if not carried else letter if carried == 1 else f"{letter}{carried}:"
        lines.append(f"{x}{sign}{y}{before}={mark}{digit}")
        number += digit * 10**column
    return lines, number if sign == "-" else number + carried * 10**width


def _add(a: int, b: int, slip: Slip | None) -> tuple[list[str], int]:
    return _columns("+", a, b, max(len(str(a)), len(str(b))), slip)


def _subtract(a: int, b: int, slip: Slip | None) -> tuple[list[str], int]:
    if b > a:
        raise ValueError(f"{a}-{b} is negative: columns hold non-negative numbers only.")
    return _columns("-", a, b, len(str(a)), slip)


def _multiply(a: int, b: int, slip: Slip | None) -> tuple[list[str], int]:
    if len(str(a)) < len(str(b)):
        a, b = b, a
    if b < 10:
        return _columns("*", a, b, len(str(a)), slip)
    lines, total = [], 0
    for place, digit in enumerate(int(d) for d in reversed(str(b))):
        if digit == 0:
            continue
        part, product = _columns("*", a, digit, len(str(a)), slip if place == 0 else None)
        product *= 10**place
        lines += [*part, f"so {product}"]
        if total:
            summed, total = _add(total, product, None)
            lines += [*summed, f"so {total}"]
        else:
            total = product
    return lines, total


def _divide(a: int, b: int, slip: Slip | None) -> tuple[list[str], int]:
    lines, rest, quotient = [], 0, 0
    for column, digit in enumerate(int(d) for d in str(a)):
        part = rest * 10 + digit
        written = _digit(part // b, column, slip)
        rest = part % b
        lines.append(f"{part}/{b}={written}{f'r{rest}' if rest else ''}")
        quotient = quotient * 10 + written
    return lines, quotient


OPERATIONS = {"+": _add, "-": _subtract, "*": _multiply, "/": _divide}
