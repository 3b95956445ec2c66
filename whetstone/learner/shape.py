"""The shape of a transformer: the sizes on which memory and time depend, read without torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.model_files import CONFIG, check_folder, read_object
from whetstone.model_folder import base_of, check_model, gguf_of, local_model
from whetstone.model_gguf import check_gguf, sizes
from whetstone.run.settings import ModelSettings

SMALLEST_VOCABULARY = 256 + 5  # bytes and special tokens, the least that a tokenizer has (model.py)
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
    fused: bool = False  # one matrix for queries, keys and values, and one for gate and up

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each of a layer's matrices, by the name of its module."""
        ends = {"o_proj": (self.queries, self.hidden), "down_proj": (self.mlp, self.hidden)}
        if self.fused:
            return ends | {
                "qkv_proj": (self.hidden, self.queries + 2 * self.keys),
                "gate_up_proj": (self.hidden, 2 * self.mlp),
            }
        attention = {"q_proj": self.queries, "k_proj": self.keys, "v_proj": self.keys}
        inner = {"gate_proj": self.mlp, "up_proj": self.mlp}
        return ends | {name: (self.hidden, outputs) for name, outputs in (attention | inner).items()}

    def training_flops(self, length: float, adapter: int = 0) -> float:
        """Operations per token, in sequences of `length` tokens that are all scored.

        Of weights beside which an `adapter` of so many is trained no gradient is computed.
        """
        embedding = 0 if self.tied else self.vocabulary * self.hidden  # is looked up, not multiplied
        weights = self.parameters - embedding
        each = 4 * weights + 6 * adapter if adapter else 6 * weights
        return each + 6 * self.layers * self.queries * length


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
    return Shape(layers, hidden, mlp, hidden, keys, vocabulary, parameters, most=model.path is None, fused=True)


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
        fused=config.get("model_type") == "phi3",
    )
