"""GGUF files made on the spot with llama.cpp's own package: a tiny Llama with random weights, whole or with a fault."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_models import TEXTS
from whetstone import model as models

HIDDEN, MLP, LAYERS, HEADS, KEYS, CONTEXT = 64, 96, 2, 4, 2, 256
NORMAL, CONTROL = 1, 3  # types of tokens


def settings(architecture: str = "llama") -> dict[str, Any]:
    return {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "feed_forward_length": MLP,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEYS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 500.0,
        "rope.dimension_count": HIDDEN // HEADS,
    }


def shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    keys = HIDDEN // HEADS * KEYS
    layer = {
        "attn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (keys, HIDDEN), "attn_v": (keys, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN), "ffn_norm": (HIDDEN,), "ffn_gate": (MLP, HIDDEN), "ffn_up": (MLP, HIDDEN),
        "ffn_down": (HIDDEN, MLP),
    }  # fmt: skip
    every = {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in layer.items()}
    return {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)} | every


def write_gguf(
    path: Path,
    quantisation: str = "Q8_0",
    architecture: str = "llama",
    drop: tuple[str, ...] = (),
    more: dict[str, tuple[int, ...]] | None = None,
    strings: dict[str, str] | None = None,
    numbers: dict[str, int] | None = None,
    vocabulary: bool = True,
    template: bool = True,
) -> Path:
    """`drop` and `more` are names of tensors, `strings` and `numbers` settings besides the usual ones."""
    import gguf

    tokenizer = models.train_tokenizer(TEXTS, 300)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quantisation}"])
    for key, value in settings().items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    for key, text in (strings or {}).items():
        writer.add_string(key, text)
    for key, number in (numbers or {}).items():
        writer.add_uint32(key, number)
    if vocabulary:
        special = set(tokenizer.all_special_tokens) | set(models.SPECIAL_TOKENS)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
        for name in ("bos", "eos", "pad"):
            getattr(writer, f"add_{name}_token_id")(tokenizer.eos_token_id)
        if template:
            writer.add_chat_template(models.CHAT_TEMPLATE)
    kind = gguf.GGMLQuantizationType[quantisation]
    random = np.random.default_rng(0)
    for name, shape in ({n: s for n, s in shapes(len(tokens)).items() if n not in drop} | (more or {})).items():
        weights = random.normal(1.0 if "norm" in name else 0.0, 0.1, shape).astype(np.float32)
        if len(shape) > 1:
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
