"""Small models made on the spot, for tests: the classes that users bring, with random weights."""

import json

import torch
from tokenizers import Tokenizer
from transformers import (
    AfmoeConfig,
    AfmoeForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

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
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
WINDOWED = {  # with a sliding window, in every layer or in every second
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 7}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"sliding_window": 7}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, {"sliding_window": 7, "sliding_window_pattern": 2, "head_dim": 16}),
    "afmoe": (  # which views what attention returns
        AfmoeConfig,
        AfmoeForCausalLM,
        {
            "sliding_window": 7,
            "num_hidden_layers": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "head_dim": 16,
        },
    ),
}


def tiny():
    """The tiny Phi-3-class default and its tokenizer."""
    settings = ModelSettings(layers=2, hidden=64, mlp=96, heads=2, kv_heads=1, vocabulary=300, context=256)
    return models.build_tiny(settings, TEXTS, seed=0)


def random_model(kind: str, vocabulary: int, dtype: torch.dtype = torch.float32, **more):
    """A randomly initialised model of a user's class, with our attention."""
    config, build = CLASSES[kind]
    return built(config, build, vocabulary, dtype, **more)


def windowed_model(kind: str, vocabulary: int, dtype: torch.dtype = torch.float32, **more):
    config, build, window = WINDOWED[kind]
    return built(config, build, vocabulary, dtype, **(window | more))


def built(config, build, vocabulary: int, dtype: torch.dtype, **more):
    torch.manual_seed(0)
    settings = SHAPE | {"vocab_size": vocabulary, "tie_word_embeddings": True} | more
    model = build(
        config(bos_token_id=0, eos_token_id=0, pad_token_id=0, attn_implementation=models.ATTENTION, **settings)
    )
    for p in model.parameters():  # wider than the default, so that logits differ visibly
        if p.dim() > 1:
            p.data.mul_(3.0)
    return model.to(dtype).eval()


# --- Phi-4-mini, shrunk: everything that makes it awkward is kept

ORIGINAL = 48  # positions before LongRoPE changes its table (Phi-4-mini: 4,096)
GAP, UNUSED = 20, 35  # ids that no token has: before the special tokens, and behind them


def phi4_mini_tokenizer(texts: list[str], vocabulary: int = 300):
    """Special tokens at the end, behind a gap; bos = eos = pad; the template without newlines."""
    tokenizer = models.train_tokenizer(texts, vocabulary)
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    names = [token["content"] for token in data["added_tokens"]]
    plain = [token for token in data["model"]["vocab"] if token not in names]
    data["model"]["vocab"] = {token: number for number, token in enumerate(plain)}
    for number, token in enumerate(data["added_tokens"]):
        token["id"] = len(plain) + GAP + number
        data["model"]["vocab"][token["content"]] = token["id"]
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token=end,
        eos_token=end,
        pad_token=end,
        chat_template=models.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def phi4_mini(texts: list[str], layers: int = 2, hidden: int = 96, context: int = 512):
    """A Phi-4-mini with random weights: LongRoPE, tied head, three queries a key, partial rotary, unused slots.

    Its short factors are 1 and its long ones rise from 1, as the real one's do.
    """
    tokenizer = phi4_mini_tokenizer(texts)
    size = hidden // 3
    pairs = int(0.75 * size) // 2
    settings = ModelSettings(layers=layers)
    config = Phi3Config(
        vocab_size=max(tokenizer.get_vocab().values()) + 1 + UNUSED,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=context,
        original_max_position_embeddings=ORIGINAL,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * pairs,
            "long_factor": [1.0 + 0.5 * i for i in range(pairs)],
        },
        tie_word_embeddings=True,
        sliding_window=2 * context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=models.ATTENTION,
    )
    torch.manual_seed(0)
    model = Phi3ForCausalLM(config)
    models.initialise(model, settings.layers)
    return model.eval(), tokenizer
