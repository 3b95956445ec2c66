"""Sequences on their way to completions. A step: schedule, run the model once, sample tokens, finish."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from whetstone.chat import Chat
from whetstone.decode.continuous_batching import Scheduler
from whetstone.decode.detokenizer import Detokenizer
from whetstone.decode.kv_cache import BLOCK, blocks_for
from whetstone.decode.runner import ModelRunner
from whetstone.decode.sampling import pick
from whetstone.decode.sequence import Edit, Sequence
from whetstone.records import Completion


class Piece(NamedTuple):
    """New text of a completion that is still being written."""

    problem_id: str
    index: int
    text: str


class Decoding:
    """Decodes `sequences` step by step, at most `max_batch` at once. With `streaming`, `pieces` is the last step's text.

    `longest`: it stays open, until `close`, for sequences of at most so many tokens that are added later.

    Raises ValueError if the cache has no room for the longest of the sequences.
    """

    def __init__(
        self, runner: ModelRunner, chat: Chat, sequences: list[Sequence],
        max_batch: int, prefill_tokens: int, streaming: bool = False, longest: int | None = None,
    ):  # fmt: skip
        self.runner, self.chat = runner, chat
        self.open = longest is not None
        at_once = max_batch if self.open else max(1, min(max_batch, len(sequences)))
        each = blocks_for(longest or max(map(longest_of, sequences), default=1)) + 1
        blocks = runner.allocate(at_once * each, 2 if self.open else each)
        self.scheduler = Scheduler(blocks, at_once, prefill_tokens, reserve=runner.row_block > 0)
        self.streaming = streaming
        self.pieces: list[Piece] = []
        self._detokenizers: dict[Sequence, Detokenizer] = {}
        self._occurring: dict[Sequence, torch.Tensor] = {}
        for sequence in sequences:
            self.add(sequence)

    def add(self, sequence: Sequence) -> None:
        """The sequence is decoded with the others from the next step on."""
        if self.streaming or sequence.sampling.stop:
            removable = sequence.control.removable if sequence.control else ()
            self._detokenizers[sequence] = Detokenizer(sequence.chat or self.chat, sequence.sampling.stop, removable)
        self.scheduler.waiting.append(sequence)

    @property
    def room(self) -> int:
        """Tokens, with the prompt, of the longest sequence that the cache holds."""
        return (self.scheduler.blocks.capacity - 1) * BLOCK

    def close(self) -> None:
        """Nothing is decoded any more."""
        self.runner.release(self.scheduler.blocks)

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.waiting or self.scheduler.running)

    def step(self) -> list[Completion]:
        """One more token for each sequence that decodes. Returns the completions that this finished."""
        self.pieces = []
        prefills, decodes = self.scheduler.schedule()
        logits = self.runner.logits(self.scheduler.blocks, prefills, decodes)  # (prefills + decodes, V)
        work = [*prefills, *((sequence, 1) for sequence in decodes)]
        ready = [
            (sequence, row) for row, (ran, count) in enumerate(work) for sequence in self.scheduler.advance(ran, count)
        ]
        rows = [row for _, row in ready]
        if rows != list(range(len(logits))):
            logits = logits[torch.tensor(rows, dtype=torch.long, device=logits.device)]
        completions = []
        for sequence, token, logprob in self._sample([sequence for sequence, _ in ready], logits):
            sequence.ids.append(token)
            sequence.logprobs.append(logprob)
            stop = self._stop(sequence, token)
            if stop:
                completions.append(self._finish(sequence, stop))
        if not self.busy and not self.open:
            self.close()
        return completions

    def cancel(self, problem_id: str, index: int) -> Completion | None:
        """The completion as far as it was written, with `stop` "cancelled"; None if it is not (or no longer) decoded."""
        for sequence in (*self.scheduler.running, *self.scheduler.waiting):
            if (sequence.prompt.problem_id, sequence.prompt.index) == (problem_id, index):
                return self._finish(sequence, "cancelled")
        return None

    def _sample(self, sequences: list[Sequence], logits: torch.Tensor) -> Iterator[tuple[Sequence, int, float]]:
        """(sequence, token, log-probability) from logits (B, V); sequences with the same settings are sampled together."""
        groups: dict[int, list[int]] = {}
        for row, sequence in enumerate(sequences):
            groups.setdefault(id(sequence.sampling), []).append(row)
        for rows in groups.values():
            own = logits if len(rows) == len(sequences) else logits[torch.tensor(rows, device=logits.device)]
            group = [sequences[row] for row in rows]
            sampling = group[0].sampling
            numbers = [next(sequence.draws) if sampling.temperature else 0.0 for sequence in group]
            occurring = None
            if sampling.repetition_penalty != 1:
                occurring = torch.stack([self._occurring_ids(sequence, logits) for sequence in group])
            tokens, logprobs = pick(own, torch.tensor(numbers, device=logits.device), sampling, occurring)
            for row, (sequence, token) in enumerate(zip(group, tokens.tolist(), strict=True)):
                if sequence.alternatives is not None:
                    sequence.likeliest.append(likeliest(own[row], token, sequence.alternatives))
            yield from zip(group, tokens.tolist(), logprobs.tolist(), strict=True)

    def _occurring_ids(self, sequence: Sequence, logits: torch.Tensor) -> torch.Tensor:
        """(V,) True for the ids of prompt and completion."""
        occurring = self._occurring.get(sequence)
        new = sequence.ids[-1:]
        if occurring is None or sequence.control is not None:  # a control may have removed ids
            occurring = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            new = [i for i in (*sequence.prompt_ids, *sequence.ids) if i < len(occurring)]
        occurring[new] = True
        self._occurring[sequence] = occurring
        return occurring

    def _stop(self, sequence: Sequence, token: int) -> str:
        """Why the sequence ends with this token; "" if it goes on."""
        stop = ""
        edit = sequence.control(sequence.ids) if sequence.control is not None else None
        if edit is not None:
            self._apply(sequence, edit)
            stop = edit.ends
        elif token in self.chat.stops:
            stop = "end"
        elif token in sequence.sampling.stop_ids:
            stop = "stop"
        if not stop and len(sequence.ids) >= sequence.sampling.max_tokens:
            stop = "length"
        detokenizer = self._detokenizers.get(sequence)
        if detokenizer is not None:
            text = detokenizer.update(sequence.ids, done=bool(stop))
            if detokenizer.stopped:
                stop = "stop"
            if self.streaming and text:
                self.pieces.append(Piece(sequence.prompt.problem_id, sequence.prompt.index, text))
        return stop

    def _apply(self, sequence: Sequence, edit: Edit) -> None:
        if edit.drop:
            del sequence.ids[-edit.drop :], sequence.logprobs[-edit.drop :], sequence.likeliest[-edit.drop :]
        unchanged = sequence.length
        room = sequence.sampling.max_tokens - len(sequence.ids)
        sequence.ids += list(edit.append)[:room]
        sequence.logprobs += [0.0] * (len(sequence.ids) - len(sequence.logprobs))
        if sequence.alternatives is not None:
            sequence.likeliest += [[(i, 0.0)] for i in sequence.ids[len(sequence.likeliest) :]]
        # the last token's logits are needed next: it must run (again)
        self.scheduler.truncate(sequence, min(unchanged, sequence.length - 1))

    def _finish(self, sequence: Sequence, stop: str) -> Completion:
        self.scheduler.remove(sequence)
        self._occurring.pop(sequence, None)
        detokenizer = self._detokenizers.pop(sequence, None)
        stopped = detokenizer is not None and detokenizer.stopped
        text = detokenizer.text if stopped else (sequence.chat or self.chat).completion(sequence.ids)
        name = sequence.prompt.problem_id, sequence.prompt.index
        return Completion(*name, text, stop, sequence.prompt_ids, sequence.ids, sequence.logprobs)


def longest_of(sequence: Sequence) -> int:
    """Tokens of the sequence, its prompt included, at most."""
    return len(sequence.prompt_ids) + sequence.sampling.max_tokens


def likeliest(logits: torch.Tensor, token: int, count: int) -> list[tuple[int, float]]:
    """(id, log-probability) of `token` and of the `count` likeliest tokens, from logits (V,)."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(count, len(logprobs)))
    return [(token, logprobs[token].item()), *zip(best.indices.tolist(), best.values.tolist(), strict=True)]
