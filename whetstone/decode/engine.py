"""The in-process engine: continuous batching for any model that `model.load` gives.

Who runs next is decided in `continuous_batching.py`, what they attend to is kept in `kv_cache.py`, tokens are picked in
`sampling.py`; `decoding.py` puts the three together, a step at a time. Here is what runs the model.

The engine shares the module it is given: after a training step it samples from the new weights.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from whetstone import model as models
from whetstone.attention import HALVES
from whetstone.chat import Chat
from whetstone.decode.blocks import Blocks
from whetstone.decode.continuous_batching import Line
from whetstone.decode.cuda_graphs import Replayed
from whetstone.decode.decoding import Control, Decoding, Piece
from whetstone.decode.kv_cache import KVCache, gpu_kernels
from whetstone.decode.plain_forward import PlainForward, fits
from whetstone.decode.sampling import draws
from whetstone.records import Completion, Prompt, Sampling

CACHE_BYTES = 1 << 30  # what the key/value cache may take on a CPU; fewer sequences at once when they are long
CACHE_SHARE = 0.8  # of what is free on a GPU; a step needs some beside it
PREFILL_TOKENS = 8192  # of prompts in one step; longer ones are run in parts, while others decode


class Engine:
    """A Generator over a transformers model in this process.

    `max_batch` sequences are decoded at once, fewer when their keys and values would take more than `cache_bytes`. Left out,
    these are CACHE_BYTES on a CPU; on a GPU CACHE_SHARE of what is free when decoding begins, given back when it ends: who
    trains beside needs it then.

    `row_block`: a test mode, slower. Every matrix product then has this many rows, or is one prompt's own, and a sequence
    that entered is never sent back: what a rollout draws is the same to the bit whatever its neighbours, their order and
    their number. Without it, it is the same but for rounding in the matrix products.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_batch: int = 256,
        cache_bytes: int | None = None,
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
        self._plain: PlainForward | None = None
        self._head: torch.Tensor

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
    ) -> Decoding:
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
        """An empty table of `wanted` blocks, or as many as there is room for. ValueError when these are less than `least`."""
        weight = next(self.model.parameters())
        room = self._room(weight.device)
        layers = self.model.config.num_hidden_layers
        one = KVCache.bytes_per_block(layers, self._heads, self._size, weight.dtype)
        allowed = room // one
        if allowed < least:
            raise ValueError(
                f"one prompt with max_tokens more needs {least * one / (1 << 20):.1f} MiB of cache and may take "
                f"{room / (1 << 20):.1f}: lower max_tokens, or give the engine more cache_bytes."
            )
        wanted = min(allowed, wanted)
        shared = self.model.config.num_attention_heads // self._heads
        kernels = gpu_kernels(weight.device, weight.dtype, self._heads, shared, self._size)
        self._plain = PlainForward(self.model, kernels) if fits(self.model) else None
        self._head = self._head_weight()
        cache, self._cache = self._cache, None
        if cache is None or cache.capacity < wanted or not cache.holds(weight.dtype, weight.device):
            del cache  # freed before the larger one is made
            cache = KVCache(layers, wanted, self._heads, self._size, weight.dtype, weight.device, kernels)
        cache.alone = self.row_block > 0
        # filled up to few shapes, steps would gather more: only kernels read no more than there is
        cache.steps = self._replayed(cache) if weight.is_cuda and kernels is not None else None
        return Blocks(wanted, cache)

    def _room(self, device: torch.device) -> int:
        """Bytes that the cache may take."""
        if self.cache_bytes is not None or device.type != "cuda":
            return CACHE_BYTES if self.cache_bytes is None else self.cache_bytes
        torch.cuda.empty_cache()  # what torch keeps may be in pieces
        return int(CACHE_SHARE * torch.cuda.mem_get_info(device)[0])

    def _replayed(self, cache: KVCache) -> Replayed | None:
        """Steps of one token a sequence that need not be told their work call by call. None where they cannot be captured:
        modules that we do not know may ask the device for numbers."""
        plain = self._plain
        if plain is None or self.row_block or not plain.same_at_any_length:
            return None

        kept = weakref.ref(cache)  # whose memory would else wait for the garbage collector, as it holds the steps

        def step(ids: torch.Tensor, positions: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
            there = kept()
            there.begin_rows(positions, tables)
            return self._logits(plain(ids, positions, there))

        return Replayed(step, plain.reserve, cache.keys.device)

    def _head_weight(self) -> torch.Tensor:
        """(V, C) without unused slots. On a CPU in fp32 at least: logits are, and half a head would be widened every step."""
        weight = self.model.get_output_embeddings().weight[: self.chat.size].detach()
        return weight.float() if weight.device.type == "cpu" and weight.dtype.itemsize < 4 else weight

    def give_back(self, blocks: Blocks) -> None:
        """The memory of `blocks` may be used again. Until then it is its user's alone."""
        blocks.store.steps = None
        if self.cache_bytes is None and blocks.store.keys.is_cuda:
            blocks.store.release()
            torch.cuda.empty_cache()  # or what others put there next would leave no room for another cache
        else:
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
        at = [line.cached for line in ones]
        if cache.steps is not None and not parts:
            return cache.steps([line.last for line in ones], at, ones)
        cache.begin([(line, line.cached, n) for line, n in parts], ones, at)
        ids = [i for line, n in parts for i in line.slice(line.cached, n)]
        positions = [p for line, n in parts for p in range(line.cached, line.cached + n)]
        last = [end - 1 for end in accumulate(n for _, n in parts)]  # of each line, the row of its last token
        last += range(len(ids), len(ids) + len(ones))
        ids += [line.last for line in ones]
        positions += at
        if self.row_block and ones:
            padding = [0] * (self.row_block - len(ones))
            ids, positions, last = ids + padding, positions + padding, list(range(self.row_block))
        device = cache.keys.device
        if self._plain is not None:
            self._plain.reserve(max(positions) + 1)
        hidden = self._hidden(torch.tensor(ids, device=device), torch.tensor(positions, device=device), cache)
        if len(last) < len(hidden):
            hidden = hidden[torch.tensor(last, device=device)]
        return self._logits(hidden)[: len(parts) + len(ones)]

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """(T,), (T,) -> (T, C)"""
        if self._plain is not None:
            return self._plain(ids, positions, cache)
        return models.hidden_states(self.model, ids[None], positions[None], block_cache=cache)[0]

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, C) -> (n, V), in fp32 whatever the model computes in."""
        weight = self._head
        if hidden.is_cuda and weight.dtype in HALVES:
            return torch.mm(hidden, weight.T, out_dtype=torch.float32)
        return hidden.to(weight.dtype) @ weight.T


def load_engine(model: str | Path, device: str = "auto", max_batch: int = 256) -> Engine:
    """An engine over a model folder or hub name."""
    return Engine(*models.load(model, models.choose_device(device)), max_batch=max_batch)
