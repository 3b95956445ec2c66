"""Checkpoints that survive a kill, a full disk or a bad block: written aside, synced, hashed, published by rename.

A checkpoint is a folder `step-000120/`:

    weights-00001.safetensors …   parameters and the optimizers' moments, at most SHARD bytes per file
    state.json                    the step, and the stage's own state
    SHA256SUMS                    hashes of all other files (`sha256sum -c SHA256SUMS` checks them by hand)

The newest complete checkpoint is loaded. One with a truncated, altered or missing file is skipped, and that is said.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from whetstone.learner.learner import Learner, Together
from whetstone.run.disk import room_for
from whetstone.run.folder import DamagedFile, hash_file, published, read_json, sync_folder, write_text
from whetstone.run.progress import say

SHARD = 2 << 30  # bytes of a weights file; writing needs as much memory besides the weights
SUMS = "SHA256SUMS"


def save(
    folder: Path, step: int, learner: Learner | Together, state: dict[str, Any], keep: int = 2, best: int | None = None
) -> None:
    """Write the checkpoint of `step` finished optimizer steps, then keep the newest `keep` ones and that of step `best`.

    Checkpoints of later steps are removed: they are damaged, or from before training went back. Raises DiskFull; earlier
    checkpoints are then unchanged, and nothing of the new one is left. Every process of a group must call it.
    """
    if not learner.process_group.main:  # the main process writes, the others send it their shares
        for _, tensor in tensors(learner):
            learner.process_group.whole(tensor)
        learner.process_group.wait()
        return
    remove_unfinished(folder)
    size = sum(tensor.nbytes for _, tensor in tensors(learner))
    with room_for(f"the checkpoint of step {step}", size, folder), published(_place(folder, step)) as aside:
        _write(aside, step, learner, state)
    kept = [at for at in steps(folder) if at <= step][-keep:]
    for at in steps(folder):
        if at not in kept and at != best:
            shutil.rmtree(_place(folder, at))
    learner.process_group.wait()


def load_newest(folder: Path, learner: Learner | Together) -> tuple[int, dict[str, Any]] | None:
    """Restore the newest complete checkpoint: (step, the stage's state), or None if there is none."""
    remove_unfinished(folder)
    for step in reversed(steps(folder)):
        try:
            return step, load(folder, step, learner)
        except Damaged as damage:
            say(f"checkpoint {_place(folder, step)} is skipped: {damage}")
    return None


def load(folder: Path, step: int, learner: Learner | Together) -> dict[str, Any]:
    """Restore the checkpoint of a step and return the stage's state. Raises Damaged; the learner is then unchanged."""
    path = _place(folder, step)
    check(path)
    try:
        state = read_json(path / "state.json")["state"]
        _restore(path, learner)
    except (OSError, DamagedFile, KeyError, SafetensorError) as error:  # written so: SHA256SUMS fits
        raise Damaged(str(error)) from error
    return state


class Damaged(ValueError):
    """A checkpoint differs from what was written."""


def check(path: Path) -> None:
    """Raises Damaged if any file of a checkpoint is missing, added, or differs from what was written."""
    try:
        written = (path / SUMS).read_bytes()
        actual = _sums(path).encode()
    except OSError as error:
        raise Damaged(f"{SUMS} or what it lists cannot be read ({error.strerror})") from error
    if not written:
        raise Damaged(f"{SUMS} is empty")
    if written != actual:
        before, now = _by_name(written), _by_name(actual)
        wrong = sorted(name for name in before | now if before.get(name) != now.get(name))
        raise Damaged(f"{SUMS} does not match {', '.join(wrong) or 'what it lists'}: one of them is missing or altered")


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, complete or not, in order. Folders of other names, as of copies, are left alone."""
    found = (re.fullmatch(r"step-(\d{6,})", path.name) for path in folder.glob("step-*") if path.is_dir())
    return sorted(int(match[1]) for match in found if match)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process had begun to write."""
    for unfinished in folder.glob(".writing-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def tensors(learner: Learner | Together) -> Iterator[tuple[str, torch.Tensor]]:
    """The trained weights as `weight/NAME`, and the optimizers' state as `exp_avg/NAME` and so on.

    With several processes, each tensor is laid out as the process keeps it.
    """
    for name, p, optimizer in learner.owned():
        yield f"weight/{name}", p.detach()
        for key, value in optimizer.state.get(p, {}).items():
            yield f"{key}/{name}", value


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def _write(aside: Path, step: int, learner: Learner | Together, state: dict[str, Any]) -> None:
    for number, shard in enumerate(_shards(learner), 1):
        path = aside / f"weights-{number:05d}.safetensors"
        save_file(shard, path)
        with path.open("rb") as written:
            os.fsync(written.fileno())
    write_text(aside / "state.json", json.dumps({"step": step, "state": state}, indent=1) + "\n")
    write_text(aside / SUMS, _sums(aside))
    sync_folder(aside)


def _shards(learner: Learner | Together) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors(learner):
        if shard and size + tensor.nbytes > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = learner.process_group.whole(tensor).contiguous()
        size += tensor.nbytes
    yield shard


def _sums(folder: Path) -> str:
    """The hashes of a checkpoint's files, in the format of sha256sum."""
    paths = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{hash_file(path)}  {path.name}\n" for path in paths)


def _by_name(sums: bytes) -> dict[str, str]:
    """File name -> hash. The lines may be damaged."""
    lines = (line.rpartition("  ") for line in sums.decode(errors="replace").splitlines())
    return {name: hashed for hashed, _, name in lines}


def _restore(path: Path, learner: Learner | Together) -> None:
    """Copy the weights into place, and replace the optimizers' state by what was saved."""
    owned = {name: (p, optimizer) for name, p, optimizer in learner.owned()}
    with ExitStack() as stack, torch.no_grad():
        files = [stack.enter_context(safe_open(file, "pt")) for file in sorted(path.glob("*.safetensors"))]
        holder = {name: file for file in files for name in list(file.keys())}
        _refuse_another_model(path, holder, owned)
        for name, (p, optimizer) in owned.items():
            p.copy_(learner.process_group.share(holder[f"weight/{name}"].get_tensor(f"weight/{name}"), p))
            optimizer.state.pop(p, None)
        for full, file in holder.items():
            key, _, name = full.partition("/")
            if key != "weight":
                p, optimizer = owned[name]
                # a copy, because the tensor is a view of the file; fused optimizers keep their step count on the device
                value = file.get_tensor(full).to(p.device, copy=True)
                optimizer.state[p][key] = learner.process_group.share(value, p) if value.dim() else value


def _refuse_another_model(path: Path, holder: dict[str, Any], owned: dict[str, Any]) -> None:
    """Raises ValueError if a checkpoint is complete but belongs to another model: a setting is wrong then."""
    weights = [full for full in holder if full.startswith("weight/")]
    shapes = {full.removeprefix("weight/"): holder[full].get_slice(full).get_shape() for full in weights}
    wanted = {name: list(p.shape) for name, (p, _) in owned.items()}
    for name in [*wanted, *shapes]:
        if shapes.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} is of another model: {name} has shape {shapes.get(name)} there and {wanted.get(name)} in the model "
                "that is trained now. Train the model it was made with, or remove the stage's checkpoints to start again."
            )
