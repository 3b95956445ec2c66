"""vLLM behind a pipe, in its own environment: reads a line of work, does it, writes a line.

    .venv-vllm/bin/python benchmarks/_vllm_peer.py FOLDER DTYPE eager|compiled [prefixes]

In: {"prompts": [[ids]], "lengths": [n]}, the prompts and the lengths of their answers in tokens, and perhaps "temperature",
else 1. Out: {"tokens": …}. With `prefixes` it keeps the beginnings of prompts, as vLLM does by default; without, a prompt
that comes again is computed again.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    folder, dtype, mode, *prefixes = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output must not be taken for an answer
    from vllm import LLM, SamplingParams

    model = LLM(
        folder,
        dtype=dtype,
        max_model_len=1024,
        enforce_eager=mode == "eager",
        disable_log_stats=True,
        enable_prefix_caching=bool(prefixes),
    )

    def answer(work: dict[str, Any]) -> int:
        asked = [{"prompt_token_ids": ids} for ids in work["prompts"]]
        temperature = work.get("temperature", 1.0)
        sampling = [SamplingParams(temperature=temperature, max_tokens=n, ignore_eos=True) for n in work["lengths"]]
        return sum(len(done.outputs[0].token_ids) for done in model.generate(asked, sampling, use_tqdm=False))

    pipe.write(json.dumps({"ready": True}) + "\n")
    pipe.flush()
    for line in sys.stdin:
        pipe.write(json.dumps({"tokens": answer(json.loads(line))}) + "\n")
        pipe.flush()


if __name__ == "__main__":
    main()
