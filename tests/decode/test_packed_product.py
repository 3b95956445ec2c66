"""Products with packed weights against torch's in float64; a row's result does not depend on the rows beside it."""

import pytest
import torch
import torch.nn.functional as F

from tests.tiny_models import random_model, tiny
from whetstone.chat import ask
from whetstone.decode import fused_forward, packed_product
from whetstone.decode.engine import Engine
from whetstone.decode.packed_product import FEW, GROUP, PackedProduct, quantised
from whetstone.records import Sampling
from whetstone.run.cpu import has_bf16_vectors


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


BF16 = pytest.mark.skipif(not has_bf16_vectors(), reason="needs a CPU with AVX512-BF16")
LINEARS = [(numbers(37, 70, seed=1), numbers(37, seed=2)), (numbers(64, 70, seed=3), None)]


@BF16
@pytest.mark.parametrize("inputs", [70, 71])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 11, 64, FEW + 1])
def test_rows_and_weights_of_bf16_are_multiplied_as_in_float64_whatever_rows_are_beside_them(rows, inputs):
    x, weight, bias = (
        numbers(rows, inputs).bfloat16(),
        numbers(37, inputs, seed=1).bfloat16(),
        numbers(37, seed=2).bfloat16(),
    )
    ours = PackedProduct([(weight, bias)])(x)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(
        ours.double(), F.linear(x.double(), weight.double(), bias.double()), atol=2e-5, rtol=2e-5
    )
    assert torch.equal(PackedProduct([(weight, bias)])(x[-1:]), ours[-1:])


@pytest.mark.parametrize("width", [3, 16, 37, 64, 100])
def test_padding_is_never_left_in_a_row(width):
    weight, x = numbers(width, 8), numbers(9, 8, seed=1)
    torch.testing.assert_close(PackedProduct([(weight, None)])(x), x @ weight.T)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 6, 7, 11, FEW, FEW + 1])
def test_any_number_of_rows_is_multiplied_as_in_float64(rows, int8):
    x = numbers(rows, 70)
    expected = []
    for weight, bias in LINEARS:
        if int8:
            integers, scales = quantised(weight)
            assert integers.abs().max() == 127 and integers.dtype == torch.int8
            scales = scales.repeat_interleave(GROUP, 1)[:, :70]
            assert ((integers * scales - weight).abs() <= scales * 0.5001).all()
            weight = integers.double() * scales.double()
        expected.append(F.linear(x.double(), weight.double(), None if bias is None else bias.double()))
    ours = PackedProduct(LINEARS, int8)(x)
    torch.testing.assert_close(ours.double(), torch.cat(expected, -1), atol=2e-5, rtol=2e-5)


def test_a_rows_product_is_the_same_to_the_bit_whatever_rows_are_beside_it():
    product = PackedProduct(LINEARS)
    x = numbers(FEW, 70)
    whole = product(x)
    for count in (1, 2, 5, 9, 64):
        assert torch.equal(product(x[-count:].contiguous()), whole[-count:])


def test_threads_divide_a_product_and_change_no_bit(monkeypatch):
    monkeypatch.setattr(packed_product, "SHARE", 1)
    x, threads = numbers(9, 70), torch.get_num_threads()
    product = PackedProduct(LINEARS)
    for rows in (1, 9):
        alone = product(x[:rows])
        torch.set_num_threads(3)
        try:
            assert torch.equal(product(x[:rows]), alone)
        finally:
            torch.set_num_threads(threads)


def test_a_row_of_zero_weights_stays_zero_in_eight_bits():
    assert torch.equal(PackedProduct([(torch.zeros(3, 4), None)], True)(torch.ones(2, 4)), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3"])
def test_a_larger_model_samples_from_packed_weights_what_the_modules_give(kind, monkeypatch):
    _, tokenizer = tiny()
    model = random_model(kind, len(tokenizer))
    asked = [ask(f"p{i}", f"Compute {i} + 3.", g) for i in range(3) for g in range(2)]
    sampling = Sampling(max_tokens=20, seed=1)
    expected = {(c.problem_id, c.index): c for c in Engine(model, tokenizer).generate(asked, sampling)}
    monkeypatch.setattr(fused_forward, "TRANSPOSED_BYTES", 0)
    ours = {(c.problem_id, c.index): c for c in Engine(model, tokenizer).generate(asked, sampling)}
    assert {key: c.ids for key, c in ours.items()} == {key: c.ids for key, c in expected.items()}
    for key, completion in ours.items():
        torch.testing.assert_close(completion.logprobs, expected[key].logprobs, atol=1e-4, rtol=1e-4)


def test_eight_bits_change_log_probabilities_a_little_and_no_copy_outlives_decoding():
    _, tokenizer = tiny()
    model = random_model("llama", len(tokenizer))
    asked, sampling = [ask("p", "Compute 1 + 2.", 0)], Sampling(max_tokens=30, seed=1)
    engine = Engine(model, tokenizer, int8=True)
    (ours,), (exact,) = engine.generate(asked, sampling), Engine(model, tokenizer).generate(asked, sampling)
    gap = abs(ours.logprobs[0] - exact.logprobs[0])
    assert 0 < gap < 0.1
    assert engine.runner._fused is None and engine.runner._head is None


def test_eight_bits_are_refused_where_they_are_not_computed():
    _, tokenizer = tiny()
    with pytest.raises(ValueError, match="in fp32 on a CPU, and this is a LlamaForCausalLM"):
        Engine(random_model("llama", len(tokenizer)).bfloat16(), tokenizer, int8=True)


@BF16
def test_a_model_whose_numbers_make_no_pairs_decodes_in_bf16():
    _, tokenizer = tiny()
    whole = random_model("llama", len(tokenizer), intermediate_size=97)
    exact = random_model("llama", len(tokenizer), torch.bfloat16, intermediate_size=97)
    whole.load_state_dict(exact.state_dict())
    asked, greedy = [ask("p", "Compute 1 + 2.", 0)], Sampling(max_tokens=8, temperature=0.0)
    (ours,), (wanted,) = (list(Engine(model, tokenizer).generate(asked, greedy)) for model in (exact, whole))
    assert ours.ids == wanted.ids and ours.logprobs == pytest.approx(wanted.logprobs, abs=0.05)
