"""A Hugging Face folder <-> module and tokenizer; the tiny Phi-3-class default.

A model is a plain transformers causal model of any class whose layers call transformers' attention interface. It gets our
attention (attention.py) and flat rows of sequences end to end. When it is loaded, a few tokens are computed both ways, so that
a class that cannot be packed is refused and never trained wrongly.

Letters: T tokens of a flat row, C hidden width, V vocabulary.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from whetstone.attention import ATTENTION, Segments
from whetstone.chat import Chat
from whetstone.longrope import fix_table
from whetstone.model_card import CARD, model_card
from whetstone.model_files import GENERATION, Unfit, check_folder, read_object, without_template
from whetstone.model_folder import find_model
from whetstone.model_weights import MAKING, SCALAR, read_config, read_weights, reading, refuse_not_finite
from whetstone.prompting import BARE, Prompting
from whetstone.records import Sampling
from whetstone.run.cpu import bound_kernel_caches
from whetstone.run.disk import room_for
from whetstone.run.folder import write_text
from whetstone.run.progress import say
from whetstone.run.settings import ModelSettings
from whetstone.template import set_thinking

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

transformers_logging.disable_progress_bar()  # else there is a bar per file
bound_kernel_caches()

# Phi-4-mini's special tokens. It ships bos = eos = pad = <|endoftext|>; a turn ends with <|end|>.
SPECIAL_TOKENS = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>")

USUAL = "Phi-3, Qwen 2 or 3, or Llama"
SAMPLING = Sampling(temperature=0.6)  # of a model's answers, if no score says another

# Of a tiny model. Phi-4-mini has 0.75 and 10,000, which is meant for contexts of thousands of tokens.
PARTIAL_ROTARY = 0.5  # share of a head's dimensions that are rotated
ROPE_THETA = 500.0

# Phi-4-mini's template: no newlines; without a generation prompt it ends with the eos token.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that keeps digits and punctuation as single tokens.

    It has Phi-4-mini's special tokens and template.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    single = pre_tokenizers.Split(Regex(r"\d|[^\w\s]"), behavior="isolated")
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([single, by_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False, **ends
    )


def build_tiny(settings: ModelSettings, texts: Iterable[str], seed: int) -> tuple["PreTrainedModel", Any]:
    """A Phi-3-class model with random weights (grouped queries, partial rotary, tied embeddings), and its tokenizer.

    Raises ValueError if the shape is impossible.
    """
    from transformers import Phi3Config, Phi3ForCausalLM

    if settings.hidden % settings.heads or settings.heads % settings.kv_heads:
        raise ValueError(
            f"[model] hidden = {settings.hidden}, heads = {settings.heads}, kv_heads = {settings.kv_heads}: heads must "
            "divide hidden, and kv_heads must divide heads. Change one of them."
        )
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        max_position_embeddings=settings.context,
        original_max_position_embeddings=settings.context,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA, "partial_rotary_factor": PARTIAL_ROTARY},
        tie_word_embeddings=True,
        attn_implementation=ATTENTION,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attention_dropout"), 0.0),
        **ids,
    )
    with MAKING, torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Phi3ForCausalLM(config)
        initialise(model, settings.layers)
    model.generation_config = generation_config(ids["eos_token_id"], tokenizer)
    model.prompting = BARE
    return model, tokenizer


def initialise(model: torch.nn.Module, layers: int) -> None:
    """Random weights for a narrow model and a short run.

    transformers' standard deviation of 0.02 suits widths in the thousands. At width 128 attention and the tied head are then
    so flat that the model copies nothing for a million tokens. Here matrices start at 1/sqrt(inputs), those that end a
    residual branch smaller by the root of the number of branches, embeddings at 0.2. (Measured with embeddings at 0.3 and
    AdamW's second beta at 0.98 instead of 0.95, both with such matrices: teacher-forced accuracy after 0.3 M tokens rose from
    58 % to 81 %. 0.2 was not compared.)
    """
    for name, weight in model.named_parameters():
        if "embed" in name:
            torch.nn.init.normal_(weight, std=0.2)
        elif weight.dim() > 1:
            depth = math.sqrt(2 * layers) if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            torch.nn.init.normal_(weight, std=1 / (depth * math.sqrt(weight.shape[1])))


def load(
    path: Path | str, device: str = "cpu", dtype: str = "float32", longest: int = 0
) -> tuple["PreTrainedModel", Any]:
    """The model that a name stands for (`find_model`), and its tokenizer. No code of the folder is ever run.

    `longest` is the length of the longest sequence of the run, 0 the model's whole context. It chooses the LongRoPE table
    (longrope.py). Dropout is switched off: the gradient of a row must not depend on how often it is computed.

    Raises FileNotFoundError or ValueError if there is no such folder, if it holds anything but one whole causal model, if
    weights are missing, left over, of another shape or not finite, if the model's class cannot be packed, if tokenizer and
    embedding do not belong together, or if there is no chat template.
    """
    model, tokenizer = read(find_model(path), device, dtype, longest)
    if not tokenizer.chat_template:
        raise without_template(path)
    return model, tokenizer


def read(folder: Path, device: str = "cpu", dtype: str = "float32", longest: int = 0) -> tuple["PreTrainedModel", Any]:
    """`load` of a plain folder, which need not have a chat template."""
    stored = check_folder(folder)
    with reading(folder):
        config = read_config(folder)
    try:
        fix_table(config, longest)
    except ValueError as error:
        raise Unfit(f"{folder}: {error}") from error
    without_dropout(config)
    with reading(folder):
        model = read_weights(folder, stored, config, getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    rows, last = model.get_output_embeddings().weight.shape[0], max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= last < rows:
        raise Unfit(
            f"{folder}: the tokenizer has an id {last}, but the model's embedding has {rows} rows: they do not belong "
            "together. Use the tokenizer that the model was trained with, or resize the embedding (resize_token_embeddings)."
        )
    model = model.to(device)
    refuse_not_finite(folder, model)
    try_out(model)
    return model, tokenizer


def load_scalar(path: Path | str, device: str = "cpu", dtype: str = "float32") -> tuple["PreTrainedModel", Any]:
    """A model for sequence classification with one label (a reward model), and its tokenizer. Raises as `load` does."""
    folder = find_model(path)
    stored = check_folder(folder)
    with reading(folder):
        config = read_config(folder, SCALAR)
    if config.num_labels != 1:
        raise Unfit(f"{folder}: it has {config.num_labels} labels, and a reward model has one. Name the folder of one.")
    without_dropout(config)
    with reading(folder):
        model = read_weights(folder, stored, config, getattr(torch, dtype), SCALAR)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    refuse_not_finite(folder, model)
    return model.to(device), tokenizer


def load_chat(path: Path | str, thinking: bool | None = None) -> tuple[Chat, int]:
    """The chat of a model, and its context in tokens. Its weights are not read. Raises as `load` and `set_thinking` do."""
    folder = find_model(path)
    check_folder(folder)
    with reading(folder):
        config = read_config(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise without_template(path)
    set_thinking(tokenizer, thinking)
    generation = read_object(folder / GENERATION) if (folder / GENERATION).exists() else {}
    return Chat(tokenizer, generation.get("eos_token_id", config.eos_token_id)), config.max_position_embeddings


def without_dropout(config: Any) -> None:
    """Set every dropout of a configuration to 0, and say so if one was not 0."""
    inner = config.get_text_config()
    rates = {name: p for name, p in vars(inner).items() if name.endswith(("dropout", "pdrop")) and isinstance(p, float)}
    if any(rates.values()):
        say(f"dropout is switched off: {', '.join(f'{name} was {p}' for name, p in rates.items() if p)}")
    for name in rates:
        setattr(inner, name, 0.0)


def hidden_states(
    model: "PreTrainedModel", ids: torch.Tensor, positions: torch.Tensor, **attention: Any
) -> torch.Tensor:
    """The hidden states below the head, (1, T, C), of a flat row: ids and positions (1, T), and a keyword of attention.py."""
    if isinstance(attention.get("lengths"), list):
        attention["lengths"] = Segments(attention["lengths"], ids.device)
    return model.base_model(input_ids=ids, position_ids=positions, use_cache=False, **attention).last_hidden_state


@torch.no_grad()
def try_out(model: "PreTrainedModel") -> None:
    """Run two short sequences packed, and each of them separately with the class's own attention and head.

    Raises ValueError if the logits differ: because of attention that does not use the interface or needs more than it offers,
    layers in which packed sequences mix (recurrent ones), or a head that is more than a matrix.
    """
    head = model.get_output_embeddings()
    weight = head.weight
    lengths = [5, 3]
    ids = torch.arange(sum(lengths), device=weight.device)[None] * 7919 % weight.shape[0]
    positions = torch.cat([torch.arange(n, device=weight.device) for n in lengths])[None]
    name = f"{model.name_or_path}: {type(model).__name__}"
    layers: list[int] = []
    try:
        packed = hidden_states(model, ids, positions, lengths=lengths, layers=layers)[0] @ weight.T  # (T, V)
        own_head = model(input_ids=ids, position_ids=positions, use_cache=False, lengths=lengths).logits[0]  # (T, V)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a class does with a packed row
        raise Unfit(
            f"{name} cannot take a packed row ({error}). Use a model of another class, such as {USUAL}."
        ) from error
    if len(set(layers)) != len(layers):  # the second call's keys would replace the first's in a cache
        raise Unfit(f"{name} computes attention twice in a layer. Use a model of another class, such as {USUAL}.")
    not_finite = (
        f"{name} gives logits that are not finite: weights or a setting in config.json are damaged. Copy both again."
    )
    if not own_head.isfinite().all():
        raise ValueError(not_finite)
    if head.bias is not None or not alike(packed, own_head):
        raise ValueError(
            f"{name} makes its logits from more than a product with the head's weight (a soft cap, a scale, a bias): its "
            f"log-probabilities would be wrong here. Use a model of another class, such as {USUAL}."
        )
    model.set_attn_implementation("eager")
    separate = [model(input_ids=part, use_cache=False).logits[0] for part in ids.split(lengths, 1)]
    model.set_attn_implementation(ATTENTION)
    if not all(logits.isfinite().all() for logits in separate):
        raise ValueError(not_finite)
    if not alike(packed, torch.cat(separate)):
        raise ValueError(
            f"{name} gives packed sequences other logits than separate ones: its attention does not use transformers' "
            f"interface, or its layers mix the sequences of a row. Use a model of another class, such as {USUAL}."
        )


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors agree within the rounding of their type. A mistake differs by far more."""
    bound = 0.1 if a.dtype.itemsize < 4 else 1e-3
    return bool((a - b).abs().max() <= bound * b.abs().max())


def save(
    model: "PreTrainedModel", tokenizer: Any, folder: Path, weights: dict[str, torch.Tensor] | None = None,
    sampling: Sampling = SAMPLING,
) -> None:  # fmt: skip
    """Write a plain Hugging Face folder: safetensors, config, tokenizer, chat template, generation config, model card; and
    prompt.json, if the model has a `prompting`, which `build_tiny` and training set.

    `weights` are written instead of the model's own, for a process that has only a share of these. `sampling` is that of the
    model's scores.
    """
    if model.can_generate():  # a reward model does not
        model.generation_config = generation_config(model.generation_config.eos_token_id, tokenizer, sampling)
    with room_for("the model", sum(weight.nbytes for weight in model.parameters()), folder):
        model.save_pretrained(folder, safe_serialization=True, state_dict=weights)
        tokenizer.save_pretrained(folder)
    if isinstance(prompting := getattr(model, "prompting", None), Prompting):
        prompting.save(folder)
    write_text(folder / CARD, model_card(model, tokenizer))
    # our attention is unknown to other readers of the folder, which choose their own; the base's code files are not in it
    config = json.loads((folder / "config.json").read_text())
    for key in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal", "auto_map"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def generation_config(ends: Any, tokenizer: Any, sampling: Sampling = SAMPLING) -> "GenerationConfig":
    """How the model was sampled here: what ends an answer, temperature, top-k and top-p, and nothing else.

    A base's own top-k, penalties and forced tokens are left out, because no training or score used them.
    """
    from transformers import GenerationConfig

    sampled = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(Chat(tokenizer, ends).stops),
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        **({"do_sample": True} | sampled if sampling.temperature > 0 else {"do_sample": False}),
    )


def parameters(model: torch.nn.Module) -> int:
    """The number of distinct parameters; a tied head counts once."""
    return sum(p.numel() for p in model.parameters())


def choose_device(device: str) -> str:
    """`auto` is a GPU if there is one. Raises ValueError for a device that torch cannot use here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        why = f"{error}".strip().partition("\n")[0].partition(". ")[0].rstrip(".")
        raise ValueError(
            f"device = {device!r}: torch cannot use it here ({why}). Take auto, which is a GPU if there is one, or cpu."
        ) from None
    return device
