"""GGUF files, llama.cpp's format: what one holds, from its header, and its conversion into a plain folder by transformers.

transformers dequantises the weights, which stay as rounded as they were. The folder is kept under the hash of the file's
content, so a file is converted once. It says in `config.json` (`converted_from`) what it came from, and so does each model
trained from it.

transformers gives weights that it does not find random values, and leaves out what it has no place for. So what a file holds
is compared with what the model has, and settings that transformers does not read are refused where they would change results.
"""

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetstone.model_files import CONFIG, INDEX, WEIGHTS, Unfit, listed
from whetstone.model_hub import one_gguf
from whetstone.run.disk import room_for
from whetstone.run.folder import alone, hash_file, published, write_json
from whetstone.run.mistakes import install_hint
from whetstone.run.progress import say
from whetstone.run.remote import kept_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ORIGIN = "converted_from"  # the key in config.json
MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEAD = "<4sIQQ"  # magic, version, numbers of tensors and of settings
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
PLAIN_TYPES = ("F32", "F16", "BF16", "F64")
PLAIN_FOLDER = "Take the model's plain folder (safetensors)"
# Settings that change what a model computes, and that transformers does not read for most architectures
SCALES = ("attention.scale", "embedding_scale", "residual_scale", "logit_scale")


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself."""

    path: Path
    settings: dict[str, Any]  # an array's value is its length
    tensors: dict[str, tuple[tuple[int, ...], str]]  # name -> shape, type

    @property
    def architecture(self) -> str:
        return str(self.settings.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        return self.settings.get(f"{self.architecture}.{key}")

    @property
    def weights(self) -> int:
        return sum(math.prod(shape) for shape, _ in self.tensors.values())

    @property
    def types(self) -> dict[str, int]:
        """Type -> number of weights, the most frequent first."""
        count: Counter[str] = Counter()
        for shape, kind in self.tensors.values():
            count[kind] += math.prod(shape)
        return dict(count.most_common())

    @property
    def quantisation(self) -> str:
        """As llama.cpp names it (Q4_K_M); if the file does not say it, the type of most weights."""
        from gguf.constants import LlamaFileType

        known = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
        return known.get(self.settings.get("general.file_type", -1)) or next(iter(self.types))


def is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix.lower() == ".gguf"


def sizes(header: Header) -> dict[str, Any]:
    """The sizes of the model under the names of config.json, as far as the file says them."""
    names = {
        "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv", "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length", "head_dim": "attention.key_length",
    }  # fmt: skip
    known = {name: header.of_architecture(key) for name, key in names.items()}
    embedding, _ = header.tensors.get("token_embd.weight", ((0, 0), ""))
    return known | {"vocab_size": embedding[-1]}


def gguf_in(path: Path) -> Path | None:
    """The GGUF file that a path stands for: itself, or the one in a folder without plain weights.

    Raises Unfit if such a folder holds several.
    """
    if is_gguf(path):
        return path
    if not path.is_dir() or any((path / name).exists() for name in (WEIGHTS, INDEX)):
        return None
    name = one_gguf((file.name for file in path.iterdir() if file.is_file()), str(path))
    return path / name if name else None


# --- the header


def read_header(path: Path) -> Header:
    """Raises Unfit for a file that is damaged or cut off, and ImportError if the packages that read GGUF are missing."""
    _require_packages(path)
    import numpy as np

    try:
        data = np.memmap(path, mode="r")
        header, ends = _parsed(path, memoryview(data))
    except (struct.error, ValueError, IndexError, OverflowError, RecursionError, KeyError) as error:
        raise Unfit(
            f"{path} is no GGUF file, or it is damaged or cut off ({_reason(error)}). Copy or download it again."
        ) from error
    if ends > len(data):
        raise Unfit(
            f"{path} is cut off: it has {len(data):,} bytes, and its tensors need {ends:,}. Copy or download it again."
        )
    return header


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:100]}"


def _require_packages(path: Path) -> None:
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise ImportError(
            f"{path} is a GGUF file, and reading one needs {' and '.join(missing)}, which this Python lacks. Install: "
            f"{install_hint('gguf')}"
        )


def _parsed(path: Path, data: memoryview) -> tuple[Header, int]:
    """The header, and how many bytes the file must have."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    magic, version, tensor_count, setting_count = struct.unpack_from(HEAD, data)
    if magic != MAGIC or version not in VERSIONS:
        raise ValueError(f"it begins with {magic!r}, version {version}")
    at, settings = struct.calcsize(HEAD), {}
    for _ in range(setting_count):
        key, at = _string(data, at)
        settings[key], at = _value(data, at + 4, *struct.unpack_from("<I", data, at))
    tensors, end = {}, 0
    for _ in range(tensor_count):
        name, at = _string(data, at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * dimensions)
        at += 16 + 8 * dimensions
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        tensors[name] = shape, GGMLQuantizationType(kind).name
        end = max(end, offset + math.prod(shape) // block * size)
    alignment = settings.get("general.alignment", 32)
    return Header(path, settings, tensors), -(-at // alignment) * alignment + end


def _string(data: memoryview, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + size
    if end > len(data):
        raise ValueError("a text goes beyond its end")
    return bytes(data[at + 8 : end]).decode(errors="replace"), end


def _value(data: memoryview, at: int, kind: int) -> tuple[Any, int]:
    """A setting's value and where it ends; of an array its length."""
    if kind == STRING:
        return _string(data, at)
    if kind != ARRAY:
        return struct.unpack_from(NUMBERS[kind], data, at)[0], at + struct.calcsize(NUMBERS[kind])
    inner, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in NUMBERS:
        return length, at + length * struct.calcsize(NUMBERS[inner])
    for _ in range(length):
        _, at = _value(data, at, inner)
    return length, at


# --- what can be converted


def check_gguf(path: Path) -> Header:
    """The header of a file that may become a plain folder. Raises Unfit with the reason and the remedy if it cannot."""
    header = read_header(path)

    def refuse(what: str, remedy: str) -> None:
        raise Unfit(f"{path}: {what}. {remedy}.")

    kind, parts = header.settings.get("general.type", "model"), header.settings.get("split.count", 1)
    if path.suffix.lower() != ".gguf":
        refuse("it is a GGUF file of another name, which transformers does not take", f"Rename it to {path.name}.gguf")
    if kind == "mmproj" or header.architecture == "clip":
        refuse("it is the vision part of a model (mmproj), not a language model", "Name the file of the language model")
    if kind != "model":
        refuse(f"it holds {listed([str(kind)])}, not a model", "Name the file of the model; merge an adapter first")
    if parts > 1:
        refuse(f"it is one of {parts} parts of a model", "Join them: llama-gguf-split --merge FIRST_PART WHOLE.gguf")
    if not header.tensors:
        refuse("it holds a vocabulary and no weights", "Name the file of the whole model")
    if not header.architecture:
        refuse("it does not say its architecture (general.architecture)", "Take it from where the model came from")
    if not _is_known(header.architecture):
        refuse(
            f"transformers reads no GGUF files of the architecture {listed([header.architecture])}",
            f"{PLAIN_FOLDER}, if its class is one of transformers",
        )
    if not header.settings.get("tokenizer.ggml.tokens"):
        refuse("it holds no tokenizer, and text cannot become ids without one", "Take a file with its vocabulary")
    if (scaling := header.of_architecture("rope.scaling.type")) not in (None, "none"):
        refuse(
            f"its positions are scaled ({listed([str(scaling)])}), which transformers does not read from GGUF",
            PLAIN_FOLDER,
        )
    scales = [key for key in SCALES if header.of_architecture(key) not in (None, 0.0, 1.0)]
    if scales:
        refuse(
            f"{listed(scales)} changes what it computes, and transformers does not read that from GGUF", PLAIN_FOLDER
        )
    return header


def _is_known(architecture: str) -> bool:
    """Whether transformers reads it. Its tables write qwen2moe as qwen2_moe; a version without the tables decides later."""
    try:
        from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
        from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
    except ImportError:
        return True
    known = {name.replace("_", "") for name in (*GGUF_CONFIG_MAPPING, *GGUF_CONFIG_ARCHS)}
    return architecture.replace("-", "").replace("_", "") in known - {"general", "tokenizer"}


def _refuse_another_model(header: Header, model: "PreTrainedModel", missing: list[str]) -> None:
    """Weights that are missing, which would be random, and weights that have no place in the model."""
    if missing:
        raise Unfit(
            f"{header.path}: {len(missing)} weights of a {type(model).__name__} are missing: {listed(sorted(missing))}. The "
            f"file is not whole, or transformers cannot read this architecture ({header.architecture}). {PLAIN_FOLDER}."
        )
    held, needed = header.weights, sum(p.numel() for p in model.parameters())
    if held != needed:
        odd = [name for name in header.tensors if not name.startswith("blk.") and "rope" in name]
        raise Unfit(
            f"{header.path}: it holds {held:,} numbers, and a {type(model).__name__} has {needed:,}: transformers does not "
            f"read all of them{f' ({listed(odd)})' if odd else ''}, so the model would be another. {PLAIN_FOLDER}."
        )
    inner = model.config.get_text_config()
    size = getattr(inner, "head_dim", None) or inner.hidden_size // inner.num_attention_heads
    share = (getattr(inner, "rope_parameters", None) or {}).get("partial_rotary_factor") or 1.0
    rotated = header.of_architecture("rope.dimension_count")
    if rotated is not None and rotated != int(size * share):
        raise Unfit(
            f"{header.path}: {rotated} of a head's {size} dimensions are rotated, and transformers would rotate "
            f"{int(size * share)}. {PLAIN_FOLDER}."
        )


# --- conversion


def converted(path: Path, folder: Path | None = None) -> Path | None:
    """The plain folder that a file was converted into; None if it was not yet."""
    folder = folder or _place(path)
    return folder if (folder / CONFIG).is_file() else None


def convert(path: Path, folder: Path | None = None) -> Path:
    """The plain folder of a GGUF file, in fp32. It is made if no file of this content was converted before.

    Default of `folder`: a place of its own in the cache. Raises Unfit if the file cannot be converted, ImportError if packages
    are missing.
    """
    if (ready := converted(path, folder)) is not None:
        return ready
    header, folder = check_gguf(path), folder or _place(path)
    _make(folder.parent)
    with room_for("the converted model", 4 * header.weights, folder.parent), alone(folder.with_suffix(".lock")):
        if converted(path, folder) is None:  # another process may have made it
            say(f"{path}: GGUF, {header.quantisation}, {header.weights:,} weights: converted into {folder}")
            with published(folder) as new:
                _write(header, new)
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"{folder}, where converted models are kept, cannot be made: {error.strerror}. Name another folder in the "
            "environment variable WHETSTONE_CACHE."
        ) from error


def origin(folder: Path) -> dict[str, Any]:
    """What a plain folder, or one trained from it, was converted from; {} if from nothing."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8")).get(ORIGIN) or {}
    except (OSError, ValueError, AttributeError):
        return {}


def content_hash(path: Path) -> str:
    """Of a file, computed once per state of it in this process."""
    facts = path.stat()
    return _hashed(path.resolve(), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@lru_cache(maxsize=64)
def _hashed(path: Path, *_: int) -> str:
    return hash_file(path)


def _place(path: Path) -> Path:
    return kept_in() / "models" / f"gguf-{content_hash(path)}"


def _write(header: Header, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, __version__
    from transformers.utils import logging as transformers_logging

    from whetstone.model_weights import reading

    transformers_logging.disable_progress_bar()

    where = {"pretrained_model_name_or_path": header.path.parent, "gguf_file": header.path.name}
    with reading(header.path):
        model, report = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    _refuse_another_model(header, model, list(report["missing_keys"]))
    model.hf_quantizer, model.is_quantized = None, False  # the weights are dequantised: the folder is of full precision
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config[ORIGIN] = {
        "file": header.path.name, "sha256": content_hash(header.path), "quantisation": header.quantisation,
        "weights": header.types, "transformers": __version__,
    }  # fmt: skip
    write_json(folder / CONFIG, config)
