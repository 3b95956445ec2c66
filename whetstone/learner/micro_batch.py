"""The size of the micro-batches if the recipe leaves it open (`micro_batch_tokens = "auto"`).

On a CPU the rate hardly depends on the size, so memory decides: the largest that fits beside weights, gradients and moments. It
is chosen once per stage and kept in the stage's folder, because the last bits of a gradient depend on it: a stage that goes on
elsewhere, or with less free memory, takes the same.
"""

from dataclasses import replace

from whetstone.learner.cost import bytes_as_text, moments_of
from whetstone.learner.cpu_hours import forks_of
from whetstone.learner.memory import fitting_tokens
from whetstone.learner.shape import shape_of
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import say
from whetstone.run.usage import free_memory

UNKNOWN = 2048  # tokens, for a model whose shape is not known


def with_micro_batches(stage: Stage, device: str) -> Stage:
    """The stage with a number of tokens in its settings, before any of it is loaded."""
    if stage.parallel.micro_batch_tokens != "auto":
        return stage
    path = stage.folder / "micro_batch.json"
    if not path.exists():
        write_json(path, {"tokens": _chosen(stage, device)})
    tokens = read_json(path, needed=["tokens"])["tokens"]
    return replace(stage, parallel=stage.parallel.model_copy(update={"micro_batch_tokens": tokens}))


def _chosen(stage: Stage, device: str) -> int:
    shape = shape_of(stage.model_source, stage.model)
    if shape is None:
        return UNKNOWN
    parallel = stage.parallel.model_copy(update={"device": device})
    room = free_memory() if device == "cpu" else _free_on_gpu()
    forks = forks_of(stage.run, parallel) if device == "cpu" else 1
    tokens = fitting_tokens(shape, stage.model.dtype, parallel, room, forks, moments_of(stage), stage.adapter)
    say(f"{stage.name}: micro-batches of up to {tokens:,} tokens, for {bytes_as_text(room)} of free memory")
    return tokens


def _free_on_gpu() -> float:
    import torch

    return torch.cuda.mem_get_info()[0]
