"""Tensors -> gradient -> weights. The learner never hears of a stage.

`gradient` takes a step's rows and a loss, and divides them into micro-batches and among processes; `forward_backward` takes
micro-batches. Losses and their gradients add up over both, because every division is already in the rows' weights. `step`
clips, updates, and clears.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from whetstone import model as models
from whetstone.attention import Segments, half_precision
from whetstone.batch import Batch, Row, by_prompt, collate_groups, micro_batches, tokens_of
from whetstone.learner.flops import Flops
from whetstone.learner.head import chunked_logprobs, output_rule
from whetstone.learner.layers import prepare
from whetstone.learner.muon import Muon
from whetstone.learner.parallel import join
from whetstone.learner.replicas import Groups, Replicas
from whetstone.model import hidden_states
from whetstone.run.processes import cores, may_fork
from whetstone.run.settings import OptimizerSettings, ParallelSettings

# (logprobs (N,), entropy (N,), batch), of a scalar head (values (T,), batch) -> (loss, {name: sum}); sums add up over
# micro-batches as the loss does.
Loss = Callable[..., tuple[torch.Tensor, dict[str, float]]]
BETAS = 0.9, 0.98  # of AdamW
UNTRAINED = OptimizerSettings()
WORK = ("tokens", "positions", "flops")  # what is counted of training: real tokens, computed positions, operations


class Policy(torch.nn.Module):
    """The root module: a causal model whose own forward ends in log-probabilities of given tokens, never in logits.

    The head is used inside this forward, chunk by chunk, so that a wrapper around the root (FSDP2) sees one call.
    """

    def __init__(self, model: Any, vocabulary: int):
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary  # ids from here on are unused slots: neither sampled nor counted
        self.rule = output_rule(model)

    def forward(self, batch: Batch, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each scored token, at the temperature it is (or was) sampled with: (N,), (N,)."""
        hidden = last_hidden(self.model, batch)[batch.scored]  # (N, C)
        if not torch.is_tensor(temperature):
            temperature = torch.full_like(batch.weights, temperature)
        products = torch.bfloat16 if half_precision(hidden) is torch.bfloat16 else None  # no gradient is lost in it
        with torch.autocast(hidden.device.type, enabled=False):
            head = self.model.get_output_embeddings()
            bias = None if head.bias is None else head.bias[: self.vocabulary]
            weight = head.weight[: self.vocabulary]
            given = hidden, weight, batch.targets, temperature
            return chunked_logprobs(*given, bias=bias, rule=self.rule, products=products)


class Critic(torch.nn.Module):
    """The root module with a scalar head: a transformers model for sequence classification with one label.

    A value a token, of the text up to it and with it: `values[batch.scored]` are those of the states in which scored tokens
    were chosen (PPO's critic), that of a segment's last token judges the whole text (a reward model).
    """

    def __init__(self, model: Any):
        super().__init__()
        if getattr(model, "score", None) is None or model.score.weight.shape[0] != 1:
            raise ValueError(
                f"{type(model).__name__} has no scalar head: values need a model for sequence classification with "
                "num_labels = 1."
            )
        self.model = model

    def forward(self, batch: Batch, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor]:
        """The value at each position, in fp32: (T,). The temperature has no say in it."""
        hidden = last_hidden(self.model, batch)
        with torch.autocast(hidden.device.type, enabled=False):
            wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
            return (hidden.to(wide) @ self.model.score.weight[0].to(wide),)


def last_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """(T, C)"""
    segments = Segments(batch.lengths, batch.ids.device, batch.shared)
    return hidden_states(model, batch.ids, batch.positions, lengths=segments)[0]


class Learner:
    """A model, its optimizers, and a few verbs.

    Args: a transformers causal model, or one for sequence classification with one label (a reward model, a critic); the
    number of ids in use; and the optimizer's settings. Weight decay spares norms and embeddings; so does Muon, which leaves
    them to AdamW.

    Where several processes train (`parallel.processes`) each makes a learner, calls the same verbs with the same rows, and
    is given the same sums; `process_group` is the group, `process_group.main` the one that writes.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        parallel: ParallelSettings,
        optimizer: OptimizerSettings = UNTRAINED,
    ):
        self.model = model
        self.root = Critic(model) if model.get_output_embeddings() is None else Policy(model, vocabulary)
        self.parallel = parallel
        self.clip = optimizer.clip
        self.device, dtype = next(model.parameters()).device.type, next(model.parameters()).dtype
        # of weights, losses and log-probabilities
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        prepare(model, parallel.activation_checkpointing, parallel.compile)
        self._flops = Flops(model, vocabulary)
        self.process_group = join(parallel, self.device)
        self.process_group.prepare(
            self.root
        )  # before the optimizers are made: parameters are replaced by shares of them
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        decayed = [p for n, p in named if p.dim() > 1 and "embed" not in n and "lm_head" not in n]
        spared = [p for n, p in named if not (p.dim() > 1 and "embed" not in n and "lm_head" not in n)]
        matrices = {"params": decayed, "weight_decay": optimizer.weight_decay}
        others = {"params": spared, "weight_decay": 0.0}
        if optimizer.name == "muon":
            elementwise = [
                others,
                {"params": [p for p in decayed if p.dim() != 2], "weight_decay": optimizer.weight_decay},
            ]
            muon = Muon([matrices | {"params": [p for p in decayed if p.dim() == 2]}])
            muon.orthogonalise_all = self.process_group.orthogonalise
        else:
            elementwise, muon = [matrices, others], None
        self.muon: Muon | None = muon
        adamw = torch.optim.AdamW(elementwise, lr=0.0, betas=BETAS, fused=True)
        self.optimizers: list[torch.optim.Optimizer] = [adamw, muon] if muon else [adamw]
        self._replicas: tuple[Loss, Replicas] | None = None
        self.work = dict.fromkeys(WORK, 0.0)  # done by `gradient` so far, in all processes
        self.phase: Callable[[str], None] = lambda name: None  # told what begins, for who watches

    @property
    def processes(self) -> int:
        """That share a step's gradient."""
        if self.process_group.count > 1:
            return self.process_group.count
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

        Several processes divide the groups. On a CPU with one thread, `parallel.replicas` processes divide them as well: they
        are forked at a loss's first step and know the loss as it was then. Returns the summed loss and the loss's own sums.
        """
        if self.process_group.count > 1:
            mine = self.process_group.divide(groups, list(map(tokens_of, groups)))[self.process_group.rank]
            return self._counted(self.process_group.sum(self._gradient(mine, loss, temperature)))
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
                work["tokens"] += batch.size  # nothing is padded
                work["positions"] += batch.ids.numel()
                work["flops"] += self._flops.of(batch)
                yield batch

        batches = seen(micro_batches(groups, self.parallel.micro_batch_tokens, self.wide))
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
                self.muon.orthogonalise_all = self.process_group.orthogonalise

    def forward_backward(
        self, batches: Iterable[Batch], loss: Loss, temperature: float | torch.Tensor = 1.0
    ) -> dict[str, float]:
        """Add the gradient of a step's micro-batches. Returns the summed loss and the loss's own sums.

        Several processes each give their own micro-batches, as many as they have; the gradient is that of all, the sums are
        those of the process.
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

        Raises FloatingPointError when the gradient is not finite: nothing is updated then.
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
        """Forget the gradient."""
        self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def logprobs(self, batches: Iterable[Batch], temperature: float | torch.Tensor = 1.0) -> list[torch.Tensor]:
        """Log-probabilities of each micro-batch's scored tokens, without gradient: a list of (N,)."""
        return self._outputs(batches, temperature)

    @torch.no_grad()
    def values(self, batches: Iterable[Batch]) -> list[torch.Tensor]:
        """The scalar head's values at every position of each micro-batch, without gradient: a list of (T,)."""
        return self._outputs(batches, 1.0)

    def _outputs(self, batches: Iterable[Batch], temperature: float | torch.Tensor) -> list[torch.Tensor]:
        self.model.eval()
        seen = []
        for batch, counts in self.process_group.forward_turns(self.root, batches):
            with self._compute():
                output = self.root(batch.to(self.device), temperature if counts else 1.0)[0]
            if counts:
                seen.append(output)
        return seen

    def row_logprobs(self, rows: list[Row], temperature: float = 1.0) -> list[torch.Tensor]:
        """The same for rows in their own order: a list of (scored,) tensors, one a row. Neighbours share their prompts."""
        budget = self.parallel.micro_batch_tokens
        groups = by_prompt(rows, budget)
        ends = [0, *accumulate(map(len, groups))]
        sizes = list(map(tokens_of, groups))
        parts: list[list[int]] = []  # groups that are run together
        size = 0
        for i in sorted(range(len(groups)), key=sizes.__getitem__):
            size += sizes[i]
            if not parts or size > budget:
                parts.append([])
                size = sizes[i]
            parts[-1].append(i)
        mine = self.process_group.divide(parts, [sum(sizes[i] for i in part) for part in parts])[
            self.process_group.rank
        ]
        batches = [collate_groups([groups[i] for i in part]) for part in mine]
        found: dict[int, torch.Tensor] = {}
        for part, values in zip(mine, self.logprobs(batches, temperature), strict=True):
            order = [row for i in part for row in range(ends[i], ends[i + 1])]
            found |= dict(zip(order, values.cpu().split([rows[row].scored for row in order]), strict=True))
        for theirs in self.process_group.gather(found):
            found |= theirs
        return [found[i] for i in range(len(rows))]

    def publish(self, copy: Any) -> None:
        """Bring another module of the same model up to the weights that are trained; each process must ask.

        They come one at a time: beside its share and the copy, a process holds one weight whole. The learner's own module
        is up to date.
        """
        if copy is self.model:
            return
        theirs = dict(copy.named_parameters())
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                theirs[name].copy_(self.process_group.whole(weight.detach()))

    def save_model(self, tokenizer: Any, folder: Path) -> None:
        """A plain Hugging Face folder of the whole model, written by the main process; all must call it."""
        saved, weights = self.model.state_dict().keys(), {}  # a tied head is no parameter of its own
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            whole = self.process_group.whole(tensor.detach())
            if self.process_group.main and name in saved:
                weights[name] = whole.cpu()
        if self.process_group.main:
            models.save(self.model, tokenizer, folder, weights)
        self.process_group.wait()
