"""A right and a wrong trace of one problem, from the teacher: the paper's Rollout DPO data.

How the paper pairs is not published. Here: a trace serves in at most one pair, and of all the pairs there could be the
closest in length come first, so that the preference is about being right and not about being short.
"""

from collections.abc import Mapping
from typing import Any

from whetstone.records import Pair, Problem, Trace


def make_pairs(problem: Problem, right: list[Trace], wrong: list[Trace], limit: int, match_length: bool) -> list[Pair]:
    """At most `limit` pairs of this problem's traces; traces of another problem are refused."""
    strangers = {trace.problem_id for trace in (*right, *wrong)} - {problem.id}
    if strangers:
        raise ValueError(
            f"pairs of {problem.id} were asked of traces of {sorted(strangers)}: pairs never mix problems."
        )
    candidates = [(right_one, wrong_one) for right_one in right for wrong_one in wrong]
    if match_length:
        candidates.sort(key=lambda pair: abs(len(pair[0].text) - len(pair[1].text)))  # stable: ties by index
    pairs: list[Pair] = []
    used: set[int] = set()
    for chosen, rejected in candidates:
        if len(pairs) == limit:
            break
        if chosen.index in used or rejected.index in used:
            continue
        used |= {chosen.index, rejected.index}
        pairs.append(Pair(problem.id, problem.question, chosen.text, rejected.text, source="teacher"))
    return pairs


# --- ready pairs ---


def preference(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """(question, chosen, rejected) of a preference pair in one of the usual layouts. Raises ValueError.

    {prompt | question, chosen, rejected} as text or as chats, {conversations, chosen, rejected} (ShareGPT), and whole
    dialogues under chosen and rejected ("\\n\\nHuman: … Assistant: …").
    """
    if "chosen" not in row or "rejected" not in row:
        raise ValueError(f"not a pair: it has {', '.join(map(repr, row))} and lacks chosen or rejected")
    chosen, rejected = _reply(row["chosen"]), _reply(row["rejected"])
    asked = row.get("prompt") or row.get("question") or row.get("conversations")
    if asked is None and isinstance(row["chosen"], str):
        common, chosen, rejected = _dialogue(row["chosen"], row["rejected"])
        return common, chosen, rejected
    if asked is None and isinstance(row["chosen"], list):
        asked = row["chosen"][:-1]
    if isinstance(asked, list):
        said = [
            turn.get("content") or turn.get("value") for turn in asked if turn.get("role", turn.get("from")) != "system"
        ]
        if len(said) != 1:
            raise ValueError("not one question: a chat of several turns is no single problem")
        asked = said[0]
    return _text(asked), chosen, rejected


def _reply(said: Any) -> str:
    if isinstance(said, list):
        said = said[-1] if said else None
    return _text((said.get("content") or said.get("value")) if isinstance(said, dict) else said)


def _dialogue(chosen: str, rejected: str) -> tuple[str, str, str]:
    before, mark, answer = chosen.rpartition("\n\nAssistant:")
    other_before, _, other = rejected.rpartition("\n\nAssistant:")
    if not mark or before != other_before or before.count("\n\nHuman:") != 1:
        raise ValueError("not one question: a dialogue of several turns is no single problem")
    return before.partition("\n\nHuman:")[2].strip(), answer.strip(), other.strip()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not text: {type(value).__name__} where text should be")
    return value.strip()
