"""Promise: an exported folder and its GGUF files answer greedily as ours, in transformers, in vLLM and in llama.cpp.

    make bench-env
    python -m benchmarks exported_folder --model runs/tiny --vllm .venv-vllm/bin/python --llama .venv-bench/bin/python \\
        --gguf F16 --gguf Q8_0 --questions runs/tiny/scores/rl/three_operations/part-00000.parquet --json FILE
    python -m benchmarks exported_folder --model models/smollm2 --gguf F16          # transformers only

`--model` is a run, which `whetstone export` exports, or a model's folder, which is saved as a stage saves it. All get the
same prompt ids (MAWPS's questions without `--questions`) and stop at the same tokens; llama.cpp also makes the ids of each
prompt's text itself. The folder is computed in fp32 everywhere. For a GGUF file, transformers in fp32 computes on the folder's
weights rounded to the file's type, and once more with the inputs of all products rounded as llama.cpp rounds them. llama.cpp
answers with its usual cache and with one in F32: how far it agrees with itself.

Of an answer that differs, `differences` names the first token that does and `gap`, the difference of the two tokens'
log-probabilities (nats) on the first side's weights: sums in another order may choose differently between tokens that are
almost equally likely.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from benchmarks._piped import installed
from whetstone import model as models
from whetstone.decode.engine import Engine
from whetstone.export.export import export
from whetstone.export.gguf import convert, converter_in
from whetstone.model_folder import find_model
from whetstone.records import Message, Prompt, Sampling

Ids = list[list[int]]
VLLM = """if True:
    import json, os, sys
    work, out = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from vllm import LLM, SamplingParams

    more = {"dtype": "float32", "enforce_eager": True, "disable_log_stats": True}
    model = LLM(work["model"], tokenizer=work["folder"], max_model_len=work["context"], **more)
    asked = [{"prompt_token_ids": ids} for ids in work["prompts"]]
    greedy = SamplingParams(temperature=0, max_tokens=work["tokens"], stop_token_ids=work["stops"])
    answers = [list(done.outputs[0].token_ids) for done in model.generate(asked, greedy, use_tqdm=False)]
    out.write(json.dumps({"answers": answers}))
"""
LLAMA = """if True:
    import json, os, sys
    work, out = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from llama_cpp import Llama

    def answer(model, ids):
        model.reset()
        answer = []
        for token in model.generate(ids, temp=0, repeat_penalty=1.0):
            answer.append(token)
            if token in work["stops"] or len(answer) == work["tokens"]:
                break
        return answer

    more = {"n_ctx": work["context"], "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    usual, exact = Llama(work["model"], **more), Llama(work["model"], type_k=0, type_v=0, **more)  # 0: F32
    answers, others = ([answer(model, ids) for ids in work["prompts"]] for model in (usual, exact))
    read = [usual.tokenize(text.encode(), add_bos=False, special=True) for text in work["texts"]]
    out.write(json.dumps({"answers": answers, "exact": others, "prompts": read}))
"""


class Asked:
    """The questions as all sides get them."""

    def __init__(self, engine: Engine, questions: Sequence[str], tokens: int):
        self.tokens, self.stops = tokens, sorted(engine.chat.stops)
        self.prompts = [engine.chat.question_ids(question) for question in questions]
        self.texts = [engine.chat.tokenizer.decode(ids) for ids in self.prompts]
        self.messages = [Prompt(str(n), 0, (Message("user", question),)) for n, question in enumerate(questions)]

    def by_engine(self, engine: Engine) -> Ids:
        done = {one.problem_id: one.ids for one in engine.generate(self.messages, Sampling(0.0, self.tokens))}
        return [self.cut(done[prompt.problem_id]) for prompt in self.messages]

    def by_transformers(self, model: Any) -> Ids:
        import torch

        plain = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "max_new_tokens": self.tokens}
        asked = (torch.tensor([ids]) for ids in self.prompts)
        more = {"eos_token_id": self.stops, "pad_token_id": self.stops[0]}
        return [self.cut(model.generate(ids, **plain, **more)[0, ids.shape[1] :].tolist()) for ids in asked]

    def by_peer(self, python: str, script: str, model: Path, folder: Path) -> dict[str, Ids]:
        """Its `answers`, and the `prompts`' ids as it makes them of the texts, if it does. The tokenizer is in `folder`."""
        context = max(map(len, self.prompts)) + self.tokens
        work = {
            "model": str(model),
            "folder": str(folder),
            "context": context,
            "prompts": self.prompts,
            "texts": self.texts,
        }
        work |= {"tokens": self.tokens, "stops": self.stops}
        one = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        done = subprocess.run(
            [python, "-c", script],
            input=json.dumps(work),
            env=os.environ | one,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{python} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        told = json.loads(done.stdout)
        return told | {name: list(map(self.cut, told[name])) for name in ("answers", "exact") if name in told}

    def cut(self, ids: Sequence[int]) -> list[int]:
        """Up to the first stop: some sides leave it out of an answer."""
        end = next((n for n, token in enumerate(ids) if token in self.stops), len(ids))
        return list(ids[:end])

    def compared(self, model: Any, ours: Ids, theirs: Ids) -> dict[str, Any]:
        """The number of equal answers, and of each other one where and how nearly it differs. `model` is that of `ours`."""
        pairs = [(n, a, b) for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        told = [{"question": n} | first_difference(model, self.prompts[n], a, b, self.stops[0]) for n, a, b in pairs]
        return {"answers": len(ours), "equal": len(ours) - len(pairs), "differences": told}


def first_difference(model: Any, prompt: list[int], ours: list[int], theirs: list[int], stop: int) -> dict[str, Any]:
    """The index of the token, both tokens, and the difference of their log-probabilities. An answer that ends has its stop."""
    import torch

    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    one, other = (ids[at] if at < len(ids) else stop for ids in (ours, theirs))
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ours[:at]])).logits[0, -1]  # (V,)
    gap = float(logits[one] - logits[other])
    return {"token": at, "ours": one, "theirs": other, "gap": round(gap, 6)}


def plain_model(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def rounded(folder: Path, kind: str, inputs: bool) -> Any:
    """The folder's model with its matrices rounded to a type of GGUF, and the inputs of its products if asked."""
    import torch
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    model, stored = plain_model(folder), GGMLQuantizationType[kind]

    def near(values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(dequantize(quantize(values.detach().numpy(), stored), stored))

    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data = near(weight)
    model.tie_weights()
    for layer in model.modules() if inputs else ():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, given: (near(given[0]), *given[1:]))
    return model


def exported(source: Path, to: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """The exported folder and its GGUF files by type."""
    if (source / "run.json").is_file():
        export(source, to, gguf=kinds)
        return {"folder": to} | {kind: to / f"{to.name}-{kind}.gguf" for kind in kinds}
    model, tokenizer = models.load(source)
    models.save(model, tokenizer, to, sampling=Sampling(0.0))
    files = {kind: to.parent / f"{to.name}-{kind}.gguf" for kind in kinds}
    for kind, file in files.items():
        convert(converter_in(), to, file, kind, to.name)
    return {"folder": to} | files


def questions_of(file: Path | None, count: int) -> list[str]:
    from whetstone.evaluate.problem_sets import read_problems
    from whetstone.problems.table import read_table

    if file is None:
        return [problem.question for problem in read_problems("mawps")[:count]]
    return list(islice(dict.fromkeys(row["question"] for _, row in read_table(file)), count))


def measured(
    asked: Asked, engine: Engine, files: dict[str, Path], vllm: str | None, llama: str | None
) -> dict[str, Any]:
    """The comparisons, in order."""
    result: dict[str, Any] = {}
    plain = plain_model(files["folder"])
    answers = asked.by_transformers(plain)
    result["engine, transformers"] = asked.compared(plain, asked.by_engine(engine), answers)
    if vllm:
        theirs = asked.by_peer(vllm, VLLM, files["folder"], files["folder"])["answers"]
        result["transformers, vLLM"] = asked.compared(plain, answers, theirs)
    for kind in (name for name in files if name != "folder"):
        result |= measured_file(asked, files["folder"], kind, files[kind], vllm, llama, plain, answers)
    return result


def measured_file(
    asked: Asked, folder: Path, kind: str, file: Path, vllm: str | None, llama: str | None, plain: Any, answers: Ids
) -> dict[str, Any]:
    """The comparisons of a GGUF file."""
    held = rounded(folder, kind, inputs=False)
    read = asked.by_transformers(held)
    result: dict[str, Any] = {f"transformers, its weights in {kind}": asked.compared(plain, answers, read)}
    try:
        loaded = plain_model(find_model(file))
        told: Any = asked.compared(held, read, asked.by_transformers(loaded))
    except ValueError as refused:
        told = str(refused).removeprefix(f"{file}: ")
    result[f"{kind} weights, {kind} file in transformers"] = told
    if vllm:
        try:
            told = asked.compared(held, read, asked.by_peer(vllm, VLLM, file, folder)["answers"])
        except RuntimeError as refused:
            told = str(refused).strip().splitlines()[-1]
        result[f"{kind} weights, {kind} file in vLLM"] = told
    if llama:
        found = asked.by_peer(llama, LLAMA, file, folder)
        theirs = found["answers"]
        same = sum(a == b for a, b in zip(asked.prompts, found["prompts"], strict=True))
        result[f"{kind}: prompts with the same ids in llama.cpp"] = same
        result[f"{kind} weights, {kind} file in llama.cpp"] = asked.compared(held, read, theirs)
        held = rounded(folder, kind, inputs=True)
        result[f"{kind} weights and inputs, {kind} file in llama.cpp"] = asked.compared(
            held, asked.by_transformers(held), theirs
        )
        result[f"{kind} file in llama.cpp, its cache in F16 and in F32"] = asked.compared(held, theirs, found["exact"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="a run or a model's folder")
    parser.add_argument("--name", help="of the model in the result; default: the folder's")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="a table with the column question")
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment with vLLM (make bench-env)")
    parser.add_argument("--llama", metavar="PYTHON", help="of an environment with llama-cpp-python (make bench-env)")
    parser.add_argument("--gguf", action="append", default=[], metavar="TYPE")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = exported(given.model, Path(temporary) / "exported", given.gguf)
        engine = Engine(*models.load(files["folder"]))
        asked = Asked(engine, questions_of(given.questions, given.problems), given.tokens)
        result = {"name": "exported_folder", "model": given.name or given.model.name, "tokens": given.tokens}
        result |= measured(asked, engine, files, given.vllm, given.llama)
    peers = {"vllm-cpu": given.vllm, "llama_cpp_python": given.llama}
    found = {name: installed(Path(python), name) for name, python in peers.items() if python}
    result |= {"versions": versions(["whetstone", "torch", "transformers"]) | found, "hardware": hardware()}
    write(result | {"date": date.today().isoformat()}, given.json)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
