"""Tokens, memory, disk and time of a stage, estimated from the recipe and the files that exist: for `whetstone plan`, so
without torch. Memory is estimated in memory.py.

Operations are model FLOPs (PaLM, arXiv 2204.02311, appendix B): 6 per weight and token, 4 if it is frozen, and 12 L H D per
pair of tokens of which one attends to the other, for L layers of H heads of size D. Recomputation is not counted. Training time
is operations divided by an assumed share of the accelerator's peak. Sampling is bound by memory bandwidth: each step reads the
weights, and the keys and values of all sequences that fit into memory. Without an accelerator the times are this machine's
(cpu_hours.py).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

from whetstone.learner.accelerators import ACCELERATORS
from whetstone.learner.conversation import read_conversation
from whetstone.learner.cpu_hours import SAMPLING_SHARE, clock, forks_of, with_cpu_time
from whetstone.learner.memory import (
    BYTES,
    activation_bytes,
    adapter_size,
    fitting_tokens,
    moment_bytes,
    on_gpu,
    sampling_bytes,
    training_memory,
)
from whetstone.learner.shape import Shape, shape_of
from whetstone.model_folder import local_model
from whetstone.prompting import prompting_of
from whetstone.run.folder import Stage
from whetstone.run.room import Estimate
from whetstone.run.settings import NextTokenSettings, ParallelSettings, TrainingSettings
from whetstone.run.tables import read_rows
from whetstone.run.usage import free_memory

TEXTS_AT_ONCE = 256  # texts tokenised together
ASSUMED_MFU = 0.40  # share of the accelerator's peak that training reaches
ASSUMED_BANDWIDTH = 0.50  # share of the memory bandwidth that sampling reaches
MOST_SEQUENCES = 256  # sequences sampled at once


@dataclass(frozen=True)
class Beside:
    """What a training stage holds in memory beside the model that it trains."""

    samples: bool = False  # a sampler, between its steps
    reference: bool = False
    critic: bool = False
    teacher: int = 0  # parameters of another model, which each process has whole


ALONE = Beside()


def moments_of(stage: Stage) -> str:
    return stage.settings.optimizer.moments if isinstance(stage.settings, TrainingSettings) else "weights"


def training_estimate(
    stage: Stage, *, step_tokens: int, row_tokens: int, tokens: int | None = None, steps: int | None = None,
    passes: float = 1.0, bound: str = "", steps_bound: str | None = None, lines: dict[str, str] | None = None,
    beside: Beside = ALONE, best: bool = False,
) -> Estimate:  # fmt: skip
    """The estimate of a training stage. A model that does not exist yet has the shape in `[model]`.

    `step_tokens` are the tokens of an optimizer step, `row_tokens` those of the longest row or pair. `passes` counts the
    computation in training passes over the tokens (with a reference model's forward pass: 4/3). `best` says whether the stage
    keeps the best checkpoint besides the newest.
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
    forks = 1 if on_gpu(parallel) else forks_of(stage.run, parallel)
    budget = parallel.micro_batch_tokens
    if budget == "auto":
        room = ACCELERATORS[parallel.accelerator].memory if parallel.accelerator else free_memory()
        budget = fitting_tokens(shape, model.dtype, parallel, room, forks, moments_of(stage), stage.adapter)
    micro = min(math.ceil(step_tokens / forks), max(budget, row_tokens))
    memory = _memory(stage, shape, micro, beside, forks)
    weights, trained = BYTES[model.dtype] * shape.parameters, adapter_size(shape, stage.adapter)
    checkpoint = _checkpoint(stage, shape, trained) * (1 + beside.critic)
    lines |= _space(shape, weights, checkpoint, memory, micro, checkpoints, parallel)
    if trained:
        lines["adapter"] = f"{trained:,} parameters, of rank {stage.adapter.rank}"
    disk = weights + checkpoint * checkpoints
    estimate = replace(estimate, memory=sum(memory.values()), disk=disk)
    if tokens is None:
        return estimate
    flops = passes * tokens * shape.training_flops(row_tokens, trained)
    if not parallel.accelerator:
        kept = (
            passes
            * tokens
            * shape.layers
            * activation_bytes(shape, model.dtype, parallel.compute, False, stage.adapter)
        )
        return with_cpu_time(estimate, stage, "training time", flops, kept)
    peak = ACCELERATORS[parallel.accelerator].flops
    seconds = flops / (peak * parallel.processes * ASSUMED_MFU)
    lines["training time"] = (
        f"{bound}{clock(seconds)}: {flops:.3g} operations at {ASSUMED_MFU:.0%} of "
        f"{parallel.processes} x {peak / 1e12:,.0f} TFLOP/s"
    )
    return replace(estimate, seconds=seconds)


def _memory(stage: Stage, shape: Shape, tokens: int, beside: Beside, forks: int = 1) -> dict[str, float]:
    """`training_memory` with the stage's settings."""
    memory = training_memory(
        shape, stage.model.dtype, stage.parallel, tokens, beside.samples, forks, moments_of(stage), stage.adapter,
        beside.reference, beside.critic,
    )  # fmt: skip
    return memory | {"teacher": BYTES[stage.model.dtype] * beside.teacher}


def _checkpoint(stage: Stage, shape: Shape, trained: int) -> float:
    """Bytes of the weights that are trained, and their moments."""
    dtype, count = ("float32", trained) if trained else (stage.model.dtype, shape.parameters)
    return (BYTES[dtype] + 2 * moment_bytes(dtype, moments_of(stage))) * count


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
    if not on_gpu(parallel) and total > (room := free_memory()):
        lines["may not fit"] = (
            f"{bytes_as_text(total)}, and {bytes_as_text(room)} are free on this machine: set micro_batch_tokens = "
            '"auto" or lower it, fewer forks, or optimizer = { moments = "bfloat16" }'
        )
    if parallel.accelerator and total > (room := ACCELERATORS[parallel.accelerator].memory):
        lines["does not fit"] = (
            f"{bytes_as_text(total)}, and {parallel.accelerator} has {bytes_as_text(room)}: use more processes with "
            'shard = "fsdp", activation_checkpointing = 1, fewer micro_batch_tokens, or an adapter ([adapter] rank)'
        )
    return lines


def _each(parallel: ParallelSettings) -> str:
    return f" on each of {parallel.processes} devices" if parallel.processes > 1 else ""


def with_sampling(
    estimate: Estimate,
    stage: Stage,
    tokens: int,
    longest: int,
    beside: Beside = Beside(samples=True),
) -> Estimate:
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
    device, size = ACCELERATORS[parallel.accelerator], sampling_bytes(model.dtype, parallel)
    sequence = 2 * shape.layers * shape.keys * size * longest  # bytes of its keys and values at the end
    resting = sum(_memory(stage, shape, 0, beside).values())
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
