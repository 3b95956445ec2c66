"""Are two values the same answer? By what they are: a tuple is no set, a list no interval, names decide and not order."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from whetstone.verify import sets
from whetstone.verify.answers.forms import (
    Bracket,
    Builder,
    Chain,
    Combined,
    Expression,
    Items,
    Matrix,
    Ratio,
    Statement,
    Value,
)
from whetstone.verify.answers.terms import evaluate, names, number, walk
from whetstone.verify.answers.units import ratio
from whetstone.verify.elementary import Elementary
from whetstone.verify.exact import Scalar, TooLarge, Unreadable, equal_scalars, rational
from whetstone.verify.relations import same_relation, same_value, stated
from whetstone.verify.renaming import rebound, renamed
from whetstone.verify.statements import adds_nothing, same_statement

Ask = Callable[[str, str], bool]  # (gold, answer) -> equal; raises Undecided


AXES = ("\\hat{i}", "\\hat{j}", "\\hat{k}")


class Undecided(Exception):
    """Neither equal nor different could be shown; the text is the verdict's reason."""


# what reading and comparing untrusted text may raise
NOT_SHOWN = (
    Undecided,
    TooLarge,
    Unreadable,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
)


def ask_nobody(gold: str, answer: str) -> bool:
    raise Undecided("not decided by exact arithmetic")


def compare(gold: Value, given: Value, ask: Ask = ask_nobody) -> bool:
    """Are two readings equal? Raises Undecided, and what `ask` raises."""
    if sets.says_relation(gold) or sets.says_relation(given):
        wanted, found = sets.real_set(gold), sets.real_set(given)
        if wanted is not None and found is not None:
            try:
                return sets.same_set(wanted, found)
            except sets.NoSet:
                raise Undecided("the order of two ends is not decided") from None
    gold, given = _by_place(_alone(gold, given)), _by_place(_alone(given, gold))
    gold, given = _as_vector(gold, given), _as_vector(given, gold)
    if isinstance(gold, Statement) or isinstance(given, Statement):
        return same_statement(gold, given, lambda a, b: compare(a, b, ask))
    if isinstance(gold, Items) or isinstance(given, Items):
        return _compare_items(gold, given, ask)
    if isinstance(gold, Chain) or isinstance(given, Chain):
        return _compare_chains(gold, given, ask)
    if type(gold) is not type(given):
        return False
    return _COMPARED[type(gold)](gold, given, ask)


def _alone(value: Value, other: Value) -> Value:
    """The element of a set of one, beside what is no set."""
    last = value.items[-1] if isinstance(value, Items) and value.items and not value.braces else None
    if isinstance(last, Statement) and adds_nothing(list(last.parts)):
        value = Items(value.items[:-1], False, value.joint)
    single = isinstance(value, Items) and len(value.items) == 1
    floor = isinstance(other, Expression) and other.text.startswith("[")  # [x] is no set
    point = (
        single and value.braces and isinstance(value.items[0], Expression) and isinstance(other, Bracket)
    )  # {1}, [1, 1]
    return value.items[0] if single and not isinstance(other, Items) and not floor and not point else value


def _by_place(value: Value) -> Value:
    """`(y, x) = (1, 2)` as `y = 1, x = 2`."""
    if (
        not isinstance(value, Chain)
        or value.relations != ("=",)
        or not all(isinstance(b, Bracket) for b in value.items)
    ):
        return value
    names, values = (bracket.items for bracket in value.items)
    if len(names) != len(values) or not all(isinstance(n, Expression) and n.term[0] == "s" for n in names):
        return value
    return Items(tuple(Chain(pair, ("=",), True) for pair in zip(names, values, strict=True)), False)


def _as_vector(value: Value, other: Value) -> Value:
    """A matrix, or a sum of \\hat{i}, \\hat{j} and \\hat{k}, as the bracket that the other is."""
    if isinstance(value, Matrix) and isinstance(other, Bracket):
        rows = value.rows if len(value.rows) > 1 else tuple((entry,) for entry in value.rows[0])
        ends = (other.opening, other.closing) if other.opening in "([" else ("(", ")")
        items = (row[0] if len(row) == 1 else Bracket(ends[0], row, ends[1]) for row in rows)
        return Bracket(ends[0], tuple(items), ends[1])
    if isinstance(other, Matrix | Bracket) and isinstance(value, Expression) and names(value.term) & {*AXES}:
        count = max(len(other.items) if isinstance(other, Bracket) else len(other.rows), 2)
        parts = components(value.value, AXES[:count]) if count <= len(AXES) else None
        return (
            value
            if parts is None
            else _as_vector(Matrix(tuple((Expression((), part, ""),) for part in parts)), Bracket("(", (), ")"))
        )
    return value


def components(value: Scalar, axes: Sequence[str]) -> list[Scalar] | None:
    """The coefficients of a sum of axes; None if it is not linear in them."""
    found: list[dict] = [{} for _ in axes]
    for term, coefficient in value.num.items():
        held = [k for k, axis in enumerate(axes) if (axis, 1) in term]
        if len(held) != 1:
            return None
        found[held[0]][tuple(pair for pair in term if pair != (axes[held[0]], 1))] = coefficient
    return [Scalar(terms, value.den) for terms in found]


def _turned(value: Expression, other: Expression) -> Expression:
    """Degrees as the radians that the other names, or is without a name: \\pi/6."""
    powers = [dict(each.unit.powers) if each.unit else {} for each in (value, other)]
    if powers[0] != {"deg": 1} or not (powers[1] == {"rad": 1} or (not powers[1] and ("s", "pi") in walk(other.term))):
        return value
    turned = ("*", value.term, number(Fraction(1, 180)), ("s", "pi"))
    return value._replace(term=turned, value=evaluate(turned, Elementary()), unit=other.unit)


def _compare_expressions(gold: Expression, given: Expression, ask: Ask) -> bool:
    if given.based and given.based[1] != 10 and not gold.based and given.based[0] == gold.text:
        return False  # 9 in base 12 where 9 was asked for
    if gold.based and not given.based and given.text.isdecimal():
        return given.text == gold.based[0]  # 204 where 204 in base 5 was asked for
    gold, given = _turned(gold, given), _turned(given, gold)
    scale = ratio(gold.unit, given.unit)
    if scale is None:
        return False
    if scale != 1:
        given = Expression(("*", number(scale), given.term), Elementary().multiply(rational(scale), given.value), "")
    try:
        same = same_value(gold, given)
    except TooLarge as problem:
        raise Undecided(f"too large to evaluate: {problem}") from None
    return ask(gold.text, given.text) if same is None else same


def _compare_in_order(golds: Sequence[Value], givens: Sequence[Value], ask: Ask) -> bool:
    return len(golds) == len(givens) and all(compare(a, b, ask) for a, b in zip(golds, givens, strict=True))


def _compare_brackets(gold: Bracket, given: Bracket, ask: Ask) -> bool:
    ends = (gold.opening, gold.closing) == (given.opening, given.closing)
    lists = len(gold.items) != 2 and all(b.opening + b.closing in ("()", "[]") for b in (gold, given))
    return (ends or lists) and _compare_in_order(gold.items, given.items, ask)


def _compare_ratios(gold: Ratio, given: Ratio, ask: Ask) -> bool:
    """4 : 6 is 2 : 3: all quotients agree."""
    if len(gold.items) != len(given.items):
        return False
    parts = [*gold.items, *given.items]
    if not all(isinstance(part, Expression) and part.value.num for part in parts):
        return _compare_in_order(gold.items, given.items, ask)
    first = [_over(part, gold.items[0]) for part in gold.items[1:]]
    return _compare_in_order(first, [_over(part, given.items[0]) for part in given.items[1:]], ask)


def _over(a: Expression, b: Expression) -> Expression:
    return Expression(("*", a.term, ("i", b.term)), Elementary().divide(a.value, b.value), f"({a.text})/({b.text})")


def _compare_matrices(gold: Matrix, given: Matrix, ask: Ask) -> bool:
    return [len(row) for row in gold.rows] == [len(row) for row in given.rows] and all(
        _compare_in_order(a, b, ask) for a, b in zip(gold.rows, given.rows, strict=True)
    )


def _compare_combined(gold: Combined, given: Combined, ask: Ask) -> bool:
    if gold.operation != given.operation:
        return False
    if gold.operation == "\\setminus":
        return _compare_in_order(gold.items, given.items, ask)
    return _compare_unordered(gold.items, given.items, ask)


def _compare_builders(gold: Builder, given: Builder, ask: Ask) -> bool:
    given = Builder(*rebound((gold.element, gold.condition), (given.element, given.condition)))
    return compare(gold.element, given.element, ask) and compare(gold.condition, given.condition, ask)


# --- lists ----------------------------------------------------------------------------------------------------------


def _compare_items(gold: Value, given: Value, ask: Ask) -> bool:
    """Sets as sets, lists as lists with repetitions; what is named goes by its name."""
    named = _named(gold), _named(given)
    if named[0] and named[1]:
        if (gold.joint == "or") != (given.joint == "or"):
            return False
        return named[0].keys() == named[1].keys() and all(compare(named[0][n], named[1][n], ask) for n in named[0])
    if named[0] or named[1]:
        roots = named[0] or named[1]
        if _is_numbered(roots) and isinstance(given if named[0] else gold, Items):
            listed = Items(tuple(roots.values()), False)
            return _compare_items(*((listed, given) if named[0] else (gold, listed)), ask)
        if any(map(_labelled, getattr(given if named[0] else gold, "items", ()))):
            return False  # x = 2, y = 1 and y = 2, y = 1
        gold, given = _by_name(gold, named[0]), _by_name(given, named[1])
    if isinstance(gold, Bracket | Items) and isinstance(given, Bracket | Items) and type(gold) is not type(given):
        return _compare_bracket_with_list(gold, given, ask)
    if not isinstance(gold, Items) or not isinstance(given, Items):
        if isinstance(gold, Chain) or isinstance(given, Chain):
            return _compare_chains(gold, given, ask)
        return (
            _compare_brackets(gold, given, ask) if isinstance(gold, Bracket) and isinstance(given, Bracket) else False
        )
    if {gold.joint, given.joint} == {"and", "or"} and not all(map(_is_value, (*gold.items, *given.items))):
        return False
    golds, givens = list(gold.items), list(rebound(gold.items, given.items))
    if gold.braces or given.braces:
        golds, givens = _without_repetition(golds), _without_repetition(givens)
    elif len(givens) > len(golds) and all(isinstance(item, Bracket) for item in (*golds, *givens)):
        givens = _without_repetition(givens)  # a solution written twice is one solution
    if not gold.braces and not given.braces:
        golds, givens = _shared_label(golds), _shared_label(givens)
    return _compare_unordered(golds, givens, ask)


def _labelled(item: Value) -> bool:
    return isinstance(item, Chain) and item.label


def _is_value(item: Value) -> bool:
    """Not a sentence, a name of one, or an inequality: `A and B` is not `A or B`, but `2 and 3` is `2 or 3`."""
    named = isinstance(item, Expression) and item.term[0] == "s" and item.text.isupper()
    return not isinstance(item, Statement) and not named and not (isinstance(item, Chain) and {*item.relations} - {"="})


def _shared_label(items: list[Value]) -> list[Value]:
    """`x = 1, 2, 3` lists three values of x."""
    first, rest = items[0], items[1:]
    if isinstance(first, Chain) and first.label and rest and not any(isinstance(item, Chain) for item in rest):
        return [stated(first, False) or first, *rest]
    return items


def _named(value: Value) -> dict[str, Value] | None:
    """`x = 2, y = 1` by name; None unless every item has a name of its own."""
    if not isinstance(value, Items) or value.braces or len(value.items) < 2:
        return None
    found: dict[str, Value] = {}
    for item in value.items:
        said = stated(item, False) if isinstance(item, Chain) and item.label and "=" in item.relations else None
        if said is None or not isinstance(item.items[0], Expression):
            return None
        found[item.items[0].text.replace("{", "").replace("}", "")] = said
    return found if len(found) == len(value.items) else None


def _is_numbered(named: dict[str, Value]) -> bool:
    """Are they x_1, x_2, …: the solutions of one equation, which have no order?"""
    return len({name.partition("_")[0] for name in named}) == 1 and all("_" in name for name in named)


def _by_name(value: Value, named: dict[str, Value] | None) -> Value:
    """Named values as a tuple: x before y and x_1 before x_2; names that are no such series stay in their order."""
    if named is None:
        return value
    order = sorted(named)
    series = all(len(name) == 1 and ord(name) - ord(order[0]) == k for k, name in enumerate(order))
    order = order if series or len({name[0] for name in named}) == 1 else list(named)
    return Bracket("(", tuple(named[name] for name in order), ")")


def _compare_bracket_with_list(gold: Bracket | Items, given: Bracket | Items, ask: Ask) -> bool:
    bracket, listed = (gold, given) if isinstance(gold, Bracket) else (given, gold)
    ends = bracket.opening + bracket.closing
    if listed.braces and len(listed.items) == 1:
        point, interval = sets.real_set(listed), sets.real_set(bracket)
        return point is not None and interval is not None and sets.same_set(point, interval)  # [1, 1] is {1}
    if listed.braces or ends not in ("()", "[]") or (ends == "[]" and len(bracket.items) == 2):
        return False  # a closed interval is not its two ends
    return _compare_in_order(gold.items, given.items, ask)


def _without_repetition(items: Iterable[Value]) -> list[Value]:
    kept: list[Value] = []
    for item in items:
        if not any(_surely_same(item, other) for other in kept):
            kept.append(item)
    return kept


def _surely_same(a: Value, b: Value) -> bool:
    """By exact arithmetic alone, as there are many pairs."""
    if isinstance(a, Expression) and isinstance(b, Expression):
        return equal_scalars(a.value, b.value) is True and a.unit == b.unit
    return _equal_or_none(a, b) is True


def _equal_or_none(a: Value, b: Value) -> bool | None:
    try:
        return compare(a, b, ask_nobody)
    except Undecided:
        return None


def _is_set(item: Value) -> bool:
    return isinstance(item, Items) and item.braces


def _compare_unordered(golds: Sequence[Value], givens: Sequence[Value], ask: Ask) -> bool:
    """Each of one side with another of the other side: what exact arithmetic pairs off first, then by asking."""
    if len(golds) != len(givens):
        return False
    left, open_pairs = list(givens), []
    for gold in golds:
        answers = [_is_set(gold) == _is_set(given) and _equal_or_none(gold, given) for given in left]
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


# --- relations ------------------------------------------------------------------------------------------------------


def _compare_chains(gold: Value, given: Value, ask: Ask) -> bool:
    if not isinstance(gold, Chain) or not isinstance(given, Chain):
        chain, is_gold = (gold, True) if isinstance(gold, Chain) else (given, False)
        said = stated(chain, is_gold)
        if said is None:
            return False
        return compare(said, given, ask) if is_gold else compare(gold, said, ask)
    given = renamed(gold, given)
    if gold.label and given.label and gold.relations[0] in ("=", "~", "in") and given.relations[0] in ("=", "~", "in"):
        wanted, found = stated(gold, True), stated(given, False)
        if wanted is not None and found is not None and _equal_or_none(gold.items[0], given.items[0]):
            return compare(wanted, found, ask)
    same = same_relation(gold, given, lambda a, b: compare(a, b, ask))
    if same is None:
        raise Undecided("two relations of which neither equal nor different was shown")
    return same


_COMPARED = {
    Expression: _compare_expressions,
    Bracket: _compare_brackets,
    Ratio: _compare_ratios,
    Combined: _compare_combined,
    Builder: _compare_builders,
    Matrix: _compare_matrices,
}
