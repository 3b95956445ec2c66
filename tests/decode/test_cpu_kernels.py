"""Each kernel against float64, and against itself for arrays at different addresses."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from whetstone.decode import cpu_attention, cpu_kernels, paired_kernels
from whetstone.decode import cpu_kernels as kernels
from whetstone.decode.cpu_kernels import BLOCK, array
from whetstone.run.cpu import has_bf16_vectors

BF16 = pytest.mark.skipif(not has_bf16_vectors(), reason="needs a CPU with AVX512-BF16")
TYPES = [torch.float32, torch.bfloat16]
ATOL = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


def numbers(*shape, dtype=torch.float32, scale=1.0):
    torch.manual_seed(sum(shape))
    return (scale * torch.randn(*shape)).to(dtype)


def near(result, expected):
    torch.testing.assert_close(result.double(), expected, atol=ATOL[result.dtype], rtol=ATOL[result.dtype])


@pytest.mark.parametrize("dtype", TYPES)
def test_norms_and_gate_are_torchs_in_float64(dtype):
    x, delta = numbers(5, 48), numbers(5, 48, dtype=dtype)
    weight = numbers(48, dtype=dtype)
    out = torch.empty(5, 48, dtype=dtype)
    kernels.norm(array(x), None, array(weight), np.float32(1e-5), array(out))
    near(out, torch.rms_norm(x.double(), (48,), weight.double(), 1e-5))
    total = x.double() + delta.double()
    kernels.norm(array(x), array(delta), array(weight), np.float32(1e-5), array(out))
    near(x, total)
    near(out, torch.rms_norm(total, (48,), weight.double(), 1e-5))
    gates = numbers(5, 2 * 37, dtype=dtype, scale=20.0)
    gates[0, :6] = torch.tensor([-1e4, -100.0, -87.5, 0.0, 88.0, 1e4]).to(dtype)
    out = torch.empty(5, 37, dtype=dtype)
    kernels.gate(array(gates), array(out))
    near(out, F.silu(gates.double()[:, :37]) * gates.double()[:, 37:])
    assert (out[0, :3].abs() < 1e-30).all(), "a closed gate gives 0"


@pytest.mark.parametrize("dtype", TYPES)
def test_heads_are_rotated_by_their_own_position_and_the_rest_of_each_is_copied(dtype):
    size, half, heads = 16, 6, 3
    qkv, positions = numbers(4, (heads + 1) * size, dtype=dtype), torch.tensor([3, 0, 9, 3])
    angle = torch.arange(10)[:, None] * (0.3 ** torch.arange(half))[None]
    out = torch.empty(4, heads, size, dtype=dtype)
    kernels.rotary(array(qkv), size, array(angle.cos()), array(angle.sin()), array(positions), array(out))
    x = qkv[:, : heads * size].double().unflatten(1, (heads, size))
    cos, sin = angle.double().cos()[positions][:, None], angle.double().sin()[positions][:, None]
    a, b = x[..., :half], x[..., half : 2 * half]
    near(out, torch.cat([a * cos - b * sin, b * cos + a * sin, x[..., 2 * half :]], -1))


@pytest.mark.parametrize(
    ("dtype", "kernels"),
    [(dtype, cpu_kernels) for dtype in TYPES] + [pytest.param(torch.bfloat16, paired_kernels, marks=BF16)],
)
@pytest.mark.parametrize(("kv_heads", "group", "size"), [(1, 1, 16), (2, 3, 32), (3, 1, 80), (1, 6, 64)])
@pytest.mark.parametrize("window", [1 << 40, 7, 32, 45])
def test_attention_over_blocks_is_that_over_the_sequence(dtype, kernels, kv_heads, group, size, window):
    """Sequences that end at the first, a middle and the last token of a block, their blocks anywhere."""
    positions = np.array([0, 31, 32, 100, 63, 77])
    counts = positions // BLOCK + 1
    heads = kv_heads * group
    key_shape, value_shape = (size, BLOCK), (BLOCK, size)
    if kernels is paired_kernels:
        key_shape, value_shape = paired_kernels.key_shape(size), paired_kernels.value_shape(size)
    keys = torch.full((30, kv_heads, *key_shape), float("nan"), dtype=dtype)
    values = torch.full((30, kv_heads, *value_shape), float("nan"), dtype=dtype)
    tables = np.random.default_rng(0).permutation(30)[: counts.sum()]
    starts = counts.cumsum() - counts
    query = numbers(len(positions), heads + kv_heads, size, dtype=dtype, scale=2.0)
    expected = []
    for i, end in enumerate(positions + 1):
        qkv = numbers(end, (1 + kv_heads) * size + kv_heads * size, dtype=dtype)
        key = qkv[:, : (1 + kv_heads) * size].unflatten(1, (1 + kv_heads, size))  # one query head before the keys
        place = np.arange(end)
        blocks, offsets = tables[starts[i] + place // BLOCK], place % BLOCK
        column = (1 + kv_heads) * size
        kernels.store_kv(array(key.contiguous()), array(qkv), column, blocks, offsets, array(keys), array(values))
        first = max(0, end - window)
        key = key[first:, 1:].double().repeat_interleave(group, 1)  # (tokens, H, D)
        value = qkv[first:, column:].double().unflatten(1, (kv_heads, size)).repeat_interleave(group, 1)
        weights = (torch.einsum("hd,thd->ht", query[i, :heads].double(), key) * 0.2).softmax(-1)
        expected.append(torch.einsum("ht,thd->hd", weights, value))
    out = torch.empty(len(positions), heads, size, dtype=dtype)
    scores = np.full((heads, counts.max() * BLOCK), np.nan, np.float32)
    kernels.attend(
        array(query), array(keys), array(values), tables, starts, positions, window, np.float32(0.2), scores, array(out)
    )
    near(out, torch.stack(expected))


@BF16
@pytest.mark.parametrize(("kv_heads", "group", "size"), [(1, 1, 16), (2, 3, 32), (1, 6, 64)])
@pytest.mark.parametrize("window", [1 << 40, 7, 45])
def test_prompts_attend_to_themselves_and_to_what_is_cached_of_them(kv_heads, group, size, window):
    """Of sequences of 60, 1 and 103 tokens the last 60, 1 and 37 are run; what memory held before is no number."""
    ends, counts = np.array([60, 1, 103]), np.array([60, 1, 37])
    blocks, heads = -(-ends // BLOCK), kv_heads * group
    keys = torch.full((20, kv_heads, *paired_kernels.key_shape(size)), float("nan"), dtype=torch.bfloat16)
    values = torch.full((20, kv_heads, *paired_kernels.value_shape(size)), float("nan"), dtype=torch.bfloat16)
    tables = np.random.default_rng(0).permutation(20)[: blocks.sum()]
    starts = blocks.cumsum() - blocks
    asked, expected = [], []
    for s, end in enumerate(ends):
        rows = numbers(end, heads + 2 * kv_heads, size, dtype=torch.bfloat16)
        place = np.arange(end)
        where = tables[starts[s] + place // BLOCK], place % BLOCK
        flat = array(rows.flatten(1))
        key = array(rows[:, : heads + kv_heads].contiguous())
        paired_kernels.store_kv(key, flat, (heads + kv_heads) * size, *where, array(keys), array(values))
        query, key, value = rows.double().split([heads, kv_heads, kv_heads], 1)
        distance = torch.arange(end)[:, None] - torch.arange(end)
        scores = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(group, 1)) * 0.2
        weights = scores.masked_fill((distance < 0) | (distance >= window), -float("inf")).softmax(-1)
        out = torch.einsum("hqk,khd->qhd", weights, value.repeat_interleave(group, 1))
        asked.append(rows[-counts[s] :])
        expected.append(out[-counts[s] :])
    out = torch.empty(counts.sum(), heads * size, dtype=torch.bfloat16)
    cpu_attention.attend_prompts(
        array(torch.cat(asked).flatten(1)), array(keys), array(values), tables, starts, ends - counts, counts,
        window, np.float32(0.2), heads, size, array(out),
    )  # fmt: skip
    near(out, torch.cat(expected).flatten(1))


def test_the_exponential_is_exact_to_two_units_in_the_last_place():
    @kernels.compiled
    def exponentials(x, out):
        for i in range(len(x)):
            out[i] = kernels.exp(x[i])

    x = np.linspace(-87, 87, 400_001).astype(np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    expected = np.exp(x.astype(np.float64))
    assert (np.abs(out - expected) / np.spacing(expected.astype(np.float32))).max() < 2


def placed(values: torch.Tensor, memory: np.ndarray, offset: int) -> np.ndarray:
    """A copy of the values in `memory`, `offset` bytes after the start of a cache line."""
    begin = -memory.ctypes.data % 64 + offset
    copy = memory[begin : begin + values.nbytes].view(array(values).dtype).reshape(values.shape)
    copy[...] = array(values)
    return copy


@pytest.mark.parametrize("dtype", TYPES)
def test_results_do_not_depend_on_the_addresses_of_arrays(dtype):
    """Side by side or far apart, on a cache line or off it: the compiler makes more than one version of a loop."""
    gate_up, x, delta, weight = numbers(9, 96, dtype=dtype), numbers(9, 48), numbers(9, 48, dtype=dtype), numbers(48)
    weight = weight.to(dtype)
    results = set()
    memory = np.empty(1 << 16, np.uint8)
    for offset, gap in itertools.product((0, 4, 16, 32), (0, 4, 64, 4096)):
        own = placed(gate_up, memory, offset)
        gated = placed(delta, memory, offset + gate_up.nbytes + gap)
        kernels.gate(own, gated)
        gate = gated.tobytes()
        total = placed(x, memory, offset)
        added = placed(delta, memory, offset + x.nbytes + gap)
        out = placed(delta, memory, offset + x.nbytes + 2 * gap + delta.nbytes)
        kernels.norm(total, added, array(weight), np.float32(1e-6), out)
        norm = total.tobytes() + out.tobytes()
        kernels.norm(total, None, array(weight), np.float32(1e-6), out)
        results.add((gate, norm, out.tobytes()))
    assert len(results) == 1
