"""Prompts on their way to completions. A step is: plan who runs, run the model once, pick tokens, finish."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from whetstone.decode.continuous_batching import Line, Scheduler
from whetstone.decode.kv_cache import blocks_for
from whetstone.decode.sampling import pick
from whetstone.decode.transcript import Transcript
from whetstone.records import Completion

if TYPE_CHECKING:
    from whetstone.decode.engine import Engine


class Edit(NamedTuple):
    """What a control changes after a token: first the last `drop` ids go, then `append` come, then it ends if it `ends`.

    Appended ids were not drawn: their log-probability is 0.
    """

    drop: int = 0
    append: Sequence[int] = ()
    ends: str = ""  # the completion's `stop`


class Control(Protocol):
    """Steers one completion: asked after each drawn token, before anything else ends it."""

    held: Sequence[str]  # strings that it may take back: not shown while they are incomplete

    def __call__(self, ids: list[int]) -> Edit | None: ...


class Piece(NamedTuple):
    """New text of a completion that is still being written."""

    problem_id: str
    index: int
    text: str


class Decoding:
    """Lines on their way to completions, a step at a time."""

    def __init__(self, engine: "Engine", lines: Sequence[Line], aloud: bool = False):
        self.engine = engine
        longest = max((len(line.prompt_ids) + line.sampling.max_tokens for line in lines), default=1)
        slots = max(1, min(engine.max_batch, len(lines)))
        one = blocks_for(longest) + 1
        blocks = engine.blocks(slots * one, one)
        self.scheduler = Scheduler(blocks, slots, engine.prefill_tokens, reserve=engine.row_block > 0)
        self.scheduler.add(lines)
        self.aloud = aloud
        self.pieces: list[Piece] = []  # of the last step
        self._transcripts: dict[int, Transcript] = {}
        self._seen: dict[int, torch.Tensor] = {}

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.waiting or self.scheduler.live)

    def step(self) -> list[Completion]:
        """One more token for each line that decodes. Returns those that this completed."""
        self.pieces = []
        parts, ones = self.scheduler.plan()
        lines, logits = self.engine.logits(self.scheduler.blocks, parts, ones)
        counts = [n for _, n in parts] + [1] * len(ones)
        next_of = [self.scheduler.ran(line, n) for line, n in zip(lines, counts, strict=True)]
        told = [(line, row) for row, followers in enumerate(next_of) for line in followers]
        if len(told) != len(logits) or any(len(followers) != 1 for followers in next_of):
            logits = logits[torch.tensor([row for _, row in told], dtype=torch.long, device=logits.device)]
        done = []
        for line, token, logprob in self._picked([line for line, _ in told], logits):
            line.ids.append(token)
            line.logprobs.append(logprob)
            stop = self._stop(line, token)
            if stop:
                done.append(self._complete(line, stop))
        if not self.busy:
            self.engine.give_back(self.scheduler.blocks)
        return done

    def cancel(self, problem_id: str, index: int) -> Completion | None:
        """What a line has written so far, with `stop` "cancelled"; None when there is no such line (any more)."""
        for line in (*self.scheduler.live, *self.scheduler.waiting):
            if (line.prompt.problem_id, line.prompt.index) == (problem_id, index):
                return self._complete(line, "cancelled")
        return None

    def _picked(self, lines: Sequence[Line], logits: torch.Tensor) -> Iterator[tuple[Line, int, float]]:
        """(line, token, log-probability), picked together for lines that are sampled alike."""
        alike: dict[int, list[int]] = {}
        for row, line in enumerate(lines):
            alike.setdefault(id(line.sampling), []).append(row)
        for rows in alike.values():
            own = logits if len(rows) == len(lines) else logits[torch.tensor(rows, device=logits.device)]
            chosen = [lines[row] for row in rows]
            sampling = chosen[0].sampling
            numbers = [next(line.draws) if sampling.temperature else 0.0 for line in chosen]
            seen = None
            if sampling.repetition_penalty != 1:
                seen = torch.stack([self._ids_seen(line, logits) for line in chosen])
            tokens, logprobs = pick(own, torch.tensor(numbers, device=logits.device), sampling, seen)
            yield from zip(chosen, tokens.tolist(), logprobs.tolist(), strict=True)

    def _ids_seen(self, line: Line, logits: torch.Tensor) -> torch.Tensor:
        """(V,) True for the ids of prompt and completion."""
        seen = self._seen.get(id(line))
        new = line.ids[-1:]
        if seen is None or line.control is not None:  # a control may take ids back
            seen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            new = [i for i in (*line.prompt_ids, *line.ids) if i < len(seen)]
        seen[new] = True
        self._seen[id(line)] = seen
        return seen

    def _stop(self, line: Line, token: int) -> str:
        """Why the line ends with this token; "" when it goes on."""
        sampling, chat = line.sampling, self.engine.chat
        edit = line.control(line.ids) if line.control is not None else None
        if edit is not None:
            self._apply(line, edit)
        stop = edit.ends if edit is not None else ""
        if edit is None and token in chat.stops:
            stop = "end"
        elif edit is None and token in sampling.stop_ids:
            stop = "stop"
        elif not stop and len(line.ids) >= sampling.max_tokens:
            stop = "length"
        if self.aloud or sampling.stop:
            transcript = self._transcript(line)
            piece = transcript.read(line.ids, done=bool(stop))
            if transcript.stopped:
                stop = "stop"
            if self.aloud and piece:
                self.pieces.append(Piece(line.prompt.problem_id, line.prompt.index, piece))
        return stop

    def _apply(self, line: Line, edit: Edit) -> None:
        if edit.drop:
            del line.ids[-edit.drop :], line.logprobs[-edit.drop :]
        kept = line.length
        room = line.sampling.max_tokens - len(line.ids)
        line.ids += list(edit.append)[:room]
        line.logprobs += [0.0] * (len(line.ids) - len(line.logprobs))
        self.scheduler.cut(line, min(kept, line.length - 1))

    def _transcript(self, line: Line) -> Transcript:
        if id(line) not in self._transcripts:
            held = line.control.held if line.control is not None else ()
            self._transcripts[id(line)] = Transcript(self.engine.chat, line.sampling.stop, held)
        return self._transcripts[id(line)]

    def _complete(self, line: Line, stop: str) -> Completion:
        self.scheduler.leave(line)
        self._seen.pop(id(line), None)
        transcript = self._transcripts.pop(id(line), None)
        stopped = transcript is not None and transcript.stopped
        text = transcript.text if stopped else self.engine.chat.text(line.ids)
        prompt = line.prompt
        return Completion(prompt.problem_id, prompt.index, text, stop, line.prompt_ids, line.ids, line.logprobs)
