"""Promise: the folder that a stage writes answers greedily as ours in plain transformers, and in vLLM where it is installed;
and its GGUF files (`--gguf`, by llama.cpp's converter) as the folder: read by transformers, and in llama.cpp if it is there.

    python -m benchmarks exported_folder --model runs/smollm2 --vllm .venv-vllm/bin/python --gguf F16 --json FILE

Each answers the same questions in fp32 from the exported folder alone. Two orders of the same sums may choose differently
between two tokens that are equally likely, so for an answer that differs the first differing token is named.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from benchmarks.base_model import rows_of
from benchmarks.model_folders import first_difference
from whetstone import model as models
from whetstone.decode.engine import Engine
from whetstone.export.gguf import convert, converter_in
from whetstone.model_folder import find_model
from whetstone.records import Message, Prompt, Sampling

VLLM = """if True:
    import json, os, sys
    work, out = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from vllm import LLM, SamplingParams

    model = LLM(work["folder"], dtype="float32", max_model_len=1024, enforce_eager=True, disable_log_stats=True)
    asked = [{"prompt_token_ids": ids} for ids in work["prompts"]]
    greedy = SamplingParams(temperature=0, max_tokens=work["tokens"])
    out.write(json.dumps([list(done.outputs[0].token_ids) for done in model.generate(asked, greedy, use_tqdm=False)]))
"""


def by_transformers(folder: Path, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "max_new_tokens": tokens}
    asked = (torch.tensor([ids]) for ids in prompts)
    return [model.generate(ids, **plain)[0, ids.shape[1] :].tolist() for ids in asked]


def elsewhere(python: str, script: str, folder: Path, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
    """The answers of a peer, in its own environment."""
    work = json.dumps({"folder": str(folder), "prompts": list(prompts), "tokens": tokens})
    done = subprocess.run([python, "-c", script], input=work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {python} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


LLAMA = """if True:
    import json, os, sys
    work, out = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from llama_cpp import Llama

    model = Llama(work["folder"], n_ctx=1024, verbose=False, logits_all=False)
    answers = []
    for ids in work["prompts"]:
        model.reset()
        answer = []
        for token in model.generate(ids, temp=0, repeat_penalty=1.0):
            answer.append(token)
            if token == model.token_eos() or len(answer) == work["tokens"]:
                break
        answers.append(answer)
    out.write(json.dumps(answers))
"""


def compared(ours: Sequence[list[int]], theirs: Sequence[list[int]]) -> dict[str, Any]:
    """The number of equal answers; of the others the first token that differs."""
    pairs = enumerate(zip(ours, theirs, strict=True))
    other = {n: first_difference(a, b) for n, (a, b) in pairs if a != b}
    return {"answers": len(ours), "equal": len(ours) - len(other), "first_difference": other}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment with vLLM (make bench-env)")
    parser.add_argument("--gguf", action="append", default=[], metavar="TYPE")
    parser.add_argument("--llama", metavar="PYTHON", help="of an environment with llama-cpp-python (make bench-env)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    questions = [
        row["question"] for row, _ in zip(rows_of("gsm8k/train.jsonl.gz"), range(given.problems), strict=False)
    ]
    engine = Engine(*models.load(given.model))
    prompts = [engine.chat.question_ids(question) for question in questions]
    asked = [Prompt(str(n), 0, (Message("user", question),)) for n, question in enumerate(questions)]
    answered = {done.problem_id: done.ids for done in engine.generate(asked, Sampling(0.0, given.tokens))}
    ours = [answered[str(n)] for n in range(len(questions))]
    result: dict[str, Any] = {"name": "exported_folder", "model": given.model, "tokens": given.tokens}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models.save(engine.model, engine.chat.tokenizer, folder, sampling=Sampling(0.0))
        plain = by_transformers(folder, prompts, given.tokens)
        result["transformers"] = compared(ours, plain)
        if given.vllm:
            result["vllm"] = compared(ours, elsewhere(given.vllm, VLLM, folder, prompts, given.tokens))
        for kind in given.gguf:
            file = folder / f"model-{kind}.gguf"
            convert(converter_in(), folder, file, kind, "exported")
            back = by_transformers(find_model(file), prompts, given.tokens)
            result[f"gguf {kind}, transformers"] = compared(plain, back)
            if given.llama:
                theirs = elsewhere(given.llama, LLAMA, file, prompts, given.tokens)
                result[f"gguf {kind}, llama.cpp"] = compared(back, theirs)
    result |= {"versions": versions(["whetstone", "torch", "transformers"]), "hardware": hardware()}
    write(result | {"date": date.today().isoformat()}, given.json)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
