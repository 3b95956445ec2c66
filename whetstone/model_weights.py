"""A folder's configuration and weights, read by transformers and compared with what the model's class needs.

transformers gives a weight that it does not find random values, and only warns. Here the model is built without memory first,
so that sizes are compared before anything is allocated, and then every weight must have come from the files.
"""

import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, __version__
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from whetstone.attention import ATTENTION
from whetstone.model_files import CONFIG, FLOATS, MERGE, Stored, Unfit, listed, read_object
from whetstone.run.progress import say

# transformers replaces functions of its classes while it makes a model (that which ties the head, for one): what another thread
# makes meanwhile would lack them, and after two at once they would be gone for good
MAKING = threading.RLock()

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WRAPPERS = r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\."  # torch.compile, FSDP, recomputation
GIGANTIC = (
    4  # times as many parameters as the files hold: refused before anything is allocated. A tied head is stored once
)
REASON = 300  # characters of an error of transformers
SAME = "Take configuration and weights from the same model"


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Whatever transformers or tokenizers raise about a folder becomes one line that names it. Warnings are not shown."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except (Unfit, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        panicked = type(error).__name__ == "PanicException"  # of tokenizers: an error in Rust, and no Exception
        if not (panicked or isinstance(error, Exception)):
            raise
        if error.args == (ATTENTION,):  # not found among a class's own attentions
            raise Unfit(
                f"{folder} cannot be used: its class chooses among attentions of its own and does not use transformers' "
                "interface. Use a model of another class (docs/models.md)."
            ) from error
        reason = " ".join(str(error).split())[:REASON]
        if "trust_remote_code" in reason:
            reason = "it needs code of the folder"
        raise Unfit(
            f"{folder} cannot be loaded ({type(error).__name__}: {reason}). transformers {__version__} must be able to read it "
            "without executing code of the folder."
        ) from error
    finally:
        transformers_logging.set_verbosity(level)


@dataclass(frozen=True)
class Kind:
    """A kind of model: how transformers makes one, and the names of its classes by model_type."""

    name: str
    auto: Any
    classes: Mapping[str, Any]


CAUSAL = Kind("causal language model", AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
SCALAR = Kind(
    "model for sequence classification",
    AutoModelForSequenceClassification,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)


def read_config(folder: Path, wanted: Kind = CAUSAL) -> Any:
    """The configuration. Raises Unfit if its class is not one of transformers' of the kind that is wanted."""
    written = read_object(folder / CONFIG)
    kind = written["model_type"]
    if kind not in CONFIG_MAPPING_NAMES:
        code = " and the folder's own code is never run" if "auto_map" in written else ""
        raise Unfit(
            f"{folder}/{CONFIG}: transformers {__version__} has no model_type {listed([kind])!r}{code}. Use a class that it "
            "has, or a newer transformers if that has this one."
        )
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    classes, own = wanted.classes.get(kind), config.architectures or []
    own = [own] if isinstance(own, str) else own
    classes = {classes} if isinstance(classes, str) else set(classes or ())
    if not classes or (own and not classes & set(own)):
        raise Unfit(
            f"{folder}/{CONFIG}: model_type {listed([kind])!r} with architectures {listed(own) or 'missing'} is no "
            f"{wanted.name} of transformers ({listed(sorted(classes)) or 'none'}). Use a {wanted.name}."
        )
    if not isinstance(getattr(config.get_text_config(), "max_position_embeddings", None), int):
        raise Unfit(
            f"{folder}/{CONFIG}: a {kind} has no max_position_embeddings, so its context is not known (BLOOM, MPT, "
            "Mamba). Use a class that has it, such as Phi-3, Qwen 2 or 3, or Llama."
        )
    return config


def read_weights(
    folder: Path, stored: Mapping[str, Stored], config: Any, dtype: torch.dtype, wanted: Kind = CAUSAL
) -> "PreTrainedModel":
    """The model, on the CPU, with every weight from the folder's files. Raises Unfit if the files do not hold exactly these."""
    config.dtype = dtype  # the folder may name one that no weight has
    config.update({"return_dict": True, "output_hidden_states": False, "output_attentions": False})
    with MAKING, torch.device("meta"):
        blueprint = wanted.auto.from_config(config, attn_implementation=ATTENTION)
    _refuse_size_and_types(folder, stored, blueprint)
    needed = blueprint.state_dict()
    renamed = wrapped(stored, needed)
    if renamed:
        name = next(name for name in stored if name not in needed)
        say(f"{folder}: the weights have a wrapped model's names ({listed([name])}), and are read without the wrapper")
    options = {"dtype": dtype, "attn_implementation": ATTENTION, "trust_remote_code": False, "use_safetensors": True}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with MAKING:
        model, report = wanted.auto.from_pretrained(
            folder, config=config, key_mapping={pattern: "" for pattern in renamed} or None, **options
        )
    _refuse_another_models(folder, model, report)
    if wanted is CAUSAL:
        _correct_tie(folder, model)
    return model


def wrapped(stored: Mapping[str, Any], needed: Mapping[str, Any]) -> list[str]:
    """The patterns that turn stored names into needed ones, if wrappers around the model are all the difference; else [].

    >>> wrapped({"module.head.weight": 1, "module._orig_mod.norm.weight": 1}, {"head.weight": 1, "norm.weight": 1})
    ['_orig_mod\\\\.|_fsdp_wrapped_module\\\\.|_checkpoint_wrapped_module\\\\.', '^module\\\\.']
    """
    if stored.keys() <= needed.keys():
        return []
    inner = [re.sub(WRAPPERS, "", name) for name in stored]
    patterns = [WRAPPERS] if inner != list(stored) else []
    parts = inner[0].split(".")
    for prefix in ("".join(f"{part}." for part in parts[:count]) for count in range(len(parts))):
        if all(name.startswith(prefix) and name[len(prefix) :] in needed for name in inner):
            return [*patterns, *([f"^{re.escape(prefix)}"] if prefix else [])]
    return []


def _refuse_size_and_types(folder: Path, stored: Mapping[str, Stored], blueprint: torch.nn.Module) -> None:
    wanted = sum(p.numel() for p in blueprint.parameters())
    held = sum(math.prod(tensor.shape) for tensor in stored.values())
    if wanted > GIGANTIC * held:
        raise Unfit(
            f"{folder}: {CONFIG} describes a model of {wanted:,} parameters, and the files hold {held:,}. {SAME}."
        )
    needed = dict(blueprint.named_parameters())
    types = [
        f"{name} {tensor.dtype}" for name, tensor in stored.items() if name in needed and tensor.dtype not in FLOATS
    ]
    if types:
        raise Unfit(
            f"{folder}: {len(types)} weights are not stored as full numbers ({listed(types)}), as in quantised models. Take "
            f"the model's folder with weights in {', '.join(FLOATS)}."
        )


def _refuse_another_models(folder: Path, model: "PreTrainedModel", report: Mapping[str, Any]) -> None:
    """Weights that are missing, left over or of another shape. A missing one would be random."""
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    mismatched = [
        f"{name} {tuple(own)}, not {tuple(needed)}" for name, own, needed in sorted(report["mismatched_keys"])
    ]
    wrong = {"are missing": missing, "have another shape": mismatched, "are left over": unexpected}
    if not any(wrong.values()):
        return
    counts = "; ".join(f"{len(names):,} {what}: {listed(names)}" for what, names in wrong.items() if names)
    head = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    tie = [f"{head[0]}.weight"] == missing and not mismatched
    remedy = ', or set "tie_word_embeddings": true if the head is the embedding' if tie else ""
    remedy = MERGE if any("lora_" in name for name in unexpected) else f"{SAME}{remedy}."
    raise Unfit(f"{folder}: the weights are not those of the {type(model).__name__} in {CONFIG}: {counts}. {remedy}")


def _correct_tie(folder: Path, model: "PreTrainedModel") -> None:
    """The configuration says of the head what the weights say."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is embedding.weight
    if model.config.tie_word_embeddings and not tied:
        say(f"{folder}: {CONFIG} says that the head is the embedding, and the files hold another head: it is used")
    model.config.tie_word_embeddings = tied


def refuse_not_finite(folder: Path, model: "PreTrainedModel") -> None:
    """Raises Unfit if a weight is NaN or infinite, or if embedding or head are nothing but zeros."""
    bad, head = [], model.get_output_embeddings()
    ends = [model.get_input_embeddings().weight, *([head.weight] if head else [])]
    for name, weight in ((name, p) for name, p in model.named_parameters() if p.numel()):
        low, high = (float(end) for end in weight.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            bad.append(f"{name}: {'NaN' if math.isnan(low) else 'infinite'}")
        elif low == high == 0 and any(weight is end for end in ends):
            bad.append(f"{name}: zeros")
    if bad:
        raise Unfit(
            f"{folder}: {len(bad)} weights hold no numbers to compute with ({listed(bad)}). Training diverged, or the file is "
            "damaged: take an earlier checkpoint, or copy the file again."
        )
