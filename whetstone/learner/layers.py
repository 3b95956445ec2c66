"""What is done to a model's layers for training: activations computed twice instead of kept, and compiling.

Each layer's own `forward` is wrapped, below its `__call__`: hooks around a layer (FSDP2's) stay outside and run once. Only
training is touched; a layer that decodes runs as it was. Neither changes the gradient, but for rounding where compiled.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from whetstone.attention import UNTRACED, attend


def prepare(model: Any, activation_checkpointing: int, compile: bool) -> None:
    """Compute each n-th layer's activations again in the backward pass (0: no layer's), and compile the layers.

    Activation checkpointing (Chen et al. 2016, arXiv 1604.06174) keeps one hidden state a layer and costs a second forward
    pass through it.
    """
    if not activation_checkpointing and not compile:
        return
    if compile:
        AttentionInterface.register(UNTRACED, torch.compiler.disable(attend))
        model.set_attn_implementation(UNTRACED)
    for number, layer in enumerate(decoder_layers(model)):
        again = activation_checkpointing > 0 and number % activation_checkpointing == 0
        layer.forward = trained(layer, again, compile)


def trained(layer: torch.nn.Module, again: bool, compile: bool) -> Callable[..., Any]:
    """The layer's forward, another one while it trains."""
    plain = layer.forward
    inner = torch.compile(plain, dynamic=True) if compile else plain

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return plain(*args, **kwargs)
        if again and torch.is_grad_enabled():
            # no dropout is drawn (model.load), so no random state has to be kept
            return checkpoint(inner, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
        return inner(*args, **kwargs)

    return forward


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The transformer blocks, in order."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise ValueError(
        f"{type(model).__name__} keeps its {count} layers in no list: they cannot be prepared for training."
    )
