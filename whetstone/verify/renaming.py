r"""Names that are of no account: of a function's argument, `f(t) = t + 22`, and of what runs through a set, `2k, k \in Z`."""

from collections.abc import Sequence

from whetstone.verify.answers.forms import Chain, Expression, Value
from whetstone.verify.answers.terms import Term, evaluate, names, replaced
from whetstone.verify.elementary import Elementary


def rebound(golds: Sequence[Value], givens: Sequence[Value]) -> Sequence[Value]:
    r"""`k\pi, k \in Z` with the n of `n\pi, n \in Z`: the name of what runs through a set is of no account."""
    wanted, found = _running(golds), _running(givens)
    if wanted is None or found is None or wanted == found:
        return givens
    golds_names, givens_names = _all_names(golds[:-1]), _all_names(givens[:-1])
    if golds_names is None or givens_names is None or wanted[1] in givens_names or found[1] in golds_names:
        return givens
    ranging = givens[-1]._replace(items=(golds[-1].items[0], *givens[-1].items[1:]))
    return *(_with_name(item, found, wanted) for item in givens[:-1]), ranging


def _all_names(values: Sequence[Value]) -> set[str] | None:
    """The symbols of formulas and of equations between them; None where there is something else."""
    items = [side for value in values for side in (value.items if isinstance(value, Chain) else (value,))]
    formulas = all(isinstance(item, Expression) for item in items)
    return set().union(*(names(item.term) for item in items)) if formulas else None


def _with_name(value: Value, old: Term, new: Term) -> Value:
    if isinstance(value, Chain):
        return value._replace(items=tuple(_with_name(item, old, new) for item in value.items))
    term = replaced(value.term, old, new)
    return value._replace(term=term, value=evaluate(term, Elementary()))


def _running(values: Sequence[Value]) -> Term | None:
    """The symbol k of `…, k \\in Z`."""
    last = values[-1] if len(values) > 1 else None
    named = isinstance(last, Chain) and last.relations == ("in",) and isinstance(last.items[0], Expression)
    return last.items[0].term if named and last.items[0].term[0] == "s" else None


def renamed(gold: Chain, given: Chain) -> Chain:
    """`f(t) = t + 22` and `y = x + 22` with the left side of `f(x) = x + 22`."""
    if (
        gold.relations != ("=",)
        or given.relations != ("=",)
        or not all(isinstance(i, Expression) for i in (*gold.items, *given.items))
    ):
        return given
    (wanted, _), (name, said) = gold.items, given.items
    called = [item.term[0] == "f" and len(item.term) == 3 and item.term[2][0] == "s" for item in (wanted, name)]
    if all(called) and wanted.term[1] == name.term[1] and wanted.term[2] != name.term[2]:
        if wanted.term[2][1] in names(said.term):
            return given
        term = replaced(said.term, name.term[2], wanted.term[2])
        return given._replace(items=(wanted, Expression(term, evaluate(term, Elementary()), said.text)))
    plain = [item.term == ("s", "y") for item in (wanted, name)]
    if (called[0] and plain[1]) or (called[1] and plain[0]):
        return given._replace(items=(wanted, said))
    return given
