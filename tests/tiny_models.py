"""Small models made on the spot, for tests: the classes that users bring, with random weights."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from whetstone import model as models
from whetstone.run.settings import ModelSettings

TEXTS = [
    f"Compute {a} + {b}. <think>\n{a}+{b}\n</think>\nThe answer is \\boxed{{{a + b}}}."
    for a in range(30)
    for b in range(9)
]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CLASSES = {
    "phi3": (Phi3Config, Phi3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def tiny():
    """The tiny Phi-3-class default and its tokenizer."""
    settings = ModelSettings(layers=2, hidden=64, mlp=96, heads=2, kv_heads=1, vocabulary=300, context=256)
    return models.build_tiny(settings, TEXTS, seed=0)


def random_model(kind: str, vocabulary: int, dtype: torch.dtype = torch.float32):
    """A randomly initialised model of a user's class, with our attention."""
    config, build = CLASSES[kind]
    torch.manual_seed(0)
    model = build(
        config(
            vocab_size=vocabulary,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=True,
            attn_implementation=models.ATTENTION,
            **SHAPE,
        )
    )
    for p in model.parameters():  # wider than the default, so that logits differ visibly
        if p.dim() > 1:
            p.data.mul_(3.0)
    return model.to(dtype).eval()
