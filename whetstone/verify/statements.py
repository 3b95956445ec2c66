"""Answers with words in them: "n is odd", "increasing on (0, 1)", "The mode is 1/3", "42 (exact)"."""

from collections.abc import Callable

from whetstone.verify.answers.forms import Chain, Expression, Statement, Value
from whetstone.verify.answers.terms import names
from whetstone.verify.answers.units import SILENT, stem
from whetstone.verify.stated import ASKING

Compare = Callable[[Value, Value], bool]

LEADING = frozenset(("is", "are", "was", "were", "equals", "equal", "be", "=", ":"))
FILLING_TEXT = "the a an is are be that which there that's it must has have exactly"
FILLING = frozenset(FILLING_TEXT.split())
DENYING_TEXT = """
not no never neither nor cannot isn't don't isn aren at about approximately less more between without wrong incorrect false
unlikely impossible mistaken invalid improbable unknown doubtful untrue thought
believed supposed
"""
DENYING = frozenset(DENYING_TEXT.split())
CALLED_ANSWER = frozenset(
    ("answer", "result", "value", "total", "solution", "number", "final", "correct", "of", "so", "thus")
)
QUANTIFIERS = frozenset(("for", "where", "with"))
QUANTIFIED_TEXT = "any all every some arbitrary each constant constants real integer integers number numbers and"
QUANTIFIED = frozenset(QUANTIFIED_TEXT.split())


def same_statement(gold: Value, given: Value, compare: Compare) -> bool:
    """Two answers of which at least one has words in it."""
    if (wanted := _subject(gold)) and (found := _subject(given)) and not wanted & found:
        return False  # the mean is not the mode
    for first, second in ((gold, given), (gold, _said(given)), (_said(gold), given), (_said(gold), _said(given))):
        if isinstance(first, Statement) and isinstance(second, Statement):
            if _same_parts(_plain(first), _plain(second), compare):
                return True
        elif first is not None and second is not None and not isinstance(first, Statement | str):
            if not isinstance(second, Statement) and compare(first, second):
                return True
        elif isinstance(first, Expression) or isinstance(second, Expression):
            word, letter = (first, second) if isinstance(first, Statement) else (second, first)
            if word is not None and letter is not None and _plain(word) == [letter.text]:
                return True
    return False


def _plain(value: Statement) -> list["str | Value"]:
    """Its words without case, endings of the plural and filling; a letter is a word."""
    found: list[str | Value] = []
    for part in value.parts[1:] if value.parts[0] == "a" and len(value.parts) > 1 else value.parts:
        if isinstance(part, Expression) and part.term[0] == "s":
            found.append(part.text)
        elif not isinstance(part, str) or (len(part) == 1 and part.isalpha()):
            found.append(part)
        elif part.casefold() not in FILLING and part not in ("(", ")", "{", "}", ".", ","):
            found.append(stem(part.casefold()))
    return found


def _same_parts(golds: list["str | Value"], givens: list["str | Value"], compare: Compare) -> bool:
    if not golds or len(golds) != len(givens):
        return False
    if (
        len(golds) == 2
        and golds == givens[::-1]
        and isinstance(golds[0], str)
        and {len(part) == 1 for part in golds} == {True, False}
    ):
        return True  # odd n, n odd
    for first, second in zip(golds, givens, strict=True):
        if isinstance(first, str) or isinstance(second, str):
            if first != second:
                return False
        elif not compare(first, second):
            return False
    return True


def _subject(value: Value) -> set[str]:
    """What a statement gives the value of: area, of `The area is 12`; nothing where it only calls it the answer."""
    if not isinstance(value, Statement):
        return set()
    leads = [k for k, part in enumerate(value.parts) if isinstance(part, str) and part.casefold() in LEADING]
    words = [part for part in value.parts[: leads[0]] if isinstance(part, str)] if leads else []
    return {stem(word.casefold()) for word in words if word.isalpha()} - FILLING - SILENT - CALLED_ANSWER


def _said(value: Value) -> Value | None:
    """The one value that a statement gives: "The mode is 1/3", "42 (exact)", "f(x) = cx for any constant c"."""
    if not isinstance(value, Statement):
        return value
    parts = [part for part in value.parts if not (isinstance(part, str) and part in "(){}")]
    values = [k for k, part in enumerate(parts) if not isinstance(part, str)]
    if not values:
        return None
    if (isinstance(parts[0], str) and parts[0] in QUANTIFIERS) or any(
        isinstance(part, str) and (part.casefold() in DENYING or ASKING.fullmatch(part)) for part in parts
    ):
        return None
    after = parts[values[0] + 1 :]
    if values[0] == 0:
        return parts[0] if adds_nothing(after) else None
    last = parts[-1]
    lead = parts[-2] if len(parts) > 1 else None
    if isinstance(last, str) or not isinstance(lead, str):
        return None
    leading = lead.casefold() in LEADING or all(
        isinstance(p, str) and p.casefold() in SILENT | FILLING for p in parts[:-1]
    )
    symbols_only = all(isinstance(parts[k], Expression) and names(parts[k].term) for k in values[:-1])
    return last if leading and symbols_only else None


def adds_nothing(parts: list["str | Value"]) -> bool:
    """Is it a remark, "(exact)", or a quantifier of what is named, "for any constant c"?"""
    words = [part.casefold() for part in parts if isinstance(part, str)]
    if all(isinstance(part, str) for part in parts) and {*words} <= SILENT:
        return True
    if not words or words[0] not in QUANTIFIERS or not {*words[1:]} <= QUANTIFIED | FILLING:
        return False
    return all(
        isinstance(part, str | Expression) or (isinstance(part, Chain) and {*part.relations} == {"in"})
        for part in parts
    )
