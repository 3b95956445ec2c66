"""What is published for servers: a folder with the weights of a step, or an adapter's; how to prove that a server has it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whetstone.prompting import BARE
from whetstone.records import Problem, Sampling

HEAD = "lm_head.weight"
PROBE = BARE.prompt(Problem("probe", "What is 12 + 30 - 7?", "35"), 0)
PROBE_SAMPLING = Sampling(temperature=0.7, max_tokens=16)


NOTHING = hashlib.sha256(b"").hexdigest()  # the digest of a weight that a server has packed in another form


@dataclass(frozen=True)
class Published:
    version: str  # no two have the same, in this run or another
    folder: Path
    step: int = 0  # that began with these weights
    ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()  # of the last of `ids`, as the learner computes them; empty: they are not compared
    adapter: bool = False  # the folder has an adapter alone, for a server that has the model
    digests: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digests", {} if self.adapter else digests(self.folder))

    def differs(self, checksums: Mapping[str, str]) -> str:
        """Why a server with these checksums (by vLLM's names) does not have the weights; empty if it may have them."""
        theirs = {name.rpartition(":")[2]: digest for name, digest in checksums.items() if digest != NOTHING}
        common = [name for name in self.digests if name in theirs]
        wrong = [name for name in common if theirs[name] != self.digests[name]]
        if HEAD not in {name.rpartition(":")[2] for name in checksums}:
            return "its head and embedding are one tensor, and such a head is not replaced when weights are loaded"
        if wrong:
            return (
                f"after it loaded the weights, {wrong[0]} is not what was published, as is one of {len(wrong)} weights"
            )
        return "" if common else "none of the weights that it names could be compared"


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the bytes of each vector (norm) in a folder's weights: servers join, pad and pack matrices, but not vectors."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dictionary)
                if len(weights.get_slice(name).get_shape()) == 1 and not name.endswith(".bias"):
                    found[name] = hashlib.sha256(_bytes(weights.get_tensor(name))).hexdigest()
    return found


def _bytes(tensor: Any) -> bytes:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def untie(folder: Path, embedding: str) -> None:
    """Give a folder whose head is its embedding a head of its own, with the same numbers. `embedding` is the weight's name."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text())
    if not config.get("tie_word_embeddings"):
        return
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.exists():  # a folder of several files needs an index, and is read as one only if they have other names
        single.rename(folder / "model-1.safetensors")
        with safe_open(folder / "model-1.safetensors", framework="pt") as weights:
            files = dict.fromkeys(weights.keys(), "model-1.safetensors")
    else:
        files = json.loads(index.read_text())["weight_map"]
    with safe_open(folder / files[embedding], framework="pt") as weights:
        head = weights.get_tensor(embedding)
    save_file({HEAD: head}, folder / "model-head.safetensors", metadata={"format": "pt"})
    listed = {"metadata": {}, "weight_map": files | {HEAD: "model-head.safetensors"}}
    index.write_text(json.dumps(listed))
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}, indent=2))
