"""A Hugging Face folder <-> module and tokenizer; the tiny Phi-3-class default; the one registered attention.

Every model is a plain transformers causal model. Its attention is ours, registered once under the name "whetstone", and
takes a flat row of tokens, (1, T): several sequences end to end. What a call attends to is chosen by its keyword:

packed   `lengths=[…]`   each segment attends to itself alone, causally: training, log-probabilities
cached   `cache=…`       each token belongs to a slot of a key/value cache: decoding (decode/kv_cache.py)

On CPU a loop of causal SDPA over segments beats a T x T mask, and gives every segment the very numbers it gets alone.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from whetstone.run.disk import room_for
from whetstone.run.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

transformers_logging.disable_progress_bar()  # a bar for each file read or written tells nobody anything

ATTENTION = "whetstone"

# Phi-4-mini's special tokens. It ships bos = eos = pad = <|endoftext|>; a turn ends with <|end|>.
SPECIAL_TOKENS = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>")

# Phi-4-mini's template: no newline after a role or an end; without a generation prompt it closes with the eos token.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, K, T, D), K key/value heads
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    lengths: list[int] | None = None,
    cache: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of every model here. Returns (1, T, H, D)."""
    if sliding_window is not None and sliding_window < query.shape[2]:
        raise ValueError(
            f"sliding_window = {sliding_window} is shorter than the row of {query.shape[2]} tokens: windowed attention "
            "is not supported; set sliding_window to null in the model's config.json if it may attend to everything."
        )
    if cache is not None:
        return cache.attend(module.layer_idx, query, key, value, scaling), None
    return packed_attention(query, key, value, lengths or [query.shape[2]], scaling).transpose(1, 2).contiguous(), None


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float | None
) -> torch.Tensor:
    """Causal attention of each segment to itself, in fp32 on CPU whatever autocast says: (1, H, T, D)."""
    grouped = key.shape[1] != query.shape[1]
    kept = query.dtype
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        query, key, value = query.float(), key.float(), value.float()
    out = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return torch.cat(out, 2).to(kept)


AttentionInterface.register(ATTENTION, attend)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose digits and punctuation stay single tokens, with Phi-4-mini's special tokens and template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|[^\w\s]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_tiny(settings: ModelSettings, texts: Iterable[str], seed: int) -> tuple["PreTrainedModel", Any]:
    """A Phi-3-class model with random weights (grouped queries, partial rotary, tied embeddings) and its tokenizer."""
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    if settings.hidden % settings.heads or settings.heads % settings.kv_heads:
        raise ValueError(
            f"[model] hidden = {settings.hidden}, heads = {settings.heads}, kv_heads = {settings.kv_heads}: heads must "
            "divide hidden, and kv_heads must divide heads."
        )
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        max_position_embeddings=settings.context,
        original_max_position_embeddings=settings.context,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": settings.rope_theta,
            "partial_rotary_factor": settings.partial_rotary,
        },
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        attn_implementation=ATTENTION,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Phi3ForCausalLM(config)
        initialise(model, settings.layers)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[end, tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.6,
    )
    return model, tokenizer


def initialise(model: torch.nn.Module, layers: int) -> None:
    """Random weights for a narrow model and a short run.

    transformers' 0.02 everywhere suits widths in the thousands. At width 128 it leaves attention and the tied head so flat
    that a million tokens go by before anything is copied: matrices start at 1/sqrt(inputs), residual branches smaller by
    the root of their number, embeddings at 0.2. (Measured with embeddings at 0.3 and AdamW's second beta at 0.98 instead of
    0.95: teacher-forced accuracy after 0.3 M tokens 58 % -> 81 %, both with such matrices; 0.2 was not compared.)
    """
    for name, weight in model.named_parameters():
        if "embed" in name:
            torch.nn.init.normal_(weight, std=0.2)
        elif weight.dim() > 1:
            depth = math.sqrt(2 * layers) if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            torch.nn.init.normal_(weight, std=1 / (depth * math.sqrt(weight.shape[1])))


def load(path: Path | str, device: str = "cpu", dtype: str = "float32") -> tuple["PreTrainedModel", Any]:
    """A model folder (or hub name) and its tokenizer. No remote code is ever run.

    Raises FileNotFoundError when a path is not a model folder.
    """
    folder = Path(path)
    if (folder.exists() or str(path).startswith((".", "/"))) and not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{path} holds no config.json: a model is a Hugging Face folder, as a training stage writes."
        )
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    config._attn_implementation = ATTENTION
    model = AutoModelForCausalLM.from_pretrained(
        path, config=config, dtype=getattr(torch, dtype), attn_implementation=ATTENTION, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    return model.to(device), tokenizer


def save(model: "PreTrainedModel", tokenizer: Any, folder: Path) -> None:
    """A plain Hugging Face folder: safetensors, config, tokenizer, chat template, generation config."""
    with room_for("the model", sum(weight.nbytes for weight in model.parameters()), folder):
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    # The attention is ours alone; other readers of the folder choose their own.
    config = json.loads((folder / "config.json").read_text())
    for key in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def parameters(model: torch.nn.Module) -> int:
    """Distinct parameters: a tied head counts once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def choose_device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
