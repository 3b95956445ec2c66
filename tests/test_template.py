"""A chat template is somebody else's program: bounded, the same on any day, and its refusals are said in its own words."""

import threading
import time
from datetime import datetime

import pytest

from tests.chat_templates import LLAMA3, TOKENS, tokenizer_of
from whetstone import template as templates
from whetstone.chat import Chat, Exchange
from whetstone.records import Message
from whetstone.template import DATE, TemplateError, with_fixed_date

SOUND = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def chat_with(source: str) -> Chat:
    tokenizer = tokenizer_of("alpaca")
    tokenizer.chat_template, tokenizer.name_or_path = source, "evil"
    return Chat(tokenizer)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 'a' * 2000000000 }}", "takes more than 512 MB of memory"),
        (
            "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
            "512 MB of memory",
        ),
        ("{{ '%1000000000d' % 3 }}", "takes more than 512 MB of memory"),
        ("{{ 'a' * 1000000 }}" + SOUND, r"writes 1,000,0\d\d characters for a conversation of"),
        ("a" * (1 << 20) + SOUND, "has 1,048,6.. characters"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "refuses a conversation of user, assistant: maximum recursion",
        ),
        ("{% if %}", "refuses a conversation of user, assistant: Expected an expression"),
        ("{{ 1 / 0 }}", "refuses a conversation of user, assistant: division by zero"),
        (
            "{{ raise_exception('A system message is needed.\x1b[31m') }}",
            r"user, assistant: A system message is needed. \[31m",
        ),
        ("{{ ''.__class__.__mro__ }}" + SOUND, "access to attribute '__class__' of 'str' object is unsafe"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not write a question and its answer once each"),
        ("{{ ['a', 'b'] | random }}" + SOUND, "draws at random"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_and_named(source, why):
    with pytest.raises(TemplateError, match=why) as error:
        chat_with(source)
    assert str(error.value).startswith("the chat template of evil ") and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (SOUND.replace("{{", "{% if m.role != 'system' %}{{", 1).replace("</s>", "{% endif %}</s>"), "system"),
        (SOUND.replace("m.content", "m.content[:20]"), "user"),
        (SOUND.replace("m.content", "m.content|e"), "user"),
    ],
)
def test_a_template_that_leaves_out_or_changes_a_turn_is_refused_for_this_conversation(source, asked):
    chat = chat_with(source)
    whole, question = Message("user", "1 + 1?"), "Is 1 < 2, and is 2 < 3?"
    assert "1 + 1?" in chat.tokenizer.decode(chat.prompt_ids([whole]))
    messages = [Message("system", "Be brief."), whole] if asked == "system" else [Message("user", question)]
    with pytest.raises(TemplateError, match=f"leaves out or changes what a turn of {asked} says"):
        chat.prompt_ids(messages)
    (row,) = chat.rows([Exchange(messages, "2")])
    assert row.startswith("the chat template refuses it: ")


def test_a_question_that_is_not_utf8_is_one_line():
    with pytest.raises(ValueError, match=r"a turn of user is not UTF-8: it holds '\\udce9'"):
        chat_with(SOUND).question_ids("caf\udce9?")


def test_a_template_that_loops_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr(templates, "CPU_SECONDS", 1)
    with pytest.raises(TemplateError, match="was still rendering after 1 CPU seconds"):
        chat_with(LOOP + SOUND)


def test_one_that_loops_or_grows_for_some_conversations_only_is_refused_there(monkeypatch):
    chat = chat_with(
        "{% set said = messages[0].content %}"
        f"{{% if 'boom' in said %}}{LOOP}{{% elif 'burst' in said %}}{{{{ 'a' * 100000 }}}}{{% endif %}}{SOUND}"
    )
    monkeypatch.setattr(templates, "CPU_SECONDS", 0.3)
    with pytest.raises(TemplateError, match=r"refuses a conversation of user: it was still rendering after 0\.3 CPU"):
        chat.question_ids("boom")
    with pytest.raises(TemplateError, match=r"writes 100,0\d\d characters for a conversation of 9"):
        chat.question_ids("burst")
    assert chat.question_ids("a" * 100_000)


def test_a_thread_is_interrupted_like_the_program(monkeypatch):
    """That of a server, say. What it renders afterwards is not."""
    chat, said = chat_with(f"{{% if 'boom' in messages[0].content %}}{LOOP}{{% endif %}}{SOUND}"), []
    monkeypatch.setattr(templates, "CPU_SECONDS", 0.3)

    def work() -> None:
        with pytest.raises(TemplateError, match=r"still rendering after 0\.3 CPU seconds"):
            chat.question_ids("boom")
        said.extend(chat.question_ids("1?") for _ in range(50))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [chat.question_ids("1?")] * 50


def test_a_template_is_tried_out_once(monkeypatch):
    children = []
    plain = templates.fork
    monkeypatch.setattr(templates, "fork", lambda *given, **more: children.append(1) or plain(*given, **more))
    another = f"{{# {time.perf_counter_ns()} #}}"  # no other run of this test in this process has tried it
    for _ in range(3):
        chat_with(SOUND + another)
    assert len(children) == 1


def test_a_template_can_be_used_in_any_thread():
    made = []
    thread = threading.Thread(target=lambda: made.append(chat_with(SOUND).question_ids("1?")))
    thread.start()
    thread.join()
    assert made == [chat_with(SOUND).question_ids("1?")]


def test_a_template_that_asks_for_the_date_is_told_the_same_on_any_day(monkeypatch):
    from transformers.utils import chat_template_utils

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 2, 3)

    chat = Chat(tokenizer_of("llama-3"))
    today = chat.question_ids("1?")
    assert "Today Date: 26 Jul 2024" in chat.tokenizer.decode(today)
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert Chat(tokenizer_of("llama-3")).question_ids("1?") == today
    untouched = chat.tokenizer.apply_chat_template([{"role": "user", "content": "1?"}], tokenize=False)
    assert "03 Feb 2031" in untouched  # the folder's template is as it was


def test_every_format_of_the_date_is_that_of_strftime():
    formats = ["%d %b %Y", "%Y-%m-%d", "%A, %-d %B %y", "%H:%M:%S %j %p", "%F %T %D"]
    source = with_fixed_date("".join(f"{{{{ strftime_now('{f}') }}}}|" for f in formats))
    text = templates._render(source, {}, [{"role": "user", "content": ""}], False)
    assert text == "".join(DATE.strftime(f) + "|" for f in formats)


@pytest.mark.parametrize("source", ["  {% if true %}\n  a{% endif %} x", "\n{% if true %}a{% endif %}", " a", LLAMA3])
def test_a_fixed_date_changes_nothing_else(source):
    turns = [{"role": "user", "content": "1?"}]
    dated = source + "{% if false %}{{ strftime_now('%Y') }}{% endif %}"
    plain = templates._render(source, {"date_string": "26 Jul 2024", "bos_token": ""}, turns, True)
    assert templates._render(with_fixed_date(dated), {"bos_token": ""}, turns, True) == plain


def test_all_known_templates_are_within_the_bounds():
    assert all(templates._why_unbounded(with_fixed_date(source), "{}") == "" for source, *_ in TOKENS.values())
