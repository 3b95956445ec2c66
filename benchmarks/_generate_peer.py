"""transformers' `generate` behind a pipe: reads a line of work, does it, writes a line.

    python benchmarks/_generate_peer.py FOLDER DTYPE

In: {"prompts": [[ids]], "lengths": [n], "temperature": t}. Out: {"tokens": …, "cache": …}. {"warm": true} beside these makes
it choose the faster of its caches for so many prompts, by a few tokens.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from _peer_pipe import serve, take_output

CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
}
TRIAL = 12  # tokens


def main() -> None:
    folder, dtype = sys.argv[1:3]
    pipe = take_output()
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    chosen: dict[int, str] = {}

    class Scripted(StoppingCriteria):
        """Each row ends at its own length; padding follows."""

        def __init__(self, ends: Sequence[int]):
            self.ends = torch.tensor(ends)

        def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return self.ends <= ids.shape[1]

    @torch.no_grad()
    def run(prompts: Sequence[Sequence[int]], lengths: Sequence[int], temperature: float, cache: str) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max(lengths), eos_token_id=None, pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([Scripted([width + n for n in lengths])]), **drawn, **CACHES[cache],
        )  # fmt: skip

    def answer(work: dict[str, Any]) -> dict[str, Any]:
        prompts, lengths, temperature = work["prompts"], work["lengths"], work["temperature"]
        if work.get("warm"):
            taken = {}
            for cache in CACHES:
                begin = time.process_time()
                run(prompts, [TRIAL] * len(prompts), temperature, cache)
                taken[cache] = time.process_time() - begin
            chosen[len(prompts)] = min(taken, key=taken.__getitem__)
            return {"tokens": sum(lengths), "cache": chosen[len(prompts)]}
        run(prompts, lengths, temperature, chosen.get(len(prompts), "dynamic"))
        return {"tokens": sum(lengths), "cache": chosen.get(len(prompts), "dynamic")}

    serve(pipe, answer)


if __name__ == "__main__":
    main()
