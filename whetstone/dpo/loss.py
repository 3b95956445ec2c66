"""Losses on pairs of a right and a wrong answer. They differ in what they make of a pair's margin h.

h = beta · (gain of the chosen side - gain of the rejected side); a side's gain is log pi / pi_ref summed over its tokens,
or divided by their number where `length_normalised` (Tülu 3, arXiv 2411.15124, section 4.3).

sigmoid   -log σ(h)                                   Rafailov et al. 2023, arXiv 2305.18290, eq. 7
          -(1-ε) log σ(h) - ε log σ(-h)               with label smoothing ε: conservative DPO, Mitchell 2023
robust    (-(1-ε) log σ(h) + ε log σ(-h)) / (1-2ε)    Chowdhury et al. 2024, arXiv 2403.00409
ipo       (h/beta - 1/(2 beta))²                      Azar et al. 2023, arXiv 2310.12036, eq. 17
simpo     -log σ(h - γ)                               Meng et al. 2024, arXiv 2405.14734, eq. 6: no reference, a token's mean

`chosen_nll` adds the chosen side's cross-entropy a token to any of them (Iterative RPO, arXiv 2404.19733): it keeps the
chosen side from falling with the rejected one.

Rows come as chosen, rejected, chosen, rejected, … and a pair stays in one micro-batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from whetstone.batch import Batch, Row

if TYPE_CHECKING:
    from whetstone.dpo.rollout_dpo import Settings

Contrast = Callable[[torch.Tensor], torch.Tensor]  # (P,) margins -> (P,) losses


def sigmoid(margin: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """`smoothing` is the share of pairs whose sides are believed to be the wrong way round."""
    if not smoothing:
        return -F.logsigmoid(margin)
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def robust(margin: torch.Tensor, smoothing: float) -> torch.Tensor:
    """In expectation over sides swapped with that probability, the loss of the pairs as they should be."""
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
        """`batch.segment` holds each row's `reference` log-probability and the pair's `share` of the step (1 / pairs)."""
        sums = batch.sum_by_segment(logprobs)  # (S,)
        tokens = batch.segment["tokens"]
        gain = sums - batch.segment["reference"]  # log pi / pi_ref of each row
        if self.length_normalised:
            gain = gain / tokens
        chosen, rejected = self.beta * gain[0::2], self.beta * gain[1::2]  # implicit rewards
        share = batch.segment["share"][0::2]
        loss = (share * self.contrast(chosen - rejected)).sum()
        if self.chosen_nll:
            loss = loss - self.chosen_nll * (batch.weights * logprobs).sum()
        with torch.no_grad():
            a_token = sums / tokens
            seen = {
                "margin": chosen - rejected,
                "accuracy": (chosen > rejected).to(share.dtype),
                "chosen_reward": chosen,
                "rejected_reward": rejected,
                "chosen_logprob": a_token[0::2],
                "rejected_logprob": a_token[1::2],
                "chosen_gain": a_token[0::2] - batch.segment["reference"][0::2] / tokens[0::2],
                "chosen_length": tokens[0::2],
                "rejected_length": tokens[1::2],
            }
            return loss, {name: float((share * value).sum()) for name, value in seen.items()}


# loss = "…" of a recipe -> the contrast
CONTRASTS: dict[str, Callable[["Settings"], Contrast]] = {
    "sigmoid": lambda settings: partial(sigmoid, smoothing=settings.label_smoothing),
    "robust": lambda settings: partial(robust, smoothing=settings.label_smoothing),
    "ipo": lambda settings: partial(ipo, beta=settings.beta),
    "simpo": lambda settings: partial(simpo, target=settings.target_margin),
}
A_TOKEN = (
    "ipo",
    "simpo",
)  # on log-probabilities a token, unless the recipe says otherwise: so IPO's authors compute it


def make_loss(settings: "Settings") -> PairLoss:
    a_token = settings.loss in A_TOKEN if settings.length_normalised is None else settings.length_normalised
    return PairLoss(settings.beta, a_token, settings.chosen_nll, CONTRASTS[settings.loss](settings))


def pair_rows(prompt: list[int], chosen: list[int], rejected: list[int], reference: tuple[float, float]) -> list[Row]:
    """The two rows of a pair; shares and weights are filled for the step by `weigh`."""
    return [
        Row(
            [*prompt, *ids],
            prompt=len(prompt),
            segment={"reference": value, "share": 0.0, "tokens": float(len(ids))},
        )
        for ids, value in zip((chosen, rejected), reference, strict=True)
    ]


def weigh(pairs: list[list[Row]]) -> list[list[Row]]:
    """Pair mean for the preference term, token mean over the chosen side for the anchor."""
    chosen_tokens = sum(pair[0].scored for pair in pairs)
    for pair in pairs:
        for row in pair:
            row.segment["share"] = 1.0 / len(pairs)
        pair[0].weights, pair[1].weights = 1.0 / chosen_tokens, 0.0
    return pairs
