"""Tensors -> gradient -> weights. The learner knows nothing of stages.

`gradient` takes the rows of a step and a loss, and divides the rows into micro-batches and among processes.
`forward_backward` takes micro-batches. Losses and their gradients are summed over both, because every division is already in
the rows' weights. `step` clips the gradient, updates the weights, and clears the gradient.

Letters: T tokens of a micro-batch, N of them scored, C hidden width, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import torch

from whetstone import model as models
from whetstone.batch import Batch, Row, by_prompt, collate_groups, split, tokens_of
from whetstone.learner.adamw import AdamWInBfloat16
from whetstone.learner.adapter import VALUE_HEAD, plain_weights, publish
from whetstone.learner.flops import Flops
from whetstone.learner.layers import prepare
from whetstone.learner.muon import Muon
from whetstone.learner.parallel import join
from whetstone.learner.replicas import Groups, Replicas
from whetstone.learner.roots import Critic, Policy, PolicyAndValue
from whetstone.records import Sampling
from whetstone.run.processes import cores, may_fork
from whetstone.run.settings import OptimizerSettings, ParallelSettings
from whetstone.run.usage import give_back_memory

# (logprobs (N,), entropy (N,), batch) -> (loss, {name: sum}); for a scalar head (values (T,), batch) -> the same. The sums are
# added up over micro-batches, as the loss is.
Loss = Callable[..., tuple[torch.Tensor, dict[str, float]]]
WORK = ("tokens", "positions", "flops")  # counted during training: real tokens, computed positions, operations
BETAS = (0.9, 0.98)  # AdamW's
LARGE = 128 << 20  # bytes of a model whose freed activations are worth returning
DEFAULT_OPTIMIZER = OptimizerSettings()


class Part(NamedTuple):
    """How far the gradient of a step is, in this process: its micro-batch `number` of `count` begins."""

    number: int  # from 0
    count: int
    done: float  # share of this process's tokens
    tokens: int  # of the step, in all processes
    flops: float


class Learner:
    """A model and its optimizers.

    `model` is a transformers causal model, or one for sequence classification with one label (a reward model, a critic);
    `vocabulary` is the number of ids in use. `root` is the module whose outputs the loss is given; by default log-probabilities
    and entropies, or values.

    With several training processes (`parallel.processes`) each makes a learner, makes the same calls with the same rows, and
    gets the same sums. `process_group` is their group; `process_group.main` says which process writes files.
    """

    def __init__(
        self, model: Any, vocabulary: int, parallel: ParallelSettings,
        optimizer: OptimizerSettings = DEFAULT_OPTIMIZER, root: torch.nn.Module | None = None,
    ):  # fmt: skip
        self.model = model
        self.root = root or (Critic if model.get_output_embeddings() is None else Policy)(model, vocabulary)
        self.parallel = parallel
        self.clip = optimizer.clip
        self.device, dtype = next(model.parameters()).device.type, next(model.parameters()).dtype
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32  # of weights, losses, log-probabilities
        prepare(model, parallel.activation_checkpointing, parallel.compile, parallel.compute)
        self._flops = Flops(model, vocabulary)
        self._large = sum(p.nbytes for p in model.parameters()) > LARGE
        self.process_group = join(parallel, self.device)
        self.process_group.prepare(self.root)  # may replace parameters by shares: before the optimizers are made
        self.optimizers, self.muon = make_optimizers(model, optimizer)
        if self.muon:
            self.muon.orthogonalise_all = self._orthogonalise
        self._replicas: tuple[Loss, Replicas] | None = None
        self.work = dict.fromkeys(WORK, 0.0)  # done by `gradient` so far, in all processes
        self.phase: Callable[[str], None] = lambda name: None  # called when a phase of a step begins
        self.part: Callable[[Part], None] = lambda part: (
            None
        )  # called when a micro-batch begins, in forked processes too

    @property
    def processes(self) -> int:
        """How many processes share a step's gradient."""
        if self.process_group.count > 1:
            return self.process_group.count
        return (self.parallel.forks or cores()) if may_fork(self.device) else 1

    def owned(self) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
        """The trained parameters under their names, each with the optimizer that updates it."""
        owner = {id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for name, parameter in self.model.named_parameters():
            if id(parameter) in owner:
                yield name, parameter, owner[id(parameter)]

    def _compute(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.parallel.compute == "bfloat16")

    def gradient(self, groups: Groups, loss: Loss, temperature: float = 1.0) -> dict[str, float]:
        """Add the gradient of a step's rows. Returns the summed loss and the loss's own sums.

        A group (a row, or the two rows of a pair) stays in one micro-batch. Several training processes divide the groups.
        On a CPU with one thread `parallel.forks` processes divide them; they are forked at the first step with a loss and
        know the loss as it was then.
        """
        sizes = list(map(tokens_of, groups))
        scored = sum(row.scored for group in groups for row in group)
        self._step = sum(sizes), self._flops.of_tokens(sum(sizes), scored)
        if self.process_group.count > 1:
            share = self.process_group.divide(groups, sizes)[self.process_group.rank]
            return self._counted(self.process_group.sum(self._gradient(share, loss, temperature)))
        count = self.processes
        if count == 1:
            return self._counted(self._gradient(groups, loss, temperature))
        if self._replicas is None or self._replicas[0] != loss:
            self.close()
            parameters = [p for _, p, _ in self.owned()]
            matrices = self.muon.matrices if self.muon else []
            replicas = Replicas(parameters, count, lambda part, t: self._gradient(part, loss, t), matrices)
            self._replicas = loss, replicas
        return self._counted(self._replicas[1].gradient(groups, temperature))

    def _gradient(self, groups: Groups, loss: Loss, temperature: float) -> dict[str, float]:
        """The loss's sums and the counts of WORK, which are added up over processes as the sums are."""
        work = dict.fromkeys(WORK, 0.0)
        parts = split(groups, self.parallel.micro_batch_tokens)
        every = sum(map(tokens_of, groups))

        def counted() -> Iterator[Batch]:
            for number, members in enumerate(parts):
                self.part(Part(number, len(parts), work["tokens"] / every, *self._step))
                batch = collate_groups(members, self.wide)
                work["tokens"] += batch.size  # nothing is padded
                work["positions"] += batch.ids.numel()
                work["flops"] += self._flops.of(batch)
                yield batch

        sums = self.forward_backward(counted(), loss, temperature)
        if self._large and self.device == "cpu":
            give_back_memory(LARGE)  # its pages cost about 1 % of the time when they are taken again
        return sums | work

    def _counted(self, sums: dict[str, float]) -> dict[str, float]:
        for name in WORK:
            self.work[name] += sums.pop(name)
        return sums

    def close(self) -> None:
        """End the processes that `gradient` started."""
        if self._replicas:
            self._replicas[1].close()
            self._replicas = None

    def _orthogonalise(self, matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Muon's matrices, divided among the processes that share the gradient."""
        return (self._replicas[1] if self._replicas else self.process_group).orthogonalise(matrices)

    def forward_backward(
        self, batches: Iterable[Batch], loss: Loss, temperature: float | torch.Tensor = 1.0
    ) -> dict[str, float]:
        """Add the gradient of a step's micro-batches. Returns the summed loss and the loss's own sums.

        Several processes each give their own micro-batches, as many as they have. The gradient is that of all; the sums are
        those of this process.
        """
        self.model.train()
        totals: dict[str, float] = {"loss": 0.0}
        for batch, counts in self.process_group.turns(self.root, batches):
            batch = batch.to(self.device)
            self.phase("forward")
            with self._compute():
                outputs = self.root(batch, temperature if counts else 1.0)
            value, sums = loss(*outputs, batch) if counts else (0.0 * outputs[0].sum(), {})
            self.phase("backward")
            value.backward()
            totals["loss"] += float(value.detach())
            for name, amount in sums.items():
                totals[name] = totals.get(name, 0.0) + amount
        return totals

    def step(self, rate: float) -> float:
        """Clip, update, clear. Returns the gradient's norm before clipping.

        Raises FloatingPointError if the gradient is not finite; nothing is updated then.
        """
        self.phase("step")
        norm = float(self.process_group.whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)))
        if not norm < float("inf"):
            self.clear()
            raise FloatingPointError(f"the gradient's norm is {norm}")
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.clear()
        return norm

    def clear(self) -> None:
        """Drop the gradient."""
        self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def logprobs(
        self, batches: Iterable[Batch], temperature: float | torch.Tensor = 1.0, output: int = 0
    ) -> list[torch.Tensor]:
        """Log-probabilities of the scored tokens, without gradient: (N,) per micro-batch. `output` chooses another of the
        root's outputs.
        """
        self.model.eval()
        outputs = []
        for batch, counts in self.process_group.turns(self.root, batches, backward=False):
            with self._compute():
                found = self.root(batch.to(self.device), temperature if counts else 1.0)[output]
            if counts:
                outputs.append(found)
        return outputs

    def values(self, batches: Iterable[Batch]) -> list[torch.Tensor]:
        """The scalar head's values at every position, without gradient: (T,) per micro-batch."""
        return self.logprobs(batches)

    def row_logprobs(self, rows: list[Row], temperature: float = 1.0) -> list[torch.Tensor]:
        """Log-probabilities of each row's scored tokens, without gradient: (row.scored,) per row, in the rows' order."""
        return self._by_row(rows, lambda logprobs, batch: logprobs, [row.scored for row in rows], temperature)

    def row_values(self, rows: list[Row]) -> list[float]:
        """The scalar head's value of each whole row, without gradient: at its last token."""
        return [float(value) for value in self._by_row(rows, lambda values, batch: values[batch.ends], [1] * len(rows))]

    def state_values(self, rows: list[Row]) -> list[torch.Tensor]:
        """The scalar head's values of the states in which scored tokens were chosen, without gradient: (row.scored,) each."""
        counts = [row.scored for row in rows]
        if isinstance(self.root, PolicyAndValue):
            return self._by_row(rows, lambda values, batch: values, counts, output=2)
        return self._by_row(rows, lambda values, batch: values[batch.scored], counts)

    def _by_row(
        self,
        rows: list[Row],
        chosen: Callable[[torch.Tensor, Batch], torch.Tensor],
        counts: Sequence[int],
        temperature: float = 1.0,
        output: int = 0,
    ) -> list[torch.Tensor]:
        """What is `chosen` of one of the root's outputs, row after row; (counts[i],) of row i.

        Rows that follow one another with the same prompt share its computation.
        """
        groups = by_prompt(rows, self.parallel.micro_batch_tokens)
        ends = [0, *accumulate(map(len, groups))]
        sizes = list(map(tokens_of, groups))
        parts = self._ascending_parts(sizes)
        shares = self.process_group.divide(parts, [sum(sizes[i] for i in part) for part in parts])
        mine = shares[self.process_group.rank]
        batches = [collate_groups([groups[i] for i in part]) for part in mine]
        by_row: dict[int, torch.Tensor] = {}
        for part, batch, found in zip(mine, batches, self.logprobs(batches, temperature, output), strict=True):
            order = [row for i in part for row in range(ends[i], ends[i + 1])]
            values = chosen(found.cpu(), batch).split([counts[row] for row in order])
            by_row |= dict(zip(order, values, strict=True))
        for of_process in self.process_group.gather(by_row):
            by_row |= of_process
        return [by_row[i] for i in range(len(rows))]

    def _ascending_parts(self, sizes: list[int]) -> list[list[int]]:
        """Indices of groups from short to long, in parts of at most a micro-batch's tokens."""
        parts: list[list[int]] = []
        used = 0
        for i in sorted(range(len(sizes)), key=sizes.__getitem__):
            used += sizes[i]
            if not parts or used > self.parallel.micro_batch_tokens:
                parts.append([])
                used = sizes[i]
            parts[-1].append(i)
        return parts

    def publish(self, copy: Any) -> None:
        """Copy the trained weights into another module of the same model. Every process of a group must call it.

        Weights are gathered one at a time: besides its share and the copy, a process holds one whole weight. If `copy` is
        the learner's own module, it is up to date already.
        """
        if copy is self.model:
            return
        publish(plain_weights(self.model, self.process_group.whole), copy)

    def save_model(self, tokenizer: Any, folder: Path, sampling: Sampling = models.SAMPLING) -> None:
        """`model.save` of the whole model, in the main process. Every process must call it."""
        kept = {
            name.replace(".base_layer.", ".") for name in self.model.state_dict()
        }  # a tied head is no parameter of its own
        buffers = ((name, self.process_group.whole(buffer)) for name, buffer in self.model.named_buffers())
        weights = {}
        for name, whole in chain(plain_weights(self.model, self.process_group.whole), buffers):
            if self.process_group.main and name in kept:
                weights[name] = whole.cpu()
        if self.process_group.main:
            models.save(self.model, tokenizer, folder, weights, sampling)
        self.process_group.wait()


class Together:
    """Several learners of one stage, as a checkpoint sees them: each keeps its weights under a name of its own."""

    def __init__(self, **learners: Learner):
        self.learners = learners
        self.process_group = next(iter(learners.values())).process_group

    def owned(self) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
        for role, learner in self.learners.items():
            for name, parameter, optimizer in learner.owned():
                yield f"{role}.{name}", parameter, optimizer


def make_optimizers(model: Any, settings: OptimizerSettings) -> tuple[list[torch.optim.Optimizer], Muon | None]:
    """AdamW for all trained parameters, or Muon for the hidden layers' matrices and AdamW for the rest.

    Weight decay is applied to matrices only, and not to embeddings and the head.
    """
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.dim() > 1 and not any(part in name for part in ("embed", "lm_head", VALUE_HEAD))
            (matrices if decayed else others).append(parameter)
    decay = {"weight_decay": settings.weight_decay}
    groups = [{"params": matrices} | decay, {"params": others, "weight_decay": 0.0}]
    make = AdamWInBfloat16 if settings.moments == "bfloat16" else torch.optim.AdamW
    if settings.name != "muon":
        return [make(groups, lr=0.0, betas=BETAS, fused=True)], None
    muon = Muon([{"params": [p for p in matrices if p.dim() == 2]} | decay])
    groups = [groups[1], {"params": [p for p in matrices if p.dim() != 2]} | decay]
    return [make(groups, lr=0.0, betas=BETAS, fused=True), muon], muon
