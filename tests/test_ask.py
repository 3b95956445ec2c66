"""`generate` and `chat`: what is shown, piped and on a terminal; Ctrl-C ends an answer, not the chat."""

import io

import pytest

from tests.tiny_models import random_model, tiny
from whetstone import model as models
from whetstone.ask import Asking, Printer, chat, generate, model_folder, without_thinking
from whetstone.decode.decoding import Piece
from whetstone.decode.engine import Engine
from whetstone.records import Completion, Sampling


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(pieces, thinking, kind=io.StringIO) -> str:
    out = kind()
    printer = Printer(thinking, out)
    for piece in pieces:
        printer.write(piece)
    printer.end()
    return out.getvalue()


PIECES = ["<th", "ink>\n2+", "3\n</", "think>", "\nIt is 5", "."]


def test_thinking_is_shown_folded_or_hidden():
    assert printed(PIECES, "show") == "<think>\n2+3\n</think>\nIt is 5.\n"
    assert printed(PIECES, "fold") == "(thought 5 characters)\nIt is 5.\n"
    assert printed(PIECES, "hide") == "\nIt is 5.\n"


def test_a_terminal_dims_thinking_and_counts_it_while_it_lasts():
    assert printed(PIECES, "show", Terminal) == "\033[2m<think>\n2+3\n</think>\033[0m\nIt is 5.\n"
    told = printed(PIECES, "fold", Terminal)
    assert "\r\033[2m(thought 3 characters …)" in told and "(thought 5 characters)\033[0m" in told
    assert "2+3" not in told and told.endswith("It is 5.\n")


def test_an_answer_that_never_stops_thinking_leaves_the_terminal_as_it_was():
    assert printed(["<think>ab"], "show", Terminal) == "\033[2m<think>ab\033[0m\n"
    assert printed(["a <", "b"], "hide") == "a <b\n"


@pytest.fixture(scope="module")
def engine():
    _, tokenizer = tiny()
    return Engine(random_model("qwen2", len(tokenizer)), tokenizer)


def asking(**more) -> Asking:
    return Asking(Sampling(0.6, 12, seed=1), **more)


def test_answers_come_in_the_order_asked(engine):
    out = io.StringIO()
    generate(engine, ["1+1?", "2+2?"], 2, asking(), out)
    told = out.getvalue()
    assert [line for line in told.splitlines() if line.startswith("--- ")] == ["--- 1+1?"] * 2 + ["--- 2+2?"] * 2


def test_one_answer_is_the_same_streamed_in_a_beam_search_or_not(engine, capsys):
    out = io.StringIO()
    generate(engine, ["1+1?"], 1, asking(), out)
    (alone,) = engine.generate([engine_prompt("1+1?")], asking().sampling)
    assert out.getvalue() == alone.text + "\n"
    assert "cut off after 12 tokens: --max-tokens" in capsys.readouterr().err
    beams = io.StringIO()
    generate(engine, ["1+1?"], 2, asking(beams=3), beams)
    assert beams.getvalue().count("--- 1+1?") == 2


def engine_prompt(question):
    from whetstone.records import Message, Prompt

    return Prompt("0", 0, (Message("user", question),))


def test_a_chat_remembers_what_was_said_and_begins_anew_when_asked(engine, monkeypatch):
    seen = []
    plain = Engine.stream

    def watched(self, prompts, sampling, control=None):
        seen.append([(m.role, m.content) for m in prompts[0].messages])
        return plain(self, prompts, sampling, control)

    monkeypatch.setattr(Engine, "stream", watched)
    out = io.StringIO()
    chat(engine, asking(), "be brief", io.StringIO("hello\n\nagain\n/new\nfresh\n"), out)
    assert [[role for role, _ in messages] for messages in seen] == [
        ["system", "user"],
        ["system", "user", "assistant", "user"],
        ["system", "user"],
    ]
    assert seen[1][2][1] == without_thinking(out.getvalue().splitlines()[0]) or seen[1][2][1]


def test_ctrl_c_ends_an_answer_and_not_the_chat():
    class Interrupted:
        """Answers the first question half."""

        def __init__(self):
            self.asked = []
            self.model = type("M", (), {"config": type("C", (), {"max_position_embeddings": 100})})
            self.chat = type("T", (), {"prompt_ids": staticmethod(lambda messages: [1])})

        def stream(self, prompts, sampling, control=None):
            self.asked.append([m.content for m in prompts[0].messages])
            yield Piece("chat", 0, "half")
            if len(self.asked) == 1:
                raise KeyboardInterrupt
            yield Completion("chat", 0, "half whole", "end")

    fake, out = Interrupted(), io.StringIO()
    chat(fake, asking(), source=io.StringIO("one\ntwo\n"), out=out)
    assert fake.asked == [["one"], ["one", "half", "two"]]
    assert out.getvalue() == "half\nhalf\n"


def test_a_run_stands_for_its_last_model_and_a_stage_for_its_own(tmp_path):
    model, tokenizer = tiny()
    for name in ("01-sft", "02-rl"):
        models.save(model, tokenizer, tmp_path / name / "model")
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "03-later" / "model").mkdir(parents=True)  # not finished
    assert model_folder(str(tmp_path)) == str(tmp_path / "02-rl/model")
    assert model_folder(str(tmp_path / "01-sft")) == str(tmp_path / "01-sft/model")
    assert model_folder("hub/name") == "hub/name"


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="beams = 2 with a thinking budget"):
        asking(beams=2, think_most=5)
    with pytest.raises(ValueError, match="show, fold, hide"):
        asking(thinking="loud")
