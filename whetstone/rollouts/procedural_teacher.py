"""A teacher that needs no download: it explains arithmetic the way school does, in a long chain of thought.

Given a problem's formula it copies the formula, works on one operation at a time with column arithmetic (carry, borrow,
partial products, long division), writes the shorter expression that is left, checks the last step by the inverse
operation, and boxes the answer:

    <think>
    12+(345-67)+8
    345-67:5-7=b8,4-6-1=b7,3-0-1=2 so 278
    12+278+8
    12+278:2+8=c0,1+7+1=9,0+2=2 so 290
    290+8:0+8=8,9+0=9,2+0=2 so 298
    Check 298-8:8-8=0,9-0=9,2-0=2 so 290
    </think>
    The answer is \\boxed{298}.

Columns run from the right; `c` carries one, `b` borrows one, and both are written before the digit: a small model learns
`7+5=c2` (first whether the sum passes ten, then the rest) many times sooner than the digit alone, of which neither 7 nor 5
says anything. A product's carry is a number: `7*8+2=c5:8`. `r` is a long division's rest. Times or over a power of ten only
moves the point: `7.38*100:>2 so 738`, `281/100:<2 so 2.81`.

Told to write what is `given`, it begins with the numbers of the question, in digits and in their order, so that reading them
and choosing what to do with them are two steps: `Given 7, 2`.

As real teachers' traces are, its own are uneven: at `shortcut_rate` an operation is done in the head, `345-67=278`. The
result is right, but a small student that imitates it guesses. Verified data cannot tell the two ways apart; what the student
gets right by them can, which is what DPO on its rollouts and RL learn from.

And it errs. At `correction_rate` it slips in a column, says "Wait" and works the step again; at
`wrong_rate` it slips and does not notice, so that everything after the slip follows from it and the conclusion is wrong
(the rejected side of the paper's Rollout DPO).
"""

import random
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from whetstone.arithmetic.number_words import mentions
from whetstone.records import Problem, Trace

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|([-+*/()]))")
CHECKED_BY = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class Operation:
    """A node of a formula; leaves are Fractions."""

    symbol: str
    left: "Operation | Fraction"
    right: "Operation | Fraction"


def parse(formula: str) -> Operation | Fraction:
    """A formula of non-negative numbers, + - * / and brackets as a tree. Raises ValueError for anything else."""
    tokens: list[str] = []
    at = 0
    while at < len(formula.rstrip()):
        match = TOKEN.match(formula, at)
        if match is None:
            raise ValueError(f"formula {formula!r}: {formula[at]!r} is not a number, + - * / or a bracket.")
        tokens.append(match[1] or match[2])
        at = match.end()
    if len(tokens) > 200:
        raise ValueError(f"formula of {len(tokens)} tokens: the teacher explains at most 200.")
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1] if position <= len(tokens) else ""

    def factor() -> Operation | Fraction:
        token = take()
        if token == "(":
            inside = chain(0)
            if take() != ")":
                raise ValueError(f"formula {formula!r}: a bracket is not closed.")
            return inside
        if not token or token in "+-*/)":
            raise ValueError(f"formula {formula!r}: a number is missing before {token or 'its end'!r}.")
        return Fraction(token)

    def chain(tier: int) -> Operation | Fraction:
        symbols, lower = ("+-", lambda: chain(1)) if tier == 0 else ("*/", factor)
        left = lower()
        while peek() and peek() in symbols:
            symbol = take()
            left = Operation(symbol, left, lower())
        return left

    tree = chain(0)
    if position != len(tokens):
        raise ValueError(f"formula {formula!r}: {peek()!r} stands where an operator should.")
    return tree


def show_number(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    text = format(Decimal(number.numerator) / Decimal(number.denominator), "f")
    if Fraction(text) != number:
        raise ValueError(f"{number} has no finite decimal form: the teacher writes decimals only.")
    return text


def show(tree: Operation | Fraction) -> str:
    if isinstance(tree, Fraction):
        return show_number(tree)
    tight = tree.symbol in "*/"

    def side(child: Operation | Fraction, right: bool) -> str:
        text = show(child)
        if isinstance(child, Fraction):
            return text
        loose = child.symbol in "+-"
        needs = (tight and loose) or (right and (tight or loose))
        return f"({text})" if needs else text

    return side(tree.left, False) + tree.symbol + side(tree.right, True)


def _apply(symbol: str, a: Fraction, b: Fraction) -> Fraction:
    if symbol == "/":
        if b == 0:
            raise ValueError("a division by zero cannot be explained.")
        return a / b
    return a + b if symbol == "+" else a - b if symbol == "-" else a * b


@dataclass
class _Slip:
    """Asks for one wrong digit in the `column`-th column that is worked on; `done` once it is made."""

    column: int
    shift: int
    done: bool = False

    def digit(self, digit: int, column: int) -> int:
        if self.done or column != self.column:
            return digit
        self.done = True
        return (digit + self.shift) % 10


def _and(sign: str, carried: int) -> str:
    return f"{sign}{carried}" if carried else ""


def _mark(letter: str, carried: int) -> str:
    """The carry or borrow, written before the digit: once it is known, the digit is no longer a sum modulo ten."""
    return "" if not carried else letter if carried == 1 else f"{letter}{carried}:"


def _add(a: int, b: int, slip: _Slip | None) -> tuple[list[str], int]:
    lines, carry, digits = [], 0, []
    for column in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**column % 10, b // 10**column % 10
        total = x + y + carry
        digit = slip.digit(total % 10, column) if slip else total % 10
        lines.append(f"{x}+{y}{_and('+', carry)}={_mark('c', total // 10)}{digit}")
        carry = total // 10
        digits.append(digit)
    return lines, carry * 10 ** len(digits) + sum(d * 10**i for i, d in enumerate(digits))


def _subtract(a: int, b: int, slip: _Slip | None) -> tuple[list[str], int]:
    if b > a:
        raise ValueError(f"{a}-{b} is negative: the teacher's columns hold non-negative numbers only.")
    lines, borrow, digits = [], 0, []
    for column in range(len(str(a))):
        x, y = a // 10**column % 10, b // 10**column % 10
        total = x - y - borrow
        digit = slip.digit(total % 10, column) if slip else total % 10
        lines.append(f"{x}-{y}{_and('-', borrow)}={_mark('b', int(total < 0))}{digit}")
        borrow = int(total < 0)
        digits.append(digit)
    return lines, sum(d * 10**i for i, d in enumerate(digits))


def _times_digit(a: int, digit: int, slip: _Slip | None) -> tuple[list[str], int]:
    lines, carry, digits = [], 0, []
    for column in range(len(str(a))):
        x = a // 10**column % 10
        total = x * digit + carry
        low = slip.digit(total % 10, column) if slip else total % 10
        lines.append(f"{x}*{digit}{_and('+', carry)}={_mark('c', total // 10)}{low}")
        carry = total // 10
        digits.append(low)
    return lines, carry * 10 ** len(digits) + sum(d * 10**i for i, d in enumerate(digits))


def _multiply(a: int, b: int, slip: _Slip | None) -> tuple[list[str], int]:
    if len(str(a)) < len(str(b)):
        a, b = b, a
    if b < 10:
        return _times_digit(a, b, slip)
    lines, total = [], 0
    for place, digit in enumerate(int(d) for d in reversed(str(b))):
        if digit == 0:
            continue
        part, product = _times_digit(a, digit, slip if place == 0 else None)
        product *= 10**place
        lines += [*part, f"so {product}"]
        if total:
            summed, total = _add(total, product, None)
            lines += [*summed, f"so {total}"]
        else:
            total = product
    return lines, total


def _divide(a: int, b: int, slip: _Slip | None) -> tuple[list[str], int]:
    if b == 0 or a % b:
        raise ValueError(f"{a}/{b} is not a whole number: the teacher's long division stops there.")
    lines, rest, quotient = [], 0, 0
    for column, digit in enumerate(int(d) for d in str(a)):
        part = rest * 10 + digit
        written = slip.digit(part // b, column) if slip else part // b
        rest = part % b
        lines.append(f"{part}/{b}={written}{f'r{rest}' if rest else ''}")
        quotient = quotient * 10 + written
    return lines, quotient


COLUMNS = {"+": _add, "-": _subtract, "*": _multiply, "/": _divide}


def _tens(number: Fraction) -> int:
    """k where the number is 10**k and k > 0, else 0."""
    digits = str(number)
    return len(digits) - 1 if re.fullmatch("10+", digits) else 0


def work(symbol: str, a: Fraction, b: Fraction, slip: _Slip | None = None) -> tuple[str, Fraction]:
    """One operation in columns: the text after the colon, and the result that the text arrives at."""
    if symbol in "*/" and (tens := _tens(b)):
        result = _apply(symbol, a, b)
        return f"{'>' if symbol == '*' else '<'}{tens} so {show_number(result)}", result
    # Decimals are worked as whole numbers with the point set afterwards, as one does on paper.
    scale = 0
    while (a * 10**scale).denominator > 1 or (b * 10**scale).denominator > 1:
        scale += 1
        if scale > 6:
            raise ValueError(f"{a} and {b}: the teacher works with at most six decimals.")
    x, y = int(a * 10**scale), int(b * 10**scale)
    extra = 0
    if symbol == "/":
        if y == 0:
            raise ValueError("a division by zero cannot be explained.")
        while x * 10**extra % y:
            extra += 1
            if extra > 6:
                raise ValueError(f"{a}/{b} has no short decimal form: the teacher stops there.")
    lines, whole = COLUMNS[symbol](x * 10**extra, y, slip)
    shift = {"+": scale, "-": scale, "*": 2 * scale, "/": extra}[symbol]
    result = Fraction(whole, 10**shift)
    text = ",".join(lines) + " so "
    if shift:
        text += f"{whole}p{shift} so "  # the point goes `shift` digits from the right
    return text + show_number(result), result


class ProceduralTeacher:
    """Writes `n` different traces for one problem, unverified. Deterministic in (seed, problem id, index)."""

    name = "procedural"

    def __init__(
        self,
        wrong_rate: float = 0.2,
        correction_rate: float = 0.05,
        check_rate: float = 0.5,
        shortcut_rate: float = 0.0,
        given: bool = False,
        seed: int = 0,
    ):
        self.wrong_rate = wrong_rate
        self.correction_rate = correction_rate
        self.check_rate = check_rate
        self.shortcut_rate = shortcut_rate
        self.given = given
        self.seed = seed

    def traces(self, problem: Problem, n: int) -> list[Trace]:
        """Raises ValueError when the problem has no formula, or one that columns cannot explain."""
        if not problem.formula:
            raise ValueError(f"problem {problem.id} has no formula: the procedural teacher can only explain formulas.")
        tree = parse(problem.formula)
        numbers = ", ".join(show_number(Fraction(m.value)) for m in mentions(problem.question) if m.free)
        given = f"<think>\nGiven {numbers}\n" if self.given and numbers else "<think>\n"
        return [
            Trace(problem.id, i, given + self._text(tree, random.Random(f"{self.seed}/{problem.id}/{i}")), self.name)
            for i in range(n)
        ]

    def _text(self, tree: Operation | Fraction, rng: random.Random) -> str:
        """What follows the opening of the thoughts."""
        fate = rng.random()
        if fate < self.wrong_rate:
            for _ in range(10):
                try:
                    return self._write(tree, rng, wrong=True, corrects=False)
                except ValueError:  # the slip led to a step that columns cannot hold: slip elsewhere
                    continue
        return self._write(tree, rng, wrong=False, corrects=fate < self.wrong_rate + self.correction_rate)

    def _write(self, tree: Operation | Fraction, rng: random.Random, wrong: bool, corrects: bool) -> str:
        operations = _count(tree)
        slip_at = rng.randrange(operations) if operations and (wrong or corrects) else operations
        lines = [show(tree)] if operations != 1 else []
        last: tuple[str, Fraction, Fraction, Fraction, Fraction] | None = None
        step = 0
        while not isinstance(tree, Fraction):
            symbol, a, b = _first(tree)
            text, result = work(symbol, a, b)
            true = result
            if step == slip_at:
                slipped, bad = self._slip(symbol, a, b, result, rng)
                if corrects:
                    lines.append(f"{show_number(a)}{symbol}{show_number(b)}:{slipped}")
                    lines.append("Wait, a digit slipped.")
                else:
                    text, result = slipped, bad
            in_the_head = self.shortcut_rate > 0 and rng.random() < self.shortcut_rate and step != slip_at
            lines.append(
                f"{show_number(a)}{symbol}{show_number(b)}" + (f"={show_number(result)}" if in_the_head else f":{text}")
            )
            last = (symbol, a, b, result, true)
            tree = _replace_first(tree, result)
            if _count(tree) > 1:  # a single operation is written where it is worked
                lines.append(show(tree))
            step += 1
        if last and rng.random() < self.check_rate:
            lines += self._check(*last)
        return "\n".join(lines) + f"\n</think>\nThe answer is \\boxed{{{show_number(tree)}}}."

    def _slip(self, symbol: str, a: Fraction, b: Fraction, true: Fraction, rng: random.Random) -> tuple[str, Fraction]:
        for _ in range(20):
            slip = _Slip(rng.randrange(max(len(str(int(a))), len(str(int(b))))), rng.choice((1, 9, 2, 8)))
            text, result = work(symbol, a, b, slip)
            if result != true:
                return text, result
        return work(symbol, a, b)

    def _check(self, symbol: str, a: Fraction, b: Fraction, result: Fraction, true: Fraction) -> list[str]:
        """The last step undone. After an unnoticed slip the check is as careless as the step was: it sees what it expects."""
        back = CHECKED_BY[symbol]
        try:
            text, found = work(back, true, b)
        except ValueError:
            return []
        if result != true:  # copy the wrong result in, keep the expected columns
            return [f"Check {show_number(result)}{back}{show_number(b)}:{text}"]
        return [f"Check {show_number(result)}{back}{show_number(b)}:{text}"] if found == a else []


def _count(tree: Operation | Fraction) -> int:
    return 0 if isinstance(tree, Fraction) else 1 + _count(tree.left) + _count(tree.right)


def _first(tree: Operation) -> tuple[str, Fraction, Fraction]:
    """The leftmost operation whose two sides are numbers."""
    if not isinstance(tree.left, Fraction):
        return _first(tree.left)
    if not isinstance(tree.right, Fraction):
        return _first(tree.right)
    return tree.symbol, tree.left, tree.right


def _replace_first(tree: Operation, result: Fraction) -> Operation | Fraction:
    if not isinstance(tree.left, Fraction):
        return Operation(tree.symbol, _replace_first(tree.left, result), tree.right)
    if not isinstance(tree.right, Fraction):
        return Operation(tree.symbol, tree.left, _replace_first(tree.right, result))
    return result
