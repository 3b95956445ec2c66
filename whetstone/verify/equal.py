"""Is this answer the reference answer? Exactly, by type, and without floating point wherever that is possible.

Numbers, expressions, tuples, sets, intervals, equations, matrices and words are compared here. Only the leaves that
exact arithmetic does not decide (functions, roots of sums, sums and integrals) are asked of computer algebra, and what
it says about structure is never taken: (1, 2) is not {1, 2} whatever it thinks.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from whetstone.records import Verdict
from whetstone.verify import moments
from whetstone.verify.exact import (
    Algebra,
    Scalar,
    TooLarge,
    Unreadable,
    as_rational,
    equal_scalars,
    is_opaque,
    proportion,
    rational,
    symbol,
    symbols,
)
from whetstone.verify.extract import extract
from whetstone.verify.policy import Policy, get_policy
from whetstone.verify.reading import (
    RELATIONS,
    Bracket,
    Chain,
    Expression,
    Items,
    Matrix,
    Union,
    Value,
    Word,
    means_something,
    read,
    tidy,
)

Ask = Callable[[str, str], bool]  # (gold, answer) -> equal; raises Undecided

SHORT_INTEGER = re.compile(r"[+-]?\d{1,18}")
REFERENCE = get_policy("math_thinking")
SHORT_FRACTION = re.compile(
    r"(?P<sign>-?)(?:(?P<whole>\d{0,18})\.(?P<places>\d{1,18})|(?P<upper>\d{1,18})(?:/(?P<lower>\d{1,18}))?"
    r"|\\[dt]?frac\{(?P<top>-?\d{1,18})\}\{(?P<bottom>\d{1,18})\})"
)
CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*(?:\)|\.|:|$)(?:\s|\\|$|[^A-Za-z])*", re.ASCII)
SHORT_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3}){1,5}")
SHORT_UNIT = re.compile(r"(-?[\d.,/]*\d)\s*\\text\{(?!\s*(?i:percent|pct))([A-Za-z ]+)\}")
DECIMAL = re.compile(r"(-?\d+)[.,](\d\d|\d{4,})")
OPTION = re.compile(r"\\text\s*\{\s*\(?([A-J])\)?\s*\}")
LAST_OF_EQUALS = re.compile(r"(?:[^=<>,;]+=){2,}([^=<>,;]+)")
ABSOLUTE = re.compile(r"(?:\||\\lvert )([A-Za-z])(?:\||\\rvert)")
ARTICLES = re.compile(r"^(?:the|a|an)\s+")
LONGEST_KEPT = 500  # characters of a reference whose reading is kept: what is read takes far more memory than the text


class Undecided(Exception):
    """Neither equal nor different could be shown; the text is the verdict's reason."""


class NotRead(Exception):
    """Computer algebra could not read the answer."""


def ask_nobody(gold: str, answer: str) -> bool:
    raise Undecided("not decided by exact arithmetic")


def judge(answer: str, gold: str, policy: Policy, ask: Ask = ask_nobody) -> Verdict:
    """The verdict on an extracted answer. `ask` decides leaves that exact arithmetic cannot.

    >>> from whetstone.verify.policy import get_policy
    >>> judge("0.5", r"\\frac{1}{2}", get_policy("math")).correct
    True
    """
    if not gold or gold.isspace():
        return Verdict(None, "reference answer is empty", answer)
    gold = reference(gold)
    if policy.kind == "choice":
        return _judge_choice(answer, gold, policy)
    if policy.kind == "word":
        return _verdict(_words(answer) == _words(gold), answer)
    if SHORT_INTEGER.fullmatch(answer) and SHORT_INTEGER.fullmatch(gold):
        if policy.low is not None and not policy.low <= int(gold) <= (policy.high or policy.low):
            return Verdict(None, f"reference answer is not within {policy.low} to {policy.high}", answer)
        return _verdict(int(answer) == int(gold), answer)
    try:
        if policy.kind == "integer":
            return _judge_integer(answer, gold, policy)
        return _judge_math(answer, gold, policy, ask)
    except Undecided as undecided:
        return Verdict(None, str(undecided), answer)
    except NotRead:
        return Verdict(False, "unreadable answer", answer)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # the text is untrusted: a slip of ours on it is never a right answer, and its kind is kept
        return Verdict(None, f"not judged: {type(error).__name__}", answer)


def _short_number(text: str) -> Fraction | None:
    """The value of the commonest spellings, read without the parser: `7`, `-0.25`, `1,234`, `\\frac{3}{4}`, `5\\text{ cm}`."""
    if text.endswith("}") and (unit := SHORT_UNIT.fullmatch(text)) and not means_something(unit[2].strip()):
        text = unit[1]
    if "," in text and SHORT_THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    found = SHORT_FRACTION.fullmatch(text)
    if found is None:
        return None
    sign, whole, places, upper, lower, top, bottom = found.groups()
    if places is not None:
        value = Fraction(int((whole or "") + places), 10 ** len(places))
    else:
        below = int(lower or bottom or 1)
        if below == 0:
            return None
        value = Fraction(int(upper or top), below)
    return -value if sign else value


def _verdict(equal: bool, answer: str) -> Verdict:
    return Verdict(True, "equal", answer) if equal else Verdict(False, "different", answer)


def _words(text: str) -> str:
    unwrapped = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text.replace("$", ""))
    return " ".join(re.sub(r"^[\W_]+|[\W_]+$", "", unwrapped).casefold().split())


def _judge_choice(answer: str, gold: str, policy: Policy) -> Verdict:
    letters = []
    for text in (answer, gold):
        found = CHOICE.match(re.sub(r"^[\s$*\\]*|[\s$*]*$", "", _without_text(text)))
        letters.append(found.group(1).upper() if found and found.group(1).upper() in policy.choices else None)
    if letters[1] is None:
        return Verdict(None, f"reference answer is none of the letters {policy.choices}", answer)
    if letters[0] is None:
        return Verdict(False, "not a choice", answer)
    return _verdict(letters[0] == letters[1], answer)


def _without_text(text: str) -> str:
    return re.sub(r"\\(?:text|mathrm|textbf|mbox|mathbf)\s*\{([^{}]*)\}", r"\1", text)


def _judge_integer(answer: str, gold: str, policy: Policy) -> Verdict:
    wanted = _whole_number(gold)
    if wanted is None:
        return Verdict(None, "reference answer is not an integer", answer)
    if policy.low is not None and not policy.low <= wanted <= (policy.high or policy.low):
        return Verdict(None, f"reference answer is not within {policy.low} to {policy.high}", answer)
    given = _whole_number(answer)
    if given is None:
        return Verdict(False, "not an integer", answer)
    return _verdict(given == wanted, answer)


def _whole_number(text: str) -> int | None:
    try:
        value = _reduced(read(text, gold=True)[0])
    except (TooLarge, Unreadable, RecursionError):
        return None
    number = as_rational(value.value) if isinstance(value, Expression) and value.value is not None else None
    return int(number) if number is not None and number.denominator == 1 else None


def _read_gold(gold: str, percent: str) -> tuple[Value, ...] | TooLarge | Unreadable:
    if len(gold) > LONGEST_KEPT:
        return _read(gold, percent, gold=True)
    return _read_short_gold(gold, percent)


@lru_cache(maxsize=4096)
def _read_short_gold(gold: str, percent: str) -> tuple[Value, ...] | TooLarge | Unreadable:
    return _read(gold, percent, gold=True)


def _read(text: str, percent: str, gold: bool) -> tuple[Value, ...] | TooLarge | Unreadable:
    try:
        return tuple(read(text, percent, gold))
    except RecursionError:
        return TooLarge("nested too deeply")
    except (TooLarge, Unreadable) as problem:
        return problem.with_traceback(None)


def reference(gold: str) -> str:
    """The reference answer in a reference solution: its last box, what follows `####`, else all of it."""
    if "\\boxed" in gold or "\n" in gold.strip() or "####" in gold:
        found = extract(gold, REFERENCE)
        return found.answer if found.answer is not None else gold
    return gold


def _judge_math(answer: str, gold: str, policy: Policy, ask: Ask) -> Verdict:
    if answer.strip() == gold.strip():
        return Verdict(True, "equal", answer)
    wanted, given = _short_number(gold.strip()), _short_number(answer.strip())
    if wanted is not None and given is not None:
        return _verdict(wanted == given, answer)
    if _same_but_for_the_decimal_mark(answer, gold) or _same_option(answer, gold):
        return Verdict(True, "equal", answer)
    moment = moments.same(gold, answer)
    if moment is not None:
        return _verdict(moment, answer)
    golds = _read_gold(gold, policy.percent)
    if isinstance(golds, Unreadable) and (last := LAST_OF_EQUALS.fullmatch(gold.strip(" $"))):
        golds = _read_gold(last[1], policy.percent)  # the reference holds, so all its sides are one value
    if isinstance(golds, TooLarge):
        raise Undecided(f"reference answer too large to evaluate: {golds}")
    answers = _read(answer, policy.percent, gold=False)
    if isinstance(answers, TooLarge):
        return Verdict(False, f"too large to evaluate: {answers}", answer)
    if isinstance(golds, Unreadable) or isinstance(answers, Unreadable):
        return _judge_unread(answer, gold, golds, answers, ask)
    first_problem: Undecided | None = None
    for index, (reading, answered) in enumerate([(g, a) for g in golds for a in answers]):
        try:
            if compare(reading, answered, ask if index == 0 else ask_nobody):
                return Verdict(True, "equal", answer)
        except (Undecided, NotRead) as problem:
            if index == 0:
                first_problem = problem
    if first_problem is not None:
        raise first_problem
    return Verdict(False, "different", answer)


def _same_but_for_the_decimal_mark(answer: str, gold: str) -> bool:
    """1000,99 and 1000.99; three digits after a comma are thousands, and one may be an item of a list."""
    found = [DECIMAL.fullmatch(text.strip(" $")) for text in (answer, gold)]
    return None not in found and found[0].groups() == found[1].groups()


def _same_option(answer: str, gold: str) -> bool:
    r"""An option of a list, which the reference writes as a letter of text, `\text{(E)}`, in either case."""
    option = OPTION.fullmatch(gold.strip())
    return option is not None and answer.strip().strip("{}").strip("()").casefold() == option[1].casefold()


def _judge_unread(
    answer: str,
    gold: str,
    golds: tuple[Value, ...] | Unreadable,
    answers: tuple[Value, ...] | Unreadable,
    ask: Ask,
) -> Verdict:
    """One of the two is beyond our own reader: the same text, or the same outer shape and computer algebra's word."""
    wanted, given = tidy(gold), tidy(answer)
    if wanted.replace(" ", "") == given.replace(" ", "") != "":
        return Verdict(True, "equal", answer)
    if not given:
        return Verdict(False, "unreadable answer", answer)
    for side in (golds, answers):
        if not isinstance(side, Unreadable) and isinstance(side[0], Word):
            return Verdict(False, "different", answer)
    if _shape(wanted) != _shape(given):
        return Verdict(False, "different", answer)
    return _verdict(ask(wanted, given), answer)


def _shape(text: str) -> tuple[str, int, str, bool]:
    """Outer brackets, top-level commas, and whether there is a relation: what must agree before algebra is asked."""
    depth = commas = 0
    relation = False
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", text, re.DOTALL):
        if token in ("(", "[", "{", "\\{", "\\langle"):
            depth += 1
        elif token in (")", "]", "}", "\\}", "\\rangle"):
            depth -= 1
        elif token in (",", ";") and depth <= 1:
            commas += 1
        elif depth == 0 and token in RELATIONS:
            relation = True
    opening = re.match(r"\\\{|[\[({]", text)
    closing = re.search(r"(?:\\\}|[\])}])$", text)
    if not commas:
        return "", 0, "", relation
    return opening.group() if opening else "", commas, closing.group() if closing else "", relation


# --- by type --------------------------------------------------------------------------------------------------------


def compare(gold: Value, given: Value, ask: Ask) -> bool:
    """Are two readings equal? Raises Undecided or NotRead where `ask` does."""
    if isinstance(gold, Chain) or isinstance(given, Chain):
        return _compare_chains(gold, given, ask)
    if isinstance(gold, Items) and gold.braces and len(gold.items) == 1 and not isinstance(given, Items):
        return compare(gold.items[0], given, ask)
    if isinstance(given, Items) and given.braces and len(given.items) == 1 and not isinstance(gold, Items):
        return compare(gold, given.items[0], ask)
    if isinstance(gold, Word) or isinstance(given, Word):
        return _plain_words(gold) == _plain_words(given) != ""
    if isinstance(gold, Expression) and isinstance(given, Expression):
        return _compare_expressions(gold, given, ask)
    if isinstance(gold, Bracket) and isinstance(given, Bracket):
        ends = (gold.opening, gold.closing) == (given.opening, given.closing)
        lists = len(gold.items) != 2 and all(b.opening + b.closing in ("()", "[]") for b in (gold, given))
        return (ends or lists) and _compare_in_order(gold.items, given.items, ask)
    if isinstance(gold, Items) and isinstance(given, Items):
        return _compare_items(gold, given, ask)
    if isinstance(gold, Bracket) and isinstance(given, Items) and not given.braces:
        return gold.opening + gold.closing in ("()", "[]") and _compare_in_order(gold.items, given.items, ask)
    if isinstance(gold, Items) and isinstance(given, Bracket) and not gold.braces:
        return given.opening + given.closing in ("()", "[]") and _compare_in_order(gold.items, given.items, ask)
    if isinstance(gold, Union) and isinstance(given, Union):
        return _compare_unordered(gold.items, given.items, ask)
    if isinstance(gold, Matrix) and isinstance(given, Matrix):
        return [len(row) for row in gold.rows] == [len(row) for row in given.rows] and all(
            _compare_in_order(a, b, ask) for a, b in zip(gold.rows, given.rows, strict=True)
        )
    return False


def _plain_words(value: Value) -> str:
    if isinstance(value, Word):
        return ARTICLES.sub("", value.words)
    return value.text.casefold() if isinstance(value, Expression) and value.text.isalpha() else ""


def _compare_expressions(gold: Expression, given: Expression, ask: Ask) -> bool:
    if gold.based and not given.based and given.text.isdecimal():
        return given.text == gold.based[0]  # 204 where 204 in base 5 was asked for
    same = equal_scalars(gold.value, given.value)
    return ask(gold.text, given.text) if same is None else same


def _compare_in_order(golds: Sequence[Value], givens: Sequence[Value], ask: Ask) -> bool:
    return len(golds) == len(givens) and all(compare(a, b, ask) for a, b in zip(golds, givens, strict=True))


def _compare_items(gold: Items, given: Items, ask: Ask) -> bool:
    """Sets as sets, lists as lists with repetitions; differently labelled items (a = 1, b = 2) keep their order."""
    if gold.braces or given.braces:
        golds, givens = _without_repetition(gold.items), _without_repetition(given.items)
    else:
        golds, givens = gold.items, given.items
        if len(givens) > len(golds) and all(isinstance(item, Bracket) for item in (*golds, *givens)):
            givens = _without_repetition(givens)  # a solution written twice is one solution
    if len(golds) != len(givens):
        return False
    for one, other in ((golds, givens), (givens, golds)):
        labels = [_label_text(item) for item in one]
        if len(set(labels)) > 1 and None not in labels and not any(isinstance(item, Chain) for item in other):
            return _compare_in_order(golds, givens, ask)
    return _compare_unordered(golds, givens, ask)


def _label_text(item: Value) -> str | None:
    return (
        item.items[0].text if isinstance(item, Chain) and item.label and isinstance(item.items[0], Expression) else None
    )


def _without_repetition(items: Sequence[Value]) -> list[Value]:
    kept: list[Value] = []
    for item in items:
        if not any(_equal_or_none(item, other) for other in kept):
            kept.append(item)
    return kept


def _equal_or_none(a: Value, b: Value) -> bool | None:
    try:
        return compare(a, b, ask_nobody)
    except Undecided:
        return None


def _compare_unordered(golds: Sequence[Value], givens: Sequence[Value], ask: Ask) -> bool:
    """Each of one side with another of the other side: what exact arithmetic pairs off first, then by asking."""
    if len(golds) != len(givens):
        return False
    left, open_pairs = list(givens), []
    for gold in golds:
        answers = [_equal_or_none(gold, given) for given in left]
        if True in answers:
            left.pop(answers.index(True))
        elif None not in answers:
            return False
        else:
            open_pairs.append(gold)
    for gold in open_pairs:
        for index, given in enumerate(left):
            if compare(gold, given, ask):
                left.pop(index)
                break
        else:
            return False
    return True


# --- equations and inequalities -------------------------------------------------------------------------------------


def _compare_chains(gold: Value, given: Value, ask: Ask) -> bool:
    if isinstance(gold, Chain) and isinstance(given, Chain):
        return _compare_two_chains(gold, given, ask)
    chain, other = (gold, given) if isinstance(gold, Chain) else (given, gold)
    reduced = _reduced(chain)
    if isinstance(reduced, Chain):
        interval = _as_interval(reduced)
        if interval is None or not isinstance(other, Bracket | Union):
            return False
        reduced = interval
    return compare(reduced, other, ask) if chain is gold else compare(other, reduced, ask)


def _reduced(value: Value) -> Value:
    """What a labelled equation says: `x = 1/2 \\approx 0.5` is 1/2; `2 + 3 = 5` is 5; others stay."""
    if not isinstance(value, Chain):
        return value
    exact = [item for item, relation in zip(value.items, ("=", *value.relations), strict=True) if relation != "~"]
    if any(relation not in ("=", "~", "in") for relation in value.relations):
        return value
    if value.label:
        return exact[-1] if len(exact) > 1 else value.items[-1]
    if "in" in value.relations:
        return value
    numbers = [item.value for item in exact if isinstance(item, Expression) and item.value is not None]
    constant = len(numbers) == len(exact) and not any(symbols(number) for number in numbers)
    return exact[-1] if constant and all(equal_scalars(numbers[0], other) for other in numbers[1:]) else value


def _compare_two_chains(gold: Chain, given: Chain, ask: Ask) -> bool:
    interval, other = _as_interval(gold), _as_interval(given)
    if interval is not None and other is not None:
        return _text_of(gold) == _text_of(given) and compare(interval, other, ask)
    for bounds, chain, member in ((interval, gold, given), (other, given, gold)):
        if bounds is not None and member.label and member.relations == ("in",):
            return _text_of(chain) == _text_of(member.items[0]) and compare(bounds, member.items[1], ask)
    reduced = (_reduced(gold), _reduced(given))
    named = gold.label and given.label and not any(isinstance(side, Chain) for side in reduced)
    if named and _equal_or_none(gold.items[0], given.items[0]):
        return compare(*reduced, ask)
    kinds = [set(chain.relations) - {"~"} for chain in (gold, given)]
    if kinds[0] != kinds[1] or len(kinds[0]) != 1 or not kinds[0] <= {"=", "!="}:
        return _compare_ordered_relations(gold, given, ask)
    first, second = _difference(gold), _difference(given)
    if first is None or second is None:
        return _compare_in_order(gold.items, given.items, ask)
    ratio = proportion(first, second)
    if ratio is None:
        return ask(_source(gold), _source(given))
    return ratio is not False and ratio != 0


def _compare_ordered_relations(gold: Chain, given: Chain, ask: Ask) -> bool:
    """Inequalities of two sides: the same up to a positive factor and the direction; longer ones item by item."""
    if len(gold.relations) != len(given.relations):
        return False
    pairs = zip(gold.items, given.items, strict=True)
    if gold.relations == given.relations and all(_equal_or_none(a, b) for a, b in pairs):
        return True
    flipped = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~", "in": "?"}
    if len(gold.relations) > 1:
        back = Chain(given.items[::-1], tuple(flipped[r] for r in reversed(given.relations)), False)
        return any(
            gold.relations == chain.relations and _compare_in_order(gold.items, chain.items, ask)
            for chain in (given, back)
        )
    first, second = _difference(gold), _difference(given)
    if first is None or second is None:
        return gold.relations == given.relations and _compare_in_order(gold.items, given.items, ask)
    ratio = proportion(first, second)
    if ratio is None or ratio is True:  # functions, or a factor whose sign is not known: side by side
        swapped = flipped[given.relations[0]]
        items = given.items if given.relations == gold.relations else given.items[::-1]
        return gold.relations[0] in (given.relations[0], swapped) and _compare_in_order(gold.items, items, ask)
    if ratio is False or ratio == 0:
        return False
    relation = given.relations[0] if ratio > 0 else flipped[given.relations[0]]
    return gold.relations[0] == relation


def _difference(chain: Chain) -> Scalar | None:
    """First minus last side, where both are expressions."""
    ends = (chain.items[0], chain.items[-1])
    if not all(isinstance(end, Expression) and end.value is not None for end in ends):
        return None
    try:
        return Algebra().subtract(ends[0].value, ends[1].value)
    except TooLarge:
        return None


def _source(chain: Chain) -> str:
    return f"{_text_of(chain.items[0])}={_text_of(chain.items[-1])}"


def _text_of(value: Value) -> str:
    """An expression's text; of a chain the name of its variable, so that x > 5 and y > 5 stay two things."""
    if isinstance(value, Expression):
        return value.text
    if isinstance(value, Chain):
        names = [
            {absolute[1]} if (absolute := ABSOLUTE.fullmatch(item.text)) else symbols(item.value)
            for item in value.items
            if isinstance(item, Expression) and item.value
        ]
        return ",".join(sorted(set().union(*names)))
    return ""


def _as_interval(chain: Chain) -> Bracket | Union | None:
    """`1 < x \\le 3` as (1, 3], `x > 5` as (5, oo), `|x| < 2` as (-2, 2): one symbol, taken as real, beside numbers."""
    items, relations = chain.items, chain.relations
    if not all(isinstance(item, Expression) and item.value is not None for item in items):
        return None
    if all(r in (">", ">=") for r in relations):
        items, relations = items[::-1], tuple(r.replace(">", "<") for r in reversed(relations))
    if not all(r in ("<", "<=") for r in relations):
        return None
    absolute = ABSOLUTE.fullmatch(items[-2].text) is not None
    variable = [len(symbols(item.value)) == 1 and _is_symbol(item.value) for item in items]
    constant = [not symbols(item.value) and not is_opaque(item.value) for item in items]
    infinity = Expression(symbol("oo"), "\\infty")
    if len(items) == 3 and constant[0] and (variable[1] or absolute) and constant[2]:
        low, high = items[0], items[2]
    elif len(items) == 2 and (variable[0] or absolute) and constant[1]:
        low, high, relations = _negative(infinity), items[1], ("<", relations[0])
    elif len(items) == 2 and constant[0] and variable[1]:
        low, high, relations = items[0], infinity, (relations[0], "<")
    else:
        return None
    opening, closing = ("(" if relations[0] == "<" else "["), (")" if relations[1] == "<" else "]")
    if not absolute:
        return Bracket(opening, (low, high), closing)
    back = {"(": ")", "[": "]", ")": "(", "]": "["}
    least, most = as_rational(low.value), as_rational(high.value)
    if len(items) == 2:
        return Bracket(back[closing], (_negative(high), high), closing) if most is not None and most > 0 else None
    if least is None or most is None or not 0 < least < most:
        return None
    mirrored = Bracket(back[closing], (_negative(high), _negative(low)), back[opening])
    return Union((mirrored, Bracket(opening, (low, high), closing)))


def _negative(number: Expression) -> Expression:
    return Expression(Algebra().negate(number.value), f"-{number.text}")


def _is_symbol(value: Scalar) -> bool:
    return len(value.num) == 1 and value == symbol(next(iter(symbols(value)))) and value != rational(0)
