"""Self-distillation: the student learns those of its rollouts that give a prompt's most frequent answer.

Huang et al. 2022 (Large Language Models Can Self-Improve), arXiv 2210.11610: self-consistency picks the answer, no reference
is read. Differs from the paper: the student samples again in every step, as in TTRL (Zuo et al. 2025, arXiv
2504.16084), and answers are compared by the verifier and not by their spelling.

A majority can be wrong, and training then makes it more frequent: `majority_right` says how often it is right, as far as the
prompts have reference answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whetstone.answer import majority
from whetstone.records import Problem, Rollout, Verifier

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch


@dataclass(frozen=True)
class Elected:
    rollouts: list[Rollout]  # that gave their prompt's majority answer
    metrics: dict[str, float]


def elect(
    problems: Sequence[Problem], groups: Sequence[Sequence[Rollout]], verifier: Verifier, agreement: float
) -> Elected:
    """A cut-off rollout counts against the agreement, and is never learnt from."""
    chosen: list[Rollout] = []
    shares: list[float] = []
    right = agreed = 0
    for problem, group in zip(problems, groups, strict=True):
        whole = [rollout for rollout in group if rollout.stop != "length"]
        vote = majority([rollout.text for rollout in whole], verifier, problem.policy)
        share = vote.votes / max(1, len(group))
        shares.append(share)
        if vote.votes > 1 and share >= agreement:
            voters = [whole[i] for i in vote.places]
            agreed, right = agreed + 1, right + (voters[0].correct is True)
            chosen += voters
    metrics = {"agreement": sum(shares) / max(1, len(shares)), "elected": agreed / max(1, len(shares))}
    return Elected(chosen, metrics | ({"majority_right": right / agreed} if agreed else {}))


def loss(logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch") -> "tuple[torch.Tensor, dict[str, float]]":
    """Cross-entropy per token; how far the sampler is from the learner."""
    weights = batch.weights
    sums = {
        "entropy": float((weights * entropy.detach()).sum()),
        "sampler_gap": float((weights * (logprobs.detach() - batch.token["sampler"]).abs()).sum()),
    }
    return -(weights * logprobs).sum(), sums
