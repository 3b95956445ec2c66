"""The model runner: it allocates the key/value cache and runs the model for one step. It knows no prompts, texts or queues.

A model of a known class runs through `FusedForward`, any other through its own modules with our attention. On a GPU, steps in
which every sequence decodes one token are replayed as CUDA graphs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from types import ModuleType
from typing import Any

import torch

from whetstone import model as models
from whetstone.attention import HALF_TYPES
from whetstone.decode.block_manager import BlockManager
from whetstone.decode.cuda_graphs import GraphedStep
from whetstone.decode.fused_forward import FusedForward, Product, Products, fits, products
from whetstone.decode.kv_cache import KVCache
from whetstone.decode.packed_product import PackedProduct
from whetstone.decode.sequence import Sequence
from whetstone.run.kernels import working_kernels

CACHE_BYTES = 1 << 30  # of the key/value cache on a CPU; fewer sequences run at once if they are long
ROWS = 256  # of logits over a whole vocabulary that are held at once
CACHE_SHARE = 0.8  # of the free memory of a GPU; a step needs some of the rest


@lru_cache
def gpu_kernels(device: torch.device, dtype: torch.dtype, kv_heads: int, group: int, size: int) -> ModuleType | None:
    """gpu_kernels.py if it works here, for heads of this size and `group` query heads per key/value head; otherwise None."""
    use = "decoding on the GPU without kernels of its own"
    return working_kernels("whetstone.decode.gpu_kernels", use, device, dtype, kv_heads, group, size)


def _takes_int8(model: Any) -> bool:
    weight = next(model.parameters())
    return fits(model) and weight.device.type == "cpu" and weight.dtype == torch.float32


class ModelRunner:
    """Runs `model`, with logits for the first `vocabulary` ids. The other arguments are explained at `Engine`.

    It works on the model's own parameters: after a training step the next `allocate` takes the new weights.
    """

    def __init__(
        self, model: Any, vocabulary: int, cache_bytes: int | None = None, row_block: int = 0, int8: bool = False
    ):  # fmt: skip
        if int8 and not _takes_int8(model):
            raise ValueError(
                f"weights of 8 bits are for Llama-, Qwen2- and Phi-3-class models in fp32 on a CPU, and this is a "
                f"{type(model).__name__} in {next(model.parameters()).dtype}: leave --weights int8 out."
            )
        self.model = model
        self.int8 = int8
        self.vocabulary = vocabulary
        self.cache_bytes = cache_bytes
        self.row_block = row_block
        config = model.config
        self._kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._cache: KVCache | None = None  # of the last decoding, to be used again
        self._fused: FusedForward | None = None
        self._head: Product | None = None  # (B, C) -> (B, V)
        self._decodings = 0  # that are not released
        self._kept = False  # whether decodings use the weights as they were read before

    def allocate(self, wanted: int, least: int) -> BlockManager:
        """`wanted` free blocks, or as many as there is memory for. Until `release` they are the caller's alone.

        Raises ValueError if there is memory for fewer than `least`, which one prompt needs.
        """
        weight = next(self.model.parameters())
        budget = self._budget(weight.device)
        layers = self.model.config.num_hidden_layers
        block_bytes = KVCache.bytes_per_block(layers, self._kv_heads, self._head_size, weight.dtype)
        allowed = budget // block_bytes
        if allowed < least:
            raise ValueError(
                f"one prompt with max_tokens more needs {least * block_bytes / (1 << 20):.1f} MiB of cache and may take "
                f"{budget / (1 << 20):.1f}: lower max_tokens, or give the engine more cache_bytes."
            )
        wanted = min(allowed, wanted)
        kernels = self._kernels(weight)
        if not self._kept:
            self._read_weights(kernels)
        cache, self._cache = self._cache, None
        alike = cache is not None and (cache.keys.dtype, cache.keys.device) == (weight.dtype, weight.device)
        if not alike or cache.capacity < wanted:
            del cache  # its memory is freed before the larger one is made
            shape = layers, wanted, self._kv_heads, self._head_size
            cache = KVCache(*shape, weight.dtype, weight.device, kernels, self.row_block > 0)
        self._decodings += 1
        # without kernels a step would gather the padding of its tables, too
        graphs = self._graphed_step(cache) if weight.is_cuda and kernels is not None else None
        return BlockManager(wanted, cache, graphs)

    def release(self, blocks: BlockManager) -> None:
        """The memory of `blocks` may be used for something else."""
        cache = blocks.cache
        blocks.graphs = None
        self._decodings -= 1
        self._drop_weights()
        if self.cache_bytes is None and cache.keys.is_cuda:
            cache.release()
            torch.cuda.empty_cache()  # otherwise what training allocates next would leave no room for another cache
        else:
            self._cache = cache

    @contextmanager
    def weights_made(self) -> Iterator[None]:
        """What decoding makes of the weights is made now, and used by all decodings that begin meanwhile."""
        self._read_weights(self._kernels(next(self.model.parameters())))
        self._kept = True
        try:
            yield
        finally:
            self._kept = False
            self._drop_weights()

    @torch.no_grad()
    def logits(
        self, blocks: BlockManager, prefills: list[tuple[Sequence, int]], decodes: list[Sequence]
    ) -> torch.Tensor:
        """Run the given number of tokens of each of P prefills and one token of each of B other sequences.

        Returns (P + B, V): the logits after the last of these tokens, in fp32 or float64.
        """
        if self.model.training:
            self.model.eval()
        if not self.row_block:
            return self._run(blocks, prefills, decodes)
        calls = [([prefill], []) for prefill in prefills]
        calls += [([], decodes[i : i + self.row_block]) for i in range(0, len(decodes), self.row_block)]
        return torch.cat([self._run(blocks, *call) for call in calls])

    @torch.no_grad()
    def prompt_logits(self, ids: list[int]) -> Iterator[torch.Tensor]:
        """The logits after each of T ids, in blocks (ROWS, V), in fp32 or float64. Nothing is cached.

        Only while `weights_made` holds, or a decoding is open.
        """
        device = next(self.model.parameters()).device
        positions = torch.arange(len(ids), device=device)[None]
        hidden = models.hidden_states(self.model, torch.tensor([ids], device=device), positions, lengths=[len(ids)])[0]
        for start in range(0, len(hidden), ROWS):
            yield self._head(hidden[start : start + ROWS])

    def _run(self, blocks: BlockManager, prefills: list[tuple[Sequence, int]], decodes: list[Sequence]) -> torch.Tensor:
        cache = blocks.cache
        tables = [sequence.block_table for sequence in decodes]
        ids, positions = [sequence.last for sequence in decodes], [sequence.cached for sequence in decodes]
        if blocks.graphs is not None and not prefills:
            return blocks.graphs(ids, positions, tables)
        cache.begin([(sequence.block_table, sequence.cached, n) for sequence, n in prefills], tables, positions)
        last = [end - 1 for end in accumulate(n for _, n in prefills)]  # the row of each sequence's last token
        filled = last[-1] + 1 if last else 0
        last += range(filled, filled + len(decodes))
        ids = [i for sequence, n in prefills for i in sequence.slice(sequence.cached, n)] + ids
        positions = [p for sequence, n in prefills for p in range(sequence.cached, sequence.cached + n)] + positions
        if self.row_block and decodes:
            padding = [0] * (self.row_block - len(decodes))
            ids, positions, last = ids + padding, positions + padding, list(range(self.row_block))
        device = cache.keys.device
        flat = torch.tensor(ids, device=device), torch.tensor(positions, device=device)  # (T,) each
        if self._fused is not None:
            self._fused.rotary.reserve(max(positions) + 1)
            hidden = self._fused(*flat, cache)  # (T, C)
        else:
            hidden = models.hidden_states(self.model, *(x[None] for x in flat), block_cache=cache)[0]
        if len(last) < len(hidden):
            hidden = hidden[torch.tensor(last, device=device)]
        return self._head(hidden)[: len(prefills) + len(decodes)]

    def _kernels(self, weight: torch.Tensor) -> ModuleType | None:
        group = self.model.config.num_attention_heads // self._kv_heads
        return gpu_kernels(weight.device, weight.dtype, self._kv_heads, group, self._head_size)

    def _read_weights(self, kernels: ModuleType | None) -> None:
        multiplied = products(self.model, self.int8)
        self._fused = FusedForward(self.model, kernels, multiplied) if fits(self.model) else None
        self._head = self._read_head(multiplied)

    def _drop_weights(self) -> None:
        if not self._decodings and not self._kept:
            self._fused = self._head = None  # they hold copies of the weights, whose memory training can use

    def _read_head(self, multiplied: Products) -> Product:
        """(B, C) -> logits (B, V) without the unused slots, in fp32 even if the model computes in half precision."""
        weight = self.model.get_output_embeddings().weight[: self.vocabulary].detach()  # (V, C)
        if multiplied is PackedProduct or self.int8:
            return multiplied([(weight, None)])
        if weight.is_cuda and weight.dtype in HALF_TYPES:
            return lambda hidden: torch.mm(hidden, weight.T, out_dtype=torch.float32)
        # on a CPU half precision is widened once here rather than in every step
        wide = weight.float() if weight.device.type == "cpu" and weight.dtype.itemsize < 4 else weight
        return lambda hidden: hidden.to(wide.dtype) @ wide.T

    def _budget(self, device: torch.device) -> int:
        """Bytes that the cache may take."""
        if self.cache_bytes is not None or device.type != "cuda":
            return CACHE_BYTES if self.cache_bytes is None else self.cache_bytes
        torch.cuda.empty_cache()  # torch's own cache may be fragmented
        return int(CACHE_SHARE * torch.cuda.mem_get_info(device)[0])

    def _graphed_step(self, cache: KVCache) -> GraphedStep | None:
        """Decoding steps over this cache as CUDA graphs; None if they cannot be captured (unknown modules may ask the device
        for numbers)."""
        fused = self._fused
        if fused is None or self.row_block or not fused.rotary.fixed:
            return None

        def step(ids: torch.Tensor, positions: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
            cache.begin_decodes(positions, tables)
            return self._head(fused(ids, positions, cache))

        return GraphedStep(step, fused.rotary.reserve, cache.keys.device)
