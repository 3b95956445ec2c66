"""Tensors -> gradient -> weights. The learner never hears of a stage.

`gradient` takes a step's rows and a loss, and divides them into micro-batches and among processes; `forward_backward` takes
micro-batches. Losses and their gradients add up over both, because every division is already in the rows' weights. `step`
clips, updates, and clears.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from whetstone.batch import Batch, Row, collate, micro_batches
from whetstone.learner.flops import Flops
from whetstone.learner.head import chunked_logprobs
from whetstone.learner.layers import prepare
from whetstone.learner.muon import Muon, orthogonalise_all
from whetstone.learner.replicas import Groups, Replicas
from whetstone.model import hidden_states
from whetstone.run.processes import cores, may_fork
from whetstone.run.settings import ParallelSettings

# (logprobs (N,), entropy (N,), batch) -> (loss, {name: sum}); sums add up over micro-batches as the loss does.
Loss = Callable[[torch.Tensor, torch.Tensor, Batch], tuple[torch.Tensor, dict[str, float]]]
WORK = ("tokens", "positions", "flops")  # what is counted of training: real tokens, computed positions, operations


class Policy(torch.nn.Module):
    """The root module: a causal model whose own forward ends in log-probabilities of given tokens, never in logits.

    The head is used inside this forward, chunk by chunk, so that a wrapper around the root (FSDP2) sees one call.
    """

    def __init__(self, model: Any, vocabulary: int):
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary  # ids from here on are unused slots: neither sampled nor counted

    def forward(self, batch: Batch, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each scored token, at the temperature it is (or was) sampled with: (N,), (N,)."""
        hidden = hidden_states(self.model, batch.ids, batch.positions, lengths=batch.lengths)  # (1, T, C)
        if not torch.is_tensor(temperature):
            temperature = torch.full_like(batch.weights, temperature)
        with torch.autocast(hidden.device.type, enabled=False):
            weight = self.model.get_output_embeddings().weight[: self.vocabulary]
            return chunked_logprobs(hidden[0, batch.scored], weight, batch.targets, temperature)


class Learner:
    """A policy, its optimizers, and a few verbs.

    Args: a transformers causal model, the number of ids in use, and the optimizers' constants. Weight decay spares norms
    and embeddings; so does Muon, which leaves them to AdamW.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        parallel: ParallelSettings,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        clip: float = 1.0,
        optimizer: Literal["adamw", "muon"] = "adamw",
    ):
        self.model = model
        self.policy = Policy(model, vocabulary)
        self.parallel = parallel
        self.clip = clip
        self.device = next(model.parameters()).device.type
        prepare(model, parallel.activation_checkpointing, parallel.compile)
        if self.device == "cuda" and parallel.compute == "bfloat16":
            # the head's products stay in fp32 storage, but go through tensor cores (TF32): a fifteenth of the time
            torch.set_float32_matmul_precision("high")
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        decayed = [p for n, p in named if p.dim() > 1 and "embed" not in n and "lm_head" not in n]
        spared = [p for n, p in named if not (p.dim() > 1 and "embed" not in n and "lm_head" not in n)]
        matrices = {"params": decayed, "weight_decay": weight_decay}
        others = {"params": spared, "weight_decay": 0.0}
        if optimizer == "muon":
            elementwise = [others, {"params": [p for p in decayed if p.dim() != 2], "weight_decay": weight_decay}]
            muon = Muon([matrices | {"params": [p for p in decayed if p.dim() == 2]}])
        else:
            elementwise, muon = [matrices, others], None
        self.muon: Muon | None = muon
        adamw = torch.optim.AdamW(elementwise, lr=0.0, betas=betas, fused=True)
        self.optimizers: list[torch.optim.Optimizer] = [adamw, muon] if muon else [adamw]
        self._replicas: tuple[Loss, Replicas] | None = None
        self._flops = Flops(model, vocabulary)
        self.work = dict.fromkeys(WORK, 0.0)  # done by `gradient` so far, in all processes
        self.phase: Callable[[str], None] = lambda name: None  # told what begins, for who watches

    @property
    def processes(self) -> int:
        """That share a step's gradient on this machine."""
        return (self.parallel.replicas or cores()) if may_fork(self.device) else 1

    def owned(self) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
        """The trained parameters under their names, each with the optimizer that updates it."""
        owner = {id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for name, parameter in self.model.named_parameters():
            if id(parameter) in owner:
                yield name, parameter, owner[id(parameter)]

    def _compute(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.parallel.compute == "bfloat16")

    def gradient(self, groups: Groups, loss: Loss, temperature: float = 1.0) -> dict[str, float]:
        """Add the gradient of a step's rows; a group (a row, or the two of a pair) stays in one micro-batch.

        On a CPU with one thread, `parallel.replicas` processes divide the groups. They are forked at a loss's first step and
        know the loss as it was then. Returns the summed loss and the loss's own sums.
        """
        count = self.processes
        if count == 1:
            return self._counted(self._gradient(groups, loss, temperature))
        if self._replicas is None or self._replicas[0] != loss:
            self.close()
            parameters = [p for _, p, _ in self.owned()]
            matrices = self.muon.matrices if self.muon else []
            replicas = Replicas(parameters, count, lambda part, t: self._gradient(part, loss, t), matrices)
            if self.muon:
                self.muon.orthogonalise_all = replicas.orthogonalise
            self._replicas = loss, replicas
        return self._counted(self._replicas[1].gradient(groups, temperature))

    def _gradient(self, groups: Groups, loss: Loss, temperature: float) -> dict[str, float]:
        """The sums, and WORK among them, for they add up over processes as the sums do."""
        work = dict.fromkeys(WORK, 0.0)

        def seen(batches: Iterable[Batch]) -> Iterator[Batch]:
            for batch in batches:
                work["tokens"] += sum(batch.lengths)
                work["positions"] += batch.ids.numel()
                work["flops"] += self._flops.of(batch)
                yield batch

        batches = seen(micro_batches(groups, self.parallel.micro_batch_tokens))
        return self.forward_backward(batches, loss, temperature) | work

    def _counted(self, sums: dict[str, float]) -> dict[str, float]:
        for name in WORK:
            self.work[name] += sums.pop(name)
        return sums

    def close(self) -> None:
        """End the processes that `gradient` started."""
        if self._replicas:
            self._replicas[1].close()
            self._replicas = None
            if self.muon:
                self.muon.orthogonalise_all = orthogonalise_all

    def forward_backward(
        self, batches: Iterable[Batch], loss: Loss, temperature: float | torch.Tensor = 1.0
    ) -> dict[str, float]:
        """Add the gradient of a step's micro-batches. Returns the summed loss and the loss's own sums."""
        self.model.train()
        totals: dict[str, float] = {"loss": 0.0}
        for batch in batches:
            batch = batch.to(self.device)
            self.phase("forward")
            with self._compute():
                logprobs, entropy = self.policy(batch, temperature)
            value, sums = loss(logprobs, entropy, batch)
            self.phase("backward")
            value.backward()
            totals["loss"] += float(value.detach())
            for name, amount in sums.items():
                totals[name] = totals.get(name, 0.0) + amount
        return totals

    def step(self, rate: float) -> float:
        """Clip, update, clear. Returns the gradient's norm before clipping.

        Raises FloatingPointError when the gradient is not finite: nothing is updated then.
        """
        self.phase("step")
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip))
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
        """Forget the gradient."""
        self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def logprobs(self, batches: Iterable[Batch], temperature: float | torch.Tensor = 1.0) -> list[torch.Tensor]:
        """Log-probabilities of each micro-batch's scored tokens, without gradient: a list of (N,)."""
        self.model.eval()
        seen = []
        for batch in batches:
            with self._compute():
                seen.append(self.policy(batch.to(self.device), temperature)[0])
        return seen

    def row_logprobs(self, rows: list[Row], temperature: float = 1.0) -> list[torch.Tensor]:
        """The same for rows in their own order: a list of (scored,) tensors, one a row."""
        budget = self.parallel.micro_batch_tokens
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        out: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        at = 0
        while at < len(order):
            size, upto = 0, at
            while upto < len(order) and (upto == at or size + len(rows[order[upto]].ids) <= budget):
                size += len(rows[order[upto]].ids)
                upto += 1
            chosen = order[at:upto]
            (values,) = self.logprobs([collate([rows[i] for i in chosen])], temperature)
            for i, part in zip(chosen, values.split([rows[i].scored for i in chosen]), strict=True):
                out[i] = part
            at = upto
        return out
