"""vLLM behind a pipe, in its own environment: reads a line of work, does it, writes a line.

    .venv-vllm/bin/python benchmarks/_vllm_peer.py FOLDER DTYPE eager|compiled [prefixes]

In: {"prompts": [[ids]], "lengths": [n]}, the prompts and the lengths of their answers in tokens, and perhaps "temperature",
else 1. Out: {"tokens": …}. With `prefixes` it keeps the beginnings of prompts, as vLLM does by default; without, a prompt
that comes again is computed again.
"""

import sys
from typing import Any

from _peer_pipe import serve, take_output


def main() -> None:
    folder, dtype, mode, *prefixes = sys.argv[1:]
    pipe = take_output()
    from vllm import LLM, SamplingParams

    model = LLM(
        folder,
        dtype=dtype,
        max_model_len=1024,
        enforce_eager=mode == "eager",
        disable_log_stats=True,
        enable_prefix_caching=bool(prefixes),
    )

    def answer(work: dict[str, Any]) -> dict[str, Any]:
        asked = [{"prompt_token_ids": ids} for ids in work["prompts"]]
        temperature = work.get("temperature", 1.0)
        sampling = [SamplingParams(temperature=temperature, max_tokens=n, ignore_eos=True) for n in work["lengths"]]
        written = model.generate(asked, sampling, use_tqdm=False)
        return {"tokens": sum(len(done.outputs[0].token_ids) for done in written)}

    serve(pipe, answer)


if __name__ == "__main__":
    main()
