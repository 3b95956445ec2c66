"""Preference pairs of other people's sets: the turns before two answers, the answer that was preferred, and the other one.

Layouts: {prompt | question | conversations, chosen, rejected} as text or as chats, and whole dialogues under chosen and
rejected, as chats or as text ("\\n\\nHuman: … \\n\\nAssistant: …", Anthropic's HH). A dialogue may have several turns before
the answers; both sides must begin with the same ones.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from whetstone.problems.chats import ASSISTANTS, USERS, completion_of, one_system, refuse_more, system_beside, turns_of
from whetstone.problems.files import find_files
from whetstone.problems.table import read_tables
from whetstone.problems.values import has_value, plain_text_of
from whetstone.records import Message

SPEAKER = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


class Preference(NamedTuple):
    messages: tuple[Message, ...]  # a system message if there is one, then turns that end with the user's
    chosen: str
    rejected: str

    @property
    def question(self) -> tuple[str, str]:
        """(system message or "", question) of a pair of one turn. Raises ValueError for one with more."""
        system = "".join(message.content for message in self.messages if message.role == "system")
        asked = [message.content for message in self.messages if message.role != "system"]
        if len(asked) != 1:
            raise ValueError(f"several turns: {len(asked)} stand before the answers, and a problem is one question")
        return system, asked[0]


def read_preferences(path: str, title: str) -> Iterator[tuple[str, Preference | ValueError]]:
    """(identity of the row, its pair or why it gives none), of a file, a folder of parts or a pattern.

    Raises FileNotFoundError.
    """
    for file, line, row in read_tables(find_files(path)):
        identity = f"{title}/{file}/{line}" if file else f"{title}/{line}"
        try:
            if not isinstance(row, dict):
                raise ValueError(f"broken row: {row}")
            yield identity, preference(row)
        except ValueError as error:
            yield identity, error


def preference(row: Mapping[str, Any]) -> Preference:
    """The pair of a row in one of the usual layouts. Raises ValueError("reason: detail")."""
    if "chosen" not in row or "rejected" not in row:
        raise ValueError(f"not a pair: it has {', '.join(map(repr, row))} and lacks chosen or rejected")
    refuse_more(row, "the row", "<think>")  # notes on the preference are no part of it
    (before, chosen), (other, rejected) = (_side(row, name) for name in ("chosen", "rejected"))
    if before != other:
        raise ValueError("not one question: chosen and rejected answer different ones")
    if not before or before[-1].role != "user" or not before[-1].content.strip():
        raise ValueError("no question: no user's turn stands before the answers")
    if chosen == rejected:
        raise ValueError("both sides are equal")
    return Preference(before, chosen, rejected)


def _side(row: Mapping[str, Any], name: str) -> tuple[tuple[Message, ...], str]:
    """(the turns before an answer, the answer)."""
    columns = [key for key in ("prompt", "question", "conversations") if has_value(row, key)]
    column = columns[0] if columns else None
    if any(_dialogue(row[other], other) != _dialogue(row[column], column) for other in columns[1:]):
        raise ValueError(f"not one question: the row holds different ones in {' and '.join(columns)}")
    value = row[name]
    if isinstance(value, dict):
        value = [value if value.get("role") or value.get("from") else value | {"role": "assistant"}]
    if not isinstance(value, str | list):
        raise ValueError(f"not text: {name!r} holds {type(value).__name__}")
    system = system_beside(row)
    before = _with_system(_dialogue(row[column], column) if column else (), system)
    if column and (isinstance(value, str) or len(value) < 2):
        return before, completion_of(value, repr(name))
    *turns, answer = _dialogue(value, name)
    if answer.role != "assistant":
        raise ValueError(f"not an answer: {name!r} ends with a turn of {answer.role}")
    whole = _with_system(tuple(turns), system)
    if column and whole != before:
        raise ValueError(f"not one question: {name!r} answers another one than the row's")
    return whole, answer.content


def _with_system(turns: tuple[Message, ...], system: str) -> tuple[Message, ...]:
    """Turns whose only system message, if there is one, comes first."""
    own = [turn.content for turn in turns if turn.role == "system"]
    said = one_system(*own, system)
    return (*([Message("system", said)] if said else ()), *(turn for turn in turns if turn.role != "system"))


def _dialogue(value: Any, name: str) -> tuple[Message, ...]:
    """The turns of a chat or of a text. A text without speakers is a user's turn."""
    if isinstance(value, list):
        system, said = turns_of(value, repr(name))
        turns = [Message(_role(role), text) for role, text in said]
        return (*([Message("system", system)] if system else ()), *turns)
    text = plain_text_of(value, repr(name))
    _, *parts = SPEAKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if not parts:
        return (Message("user", text),)
    return tuple(Message(ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))


def _role(role: str) -> str:
    for name, roles in (("user", USERS), ("assistant", ASSISTANTS)):
        if role in roles:
            return name
    raise ValueError(f"not a turn of user or assistant: a turn of {role or 'nobody'}")
