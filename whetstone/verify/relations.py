r"""Equations, congruences and other relations: when two of them say the same, and which value one of them states.

Two equations are the same if one is a constant multiple of the other; by mere truth none is: `0=0` is not `1=1`. A plain
value is compared with the value that `quantity = value` states.
"""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise

from whetstone.verify.answers.forms import Chain, Expression, Value
from whetstone.verify.answers.terms import Term, names, walk
from whetstone.verify.answers.units import ratio
from whetstone.verify.elementary import Elementary
from whetstone.verify.exact import Scalar, TooLarge, Unreadable, as_rational, equal_scalars, is_opaque, proportion

FLIPPED = {
    "<": ">",
    ">": "<",
    "<=": ">=",
    ">=": "<=",
    "in": "contains",
    "subset": "superset",
    "superset": "subset",
    "subset or equal": "superset or equal",
    "superset or equal": "subset or equal",
}
SYMMETRIC = frozenset(("=", "!=", "~", "sim", "cong", "parallel", "perp", "and", "or", "iff", "oplus"))
ROUNDED = re.compile(r"-?(\d*)(?:\.(\d*))?(?:(?:\\times|\\cdot|\*)10\^(?:\{-?\d+\}|\d)|\\?%)?")
Compare = Callable[[Value, Value], bool]


def stated(chain: Chain, gold: bool) -> Value | None:
    """The value that a chain states: `x = 1/2 \\approx 0.5` states 1/2, `2 + 3 = 5` 5, `m + n = 20 + 13 = 33` 33.

    None where it states none: an inequality, `x = 6 = 5`, `0 = 0`. A reference such as `x + y = 3` is an equation; the
    answer `m + n = 3` states 3.
    """
    if chain.modulus is not None or not chain.relations:
        return None
    if chain.relations == ("in",):
        return chain.items[1] if chain.label else None
    if not {*chain.relations} <= {"=", "~"}:
        return None
    exact = _exact(chain)
    if len({item.text if isinstance(item, Expression) else repr(item) for item in exact}) < len(exact):
        return None
    constants = _constants(exact)
    if constants and not all(rounds(constants[-1], item) is True for item in chain.items if item not in exact):
        return None
    if chain.label:
        rest = exact[1:] or chain.items[1:2]
        return rest[-1] if _all_one(rest) else None
    others = [item for item in exact if item not in constants]
    if (len(exact) < 2 and "~" not in chain.relations) or not constants or not _all_one(constants):
        return None
    if not others or (all(_is_quantity(item, gold) for item in others) and constants[-1].value.num):
        return constants[-1]
    return None


def contradicts(chain: Chain, compare: Compare) -> bool:
    """Are two of its constants different, or is one not rounded as it says: `5 = 6`, `50\\pi \\approx 158`?"""
    if not {*chain.relations} <= {"=", "~"}:
        return False
    exact = _exact(chain)
    constants = _constants(exact)
    if any(not compare(first, second) and not compare(second, first) for first, second in pairwise(constants)):
        return True
    rounded = [item for item in _constants(chain.items) if item not in exact] if constants else []
    both = ((rounds(constants[-1], item), rounds(item, constants[-1])) for item in rounded)
    return any(False in said and True not in said for said in both)


def rounds(value: Expression, decimal: Value) -> bool | None:
    """Is it the value, rounded to the digits that it has? 157.08 is 50\\pi, and 33.3 % is 1/3. None for what is no decimal."""
    if not isinstance(decimal, Expression) or ratio(value.unit, decimal.unit) != 1:
        return False
    written, given = ROUNDED.fullmatch(decimal.text), as_rational(decimal.value)
    if written is None or given is None or not (written[1] or written[2]):
        return True if same_value(value, decimal) is True else None
    whole, places = written[1], written[2] or ""
    digits = int(whole + places)
    last = abs(given) / digits if digits else Fraction(1, 10 ** len(places))  # worth of the last digit
    if not places and digits:
        last *= 10 ** (len(whole) - len(whole.rstrip("0")))
    from whetstone.verify import numeric

    try:
        with numeric.precision(60):
            apart = numeric.Evaluation({}).of(("+", value.term, ("-", ("n", given))))
            return not apart.imag and abs(apart) <= numeric.mp.mpf(last.numerator) / last.denominator / 2
    except (numeric.NoValue, TooLarge):
        return False


def _exact(chain: Chain) -> list[Value]:
    """What is not said to be rounded."""
    return [item for item, relation in zip(chain.items, ("=", *chain.relations), strict=True) if relation == "="]


def _constants(items: Iterable[Value]) -> list[Expression]:
    return [item for item in items if isinstance(item, Expression) and not names(item.term) and not _calls(item)]


def _is_quantity(item: Value, gold: bool) -> bool:
    """A name, or what is made of several: `x`, `f(2)`, `m + n`; `2x` and `x^2` belong to equations."""
    if not isinstance(item, Expression):
        return False
    if item.term[0] == "s" or (item.term[0] == "f" and _calls(item)):
        return True
    return not gold and (len(names(item.term)) > 1 or _calls(item))


def _calls(item: Expression) -> bool:
    return any(part[0] == "f" and part[1].startswith("call ") for part in walk(item.term))


def _all_one(items: list[Value]) -> bool:
    """Are they all one value? Formulas are taken to be."""
    numbers = [item for item in items if isinstance(item, Expression) and not names(item.term)]
    return all(same_value(numbers[0], other) is True for other in numbers[1:])


def same_value(a: Expression, b: Expression) -> bool | None:
    """True or False is a proof, or shown at points; None is neither. Units are not looked at."""
    same = equal_scalars(a.value, b.value)
    if same is None:
        from whetstone.verify import numeric  # brings mpmath, which most answers do not need

        same = numeric.same(a.term, b.term)
    return same


def same_congruence(gold: Chain, given: Chain) -> bool:
    """n = 1 (mod 3) and n = 4 (mod 3): one modulus, one unknown, and a difference that it divides."""
    if gold.modulus is None or given.modulus is None or same_value(gold.modulus, given.modulus) is not True:
        return False
    if len(gold.items) > 2 or len(given.items) > 2 or {*gold.relations} | {*given.relations} > {"="}:
        return False
    for first, second in zip(gold.items[:-1], given.items[:-1], strict=False):
        if (
            not isinstance(first, Expression)
            or not isinstance(second, Expression)
            or same_value(first, second) is not True
        ):
            return False
    ends = gold.items[-1], given.items[-1]
    if not all(isinstance(end, Expression) for end in ends):
        return False
    modulus = as_rational(gold.modulus.value)
    difference = as_rational(Elementary().subtract(ends[0].value, ends[1].value))
    if modulus is None or difference is None:
        return same_value(*ends) is True
    return modulus != 0 and (difference / modulus).denominator == 1


def same_relation(gold: Chain, given: Chain, compare: Compare) -> bool | None:
    """None where it is not decided."""
    if gold.modulus is not None or given.modulus is not None:
        return same_congruence(gold, given)
    if len(gold.items) == len(given.items) == 2 and gold.relations[0] in ("=", "!="):
        return gold.relations == given.relations and same_equation(gold, given, compare)
    if {*gold.relations} == {*given.relations} == {"="}:
        return _same_in_any_order(gold.items, given.items, compare)
    back = tuple(
        relation if relation in SYMMETRIC else FLIPPED.get(relation, "?") for relation in given.relations[::-1]
    )
    for relations, items in ((given.relations, given.items), (back, given.items[::-1])):
        if gold.relations == relations and all(map(compare, gold.items, items)):
            return True
    if len(gold.items) == len(given.items) == 2 and gold.relations[0] in ("<", ">", "<=", ">="):
        return _same_inequality(gold, given)
    return False


def _same_in_any_order(golds: tuple[Value, ...], givens: tuple[Value, ...], compare: Compare) -> bool:
    left = list(givens)
    for gold in golds:
        match = next((k for k, given in enumerate(left) if compare(gold, given)), None)
        if match is None:
            return False
        left.pop(match)
    return not left


def same_equation(gold: Chain, given: Chain, compare: Compare) -> bool | None:
    first, second = difference(gold), difference(given)
    if first is None or second is None or not (_says_something(first) and _says_something(second)):
        pairs = (given.items, given.items[::-1])
        return any(all(_same_side(*pair, compare) for pair in zip(gold.items, items, strict=True)) for items in pairs)
    if names(first[0]) != names(second[0]) or not first[1].num or not second[1].num:
        return False
    try:
        ratio = proportion(first[1], second[1])
    except TooLarge:
        ratio = None
    if ratio is not None and ratio is not False:
        return ratio != 0
    if ratio is False and not is_opaque(first[1]) and not is_opaque(second[1]):
        return False
    return _in_proportion(first[0], second[0])


def _says_something(difference: tuple[Term, Scalar]) -> bool:
    """Does its truth depend on the unknowns? `2^3 = 8` and `x + 1 = x` are true or false for all of them."""
    return bool(names(difference[0])) and as_rational(difference[1]) is None


def _same_side(gold: Value, given: Value, compare: Compare) -> bool:
    """The same quantity: `8` is no other way to write `2^3` where the equation is all that is said."""
    sides = gold, given
    if all(isinstance(side, Expression) for side in sides) and (gold.number is None) != (given.number is None):
        return False
    if all(isinstance(side, Expression) and side.number is None and not names(side.term) for side in sides):
        return _in_order(gold.term) == _in_order(given.term)
    return compare(*sides)


def _in_order(term: Term) -> Term:
    """The term with the parts of its sums and products in one order."""
    if term[0] in "nsm":
        return term
    parts = tuple(_in_order(part) if isinstance(part, tuple) else part for part in term[1:])
    return term[0], *(sorted(parts, key=repr) if term[0] in "+*" else parts)


def difference(chain: Chain) -> tuple[Term, Scalar] | None:
    """First minus last side, where both are expressions."""
    left, right = chain.items[0], chain.items[-1]
    if not isinstance(left, Expression) or not isinstance(right, Expression):
        return None
    try:
        return ("+", left.term, ("-", right.term)), Elementary().subtract(left.value, right.value)
    except (TooLarge, Unreadable):
        return None


def _in_proportion(first: Term, second: Term) -> bool | None:
    """False where the quotient of the two is not the same at two points; else None."""
    from whetstone.verify import numeric

    quotients = []
    symbols = sorted(names(first) | names(second))
    try:
        for upper, lower in numeric.POINTS[:3]:
            point = numeric.values_at(symbols, upper, lower)
            with numeric.precision(60):
                quotients.append(numeric.Evaluation(point).of(("*", first, ("i", second))))
    except (numeric.NoValue, TooLarge):
        return None
    with numeric.precision(60):
        spread = max(abs(a - quotients[0]) for a in quotients)
        return False if spread > abs(quotients[0]) * numeric.mp.mpf(10) ** -30 else None


def _same_inequality(gold: Chain, given: Chain) -> bool | None:
    """The same up to a positive factor and the direction."""
    first, second = difference(gold), difference(given)
    if first is None or second is None:
        return False
    try:
        ratio = proportion(first[1], second[1])
    except TooLarge:
        return None
    if not isinstance(ratio, Fraction):
        return None if ratio is None or is_opaque(first[1]) or is_opaque(second[1]) else False
    relation = given.relations[0] if ratio > 0 else FLIPPED[given.relations[0]]
    return ratio != 0 and gold.relations[0] == relation
