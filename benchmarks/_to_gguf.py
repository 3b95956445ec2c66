"""A Llama-class Hugging Face folder as a GGUF file for llama.cpp, in F32, F16, BF16 or Q8_0.

.venv-bench/bin/python benchmarks/_to_gguf.py FOLDER FILE TYPE
"""

import json
import sys
from pathlib import Path
from typing import Any

TYPES = ("F32", "F16", "BF16", "Q8_0")
BLOCK = {  # llama.cpp's names of a layer's weights
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
NORMAL, CONTROL = 1, 3  # kinds of a token


def convert(folder: Path, file: Path, kind: str) -> None:
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama":
        raise ValueError(f"{folder} holds a model of the class {config['model_type']!r}: only llama is written here.")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, folder, config)
    stored = gguf.GGMLQuantizationType[kind]
    for name, weight in load_file(folder / "model.safetensors").items():
        if weight.dtype != "float32":
            raise ValueError(f"{folder}: {name} is of the type {weight.dtype}: write the folder in float32.")
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp rotates neighbours, transformers halves
            count = heads if ".q_proj" in name else kv_heads
            weight = weight.reshape(count, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        target = stored if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(their_name(name), gguf.quants.quantize(weight, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def their_name(name: str) -> str:
    name = name.removesuffix(".weight")
    if name in OUTER:
        return OUTER[name] + ".weight"
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{BLOCK[part]}.weight"


def add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """The vocabulary and its merges. Benchmarks hand over ids, so that only their number matters."""
    told = json.loads((folder / "tokenizer.json").read_text())
    ids = told["model"]["vocab"] | {token["content"]: token["id"] for token in told["added_tokens"]}
    special = {token["id"] for token in told["added_tokens"]}
    words = {number: text for text, number in ids.items()}
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([words.get(i, f"[{i}]") for i in range(size)])
    writer.add_token_types([CONTROL if i in special else NORMAL for i in range(size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in told["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
