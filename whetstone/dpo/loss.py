"""Losses on pairs of a right and a wrong answer. They differ in what they make of a pair's margin h.

h = beta · (log-ratio of the chosen side - log-ratio of the rejected side). A side's log-ratio is log pi / pi_ref summed over
its tokens; with `length_normalised` it is divided by their number (Tülu 3, arXiv 2411.15124, section 4.3).

sigmoid   -log σ(h)                                   Rafailov et al. 2023, arXiv 2305.18290, eq. 7
          -(1-ε) log σ(h) - ε log σ(-h)               with label smoothing ε: conservative DPO, Mitchell 2023
robust    (-(1-ε) log σ(h) + ε log σ(-h)) / (1-2ε)    Chowdhury et al. 2024, arXiv 2403.00409
ipo       (h/beta - 1/(2 beta))²                      Azar et al. 2023, arXiv 2310.12036, eq. 17
simpo     -log σ(h - γ)                               Meng et al. 2024, arXiv 2405.14734, eq. 6: no reference, mean per token

`chosen_nll` adds the chosen side's cross-entropy per token to any of them (Iterative RPO, arXiv 2404.19733): it keeps the
chosen side from falling with the rejected one.

Rows come as chosen, rejected, chosen, rejected, … and a pair stays in one micro-batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F

from whetstone.batch import Batch, Row, answer_row
from whetstone.dpo.settings import Settings

Contrast = Callable[[torch.Tensor], torch.Tensor]  # (P,) margins -> (P,) losses


def sigmoid(margin: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """(P,) -> (P,). `smoothing` is the share of pairs whose sides are believed to be the wrong way round."""
    if not smoothing:
        return -F.logsigmoid(margin)
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def robust(margin: torch.Tensor, smoothing: float) -> torch.Tensor:
    """(P,) -> (P,). In expectation over sides swapped with that probability, it is the loss of the pairs in the right order."""
    return (-(1 - smoothing) * F.logsigmoid(margin) + smoothing * F.logsigmoid(-margin)) / (1 - 2 * smoothing)


def ipo(margin: torch.Tensor, beta: float) -> torch.Tensor:
    return ((margin - 0.5) / beta) ** 2


def simpo(margin: torch.Tensor, target: float) -> torch.Tensor:
    return -F.logsigmoid(margin - target)


@dataclass(frozen=True)
class PairLoss:
    beta: float = 0.1
    length_normalised: bool = False
    chosen_nll: float = 0.0
    contrast: Contrast = sigmoid

    def __call__(
        self, logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """(loss, sums) of logprobs (N,), for S = 2 P rows.

        `batch.segment` holds each row's `reference` log-probability and the pair's `share` of the step (1 / pairs).
        """
        sums = batch.sum_by_segment(logprobs)  # (S,)
        tokens = batch.segment["tokens"]  # (S,)
        log_ratio = sums - batch.segment["reference"]  # (S,) log pi / pi_ref of each row
        if self.length_normalised:
            log_ratio = log_ratio / tokens
        chosen, rejected = self.beta * log_ratio[0::2], self.beta * log_ratio[1::2]  # (P,) implicit rewards
        share = batch.segment["share"][0::2]  # (P,)
        loss = (share * self.contrast(chosen - rejected)).sum()
        if self.chosen_nll:
            loss = loss - self.chosen_nll * (batch.weights * logprobs).sum()
        with torch.no_grad():
            per_token = sums / tokens  # (S,)
            metrics = {
                "margin": chosen - rejected,
                "accuracy": (chosen > rejected).to(share.dtype),
                "chosen_reward": chosen,
                "rejected_reward": rejected,
                "chosen_logprob": per_token[0::2],
                "rejected_logprob": per_token[1::2],
                "chosen_log_ratio": per_token[0::2] - batch.segment["reference"][0::2] / tokens[0::2],
                "chosen_length": tokens[0::2],
                "rejected_length": tokens[1::2],
            }
            return loss, {name: float((share * value).sum()) for name, value in metrics.items()}


# loss = "…" of a recipe -> the contrast
CONTRASTS: dict[str, Callable[[Settings], Contrast]] = {
    "sigmoid": lambda settings: partial(sigmoid, smoothing=settings.label_smoothing),
    "robust": lambda settings: partial(robust, smoothing=settings.label_smoothing),
    "ipo": lambda settings: partial(ipo, beta=settings.beta),
    "simpo": lambda settings: partial(simpo, target=settings.target_margin),
}
PER_TOKEN = ("ipo", "simpo")  # on log-probabilities per token by default, as IPO's authors compute it


def make_loss(settings: Settings) -> PairLoss:
    per_token = settings.loss in PER_TOKEN if settings.length_normalised is None else settings.length_normalised
    return PairLoss(settings.beta, per_token, settings.chosen_nll, CONTRASTS[settings.loss](settings))


def pair_rows(
    prompt: list[int], chosen: list[int], rejected: list[int], reference: tuple[float, float] = (0.0, 0.0)
) -> list[Row]:
    """The two rows of a pair, with the reference's log-probabilities of both sides."""
    return [
        answer_row(prompt, ids, segment={"reference": value, "tokens": float(len(ids))})
        for ids, value in zip((chosen, rejected), reference, strict=True)
    ]


def with_reference(pairs: list[list[Row]], logprobs: list[float]) -> list[list[Row]]:
    """The pairs, with the reference's log-probabilities of all rows in turn."""
    values = iter(logprobs)
    return [[replace(row, segment=row.segment | {"reference": next(values)}) for row in pair] for pair in pairs]


def weighted(pairs: list[list[Row]]) -> list[list[Row]]:
    """The pairs of a step: pair mean for the preference term, token mean over the chosen side for the anchor."""
    share, weight = 1.0 / len(pairs), 1.0 / sum(chosen.scored for chosen, _ in pairs)
    return [
        [
            replace(chosen, weights=weight, segment=chosen.segment | {"share": share}),
            replace(rejected, weights=0.0, segment=rejected.segment | {"share": share}),
        ]
        for chosen, rejected in pairs
    ]
