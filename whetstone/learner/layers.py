"""Activation checkpointing and compiling of a model's layers.

Each layer's `forward` is wrapped below its `__call__`, so that hooks around a layer (FSDP2's) stay outside and run once. Only
training is affected: a layer that decodes runs its plain forward. Checkpointing leaves the gradient equal to the bit,
compiling up to rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from whetstone.attention import UNTRACED, attend
from whetstone.learner.cpu_layer import fused, trains_faster


def prepare(model: Any, activation_checkpointing: int, compile: bool, compute: str = "float32") -> None:
    """Recompute the activations of every n-th layer in the backward pass (0: of none), and compile the layers if asked.

    Layers that are not compiled are fused where cpu_layer.py can do so and `compute` is the type that it is for.

    Activation checkpointing (Chen et al. 2016, arXiv 1604.06174) keeps one hidden state per layer and costs a second forward
    pass through it.
    """
    if not compile and trains_faster(model, compute):
        for layer in decoder_layers(model):
            layer.forward = fused(layer)
    if not activation_checkpointing and not compile:
        return
    if compile:
        AttentionInterface.register(UNTRACED, torch.compiler.disable(attend))
        model.set_attn_implementation(UNTRACED)
    for number, layer in enumerate(decoder_layers(model)):
        again = activation_checkpointing > 0 and number % activation_checkpointing == 0
        layer.forward = trained(layer, again, compile)


def trained(layer: torch.nn.Module, again: bool, compile: bool) -> Callable[..., Any]:
    """A forward for the layer that is the plain one unless the layer trains."""
    plain = layer.forward
    inner = torch.compile(plain, dynamic=True) if compile else plain

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return plain(*args, **kwargs)
        if again and torch.is_grad_enabled():
            # dropout is off (model.load), so no random state has to be kept
            return checkpoint(inner, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
        return inner(*args, **kwargs)

    return forward


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The transformer blocks, in order. Raises ValueError if the model has no list of them."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise ValueError(
        f"{type(model).__name__} has no list of its {count} layers, so they cannot be checkpointed, compiled or "
        'sharded. Set activation_checkpointing = 0, compile = false and shard = "ddp".'
    )
