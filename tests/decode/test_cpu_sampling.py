"""The choice of a token on a CPU, against sorted probabilities in float64."""

import numpy as np
import pytest
import torch

from whetstone.decode.cpu_kernels import array
from whetstone.decode.cpu_sampling import greedy, sample
from whetstone.decode.sampling import pick, truncate_logprobs
from whetstone.records import Sampling

PLAIN = 0, 1.0, np.float32(0)  # top-k, top-p, min-p


def numbers(rows: int, size: int, scale: float, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def near(ours: torch.Tensor, exact: torch.Tensor) -> None:
    torch.testing.assert_close(ours.double(), exact.double(), atol=3e-6, rtol=3e-6)


def kept(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """The distribution (B, V) that tokens are drawn from, by sorting in float64."""
    logprobs = (logits.double() / temperature).log_softmax(-1)
    return truncate_logprobs(logprobs, top_k, top_p, min_p)


@pytest.mark.parametrize(
    "limits", [(50, 1.0, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.02), (500, 0.95, 0.001), (40_000, 1.0, 0.0)]
)
@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_truncated_tokens_and_their_log_probabilities_are_those_of_a_full_sort(limits, scale):
    logits = numbers(12, 49_152, scale)
    draws = torch.linspace(0.001, 0.999, 12)
    sampling = Sampling(0.8, top_k=limits[0], top_p=limits[1], min_p=limits[2])
    tokens, logprobs = pick(logits, draws, sampling)
    expected = kept(logits, 0.8, *limits)
    torch.testing.assert_close(logprobs.double(), expected.gather(1, tokens[:, None])[:, 0], atol=2e-5, rtol=0)
    above = expected.exp().cumsum(-1)
    for row, (token, draw) in enumerate(zip(tokens.tolist(), draws.tolist(), strict=True)):
        assert above[row, token] > draw - 1e-4 and (token == 0 or above[row, token - 1] <= draw + 1e-4)


def test_of_equal_tokens_at_the_limit_the_first_stay_and_one_always_does():
    logits = torch.zeros(1, 100)
    numbers = (torch.arange(400) + 0.5) / 400
    tokens, logprobs = pick(logits.expand(400, -1), numbers, Sampling(top_k=4))
    assert tokens.unique().tolist() == [0, 1, 2, 3] and logprobs.exp().unique().item() == pytest.approx(0.25)
    tokens, logprobs = pick(logits.expand(400, -1), numbers, Sampling(top_p=1e-9))
    assert tokens.unique().tolist() == [0] and logprobs.abs().max() == 0


def test_a_draw_of_zero_takes_no_token_that_has_hardly_any_probability():
    logits = torch.zeros(1, 40)
    logits[0, :20] = -200.0
    (token,), _ = pick(logits, torch.zeros(1), Sampling())
    assert token == 20


@pytest.mark.parametrize("size", [3, 32, 300])
def test_a_token_is_sampled_by_its_draw_and_given_with_its_log_probability(size):
    logits = numbers(64, size, 3.0)
    for temperature in (0.3, 1.0, 1.7):
        p = (logits.double() / temperature).softmax(-1)
        draws = torch.rand(64, generator=torch.Generator().manual_seed(1))
        tokens, logprobs = torch.empty(64, dtype=torch.long), torch.empty(64)
        sample(array(logits), np.float32(temperature), *PLAIN, array(draws), array(tokens), array(logprobs))
        above = p.cumsum(-1)
        for row, (token, number) in enumerate(zip(tokens.tolist(), draws.tolist(), strict=True)):
            assert above[row, token] > number - 1e-6
            assert token == 0 or above[row, token - 1] <= number + 1e-6
        near(logprobs, p.log().gather(1, tokens[:, None])[:, 0])
    greedy(array(logits), array(tokens), array(logprobs))
    assert tokens.tolist() == logits.argmax(-1).tolist()
    near(logprobs, logits.double().log_softmax(-1).amax(-1))


def test_whatever_is_in_the_logits_a_token_of_the_vocabulary_is_sampled():
    """A model that diverged must fail elsewhere, not by an id without an embedding."""
    for value in (float("nan"), float("inf"), float("-inf"), 3e38):
        logits = torch.full((3, 70), value)
        logits[1, 5], logits[2] = 1.0, 0.0
        for number in (0.0, 0.5, 0.99999994):
            tokens, logprobs = torch.empty(3, dtype=torch.long), torch.empty(3)
            draws = array(torch.full((3,), number))
            for limits in (PLAIN, (5, 0.9, np.float32(0.1))):
                sample(array(logits), np.float32(1), *limits, draws, array(tokens), array(logprobs))
                assert tokens.min() >= 0 and tokens.max() < 70
            greedy(array(logits), array(tokens), array(logprobs))
            assert tokens.min() >= 0 and tokens.max() < 70
