"""The head of a large vocabulary on a CPU: all scored tokens at once, and the ids in blocks (as in cut cross-entropy, Wijmans
et al. 2024, arXiv 2411.09009).

head.py goes through the tokens in chunks, with the logits of all ids. At 49,152 ids such a chunk takes 200 MB and each pass
reads and writes memory, as does the weight's gradient, which every chunk adds to. Here a block's logits stay in the cache,
two buffers serve all blocks, and each row of the weight's gradient is written once. The backward pass recomputes the logits.

Letters: N scored tokens, C hidden width, V ids in use, b of a block.
"""

from collections.abc import Iterator

import torch

FROM = 16_384  # ids from which on this is used
BLOCK = 4 << 20  # logits of a block
LEAST = 1024  # ids of a block


class BlockedLogProbs(torch.autograd.Function):
    """hidden (N, C), weight (V, C), targets and temperature (N,) -> log-probabilities and entropies, (N,) each."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature):  # type: ignore[override]
        blocks = _Blocks(hidden, weight, targets, temperature)
        highest = torch.full_like(blocks.heat[:, 0], -1e30)  # logit so far, to which the sums are relative
        total, weighed, own = (
            torch.zeros_like(highest) for _ in range(3)
        )  # of exp(z), of exp(z) z, the target's logit
        for block, z in blocks:
            rows, columns = blocks.targets_in(block)
            own[rows] = z[rows, columns]
            higher = torch.maximum(highest, z.amax(-1))
            exp = torch.exp(z.sub_(higher[:, None]), out=blocks.second(z))
            kept = (highest - higher).exp_()
            weighed = (weighed + total * (highest - higher)) * kept + z.mul_(exp).sum(-1)
            total, highest = total * kept + exp.sum(-1), higher
        return results(ctx, (hidden, weight, targets, temperature), highest, total, weighed, own)

    @staticmethod
    def backward(ctx, grad, grad_entropy):  # type: ignore[override]
        hidden, weight, targets, temperature, totals, entropy = ctx.saved_tensors
        blocks = _Blocks(hidden, weight, targets, temperature)
        scale = (torch.zeros_like(entropy) if grad is None else grad)[:, None] / blocks.heat
        of_entropy = None if grad_entropy is None else grad_entropy[:, None] / blocks.heat
        d_hidden = torch.zeros_like(blocks.hidden)
        d_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for block, z in blocks:
            log_p = z.sub_(totals[:, None])
            if of_entropy is None:
                d_z = log_p.exp_().mul_(-scale)
            else:  # d entropy / d logit = -p (log p + entropy)
                share = torch.add(log_p, entropy[:, None], out=blocks.second(z)).mul_(of_entropy).add_(scale)
                d_z = log_p.exp_().mul_(share).neg_()
            rows, columns = blocks.targets_in(block)
            d_z[rows, columns] += scale[rows, 0]
            if d_weight is not None:
                d_weight[block] = d_z.T @ blocks.hidden
            d_hidden.addmm_(d_z, blocks.weight(block))
        return d_hidden.to(hidden.dtype), d_weight, None, None


def results(ctx, inputs, highest, total, weighed, own):
    """Log-probabilities and entropies (N,) from the sums over all ids. Keeps what the backward pass needs."""
    log = total.log()
    totals, entropy = highest + log, log - weighed / total
    ctx.save_for_backward(*inputs, totals, entropy)
    ctx.set_materialize_grads(False)
    return own - totals, entropy


class _Blocks:
    """The blocks of ids, each with its logits at the temperature, (N, b): they are overwritten by the next block's."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: torch.Tensor):
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.hidden, self.all, self.targets = hidden.to(wide), weight, targets
        self.heat = temperature.to(wide)[:, None]  # (N, 1)
        self.heated = bool((temperature != 1).any())
        self.size = min(len(weight), max(LEAST, BLOCK // max(1, len(targets)) // 64 * 64))
        self.buffers = [torch.empty(len(targets) * self.size, dtype=wide) for _ in range(2)]

    def __iter__(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for at in range(0, len(self.all), self.size):
            block = slice(at, min(at + self.size, len(self.all)))
            n, b = len(self.targets), block.stop - at
            z = torch.mm(self.hidden, self.weight(block).T, out=self.buffers[0][: n * b].view(n, b))
            yield block, z.div_(self.heat) if self.heated else z

    def weight(self, block: slice) -> torch.Tensor:
        return self.all[block].to(self.hidden.dtype)

    def second(self, z: torch.Tensor) -> torch.Tensor:
        """Another place of the same shape."""
        return self.buffers[1][: z.numel()].view(z.shape)

    def targets_in(self, block: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens whose target lies in the block, and its column there."""
        rows = ((self.targets >= block.start) & (self.targets < block.stop)).nonzero()[:, 0]
        return rows, self.targets[rows] - block.start
