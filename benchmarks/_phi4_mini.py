"""Phi-4-mini's shape with random weights, and what GPU benchmarks share: memory that runs out, the clock, the device."""

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch

from benchmarks._measure import hardware
from whetstone import model as models
from whetstone.decode.engine import Engine
from whetstone.longrope import fix_table


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    vocabulary: int


PHI_4_MINI = Shape(32, 3072, 8192, 24, 8, 200_064)  # 3,836,021,760 parameters
TINY = Shape(2, 96, 192, 3, 1, 2_000)


def build(shape: Shape, device: str, longest: int, dtype: torch.dtype = torch.float32) -> Any:
    """A Phi-4-mini with random weights and the LongRoPE table of sequences of up to `longest`."""
    from transformers import Phi3Config, Phi3ForCausalLM

    pairs = int(0.75 * shape.hidden // shape.heads) // 2
    config = Phi3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=131_072,
        original_max_position_embeddings=4_096,
        sliding_window=262_144,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * pairs,
            "long_factor": [1.0 + 46.77 * i / (pairs - 1) for i in range(pairs)],
        },
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_implementation=models.ATTENTION,
    )
    fix_table(config, longest)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # created in this type: creating it in fp32 first would take three times the memory
    try:
        with torch.device(device):
            return Phi3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


class Ids:
    """Replaces a chat if ids are given: all ids of the head may be drawn, and none ends an answer."""

    stops = ()

    def __init__(self, size: int):
        self.size = size

    def text(self, ids: Sequence[int]) -> str:
        return ""

    completion = text


def engine_over(model: Any, vocabulary: int, **settings: Any) -> Engine:
    engine = Engine(model, models.train_tokenizer(["a"], 300), **settings)
    engine.chat = Ids(vocabulary)
    engine.runner.vocabulary = vocabulary
    return engine


def random_ids(count: int, length: int, vocabulary: int) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(vocabulary) for _ in range(length)] for _ in range(count)]


def tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Reports a case that does not fit into the card's memory, and goes on."""
    try:
        return work()
    except torch.cuda.OutOfMemoryError as error:
        return {"failed": f"out of memory: {str(error).splitlines()[0]}"}
    finally:
        torch.compiler.reset()
        release()


def release() -> None:
    """Returns unused memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def timed(device: str, into: list[float]) -> Iterator[None]:
    """Appends the seconds until the device has finished the block's work."""
    settle(device)
    begin = time.perf_counter()
    yield
    settle(device)
    into.append(time.perf_counter() - begin)


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> int | None:
    """Peak bytes of tensors since `forget_peak`; None on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def chosen_device(small: bool) -> str:
    """The GPU, or the CPU for a small model if there is no GPU. Ends the program if a GPU is needed and missing."""
    device = models.choose_device("auto")
    if device == "cpu" and not small:
        sys.exit("error: there is no GPU here, which this benchmark measures. --small runs the same code on the CPU.")
    return device


def where(device: str) -> dict[str, Any]:
    """Date, machine and versions of a result."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"date": date.today().isoformat(), "device": name, "hardware": hardware()}
