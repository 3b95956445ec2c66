"""Beam search over the engine's cache: the `beams` likeliest continuations are kept at every step, the best finished returned.

The semantics are those of transformers' `generate(num_beams=…)`, scores included: the score of a finished beam is the sum
of its log-probabilities divided by its length (end token included) to the power of `length_penalty`; above 0 it favours
long answers, below 0 short ones. Of `beams` times (1 + the number of end tokens) candidates, only those among the first
`beams` may finish. `early_stopping`:

True      stop as soon as `beams` have finished
False     stop when the best running beam, scored at its present length, is below the worst finished one
"never"   the same, but with a positive penalty scored as if it grew to `max_tokens`: nothing better can be missed

Differs from transformers: ids that the tokenizer does not know are no candidates, a prompt is run once for all its beams,
and beams share the blocks of their common past, so that a reordering copies at most one block a beam.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from whetstone.decode.blocks import Blocks
from whetstone.decode.continuous_batching import Line
from whetstone.decode.engine import Engine
from whetstone.decode.kv_cache import BLOCK, blocks_for
from whetstone.records import Completion, Prompt, Sampling


@dataclass(frozen=True, slots=True)
class Beams:
    """How to search. `best` of the finished beams are returned."""

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
    """An answer of a beam search. Its index counts from 0, the best."""

    completion: Completion
    score: float


class _Finished(NamedTuple):
    score: float
    ids: list[int]
    logprobs: list[float]


@dataclass(slots=True, eq=False)
class _Search:
    """The beams of one prompt, likeliest first."""

    prompt: Prompt
    beams: list[Line]
    sums: list[float]  # of each beam's log-probabilities
    finished: list[_Finished] = field(default_factory=list)  # the best so far, best first
    open: bool = True


def beam_search(engine: Engine, prompts: Iterable[Prompt], settings: Beams) -> Iterator[list[Scored]]:
    """For each prompt in order its `best` answers, best first. As many prompts are searched at once as the engine has slots.

    Raises ValueError when a prompt leaves no room in the model's context, or in the cache, for `max_tokens`.
    """
    together = max(1, engine.max_batch // settings.beams)
    waiting = list(prompts)
    for i in range(0, len(waiting), together):
        yield from _search_block(engine, waiting[i : i + together], settings)


def _search_block(engine: Engine, prompts: Sequence[Prompt], settings: Beams) -> list[list[Scored]]:
    sampling = Sampling(temperature=0.0, max_tokens=settings.max_tokens)
    lines = [engine.line(prompt, sampling) for prompt in prompts]
    engine.check_context(lines)
    # one more: a block moves when it is first shared
    one = settings.beams * (blocks_for(max(map(_most_tokens, lines))) + 1) + 1
    blocks = engine.blocks(len(lines) * one, one)
    most = blocks.capacity // one
    if most < len(lines):  # the cache holds fewer prompts at once
        engine.give_back(blocks)
        parts = [prompts[i : i + most] for i in range(0, len(prompts), most)]
        return [found for part in parts for found in _search_block(engine, part, settings)]
    searches = [_Search(line.prompt, [line], [0.0]) for line in lines]
    logprobs = [_prefill(engine, blocks, search.beams[0]) for search in searches]
    while True:
        for search, own in zip((s for s in searches if s.open), logprobs, strict=True):
            _extend(engine, blocks, search, own, settings)
        open_ones = [search for search in searches if search.open]
        if not open_ones:
            engine.give_back(blocks)
            return [_answers(engine, search, settings) for search in searches]
        beams = [beam for search in open_ones for beam in search.beams]
        found = _run(engine, blocks, [(beam, 1) for beam in beams])
        logprobs = list(found.split([len(search.beams) for search in open_ones]))


def _most_tokens(line: Line) -> int:
    return len(line.prompt_ids) + line.sampling.max_tokens


def _prefill(engine: Engine, blocks: Blocks, line: Line) -> torch.Tensor:
    """(1, V) log-probabilities of the first token."""
    while True:
        found = _run(engine, blocks, [(line, min(line.pending, engine.prefill_tokens))])
        if not line.pending:
            return found


def _run(engine: Engine, blocks: Blocks, work: Sequence[tuple[Line, int]]) -> torch.Tensor:
    """Run so many tokens of each line: (n, V) log-probabilities of the next one."""
    for line, count in work:
        blocks.take(line, blocks_for(line.cached + count) - len(line.blocks))
    ones = [line for line, count in work if count == 1]
    logits = engine.logits(blocks, [part for part in work if part[1] > 1], ones)[1]
    for line, count in work:
        line.cached += count
    return logits.log_softmax(-1)


def _extend(engine: Engine, blocks: Blocks, search: _Search, logprobs: torch.Tensor, settings: Beams) -> None:
    """One token more for each beam, from their (beams, V) log-probabilities; `open` tells whether to go on."""
    stops = set(engine.chat.stops)
    sums = torch.tensor(search.sums, dtype=torch.float64, device=logprobs.device)[:, None] + logprobs
    wanted = max(2, 1 + len(stops)) * settings.beams
    scores, where = sums.flatten().topk(min(wanted, sums.numel()))
    size = logprobs.shape[1]
    candidates = [(score, i // size, i % size) for score, i in zip(scores.tolist(), where.tolist(), strict=True)]
    length = len(search.beams[0].ids) + 1
    last = length == settings.max_tokens
    own = logprobs.gather(1, (where % size)[None].expand(len(logprobs), -1)).tolist()
    ending = [(n, c) for n, c in enumerate(candidates[: settings.beams]) if last or c[2] in stops]
    for n, (score, parent, token) in ending:
        beam = search.beams[parent]
        found = _Finished(score / length**settings.length_penalty, [*beam.ids, token], [*beam.logprobs, own[parent][n]])
        search.finished.append(found)
    search.finished.sort(key=lambda done: -done.score)
    del search.finished[settings.beams :]
    going = [(n, c) for n, c in enumerate(candidates) if not last and c[2] not in stops][: settings.beams]
    search.open = bool(going) and not _settled(search.finished, going[0][1][0], length, settings)
    if search.open:
        children = [(parent, token, own[parent][n]) for n, (_, parent, token) in going]
        search.beams = _children(blocks, search.beams, children)
        search.sums = [score for _, (score, _, _) in going]
    else:
        for beam in search.beams:
            blocks.keep(beam, 0)


def _settled(finished: Sequence[_Finished], best: float, length: int, settings: Beams) -> bool:
    """Whether no running beam, of which the best has the sum `best`, is worth going on with."""
    if len(finished) < settings.beams:
        return False
    if settings.early_stopping is True:
        return True
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        length = settings.max_tokens
    return best / length**settings.length_penalty <= finished[-1].score


def _children(blocks: Blocks, beams: Sequence[Line], children: Sequence[tuple[int, int, float]]) -> list[Line]:
    """The new beams, each (parent, token, its log-probability). A parent's first child goes on in its place."""
    for parent in set(range(len(beams))) - {parent for parent, _, _ in children}:
        blocks.keep(beams[parent], 0)
    free = {parent: beam for parent, beam in enumerate(beams)}
    texts = [(list(beam.ids), list(beam.logprobs)) for beam in beams]
    grown = []
    for parent, token, logprob in children:
        beam = free.pop(parent, None) or _fork(blocks, beams[parent])
        ids, logprobs = texts[parent]
        beam.ids, beam.logprobs = [*ids, token], [*logprobs, logprob]
        grown.append(beam)
    return grown


def _fork(blocks: Blocks, line: Line) -> Line:
    """A line with the same past: whole blocks are shared, the one in which both will write on is copied."""
    other = Line(line.prompt, line.prompt_ids, line.sampling, cached=line.cached)
    whole, rest = divmod(line.cached, BLOCK)
    blocks.share(line, other, whole)
    if rest:
        blocks.take(other, 1)
        blocks.store.copy([line.blocks[whole]], [other.blocks[whole]])
    return other


def _answers(engine: Engine, search: _Search, settings: Beams) -> list[Scored]:
    chat, prompt_ids = engine.chat, search.beams[0].prompt_ids
    return [
        Scored(
            Completion(
                search.prompt.problem_id,
                index,
                chat.text(done.ids),
                "end" if done.ids[-1] in chat.stops else "length",
                prompt_ids,
                done.ids,
                done.logprobs,
            ),
            done.score,
        )
        for index, done in enumerate(search.finished[: settings.best])
    ]
