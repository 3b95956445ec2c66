"""Several processes train one model: the door to torch.distributed.

Each process is given a step's rows and takes its share of them; weights carry the whole denominator, so losses and gradients
are *summed* over the processes, never averaged, and several give the gradient of one. Every process must make the same
calls in the same order: whoever has fewer micro-batches, or none, still takes part.

ddp     each has the whole model; gradients are added once a step
fsdp    each keeps a share of weights, gradients and moments (FSDP2); the head runs inside the root module's forward, so a
        tied embedding and head are one parameter of the root's group

The processes are torchrun's, or `whetstone run`'s (run/torchrun.py): their number and ranks come by the environment.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from whetstone.batch import Batch, Row, collate
from whetstone.learner.muon import orthogonalise
from whetstone.learner.replicas import divide
from whetstone.run.settings import ParallelSettings

PATIENCE = timedelta(hours=1)  # a process may wait so long for the others: one of them writes a checkpoint meanwhile
BUCKET = 1 << 24  # numbers of gradient that are sent at once

Item = TypeVar("Item")


class ProcessGroup:
    """One process: what the learner asks of its group, answered without any other. The parent of groups of several."""

    rank, count = 0, 1
    sharded = False  # whether a process keeps a share of each weight only, so that the model cannot sample

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def divide(self, items: Sequence[Item], sizes: Sequence[float]) -> list[list[Item]]:
        """The processes' shares of a step, of about the same size: a function of the sizes alone."""
        return [[items[i] for i in sorted(part)] for part in divide(sizes, self.count)]

    def prepare(self, root: torch.nn.Module) -> None:
        """Before the optimizer is made: lay out the parameters. Raises RuntimeError where processes begin differently."""

    def turns(self, root: torch.nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """(micro-batch, whether it counts): forward and backward of each, and the gradient is whole at the end.

        One that does not count keeps the others company: its loss must be zero.
        """
        for batch in batches:
            yield batch, True

    def forward_turns(self, root: torch.nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """The same where there is no backward pass."""
        for batch in batches:
            yield batch, True

    def sum(self, amounts: dict[str, float]) -> dict[str, float]:
        """Name by name over all processes, in the order of their ranks."""
        return amounts

    def gather(self, value: Any) -> list[Any]:
        """What each process has, by rank."""
        return [value]

    def first(self, value: Any) -> Any:
        """What the first process has: what it alone reads from a disk, or must not differ."""
        return self.gather(value if self.main else None)[0]

    def any(self, asked: bool) -> bool:
        """Whether one of the processes asks for it: how all stop after the same step."""
        return asked

    def wait(self) -> None:
        """Until all are here."""

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight or moment with all its shares; each process must ask."""
        return tensor

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Of a whole weight or moment what this process keeps, laid out as `like`."""
        return tensor.to(like.device)

    def orthogonalise(self, matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Muon's, each matrix by one of the processes."""
        return [orthogonalise(matrix) for matrix in matrices]


class Replicated(ProcessGroup):
    """Each process has the whole model; their gradients are added once a step."""

    def __init__(self, device: str):
        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device

    def prepare(self, root: torch.nn.Module) -> None:
        sums = self.gather([float(p.detach().double().sum()) for p in root.parameters()])
        if any(other != sums[0] for other in sums):
            raise RuntimeError(
                "the training processes begin with different weights: each must load the same model, from the same files."
            )

    def turns(self, root: torch.nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        parameters = [p for p in root.parameters() if p.requires_grad]
        earlier = [p.grad for p in parameters]  # whole already: only what comes now is added up
        root.zero_grad(set_to_none=True)
        yield from super().turns(root, batches)
        self._add_up(parameters)
        for parameter, before in zip(parameters, earlier, strict=True):
            if before is not None:
                parameter.grad += before

    @staticmethod
    def _add_up(parameters: Sequence[torch.nn.Parameter]) -> None:
        for bucket in buckets(parameters):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([g.reshape(-1) for g in gradients])
            dist.all_reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view(p.shape)

    def sum(self, amounts: dict[str, float]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for theirs in self.gather(amounts):
            for name, amount in theirs.items():
                totals[name] = totals.get(name, 0.0) + amount
        return totals

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def any(self, asked: bool) -> bool:
        return any(self.gather(asked))

    def wait(self) -> None:
        dist.barrier()

    def orthogonalise(self, matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        whole = [self.whole(matrix) for matrix in matrices]
        owners = divide([m.numel() * min(m.shape) for m in whole], self.count)
        for i in owners[self.rank]:
            whole[i] = orthogonalise(whole[i])
        for owner, part in enumerate(owners):
            for i in part:
                whole[i] = whole[i].contiguous()
                dist.broadcast(whole[i], owner)
        return [self.share(update, like) for update, like in zip(whole, matrices, strict=True)]


class Sharded(Replicated):
    """Each process keeps a share of every weight and gathers a block's weights while it needs them (FSDP2)."""

    sharded = True

    def prepare(self, root: torch.nn.Module) -> None:
        super().prepare(root)
        mesh = group_mesh(self.device, self.count)
        for block in blocks(root):
            fully_shard(block, mesh=mesh)
        fully_shard(root, mesh=mesh)
        for module in sharded_modules(root):
            # Sums, not means. A factor of one alone would ask for a scaled sum, which gloo does not have.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def turns(self, root: torch.nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        batches = list(batches)
        most = max(1, *self.gather(len(batches)))
        for turn in range(most):
            root.set_requires_gradient_sync(turn == most - 1)
            yield (batches[turn], True) if turn < len(batches) else (filler(), False)

    def forward_turns(self, root: torch.nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        batches = list(batches)
        for turn in range(max(self.gather(len(batches)))):
            yield (batches[turn], True) if turn < len(batches) else (filler(), False)
        root.reshard()  # else the root's weights stay gathered, and as they are now when its shares are updated

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        if not isinstance(like, DTensor):
            return super().share(tensor, like)
        # All have the same whole tensor: each cuts its share out of its own, and nothing is sent
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def join(settings: ParallelSettings, device: str) -> ProcessGroup:
    """The group of processes that this one was started in; this process alone where it was started in none.

    Raises ValueError when the environment and the settings disagree about their number.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count != settings.processes:
        raise ValueError(
            f"[parallel] processes = {settings.processes}, but this process was started as one of {count}. Start it with "
            f"`whetstone run`, or with torchrun --nproc-per-node {settings.processes}."
        )
    if count == 1:
        return ProcessGroup()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    return {"ddp": Replicated, "fsdp": Sharded}[settings.shard](device)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def group_mesh(device: str, count: int) -> DeviceMesh:
    return init_device_mesh(device, (count,))


def blocks(root: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a transformers model: what its class says must not be split."""
    names = {name for module in root.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in root.modules() if type(module).__name__ in names]


def sharded_modules(root: torch.nn.Module) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def filler() -> Batch:
    """A micro-batch for a process that has none left while others have."""
    return collate([Row([0, 0], weights=0.0)])


def buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters in their order, of one type and about BUCKET numbers at a time."""
    bucket: list[torch.nn.Parameter] = []
    for p in parameters:
        if bucket and (bucket[0].dtype != p.dtype or sum(q.numel() for q in bucket) + p.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
