"""`generate` and `chat`: what is shown in a pipe and on a terminal; Ctrl-C ends an answer, not the chat."""

import io

import pytest

from tests.tiny_models import random_model, tiny
from whetstone.ask import Asking, Printer, chat, generate, tally, without_thinking
from whetstone.decode.beam_search import Beams, beam_search
from whetstone.decode.decoding import Piece
from whetstone.decode.engine import Engine
from whetstone.prompting import Prompting
from whetstone.records import Completion, Message, Prompt, Sampling
from whetstone.run.visible import visible


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


def test_a_terminal_dims_thinking_and_counts_its_characters_while_it_lasts():
    assert printed(PIECES, "show", Terminal) == "\033[2m<think>\n2+3\n</think>\033[0m\nIt is 5.\n"
    folded = printed(PIECES, "fold", Terminal)
    assert "\r\033[2m(thought 3 characters …)" in folded and "(thought 5 characters)\033[0m" in folded
    assert "2+3" not in folded and folded.endswith("It is 5.\n")


def test_an_answer_that_never_stops_thinking_leaves_the_terminal_as_it_was():
    assert printed(["<think>ab"], "show", Terminal) == "\033[2m<think>ab\033[0m\n"
    assert printed(["a <", "b"], "hide") == "a <b\n"


def test_ctrl_c_while_the_model_thinks_leaves_the_terminal_as_it_was():
    def interrupted():
        yield Piece("p", 0, "<think>ab")
        raise KeyboardInterrupt

    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        Printer("show", out).show(interrupted())
    assert out.getvalue() == "\033[2m<think>ab\033[0m\n"


@pytest.fixture(scope="module")
def engine():
    _, tokenizer = tiny()
    return Engine(random_model("qwen2", len(tokenizer)), tokenizer)


def asking(**more) -> Asking:
    return Asking(Sampling(0.6, 12, seed=1), **more)


def user(question, problem_id="0", index=0) -> Prompt:
    return Prompt(problem_id, index, (Message("user", question),))


def test_each_question_has_its_answers_below_it_in_the_order_asked(engine):
    questions, out = ["1+1?", "2+2?"], io.StringIO()
    generate(engine, questions, 2, asking(), out)
    prompts = [user(question, str(number), index) for number, question in enumerate(questions) for index in range(2)]
    texts = {(c.problem_id, c.index): c.text for c in engine.generate(prompts, asking().sampling)}
    assert len(set(texts.values())) > 2
    shown = {p: f"--- {p.messages[0].content}\n{visible(texts[p.problem_id, p.index])}\n" for p in prompts}
    tallies = {number: tally([texts[str(number), index] for index in range(2)]) for number in range(2)}
    assert out.getvalue() == "".join(
        shown[p] + (f"{tallies[int(p.problem_id)]}\n" if p.index == 1 else "") for p in prompts
    )


def test_a_tally_counts_equal_answers_together_and_names_a_majority_only_if_there_is_one():
    texts = [r"\boxed{1/2}", r"\boxed{7}", r"so \boxed{0.5}", "<think>well"]
    assert tally(texts) == "=== 4 samples, 2 different answers: majority 1/2 (2), 7 (1), no answer (1)"
    assert tally(texts[:2]) == "=== 2 samples, 2 different answers: no majority, 1/2 (1), 7 (1)"
    assert tally(["<think>well", ""]) == "=== 2 samples, 0 different answers: no answer (2)"
    assert tally([rf"\boxed{{{n}}}" for n in (7, 1, 2, 3, 7, 4, 5, 6)]).endswith(
        "7 different answers: majority 7 (2), 1 (1), 2 (1), 3 (1), 4 (1), 2 more (2)"
    )


def test_a_single_answer_is_streamed_and_says_when_it_was_cut_off(engine, capsys):
    out = io.StringIO()
    generate(engine, ["1+1?"], 1, asking(), out)
    (alone,) = engine.generate([user("1+1?")], asking().sampling)
    assert out.getvalue() == visible(alone.text) + "\n"
    assert "cut off after 12 tokens: --max-tokens" in capsys.readouterr().err


def test_several_answers_of_a_beam_search_are_its_best(engine):
    out = io.StringIO()
    generate(engine, ["1+1?"], 2, asking(beams=3), out)
    (answers,) = beam_search(engine, [user("1+1?")], Beams(3, 12, best=2))
    assert out.getvalue() == "".join(f"--- 1+1?\n{visible(answer.completion.text)}\n" for answer in answers)


def test_a_chat_keeps_its_turns_without_their_thinking_and_begins_anew_when_asked(engine, monkeypatch):
    asked = []

    def scripted(self, prompts, sampling, control=None):
        asked.append([(m.role, m.content) for m in prompts[0].messages])
        yield Completion("chat", 0, f"<think>\n2+3\n</think>\nanswer {len(asked)}", "end")

    monkeypatch.setattr(Engine, "stream", scripted)
    chat(engine, asking(prompting=Prompting("be brief")), io.StringIO("hello\n\nagain\n/new\nfresh\n"), io.StringIO())
    system = ("system", "be brief")
    assert asked == [
        [system, ("user", "hello")],
        [system, ("user", "hello"), ("assistant", "answer 1"), ("user", "again")],
        [system, ("user", "fresh")],
    ]
    assert without_thinking("no tags") == "no tags"


def test_a_chats_commands_are_answered_and_never_sent_to_the_model(engine, monkeypatch, capsys):
    asked = []

    def scripted(self, prompts, sampling, control=None):
        asked.append([m.content for m in prompts[0].messages])
        yield Completion("chat", 0, "yes", "end")

    monkeypatch.setattr(Engine, "stream", scripted)
    lines = "/help\n/halp\nfirst\n/reset\n /etc is a folder\n/exit\nafter\n"
    chat(engine, asking(thinking="fold"), io.StringIO(lines), io.StringIO())
    assert asked == [["first"], ["/etc is a folder"]]
    said = capsys.readouterr().err
    assert "--temperature 0.6 --max-tokens 12" in said and "--thinking fold" in said and "/new or /reset" in said
    assert "unknown command /halp: did you mean '/help'?" in said and "Nothing was sent" in said


def test_ctrl_c_ends_an_answer_and_not_the_chat():
    class Interrupted:
        """An engine whose first answer is interrupted halfway."""

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


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="beams = 2 with a thinking budget"):
        asking(beams=2, think_most=5)
    with pytest.raises(ValueError, match="show, fold, hide"):
        asking(thinking="loud")
