"""The operations of a decoding step on a GPU beside the matrix products, in Triton, which comes with torch's CUDA builds.

The same as in cpu_kernels.py, without sampling. If there are too few sequences to fill the device, the tokens of each are
divided among several programs, and the parts are joined by the logarithms of their sums (flash decoding, Dao et al. 2023).
The attention's products are computed in the tensors' type; sums, and the residual stream, in fp32.

Letters: B rows, T tokens, H query heads, K key/value heads, D head size, C hidden size, I inner size of the MLP, N blocks of
the cache, M blocks of the longest sequence, R rotated dimensions.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from whetstone.decode.cpu_kernels import BLOCK
from whetstone.decode.fused_forward import Angles, TorchOps
from whetstone.decode.paged_attention import NO_WINDOW, QKV, DeviceDecodes

TILE = 64  # tokens of a sequence that a program reads at once; half of them if a head has more bytes than
TILE_BYTES = 256  # this per token: two stages of keys and values must fit the shared memory of small GPUs
ROWS = 16  # least rows of a tensor core's product: the query heads of a key/value head are padded to it
WAVES = 4  # programs per multiprocessor that are wanted
GATES = 1024  # elements of a gate per program
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def wrong(device: torch.device, dtype: torch.dtype, kv_heads: int, group: int, size: int) -> str:
    """Try each kernel on a few numbers, for heads of this size and `group` query heads per key/value head. Returns what is
    wrong, or "" if nothing is.

    The expected values are torch's in float64, as its products in fp32 may be less precise than the kernels'.
    """
    if dtype not in TYPES:
        return f"nothing for {dtype}"
    generator = torch.Generator(device).manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    checks = _check_rows(numbers, (group + 1) * kv_heads, size) | _check_cache(numbers, kv_heads, group, size)
    bound = 0.05 if dtype.itemsize < 4 else 1e-3
    for name, (result, expected) in checks.items():
        if not (result.double() - expected.double()).abs().max() <= bound:
            return f"{name} is not what torch computes"
    return ""


Numbers = Callable[..., torch.Tensor]  # normally distributed, of a shape
Checks = dict[str, tuple[torch.Tensor, torch.Tensor]]  # name -> result, expected


def _check_rows(numbers: Numbers, heads: int, size: int) -> Checks:
    """Norm, gate and rotary embedding of three rows."""
    x, weight, delta = numbers(3, 3 * size).float(), numbers(3 * size), numbers(3, 3 * size)
    gate_up, qkv, angle = numbers(3, 2 * size), numbers(3, heads * size), numbers(3, max(1, size // 4)).float()
    total, torch_ops = x + delta, TorchOps([(weight.double(), 1e-5)])
    rotated = rotary(qkv, heads, size, angle.cos(), angle.sin())
    angles = Angles(angle.double().cos(), angle.double().sin(), None)
    return {
        "norm": (norm(x, weight, 1e-5, delta), torch_ops.norm(total.double(), 0)),
        "sum": (x, total),  # after the norm, which adds in place
        "gate": (gate(gate_up), torch_ops.gate(gate_up.double())),
        "rotary": (rotated, torch_ops.rotary(qkv.double(), heads, size, angles)),
    }


def _check_cache(numbers: Numbers, kv_heads: int, group: int, size: int) -> Checks:
    """Writing to the cache, and the attention of three sequences: of one token, of a whole block, of several blocks."""
    lengths = torch.tensor([1, BLOCK, 3 * BLOCK + 5])
    query_key, source = numbers(3, (group + 1) * kv_heads, size), numbers(3, size + kv_heads * size)
    heads = QKV(query_key, source, size, kv_heads)
    keys, values = numbers(12, kv_heads, BLOCK, size), numbers(12, kv_heads, BLOCK, size)
    lengths, table = lengths.to(keys.device), torch.arange(12, device=keys.device).flip(0).view(3, 4)
    block, offset = table.gather(1, (lengths - 1)[:, None] // BLOCK)[:, 0], (lengths - 1) % BLOCK
    store_kv(query_key, source, size, block, offset, keys, values)
    checks = {
        "stored keys": (keys[block, :, offset], heads.key),
        "stored values": (values[block, :, offset], heads.value),
    }
    wide = QKV(query_key.double(), source, size, kv_heads), keys.double(), values.double()
    expected = DeviceDecodes(table, lengths, None, 1).attend(*wide, 0.2, NO_WINDOW)
    for parts in (1, 2):
        result = attend(query_key, keys, values, table, lengths, 0.2, NO_WINDOW, parts)
        checks[f"attention in {parts}"] = result, expected
    return checks


# --- attention


@triton.jit
def _attend(
    query, keys, values, table, lengths, out, logs, scaling, window,
    query_row, table_row, block_step, head_step,
    GROUP: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Part `s` of the attention of the GROUP query heads of key/value head `k` in sequence `i`, and the log of its sum."""
    i, k, s = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    end = tl.load(lengths + i).to(tl.int32)
    first = tl.maximum(end - window, 0).to(tl.int32)
    before = first // TILE
    each = tl.cdiv(tl.cdiv(end, TILE) - before, PARTS)
    begin = (before + s * each) * TILE
    stop = tl.minimum(begin + each * TILE, end)
    row, dim = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    own = (row < GROUP)[:, None] & (dim < SIZE)[None, :]
    heads = k * GROUP + row
    q = tl.load(query + i * query_row + heads[:, None] * SIZE + dim[None, :], mask=own, other=0.0)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, WIDTH], tl.float32)
    for token in range(begin, stop, TILE):
        place = token + tl.arange(0, TILE)
        visible = (place >= first) & (place < end)  # at least one in each tile
        block = tl.load(table + i * table_row + place // BLOCK, mask=place < end, other=0).to(tl.int64)
        at = block * block_step + k * head_step + (place % BLOCK) * SIZE
        inside = visible[:, None] & (dim < SIZE)[None, :]
        key = tl.load(keys + at[:, None] + dim[None, :], mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scaling
        scores = tl.where(visible[None, :], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(top - higher)
        value = tl.load(values + at[:, None] + dim[None, :], mask=inside, other=0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        top = higher
    sums = sums / tl.where(total > 0, total, 1.0)[:, None]
    place = (i * PARTS + s) * HEADS + heads
    tl.store(out + place[:, None] * SIZE + dim[None, :], sums.to(out.dtype.element_ty), mask=own)
    if PARTS > 1:
        log = tl.where(total > 0, top + tl.log(tl.where(total > 0, total, 1.0)), -float("inf"))
        tl.store(logs + place, log, mask=row < GROUP)


@triton.jit
def _join(
    parts, logs, out, SIZE: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, PARTS: tl.constexpr,
    COUNT: tl.constexpr,
):  # fmt: skip
    """Join the parts of a row and head, each weighted by the sum of its exponentials."""
    i, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    s, dim = tl.arange(0, COUNT), tl.arange(0, WIDTH)
    place = (i * PARTS + s) * HEADS + h
    log = tl.load(logs + place, mask=s < PARTS, other=-float("inf"))
    weights = tl.exp(log - tl.max(log, 0))
    weights = weights / tl.sum(weights, 0)
    inside = (s < PARTS)[:, None] & (dim < SIZE)[None, :]
    part = tl.load(parts + place[:, None] * SIZE + dim[None, :], mask=inside, other=0.0)
    joined = tl.sum(part * weights[:, None], 0)
    tl.store(out + (i * HEADS + h) * SIZE + dim, joined.to(out.dtype.element_ty), mask=dim < SIZE)


def attend(
    query_key: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor,
    scaling: float, window: int, parts: int,
) -> torch.Tensor:  # fmt: skip
    """Paged attention of one token of each of B sequences, each divided into `parts`: (B, H, D).

    query_key (B, H + K, D); keys and values (N, K, BLOCK, D) of one layer, with the new ones; table (B, M) of each sequence's
    blocks; lengths (B,) of the sequences.
    """
    n, kv_heads, size = len(lengths), keys.shape[1], keys.shape[3]
    heads = query_key.shape[1] - kv_heads
    group = heads // kv_heads
    out = query_key.new_empty(n, heads, size)
    pieces = query_key.new_empty(n, parts, heads, size, dtype=torch.float32) if parts > 1 else out
    logs = query_key.new_empty(n, parts, heads, dtype=torch.float32)
    _attend[(n, kv_heads, parts)](
        query_key, keys, values, table, lengths, pieces, logs, scaling, min(window, 1 << 30),
        query_key.stride(0), table.stride(0), keys.stride(0), keys.stride(1),
        GROUP=group, SIZE=size, WIDTH=max(16, triton.next_power_of_2(size)), HEADS=heads, BLOCK=BLOCK,
        TILE=TILE if size * keys.itemsize <= TILE_BYTES else TILE // 2, ROWS=max(ROWS, triton.next_power_of_2(group)),
        PARTS=parts, num_stages=2,
    )  # fmt: skip
    if parts > 1:
        width = triton.next_power_of_2(size)
        _join[(n, heads)](
            pieces, logs, out, SIZE=size, WIDTH=width, HEADS=heads, PARTS=parts, COUNT=triton.next_power_of_2(parts)
        )
    return out


def parts_for(rows: int, kv_heads: int, longest: int, multiprocessors: int) -> int:
    """How many parts a sequence of up to `longest` tokens is divided into: enough to fill the device, none too short."""
    return max(1, min(WAVES * multiprocessors // (rows * kv_heads), longest // (2 * TILE), 64))


# --- writing to the cache


@triton.jit
def _store_kv(
    query_key, source, blocks, offsets, keys, values, value_column, query_row, source_row, block_step, head_step,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Key and value of token `t` and key/value head `k`."""
    t, k = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, WIDTH)
    block, offset = tl.load(blocks + t).to(tl.int64), tl.load(offsets + t)
    at = block * block_step + k * head_step + offset * SIZE + dim
    key = tl.load(query_key + t * query_row + (HEADS + k) * SIZE + dim, mask=dim < SIZE)
    tl.store(keys + at, key, mask=dim < SIZE)
    value = tl.load(source + t * source_row + value_column + k * SIZE + dim, mask=dim < SIZE)
    tl.store(values + at, value, mask=dim < SIZE)


def store_kv(
    query_key: torch.Tensor, source: torch.Tensor, value_column: int,
    blocks: torch.Tensor, offsets: torch.Tensor, keys: torch.Tensor, values: torch.Tensor,
) -> None:  # fmt: skip
    """Write the keys and values of T tokens to places blocks (T,), offsets (T,) of one layer's cache.

    query_key (T, H + K, D) ends with the keys; source (T, …) has the values from `value_column` on; keys and values of the
    cache (N, K, BLOCK, D).
    """
    kv_heads, size = keys.shape[1], keys.shape[3]
    _store_kv[(len(blocks), kv_heads)](
        query_key, source, blocks, offsets, keys, values, value_column,
        query_key.stride(0), source.stride(0), keys.stride(0), keys.stride(1),
        HEADS=query_key.shape[1] - kv_heads, SIZE=size, WIDTH=triton.next_power_of_2(size),
    )  # fmt: skip


# --- norms, rotary embedding, gates


@triton.jit
def _norm(x, delta, weight, out, eps, SIZE: tl.constexpr, WIDTH: tl.constexpr, ADDS: tl.constexpr):
    """Row `t`: x += delta if ADDS; out = the RMS norm of x."""
    t, dim = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = dim < SIZE
    own = tl.load(x + t * SIZE + dim, mask=inside, other=0.0)
    if ADDS:
        own += tl.load(delta + t * SIZE + dim, mask=inside, other=0.0).to(tl.float32)
        tl.store(x + t * SIZE + dim, own, mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(own * own, 0) / SIZE + eps)
    normed = own * scale * tl.load(weight + dim, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + t * SIZE + dim, normed.to(out.dtype.element_ty), mask=inside)


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, delta: torch.Tensor | None = None) -> torch.Tensor:
    """RMS norm of x (T, C) in fp32, to which `delta` (T, C) is added in place first: (T, C) in the type of weight (C,)."""
    out = torch.empty_like(x, dtype=weight.dtype)
    size = x.shape[1]
    _norm[(len(x),)](
        x, x if delta is None else delta, weight, out, eps,
        SIZE=size, WIDTH=triton.next_power_of_2(size), ADDS=delta is not None, num_warps=8,
    )  # fmt: skip
    return out


@triton.jit
def _rotary(
    qkv, cos, sin, out, qkv_row, COUNT: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr
):
    """Head `h` of token `t`: its first HALF dimensions are rotated with the next HALF, the rest is copied."""
    t, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, WIDTH)
    inside = dim < SIZE
    source = qkv + t * qkv_row + h * SIZE
    low, rotates = dim < HALF, dim < 2 * HALF
    own = tl.load(source + dim, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(source + tl.where(low, dim + HALF, dim - HALF), mask=inside & rotates, other=0.0).to(tl.float32)
    angle = t * HALF + tl.where(low, dim, dim - HALF)
    c = tl.load(cos + angle, mask=rotates, other=1.0)
    s = tl.load(sin + angle, mask=rotates, other=0.0)
    rotated = own * c + tl.where(low, -other, other) * s
    tl.store(out + (t * COUNT + h) * SIZE + dim, rotated.to(out.dtype.element_ty), mask=inside)


def rotary(qkv: torch.Tensor, count: int, size: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The first `count` heads of qkv (T, …), rotated by fp32 cosines and sines (T, R/2): (T, count, size)."""
    out = qkv.new_empty(len(qkv), count, size)
    _rotary[(len(qkv), count)](
        qkv, cos, sin, out, qkv.stride(0),
        COUNT=count, SIZE=size, HALF=cos.shape[1], WIDTH=triton.next_power_of_2(size),
    )  # fmt: skip
    return out


@triton.jit
def _gate(gate_up, out, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """SiLU of the first SIZE numbers of row `t` times the others."""
    t = tl.program_id(0).to(tl.int64)
    dim = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = dim < SIZE
    gate = tl.load(gate_up + t * 2 * SIZE + dim, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + t * 2 * SIZE + SIZE + dim, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + t * SIZE + dim, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


def gate(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of gate_up (T, 2 I), gates first: (T, I)."""
    size = gate_up.shape[1] // 2
    out = gate_up.new_empty(len(gate_up), size)
    width = min(GATES, triton.next_power_of_2(size))
    _gate[(len(gate_up), triton.cdiv(size, width))](gate_up, out, SIZE=size, WIDTH=width)
    return out
