"""Each option against transformers' own processor; log-probabilities are those of the distribution that is drawn from."""

import math
from itertools import islice

import pytest
import torch
from transformers import generation

from tests.tiny_models import random_model, tiny
from whetstone.chat import ask
from whetstone.decode.engine import Engine
from whetstone.decode.sampling import draws, pick
from whetstone.records import Sampling

V = 50


def logits(rows: int = 40) -> torch.Tensor:
    return 3 * torch.randn(rows, V, generator=torch.Generator().manual_seed(0))


def stated(sampling: Sampling, row: torch.Tensor, occurring: torch.Tensor | None = None) -> torch.Tensor:
    """The distribution (V,) that `pick` draws from, found with many draws from [0, 1)."""
    numbers = (torch.arange(20_000) + 0.5) / 20_000
    many = None if occurring is None else occurring.expand(20_000, -1)
    tokens, logprobs = pick(row.expand(20_000, -1), numbers, sampling, many)
    distribution = torch.zeros(V)
    distribution[tokens] = logprobs.exp()
    shares = tokens.bincount(minlength=V) / 20_000
    assert (distribution - shares).abs().max() < 1e-4, "a token's log-probability is not how often it is drawn"
    return distribution


def agree(distribution: torch.Tensor, expected: torch.Tensor) -> None:
    drawn = distribution > 0
    torch.testing.assert_close(distribution[drawn], expected[drawn], atol=1e-5, rtol=1e-4)
    assert expected[~drawn].max() < 1e-4, "a token is never drawn, and should be"


OPTIONS = [
    (Sampling(temperature=0.7), [generation.TemperatureLogitsWarper(0.7)]),
    (Sampling(top_k=5), [generation.TopKLogitsWarper(5)]),
    (Sampling(top_p=0.8), [generation.TopPLogitsWarper(0.8)]),
    (Sampling(min_p=0.1), [generation.MinPLogitsWarper(0.1)]),
    (
        Sampling(temperature=1.4, top_k=20, top_p=0.9, min_p=0.05),
        [
            generation.TemperatureLogitsWarper(1.4),
            generation.TopKLogitsWarper(20),
            generation.TopPLogitsWarper(0.9),
            generation.MinPLogitsWarper(0.05),
        ],
    ),
]


@pytest.mark.parametrize(("sampling", "processors"), OPTIONS, ids=["temperature", "top-k", "top-p", "min-p", "all"])
def test_the_distribution_drawn_from_is_that_of_transformers(sampling, processors):
    for row in logits(10):
        expected = row[None]
        for processor in processors:
            expected = processor(torch.zeros(1, 1, dtype=torch.long), expected)
        agree(stated(sampling, row), expected.softmax(-1)[0])


def test_repetition_penalty_is_that_of_transformers_and_bias_comes_before_it():
    ids = torch.tensor([[3, 7, 7, 20]])
    occurring = torch.zeros(1, V, dtype=torch.bool)
    occurring[0, ids[0]] = True
    bias = ((7, 2.5), (11, -math.inf), (20, -1.0))
    added = torch.zeros(V)
    for token, amount in bias:
        added[token] = amount
    for row in logits(10):
        expected = generation.RepetitionPenaltyLogitsProcessor(1.3)(ids, (row + added)[None]).softmax(-1)[0]
        distribution = stated(Sampling(repetition_penalty=1.3, bias=bias), row, occurring)
        agree(distribution, expected)
        assert distribution[11] == 0


def test_greedy_takes_the_most_probable_token_that_is_allowed():
    rows = logits()
    tokens, logprobs = pick(rows, torch.zeros(40), Sampling(temperature=0))
    assert tokens.tolist() == rows.argmax(-1).tolist()
    torch.testing.assert_close(logprobs, rows.log_softmax(-1).amax(-1))
    best = int(tokens[0])
    (second, _), _ = pick(rows[:2], torch.zeros(2), Sampling(temperature=0, bias=((best, -math.inf),)))
    assert second == rows[0].topk(2).indices[1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-7])
def test_a_temperature_next_to_zero_takes_the_most_probable_token(temperature):
    rows = logits()
    for numbers in (torch.zeros(40), torch.full((40,), 0.999)):
        tokens, logprobs = pick(rows, numbers, Sampling(temperature))
        assert tokens.tolist() == rows.argmax(-1).tolist() and logprobs.abs().max() < 1e-6
    double, _ = pick(rows.double(), torch.zeros(40), Sampling(temperature))
    assert double.tolist() == rows.argmax(-1).tolist()


@pytest.mark.filterwarnings("error")
def test_a_temperature_without_end_makes_all_tokens_equal():
    _, logprobs = pick(logits(), torch.full((40,), 0.4), Sampling(1e300))
    torch.testing.assert_close(logprobs, torch.full((40,), -math.log(V)))


def test_more_top_tokens_than_there_are_are_all_of_them():
    assert pick(logits(), torch.full((40,), 0.4), Sampling(top_k=2**80))[0].tolist() == (
        pick(logits(), torch.full((40,), 0.4), Sampling())[0].tolist()
    )


def test_a_streams_numbers_are_uniform_and_go_on():
    """Kolmogorov-Smirnov over 20,000 numbers: 1.95 / sqrt(n) is the 0.1 % point."""
    numbers = torch.tensor(list(islice(draws(3, "p", 1), 20_000))).sort().values
    assert numbers.min() >= 0 and numbers.max() < 1
    assert (numbers - torch.linspace(0, 1, 20_000)).abs().max() < 1.95 / 20_000**0.5


def test_the_penalty_counts_prompt_and_completion_as_transformers_does(tmp_path):
    from whetstone import model as models

    _, tokenizer = tiny()
    model = random_model("llama", len(tokenizer))
    engine = Engine(model, tokenizer)
    question = "Compute 3 + 3 + 3."
    (done,) = engine.generate([ask("p", question, 0)], Sampling(0.0, 30, repetition_penalty=1.5))
    models.save(model, tokenizer, tmp_path)
    ids = torch.tensor([engine.chat.question_ids(question)])
    out = type(model).from_pretrained(tmp_path).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False, repetition_penalty=1.5,
        eos_token_id=list(engine.chat.stops), pad_token_id=0,
    )  # fmt: skip
    assert done.ids == out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    "option", [{"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"bias": ((1, 1.0),)}]
)
def test_only_the_models_own_distribution_is_plain(option):
    assert Sampling(0.7).plain and Sampling(1.0, stop=("x",)).plain
    assert not Sampling(**option).plain
    assert not Sampling(0.0).plain


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -1},
        {"max_tokens": 0},
        {"top_p": 0},
        {"min_p": 2},
        {"repetition_penalty": 1e-39},
        {"stop": ("",)},
    ],
)
def test_impossible_options_are_refused_by_name(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        Sampling(**option)
