"""Checkpoints that a kill cannot spoil: safetensors and JSON, written aside, synced, hashed, published by rename.

A checkpoint is a folder `step-000120/` with `weights.safetensors` (parameters, and the moments of the optimizers) and
`state.json` (step, the stage's own state, the hash of the weights). The newest valid one is loaded; an invalid one is passed
over with a word.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from whetstone.learner.learner import Learner
from whetstone.run.folder import hash_file, read_json, write_json
from whetstone.run.progress import say


def save(folder: Path, step: int, learner: Learner, state: dict[str, Any], keep: int = 2) -> None:
    """Write the checkpoint of `step` finished optimizer steps, then remove all but the newest `keep`."""
    tensors: dict[str, torch.Tensor] = {}
    for name, p, optimizer in learner.owned():
        tensors[f"weight/{name}"] = p.detach().contiguous()
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"{key}/{name}"] = value.contiguous()
    aside = folder / f".writing-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    weights = aside / "weights.safetensors"
    save_file(tensors, weights)
    with weights.open("rb") as written:
        os.fsync(written.fileno())
    write_json(aside / "state.json", {"step": step, "weights": hash_file(weights), "state": state})
    final = folder / f"step-{step:06d}"
    shutil.rmtree(final, ignore_errors=True)
    aside.replace(final)
    _sync_folder(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def load_newest(folder: Path, learner: Learner) -> tuple[int, dict[str, Any]] | None:
    """Restore the newest valid checkpoint: (step, the stage's state), or None when there is none."""
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale, ignore_errors=True)
    for found in sorted(folder.glob("step-*"), reverse=True):
        try:
            header = read_json(found / "state.json")
            weights = found / "weights.safetensors"
            if hash_file(weights) != header["weights"]:
                raise ValueError("its weights do not have the hash that was written with them")
            _restore(learner, load_file(weights))
            return header["step"], header["state"]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            say(f"checkpoint {found} is passed over: {error}")
    return None


def _restore(learner: Learner, tensors: dict[str, torch.Tensor]) -> None:
    owned = {name: (p, optimizer) for name, p, optimizer in learner.owned()}
    with torch.no_grad():
        for name, (p, _) in owned.items():
            p.copy_(tensors[f"weight/{name}"])
    for full, value in tensors.items():
        key, _, name = full.partition("/")
        if key != "weight":
            p, optimizer = owned[name]
            # AdamW counts its updates in a number that stays on the CPU; the moments lie beside their weights
            optimizer.state[p][key] = value.to(p.device) if value.dim() else value


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
