"""Each kernel against float64, and against itself wherever its arrays lie."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from whetstone.decode import cpu_kernels as kernels
from whetstone.decode.cpu_kernels import BLOCK, array

TYPES = [torch.float32, torch.bfloat16]
ATOL = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


def numbers(*shape, dtype=torch.float32, scale=1.0):
    torch.manual_seed(sum(shape))
    return (scale * torch.randn(*shape)).to(dtype)


def near(found, expected):
    torch.testing.assert_close(found.double(), expected, atol=ATOL[found.dtype], rtol=ATOL[found.dtype])


@pytest.mark.parametrize("dtype", TYPES)
def test_norms_and_gate_are_torchs_in_float64(dtype):
    x, more = numbers(5, 48), numbers(5, 48, dtype=dtype)
    weight = numbers(48, dtype=dtype)
    out = torch.empty(5, 48, dtype=dtype)
    kernels.norm(array(x), array(weight), np.float32(1e-5), array(out))
    near(out, torch.rms_norm(x.double(), (48,), weight.double(), 1e-5))
    both = x.double() + more.double()
    kernels.add_and_norm(array(x), array(more), array(weight), np.float32(1e-5), array(out))
    near(x, both)
    near(out, torch.rms_norm(both, (48,), weight.double(), 1e-5))
    gates = numbers(5, 2 * 37, dtype=dtype, scale=20.0)
    gates[0, :6] = torch.tensor([-1e4, -100.0, -87.5, 0.0, 88.0, 1e4]).to(dtype)
    out = torch.empty(5, 37, dtype=dtype)
    kernels.gate(array(gates), array(out))
    near(out, F.silu(gates.double()[:, :37]) * gates.double()[:, 37:])
    assert (out[0, :3].abs() < 1e-30).all(), "a gate that is shut lets nothing through"


@pytest.mark.parametrize("dtype", TYPES)
def test_heads_are_turned_by_their_own_position_and_the_rest_of_each_passes_through(dtype):
    size, half, heads = 16, 6, 3
    joint, positions = numbers(4, (heads + 1) * size, dtype=dtype), torch.tensor([3, 0, 9, 3])
    angle = torch.arange(10)[:, None] * (0.3 ** torch.arange(half))[None]
    out = torch.empty(4, heads, size, dtype=dtype)
    kernels.turn(array(joint), size, array(angle.cos()), array(angle.sin()), array(positions), array(out))
    x = joint[:, : heads * size].double().unflatten(1, (heads, size))
    cos, sin = angle.double().cos()[positions][:, None], angle.double().sin()[positions][:, None]
    a, b = x[..., :half], x[..., half : 2 * half]
    near(out, torch.cat([a * cos - b * sin, b * cos + a * sin, x[..., 2 * half :]], -1))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("kinds", "shared", "size"), [(1, 1, 16), (2, 3, 32), (3, 1, 80)])
@pytest.mark.parametrize("window", [1 << 40, 7, 32, 45])
def test_attention_over_blocks_is_that_over_the_sequence(dtype, kinds, shared, size, window):
    """Sequences that end at the first, a middle and the last place of a block, their blocks anywhere."""
    at = np.array([0, 31, 32, 100, 63, 77])
    counts = at // BLOCK + 1
    heads = kinds * shared
    keys = torch.full((30, kinds, size, BLOCK), float("nan"), dtype=dtype)
    values = torch.full((30, kinds, BLOCK, size), float("nan"), dtype=dtype)
    tables = np.random.default_rng(0).permutation(30)[: counts.sum()]
    starts = counts.cumsum() - counts
    query = numbers(len(at), heads + kinds, size, dtype=dtype, scale=2.0)
    expected = []
    for i, end in enumerate(at + 1):
        joint = numbers(end, (1 + kinds) * size + kinds * size, dtype=dtype)
        key = joint[:, : (1 + kinds) * size].unflatten(1, (1 + kinds, size))  # one query head before the keys
        place = np.arange(end)
        blocks, offsets = tables[starts[i] + place // BLOCK], place % BLOCK
        kernels.store(
            array(key.contiguous()), array(joint), (1 + kinds) * size, blocks, offsets, array(keys), array(values)
        )
        first = max(0, end - window)
        own = key[first:, 1:].double().repeat_interleave(shared, 1)  # (tokens, H, D)
        worth = joint[first:, (1 + kinds) * size :].double().unflatten(1, (kinds, size)).repeat_interleave(shared, 1)
        weights = (torch.einsum("hd,thd->ht", query[i, :heads].double(), own) * 0.2).softmax(-1)
        expected.append(torch.einsum("ht,thd->hd", weights, worth))
    keys, values = keys.nan_to_num(1e9), values.nan_to_num(1e9)  # what a former owner left
    out = torch.empty(len(at), heads, size, dtype=dtype)
    scores = np.full((heads, counts.max() * BLOCK), np.nan, np.float32)
    kernels.attend(
        array(query), array(keys), array(values), tables, starts, at, window, np.float32(0.2), scores, array(out)
    )
    near(out, torch.stack(expected))


@pytest.mark.parametrize("size", [3, 32, 300])
def test_a_token_is_drawn_by_its_number_and_told_with_its_log_probability(size):
    logits = numbers(64, size, scale=3.0)
    for temperature in (0.3, 1.0, 1.7):
        p = (logits.double() / temperature).softmax(-1)
        draws = torch.rand(64, generator=torch.Generator().manual_seed(1))
        tokens, logprobs = torch.empty(64, dtype=torch.long), torch.empty(64)
        kernels.draw(array(logits), np.float32(temperature), array(draws), array(tokens), array(logprobs))
        above = p.cumsum(-1)
        for row, (token, number) in enumerate(zip(tokens.tolist(), draws.tolist(), strict=True)):
            assert above[row, token] > number - 1e-6
            assert token == 0 or above[row, token - 1] <= number + 1e-6
        near(logprobs, p.log().gather(1, tokens[:, None])[:, 0])
    kernels.likeliest(array(logits), array(tokens), array(logprobs))
    assert tokens.tolist() == logits.argmax(-1).tolist()
    near(logprobs, logits.double().log_softmax(-1).amax(-1))


def test_whatever_is_in_the_logits_a_token_of_the_vocabulary_is_drawn():
    """A model that blew up must give an error elsewhere, not an id that no embedding has."""
    for value in (float("nan"), float("inf"), float("-inf"), 3e38):
        logits = torch.full((3, 70), value)
        logits[1, 5], logits[2] = 1.0, 0.0
        for number in (0.0, 0.5, 0.99999994):
            tokens, logprobs = torch.empty(3, dtype=torch.long), torch.empty(3)
            kernels.draw(array(logits), np.float32(1), array(torch.full((3,), number)), array(tokens), array(logprobs))
            assert tokens.min() >= 0 and tokens.max() < 70
            kernels.likeliest(array(logits), array(tokens), array(logprobs))
            assert tokens.min() >= 0 and tokens.max() < 70


def test_the_exponential_is_exact_to_two_units_in_the_last_place():
    @kernels.compiled
    def exponentials(x, out):
        for i in range(len(x)):
            out[i] = kernels._exp(x[i])

    x = np.linspace(-87, 87, 400_001).astype(np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    expected = np.exp(x.astype(np.float64))
    assert (np.abs(out - expected) / np.spacing(expected.astype(np.float32))).max() < 2


def lying(values: torch.Tensor, memory: np.ndarray, offset: int) -> np.ndarray:
    """A copy of the values in `memory`, `offset` bytes behind the start of a cache line."""
    begin = -memory.ctypes.data % 64 + offset
    found = memory[begin : begin + values.nbytes].view(array(values).dtype).reshape(values.shape)
    found[...] = array(values)
    return found


@pytest.mark.parametrize("dtype", TYPES)
def test_results_do_not_depend_on_where_arrays_lie(dtype):
    """Side by side or far apart, on a cache line or off it: the compiler has more than one version of a loop."""
    both, x, more, weight = numbers(9, 96, dtype=dtype), numbers(9, 48), numbers(9, 48, dtype=dtype), numbers(48)
    weight = weight.to(dtype)
    found = set()
    memory = np.empty(1 << 16, np.uint8)
    for offset, gap in itertools.product((0, 4, 16, 32), (0, 4, 64, 4096)):
        own = lying(both, memory, offset)
        gated = lying(more, memory, offset + both.nbytes + gap)
        kernels.gate(own, gated)
        gate = gated.tobytes()
        total = lying(x, memory, offset)
        added = lying(more, memory, offset + x.nbytes + gap)
        out = lying(more, memory, offset + x.nbytes + 2 * gap + more.nbytes)
        kernels.add_and_norm(total, added, array(weight), np.float32(1e-6), out)
        norm = total.tobytes() + out.tobytes()
        kernels.norm(total, array(weight), np.float32(1e-6), out)
        found.add((gate, norm, out.tobytes()))
    assert len(found) == 1
