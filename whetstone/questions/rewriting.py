"""A text with other numbers."""

from collections.abc import Sequence

from whetstone.arithmetic.expression import Value, write_number
from whetstone.arithmetic.number_words import LARGEST_SPELLED, Mention, spell


def rewrite(text: str, new: Sequence[tuple[Mention, Value | str]]) -> str:
    """The text with other numbers, written the way the old ones were (digits, thousands, decimals, words)."""
    pieces, position = [], 0
    for mention, value in sorted(new, key=lambda pair: pair[0].start):
        old = text[mention.start : mention.end]
        pieces += (text[position : mention.start], value if isinstance(value, str) else _like(old, mention, value))
        position = mention.end
    return "".join(pieces) + text[position:]


def _like(old: str, mention: Mention, value: Value) -> str:
    if mention.spelled and isinstance(value, int) and value <= LARGEST_SPELLED:
        words = spell(value)
        return words[0].upper() + words[1:] if old[0].isupper() else words
    digits = write_number(value, mention.places)
    if "," not in old:
        return digits
    before, point, after = digits.partition(".")
    return f"{int(before):,}{point}{after}"
