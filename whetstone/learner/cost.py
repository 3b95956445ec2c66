"""What a stage will take, from the recipe and the files that are there: for `whetstone plan`, so without torch.

Memory, of each device: weights, gradients and AdamW's two moments in the type of the weights (shared out under FSDP, where
two layers, and embedding with head, are gathered whole at a time); where the computing is in another type, a copy of the
weights in it, which autocast keeps for a forward pass; the activations that the backward pass needs; and the head's
gradient with three times the logits of a chunk. What autograd keeps of a token and layer was read off the classes
of transformers (see `activation_bytes`). Compiled layers keep less: on an H200 the RL update of benchmarks/gpu_rl.py took
136 GB where this says 162.

Operations, as model FLOPs (PaLM, arXiv 2204.02311, appendix B): 6 a weight and token, and 12 L H D a pair of tokens of
which one sees the other, for L layers of H heads of size D. What activation checkpointing computes again is not counted.
Time is operations by the accelerator's peak and a share of it that is assumed; sampling is bound by memory bandwidth: each
step reads the weights, and the keys and values of all sequences that fit beside them.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from whetstone.learner.accelerators import ACCELERATORS
from whetstone.run.folder import Stage
from whetstone.run.room import Estimate
from whetstone.run.settings import ModelSettings, ParallelSettings

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
CHECKPOINT_COPIES = 3  # weights, two moments
SMALLEST_VOCABULARY = 256 + 5  # bytes and special tokens, whatever is asked for (model.py)
TEXTS_AT_ONCE = 256  # tokenised together
CHUNK = 1024  # tokens whose logits are alive (head.py)
ASSUMED_MFU = 0.40  # share of the accelerator's peak that training reaches
ASSUMED_BANDWIDTH = 0.50  # share of the memory bandwidth that sampling reaches
MOST_SEQUENCES = 256  # sampled at once


@dataclass(frozen=True)
class Shape:
    """Of a transformer, as far as its cost goes."""

    layers: int
    hidden: int
    mlp: int
    queries: int  # heads x size of a head
    keys: int  # key/value heads x size of a head
    vocabulary: int
    parameters: int
    most: bool = False  # the vocabulary may turn out smaller
    tied: bool = True

    def training_flops(self, length: float) -> float:
        """A token, in sequences of `length` tokens, all of them scored."""
        looked_up = 0 if self.tied else self.vocabulary * self.hidden
        return 6 * (self.parameters - looked_up) + 6 * self.layers * self.queries * length


def shape_of(folder: Path | str | None, model: ModelSettings) -> Shape | None:
    """Of a model folder or a hub name that was downloaded before; else of the shape in `[model]`, where it is given or the
    model is made from it. None for a hub name that only a download would tell."""
    if folder is not None and (found := downloaded(folder)) is not None:
        return shape_of_folder(found)
    if model.path is not None and "layers" not in model.model_fields_set:
        return None
    size = model.hidden // model.heads
    vocabulary = model.vocabulary if model.path else max(model.vocabulary, SMALLEST_VOCABULARY)
    return Shape(
        model.layers, model.hidden, model.mlp, model.hidden, size * model.kv_heads, vocabulary,
        shaped_parameters(model), most=model.path is None,
    )  # fmt: skip


def downloaded(path: Path | str) -> Path | None:
    """The folder that a path or hub name stands for, as far as it is on this machine."""
    if (Path(path) / "config.json").exists():
        return Path(path)
    if str(path).count("/") != 1 or str(path).startswith((".", "/")):
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(str(path), "config.json")
    return Path(config).parent if isinstance(config, str) else None


def shape_of_folder(folder: Path) -> Shape:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    tensors = stored_shapes(folder)
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        mlp=config["intermediate_size"],
        queries=heads * size,
        keys=(config.get("num_key_value_heads") or heads) * size,
        vocabulary=config["vocab_size"],
        parameters=sum(map(math.prod, tensors.values())),
        tied="lm_head.weight" not in tensors,
    )


def shaped_parameters(model: ModelSettings) -> int:
    """Of a Phi-3-class model with a tied head, its vocabulary full."""
    key = model.hidden // model.heads * model.kv_heads
    attention = model.hidden * (model.hidden + 2 * key) + model.hidden * model.hidden
    layer = attention + 3 * model.hidden * model.mlp + 2 * model.hidden
    vocabulary = model.vocabulary if model.path else max(model.vocabulary, SMALLEST_VOCABULARY)
    return vocabulary * model.hidden + model.layers * layer + model.hidden


def stored_shapes(folder: Path) -> dict[str, list[int]]:
    """Of the tensors in a folder's safetensors files, by name, from their headers; a tied head is stored once."""
    found: dict[str, list[int]] = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found |= {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
    return found


# --- memory


def activation_bytes(shape: Shape, dtype: str, compute: str, on_gpu: bool) -> float:
    """What autograd keeps of one token and layer (Phi, Llama, Qwen as transformers writes them).

    The stream between layers has the weights' type: kept twice by each of the two norms, in fp32. In the computing type are
    the inputs of the matrices, queries, keys and values before and after rotation, attention's output, the gated
    feed-forward part's two inner vectors, the activation of one, and their product. On CPU attention is in fp32.
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
    """Of a number of the weights that are sampled from."""
    return BYTES[parallel.sampling_dtype("cuda" if _on_gpu(parallel) else "cpu", dtype)]


def training_memory(
    shape: Shape, dtype: str, parallel: ParallelSettings, tokens: int, samples: bool = False
) -> dict[str, float]:
    """Bytes on each device for a micro-batch of so many tokens, by what takes them.

    What `samples` beside a learner that keeps only a share of the weights, or has them in another type, has a copy of them.
    """
    on_gpu = _on_gpu(parallel)
    size, count = BYTES[dtype], shape.parameters
    shared = parallel.processes if parallel.shard == "fsdp" else 1
    layer = activation_bytes(shape, dtype, parallel.compute, on_gpu) * tokens
    every = parallel.activation_checkpointing
    again = math.ceil(shape.layers / every) if every else 0
    kept = (shape.layers - again) * layer + again * tokens * shape.hidden * size + (layer if again else 0)
    other = BYTES["bfloat16"] if (dtype, parallel.compute) == ("float32", "bfloat16") else 0
    factor = 2 if on_gpu and "bfloat16" in (dtype, parallel.compute) else 4  # bytes of a number in the head's products
    # its gradient in fp32, and a copy of it where they take another type
    head = shape.vocabulary * shape.hidden * (4 + (factor if factor != size else 0))
    sampled = _sampling_bytes(dtype, parallel)
    ends = shape.vocabulary * shape.hidden
    gathered = size * (ends + 2 * (count - ends) / shape.layers) if shared > 1 else 0
    return {
        "weights": size * count / shared,
        "gradients": size * count / shared,
        "moments": 2 * size * count / shared,
        "gathered": gathered,
        "sampler's copy": sampled * count if samples and (shared > 1 or sampled != size) else 0,
        f"weights in {parallel.compute}": other * count,
        "activations": kept,
        "head": head + 3 * min(tokens, CHUNK) * shape.vocabulary * 4,
    }


# --- a stage


def training_estimate(
    folder: Path | str | None,
    model: ModelSettings,
    parallel: ParallelSettings,
    *,
    step_tokens: int,
    row_tokens: int,
    checkpoints: int,
    tokens: int | None = None,
    steps: int | None = None,
    passes: float = 1.0,
    bound: str = "",
    steps_bound: str | None = None,
    lines: dict[str, str] | None = None,
    samples: bool = False,
) -> Estimate:
    """Of a training stage.

    `folder` is the model trained, or None for one made from the shape in `[model]`; where it is not made yet, that shape is
    what it will have. `step_tokens` are those of an optimizer step, `row_tokens` of the longest rows that stay in one
    micro-batch, `checkpoints` how many are kept, `passes` what is computed, as training passes over the tokens (with a
    reference model's forward pass 4/3). `samples`: it samples between its steps.
    """
    lines = dict(lines or {})
    steps_bound = bound if steps_bound is None else steps_bound
    if tokens is not None:
        lines["tokens"] = f"{bound}{tokens:,}"
    if steps is not None:
        lines["steps"] = f"{steps_bound}{steps:,}"
    known = Estimate(lines, tokens, steps, steps_bound, bound=bound)
    shape = shape_of(folder, model)
    if shape is None:
        return known
    size = BYTES[model.dtype]
    micro = min(step_tokens, max(parallel.micro_batch_tokens, row_tokens))
    parts = training_memory(shape, model.dtype, parallel, micro, samples)
    memory = sum(parts.values())
    disk = size * shape.parameters * (1 + CHECKPOINT_COPIES * checkpoints)
    most = "at most " if shape.most else ""
    told = ", ".join(f"{name} {bytes_as_text(part)}" for name, part in parts.items() if part)
    each = f" on each of {parallel.processes} devices" if parallel.processes > 1 else ""
    lines |= {
        "model": f"{most}{shape.parameters:,} parameters",
        "memory": f"{most}about {bytes_as_text(memory)}{each}, a micro-batch having up to {micro:,} tokens: {told}",
        "disk": f"{most}{bytes_as_text(size * shape.parameters)} of model, "
        f"{bytes_as_text(CHECKPOINT_COPIES * size * shape.parameters)} a checkpoint, {checkpoints} kept",
    }
    estimate = replace(known, memory=memory, disk=disk)
    if not parallel.accelerator:
        return estimate
    device = ACCELERATORS[parallel.accelerator]
    if memory > device.memory:
        lines["does not fit"] = (
            f"{bytes_as_text(memory)} where {parallel.accelerator} has {bytes_as_text(device.memory)}: "
            'more processes with shard = "fsdp", activation_checkpointing = 1, or fewer micro_batch_tokens'
        )
    if tokens is None:
        return estimate
    flops = passes * tokens * shape.training_flops(row_tokens)
    seconds = flops / (device.flops * parallel.processes * ASSUMED_MFU)
    lines["training time"] = (
        f"{bound}{clock(seconds)}: {flops:.3g} operations at {ASSUMED_MFU:.0%} of "
        f"{parallel.processes} x {device.flops / 1e12:,.0f} TFLOP/s"
    )
    return replace(estimate, seconds=seconds)


def with_sampling(
    estimate: Estimate,
    folder: Path | str | None,
    model: ModelSettings,
    parallel: ParallelSettings,
    tokens: int,
    longest: int,
) -> Estimate:
    """The estimate with the time of sampling so many tokens beforehand or between, in sequences of up to `longest`, on the
    devices that train, beside what training keeps there."""
    lines = estimate.lines | {"sampled": f"at most {tokens:,} tokens"}
    shape = shape_of(folder, model)
    if shape is None or not parallel.accelerator or estimate.memory is None:
        return replace(estimate, lines=lines)
    device, size = ACCELERATORS[parallel.accelerator], _sampling_bytes(model.dtype, parallel)
    sequence = 2 * shape.layers * shape.keys * size * longest  # bytes of keys and values at its end
    resting = sum(training_memory(shape, model.dtype, parallel, 0, samples=True).values())
    room = max(0.0, device.memory - resting)
    at_once = min(MOST_SEQUENCES, int(room // sequence))
    if not at_once:
        lines["does not fit"] = f"one sequence of {longest:,} tokens has {bytes_as_text(sequence)} of keys and values"
        return replace(estimate, lines=lines)
    read = size * shape.parameters + at_once * sequence / 2  # of a sequence, half is there on average
    seconds = tokens / (at_once * parallel.processes) * read / (device.bandwidth * ASSUMED_BANDWIDTH)
    each = f" on each of {parallel.processes} devices" if parallel.processes > 1 else ""
    lines["sampling time"] = (
        f"at most {clock(seconds)}: {at_once} sequences at once{each}, {ASSUMED_BANDWIDTH:.0%} of "
        f"{device.bandwidth / 1e12:.2f} TB/s"
    )
    return replace(estimate, lines=lines, seconds=seconds + (estimate.seconds or 0))


def next_token_estimate(stage: Stage, texts: Iterable[str], row_tokens: int, checkpoints: int) -> Estimate:
    """Of a stage of next-token training on `texts` (none: not there yet), those left out that are longer than `row_tokens`.

    Its settings have `epochs`, `tokens` and `batch_tokens`.
    """
    settings, above = stage.settings, stage.inputs.get("model") or stage.model.path
    tokens = count_tokens(above, texts, row_tokens)
    spent, bound = next_token_tokens(tokens, settings.epochs, settings.tokens)
    return training_estimate(
        above,
        stage.model,
        stage.parallel,
        step_tokens=settings.batch_tokens,
        row_tokens=row_tokens,
        checkpoints=checkpoints,
        tokens=spent,
        steps=None if spent is None else math.ceil(spent / settings.batch_tokens),
        bound=bound,
    )


def next_token_tokens(tokens: int, epochs: float, limit: int) -> tuple[int | None, str]:
    """How many tokens next-token training spends, of `tokens` in an epoch (0: not known before) and at most `limit` (0: no
    limit) in all; and what stands before the number."""
    spent = int(epochs * tokens)
    if limit and not 0 < spent < limit:
        return limit, "" if spent else "at most "
    return (spent, "about ") if tokens else (None, "")


def count_tokens(folder: Path | str | None, texts: Iterable[str], longest: int) -> int:
    """By the tokenizer of a model folder, those texts left out that are longer; 0 where there is no tokenizer yet."""
    if folder is None or not (Path(folder) / "tokenizer.json").exists():
        return 0
    from tokenizers import Tokenizer

    tokenizer, texts, tokens = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), iter(texts), 0
    while some := list(islice(texts, TEXTS_AT_ONCE)):
        lengths = [len(one.ids) for one in tokenizer.encode_batch_fast(some)]
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


def clock(seconds: float) -> str:
    """
    >>> clock(50), clock(5_000), clock(1_570_000)
    ('50 s', '1.4 h', '18.2 days')
    """
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size or (size == 3_600 and seconds >= size):
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
