"""The fixed work of the training benchmarks: a Qwen 2 of 5 million parameters and rows of very different lengths.

Weights are random and the ids mean nothing: speed is measured, not learning. The shape is small enough for a CPU, and its
rows are as ragged as chains of thought are: lengths log-uniform from 32 to 1,024, 286 on average.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOCABULARY = 512
HIDDEN, LAYERS, HEADS, MLP = 256, 6, 8, 704
LONGEST = 1024
SPECIAL_TOKENS = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
FIRST_ID, LAST_ID = 10, 500  # of the rows: no special tokens
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# (inputs, outputs) of each matrix product in the forward pass of a token; the embedding is the head's weight
PRODUCTS = [
    *[(HIDDEN, HIDDEN)] * 4 * LAYERS,  # queries, keys, values, output
    *[(HIDDEN, MLP), (HIDDEN, MLP), (MLP, HIDDEN)] * LAYERS,
    (HIDDEN, VOCABULARY),
]
FLOPS_PER_TOKEN = sum(6 * inputs * outputs for inputs, outputs in PRODUCTS)  # forward and backward


def lengths(count: int, seed: int = 0, least: int = 32, most: int = LONGEST) -> list[int]:
    """Log-uniform."""
    rng = random.Random(seed)
    return [int(math.exp(rng.uniform(math.log(least), math.log(most)))) for _ in range(count)]


def rows(count: int, seed: int = 0, least: int = 32, most: int = LONGEST) -> list[list[int]]:
    rng = random.Random(seed + 1)
    return [[rng.randint(FIRST_ID, LAST_ID) for _ in range(length)] for length in lengths(count, seed, least, most)]


def conversations(count: int) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer): only a row's first id is not trained on."""
    return [(row[:1], row[1:]) for row in rows(count)]


def questions(count: int) -> list[str]:
    return [text[:160] for text in texts(count, seed=7)]


def pairs(count: int) -> list[tuple[list[int], list[int], list[int]]]:
    """(prompt, chosen, rejected): prompts of 32 to 256 ids, 107 on average, answers of 32 to 768, 231 on average."""
    return list(zip(rows(count, 1, 32, 256), rows(count, 2, 32, 768), rows(count, 3, 32, 768), strict=True))


def model(attention: str, **smaller: int) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "intermediate_size": MLP, "max_position_embeddings": 2 * LONGEST,
        "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**shape | smaller, attn_implementation=attention))


def tokenizer() -> Any:
    """A byte-level BPE of exactly `VOCABULARY` entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer_model = Tokenizer(models.BPE())
    tokenizer_model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer_model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    tokenizer_model.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_model,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        bos_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )


def texts(count: int = 4000, seed: int = 0) -> Iterator[str]:
    """Text to train the vocabulary on."""
    words = (
        "the sum of is so we add then get first next answer therefore think step by number let x y equals minus times"
    )
    rng = random.Random(seed)
    for _ in range(count):
        picked = (
            rng.choice(words.split()) if rng.random() < 0.6 else str(rng.randint(0, 9999))
            for _ in range(rng.randint(5, 60))
        )
        yield " ".join(picked)


def write_folder(folder: Path, **smaller: int) -> Path:
    """The model, with other sizes if they are given, and its tokenizer as a Hugging Face folder."""
    model("sdpa", **smaller).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
