"""The in-process engine: continuous batching for any model that `model.load` gives.

A step is: plan who runs, run the model once, pick tokens, finish. Who runs is decided in `continuous_batching.py`, what
they attend to is kept in `kv_cache.py`, tokens are picked in `sampling.py`.

The engine shares the module it is given: after a training step it samples from the new weights.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from whetstone import model as models
from whetstone.chat import Chat
from whetstone.decode.blocks import Blocks
from whetstone.decode.continuous_batching import Line, Scheduler
from whetstone.decode.kv_cache import KVCache, blocks_for
from whetstone.decode.plain_forward import fits, forward
from whetstone.decode.sampling import draws, pick
from whetstone.decode.transcript import Transcript
from whetstone.records import Completion, Prompt, Sampling

CACHE_BYTES = 1 << 30  # what the key/value cache may take; fewer sequences at once when they are long
PREFILL_TOKENS = 8192  # of prompts in one step; longer ones are run in parts, while others decode


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


class Engine:
    """A Generator over a transformers model in this process.

    `max_batch` sequences are decoded at once, fewer when their keys and values would take more than `cache_bytes`.

    `row_block`: a test mode, slower. Every matrix product then has this many rows, or is one prompt's own, and a sequence
    that entered is never sent back: what a rollout draws is the same to the bit whatever its neighbours, their order and
    their number. Without it, it is the same but for rounding in the matrix products.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_batch: int = 256,
        cache_bytes: int = CACHE_BYTES,
        prefill_tokens: int = PREFILL_TOKENS,
        row_block: int = 0,
    ):
        self.model = model
        self.chat = Chat(tokenizer)
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        self.prefill_tokens = prefill_tokens
        self.row_block = row_block
        config = model.config
        self._heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._cache: KVCache | None = None
        self._plain = False  # whether the model is run without its modules

    def generate(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling,
        control: Callable[[Prompt], Control] | None = None,
    ) -> Iterator[Completion]:
        """Completions as they finish. Prompts that are to share a run of the model follow one another.

        Raises ValueError when a prompt leaves no room in the model's context, or in the cache, for `max_tokens`.
        """
        decoding = self.decode(prompts, sampling, control)
        while decoding.busy:
            yield from decoding.step()

    def stream(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling,
        control: Callable[[Prompt], Control] | None = None,
    ) -> Iterator[Piece | Completion]:
        """`generate`, with the text of each completion piece by piece as it is written; the pieces join to its text.

        What a control takes back after it was shown is not unsaid.
        """
        decoding = self.decode(prompts, sampling, control, aloud=True)
        while decoding.busy:
            done = decoding.step()
            yield from decoding.pieces
            yield from done

    def decode(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling,
        control: Callable[[Prompt], Control] | None = None,
        aloud: bool = False,
    ) -> "Decoding":
        """The work of `generate`, to be taken in steps, between which single completions can be cancelled."""
        lines = [self.line(prompt, sampling, control) for prompt in prompts]
        self.check_context(lines)
        return Decoding(self, lines, aloud)

    def check_context(self, lines: Iterable[Line]) -> None:
        context = self.model.config.max_position_embeddings
        for line in lines:
            if len(line.prompt_ids) + line.sampling.max_tokens > context:
                raise ValueError(
                    f"a prompt of {len(line.prompt_ids)} tokens and max_tokens = {line.sampling.max_tokens} exceed the "
                    f"model's context of {context}: lower max_tokens, or drop the prompt."
                )

    def line(self, prompt: Prompt, sampling: Sampling, control: Callable[[Prompt], Control] | None = None) -> Line:
        stream = draws(sampling.seed, prompt.problem_id, prompt.index)
        ids = self.chat.prompt_ids(prompt.messages)
        return Line(prompt, ids, sampling, stream, control(prompt) if control else None)

    def blocks(self, wanted: int, least: int) -> Blocks:
        """An empty table of `wanted` blocks, or as many as `cache_bytes` allow. ValueError when these are less than `least`."""
        weight = next(self.model.parameters())
        layers = self.model.config.num_hidden_layers
        one = KVCache.bytes_per_block(layers, self._heads, self._size, weight.dtype)
        allowed = self.cache_bytes // one
        if allowed < least:
            raise ValueError(
                f"one prompt with max_tokens more needs {least * one / (1 << 20):.1f} MiB of cache and may take "
                f"{self.cache_bytes / (1 << 20):.1f}: lower max_tokens, or give the engine more cache_bytes."
            )
        wanted = min(allowed, wanted)
        self._plain = fits(self.model)
        kept, self._cache = self._cache, None
        if kept is not None and kept.capacity >= wanted and kept.holds(weight.dtype, weight.device):
            return Blocks(wanted, kept)
        del kept  # freed before the larger one is made
        return Blocks(wanted, KVCache(layers, wanted, self._heads, self._size, weight.dtype, weight.device))

    def give_back(self, blocks: Blocks) -> None:
        """The memory of `blocks` may be used again. Until then it is its user's alone."""
        self._cache = blocks.store

    @torch.no_grad()
    def logits(
        self, blocks: Blocks, parts: Sequence[tuple[Line, int]], ones: Sequence[Line]
    ) -> tuple[list[Line], torch.Tensor]:
        """Run tokens of each line. The lines, and the (n, V) logits after the last of the tokens of each."""
        if self.model.training:
            self.model.eval()
        if not self.row_block:
            return [*(line for line, _ in parts), *ones], self._run(blocks, parts, ones)
        calls = [([part], []) for part in parts]
        calls += [([], ones[i : i + self.row_block]) for i in range(0, len(ones), self.row_block)]
        lines = [*(line for line, _ in parts), *ones]
        return lines, torch.cat([self._run(blocks, *call) for call in calls])

    def _run(self, blocks: Blocks, parts: Sequence[tuple[Line, int]], ones: Sequence[Line]) -> torch.Tensor:
        cache = blocks.store
        cache.begin(
            blocks,
            [(line, line.cached, n) for line, n in parts],
            ones,
            [line.cached for line in ones],
            alike=self.row_block > 0,
        )
        ids = [i for line, n in parts for i in line.slice(line.cached, n)] + [
            line.slice(line.cached, 1)[0] for line in ones
        ]
        positions = [p for line, n in parts for p in range(line.cached, line.cached + n)] + [
            line.cached for line in ones
        ]
        ends, total = [], 0
        for _, n in parts:
            total += n
            ends.append(total - 1)
        ends += range(total, total + len(ones))
        if self.row_block and ones:
            padding = self.row_block - len(ones)
            ids, positions, ends = ids + [0] * padding, positions + [0] * padding, list(range(self.row_block))
        device = cache.keys.device
        hidden = self._hidden(torch.tensor(ids, device=device), torch.tensor(positions, device=device), cache)
        if len(ends) < len(hidden):
            hidden = hidden[torch.tensor(ends, device=device)]
        weight = self.model.get_output_embeddings().weight[: self.chat.size]
        return (hidden.float() @ weight.float().T)[: len(parts) + len(ones)]

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """(T,), (T,) -> (T, C)"""
        if self._plain:
            return forward(self.model, ids, positions, cache)
        return self.model.model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, cache=cache
        ).last_hidden_state[0]


class Decoding:
    """Lines on their way to completions, a step at a time."""

    def __init__(self, engine: Engine, lines: Sequence[Line], aloud: bool = False):
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
        alike: dict[Sampling, list[int]] = {}
        for row, line in enumerate(lines):
            alike.setdefault(line.sampling, []).append(row)
        for sampling, rows in alike.items():
            own = logits if len(rows) == len(lines) else logits[torch.tensor(rows, device=logits.device)]
            chosen = [lines[row] for row in rows]
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


def load_engine(model: str | Path, device: str = "auto", max_batch: int = 256) -> Engine:
    """An engine over a model folder or hub name."""
    return Engine(*models.load(model, models.choose_device(device)), max_batch=max_batch)
