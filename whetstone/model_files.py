"""The files of a model folder from elsewhere, and what they must hold before anything of it is built.

A folder is untrusted: nothing in it is executed, and sizes are compared with what its files really hold before memory or time
is spent on them. `model.load` then compares every weight. This file needs neither torch nor transformers, so `plan` can use it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from whetstone.base_templates import CHOICE
from whetstone.run.mistakes import first_few

CONFIG, GENERATION = "config.json", "generation_config.json"
PROMPT = "prompt.json"  # of a model that was trained here (prompting.py)
TOKENIZER_CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tekken.json",),
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
READ = (".json", ".safetensors", ".jinja")
FLOATS = ("F64", "F32", "F16", "BF16")
SHOWN, LONGEST = 3, 100  # names in an error, and characters of each
POSITIVE = ("max_position_embeddings", "rope_theta", "factor", "sliding_window")
MOST = {"layer": 4096, "label": 65_536}  # in a configuration, of what takes time or memory for each
ORIGINAL = "Take this file from where the model came from"
ACCEPTED = (
    "Name a Hugging Face folder (config.json, safetensors, tokenizer), an adapter's folder (adapter_config.json), a GGUF file, "
    "a run or a stage that trained a model, or the name of a model on the Hugging Face Hub, OWNER/NAME. docs/your_model.md "
    "says what a folder must hold"
)
PLAIN = "AutoModelForCausalLM.from_pretrained"  # how transformers reads what we refuse, in remedies
MERGE = (
    f"Merge it first: PeftModel.from_pretrained({PLAIN}(BASE), ADAPTER).merge_and_unload().save_pretrained(FOLDER), with the "
    "package peft, and save the tokenizer there too."
)


class Unfit(ValueError):
    """What a folder holds cannot be used. The message says why, and the remedy."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file, from its header."""

    file: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors writes it: F32, BF16 …


# --- folders


def check_folder(folder: Path) -> dict[str, Stored]:
    """The stored weights by name, of a folder whose files can be a plain causal model of full precision.

    Raises FileNotFoundError or ValueError with the reason and the remedy if they cannot.
    """
    _refuse_other_formats(folder)
    config = read_object(folder / CONFIG)
    _refuse_other_kinds(folder, config)
    _refuse_sizes(folder, config)
    _refuse_ends(folder / CONFIG, config)
    if (folder / GENERATION).exists():
        _refuse_ends(folder / GENERATION, read_object(folder / GENERATION))
    stored = stored_weights(folder)
    if not stored:
        _refuse_without_weights(folder)
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        raise FileNotFoundError(
            f"{folder} has no tokenizer ({', or '.join(' with '.join(names) for names in TOKENIZERS[:3])}): without it, text "
            "cannot become ids. Copy the tokenizer's files from the model that this one was trained from."
        )
    _refuse_layers(folder, config, stored)
    _refuse_unread_template(folder)
    return stored


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises ValueError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{path} is not valid JSON ({error}). {ORIGINAL}.") from error
    if not isinstance(value, dict):
        raise Unfit(f"{path} holds a {type(value).__name__}, not an object. {ORIGINAL}.")
    return value


def _refuse_other_formats(folder: Path) -> None:
    files = sorted(folder.iterdir())
    if odd := [path.name for path in files if not path.is_file() and (not path.is_dir() or path.suffix in READ)]:
        raise Unfit(
            f"{folder}: {listed(odd)} is no file (a link that leads nowhere, a pipe, a folder). Put the file in its place, or "
            "remove it."
        )
    adapters = [path.name for path in files if path.name.startswith("adapter_")]
    if adapters:
        what = "beside a whole model" if (folder / CONFIG).exists() else "without its adapter_config.json"
        raise Unfit(
            f"{folder} holds an adapter {what} ({listed(adapters)}): the base alone would be another model. Put all files of "
            "the adapter into a folder of their own, and name that."
        )
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}, so it is no model. {ACCEPTED}.")


def _refuse_other_kinds(folder: Path, config: dict[str, Any]) -> None:
    def refuse(what: str, remedy: str) -> NoReturn:
        raise Unfit(f"{folder}/{CONFIG}: {what}. {remedy}")

    quantised = [key for key in ("quantization_config", "quantization", "compression_config") if config.get(key)]
    quantised += [
        name
        for name in ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
        if (folder / name).exists()
    ]
    if quantised:
        refuse(
            f"the weights are quantised ({listed(quantised)}), and training and scores need the full ones",
            f"Take the model's unquantised folder, or dequantise: {PLAIN}(FOLDER).dequantize(), then save_pretrained.",
        )
    parts = [
        key for key in config if key.endswith("_config") and isinstance(config[key], dict) and key != "rope_config"
    ]
    causal = "Use a causal language model, such as Phi-3, Qwen 2 or 3, or Llama."
    if "text_config" in parts or "vision_config" in parts or "audio_config" in parts:
        refuse(f"a model of several parts ({listed(parts)}), not a language model alone", causal)
    if config.get("is_encoder_decoder"):
        refuse("an encoder with a decoder, not a causal language model", causal)
    if "transformers_weights" in config:
        refuse(
            "transformers_weights names other files than model.safetensors", "Rename the weights, and remove this key."
        )
    if not isinstance(config.get("model_type"), str):
        refuse("it has no model_type, so the model's class is not known", f"{ORIGINAL}.")


def _refuse_ends(path: Path, config: dict[str, Any]) -> None:
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(end) is int and end >= 0 for end in ends):
        raise Unfit(f"{path}: eos_token_id = {listed(map(str, ends))}: it is an id, or a list of ids. {ORIGINAL}.")


def _refuse_sizes(folder: Path, config: dict[str, Any]) -> None:
    """Numbers for each of which the configuration's class would take memory, before it is compared with anything."""
    for key, value in config.items():
        for word, most in MOST.items():
            if word in key and "vocab" not in key and isinstance(value, int | float) and value > most:
                raise Unfit(f"{folder}/{CONFIG}: {key} = {value}: it is at most {most:,}. {ORIGINAL}.")
    rope = [config.get(key) for key in ("rope_scaling", "rope_parameters")]
    for key, value in (item for table in (config, *rope) if isinstance(table, dict) for item in table.items()):
        positive = key in POSITIVE and isinstance(value, int | float)
        if key == "sliding_window" and config.get("use_sliding_window") is False:
            continue
        if positive and not 0 < value < float("inf"):
            raise Unfit(f"{folder}/{CONFIG}: {key} = {value}: it is a number above 0. {ORIGINAL}.")


def _refuse_layers(folder: Path, config: dict[str, Any], stored: dict[str, Stored]) -> None:
    layers = 1 + max((int(number) for name in stored for number in re.findall(r"(?:^|\.)(\d+)\.", name)), default=-1)
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        if isinstance(config.get(key), int) and config[key] > layers:
            raise Unfit(
                f"{folder}: {CONFIG} asks for {config[key]:,} layers ({key}), and the weights are of {layers:,}. Take "
                "both from the same model."
            )


def without_template(name: Path | str) -> Unfit:
    """The error about a base model."""
    return Unfit(
        f"{name} has no chat template, as base models have none: it is not known how a question is put to it, and what ends an "
        f'answer. Give it one, in a recipe as [model] chat_template = "chatml", else as --chat-template chatml: {CHOICE}.'
    )


def has_template(folder: Path) -> bool:
    settings = folder / TOKENIZER_CONFIG
    return (folder / TEMPLATE).exists() or bool(settings.exists() and read_object(settings).get("chat_template"))


def _refuse_unread_template(folder: Path) -> None:
    """A template that transformers' tokenizers do not read: prompts would be those of a model without one."""
    template, old = folder / TEMPLATE, folder / "chat_template.json"
    if template.exists():
        if not template.read_bytes().strip():
            raise Unfit(f"{template} is empty. {ORIGINAL}, or remove it.")
    elif old.exists() and not has_template(folder):
        raise Unfit(f"{old} is not read by tokenizers. Put the text of its chat_template into {template.name}.")


# --- weights


def stored_weights(folder: Path) -> dict[str, Stored]:
    """Name -> shape and type of the weights that transformers would read, from the files' headers; {} if there are none.

    A tied head is stored once. Raises ValueError or FileNotFoundError if a file is damaged or missing.
    """
    stored: dict[str, Stored] = {}
    for path in _weight_files(folder):
        parts = stored_in(path)
        if twice := sorted(parts.keys() & stored.keys()):
            raise Unfit(f"{folder}: {listed(twice)} stands in two files. Copy or download the folder again.")
        stored |= parts
    return stored


def stored_in(path: Path) -> dict[str, Stored]:
    """The same of one file. Raises Unfit if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            return {n: Stored(path.name, tuple(p.get_shape()), p.get_dtype()) for n, p in parts.items()}
    except SafetensorError as error:
        raise Unfit(f"{path} is damaged or cut off ({error}). {_again(path)}") from error


def _again(path: Path) -> str:
    with path.open("rb") as file:
        pointer = file.read(40).startswith(b"version https://git-lfs")
    return "It is a pointer of git LFS: git lfs pull." if pointer else "Copy or download it again."


def _weight_files(folder: Path) -> Sequence[Path]:
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        return []
    index = read_object(folder / INDEX)
    parts = index.get("weight_map")
    if not isinstance(parts, dict) or not all(
        isinstance(name, str) and name and Path(name).name == name for name in parts.values()
    ):
        raise Unfit(
            f"{folder / INDEX}: weight_map is not a table of weights and their files, all in this folder. Download it again."
        )
    if not isinstance(index.get("metadata"), dict):
        raise Unfit(f'{folder / INDEX} has no "metadata", which transformers asks for. Add "metadata": {{}}.')
    names = sorted(set(parts.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} lacks {listed(missing)}, of the {len(names)} files that {INDEX} lists. Copy or download the others."
        )
    return [folder / name for name in names]


def _refuse_without_weights(folder: Path) -> NoReturn:
    if (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        raise Unfit(f"{folder}: its safetensors files hold no weights. Copy or download them again.")

    def found(pattern: str) -> list[str]:
        return sorted(path.name for path in folder.glob(pattern))

    if pickles := [name for pattern in PICKLES for name in found(pattern) if name != "training_args.bin"]:
        raise Unfit(
            f"{folder} holds its weights as pickles ({listed(pickles)}), which can execute code and are never read. Convert "
            f"them where that may happen: {PLAIN}(FOLDER).save_pretrained(NEW) writes safetensors."
        )
    others = found("*.safetensors")
    remedy = f"Rename {others[0]} to {WEIGHTS}." if len(others) == 1 else "Copy or download them."
    raise FileNotFoundError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}. {remedy}")


def listed(names: Iterable[str]) -> str:
    """A few names, and how many more there are. They come from a file: long ones are cut, and control characters escaped.

    >>> listed(["a\\n", "b", "c", "d", "e"])
    'a\\\\n, b, c and 2 more'
    """
    every = [(name if name.isprintable() else ascii(name)[1:-1])[:LONGEST] for name in names]
    return first_few(every, SHOWN)
