"""What the benchmarks on a pretrained model share: the model, GSM8K's rows, the number types, a file that keeps each case.

The model is SmolLM2-135M-Instruct as a plain Hugging Face folder: `--model`, else WHETSTONE_REAL_MODEL, else models/smollm2.
Without one it is a model of the same shape with random weights, which computes as much and says nothing.
"""

import argparse
import gzip
import json
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, machine_speed, versions, write
from benchmarks._paced import ONE_THREAD
from benchmarks._piped import BENCH

VARIABLE = "WHETSTONE_REAL_MODEL"
USUAL = Path("models/smollm2")
VOCABULARY = 49_152
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --- the model


def model_folder(chosen: Path | None, aside: Path) -> tuple[Path, dict[str, Any]]:
    """The model's folder, and what a result says of it. A random model is written to `aside`.

    Raises ValueError if the folder that was named is not there.
    """
    named = chosen or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    folder = named or USUAL
    if (folder / "config.json").exists():
        config = json.loads((folder / "config.json").read_text())
        same = {key: config.get(key) == SHAPE[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")}
        return folder, {"weights": "pretrained", "name": folder.name, "smollm2_shape": all(same.values())}
    if named:
        raise ValueError(f"{named} holds no config.json: name a Hugging Face folder, or none for random weights.")
    print("no pretrained model: a random one of the same shape is measured (make real fetches the weights)", flush=True)
    return write_random(aside), {"weights": "random", "name": "random", "smollm2_shape": True}


def write_random(folder: Path, seed: int = 0, **smaller: Any) -> Path:
    """A model of SmolLM2's shape, and a tokenizer of as many entries whose merges come from GSM8K or made-up text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    rope = {"rope_type": "default", "rope_theta": 100_000.0}
    LlamaForCausalLM(LlamaConfig(**SHAPE | {"rope_parameters": rope} | smaller)).save_pretrained(folder)
    tokenizer(smaller.get("vocab_size", VOCABULARY)).save_pretrained(folder)
    return folder


def tokenizer(size: int, merges: int = 2000) -> Any:
    """A byte-level BPE of exactly `size` entries, of which those after the merges never occur in a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        (row["question"] for row in problems(2000)),
        trainers.BpeTrainer(
            vocab_size=min(merges, size), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(SPECIAL), show_progress=False,
        ),
    )  # fmt: skip
    learned = json.loads(trained.to_str())["model"]
    vocabulary = learned["vocab"] | {f"unused {i}": i for i in range(len(learned["vocab"]), size)}
    padded = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge) for merge in learned["merges"]]))
    padded.pre_tokenizer, padded.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    padded.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=padded, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )  # fmt: skip


# --- the work


def problems(count: int, split: str = "test") -> list[dict[str, str]]:
    """GSM8K's rows, question and answer, from WHETSTONE_DATA; sums with a solution of similar length without it."""
    path = Path(os.environ.get("WHETSTONE_DATA", "")) / "gsm8k" / f"{split}.jsonl.gz"
    if os.environ.get("WHETSTONE_DATA") and path.exists():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]
    return [made_up(i) for i in range(count)]


def made_up(number: int) -> dict[str, str]:
    draw = random.Random(number)
    counts = [draw.randint(2, 90) for _ in range(draw.randint(3, 9))]
    question = " ".join(f"In box number {i} there are {n} pens." for i, n in enumerate(counts, 1))
    steps = [f"{sum(counts[:i])} + {n} = {sum(counts[:i]) + n} pens so far." for i, n in enumerate(counts)]
    return {
        "question": f"{question} How many pens are there in all?",
        "answer": "\n".join(steps) + f"\n#### {sum(counts)}",
    }


def number_types() -> list[str]:
    """float32, and bfloat16 if this CPU multiplies it faster: an emulated type is nobody's speed."""
    from benchmarks.sft_vs_trl import bfloat16_speed

    return ["float32", "bfloat16"] if bfloat16_speed() > 1 else ["float32"]


# --- the result


class Cases:
    """The benchmark's JSON object, written after each case, so that what ends early has lost one case at most.

    A case that FILE holds, with the same settings, is not measured again. Raises ValueError if FILE is of another
    machine or model: their numbers do not belong into one result.
    """

    def __init__(self, name: str, path: Path | None, model: Mapping[str, Any], packages: Sequence[str], again: bool):
        self.path, self.again, machine = path, again, hardware()
        kept = json.loads(path.read_text()) if path and path.exists() and path.stat().st_size else {}
        for key, before, now in (
            ("model", kept.get("model"), dict(model)),
            ("CPU", *({k: told.get(k) for k in ("cpu", "features")} for told in (kept.get("hardware", {}), machine))),
        ):
            if kept and before != now:
                raise ValueError(
                    f"{path} is of the {key} {before}, and this is {now}: name another file, or move this one away."
                )
        self.before = machine_speed()
        self.result = {
            "name": name, "model": dict(model), "cases": kept.get("cases", []), "ratio": kept.get("ratio"),
            "versions": kept.get("versions", {}) | versions(packages), "hardware": machine,
            "missing": [],
        }  # fmt: skip

    def has(self, case: str, settings: Mapping[str, Any]) -> bool:
        return not self.again and any(
            row["case"] == case and row.get("settings") == dict(settings) for row in self.result["cases"]
        )

    def missing(self, peer: str, why: str) -> None:
        """Report a peer that cannot be measured here."""
        print(f"{peer}: not measured: {why}", flush=True)
        self.result["missing"].append({"peer": peer, "reason": why})

    def add(self, row: dict[str, Any], settings: Mapping[str, Any], repeats: int, **more: Any) -> None:
        """Keep a case: `settings` is what makes two results of a case comparable."""
        name = row["case"]
        after = machine_speed()
        row = row | more | {
            "settings": dict(settings), "repeats": repeats, "date": date.today().isoformat(),
            "machine_speed": {"before": self.before, "after": after, "unit": "million loop steps/CPU s"},
            "load": hardware()["load"],
        }  # fmt: skip
        self.before = after
        cases = [kept for kept in self.result["cases"] if kept["case"] != name] + [row]
        self.result |= {
            "cases": cases, "ratio": min(case["ratio"] for case in cases),
            "repeats": min(case["repeats"] for case in cases), "date": row["date"],
            "machine_speed": row["machine_speed"],
        }  # fmt: skip
        print(
            f"{name:58} {row['ours']:9.2f} {row['peer']:9.2f} {row['unit']:14} {row['ratio']:6.2f} x "
            f"[{row['low']:.2f}, {row['high']:.2f}]   wall: {row['ours_per_wall_second']:.2f} and "
            f"{row['peer_per_wall_second']:.2f} per second",
            flush=True,
        )
        write(self.result, self.path)


# --- the command line


def options(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here; cases that it holds are done")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help=f"default: {VARIABLE}, {USUAL}, or random weights")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="only cases whose name, or peer's name, has one of these in it"
    )
    parser.add_argument("--again", action="store_true", help="measure cases again that FILE holds")
    return parser


def wanted(only: Sequence[str] | None) -> Callable[[str], bool]:
    return lambda case: not only or any(text in case for text in only)


def in_bench_environment(name: str) -> None:
    """Goes on in .venv-bench, where TRL is, if this environment has none. Ends the program if neither has."""
    os.environ.update(ONE_THREAD)
    if find_spec("trl") is not None:
        return
    if BENCH.exists() and Path(sys.executable).absolute() != BENCH.absolute():
        os.execv(BENCH, [str(BENCH), "-m", "benchmarks", name, *sys.argv[1:]])
    sys.exit(f"error: {name} needs TRL: `make bench-env` installs it into .venv-bench.")
