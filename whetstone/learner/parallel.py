"""Several processes train one model: the only file that uses torch.distributed.

Each process gets all rows of a step and takes its share. The rows' weights carry the whole denominator, so losses and
gradients are *summed* over the processes, never averaged, and several processes give the gradient of one. Every process must
make the same calls in the same order: a process with fewer micro-batches, or none, still takes part in the collectives.

ddp     each process has the whole model; gradients are added once per step
fsdp    each process keeps a share of weights, gradients and moments (FSDP2); the head runs inside the root module's
        forward, so a tied embedding and head are one parameter of the root's group

The processes are started by torchrun, or by `whetstone run` (run/torchrun.py). The environment gives their number and ranks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from whetstone.batch import Batch, Row, collate
from whetstone.learner.layers import decoder_layers
from whetstone.learner.muon import orthogonalise
from whetstone.learner.replicas import divide
from whetstone.run.processes import cores
from whetstone.run.settings import ParallelSettings

PATIENCE = timedelta(hours=1)  # for the other processes, for instance for the one that writes a checkpoint
BUCKET = 1 << 24  # gradient entries sent at once

Item = TypeVar("Item")


class ProcessGroup:
    """A group of one process, and the parent of groups of several: all that a learner asks of its group."""

    rank, count = 0, 1
    sharded = False  # whether a process keeps only a share of each weight, so that its model cannot sample

    @property
    def main(self) -> bool:
        """Whether this process writes files and progress lines."""
        return self.rank == 0

    def divide(self, items: Sequence[Item], sizes: Sequence[float]) -> list[list[Item]]:
        """The processes' shares of a step, of about the same size. They depend on the sizes only."""
        return [[items[i] for i in sorted(part)] for part in divide(sizes, self.count)]

    def prepare(self, root: torch.nn.Module) -> None:
        """Lay out the parameters, before the optimizer is made.

        Raises RuntimeError if the processes begin with different weights.
        """

    def turns(
        self, root: torch.nn.Module, batches: Iterable[Batch], backward: bool = True
    ) -> Iterator[tuple[Batch, bool]]:
        """(micro-batch, whether it counts). Run forward on each, and backward if asked; the gradient is then complete.

        A micro-batch that does not count only makes this process take part in the others' collectives: its loss must be 0.
        """
        for batch in batches:
            yield batch, True

    def sum(self, amounts: dict[str, float]) -> dict[str, float]:
        """The sums over all processes, by name, added in the order of their ranks."""
        return amounts

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        return [value]

    def first(self, value: Any) -> Any:
        """The value of the first process, for instance if only that one reads a file."""
        return self.gather(value if self.main else None)[0]

    def any(self, asked: bool) -> bool:
        """Whether any process asks for it: so all stop after the same step."""
        return asked

    def wait(self) -> None:
        """Wait until every process has made this call."""

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight or moment, gathered from all shares. Every process must call it."""
        return tensor

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This process's share of a whole weight or moment, laid out as `like`."""
        return tensor.to(like.device)

    def orthogonalise(self, matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Muon's orthogonalised matrices, in order; each is computed by one of the processes."""
        return [orthogonalise(matrix) for matrix in matrices]


class Replicated(ProcessGroup):
    """Each process has the whole model; gradients are added once per step."""

    def __init__(self, device: str):
        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device

    def prepare(self, root: torch.nn.Module) -> None:
        sums = self.gather([float(p.detach().double().sum()) for p in root.parameters()])
        if any(other != sums[0] for other in sums):
            raise RuntimeError(
                "the training processes begin with different weights: each must load the same model, from the same files."
            )

    def turns(
        self, root: torch.nn.Module, batches: Iterable[Batch], backward: bool = True
    ) -> Iterator[tuple[Batch, bool]]:
        if not backward:
            yield from super().turns(root, batches)
            return
        parameters = [p for p in root.parameters() if p.requires_grad]
        earlier = [p.grad for p in parameters]  # complete already: only the new part is added over the processes
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
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

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
        mesh = init_device_mesh(self.device, (self.count,))
        for block in decoder_layers(root.model):
            fully_shard(block, mesh=mesh)
        fully_shard(root, mesh=mesh)
        for module in filter(lambda module: isinstance(module, FSDPModule), root.modules()):
            # Sums, not means. The factor alone would select a scaled sum, which gloo does not have.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def turns(
        self, root: torch.nn.Module, batches: Iterable[Batch], backward: bool = True
    ) -> Iterator[tuple[Batch, bool]]:
        batches = list(batches)
        most = max(1, *self.gather(len(batches)))
        for turn in range(most):
            root.set_requires_gradient_sync(turn == most - 1)
            yield (batches[turn], True) if turn < len(batches) else (filler(), False)
        if not backward:
            root.reshard()  # else the gathered root weights stay, and miss the next update of the shares

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        if not isinstance(like, DTensor):
            return super().share(tensor, like)
        # every process has the same whole tensor and takes its share from it: nothing is sent
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def join(settings: ParallelSettings, device: str) -> ProcessGroup:
    """The group of processes that this process was started in; a group of one if it was started by itself.

    Raises ValueError if environment and settings disagree about the number of processes.
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


def settle(threads: int = 0) -> None:
    """Take this process's GPU, if there are some, and `threads` threads; 0: its share of this machine's cores."""
    torch.set_num_threads(threads or max(1, cores() // int(os.environ["LOCAL_WORLD_SIZE"])))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def filler() -> Batch:
    """A micro-batch for a process that has none left while others do."""
    return collate([Row([0, 0], weights=0.0)])


def buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """The parameters in order, in buckets of one type and about BUCKET entries."""
    bucket: list[torch.nn.Parameter] = []
    for p in parameters:
        if bucket and (bucket[0].dtype != p.dtype or sum(q.numel() for q in bucket) + p.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
