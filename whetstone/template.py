"""A chat template renders conversations as text. It is a program from somebody else's model folder.

transformers runs it in jinja's sandbox: it reaches no file, no network and no Python object. Here it is also bounded. Before
its first use it renders a few conversations in a child process with limits on CPU time and memory; later renderings have the
limit on CPU time, and one on their length. What it refuses is a TemplateError with its own words.

A template that asks for the date is always told DATE, so that the same data give the same rows on any day. A template that
draws at random is refused. A switch for thinking (`enable_thinking`) has the template's own default, or the one that
`set_thinking` writes into the template: then whoever reads the model's folder asks it in the same way.
"""

import ctypes
import json
import os
import re
import resource
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from whetstone.run.processes import fork

Turn = Mapping[str, str]  # role, content, perhaps reasoning_content

DATE = datetime(2024, 7, 26)  # what Llama 3's template itself writes if it is told no date
DIRECTIVES = "aAbBcdDeFgGhHIjmMpRSTuUVwWxXyYzZ"  # of strftime

SWITCHES = ("enable_thinking", "thinking")  # the names that templates have for whether the model shall think
SET = re.compile(  # what `set_thinking` writes
    rf"\A\{{%- if (?:{'|'.join(SWITCHES)}) is not defined %\}}.*?\{{%- endif %\}}\{{\{{ '' \}}\}}"
)

LOOK = 0.2  # seconds between two looks at a thread's CPU clock
CPU_SECONDS = 4  # of one rendering, and of all trial renderings together; they take milliseconds
MEMORY = 1 << 29  # bytes that the trial renderings may take
LONGEST_SOURCE = 1 << 20  # characters
LONGEST_EXTRA = 1 << 16  # characters of a rendering, besides REPEATED times those of the conversation
REPEATED = 4
SHOWN = 300  # characters of a template's own words in a message
DEADLINE = 300  # seconds of wall time after which a child that uses no CPU is given up

USER, ANSWER, SYSTEM = ({"role": role, "content": "2 + 3?"} for role in ("user", "assistant", "system"))
LONG = {"role": "user", "content": "How many apples are left? " * 2000}
TRIALS = ((USER,), (SYSTEM, USER), (USER, ANSWER), (USER, ANSWER, USER), (USER, ANSWER) * 8, (LONG, ANSWER), (LONG,))


class TemplateError(ValueError):
    """A chat template that cannot be used, or that refuses a conversation."""


class Template:
    """The chat template of a tokenizer; of several named ones that named `default`.

    `source` is another to use in its place. Raises TemplateError if it is not bounded, or differs from one rendering to the
    next.
    """

    def __init__(self, tokenizer: Any, source: str | None = None):
        self.name = tokenizer.name_or_path or "this tokenizer"
        self.special = dict(tokenizer.special_tokens_map)
        self.given = self._chosen(tokenizer.chat_template) if source is None else source
        self.source = with_fixed_date(self.given)
        if len(self.source) > LONGEST_SOURCE:
            raise self.error(f"has {len(self.source):,} characters, and {LONGEST_SOURCE:,} are allowed")
        if re.search(r"\|\s*random\b", self.source):
            raise self.error("draws at random, so the same data would give other rows each time")
        if why := _why_unbounded(self.source, json.dumps(self.special, default=str)):
            raise self.error(why)

    def render(self, turns: Sequence[Turn], prompt: bool) -> str:
        """The text of a conversation; with `prompt`, up to where the model's answer begins. Raises TemplateError."""
        try:
            with _cpu_deadline(CPU_SECONDS):
                text = _render(self.source, self.special, turns, prompt)
        except Exception as error:  # whatever the template's code raises
            roles = ", ".join(turn["role"] for turn in turns)
            raise self.error(
                f"refuses a conversation of {roles}: {excerpt(str(error)) or type(error).__name__}"
            ) from error
        if why := _too_long(text, turns):
            raise self.error(why)
        return text

    def _chosen(self, templates: Any) -> str:
        if isinstance(templates, Mapping):
            if "default" not in templates:
                names = excerpt(", ".join(map(str, templates)))
                raise self.error(f"is one of several ({names}), and none of them is named default")
            templates = templates["default"]
        if not isinstance(templates, str):
            raise self.error(f"is not text, but of type {type(templates).__name__}")
        return templates

    def error(self, why: str) -> TemplateError:
        return TemplateError(
            f"the chat template of {self.name} {why}. Use a template that renders system, user and assistant turns: put "
            "it into chat_template.jinja beside the tokenizer."
        )


def set_thinking(tokenizer: Any, thinking: bool | None) -> None:
    """Write a default for the template's own switch into the tokenizer's template; None leaves it as it is.

    Who renders the template may still set the switch. Raises TemplateError for a template without one.
    """
    if thinking is None:
        return
    several = isinstance(tokenizer.chat_template, Mapping)
    source = tokenizer.chat_template.get("default") if several else tokenizer.chat_template
    plain = SET.sub("", source if isinstance(source, str) else "")
    name = tokenizer.name_or_path or "this tokenizer"
    for switch in has_switch(plain):
        on, off = (Template(tokenizer, _with_default(plain, switch, value)) for value in (True, False))
        if on.render([USER], prompt=True) != off.render([USER], prompt=True):
            chosen = (on if thinking else off).given
            tokenizer.chat_template = {**tokenizer.chat_template, "default": chosen} if several else chosen
            return
    raise TemplateError(no_switch(name, thinking))


def has_switch(source: str) -> list[str]:
    """The switches for thinking that a template names."""
    return [name for name in SWITCHES if re.search(rf"\b{name}\b", source)]


def no_switch(name: str, thinking: bool) -> str:
    return (
        f"[prompt] thinking = {str(thinking).lower()}: the chat template of {name} has no switch for thinking "
        f"({' or '.join(SWITCHES)}), so the model cannot be told. Leave `thinking` out, or say it in `system`."
    )


def _with_default(source: str, switch: str, value: bool) -> str:
    words = f"{{%- if {switch} is not defined %}}{{%- set {switch} = {str(value).lower()} %}}{{%- endif %}}"
    return words + "{{ '' }}" + re.sub(r"\A[ \t]+(?=\{[%#])", "", source)


def with_fixed_date(source: str) -> str:
    """The template with a `strftime_now` of its own, which formats DATE, if it uses that function.

    A function cannot be handed to a template, so this is a macro. The template's first line loses its indentation before
    a block, as jinja would have removed it.
    """
    if "strftime_now" not in source:
        return source
    formats = {f"%-{c}": DATE.strftime(f"%{c}").lstrip("0") for c in "dHIjm"}
    formats |= {f"%{c}": DATE.strftime(f"%{c}") for c in DIRECTIVES}
    replaced = "".join(f"|replace({name!r},{value!r})" for name, value in formats.items())
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}"
    return macro + re.sub(r"\A[ \t]+(?=\{[%#])", "", source)


def excerpt(text: str) -> str:
    """The beginning of what a template says, without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text[:SHOWN]) + (" …" if len(text) > SHOWN else "")


def _render(source: str, special: Mapping[str, Any], turns: Sequence[Turn], prompt: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        conversations=[list(turns)], chat_template=source, add_generation_prompt=prompt, **special
    )
    return texts[0]


def _too_long(text: str, turns: Sequence[Turn]) -> str:
    """Says that a rendering is out of proportion to its conversation; "" if it is not."""
    written = sum(len(value) for turn in turns for value in turn.values())
    if len(text) <= LONGEST_EXTRA + REPEATED * written:
        return ""
    return f"writes {len(text):,} characters for a conversation of {written:,}"


@contextmanager
def _cpu_deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError after so many CPU seconds: of this process by a signal, or in a thread that no signal reaches of that
    thread."""
    late = f"it was still rendering after {seconds:g} CPU seconds"
    if threading.current_thread() is not threading.main_thread():
        try:
            with _watched(seconds):
                yield
        except _Late:
            raise TimeoutError(late) from None
        return

    def stop(*_: object) -> None:
        raise TimeoutError(late)

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class _Late(Exception):
    """Raised in a thread by the thread that watches it."""


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """Raises _Late in this thread after so many seconds of its CPU clock, or of time where threads have no such clock."""
    thread, lock, over = threading.get_ident(), threading.Lock(), threading.Event()
    clock = time.pthread_getcpuclockid(thread) if hasattr(time, "pthread_getcpuclockid") else time.CLOCK_MONOTONIC
    end = time.clock_gettime(clock) + seconds
    raise_in, ident = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(thread)

    def watch() -> None:
        while not over.wait(LOOK):
            with lock:
                if not over.is_set() and time.clock_gettime(clock) > end:
                    raise_in(ident, ctypes.py_object(_Late))
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            over.set()
        raise_in(ident, None)  # one that is on its way is too late


@lru_cache(64)
def _why_unbounded(source: str, special: str) -> str:
    """Why a template may not be used in this process; "" if it may. Renders TRIALS in a child process with limits."""
    reading, writing = os.pipe()

    def work() -> None:
        _limit()
        os.write(writing, _try_out(source, json.loads(special)).encode())

    child = fork("chat template", work, brief=True)
    os.close(writing)
    waiting = select.poll()
    waiting.register(reading, select.POLLIN)
    try:
        said = os.read(reading, 1 << 12).decode() if waiting.poll(1000 * DEADLINE) else ""
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return said.removeprefix("bounded") if said else f"was still rendering after {CPU_SECONDS} CPU seconds"


def _limit() -> None:
    """Limits this process to CPU_SECONDS, and to MEMORY more than it has (where the system says how much that is)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _try_out(source: str, special: Mapping[str, Any]) -> str:
    """ "bounded", and what is wrong. Whether the template refuses a conversation is another question."""
    for turns in TRIALS:
        for prompt in (True, False):
            try:
                text = _render(source, special, turns, prompt)
            except MemoryError:
                return f"takes more than {MEMORY >> 20:,} MB of memory"
            except Exception:
                continue
            if why := _too_long(text, turns):
                return why
    return "bounded"
