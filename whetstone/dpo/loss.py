"""DPO's loss on pairs (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), with two usual variants.

Rows come as chosen, rejected, chosen, rejected, … and a pair stays in one micro-batch. A sequence's log-probability is the
sum over its response tokens; `length_normalised` divides it by their number (Tülu 3, section 4.3). `chosen_nll` adds the
chosen side's cross-entropy a token (Iterative RPO, arXiv 2404.19733): it keeps the chosen side from falling with the
rejected one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from whetstone.batch import Batch, Row


@dataclass(frozen=True)
class DPOLoss:
    beta: float = 0.1
    length_normalised: bool = False
    chosen_nll: float = 0.0

    def __call__(
        self, logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """`batch.segment` holds each row's `reference` log-probability and the pair's `share` of the step (1 / pairs)."""
        sums = batch.sum_by_segment(logprobs)  # (S,)
        gain = sums - batch.segment["reference"]  # log pi / pi_ref of each row
        if self.length_normalised:
            gain = gain / batch.segment["tokens"]
        chosen, rejected = self.beta * gain[0::2], self.beta * gain[1::2]  # implicit rewards
        share = batch.segment["share"][0::2]
        loss = -(share * F.logsigmoid(chosen - rejected)).sum()
        if self.chosen_nll:
            loss = loss - self.chosen_nll * (batch.weights * logprobs).sum()
        with torch.no_grad():
            seen = {
                "margin": chosen - rejected,
                "accuracy": (chosen > rejected).to(share.dtype),
                "chosen_reward": chosen,
                "rejected_reward": rejected,
                "chosen_logprob": sums[0::2] / batch.segment["tokens"][0::2],
                "rejected_logprob": sums[1::2] / batch.segment["tokens"][1::2],
            }
            return loss, {name: float((share * value).sum()) for name, value in seen.items()}


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
