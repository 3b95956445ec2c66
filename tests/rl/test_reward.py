"""Rewards: built in, the user's own, several with weights."""

import pytest

from tests.scripted import problem, rollout
from whetstone.records import Rollout
from whetstone.rl.loop import reads
from whetstone.rl.reward import build_reward, plus_minus_one
from whetstone.rl.settings import Settings


def written(text: str, **more) -> Rollout:
    return Rollout("p", 0, [1], [2, 3], [-1.0, -1.0], 1.0, more.pop("stop", "end"), text, **more)


def test_right_is_plus_one_wrong_minus_one_undecided_none():
    assert [plus_minus_one(problem(), rollout(correct=c)) for c in (True, False, None)] == [1.0, -1.0, None]
    assert [build_reward("zero_one")(problem(), rollout(correct=c)) for c in (True, False, None)] == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        ("<think>\n1+1\n</think>\nIt is \\boxed{2}.", 1.0),
        ("  <think>a</think>\\boxed{2}", 1.0),
        ("\\boxed{2}", 0.0),
        ("<think>\\boxed{2}</think> so it is", 0.0),
        ("<think>a</think>\\boxed{2}</think>", 0.0),
        ("<think>a<think>b</think>\\boxed{2}", 0.0),
        ("so <think>a</think>\\boxed{2}", 0.0),
        ("<think>a \\boxed{2}", 0.0),
    ],
)
def test_the_format_is_one_closed_thought_and_a_box_after_it(text, formed):
    reward = build_reward("format")
    assert reward(problem(), written(text)) == formed
    assert reward(problem(), written(text, stop="length")) == 0.0


MINE = """
def brevity(problem, completion):
    return 1 / len(completion)

def careful(problem, completion, rollout):
    return None if rollout.correct is None else len(rollout.ids) * rollout.correct

def broken(problem, completion):
    return float("nan")

def words(problem, completion):
    return completion

def lonely(completion):
    return 0
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "my_rewards.py"
    path.write_text(MINE)
    return str(path)


def test_a_function_of_the_users_own(mine):
    assert build_reward(f"{mine}:brevity")(problem(), written("abcd")) == 0.25
    careful = build_reward(f"{mine}:careful")
    assert careful(problem(), written("a", correct=True)) == 2.0 and careful(problem(), written("a")) is None


def test_several_are_added_with_their_weights_and_none_of_them_may_be_undecided(mine):
    reward = build_reward({"plus_minus_one": 2.0, f"{mine}:brevity": 0.5, "format": -1.0})
    text = "<think>a</think>\\boxed{2}"
    assert reward(problem(), written(text, correct=False)) == pytest.approx(-2 + 0.5 / len(text) - 1)
    assert reward(problem(), written(text, correct=None)) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", r"gave nan for rollout 0 of p: a reward is a finite number"),
        ("words", r"gave 'abc' for rollout 0 of p"),
        ("lonely", r"takes 1 argument: write it as function\(problem, completion\)"),
        ("nothing", r"has no 'nothing': it has brevity, careful, broken, words, lonely"),
    ],
)
def test_an_error_says_what_is_wrong_with_a_reward_function(mine, name, words):
    with pytest.raises(ValueError, match=words):
        build_reward(f"{mine}:{name}")(problem(), written("abc"))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file\. Relative paths start at"):
        build_reward(f"{tmp_path}/nowhere.py:f")


def test_a_recipe_that_names_no_reward_is_refused_when_it_is_read():
    for reward in ("plus_one", "file.txt:f", "file.py", {"plus_minus_one": 1.0, "nonsense": 2.0}):
        with pytest.raises(ValueError, match=r"is unknown: there are plus_minus_one, zero_one, format"):
            Settings(kind="rl", reward=reward)
    with pytest.raises(ValueError, match="nothing to learn from"):
        Settings(kind="rl", reward={})


def test_the_stage_depends_on_the_users_file(mine):
    settings = Settings(kind="rl", reward={f"{mine}:brevity": 1.0, f"{mine}:careful": 1.0, "format": 0.1})
    assert [str(path) for path in reads(settings)] == [mine]
    assert reads(Settings(kind="rl")) == []
