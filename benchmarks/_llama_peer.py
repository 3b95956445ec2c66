"""llama.cpp behind a pipe, through llama-cpp-python: reads a line of work, does it, writes a line.

    .venv-bench/bin/python benchmarks/_llama_peer.py FOLDER TYPE

It writes the model as a GGUF file of that type first (`_to_gguf.py`). In: {"prompts": [[ids]], "lengths": [n],
"temperature": t}, decoded one after the other. Out: {"tokens": …, "ids": [[ids]]}.
"""

import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from _peer_pipe import serve, take_output

CONTEXT = 2048


def main() -> None:
    folder, kind = sys.argv[1:3]
    pipe = take_output()
    from _to_gguf import convert
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "model.gguf"
        convert(Path(folder), path, kind)
        model = Llama(str(path), n_ctx=CONTEXT, n_threads=1, n_threads_batch=1, verbose=False)

        def answer(work: dict[str, Any]) -> dict[str, Any]:
            ids = []
            for prompt, length in zip(work["prompts"], work["lengths"], strict=True):
                model.reset()
                written = model.generate(prompt, temp=work["temperature"], top_k=0 if work["temperature"] else 1)
                ids.append(list(islice(written, length)))
            return {"tokens": sum(map(len, ids)), "ids": ids}

        serve(pipe, answer)


if __name__ == "__main__":
    main()
