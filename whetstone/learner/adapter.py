"""Adapters: small trained matrices beside frozen weights, by peft (LoRA, Hu et al. 2022, arXiv 2106.09685; DoRA, Liu et al.
2024, arXiv 2402.09353), and QLoRA, whose frozen weights are rounded to 4 bits (four_bit.py).

    add_adapter(model, settings, seed)         # in place: the base is frozen, the adapter is trained
    for name, weight in plain_weights(model)   # the model without adapters that computes the same: what samplers and files get

A stage that trains an adapter ends with the whole model, the adapter merged (`model/`), and the adapter alone as peft writes it
(`adapter/`), which names its base. The next stage starts from the merged model, with a new adapter.

Letters: O outputs of a layer, I inputs, R rank.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from whetstone.learner.four_bit import dense, quantise
from whetstone.model_hub import downloaded_as
from whetstone.run.mistakes import install_hint
from whetstone.run.settings import AdapterSettings

NAME = "default"  # peft's name of the only adapter
OWN = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector|lora_embedding_A|lora_embedding_B)\.")
BASE = ".base_layer."
VALUE_HEAD = "value_head"  # beside a model that is its own critic (learner.py), and no part of the model


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(f"[adapter] rank needs the package peft: {install_hint('lora')}") from error
    return peft


def add_adapter(model: Any, settings: AdapterSettings, seed: int) -> None:
    """Freeze the model and put an adapter beside its linear layers. It changes nothing until it is trained: B is 0.

    The adapter is in fp32 at least, because bf16 loses small updates. With `weights = "nf4"` the frozen layers are rounded
    first (four_bit.py). Raises ImportError if a package is missing, ValueError if the model has no such layers.
    """
    peft = _peft()
    if settings.weights == "nf4":
        quantise(model)
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        target_modules=targets,
        lora_dropout=0.0,  # the gradient of a row must not depend on how often it is computed
        use_dora=settings.dora,
        task_type="CAUSAL_LM" if model.get_output_embeddings() is not None else "SEQ_CLS",
    )
    model.is_loaded_in_4bit = settings.weights == "nf4"  # which peft asks
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model, adapter_name=NAME)
        except ValueError as error:
            raise ValueError(f"[adapter] targets = {targets!r}: {error}") from error
    del model.is_loaded_in_4bit
    for name, p in model.named_parameters():
        if OWN.search(name):
            p.data = p.data.to(torch.promote_types(p.dtype, torch.float32))
    for name, layer in adapted(model):
        if not isinstance(layer.base_layer, torch.nn.Linear):
            raise ValueError(
                f"[adapter] targets: {name} is a {type(layer.base_layer).__name__}, and only linear layers take an adapter."
            )


def adapted(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, under the names that they have without one."""
    yield from ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))


def has_adapter(model: Any) -> bool:
    return next(adapted(model), None) is not None


def plain_weights(
    model: Any, whole: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and weight of each parameter of the model without adapters that computes the same. One is in memory at a time.

    `whole` gathers a weight of which this process has a share; every process of a group must then walk to the end.
    """
    layers = dict(adapted(model))
    for name, parameter in model.named_parameters():
        if (layers and OWN.search(name)) or name.startswith(VALUE_HEAD):
            continue
        owner, base, last = name.rpartition(BASE)
        if not base or owner not in layers:
            yield name, whole(dense(parameter))
        elif last == "weight":
            yield f"{owner}.weight", merged(layers[owner], whole)
        else:
            yield f"{owner}.{last}", whole(parameter.detach())


def merged(layer: Any, whole: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """W + s B A, of (O, I); with DoRA its rows have the length that is learnt. In the weight's type; sums in fp32 at least."""
    weight, a, b = (whole(dense(part.weight)) for part in (layer.base_layer, layer.lora_A[NAME], layer.lora_B[NAME]))
    wide = torch.promote_types(weight.dtype, torch.float32)
    total = weight.to(wide) + layer.scaling[NAME] * (b.to(wide) @ a.to(wide))
    if layer.use_dora.get(NAME):
        length = whole(layer.lora_magnitude_vector[NAME].weight.detach()).to(wide)
        total = total * (length / total.norm(dim=1))[:, None]
    return total.to(weight.dtype)


@torch.no_grad()
def publish(weights: Iterable[tuple[str, torch.Tensor]], copy: Any) -> None:
    """Copy weights into a module, by their names."""
    targets = dict(copy.named_parameters())
    for name, weight in weights:
        targets[name].copy_(weight)


@contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """The model computes as its base does."""
    layers = [layer for _, layer in adapted(model)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def own_weights(
    model: Any, whole: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight
) -> dict[str, torch.Tensor]:
    """The adapter's matrices, as this model names them."""
    return {name: whole(p.detach()) for name, p in model.named_parameters() if OWN.search(name)}


def save_adapter(model: Any, weights: dict[str, torch.Tensor], folder: Path, base: Path | str) -> None:
    """Write the adapter alone: adapter_config.json and adapter_model.safetensors, as peft reads them.

    The configuration names the `base`: by its name on the Hub if it was downloaded, else by its place.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, state_dict=weights, adapter_name=NAME, save_embedding_layers=False)
    # peft's own wrapper around a model adds this prefix
    named = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    on_hub = downloaded_as(Path(base))
    name, revision = on_hub or (os.path.abspath(base), None)
    config = replace(model.peft_config[NAME], base_model_name_or_path=name, revision=revision, inference_mode=True)
    config.save_pretrained(folder)
