"""What training will take, from the recipe and the files that are there: for `whetstone plan`, so without torch.

Memory is parameters x bytes for weights, gradients and AdamW's two moments, and an estimate of the activations that the
backward pass needs: about 8 hidden + 4 mlp numbers a token and layer, and 3 of a chunk's logits.
"""

import json
import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from whetstone.run.settings import ModelSettings, ParallelSettings

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MASTER_COPIES = 4  # weights, gradients, two moments
CHECKPOINT_COPIES = 3  # weights, two moments
SMALLEST_VOCABULARY = 256 + 5  # bytes and special tokens, whatever is asked for (model.py)
TEXTS_AT_ONCE = 256  # tokenised together
CHUNK = 1024  # tokens whose logits are alive (head.py)


def training_cost(
    folder: Path | str | None, model: ModelSettings, parallel: ParallelSettings, step_tokens: int, checkpoints: int
) -> dict[str, Any]:
    """Lines of the plan: model, memory, disk. Empty where the model is a hub name that only a download would tell.

    `folder` is the model trained, or None for one made from the shape in `[model]`; where it is not made yet, that shape
    is what it will have. `step_tokens` are those of an optimizer step, `checkpoints` how many are kept.
    """
    if folder is not None and (Path(folder) / "config.json").exists():
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        count, most = stored_parameters(Path(folder)), ""
    elif model.path is None:
        names = {"layers": "num_hidden_layers", "hidden": "hidden_size", "mlp": "intermediate_size"}
        config = {theirs: getattr(model, ours) for ours, theirs in names.items()} | {
            "vocab_size": max(model.vocabulary, SMALLEST_VOCABULARY)
        }
        count, most = shaped_parameters(model), "at most "
    else:
        return {}
    size = BYTES[model.dtype]
    tokens = min(step_tokens, parallel.micro_batch_tokens)
    layer = 8 * config["hidden_size"] + 4 * config["intermediate_size"]
    numbers = tokens * config["num_hidden_layers"] * layer * BYTES[parallel.compute]
    logits = 3 * min(tokens, CHUNK) * config["vocab_size"] * 4
    return {
        "model": f"{most}{count:,} parameters",
        "memory": f"{most}{bytes_as_text(MASTER_COPIES * size * count)} of weights, gradients and moments, about "
        f"{bytes_as_text(numbers + logits)} of activations in a micro-batch of {tokens:,} tokens",
        "disk": f"{most}{bytes_as_text(size * count)} of model, {bytes_as_text(CHECKPOINT_COPIES * size * count)} a "
        f"checkpoint, {checkpoints} kept",
    }


def steps_cost(tokens: int, epochs: float, limit: int, batch_tokens: int) -> dict[str, str]:
    """Lines of the plan for next-token training on `tokens` (0: not known before), at most `limit` (0: no limit) in all."""
    spent = int(epochs * tokens)
    if limit and not 0 < spent < limit:
        return {"tokens": f"{limit:,}", "steps": f"about {math.ceil(limit / batch_tokens):,}"}
    if not tokens:
        return {}
    return {"tokens": f"about {spent:,}", "steps": f"about {math.ceil(spent / batch_tokens):,}"}


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


def shaped_parameters(model: ModelSettings) -> int:
    """Of the tiny Phi-3-class model, its vocabulary full."""
    key = model.hidden // model.heads * model.kv_heads
    attention = model.hidden * (model.hidden + 2 * key) + model.hidden * model.hidden
    layer = attention + 3 * model.hidden * model.mlp + 2 * model.hidden
    return max(model.vocabulary, SMALLEST_VOCABULARY) * model.hidden + model.layers * layer + model.hidden


def stored_parameters(folder: Path) -> int:
    """From the headers of the folder's safetensors files; a tied head is stored once."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
    return count


def bytes_as_text(count: float) -> str:
    """
    >>> bytes_as_text(7_800_000)
    '7.8 MB'
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
