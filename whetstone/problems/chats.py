"""Chats of other people's sets, in either notation: [{role, content}] or [{from, value}].

A chat is read whole or refused: no turn, thought or part of one is left out. What is read is a system message, if there is one,
a question and an answer.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from whetstone.problems.row import excerpt, listed
from whetstone.problems.values import in_words, joined, optional, plain_text_of, text_of
from whetstone.problems.written import MISSING, as_text, kind_written

USERS, SYSTEM = ("user", "human"), ("system", "developer")
ASSISTANTS = ("assistant", "gpt", "model", "chatgpt", "bing", "bard")
OTHERS = ("tool", "function", "observation", "environment", "ipython")  # of tools, which no problem has
SYSTEMS = ("system", "system_prompt", "system_message")  # columns beside a chat
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
Turn: TypeAlias = tuple[str, str]  # role, text
WORKED = re.compile(r"\\boxed|\n|<think>|.{100}")  # in a completion, not in a bare answer
# of a turn, or of a row beside its chat: what would be lost
TOOLS = re.compile(r"tools?|functions?|tool_calls?|function_calls?")
OTHER_PARTS = re.compile(r"(?:image|video|audio)s?(?:_url|_path)?s?|refusal")
OTHER_THOUGHTS = re.compile(r"(?:reasoning|think|thought|rationale)(?!\w*(?:effort|mode))|\Acot\Z|chain_of")
# training must leave this turn out, or a part of it
UNTAUGHT = {
    False: re.compile(
        r"(?:loss_)?weight|train(?:ing|able|ed)?|is_train\w*|train_on_(?:turn|this|outputs?|responses?)|learn(?:able)?|loss(?:_mask)?|compute_loss"
    ),
    True: re.compile(r"(?:is_)?mask(?:ed)?|(?:is_)?ignored?|no_(?:loss|train)|train(?:ing)?_detail"),
}
SWITCHES = {"0": False, "0.0": False, "false": False, "no": False, "off": False}  # as text; any other is true


def conversation(messages: Any, name: str = "a column") -> tuple[str, str, str]:
    """(system message or "", question, answer) of a chat of one turn each. Raises ValueError for a chat that holds more."""
    system, said = turns_of(messages, name)
    if len(said) > 2:
        raise ValueError(f"several turns: {_roles(said)}, and a problem is one question and its answer")
    if [_side(role) for role, _ in said] != [USERS, ASSISTANTS]:
        raise ValueError(f"not one question and its answer: the turns are of {_roles(said)}")
    return system, said[0][1], said[1][1]


def asked(value: Any, name: str = "a column") -> tuple[str, str]:
    """(system message or "", question) of a text, or of a chat with one user's turn. Raises ValueError."""
    if not isinstance(value, list):
        return "", plain_text_of(value, name)
    system, said = turns_of(value, name)
    return system, _only(said, USERS, value, "not one question", name, "a problem is what one user asks")


def completion_of(value: Any, name: str = "a column") -> str:
    """The text of a completion: plain, a chat of one turn, or a list of the parts of a bare answer. Raises ValueError."""
    if not isinstance(value, list):
        return text_of(value, name)
    if all(isinstance(turn, dict) for turn in value):
        system, said = turns_of(value, name)
        said = [("system", system), *said] if system else said
        return _only(said, ASSISTANTS, value, "not one completion", name, "what is wanted is one answer of a model")
    if len(value) > 1 and any(isinstance(item, str) and WORKED.search(item) for item in value):
        inside = f"'{name.strip(chr(39))}.0'"
        raise ValueError(
            f"several completions: {name} holds a list of {len(value)}. A dotted name takes one, as in {inside}"
        )
    return joined(value, name)


def one_system(*messages: str) -> str:
    """The only system message of a row; "" for none. Raises ValueError for two."""
    found = list(dict.fromkeys(filter(None, messages)))
    if len(found) > 1:
        raise ValueError("two system messages: one is in the chat, another beside it")
    return found[0] if found else ""


def system_beside(row: Mapping[str, Any], *in_chat: str) -> str:
    """The system message of a row: in its chat, or in a column of its own. Raises ValueError for two."""
    return one_system(*in_chat, *(optional(row, name) for name in SYSTEMS))


def _only(said: Sequence[Turn], side: tuple[str, ...], chat: list[Any], reason: str, name: str, why: str) -> str:
    if [_side(role) for role, _ in said] != [side]:
        reason = "several turns" if len(said) > 1 else reason
        inside = f"'{name.strip(chr(39))}.{max(len(chat) - 1, 0)}.content'"
        raise ValueError(
            f"{reason}: {name} holds a chat of {len(chat)} turns ({_roles(said)}), and {why}. A dotted name takes one turn, "
            f"as in {inside}"
        )
    return said[0][1]


def turns_of(messages: Any, name: str = "a column") -> tuple[str, list[Turn]]:
    """The system message before all others, "" for none, and (role, text) of the other turns. Raises ValueError."""
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        wanted = "a list of turns, each with role and content or from and value, is wanted"
        raise ValueError(f"not a chat: {wanted}, and {name} holds {_other_chat(messages)}")
    roles = [text_of(turn.get("role") or turn.get("from"), "a turn's role").lower() for turn in messages]
    unknown = next((role for role in roles if role and role not in (*USERS, *ASSISTANTS, *SYSTEM, *OTHERS)), None)
    if unknown:
        known = ", ".join((*USERS, *ASSISTANTS, *SYSTEM))
        raise ValueError(f"unknown role: {name} holds a turn of {excerpt(unknown)!r}, and known are {known}")
    said = [(role, _turn_text(turn, role)) for role, turn in zip(roles, messages, strict=True)]
    if said and said[0][0] in SYSTEM:
        return said[0][1], said[1:]
    return "", said


def _other_chat(value: Any) -> str:
    if isinstance(value, str) and (kind := kind_written(value.strip())):
        return as_text(kind)
    if isinstance(value, dict):
        return f"one object ({listed(value)}): write one object for each turn"
    if isinstance(value, list):
        return f"a list with {in_words(next(turn for turn in value if not isinstance(turn, dict)))} in it"
    return in_words(value)


def _side(role: str) -> tuple[str, ...]:
    return next((roles for roles in (USERS, ASSISTANTS) if role in roles), ())


def _roles(said: Sequence[Turn]) -> str:
    return ", ".join(role or "nobody" for role, _ in said) or "nobody"


def _turn_text(turn: Mapping[str, Any], role: str) -> str:
    """The text of a turn; its thoughts come first, between <think> and </think>. Raises ValueError if it holds more."""
    content = _content(turn["content"] if turn.get("content") is not None else turn.get("value"))
    thoughts = next(filter(None, (text_of(turn.get(key), "a turn") for key in THOUGHTS)), "")
    refuse_more(turn, "a turn", f"<think>{thoughts}" if thoughts else content)
    if _side(role) == ASSISTANTS:
        refuse_untaught(turn, "a turn")
    if thoughts and re.search("</?think>", content):
        if thoughts not in content:
            raise ValueError("thoughts twice: a turn holds <think> and, beside it, other thoughts")
        return content
    return f"<think>\n{thoughts}\n</think>\n\n{content}" if thoughts else content


def refuse_more(fields: Mapping[str, Any], name: str, said: str = "") -> None:
    """Raises ValueError if a turn, or a row beside its chat, holds tool calls, images, or thoughts that are not `said`."""
    for key in (
        key for key, value in fields.items() if isinstance(value, str | list | dict) and _holds_something(value)
    ):
        if TOOLS.fullmatch(key):
            raise ValueError(f"tool calls: {name} holds {key}")
        if OTHER_PARTS.fullmatch(key):
            raise ValueError(f"a part that is not text: {name} holds {key}")
        if "<think>" not in said and OTHER_THOUGHTS.search(key):
            raise ValueError(f"thoughts by another name: {name} holds {key}, and a turn has them as {THOUGHTS[0]}")


def _holds_something(value: Any) -> bool:
    return value.strip() not in ("", "{}", *MISSING) if isinstance(value, str) else bool(value)


def refuse_untaught(fields: Mapping[str, Any], name: str) -> None:
    """Raises ValueError if an assistant's turn, or a row beside its chat, says that it is not to be taught."""
    for key, value in fields.items():
        if value is None or value == "":
            continue
        on = SWITCHES.get(value.strip().lower(), True) if isinstance(value, str) else bool(value)
        if UNTAUGHT[on].fullmatch(key):
            raise ValueError(f"not to be taught: {name} holds {key} = {excerpt(str(value))}")


def _content(content: Any) -> str:
    """Text, or parts that are all text, joined as chat templates join them."""
    if not isinstance(content, list):
        return text_of(content, "a turn")
    parts = [part.get("text", part.get("content")) if _is_text(part) else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("a part that is not text: a turn holds a list of parts that are not all text")
    return "".join(parts).strip()


def _is_text(part: Any) -> bool:
    """`datasets` fills a part's other fields with None."""
    return isinstance(part, dict) and part.get("type") == "text"
