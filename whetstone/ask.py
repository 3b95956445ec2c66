"""`whetstone generate` and `whetstone chat`: ask a model and see it think.

On a terminal an answer appears as it is written, with its thinking dimmed or folded into one line that counts its characters;
in a pipe it is plain text. Ctrl-C ends an answer; a chat then continues.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, TextIO

from whetstone.answer import count_votes
from whetstone.prompting import BARE, Prompting
from whetstone.records import Completion, Message, Prompt, Sampling
from whetstone.run.mistakes import suggestion
from whetstone.run.visible import visible, write_line
from whetstone.show import DIM, PLAIN
from whetstone.verify import MathVerifier, extract, get_policy

if TYPE_CHECKING:
    from whetstone.decode.engine import Engine

OPEN, CLOSE = "<think>", "</think>"
HELP = """/help shows the settings; /new or /reset forgets the conversation; Ctrl-C ends an answer
/exit, an empty line or Ctrl-D leaves; a space before a line that begins with / sends it to the model"""
ANEW, LEAVE = ("/new", "/reset"), ("/exit", "/quit")
TALLIED, LONGEST = 5, 60  # different answers that a tally names, and characters of each


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask: the options of the commands. Raises ValueError for options that exclude each other."""

    sampling: Sampling
    beams: int = 1  # above 1: beam search
    length_penalty: float = 1.0  # of beam search
    think_most: int | None = None  # tokens of thinking at most
    think_least: int = 0  # and at least
    thinking: str = "show"  # show | fold | hide
    prompting: Prompting = BARE  # what stands around a question

    @property
    def budgeted(self) -> bool:
        return self.think_most is not None or self.think_least > 0

    def __post_init__(self) -> None:
        if self.thinking not in ("show", "fold", "hide"):
            raise ValueError(
                f"thinking = {self.thinking!r}: it is one of show, fold, hide. --think and --no-think tell the model."
            )
        if not isfinite(self.length_penalty):
            raise ValueError(f"length_penalty = {self.length_penalty}: it is a finite number.")
        if self.beams > 1 and self.budgeted:
            raise ValueError(
                f"beams = {self.beams} with a thinking budget, which steers one answer: use one of the two."
            )


class Printer:
    """Writes one answer. Text that may become a tag is held back until the rest of it arrives."""

    def __init__(self, thinking: str, out: TextIO):
        self.thinking = thinking
        self.out = out
        self.live = out.isatty()
        self.text = ""  # of the answer so far
        self._inside = False  # the thinking
        self._waiting = ""
        self._thought = 0  # characters of thinking so far

    def show(self, events: Iterable[Any]) -> str:
        """Write the answer's `Piece`s as they come, or its `Completion` if there are none. Returns why the answer ended."""
        stop = ""
        try:
            for event in events:
                completed = isinstance(event, Completion)
                if not (completed and self.text):
                    self.write(event.text)
                if completed:
                    self.text, stop = event.text, event.stop
        finally:
            self.end()
        return stop

    def write(self, piece: str) -> None:
        self.text += piece
        self._waiting += piece
        while True:
            tag = CLOSE if self._inside else OPEN
            text, match, rest = self._waiting.partition(tag)
            if not match:
                held = next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
                self._text(text[: len(text) - held])
                self._waiting = text[len(text) - held :]
                break
            self._text(text)
            self._pass_tag()
            self._waiting = rest
        self.out.flush()

    def end(self) -> None:
        """The answer is over, or was interrupted."""
        self._text(self._waiting)
        if self._inside and self.live and self.thinking == "show":
            self.out.write(PLAIN)
        self._inside, self._waiting = False, ""
        self.out.write("\n")
        self.out.flush()

    def _pass_tag(self) -> None:
        self._inside = not self._inside
        if self.thinking == "show":
            dim, plain = (DIM, PLAIN) if self.live else ("", "")
            self.out.write(dim + OPEN if self._inside else CLOSE + plain)
        elif self._inside:
            self._thought = 0
        elif self.thinking == "fold":
            self._fold(ended=True)

    def _text(self, text: str) -> None:
        if not self._inside or self.thinking == "show":
            self.out.write(visible(text))
        elif text:
            self._thought += len(text)
            if self.thinking == "fold" and self.live:
                self._fold(ended=False)

    def _fold(self, ended: bool) -> None:
        """One line that counts the characters while the model thinks, and stays with the last count."""
        line = f"(thought {self._thought:,} characters{'' if ended else ' …'})"
        self.out.write(f"\r{DIM}{line}{PLAIN}\033[K" if self.live else line)


def answer(engine: "Engine", prompts: Sequence[Prompt], asking: Asking) -> Iterator[Any]:
    """`Piece`s and `Completion`s. A beam search gives completions alone, as it knows the best only at the end."""
    if asking.beams > 1:
        from whetstone.decode.beam_search import Beams, beam_search

        best = max(prompt.index for prompt in prompts) + 1
        settings = Beams(max(asking.beams, best), asking.sampling.max_tokens, asking.length_penalty, best=best)
        for answers in beam_search(engine, [prompt for prompt in prompts if prompt.index == 0], settings):
            yield from (scored.completion for scored in answers)
        return
    control = None
    if asking.budgeted:
        from whetstone.decode.budget_forcing import BudgetForcing

        control = BudgetForcing(engine.chat, asking.think_most, asking.think_least)
    yield from engine.stream(prompts, asking.sampling, control)


def generate(
    engine: "Engine", questions: Sequence[str], samples: int, asking: Asking, out: TextIO | None = None
) -> None:
    """Print answers in the order of the questions: a single one as it is written, several as soon as those before are done.

    Below several samples of a question stands their tally. A beam search has none: it finds different answers by design.
    """
    out = out or sys.stdout
    prompts = [
        Prompt(str(number), index, asking.prompting.messages(question))
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
            write_line(f"--- {questions[int(prompt.problem_id)]}", out)
            _show([done[prompt.problem_id, prompt.index]], asking, out)
            if prompt.index == samples - 1:
                texts = [done.pop((prompt.problem_id, index)).text for index in range(samples)]
                if samples > 1 and asking.beams == 1:
                    write_line(tally(texts), out)


def tally(texts: Sequence[str]) -> str:
    r"""How often each answer was given, the majority's first.

    >>> tally([r"\boxed{35}", r"\boxed{42}", r"\boxed{35.0}", ""])
    '=== 4 samples, 2 different answers: majority 35 (2), 42 (1), no answer (1)'
    """
    with MathVerifier() as verifier:
        votes = count_votes([extract(text, get_policy("math")).answer for text in texts], verifier)
    named = [f"{_short(vote.answer or '')} ({vote.votes})" for vote in votes[:TALLIED]]
    if len(votes) > TALLIED:
        named.append(f"{len(votes) - TALLIED} more ({sum(vote.votes for vote in votes[TALLIED:])})")
    if silent := len(texts) - sum(vote.votes for vote in votes):
        named.append(f"no answer ({silent})")
    tied = len(votes) > 1 and votes[0].votes == votes[1].votes
    lead = "" if not votes else "no majority, " if tied else "majority "
    counted = f"{len(votes)} different answer{'' if len(votes) == 1 else 's'}"
    return f"=== {len(texts)} samples, {counted}: {lead}{', '.join(named)}"


def _short(answer: str) -> str:
    return visible(answer if len(answer) <= LONGEST else answer[:LONGEST] + "…", one_line=True)


def _within_context(engine: "Engine", prompts: Sequence[Prompt], asking: Asking) -> Asking | None:
    """With `max_tokens` lowered to what the longest prompt leaves of the model's context; None if it leaves nothing."""
    longest = max(len(engine.chat.prompt_ids(prompt.messages)) for prompt in prompts)
    room = engine.model.config.max_position_embeddings - longest
    if room < 1:
        return None
    return replace(asking, sampling=replace(asking.sampling, max_tokens=min(room, asking.sampling.max_tokens)))


def _show(events: Iterable[Any], asking: Asking, out: TextIO) -> None:
    if Printer(asking.thinking, out).show(events) == "length":
        most = asking.sampling.max_tokens
        write_line(f"(cut off after {most} tokens: --max-tokens allows more)", sys.stderr)


def without_thinking(text: str) -> str:
    """The answer alone, as reasoning models' templates keep it in the next turn."""
    return text.rpartition(CLOSE)[2].strip() if CLOSE in text else text


def chat(engine: "Engine", asking: Asking, source: TextIO | None = None, out: TextIO | None = None) -> None:
    """Talk turn by turn, with questions from the lines of `source`. If that is no terminal, only the answers are written."""
    source, out = source or sys.stdin, out or sys.stdout
    messages: tuple[Message, ...] = ()
    terminal = source.isatty()
    if terminal:
        sys.stderr.write(f"{DIM}{HELP}{PLAIN}\n")
    turn = 0
    while True:
        question = _question(source, terminal)
        if question is None:
            return
        if question.startswith("/"):
            if question in LEAVE:
                return
            if question in ANEW:
                messages = ()
            write_line(_said(question, asking), sys.stderr)
            continue
        asked = asking.prompting.messages(question.strip())
        messages = (*messages, asked[-1]) if messages else asked
        text = _turn(engine, Prompt(f"turn {turn}", 0, messages), asking, out)
        messages = messages[:-1] if text is None else (*messages, Message("assistant", without_thinking(text)))
        turn += 1


def _said(command: str, asking: Asking) -> str:
    """What a command of the chat answers."""
    if command in ANEW:
        return "(the conversation is forgotten)"
    if command == "/help":
        return f"{HELP}\n{_settings(asking)}\nprompt: {asking.prompting.in_words()}"
    known = ("/help", *ANEW, *LEAVE)
    return f"(unknown command {command}{suggestion(command, known)} There are {', '.join(known)}. Nothing was sent.)"


def _settings(asking: Asking) -> str:
    sampling = asking.sampling
    values = {
        "temperature": sampling.temperature,
        "max-tokens": sampling.max_tokens,
        "top-p": sampling.top_p,
        "top-k": sampling.top_k,
        "min-p": sampling.min_p,
        "seed": sampling.seed,
        "beams": asking.beams,
        "thinking": asking.thinking,
        "think-most": asking.think_most,
        "think-least": asking.think_least,
    }
    given = " ".join(f"--{name} {value}" for name, value in values.items() if value is not None)
    return f"settings, changed by starting the chat with others: {given}"


def _question(source: TextIO, terminal: bool) -> str | None:
    """The next line that is not empty; None at the end, and on a terminal for an empty line."""
    try:
        while True:
            if terminal:
                write_line("> ", sys.stderr, end="")
            line = source.readline()
            if not line or (terminal and not line.strip()):
                return None
            if line.strip():
                return line.rstrip()
    except KeyboardInterrupt:
        write_line(stream=sys.stderr)
        return None


def _turn(engine: "Engine", prompt: Prompt, asking: Asking, out: TextIO) -> str | None:
    """The text of the answer, up to where Ctrl-C ended it; None if there is none."""
    fitting = _within_context(engine, [prompt], asking)
    if fitting is None:
        write_line("(the conversation is longer than the model's context: /new begins anew)", sys.stderr)
        return None
    printer = Printer(fitting.thinking, out)
    with suppress(KeyboardInterrupt):
        printer.show(answer(engine, [prompt], fitting))
    return printer.text or None
