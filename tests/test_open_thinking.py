"""A template that writes `<think>` in the prompt changes nothing but who writes it.

The oracle is one model with two templates: that which it was trained with, and the same with `<think>` in the prompt.
"""

import io
import shutil

import pytest

from tests.chat_templates import QWEN35_SMALL, taught, tokenizer_of
from tests.scripted import stage
from tests.servers import said, send, server
from tests.tiny_models import random_model
from tests.tiny_world import SUMS, answer, problem
from whetstone.ask import Asking, generate
from whetstone.chat import Chat, ask
from whetstone.corpus.accept import malformed
from whetstone.decode.beam_search import Beams, beam_search
from whetstone.decode.budget_forcing import BudgetForcing
from whetstone.decode.engine import Engine, load_engine
from whetstone.decode.server_generator import Server, ServerGenerator
from whetstone.dpo.rollout_dpo import ids_of
from whetstone.learner.student import load
from whetstone.records import Pair, Sampling
from whetstone.report.rollouts import split_thinking
from whetstone.rl.reward import build_reward
from whetstone.run.settings import TrainingSettings
from whetstone.sample import sample_groups
from whetstone.verify import MathVerifier

GREEDY = Sampling(temperature=0.0, max_tokens=60)
PROMPTS = [ask(f"{a}+{b}", f"Compute {a} + {b}.", 0) for a, b in SUMS]


@pytest.fixture(scope="module")
def opened(adder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened") / "model"
    shutil.copytree(adder, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("'<|assistant|>'", "'<|assistant|><think>\\n'"))
    return folder


def by_name(completions) -> dict[str, str]:
    return {done.problem_id: done.text for done in completions}


def test_answers_are_the_same_texts_sampled_or_searched(adder, opened):
    plain, engine = load_engine(adder), load_engine(opened)
    expected = {
        name: text for name, text in by_name(plain.generate(PROMPTS, GREEDY)).items() if text[:8] == "<think>\n"
    }
    assert len(expected) > 4
    assert expected.items() <= by_name(engine.generate(PROMPTS, GREEDY)).items()
    searched = [best.completion for (best,) in beam_search(engine, PROMPTS[:1], Beams(1, 60))]
    assert by_name(searched).items() <= expected.items() | by_name(engine.generate(PROMPTS, GREEDY)).items()


def test_rows_are_the_same_ids_and_the_opening_belongs_to_the_prompt(adder, opened):
    plain, chat = load_engine(adder).chat, load_engine(opened).chat
    for a, b in SUMS:
        ours, theirs = (taught(c, answer(a, b), f"Compute {a} + {b}.") for c in (chat, plain))
        assert [*ours.prompt_ids, *ours.answer_ids] == [*theirs.prompt_ids, *theirs.answer_ids]
        assert ours.prompt_ids == [*theirs.prompt_ids, *plain.ids("<think>\n")]


def test_verdicts_and_the_format_reward_know_that_the_thinking_is_open(adder, opened):
    problems = [problem(a, b) for a, b in SUMS]
    with MathVerifier() as verifier:
        whole, theirs = (
            sample_groups(load_engine(folder), problems, 1, GREEDY, verifier) for folder in (opened, adder)
        )
        cut = sample_groups(load_engine(opened), problems, 1, Sampling(temperature=0.0, max_tokens=3), verifier)
    reward = build_reward("format")
    for one, other, (ours,), (plain,) in zip(problems, problems, whole, theirs, strict=True):
        if plain.text.startswith("<think>\n"):
            assert (ours.correct, ours.answer, reward(one, ours)) == (plain.correct, plain.answer, reward(other, plain))
    assert any(rollout.correct and reward(problems[0], rollout) == 1 for (rollout,) in whole)
    assert {(rollout.reason, rollout.stop) for (rollout,) in cut} == {("no answer: thinking not finished", "length")}


@pytest.mark.parametrize("thinking", ["hide", "fold", "show"])
def test_the_thinking_is_hidden_folded_and_shown_as_if_the_model_had_opened_it(adder, opened, thinking):
    shown = []
    for folder in (opened, adder):
        out = io.StringIO()
        generate(load_engine(folder), ["Compute 1 + 2."], 1, Asking(GREEDY, thinking=thinking), out)
        shown.append(out.getvalue())
    assert shown[0] == shown[1] and ("<think>" in shown[0]) == (thinking == "show")


def test_a_thinking_budget_closes_what_the_prompt_opened(opened):
    engine = load_engine(opened)
    forcing = BudgetForcing(engine.chat, most=2)
    (done,) = engine.generate(PROMPTS[5:6], GREEDY, forcing)
    assert done.ids[2 : 2 + len(forcing.close_ids)] == forcing.close_ids
    assert done.text.startswith("<think>\n") and done.text.count("</think>") >= 1


def test_a_budget_leaves_an_answer_alone_whose_prompt_says_not_to_think():
    tokenizer = tokenizer_of("qwen3.5-small")
    engine = Engine(random_model("qwen2", len(tokenizer)), tokenizer)
    sampling = Sampling(max_tokens=12)
    (plain,), (done,) = (engine.generate(PROMPTS[:1], sampling, c) for c in (None, BudgetForcing(engine.chat, most=2)))
    assert engine.chat.closed and done.ids == plain.ids


def test_a_stage_says_that_its_template_tells_the_model_not_to_think(tmp_path, adder, capsys):
    shutil.copytree(adder, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(QWEN35_SMALL)
    load(stage(tmp_path / "walk", TrainingSettings(kind="walk"), model=tmp_path / "model"))
    said = capsys.readouterr().err
    assert "tells the model not to think" in said and "set [prompt] thinking = true" in said


# --- texts from elsewhere, whose thinking only closes


def test_a_servers_answers_begin_with_the_thinking_that_its_template_opened():
    texts = {"0": ("1+1</think>2", "stop"), "1": ("1+1 is", "length"), "2": ("<think>a</think>2", "stop")}

    def answers(handler, body, attempt):
        send(handler, said(*texts[body["messages"][0]["content"]]))

    def asked(**settings):
        client = ServerGenerator(Server(server=address, model="m", **settings))
        return by_name(client.generate([ask(name, name, 0) for name in texts], Sampling()))

    with server(answers) as (address, _):
        closing = "<think>\n1+1</think>2"
        assert asked() == {"0": closing, "1": "1+1 is", "2": "<think>a</think>2"}
        assert asked(opens_thinking=True) == {"0": closing, "1": "<think>\n1+1 is", "2": "<think>a</think>2"}


def test_reasoning_that_a_server_cut_off_is_not_finished():
    with server(lambda handler, *_: send(handler, said("", "length", reasoning_content="1+1 is"))) as (address, _):
        client = ServerGenerator(Server(server=address, model="m"))
        assert by_name(client.generate(PROMPTS[:1], Sampling())) == {"0+0": "<think>\n1+1 is"}


def test_a_trace_whose_thinking_only_closes_is_sound_and_one_that_only_opens_is_not():
    assert malformed("1+1</think>2", 0.6, 0) == ""
    for text in ("<think>1+1", "1</think>2</think>3", "<think>1</think>2</think>"):
        assert malformed(text, 0.6, 0) == "thinking never closes"
    assert split_thinking("1+1</think>2") == ("1+1", "2")


def test_the_two_sides_of_a_pair_share_a_prompt_also_if_one_of_them_does_not_think():
    chat = Chat(tokenizer_of("r1-distill"))
    prompt, chosen, rejected = ids_of(chat, Pair("p", "1 + 1?", "<think>\n1+1\n</think>\n2", "3"))
    assert chat.tokenizer.decode(prompt).endswith("1 + 1?<｜Assistant｜>")
    assert chat.text(chosen) == "<think>\n1+1\n</think>\n2" and chat.text(rejected) == "3"
    assert chosen[-1] == rejected[-1] == chat.end
