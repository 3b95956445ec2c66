"""`whetstone generate` and `whetstone chat`: ask a model, see it think.

On a terminal an answer appears as it is written, with its thinking dimmed, or folded into one line that counts its tokens;
in a pipe it is plain text. Ctrl-C ends an answer; in a chat the conversation goes on.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from whetstone.records import Completion, Message, Prompt, Sampling
from whetstone.show import DIM, PLAIN

if TYPE_CHECKING:
    from whetstone.decode.engine import Engine

OPEN, CLOSE = "<think>", "</think>"
HELP = "an empty line or Ctrl-D leaves; /new begins anew; Ctrl-C ends an answer"


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask: what the commands' options say."""

    sampling: Sampling
    beams: int = 1  # above 1: beam search
    length_penalty: float = 1.0
    think_most: int | None = None  # tokens of thinking at most
    think_least: int = 0  # and at least
    thinking: str = "show"  # show | fold | hide

    def __post_init__(self) -> None:
        if self.thinking not in ("show", "fold", "hide"):
            raise ValueError(f"thinking = {self.thinking!r}: it is one of show, fold, hide.")
        if self.beams > 1 and (self.think_most is not None or self.think_least):
            raise ValueError(
                f"beams = {self.beams} with a thinking budget: a budget steers one answer. Use one of the two."
            )


def model_folder(name: str) -> str:
    """A run's folder stands for the last model trained in it, a stage's folder for its model."""
    if (Path(name) / "model" / "config.json").exists():
        return str(Path(name) / "model")
    models = [
        path for path in sorted(Path(name).glob("[0-9][0-9]-*/model")) if (path.parent / "manifest.json").exists()
    ]
    return str(models[-1]) if models else name


class Printer:
    """Writes an answer's pieces. `fold` and `hide` need to see the tags: what may be a part of one is held back."""

    def __init__(self, thinking: str, out: TextIO):
        self.thinking = thinking
        self.out = out
        self.live = out.isatty()
        self._inside = False
        self._waiting = ""
        self._thought = 0  # characters of it so far

    def write(self, piece: str) -> None:
        self._waiting += piece
        while True:
            tag = CLOSE if self._inside else OPEN
            before, found, after = self._waiting.partition(tag)
            if not found:
                kept = next((n for n in range(len(tag) - 1, 0, -1) if before.endswith(tag[:n])), 0)
                self._text(before[: len(before) - kept])
                self._waiting = before[len(before) - kept :]
                break
            if self._inside:
                self._text(before)
                self._close()
            else:
                self._text(before)
                self._open()
            self._waiting = after
        self.out.flush()

    def end(self) -> None:
        """The answer is over, or was ended."""
        self._text(self._waiting)
        self._waiting = ""
        if self._inside:
            self._inside = False
            self._raw(PLAIN if self.live and self.thinking == "show" else "")
        self._raw("\n")
        self.out.flush()

    def _raw(self, text: str) -> None:
        self.out.write(text)

    def _open(self) -> None:
        self._inside, self._thought = True, 0
        if self.thinking == "show":
            self._raw((DIM if self.live else "") + OPEN)

    def _close(self) -> None:
        self._inside = False
        if self.thinking == "show":
            self._raw(CLOSE + (PLAIN if self.live else ""))
        elif self.thinking == "fold":
            self._fold(ended=True)

    def _text(self, text: str) -> None:
        if not self._inside or self.thinking == "show":
            self._raw(text)
        elif text:
            self._thought += len(text)
            if self.thinking == "fold" and self.live:
                self._fold(ended=False)

    def _fold(self, ended: bool) -> None:
        """One line that counts while the model thinks, and stays as it is at the end."""
        if self.live:
            self._raw(f"\r{DIM}(thought {self._thought:,} characters{'' if ended else ' …'}){PLAIN}\033[K")
        else:
            self._raw(f"(thought {self._thought:,} characters)")


def answer(engine: "Engine", prompts: Sequence[Prompt], asking: Asking) -> Iterator[Any]:
    """`Piece`s and `Completion`s: from a beam search only the latter, for it knows the best at the end."""
    if asking.beams > 1:
        from whetstone.decode.beam_search import Beams, beam_search

        best = max(prompt.index for prompt in prompts) + 1
        settings = Beams(max(asking.beams, best), asking.sampling.max_tokens, asking.length_penalty, best=best)
        firsts = [prompt for prompt in prompts if prompt.index == 0]
        for found in beam_search(engine, firsts, settings):
            yield from (scored.completion for scored in found)
        return
    yield from engine.stream(prompts, asking.sampling, _control(engine, asking))


def _control(engine: "Engine", asking: Asking) -> Callable[[Prompt], Any] | None:
    if asking.think_most is None and not asking.think_least:
        return None
    from whetstone.decode.budget_forcing import BudgetForcing

    return BudgetForcing(engine.chat, asking.think_most, asking.think_least)


def generate(
    engine: "Engine", questions: Sequence[str], samples: int, asking: Asking, out: TextIO | None = None
) -> None:
    """Answers in the order asked. One alone is shown as it is written, several as soon as all before them are done."""
    out = out or sys.stdout
    prompts = [
        Prompt(str(number), index, (Message("user", question),))
        for number, question in enumerate(questions)
        for index in range(samples)
    ]
    asking = _within_context(engine, prompts, asking) or asking
    if len(prompts) == 1:
        _show(answer(engine, prompts, asking), asking, out)
        return
    done: dict[tuple[str, int], Completion] = {}
    waiting = list(prompts)
    for event in answer(engine, prompts, asking):
        if not isinstance(event, Completion):
            continue
        done[event.problem_id, event.index] = event
        while waiting and (waiting[0].problem_id, waiting[0].index) in done:
            prompt = waiting.pop(0)
            out.write(f"--- {prompt.messages[0].content}\n")
            _show([done.pop((prompt.problem_id, prompt.index))], asking, out)


def _within_context(engine: "Engine", prompts: Sequence[Prompt], asking: Asking) -> Asking | None:
    """With as many tokens at most as the model's context leaves; None where it leaves none."""
    longest = max(len(engine.chat.prompt_ids(prompt.messages)) for prompt in prompts)
    room = engine.model.config.max_position_embeddings - longest
    if room < 1:
        return None
    return replace(asking, sampling=replace(asking.sampling, max_tokens=min(room, asking.sampling.max_tokens)))


def _show(events: Iterable[Any], asking: Asking, out: TextIO) -> Completion | None:
    """Print an answer's events. The completion, or None when Ctrl-C ended it."""
    printer = Printer(asking.thinking, out)
    streamed = False
    for event in events:
        if not isinstance(event, Completion):
            streamed = True
            printer.write(event.text)
            continue
        if not streamed:
            printer.write(event.text)
        printer.end()
        if event.stop == "length":
            most = asking.sampling.max_tokens
            print(f"(cut off after {most} tokens: --max-tokens allows more)", file=sys.stderr)
        return event
    return None


def without_thinking(text: str) -> str:
    """What is said of an answer in the next turn, as reasoning models' templates do: the answer alone."""
    return text.rpartition(CLOSE)[2].strip() if CLOSE in text else text


def chat(
    engine: "Engine", asking: Asking, system: str = "", source: TextIO | None = None, out: TextIO | None = None
) -> None:
    """Turn by turn. Lines are read from `source`; when it is no terminal, nothing but the answers is written."""
    source, out = source or sys.stdin, out or sys.stdout
    first = (Message("system", system),) if system else ()
    messages = first
    terminal = source.isatty()
    if terminal:
        print(f"{DIM}{HELP}{PLAIN}", file=sys.stderr)
    turn = 0
    while True:
        question = _question(source, terminal)
        if question is None:
            return
        if question == "/new":
            messages = first
            continue
        messages = (*messages, Message("user", question))
        said = _turn(engine, Prompt("chat", turn, messages), asking, out)
        messages = messages[:-1] if said is None else (*messages, Message("assistant", without_thinking(said)))
        turn += 1


def _question(source: TextIO, terminal: bool) -> str | None:
    """The next line that says something; None at the end, and on a terminal for an empty one."""
    try:
        while True:
            if terminal:
                print("> ", end="", file=sys.stderr, flush=True)
            line = source.readline()
            if not line or (terminal and not line.strip()):
                return None
            if line.strip():
                return line.strip()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return None


def _turn(engine: "Engine", prompt: Prompt, asking: Asking, out: TextIO) -> str | None:
    """What was said; None when nothing came of it. Ctrl-C keeps what is there already."""
    fitting = _within_context(engine, [prompt], asking)
    if fitting is None:
        print("(the conversation is longer than the model's context: /new begins anew)", file=sys.stderr)
        return None
    asking = fitting
    printer = Printer(asking.thinking, out)
    said = ""
    try:
        for event in answer(engine, [prompt if asking.beams == 1 else replace(prompt, index=0)], asking):
            if isinstance(event, Completion):
                if not said:
                    printer.write(event.text)
                said = event.text
            else:
                said += event.text
                printer.write(event.text)
    except KeyboardInterrupt:
        pass
    printer.end()
    return said or None
