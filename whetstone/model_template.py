"""A base model with a chat template: a plain folder beside the base's own, in which everything else is the base's.

    folder = open_model("google/gemma-3-270m", "gemma")

Control tokens that the template writes and the tokenizer lacks are added as new tokens, unless they are to stay text. A new
token starts from the mean of the embeddings, in a head of its own too, and is trained like any other. What ends a turn is read
off the template as for every model (chat.py): a row teaches it, a completion stops at it, and the exported folder names it.
"""

import hashlib
import json
import os
import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from whetstone.base_templates import CHOICE, SHIPPED
from whetstone.model_files import CONFIG, GENERATION, READ, check_folder, has_template, read_object, without_template
from whetstone.model_folder import adapter_of, base_of, find_model, gguf_of, local_model
from whetstone.model_gguf import origin, read_header
from whetstone.run.disk import room_for
from whetstone.run.folder import alone, published
from whetstone.run.mistakes import suggestion
from whetstone.run.progress import say
from whetstone.run.remote import kept_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTROL = re.compile(r"<\|\w+\|>|<(?:start|end)_of_turn>")  # in a template, of which the tokenizer may have it or not


def open_model(name: Path | str, chat_template: str | None = None, template_tokens: str = "new") -> Path:
    """The plain folder that a name stands for (`find_model`), with another chat template if one is given.

    Raises as `find_model` and `template_source` do, Unfit for a model without a template, and TemplateError for a template that
    cannot be used.
    """
    folder = find_model(name)
    if gguf_of(name) is not None:
        say(f"{name}: from GGUF, {origin(folder)['quantisation']}: its weights are rounded to that")
    if not chat_template:
        check_template(name, None)
        return folder
    check_folder(folder)
    source = template_source(chat_template)
    target = kept_in() / "models" / f"template-{_key(folder, source, template_tokens)}"
    if not (target / CONFIG).is_file():
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        with room_for("the model with its chat template", size, target.parent), alone(target.with_suffix(".lock")):
            if not (target / CONFIG).is_file():
                with published(target) as new:
                    _write(folder, new, chat_template, source, template_tokens == "new")
    return target


def check_template(name: Path | str, chat_template: str | None) -> None:
    """Raises if a template cannot be found, or if none is given and the model has none, as far as it is on this machine."""
    if chat_template:
        template_source(chat_template)
    elif (folder := local_model(name)) is not None:
        if not has_template(folder):
            raise without_template(name)
    elif (adapter := adapter_of(name)) and (base := base_of(name)):  # not merged yet
        if not has_template(adapter):
            check_template(base, None)
    elif (gguf := gguf_of(name)) is not None and "tokenizer.chat_template" not in read_header(gguf).settings:
        raise without_template(name)


def template_source(given: str) -> str:
    """The text of a shipped template or of a file. Raises FileNotFoundError or ValueError."""
    if given in SHIPPED:
        return SHIPPED[given]
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(
            f"chat_template = {given!r} is neither a template that comes with Whetstone nor a file"
            f"{suggestion(given, SHIPPED)} Use {CHOICE}."
        )
    try:
        source = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"chat_template: {path} is not UTF-8 ({error}). Save it as UTF-8.") from error
    if not source.strip():
        raise ValueError(f"chat_template: {path} is empty. Write a template, or use {CHOICE}.")
    return source


def new_tokens(name: Path | str, chat_template: str) -> list[str]:
    """The control tokens of a template that a model's tokenizer lacks; [] if the model is not on this machine yet."""
    folder = local_model(name)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return []
    from tokenizers import Tokenizer

    return _lacking(template_source(chat_template), Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab())


def _lacking(source: str, vocabulary: Container[str]) -> list[str]:
    return [token for token in dict.fromkeys(CONTROL.findall(source)) if token not in vocabulary]


def template_in(name: Path | str, given: str | None = None) -> str | None:
    """The text of the template that is given, or of a model on this machine ("" if it has none); None if it is not here."""
    if given:
        return template_source(given)
    folder = local_model(name)
    if folder is None:
        return None
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    return str(read_object(settings).get("chat_template") or "") if settings.is_file() else ""


def _key(folder: Path, *facts: str) -> str:
    """Of the base's files, by their sizes and times, and the template."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps([str(folder.resolve()), files, *facts]).encode()).hexdigest()


def _write(base: Path, folder: Path, given: str, source: str, add_tokens: bool) -> None:
    from transformers import AutoTokenizer

    from whetstone import model as models
    from whetstone.chat import Chat, first_tokens
    from whetstone.model_weights import reading

    with reading(base):
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    begin = first_tokens(tokenizer)
    tokenizer.chat_template = begin + source if given in SHIPPED else source
    if begin and "bos_token" not in tokenizer.chat_template and tokenizer.bos_token not in tokenizer.chat_template:
        say(
            f"note: the tokenizer begins a text with {tokenizer.bos_token}, and the chat template {given} does not write it"
        )
    vocabulary = tokenizer.get_vocab()
    lacking = _lacking(source, vocabulary)
    added = lacking if add_tokens else []
    if added:
        model, before = models.read(base, dtype=_dtype(base))[0], max(vocabulary.values()) + 1
        tokenizer.add_special_tokens({"additional_special_tokens": added}, replace_extra_special_tokens=False)
        _give_rows(model, before, max(tokenizer.get_vocab().values()) + 1)
        models.save(model, tokenizer, folder)
    else:
        _link(base, folder)
        tokenizer.save_pretrained(folder)
    generation = read_object(base / GENERATION) if (base / GENERATION).exists() else {}
    chat = Chat(tokenizer, generation.get("eos_token_id", read_object(base / CONFIG).get("eos_token_id")))
    end = tokenizer.convert_ids_to_tokens(chat.end)
    say(
        f"{base}: chat template {given}; a turn ends with {end}"
        + (f"; new tokens: {', '.join(added)}" if added else "")
        + (f"; written as text: {', '.join(lacking)}" if lacking and not added else "")
    )


def _dtype(base: Path) -> str:
    """Of the stored weights."""
    kinds = {stored.dtype for stored in check_folder(base).values()}
    return {"BF16": "bfloat16", "F16": "float16"}.get(next(iter(kinds)), "float32") if len(kinds) == 1 else "float32"


def _give_rows(model: "PreTrainedModel", before: int, after: int) -> None:
    """Rows for the ids from `before` on, in embedding and head: the mean of those in use."""
    import torch

    if after > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(after, mean_resizing=False)
    ends = {id(end.weight): end.weight for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for weight in ends.values():  # one, if the head is the embedding
            weight[before:after] = weight[:before].float().mean(0).to(weight.dtype)


def _link(base: Path, folder: Path) -> None:
    """Links to the weights, and copies of the other files that are read, without those of the tokenizer's template."""
    for path in base.iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(os.path.realpath(path))
        elif path.suffix in READ and path.suffix != ".jinja":
            (folder / path.name).write_bytes(path.read_bytes())
