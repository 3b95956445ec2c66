"""The in-process engine: continuous batching for any model that `model.load` gives.

The engine shares the module it is given: after a training step it samples from the new weights.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from whetstone import model as models
from whetstone.chat import Chat
from whetstone.decode.decoding import Decoding, Piece
from whetstone.decode.runner import ModelRunner
from whetstone.decode.sampling import draws
from whetstone.decode.sequence import Control, Sequence
from whetstone.records import Completion, Prompt, Sampling
from whetstone.template import set_thinking

PREFILL_TOKENS = 8192  # of prompts in one step; longer ones are run in parts, while others decode
CACHED_PREFILL_TOKENS = 1024  # in bf16 on a CPU, whose caches hold what passes between the products of so many

Controls = Callable[[Prompt], Control]  # makes the control of each completion


class Engine:
    """A Generator over a transformers model in this process.

    At most `max_batch` sequences are decoded at once, fewer if their keys and values would take more than `cache_bytes`. Its
    default is CACHE_BYTES on a CPU. On a GPU it is CACHE_SHARE of the free memory when decoding begins, which is freed when
    decoding ends, so that training can use it.

    `row_block` makes sampling batch-invariant, for tests; it is slower. Each matrix product then has this many rows or those
    of one prompt, and no sequence is preempted: a rollout is the same to the bit whatever is decoded beside it. Without it,
    rollouts depend on their neighbours by rounding in the matrix products.

    `int8` samples with matrices rounded to 8 bits, which takes a quarter of the memory traffic and changes the probabilities a
    little (docs/decoding.md). Raises ValueError if the model is not on a CPU, or of a class without fused kernels.
    """

    def __init__(
        self, model: Any, tokenizer: Any, max_batch: int = 256,
        cache_bytes: int | None = None, prefill_tokens: int | None = None, row_block: int = 0, int8: bool = False,
    ):  # fmt: skip
        self.model = model
        self.chat = Chat(tokenizer, model.generation_config.eos_token_id)
        self.max_batch = max_batch
        weight = next(model.parameters())
        cached = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        self.prefill_tokens = prefill_tokens or (CACHED_PREFILL_TOKENS if cached else PREFILL_TOKENS)
        self.runner = ModelRunner(model, self.chat.size, cache_bytes, row_block, int8)

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling, control: Controls | None = None
    ) -> Iterator[Completion]:
        """Completions as they finish. A group's prompt is prefilled once if its prompts follow one another.

        Raises ValueError if a prompt leaves no room in the model's context, or in the cache, for `max_tokens`.
        """
        decoding = self.decode(prompts, sampling, control)
        while decoding.busy:
            yield from decoding.step()

    def stream(
        self, prompts: Iterable[Prompt], sampling: Sampling, control: Controls | None = None
    ) -> Iterator[Piece | Completion]:
        """`generate`, with the text of each completion in pieces as it is written. The pieces join to its text, unless a
        control removes text that was already streamed."""
        decoding = self.decode(prompts, sampling, control, streaming=True)
        while decoding.busy:
            completions = decoding.step()
            yield from decoding.pieces
            yield from completions

    def decode(
        self, prompts: Iterable[Prompt], sampling: Sampling, control: Controls | None = None, streaming: bool = False
    ) -> Decoding:
        """The work of `generate`, to be done step by step. Between steps, single completions can be cancelled."""
        return self.decode_sequences([self.sequence(prompt, sampling, control) for prompt in prompts], streaming)

    def decode_sequences(self, sequences: list[Sequence], streaming: bool = False) -> Decoding:
        """`decode` from ids. Raises ValueError as `generate` does."""
        self.check_context(sequences)
        return Decoding(self.runner, self.chat, sequences, self.max_batch, self.prefill_tokens, streaming)

    def open_decoding(self, max_batch: int) -> Decoding:
        """A decoding to which sequences are added while it runs, at most `max_batch` at once. It streams. Close it."""
        context = self.model.config.max_position_embeddings
        return Decoding(self.runner, self.chat, [], max_batch, self.prefill_tokens, streaming=True, longest=context)

    def check_context(self, sequences: Iterable[Sequence]) -> None:
        """Raises ValueError if a prompt and `max_tokens` exceed the model's context."""
        context = self.model.config.max_position_embeddings
        for sequence in sequences:
            if len(sequence.prompt_ids) + sequence.sampling.max_tokens > context:
                raise ValueError(
                    f"a prompt of {len(sequence.prompt_ids)} tokens and max_tokens = {sequence.sampling.max_tokens} exceed "
                    f"the model's context of {context}: lower max_tokens, or drop the prompt."
                )

    def sequence(self, prompt: Prompt, sampling: Sampling, control: Controls | None = None) -> Sequence:
        stream = draws(sampling.seed, prompt.problem_id, prompt.index)
        ids = self.chat.prompt_ids(prompt.messages)
        return Sequence(prompt, ids, sampling, stream, control(prompt) if control else None)


def load_engine(
    model: str | Path, device: str = "auto", max_batch: int = 256, thinking: bool | None = None, int8: bool = False
) -> Engine:
    """An engine over the model that a name stands for (`find_model`). `thinking` sets its template's switch."""
    loaded, tokenizer = models.load(model, models.choose_device(device))
    set_thinking(tokenizer, thinking)
    return Engine(loaded, tokenizer, max_batch=max_batch, int8=int8)
