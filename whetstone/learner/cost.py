"""Tokens, memory, disk and time of a stage, estimated from the recipe and the files that exist: for `whetstone plan`, so
without torch.

Memory per device is the sum of

- Python and the libraries, on a CPU;
- weights, gradients and AdamW's two moments, in the weights' type unless the optimizer says otherwise, divided by the number
  of processes under FSDP, which gathers two layers, and embedding with head, at a time;
- a copy of the weights in the computing type, if that is another: autocast keeps it during a forward pass;
- the activations that the backward pass needs (see `activation_bytes`, read off transformers' classes);
- the head's gradient, and three times the logits of a chunk; on a CPU with a large vocabulary twice those of a block of ids;
- gradients, activations and head of each further process on a CPU (`parallel.forks`).

Compiled layers keep less: on an H200 the RL update of benchmarks/gpu_rl.py took 136 GB, and the estimate is 162.

Operations are model FLOPs (PaLM, arXiv 2204.02311, appendix B): 6 per weight and token, and 12 L H D per pair of tokens of
which one attends to the other, for L layers of H heads of size D. Recomputation is not counted. Training time is operations
divided by an assumed share of the accelerator's peak. Sampling is bound by memory bandwidth: each step reads the weights, and
the keys and values of all sequences that fit into memory. Without an accelerator the times are this machine's (cpu_hours.py).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from whetstone.learner.accelerators import ACCELERATORS
from whetstone.learner.conversation import read_conversation
from whetstone.learner.cpu_hours import SAMPLING_SHARE, clock, forks_of, with_cpu_time
from whetstone.model_files import CONFIG, check_folder, read_object
from whetstone.model_folder import base_of, check_model, gguf_of, local_model
from whetstone.model_gguf import check_gguf, sizes
from whetstone.prompting import prompting_of
from whetstone.run.folder import Stage
from whetstone.run.room import Estimate
from whetstone.run.settings import ModelSettings, NextTokenSettings, ParallelSettings, TrainingSettings
from whetstone.run.tables import read_rows
from whetstone.run.usage import free_memory

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
SMALLEST_VOCABULARY = 256 + 5  # bytes and special tokens, the least that a tokenizer has (model.py)
TEXTS_AT_ONCE = 256  # texts tokenised together
CHUNK = 1024  # tokens whose logits are in memory (head.py)
WIDE, BLOCK, LEAST = 16_384, 4 << 20, 1024  # ids from which blocks are used; logits and ids of a block (wide_head.py)
MICRO_BATCHES = (8192, 4096, 2048, 1024, 512)  # that micro_batch_tokens = "auto" chooses from
SAFE = 0.85  # share of the memory that they may fill by this estimate
LIBRARIES = 0.4e9  # bytes of a process that has loaded torch and transformers and trains nothing
ASSUMED_MFU = 0.40  # share of the accelerator's peak that training reaches
ASSUMED_BANDWIDTH = 0.50  # share of the memory bandwidth that sampling reaches
MOST_SEQUENCES = 256  # sequences sampled at once


SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "vocab_size")  # in config.json


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer on which its cost depends."""

    layers: int
    hidden: int
    mlp: int
    queries: int  # heads x size of a head
    keys: int  # key/value heads x size of a head
    vocabulary: int
    parameters: int
    most: bool = False  # whether the vocabulary may turn out smaller
    tied: bool = True

    def training_flops(self, length: float) -> float:
        """Operations per token, in sequences of `length` tokens that are all scored."""
        embedding = 0 if self.tied else self.vocabulary * self.hidden  # is looked up, not multiplied
        return 6 * (self.parameters - embedding) + 6 * self.layers * self.queries * length


def shape_of(folder: Path | str | None, model: ModelSettings) -> Shape | None:
    """The shape of a model folder, a GGUF file or a downloaded hub name, else the one in `[model]`.

    None if `folder` is a hub name that is not downloaded and `[model]` does not give its shape, or if the model's class has
    other sizes than a transformer. Raises ValueError or FileNotFoundError if `[model] path` cannot be used.
    """
    if isinstance(folder, str):
        check_model(folder)
    if folder is not None and (local := local_model(folder)) is not None:
        return shape_of_folder(local)
    if folder is not None and (gguf := gguf_of(folder)) is not None:
        header = check_gguf(gguf)
        return _shape(sizes(header), header.weights, "output.weight" not in header.tensors)
    if folder is not None and (base := base_of(folder)):  # an adapter that is not merged yet
        return shape_of(base, model)
    return None if model.path is not None and "layers" not in model.model_fields_set else shape_in_settings(model)


def shape_in_settings(model: ModelSettings) -> Shape:
    """A Phi-3-class model with a tied head and the full vocabulary."""
    layers, hidden, mlp, keys = model.layers, model.hidden, model.mlp, model.hidden // model.heads * model.kv_heads
    vocabulary = model.vocabulary if model.path else max(model.vocabulary, SMALLEST_VOCABULARY)
    layer = 2 * hidden * (hidden + keys) + 3 * hidden * mlp + 2 * hidden
    parameters = vocabulary * hidden + layers * layer + hidden
    return Shape(layers, hidden, mlp, hidden, keys, vocabulary, parameters, most=model.path is None)


def shape_of_folder(folder: Path) -> Shape | None:
    stored = check_folder(folder)
    weights = sum(math.prod(tensor.shape) for tensor in stored.values())
    return _shape(read_object(folder / CONFIG), weights, "lm_head.weight" not in stored)


def _shape(config: dict[str, Any], parameters: int, tied: bool) -> Shape | None:
    if any(not isinstance(config.get(key), int) or config[key] < 1 for key in SIZES):
        return None
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        mlp=config["intermediate_size"],
        queries=heads * size,
        keys=(config.get("num_key_value_heads") or heads) * size,
        vocabulary=config["vocab_size"],
        parameters=parameters,
        tied=tied,
    )


# --- memory


def activation_bytes(shape: Shape, dtype: str, compute: str, on_gpu: bool) -> float:
    """Bytes that autograd keeps per token and layer, in transformers' Phi, Llama and Qwen classes.

    Each of the two norms keeps the residual stream twice: in the weights' type and in fp32. In the computing type are kept:
    the inputs of the matrices; queries, keys and values before and after rotation; the output of attention; the two inner
    vectors of the gated feed-forward part, the activation of one, and their product. On a CPU attention is in fp32.
    """
    wide, small = 4, min(BYTES[dtype], BYTES[compute])
    norms = 2 * (wide + max(BYTES[dtype], small)) * shape.hidden
    inputs = 2 * small * shape.hidden
    attention = small if on_gpu else wide
    heads = small * (shape.queries + 2 * shape.keys) + attention * (shape.queries + shape.keys)
    output = (1 if on_gpu else 2) * attention * shape.queries
    return norms + inputs + heads + output + 4 * small * shape.mlp


def _on_gpu(parallel: ParallelSettings) -> bool:
    return parallel.device == "cuda" or bool(parallel.accelerator)


def _sampling_bytes(dtype: str, parallel: ParallelSettings) -> int:
    """Bytes per weight of the model that samples."""
    return BYTES[parallel.sampling_dtype("cuda" if _on_gpu(parallel) else "cpu", dtype)]


def training_memory(
    shape: Shape, dtype: str, parallel: ParallelSettings, tokens: int, samples: bool = False, forks: int = 1,
    moments: str = "weights",
) -> dict[str, float]:  # fmt: skip
    """Bytes per device for a micro-batch of `tokens` tokens, by use.

    If the stage `samples`, and the learner keeps only a share of the weights or has them in another type, the sampler has a
    copy of its own. `forks` processes share a step on a CPU. `moments` is the optimizer's setting.
    """
    on_gpu = _on_gpu(parallel)
    size, count = BYTES[dtype], shape.parameters
    shared = parallel.processes if parallel.shard == "fsdp" else 1
    layer = activation_bytes(shape, dtype, parallel.compute, on_gpu) * tokens
    every = parallel.activation_checkpointing
    again = math.ceil(shape.layers / every) if every else 0
    kept = (shape.layers - again) * layer + again * tokens * shape.hidden * size + (layer if again else 0)
    other = BYTES["bfloat16"] if (dtype, parallel.compute) == ("float32", "bfloat16") else 0
    head = _head_memory(shape, dtype, parallel, tokens)
    sampled = _sampling_bytes(dtype, parallel)
    ends = shape.vocabulary * shape.hidden
    gathered = size * (ends + 2 * (count - ends) / shape.layers) if shared > 1 else 0
    return {
        "Python and libraries": 0 if on_gpu else LIBRARIES,
        "weights": size * count / shared,
        "gradients": size * count / shared,
        "moments": 2 * _moment_bytes(dtype, moments) * count / shared,
        "gathered": gathered,
        "sampler's copy": sampled * count if samples and (shared > 1 or sampled != size) else 0,
        f"weights in {parallel.compute}": other * count,
        "activations": kept,
        "head": head,
        f"{forks - 1} more processes": (forks - 1) * (size * count + other * count + kept + head),
    }


def fitting_tokens(shape: Shape, dtype: str, parallel: ParallelSettings, room: float, forks: int, moments: str) -> int:
    """The largest micro-batch of MICRO_BATCHES with which training takes at most SAFE of `room` bytes, or the smallest."""
    takes = {n: sum(training_memory(shape, dtype, parallel, n, False, forks, moments).values()) for n in MICRO_BATCHES}
    return next((n for n, taken in takes.items() if taken <= SAFE * room), MICRO_BATCHES[-1])


def _moment_bytes(dtype: str, moments: str) -> int:
    """Bytes of one of AdamW's two moments of a weight."""
    return BYTES[dtype if moments == "weights" else moments]


def _head_memory(shape: Shape, dtype: str, parallel: ParallelSettings, tokens: int) -> float:
    """The head's gradient in fp32, a copy of its weight if the products take another type, and logits."""
    weight = shape.vocabulary * shape.hidden
    if not _on_gpu(parallel) and shape.vocabulary >= WIDE:
        return 4 * weight + 2 * 4 * min(tokens * shape.vocabulary, max(BLOCK, LEAST * tokens))
    factor = (
        2 if _on_gpu(parallel) and "bfloat16" in (dtype, parallel.compute) else 4
    )  # bytes per number in the products
    return weight * (4 + (factor if factor != BYTES[dtype] else 0)) + 3 * min(tokens, CHUNK) * shape.vocabulary * 4


# --- a stage


def moments_of(stage: Stage) -> str:
    return stage.settings.optimizer.moments if isinstance(stage.settings, TrainingSettings) else "weights"


def training_estimate(
    stage: Stage, *, step_tokens: int, row_tokens: int, tokens: int | None = None, steps: int | None = None,
    passes: float = 1.0, bound: str = "", steps_bound: str | None = None, lines: dict[str, str] | None = None,
    samples: bool = False, best: bool = False,
) -> Estimate:  # fmt: skip
    """The estimate of a training stage. A model that does not exist yet has the shape in `[model]`.

    `step_tokens` are the tokens of an optimizer step, `row_tokens` those of the longest row or pair. `passes` counts the
    computation in training passes over the tokens (with a reference model's forward pass: 4/3). `samples` says whether the
    stage samples between its steps, `best` whether it keeps the best checkpoint besides the newest.
    """
    lines, model, parallel = dict(lines or {}), stage.model, stage.parallel
    steps_bound = bound if steps_bound is None else steps_bound
    if tokens is not None:
        lines["tokens"] = f"{bound}{tokens:,}"
    if steps is not None:
        lines["steps"] = f"{steps_bound}{steps:,}"
    estimate = Estimate(lines, tokens, steps, steps_bound, bound=bound)
    shape = shape_of(stage.model_source, model)
    if shape is None:
        return estimate
    checkpoints = stage.run.keep_checkpoints + best
    forks = 1 if _on_gpu(parallel) else forks_of(stage.run, parallel)
    moments = moments_of(stage)
    budget = parallel.micro_batch_tokens
    if budget == "auto":
        room = ACCELERATORS[parallel.accelerator].memory if parallel.accelerator else free_memory()
        budget = fitting_tokens(shape, model.dtype, parallel, room, forks, moments)
    micro = min(math.ceil(step_tokens / forks), max(budget, row_tokens))
    memory = training_memory(shape, model.dtype, parallel, micro, samples, forks, moments)
    weights = BYTES[model.dtype] * shape.parameters
    checkpoint = weights + 2 * _moment_bytes(model.dtype, moments) * shape.parameters
    lines |= _space(shape, weights, checkpoint, memory, micro, checkpoints, parallel)
    disk = weights + checkpoint * checkpoints
    estimate = replace(estimate, memory=sum(memory.values()), disk=disk)
    if tokens is None:
        return estimate
    flops = passes * tokens * shape.training_flops(row_tokens)
    if not parallel.accelerator:
        kept = passes * tokens * shape.layers * activation_bytes(shape, model.dtype, parallel.compute, on_gpu=False)
        return with_cpu_time(estimate, stage, "training time", flops, kept)
    peak = ACCELERATORS[parallel.accelerator].flops
    seconds = flops / (peak * parallel.processes * ASSUMED_MFU)
    lines["training time"] = (
        f"{bound}{clock(seconds)}: {flops:.3g} operations at {ASSUMED_MFU:.0%} of "
        f"{parallel.processes} x {peak / 1e12:,.0f} TFLOP/s"
    )
    return replace(estimate, seconds=seconds)


def _space(
    shape: Shape, weights: float, checkpoint: float, memory: dict[str, float], micro: int, checkpoints: int,
    parallel: ParallelSettings,
) -> dict[str, str]:  # fmt: skip
    """What is said of memory per device, by use, for micro-batches of `micro` tokens, and of disk. `weights` and a
    `checkpoint` in bytes."""
    total = sum(memory.values())
    most = "at most " if shape.most else ""
    uses = ", ".join(f"{name} {bytes_as_text(part)}" for name, part in memory.items() if part)
    lines = {
        "model": f"{most}{shape.parameters:,} parameters",
        "memory": f"{most}about {bytes_as_text(total)}{_each(parallel)}, with micro-batches of up to {micro:,} tokens: {uses}",
        "disk": f"{most}{bytes_as_text(weights)} of model, {bytes_as_text(checkpoint)} per checkpoint, "
        f"{checkpoints} kept",
    }
    if not _on_gpu(parallel) and total > (room := free_memory()):
        lines["may not fit"] = (
            f"{bytes_as_text(total)}, and {bytes_as_text(room)} are free on this machine: set micro_batch_tokens = "
            '"auto" or lower it, fewer forks, or optimizer = { moments = "bfloat16" }'
        )
    if parallel.accelerator and total > (room := ACCELERATORS[parallel.accelerator].memory):
        lines["does not fit"] = (
            f"{bytes_as_text(total)}, and {parallel.accelerator} has {bytes_as_text(room)}: use more processes with "
            'shard = "fsdp", activation_checkpointing = 1, or fewer micro_batch_tokens'
        )
    return lines


def _each(parallel: ParallelSettings) -> str:
    return f" on each of {parallel.processes} devices" if parallel.processes > 1 else ""


def with_sampling(estimate: Estimate, stage: Stage, tokens: int, longest: int) -> Estimate:
    """The estimate, plus the time to sample `tokens` tokens in sequences of up to `longest`.

    Sampling runs on the devices that train, in the memory that training leaves free.
    """
    model, parallel = stage.model, stage.parallel
    lines = estimate.lines | {"sampled": f"at most {tokens:,} tokens"}
    shape = shape_of(stage.model_source, model)
    if shape is None or estimate.memory is None:
        return replace(estimate, lines=lines)
    if not parallel.accelerator:
        flops = tokens * 2 * shape.parameters / SAMPLING_SHARE
        return with_cpu_time(replace(estimate, lines=lines, bound="at most "), stage, "sampling time", flops)
    device, size = ACCELERATORS[parallel.accelerator], _sampling_bytes(model.dtype, parallel)
    sequence = 2 * shape.layers * shape.keys * size * longest  # bytes of its keys and values at the end
    resting = sum(training_memory(shape, model.dtype, parallel, 0, samples=True).values())
    room = max(0.0, device.memory - resting)
    at_once = min(MOST_SEQUENCES, int(room // sequence))
    if not at_once:
        lines["does not fit"] = f"one sequence of {longest:,} tokens needs {bytes_as_text(sequence)} of keys and values"
        return replace(estimate, lines=lines)
    read = size * shape.parameters + at_once * sequence / 2  # a sequence is half done on average
    seconds = tokens / (at_once * parallel.processes) * read / (device.bandwidth * ASSUMED_BANDWIDTH)
    lines["sampling time"] = (
        f"at most {clock(seconds)}: {at_once} sequences at once{_each(parallel)}, {ASSUMED_BANDWIDTH:.0%} of "
        f"{device.bandwidth / 1e12:.2f} TB/s"
    )
    return replace(estimate, lines=lines, seconds=seconds + (estimate.seconds or 0))


def next_token_estimate(stage: Stage, table: Path, best: bool = False) -> Estimate:
    """The estimate of next-token training on the conversations of a table, which need not exist yet."""
    settings = cast(NextTokenSettings, stage.settings)
    rows = map(read_conversation, read_rows(table) if table.exists() else ())
    prompting = prompting_of(stage.prompt, stage.model_source)
    read = (row for row in rows if row.split == "train" and not row.fault)
    texts = (" ".join([*(turn.content for turn in row.turns(prompting)), row.answer]) for row in read)
    tokens = count_tokens(stage.model_source, texts, settings.max_length)  # of an epoch; 0: not known
    spent = int(settings.epochs * tokens) or None
    bound = "about " if tokens else ""
    if settings.tokens and not (spent and spent < settings.tokens):
        spent, bound = settings.tokens, "" if spent else "at most "
    steps = None if spent is None else settings.steps or math.ceil(spent / settings.batch_tokens)
    step = math.ceil(spent / steps) if spent and steps and settings.steps else settings.batch_tokens
    return training_estimate(
        stage, step_tokens=step, row_tokens=settings.max_length, best=best,
        tokens=spent, steps=steps, bound=bound,
    )  # fmt: skip


def count_tokens(folder: Path | str | None, texts: Iterable[str], longest: int) -> int:
    """Tokens of the texts that are not longer than `longest`; 0 if the model folder has no tokenizer yet."""
    folder = local_model(folder) if folder is not None else None
    if folder is None or not (folder / "tokenizer.json").exists():
        return 0
    from tokenizers import Tokenizer

    tokenizer, texts, tokens = Tokenizer.from_file(str(folder / "tokenizer.json")), iter(texts), 0
    while batch := list(islice(texts, TEXTS_AT_ONCE)):
        lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(batch)]
        tokens += sum(length for length in lengths if length <= longest)
    return tokens


# --- for people


def bytes_as_text(count: float) -> str:
    """
    >>> bytes_as_text(7_800_000), bytes_as_text(61.4e9), bytes_as_text(2.5e12)
    ('7.8 MB', '61.4 GB', '2.5 TB')
    """
    size, unit = next((s, u) for s, u in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (0, "MB")) if count >= s)
    return f"{count / (size or 1e6):,.1f} {unit}"


def count_as_text(count: float) -> str:
    """
    >>> count_as_text(71_526), count_as_text(3_836_021_760), count_as_text(150e9)
    ('71,526', '3.84 B', '150 B')
    """
    if count < 1e6:
        return f"{count:,.0f}"
    size, unit = (1e12, "T") if count >= 1e12 else (1e9, "B") if count >= 1e9 else (1e6, "M")
    return f"{count / size:.3g} {unit}"
