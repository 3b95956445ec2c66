"""The memory that training takes on each device, estimated from a model's shape: without torch.

It is the sum of

- Python and the libraries, on a CPU;
- weights, gradients and AdamW's two moments, in the weights' type unless the optimizer says otherwise, divided by the number
  of processes under FSDP, which gathers two layers, and embedding with head, at a time;
- with an adapter: the frozen weights as they are or in 4 bits, of which one matrix at a time is computed in full; adapter,
  gradients and moments in fp32;
- a reference, which is a copy of the weights, or nothing if an adapter is trained; a critic, which is a second model;
- a copy of the weights in the computing type, if that is another: autocast keeps it during a forward pass, fused layers on a
  CPU (cpu_layer.py) have that of one layer;
- the activations that the backward pass needs (see `activation_bytes`, read off transformers' classes);
- the head's gradient, unless it is frozen, and three times the logits of a chunk; on a CPU with a large vocabulary twice those
  of a block of ids;
- gradients, activations and head of each further process on a CPU (`parallel.forks`).

Compiled layers keep less: on an H200 the RL update of benchmarks/gpu_rl.py took 136 GB, and the estimate is 162.
"""

import math

from whetstone.learner.shape import Shape
from whetstone.run.cpu import has_bf16_vectors
from whetstone.run.settings import AdapterSettings, ParallelSettings

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
NF4 = (
    0.5 + 1 / 64 + 4 / (64 * 256)
)  # bytes a weight: 4 bits, a byte for each 64, a number in fp32 for each 256 of these
CHUNK = 1024  # tokens whose logits are in memory (head.py)
WIDE, BLOCK, LEAST = 16_384, 4 << 20, 1024  # ids from which blocks are used; logits and ids of a block (wide_head.py)
MICRO_BATCHES = (8192, 4096, 2048, 1024, 512)  # that micro_batch_tokens = "auto" chooses from
SAFE = 0.85  # share of the memory that they may fill by this estimate
LIBRARIES = 0.4e9  # bytes of a process that has loaded torch and transformers and trains nothing
ALL = AdapterSettings()  # no adapter: all weights are trained


def adapter_size(shape: Shape, adapter: AdapterSettings) -> int:
    """The numbers of an adapter: A and B beside each matrix, and DoRA's lengths."""
    chosen = [
        sizes for name, sizes in shape.matrices.items() if adapter.targets == "all-linear" or name in adapter.targets
    ]
    each = sum(adapter.rank * (inputs + outputs) + adapter.dora * outputs for inputs, outputs in chosen)
    return shape.layers * each if adapter.rank else 0


def activation_bytes(
    shape: Shape, dtype: str, compute: str, on_gpu: bool, adapter: AdapterSettings = ALL
) -> float:  # fmt: skip
    """Bytes that autograd keeps per token and layer, in transformers' Phi, Llama and Qwen classes.

    Each of the two norms keeps the residual stream twice: in the weights' type and in fp32. In the computing type are kept:
    the inputs of the matrices; queries, keys and values before and after rotation; the output of attention; the two inner
    vectors of the gated feed-forward part, the activation of one, and their product. On a CPU attention is in fp32. An adapter
    adds its inner vectors. In fp32 beside weights in bf16 it keeps an input of its own for each matrix, and the matrices none.

    Fused layers (cpu_layer.py) keep the residual stream twice, queries, keys and values, the output of attention and the two
    inner vectors.
    """
    if are_fused(dtype, compute, on_gpu, adapter):
        return 2 * 4 * shape.hidden + 2 * (2 * shape.queries + 2 * shape.keys) + 2 * 2 * shape.mlp
    wide, small = 4, min(BYTES[dtype], BYTES[compute])
    norms = 2 * (wide + max(BYTES[dtype], small)) * shape.hidden
    inputs = 2 * small * shape.hidden
    attention = small if on_gpu else wide
    heads = small * (shape.queries + 2 * shape.keys) + attention * (shape.queries + shape.keys)
    output = (1 if on_gpu else 2) * attention * shape.queries
    beside = 0
    if adapter.rank:
        cast = BYTES[dtype] < wide and compute == "float32"
        beside = len(shape.matrices) * (wide if cast else small) * adapter.rank
        if cast:
            beside += wide * sum(ins for ins, _ in shape.matrices.values()) - small * (2 * shape.hidden + shape.mlp)
    return norms + inputs + heads + output + 4 * small * shape.mlp + beside


def are_fused(dtype: str, compute: str, on_gpu: bool, adapter: AdapterSettings = ALL) -> bool:
    """Whether layers of these classes train fused here (cpu_layer.py)."""
    mixed = (dtype, compute) == ("float32", "bfloat16")
    return mixed and not on_gpu and not adapter.rank and has_bf16_vectors()


def on_gpu(parallel: ParallelSettings) -> bool:
    return parallel.device == "cuda" or bool(parallel.accelerator)


def sampling_bytes(dtype: str, parallel: ParallelSettings) -> int:
    """Bytes per weight of the model that samples."""
    return BYTES[parallel.sampling_dtype("cuda" if on_gpu(parallel) else "cpu", dtype)]


def training_memory(
    shape: Shape, dtype: str, parallel: ParallelSettings, tokens: int, samples: bool = False, forks: int = 1,
    moments: str = "weights", adapter: AdapterSettings = ALL, reference: bool = False, critic: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Bytes per device for a micro-batch of `tokens` tokens, by use.

    If the stage `samples`, and the learner keeps only a share of the weights, has them in another type or trains an adapter,
    the sampler has a copy of its own. `forks` processes share a step on a CPU. `moments` is the optimizer's setting.
    """
    gpu, size, count = on_gpu(parallel), BYTES[dtype], shape.parameters
    shared = parallel.processes if parallel.shard == "fsdp" else 1
    layer = activation_bytes(shape, dtype, parallel.compute, gpu, adapter) * tokens
    every = parallel.activation_checkpointing
    again = math.ceil(shape.layers / every) if every else 0
    kept = (shape.layers - again) * layer + again * tokens * shape.hidden * size + (layer if again else 0)
    rounded = adapter.weights == "nf4"
    cast = (dtype, parallel.compute) == ("float32", "bfloat16") and not rounded
    other = BYTES["bfloat16"] * count if cast else 0
    if are_fused(dtype, parallel.compute, gpu, adapter):
        other /= shape.layers
    head = _head_memory(shape, dtype, parallel, tokens, frozen=bool(adapter.rank))
    sampled = sampling_bytes(dtype, parallel)
    ends = shape.vocabulary * shape.hidden
    gathered = size * (ends + 2 * (count - ends) / shape.layers) if shared > 1 else 0
    held = {name: part / shared for name, part in _held(shape, dtype, moments, adapter).items()}
    copied = samples and (shared > 1 or sampled != size or bool(adapter.rank))
    largest = max(inputs * outputs for inputs, outputs in shape.matrices.values())
    return {
        "Python and libraries": 0 if gpu else LIBRARIES,
        **held,
        "reference": size * count / shared if reference and not adapter.rank else 0,
        "critic": sum(held.values()) if critic else 0,
        "gathered": gathered,
        "sampler's copy": sampled * count if copied else 0,
        f"weights in {parallel.compute}": other,
        "a matrix in full": size * largest if rounded else 0,
        "activations": kept,
        "head": head,
        f"{forks - 1} more processes": (forks - 1) * (held["gradients"] + other + kept + head),
    }


def _held(shape: Shape, dtype: str, moments: str, adapter: AdapterSettings) -> dict[str, float]:
    """Bytes of a model that is trained, with its gradients and moments."""
    size, count = BYTES[dtype], shape.parameters
    if not adapter.rank:
        return {
            "weights": size * count,
            "gradients": size * count,
            "moments": 2 * moment_bytes(dtype, moments) * count,
        }
    in_layers = shape.layers * sum(inputs * outputs for inputs, outputs in shape.matrices.values())
    rounded = in_layers if adapter.weights == "nf4" else 0
    trained, wide = adapter_size(shape, adapter), BYTES["float32"]
    return {
        "weights": size * (count - rounded) + NF4 * rounded,
        "adapter": wide * trained,
        "gradients": wide * trained,
        "moments": 2 * moment_bytes("float32", moments) * trained,
    }


def moment_bytes(dtype: str, moments: str) -> int:
    """Bytes of one of AdamW's two moments of a weight."""
    return BYTES[dtype if moments == "weights" else moments]


def fitting_tokens(
    shape: Shape, dtype: str, parallel: ParallelSettings, room: float, forks: int, moments: str,
    adapter: AdapterSettings = ALL,
) -> int:  # fmt: skip
    """The largest micro-batch of MICRO_BATCHES with which training takes at most SAFE of `room` bytes, or the smallest."""
    takes = {
        n: sum(training_memory(shape, dtype, parallel, n, False, forks, moments, adapter).values())
        for n in MICRO_BATCHES
    }
    return next((n for n, taken in takes.items() if taken <= SAFE * room), MICRO_BATCHES[-1])


def _head_memory(shape: Shape, dtype: str, parallel: ParallelSettings, tokens: int, frozen: bool) -> float:
    """The head's gradient in fp32, a copy of its weight if the products take another type, and logits."""
    weight = shape.vocabulary * shape.hidden
    gradient = 0 if frozen else 4 * weight
    if not on_gpu(parallel) and shape.vocabulary >= WIDE:
        return gradient + 2 * 4 * min(tokens * shape.vocabulary, max(BLOCK, LEAST * tokens))
    # bytes per number in the products
    factor = 2 if on_gpu(parallel) and "bfloat16" in (dtype, parallel.compute) else 4
    copy = factor * weight if factor != BYTES[dtype] else 0
    return gradient + copy + 3 * min(tokens, CHUNK) * shape.vocabulary * 4
