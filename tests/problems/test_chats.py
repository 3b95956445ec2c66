"""Chats of other people's sets: read whole, or refused with the reason."""

import json
from typing import Any

import pytest

from whetstone.evaluate.problem_sets import read_problems
from whetstone.problems.chats import completion_of, conversation
from whetstone.problems.columns import Columns, read_mapping
from whetstone.problems.reading import Drop, Shipped, read_problem
from whetstone.problems.sets import known_sets
from whetstone.problems.table import require_columns

USER, ASSISTANT = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "It is \\boxed{2}."}
SYSTEM = {"role": "system", "content": "Be brief."}


FROM_HUMAN, FROM_GPT = {"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "It is \\boxed{2}."}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ([USER, ASSISTANT], ("", "1 + 1?", "It is \\boxed{2}.")),
        ([SYSTEM, USER, ASSISTANT], ("Be brief.", "1 + 1?", "It is \\boxed{2}.")),
        (
            [{"role": "developer", "content": "Be brief."}, USER, ASSISTANT],
            ("Be brief.", "1 + 1?", "It is \\boxed{2}."),
        ),
        ([SYSTEM | {"content": ""}, USER, ASSISTANT], ("", "1 + 1?", "It is \\boxed{2}.")),
        ([{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}], ("", "1 + 1?", "2")),
        ([USER | {"content": parts("1 +", " 1?")}, ASSISTANT | {"content": parts("2")}], ("", "1 + 1?", "2")),
        ([USER, ASSISTANT | {"content": "2", "reasoning_content": "hm"}], ("", "1 + 1?", "<think>\nhm\n</think>\n\n2")),
        ([USER, ASSISTANT | {"content": "2", "thinking": "hm"}], ("", "1 + 1?", "<think>\nhm\n</think>\n\n2")),
        (
            [USER, {"role": "assistant", "content": None, "reasoning": "hm"}],
            ("", "1 + 1?", "<think>\nhm\n</think>\n\n"),
        ),
        (
            [USER, ASSISTANT | {"content": "<think>hm</think>2", "reasoning_content": "hm"}],
            ("", "1 + 1?", "<think>hm</think>2"),
        ),
        ([{"role": "User", "content": "1 + 1?"}, {"role": "ASSISTANT", "content": "2"}], ("", "1 + 1?", "2")),
        ([{"from": "Human", "value": "1 + 1?"}, {"from": "chatgpt", "value": "2"}], ("", "1 + 1?", "2")),
        ([USER, {"from": "bing", "value": "2", "tools": "[]", "trainable": True, "loss_mask": 1}], ("", "1 + 1?", "2")),
        ([USER, ASSISTANT | {"content": "2", "mask": False, "masked": "0", "weight": "1.0"}], ("", "1 + 1?", "2")),
        ([USER, ASSISTANT | {"content": 0, "tool_calls": None}], ("", "1 + 1?", "0")),
        (
            [USER | {"weight": 0}, ASSISTANT | {"content": "2", "weight": 1, "images": [], "reasoning_effort": "high"}],
            ("", "1 + 1?", "2"),
        ),
        (
            [USER, ASSISTANT | {"content": "2", "reasoning": "hm", "reasoning_details": [{"text": "hm"}]}],
            ("", "1 + 1?", "<think>\nhm\n</think>\n\n2"),
        ),
    ],
)
def test_a_chat_of_one_question_and_its_answer_is_read_whole(chat: list[Any], said: tuple[str, str, str]):
    assert conversation(chat) == said


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([USER, ASSISTANT, USER, ASSISTANT], r"several turns: user, assistant, user, assistant"),
        ([USER], r"not one question and its answer: the turns are of user"),
        ([], r"not one question and its answer: the turns are of nobody"),
        ([ASSISTANT, USER], r"not one question and its answer"),
        ([USER, SYSTEM], r"not one question and its answer"),
        ([USER, {"role": "tool", "content": "2"}], r"not one question and its answer"),
        ([USER, ASSISTANT | {"tool_calls": [{"id": 1}]}], r"tool calls: a turn holds tool_calls"),
        ([USER | {"content": [{"type": "image", "url": "x"}]}, ASSISTANT], r"a part that is not text"),
        ([USER | {"content": {"a": 1}}, ASSISTANT], r"not text: a turn holds an object"),
        ([USER, ASSISTANT | {"content": "<think>a</think>2", "reasoning_content": "b"}], r"thoughts twice"),
        ([USER | {"images": ["a.png"]}, ASSISTANT], r"a part that is not text: a turn holds images"),
        ([USER, ASSISTANT | {"audio": {"id": "x"}}], r"a part that is not text: a turn holds audio"),
        ([USER, ASSISTANT | {"thought": "hm"}], r"thoughts by another name: a turn holds thought,"),
        ([USER, ASSISTANT | {"reasoning_details": [{"text": "hm"}]}], r"thoughts by another name"),
        ([USER, ASSISTANT | {"loss_mask": 0}], r"not to be taught: a turn holds loss_mask = 0"),
        ([USER, ASSISTANT | {"trainable": False}], r"not to be taught: a turn holds trainable = False"),
        ([USER, ASSISTANT | {"mask": True}], r"not to be taught: a turn holds mask = True"),
        ([USER, ASSISTANT | {"masked": 1}], r"not to be taught: a turn holds masked = 1"),
        ([USER, ASSISTANT | {"weight": "0"}], r"not to be taught: a turn holds weight = 0"),
        ([USER, ASSISTANT | {"train": "False"}], r"not to be taught: a turn holds train = False"),
        ([USER, ASSISTANT | {"train_detail": [{"begin_offset": 0, "train": False}]}], r"not to be taught"),
        ([USER, ASSISTANT | {"weight": 0}], r"not to be taught: a turn holds weight = 0"),
        ([USER, ASSISTANT | {"train": False}], r"not to be taught: a turn holds train = False"),
        ("1 + 1?", r"not a chat"),
        (["1 + 1?"], r"not a chat: .*holds a list with a text in it"),
        ('[{"role": "user", "content": "1?"}]', r"not a chat: .* holds an object written as text\. Save the table"),
        (
            {"role": ["user"], "content": ["1?"]},
            r"not a chat: .* holds one object \('role', 'content'\): write one object for",
        ),
        (
            [USER, {"role": "oracle", "content": "2"}],
            r"unknown role: .*'oracle', and known are user, human, assistant, gpt",
        ),
        (None, r"not a chat"),
    ],
)
def test_a_chat_that_would_lose_something_is_refused(chat: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        conversation(chat)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("\\boxed{5}", "\\boxed{5}"),
        ('{"answer": 5}', '{"answer": 5}'),
        ([ASSISTANT], "It is \\boxed{2}."),
        (["\\boxed{5}"], "\\boxed{5}"),
        ([1, 2], "1, 2"),
        (["a", "b"], "a, b"),
        (0, "0"),
    ],
)
def test_a_prediction_is_a_text_a_turn_or_a_bare_list(value: Any, said: str):
    assert completion_of(value, "'pred'") == said


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["\\boxed{5}", "\\boxed{6}"], r"several completions: 'pred' holds a list of 2.*'pred\.0'"),
        ([USER, ASSISTANT], r"several turns: 'pred' holds a chat of 2 turns \(user, assistant\).*'pred\.1\.content'"),
        ([USER], "not one completion"),
        ([["5"]], "not text: 'pred' holds a list"),
        (True, "not text: 'pred' holds true or false"),
    ],
)
def test_a_prediction_that_is_not_one_is_refused(value: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        completion_of(value, "'pred'")


def read(row: dict[str, Any], **columns: Any) -> Any:
    return read_problem(row, 1, Columns(**columns).layout(), "set")


def test_a_system_message_stands_in_the_chat_or_beside_it_but_not_in_both():
    chat = {"question": [SYSTEM, USER], "answer": 2}
    assert read(chat).system == "Be brief."
    assert read({"question": "1?", "answer": 1, "s": "Be brief."}, system="s").system == "Be brief."
    assert read(chat | {"s": "Be brief."}, system="s").system == "Be brief."
    assert read(chat | {"s": "Be long."}, system="s").reason == "two system messages"


def test_a_dotted_name_takes_one_turn_of_many():
    chat = [USER, ASSISTANT, {"role": "user", "content": "And 2 + 2?"}]
    assert "as in 'prompt.2.content'" in read({"prompt": chat, "answer": 4}, question="prompt").detail
    assert read({"prompt": chat, "answer": 4}, question="prompt.2.content").question == "And 2 + 2?"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [SYSTEM, USER, ASSISTANT], "answer": "2"}, ("Be brief.", "1 + 1?", "2")),
        ({"conversations": [USER, ASSISTANT], "system": "Be brief."}, ("Be brief.", "1 + 1?", "")),
        ({"prompt": "1 + 1?", "completion": "It is \\boxed{2}."}, ("", "1 + 1?", "")),
        ({"prompt": [SYSTEM, USER], "completion": [ASSISTANT], "answer": [2]}, ("Be brief.", "1 + 1?", "2")),
        ({"messages": [USER, ASSISTANT], "tools": [{"name": "python"}]}, "tool calls"),
        ({"messages": [USER, ASSISTANT], "images": ["a.png"]}, "a part that is not text"),
        ({"prompt": "1 + 1?", "completion": "It is \\boxed{2}.", "reasoning": "hm"}, "thoughts by another name"),
        ({"messages": [USER, ASSISTANT], "system_prompt": "Be brief."}, ("Be brief.", "1 + 1?", "")),
        ({"messages": [USER, ASSISTANT], "conversations": [FROM_HUMAN, FROM_GPT]}, ("", "1 + 1?", "")),
        ({"messages": [USER, ASSISTANT], "conversations": None, "answer": float("nan")}, ("", "1 + 1?", "")),
        ({"messages": [USER, ASSISTANT], "prompt": "1 + 1?", "tools": "[]"}, ("", "1 + 1?", "")),
        ({"messages": [USER, ASSISTANT], "conversations": [FROM_HUMAN, FROM_GPT | {"value": "3"}]}, "two chats"),
        ({"messages": [USER, ASSISTANT], "prompt": "1 + 1?", "completion": "3"}, "two chats"),
        ({"messages": [USER, ASSISTANT], "prompt": "2 + 2?"}, "two chats"),
        ({"messages": [SYSTEM, USER, ASSISTANT], "system_prompt": "Be long."}, "two system messages"),
        ({"messages": [USER, ASSISTANT], "trainable": False}, "not to be taught"),
        ({"messages": [USER, {"role": "assistant", "content": None, "reasoning": "hm"}]}, "empty completion"),
        ({"messages": [USER, ASSISTANT], "images": [], "source": "x"}, ("", "1 + 1?", "")),
        ({"prompt": "1 + 1?", "response": "It is \\boxed{2}."}, "not a chat"),
        ({"messages": [SYSTEM, USER, ASSISTANT], "system": "Be long."}, "two system messages"),
        ({"messages": [USER, ASSISTANT] * 2}, "several turns"),
    ],
)
def test_a_set_of_chats_is_read_in_the_usual_layouts(row: dict[str, Any], said: Any):
    item = read_problem(row, 1, known_sets()["chat"], "set")
    if isinstance(item, Drop):
        assert item.reason == said
    else:
        assert isinstance(item, Shipped) and item.traces == ("It is \\boxed{2}.",)
        assert (item.problem.system, item.problem.question, item.problem.answer) == said


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("dapo_math", {"prompt": [USER, ASSISTANT, USER], "reward_model": {"ground_truth": "2"}}),
        ("gpqa_diamond", {"prompt": [USER, ASSISTANT], "final_answer": "A"}),
    ],
)
def test_published_prompts_of_several_turns_are_refused_whole(name: str, row: dict[str, Any]):
    assert read_problem(row, 1, known_sets()[name], "set").reason == "several turns"


THOUGHT, SOLUTION = "<|begin_of_thought|>T<|end_of_thought|>", "<|begin_of_solution|>\\boxed{2}<|end_of_solution|>"


@pytest.mark.parametrize("said", [THOUGHT + SOLUTION, f"\n{THOUGHT}\n\n{SOLUTION}\n", THOUGHT + "\n\n\\boxed{2}"])
def test_marked_thoughts_are_read_whole(said):
    for item in (
        read_problem({"messages": [USER, ASSISTANT | {"content": said}]}, 1, known_sets()["chat"], "set"),
        read({"question": "1 + 1?", "answer": 2, "steps": said}, solution="steps"),
    ):
        assert item.traces == ("<think>\nT\n</think>\n\n\\boxed{2}",)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (f"intro {THOUGHT}{SOLUTION}", "broken thoughts"),
        (f"{THOUGHT}{SOLUTION} outro", "broken thoughts"),
        (f"{THOUGHT} between {SOLUTION}", "broken thoughts"),
        (f"{THOUGHT}{THOUGHT}{SOLUTION}", "broken thoughts"),
        ("<|begin_of_thought|>T", "broken thoughts"),
        (SOLUTION, "broken thoughts"),
        (THOUGHT, "empty completion"),
        (f"{THOUGHT}<|begin_of_solution|> <|end_of_solution|>", "empty completion"),
    ],
)
def test_marked_thoughts_that_are_not_the_whole_answer_are_dropped(said, reason):
    item = read_problem({"messages": [USER, ASSISTANT | {"content": said}]}, 1, known_sets()["chat"], "set")
    assert isinstance(item, Drop) and item.reason == reason
    item = read({"question": "1 + 1?", "answer": 2, "steps": said}, solution="steps")
    assert isinstance(item, Drop) and item.reason == reason and "'steps'" in item.detail


def test_a_dotted_name_into_an_object_that_is_written_as_text_is_told_so():
    row = {"question": "1?", "reward_model": '{"ground_truth": "2"}'}
    assert (
        "'reward_model' holds an object written as text. Save" in read(row, answer="reward_model.ground_truth").detail
    )
    with pytest.raises(ValueError, match=r"'reward_model' holds an object written as text\. Save the table"):
        require_columns("a.csv", [row], ["reward_model.ground_truth"], "Name it.")


def test_an_unknown_policy_of_a_row_is_a_drop_with_the_likely_one():
    item = read({"question": "1?", "answer": 1, "policy": "intger"}, policy="policy")
    assert (item.reason, item.detail) == ("unknown policy", "intger: did you mean 'integer'?")


@pytest.mark.parametrize(
    ("level", "read_as"),
    [
        ("Level 3", 3),
        (3.0, 3),
        ("Level 3.0", 3),
        (None, None),
        (float("nan"), None),
        ("9" * 30, None),
        ("hard", None),
        (-1, None),
        ("-1.0", None),
    ],
)
def test_a_level_is_a_small_number_or_none(level: Any, read_as: int | None):
    assert read({"question": "1?", "answer": 1, "level": level}, level="level").level == read_as


@pytest.mark.parametrize("level", [3.5, "Level 3.5", "3.25", "Levels 3 to 4", "2.3.1"])
def test_a_level_that_is_not_one_whole_number_costs_its_row(level):
    item = read({"question": "1?", "answer": 1, "hard": level}, level="hard")
    assert isinstance(item, Drop) and (item.reason, item.detail[:12]) == ("no level", "'hard' holds")


def test_a_column_level_that_nobody_named_and_that_holds_none_is_left_aside(tmp_path):
    for level, read_as in ((3.5, None), (3.0, 3)):
        rows = [{"question": "1?", "answer": 1, "level": level}, {"question": "2?", "answer": 2, "level": float("nan")}]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert [problem.level for problem in read_problems(str(tmp_path / "a.jsonl"))] == [read_as, None]


def test_columns_of_a_command_line_may_be_joined():
    assert read_mapping(["question=body", "question = ask", "answer=a.b"]) == {
        "question": ("body", "ask"),
        "answer": "a.b",
    }
    for wrong in (["question"], ["answer="], ["answer=a", "answer=b"]):
        with pytest.raises(ValueError, match="--column"):
            read_mapping(wrong)
