"""Adapters from elsewhere, as peft writes them (LoRA and its kin), merged into their base: a plain folder, made once.

    folder = merge("runs/mine/05-sft/adapter", base)    # the base is a plain folder

An adapter folder holds adapter_config.json, which names the base, and adapter_model.safetensors. It is as untrusted as a model
folder. peft gives matrices that it does not find random values, and leaves out those that it has no place for; so what was
loaded is compared with what the file holds. The merged folder is kept in the cache, under the hash of the adapter and its base.

Checking an adapter needs neither torch nor peft, so `plan` can do it.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetstone.model_files import (
    CONFIG,
    GENERATION,
    MERGE,
    PROMPT,
    TOKENIZER_CONFIG,
    TOKENIZERS,
    Stored,
    Unfit,
    check_folder,
    listed,
    read_object,
    stored_in,
)
from whetstone.model_gguf import content_hash
from whetstone.run.disk import room_for
from whetstone.run.folder import alone, published, write_json
from whetstone.run.mistakes import install_hint
from whetstone.run.progress import say
from whetstone.run.remote import kept_in

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SETTINGS, MATRICES = "adapter_config.json", "adapter_model.safetensors"
BASE = "base_model_name_or_path"
MERGED = "merged_from"  # the key in config.json
LARGEST = 65_536  # rank; each takes memory before the matrices are compared with it
KINDS = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "VERA")  # that peft merges, and that a test has merged
FIRST = ("pissa", "olora", "corda", "loftq", "lora_ga")  # first values of LoRA that are taken out of the base
# Settings that make another model than base and product, and what each says
OTHERS = {
    "layer_replication": "repeats layers of its base",
    "alora_invocation_tokens": "counts only behind certain tokens",
    "megatron_config": "is of Megatron's layers",
}
PREFIX = "base_model.model."
PROBES = 32  # tokens that a merged model is compared on
ROUNDING = 1e-4  # of the largest logit


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder says of itself."""

    folder: Path
    base: str  # a name for `find_model`
    settings: Mapping[str, Any]
    stored: Mapping[str, Stored]


def adapter_in(path: Path) -> Path | None:
    """The path, if it is the folder of an adapter alone."""
    return path if (path / SETTINGS).is_file() and not (path / CONFIG).exists() else None


def read_adapter(folder: Path) -> Adapter:
    """Raises Unfit, with the reason and the remedy, if it cannot be merged into a causal language model, and ImportError
    without peft.
    """
    if find_spec("peft") is None:
        raise ImportError(f"{folder} is an adapter, which needs the package peft: {install_hint('lora')}")
    settings, matrices = read_object(folder / SETTINGS), folder / MATRICES

    def refuse(what: str, remedy: str) -> None:
        raise Unfit(f"{folder / SETTINGS}: {what}. {remedy}")

    kind, task, base = settings.get("peft_type"), settings.get("task_type"), settings.get(BASE)
    if kind not in KINDS:
        refuse(f"an adapter of type {listed([str(kind)])} is not merged here ({', '.join(KINDS)} are)", MERGE)
    if task not in (None, "CAUSAL_LM"):
        refuse(f"task_type = {listed([str(task)])}: it is no adapter of a causal language model", "Name one that is.")
    for key, what in OTHERS.items():
        if settings.get(key):
            refuse(f"{key} = {settings[key]!r:.100}: the adapter {what}", MERGE)
    if str(settings.get("init_lora_weights")).lower().startswith(FIRST):
        refuse(f"init_lora_weights = {settings['init_lora_weights']!r:.100}: it has changed its base", MERGE)
    ranks = settings.get("rank_pattern") if isinstance(settings.get("rank_pattern"), dict) else {}
    ranks = {key: settings.get(key) for key in ("r", "init_r")} | ranks
    if too_large := [
        f"{key} = {rank}" for key, rank in ranks.items() if isinstance(rank, int | float) and rank > LARGEST
    ]:
        refuse(
            f"{listed(too_large)}: a rank is at most {LARGEST:,}", "Take this file from where the adapter came from."
        )
    if not isinstance(base, str) or not base.strip():
        refuse(f"{BASE} = {base!r:.100}: it does not name its base", f"Write the base's folder or hub name as {BASE}.")
    if not matrices.is_file():
        pickled = ", and pickles are never read" if list(folder.glob("adapter_model.bin")) else ""
        raise Unfit(f"{folder} has no {MATRICES}{pickled}. Save it again with PeftModel.save_pretrained(FOLDER).")
    if not (stored := stored_in(matrices)):
        raise Unfit(f"{matrices} holds no matrices. Copy it again.")
    return Adapter(folder, _base_name(folder, base, settings.get("revision")), settings, stored)


def _base_name(folder: Path, base: str, revision: Any) -> str:
    """As `find_model` reads it. A path may be relative to the adapter's folder. Raises Unfit if it names an adapter."""
    if not Path(base).exists() and (folder / base).exists():
        base = str(folder / base)
    elif not Path(base).exists() and isinstance(revision, str) and revision and "@" not in base:
        base = f"{base}@{revision}"
    if adapter_in(Path(base)):
        raise Unfit(
            f"{folder / SETTINGS}: its base {base} is an adapter too. Merge that one first, and name the merged folder."
        )
    return base


def merged(adapter: Adapter, base: Path) -> Path | None:
    """The folder that it was merged into with this base; None if it was not yet."""
    place = _place(adapter, base)
    return place if (place / CONFIG).is_file() else None


def merge(adapter: Adapter, base: Path) -> Path:
    """The plain folder of base and adapter, in fp32. Raises Unfit if they do not fit, ImportError if peft is missing."""
    if (ready := merged(adapter, base)) is not None:
        return ready
    place = _place(adapter, base)
    place.parent.mkdir(parents=True, exist_ok=True)
    size = 2 * sum(path.stat().st_size for path in base.glob("*.safetensors"))
    with room_for("the merged model", size, place.parent), alone(place.with_suffix(".lock")):
        if merged(adapter, base) is None:  # another process may have made it
            say(f"{adapter.folder}: an adapter of {adapter.base}: merged into {place}")
            with published(place) as new:
                _write(adapter, base, new)
    return place


def _place(adapter: Adapter, base: Path) -> Path:
    """By the content of the adapter's files, and the base's files with their sizes and times."""
    own = [content_hash(path) for path in sorted(adapter.folder.iterdir()) if path.is_file()]
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(base.iterdir())]
    key = hashlib.sha256(json.dumps([own, str(base.resolve()), files]).encode()).hexdigest()
    return kept_in() / "models" / f"adapter-{key}"


# --- merging


def _write(adapter: Adapter, base: Path, folder: Path) -> None:
    from whetstone.model_weights import read_config, reading

    stored = check_folder(base)
    with reading(base):
        config = read_config(base)
    tokenizer = _tokenizer(adapter, base)
    with reading(adapter.folder):
        model = _merged(adapter, base, stored, config)
    rows, last = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values())
    if last >= rows:
        raise Unfit(
            f"{adapter.folder}: its tokenizer has an id {last}, and the embedding {rows} rows: its new tokens were not saved "
            f"with it. Save it again with save_embedding_layers=True, or remove its tokenizer to use that of {adapter.base}."
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in (GENERATION, PROMPT):
        for source in (base, adapter.folder):
            if (source / name).is_file():
                (folder / name).write_bytes((source / name).read_bytes())
    written = read_object(folder / CONFIG)
    kept = {"vocab_size": written["vocab_size"], "tie_word_embeddings": model.config.tie_word_embeddings}
    name = {"adapter": str(adapter.folder), "base": adapter.base, "sha256": content_hash(adapter.folder / MATRICES)}
    write_json(folder / CONFIG, read_object(base / CONFIG) | kept | {"dtype": "float32", MERGED: name})


def _tokenizer(adapter: Adapter, base: Path) -> Any:
    """The adapter's, if it has one, with the base's chat template if it has none."""
    from transformers import AutoTokenizer

    from whetstone.model_weights import reading

    own = any(all((adapter.folder / name).is_file() for name in names) for names in TOKENIZERS)
    with reading(adapter.folder):
        theirs = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        if not own or not (adapter.folder / TOKENIZER_CONFIG).is_file():
            return theirs
        tokenizer = AutoTokenizer.from_pretrained(adapter.folder, trust_remote_code=False)
    tokenizer.chat_template = tokenizer.chat_template or theirs.chat_template
    return tokenizer


def _merged(adapter: Adapter, base: Path, stored: Mapping[str, Stored], config: Any) -> "PreTrainedModel":
    """Computes what the base computes with the adapter beside it. Raises Unfit if no merged model does.

    A head that is the embedding stays so, unless the adapter changes one of the two alone: then merging into the weight that
    they share gives another model, and the head gets a weight of its own.
    """
    expected = None
    try:
        for own_head in (False, True):
            whole, beside, merged_logits = _merged_once(adapter, base, stored, config, own_head)
            expected = beside if expected is None else expected
            if (merged_logits - expected).abs().max() <= ROUNDING * expected.abs().max():
                whole.config.tie_word_embeddings = (
                    whole.get_output_embeddings().weight is whole.get_input_embeddings().weight
                )
                return whole
            del whole
        raise ValueError("merged, they compute something else")
    except (RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, Unfit):
            raise
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise Unfit(
            f"{adapter.folder} does not fit its base {adapter.base}: {reason}. Name the base it is of; if it is of this "
            "one, merge it with the library that trained it, and name the merged folder."
        ) from error


def _merged_once(
    adapter: Adapter, base: Path, stored: Mapping[str, Stored], config: Any, own_head: bool
) -> "tuple[PreTrainedModel, torch.Tensor, torch.Tensor]":
    """The merged model, and the logits (1, L, V) of `_probes` by the adapter beside the base and by the merged model."""
    import peft
    import torch

    from whetstone.model_weights import read_weights

    settings = _settings(adapter, peft)
    model = read_weights(base, stored, deepcopy(config), torch.float32)
    _resize(adapter, model)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what they warn of is compared here
        with_adapter = peft.PeftModel.from_pretrained(
            model, adapter.folder, config=settings, torch_device="cpu", autocast_adapter_dtype=True
        ).eval()
        _refuse_another(adapter, with_adapter)
        if own_head:
            _untie(with_adapter)
        ids = _probes(with_adapter)
        beside = with_adapter(input_ids=ids, use_cache=False).logits
        whole = with_adapter.merge_and_unload()
        return whole, beside, whole(input_ids=ids, use_cache=False).logits


def _probes(with_adapter: Any) -> "torch.Tensor":
    """Ids (1, L) over the whole vocabulary, and those whose rows the adapter replaces."""
    import torch

    rows = with_adapter.get_input_embeddings().weight.shape[0]
    named = with_adapter.active_peft_config.to_dict().get("trainable_token_indices") or []
    replaced = [i for ids in named.values() for i in ids] if isinstance(named, dict) else list(named)
    return torch.cat([torch.linspace(0, rows - 1, PROBES).long(), torch.tensor(replaced[:PROBES]).long()])[None]


def _settings(adapter: Adapter, peft: Any) -> Any:
    """peft's own object. Raises Unfit for a setting that this peft does not know and that says something."""
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[adapter.settings["peft_type"]]
    fields = kind.__dataclass_fields__
    unknown = [
        key for key, value in adapter.settings.items() if key not in fields and key != "runtime_config" and value
    ]
    if unknown:
        raise Unfit(
            f"{adapter.folder / SETTINGS}: peft {peft.__version__} does not know {listed(unknown)}. Use a newer peft if that "
            "has it, or remove the key if it means nothing."
        )
    return kind(**{key: value for key, value in adapter.settings.items() if key in fields} | {"inference_mode": True})


def _ends(model: "PreTrainedModel") -> set[str]:
    """Last parts of the names of embedding and head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name.rpartition(".")[2] for name, module in model.named_modules() if any(module is end for end in ends)}


def _untie(with_adapter: Any) -> None:
    """A weight of its own for the head below the adapter, so that merging into one of the two does not change the other."""
    import torch

    shared = {}
    for module in with_adapter.modules():
        weight = module._parameters.get("weight")
        if weight is not None and shared.setdefault(id(weight), module) is not module:
            module.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    with_adapter.get_base_model().config.tie_word_embeddings = False


def _resize(adapter: Adapter, model: "PreTrainedModel") -> None:
    """Rows for new tokens, if the adapter holds an embedding that has them."""
    ends = tuple(f"{name}.weight" for name in _ends(model))
    rows = {held.shape[0] for name, held in adapter.stored.items() if name.endswith(ends)}
    if rows and (most := max(rows)) != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(most, mean_resizing=False)


def _refuse_another(adapter: Adapter, model: Any) -> None:
    """Raises Unfit unless each matrix of the file has its place in the model, and each of the model comes from the file."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    held = load_file(adapter.folder / MATRICES)
    needed = get_peft_model_state_dict(model, save_embedding_layers=False)
    whole = {name.removeprefix(PREFIX): value for name, value in model.get_base_model().state_dict().items()}
    needed |= {f"{PREFIX}{name}": whole[name] for name in (n.removeprefix(PREFIX) for n in held) if name in whole}
    missing, left = sorted(needed.keys() - held.keys()), sorted(held.keys() - needed.keys())
    other = [
        name for name in held if name in needed and not torch.equal(held[name].to(needed[name].dtype), needed[name])
    ]
    wrong = {"are missing": missing, "have no place": left, "were not taken": other}
    if any(wrong.values()):
        counts = "; ".join(f"{len(names):,} {what}: {listed(names)}" for what, names in wrong.items() if names)
        raise Unfit(
            f"{adapter.folder}: its matrices do not fit its base {adapter.base}: {counts}. Name the base it is of."
        )
