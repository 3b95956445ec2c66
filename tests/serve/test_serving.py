"""What `whetstone serve` refuses before it starts, and the parts that need no server."""

import random

import pytest

from tests.serve.served import served  # noqa: F401  (skips where the extra is not installed)
from whetstone.prompting import Prompting, Shot
from whetstone.records import Message
from whetstone.serve.offered import offered
from whetstone.serve.server import Serving, serve
from whetstone.serve.thoughts import Thoughts, apart
from whetstone.serve.work import as_trained

TEXTS = [
    "<think>\n2 + 3 = 5\n</think>\nThe answer <think>x</think> is 5.\n", " plain </think> x", "<think>cut  </thi", "<thi",
    " ", "", "<think></think>", "<think>\n a b \n\n </think>\n\n\n",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_thinking_and_answer_are_the_same_in_any_pieces(text):
    cuts = random.Random(0)
    for _ in range(50):
        thoughts, said, at = Thoughts(), ["", ""], 0
        while at <= len(text):
            size = cuts.randint(1, 5)
            part = thoughts.add(text[at : at + size], done=at + size > len(text))
            said, at = [said[0] + part.thinking, said[1] + part.answer], at + size
        assert tuple(said) == apart(text)


def test_a_client_asks_as_in_training_if_it_wants():
    trained = Prompting(system="Be brief.", before="Q: ", after="\nA:", examples=(Shot("1 + 1?", "2"),))
    said = (Message("system", "In French."), Message("user", "2?"), Message("assistant", "2"), Message("user", "3?"))
    assert [(turn.role, turn.content) for turn in as_trained(said, trained)] == [
        ("system", "Be brief.\n\nIn French."), ("user", "Q: 1 + 1?\nA:"), ("assistant", "2"), ("user", "Q: 2?\nA:"),
        ("assistant", "2"), ("user", "Q: 3?\nA:"),
    ]  # fmt: skip
    assert as_trained(said[1:2], Prompting()) == said[1:2]


def test_other_machines_need_a_key():
    with pytest.raises(ValueError, match="WHETSTONE_API_KEY"):
        serve(Serving(["nothing"], host="0.0.0.0"))
    for key in ("s\u00e9cret", "two words", "line\n"):
        with pytest.raises(ValueError, match="which clients cannot send"):
            serve(Serving(["nothing"]), key)


def test_a_model_that_is_not_there_is_said_at_once():
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        serve(Serving(["./nothing"]))


def test_two_runs_name_their_stages_apart(tmp_path):
    for run in ("one", "two"):
        for stage in ("01-sft", "02-rl"):
            (tmp_path / run / stage / "model").mkdir(parents=True)
            (tmp_path / run / stage / "model" / "config.json").touch()
            (tmp_path / run / stage / "manifest.json").touch()
    both = offered([str(tmp_path / "one"), str(tmp_path / "two")])
    assert list(both) == ["one/rl", "one/sft", "two/rl", "two/sft"]
    assert list(offered([str(tmp_path / "one")])) == ["rl", "sft"]
