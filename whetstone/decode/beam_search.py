"""Beam search over the engine's cache: each step keeps the `beams` most probable continuations; the best finished are returned.

The semantics are those of transformers' `generate(num_beams=…)`, scores included. The score of a finished beam is the sum of
its log-probabilities divided by length ** length_penalty, the end token included (Wu et al. 2016, arXiv 1609.08144, without
its offset): above 0 it favours long answers, below 0 short ones. Of `beams` times (1 + the number of end tokens) candidates,
only those among the first `beams` may finish. `early_stopping`:

True      stop as soon as `beams` have finished
False     stop if the best running beam, scored at its present length, is below the worst finished one
"never"   as False, but with a positive penalty scored as if it grew to `max_tokens`, so that nothing better is missed

Differs from transformers: ids that the tokenizer does not know are no candidates, a prompt is prefilled once for all its
beams, and beams share the blocks of their common prefix, so a reordering copies at most one block per beam.
"""

import collections.abc as abc
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from whetstone.decode.block_manager import BlockManager
from whetstone.decode.engine import Engine
from whetstone.decode.kv_cache import BLOCK, blocks_for
from whetstone.decode.sequence import Sequence
from whetstone.records import Completion, Prompt, Sampling


@dataclass(frozen=True, slots=True)
class Beams:
    """How to search. The `best` finished beams are returned. Raises ValueError for numbers that cannot be."""

    beams: int = 4
    max_tokens: int = 512
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    best: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.best <= self.beams:
            raise ValueError(f"best = {self.best} of beams = {self.beams}: ask for 1 to {self.beams} answers.")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens = {self.max_tokens}: an answer has at least one token.")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f"early_stopping = {self.early_stopping!r}: it is True, False or 'never'.")


class Scored(NamedTuple):
    """An answer of a beam search. The index of its completion counts from the best, 0."""

    completion: Completion
    score: float


class _Finished(NamedTuple):
    score: float
    ids: list[int]
    logprobs: list[float]


@dataclass(slots=True, eq=False)
class _Search:
    """The beams of one prompt, most probable first."""

    prompt: Prompt
    beams: list[Sequence]
    sums: list[float]  # of each beam's log-probabilities
    finished: list[_Finished] = field(default_factory=list)  # the best so far, best first
    running: bool = True


def beam_search(engine: Engine, prompts: abc.Iterable[Prompt], settings: Beams) -> abc.Iterator[list[Scored]]:
    """For each prompt in order its `best` answers, best first. As many prompts as fit into `max_batch` are searched at once.

    Raises ValueError if a prompt leaves no room in the model's context, or in the cache, for `max_tokens`.
    """
    return (answers for answers in beam_steps(engine, prompts, settings) if answers is not None)


def beam_steps(
    engine: Engine, prompts: abc.Iterable[Prompt], settings: Beams
) -> abc.Generator[list[Scored] | None, None, None]:
    """`beam_search`, with a None after each step of the model. Closing it gives its cache back."""
    together = max(1, engine.max_batch // settings.beams)
    waiting = list(prompts)
    for i in range(0, len(waiting), together):
        yield from _search_block(engine, waiting[i : i + together], settings)


def _search_block(
    engine: Engine, prompts: list[Prompt], settings: Beams
) -> abc.Generator[list[Scored] | None, None, None]:
    sampling = Sampling(temperature=0.0, max_tokens=settings.max_tokens)
    sequences = [engine.sequence(prompt, sampling) for prompt in prompts]
    engine.check_context(sequences)
    longest = max(len(sequence.prompt_ids) for sequence in sequences) + settings.max_tokens
    # one block more per prompt: when a block is first shared, its copy exists beside it
    each = settings.beams * (blocks_for(longest) + 1) + 1
    runner = engine.runner
    blocks = runner.allocate(len(sequences) * each, each)
    fitting = blocks.capacity // each
    if fitting < len(sequences):  # the cache holds fewer prompts at once
        runner.release(blocks)
        parts = [prompts[i : i + fitting] for i in range(0, len(prompts), fitting)]
        for part in parts:
            yield from _search_block(engine, part, settings)
        return
    searches = [_Search(sequence.prompt, [sequence], [0.0]) for sequence in sequences]
    try:
        logprobs = [_prefill(engine, blocks, sequence) for sequence in sequences]  # (1, V) each
        while True:
            for search, own in zip((s for s in searches if s.running), logprobs, strict=True):
                _extend(engine, blocks, search, own, settings)
            running = [search for search in searches if search.running]
            if not running:
                break
            together = _run(engine, blocks, [(beam, 1) for search in running for beam in search.beams])
            logprobs = list(together.split([len(search.beams) for search in running]))  # (beams, V) each
            yield None
    finally:
        runner.release(blocks)
    yield from (_answers(engine, search, settings) for search in searches)


def _prefill(engine: Engine, blocks: BlockManager, sequence: Sequence) -> torch.Tensor:
    """Log-probabilities (1, V) of the first token."""
    while True:
        logprobs = _run(engine, blocks, [(sequence, min(sequence.pending, engine.prefill_tokens))])
        if not sequence.pending:
            return logprobs


def _run(engine: Engine, blocks: BlockManager, work: list[tuple[Sequence, int]]) -> torch.Tensor:
    """Run so many tokens of each of B sequences: log-probabilities (B, V) of the next token."""
    for sequence, count in work:
        blocks.allocate(sequence, blocks_for(sequence.cached + count) - len(sequence.block_table))
    prefills = [part for part in work if part[1] > 1]
    logits = engine.runner.logits(blocks, prefills, [sequence for sequence, count in work if count == 1])
    for sequence, count in work:
        sequence.cached += count
    return logits.log_softmax(-1)


def _extend(engine: Engine, blocks: BlockManager, search: _Search, logprobs: torch.Tensor, settings: Beams) -> None:
    """One token more for each beam, from log-probabilities (beams, V). Sets `running` to whether the search goes on."""
    stops = set(engine.chat.stops)
    sums = torch.tensor(search.sums, dtype=torch.float64, device=logprobs.device)[:, None] + logprobs  # (beams, V)
    wanted = max(2, 1 + len(stops)) * settings.beams
    scores, places = sums.flatten().topk(min(wanted, sums.numel()))
    size, own = logprobs.shape[1], logprobs.flatten()[places]
    columns = zip(scores.tolist(), places.tolist(), own.tolist(), strict=True)
    # (sum, beam, token, its log-probability), most probable first
    candidates = [(score, i // size, i % size, logprob) for score, i, logprob in columns]
    length = len(search.beams[0].ids) + 1
    last = length == settings.max_tokens
    for score, parent, token, logprob in candidates[: settings.beams]:
        if last or token in stops:
            beam = search.beams[parent]
            normalised = score / length**settings.length_penalty
            search.finished.append(_Finished(normalised, [*beam.ids, token], [*beam.logprobs, logprob]))
    search.finished.sort(key=lambda finished: -finished.score)
    del search.finished[settings.beams :]
    going = [candidate for candidate in candidates if not last and candidate[2] not in stops][: settings.beams]
    search.running = bool(going) and not _settled(search.finished, going[0][0], length, settings)
    if search.running:
        search.beams = _children(blocks, search.beams, [candidate[1:] for candidate in going])
        search.sums = [candidate[0] for candidate in going]
    else:
        for beam in search.beams:
            blocks.truncate(beam, 0)


def _settled(finished: list[_Finished], best: float, length: int, settings: Beams) -> bool:
    """Whether the search may stop, as no running beam can matter; the best of them has the sum `best`."""
    if len(finished) < settings.beams:
        return False
    if settings.early_stopping is True:
        return True
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        length = settings.max_tokens
    return best / length**settings.length_penalty <= finished[-1].score


def _children(blocks: BlockManager, beams: list[Sequence], children: list[tuple[int, int, float]]) -> list[Sequence]:
    """The new beams, each (parent, token, its log-probability). A parent becomes its first child."""
    for parent in set(range(len(beams))) - {parent for parent, _, _ in children}:
        blocks.truncate(beams[parent], 0)
    unused = dict(enumerate(beams))
    texts = [(list(beam.ids), list(beam.logprobs)) for beam in beams]
    grown = []
    for parent, token, logprob in children:
        beam = unused.pop(parent, None) or _fork(blocks, beams[parent])
        ids, logprobs = texts[parent]
        beam.ids, beam.logprobs = [*ids, token], [*logprobs, logprob]
        grown.append(beam)
    return grown


def _fork(blocks: BlockManager, sequence: Sequence) -> Sequence:
    """A sequence with the same prefix in the cache: whole blocks are shared, the last one, not yet full, is copied."""
    fork = Sequence(sequence.prompt, sequence.prompt_ids, sequence.sampling, cached=sequence.cached)
    whole, rest = divmod(sequence.cached, BLOCK)
    blocks.share(sequence.block_table[:whole], fork)
    if rest:
        blocks.allocate(fork, 1)
        blocks.cache.copy([sequence.block_table[whole]], [fork.block_table[whole]])
    return fork


def _answers(engine: Engine, search: _Search, settings: Beams) -> list[Scored]:
    chat, prompt_ids, answers = engine.chat, search.beams[0].prompt_ids, []
    for index, (score, ids, logprobs) in enumerate(search.finished[: settings.best]):
        stop = "end" if ids[-1] in chat.stops else "length"
        done = Completion(search.prompt.problem_id, index, chat.completion(ids), stop, prompt_ids, ids, logprobs)
        answers.append(Scored(done, score))
    return answers
