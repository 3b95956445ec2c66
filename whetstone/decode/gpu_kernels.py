"""What a decoding step on a GPU does beside its matrix products, in Triton, which comes with torch's CUDA builds.

The same passes as in cpu_kernels.py: norms, rotary embedding, gates, writing to the cache, and the attention of one token of
each sequence over the blocks of its own, where they lie. A sequence's tokens are divided among several programs where there
are too few sequences to fill the device (flash decoding), and their parts are joined by the logarithms of their sums.

Products of the attention are as precise as their type; sums are in fp32, and so is the running sum of the layers. Only loaded
where there is a GPU (kv_cache.py), and tried out there on a few numbers before anything is decoded.

Letters: n rows, H query heads, K key/value heads, D head size, S parts of a sequence.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from whetstone.decode.cpu_kernels import BLOCK

TILE = 64  # tokens of a sequence that a program takes at once, half of them where their numbers are many bytes
TILE_BYTES = 256  # of a token and head: two stages of keys and values fit the shared memory of small cards, too
ROWS = 16  # least of a tensor core's product: query heads of a key head, and more than there are
WAVES = 4  # programs for each processor of the device, wanted
GATES = 1024  # numbers of a gate that a program takes
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def wrong(device: torch.device, dtype: torch.dtype, kinds: int, shared: int, size: int) -> str:
    """What is wrong with a kernel here, tried out on a few numbers of that type and heads of that size; "" if nothing is.

    What is expected is computed in float64: torch's products in fp32 may be less precise than these.
    """
    if dtype not in TYPES:
        return f"nothing for {dtype}"
    make = torch.Generator(device).manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=make, device=device).to(dtype)

    lengths, most = [1, BLOCK, 3 * BLOCK + 5], 4
    n, heads, half = len(lengths), kinds * shared, max(1, size // 4)
    x, weight = numbers(n, 3 * size).float(), numbers(3 * size)
    more, joint, both = numbers(n, 3 * size), numbers(n, (heads + 2 * kinds) * size), numbers(n, 2 * size)
    angle = numbers(n, half).float()
    added = x + more
    found = {"norm": norm(x, weight, 1e-5, more), "gate": gate(both), "sum": x}
    found["turn"] = turned = turn(joint, heads + kinds, size, angle.cos(), angle.sin())
    expected = {
        "norm": torch.rms_norm(added.double(), x.shape[1:], weight.double(), 1e-5),
        "gate": F.silu(both[:, :size].double()) * both[:, size:].double(),
        "sum": added,
        "turn": _turned(joint[:, : (heads + kinds) * size].unflatten(1, (-1, size)).double(), angle.double()),
    }
    table = torch.randperm(n * most, generator=make, device=device).view(n, most)
    keys, values = numbers(n * most, kinds, BLOCK, size), numbers(n * most, kinds, BLOCK, size)
    at = torch.tensor(lengths, device=device)
    last = (at - 1)[:, None] // BLOCK
    store(turned, joint, (heads + kinds) * size, table.gather(1, last)[:, 0], (at - 1) % BLOCK, keys, values)
    own = joint[:, (heads + kinds) * size :].unflatten(1, (-1, size))
    for parts in (1, 2):
        found[f"attention in {parts}"] = attend(turned, keys, values, table, at, 0.2, 1 << 40, parts)
    ends = []
    for i, length in enumerate(lengths):
        key, value = (
            x[table[i]].transpose(1, 2).flatten(0, 1)[:length].double() for x in (keys, values)
        )  # (tokens, K, D)
        query = turned[i, :heads].double().unflatten(0, (kinds, shared))
        weights = (torch.einsum("krd,tkd->krt", query, key) * 0.2).softmax(-1)
        ends.append((torch.einsum("krt,tkd->krd", weights, value).flatten(0, 1), key[-1], value[-1]))
    expected |= {f"attention in {parts}": torch.stack([end[0] for end in ends]) for parts in (1, 2)}
    found |= {
        "stored keys": torch.stack([end[1] for end in ends]),
        "stored values": torch.stack([end[2] for end in ends]),
    }
    expected |= {"stored keys": turned[:, heads:], "stored values": own}
    bound = 0.05 if dtype.itemsize < 4 else 1e-3
    for name, value in found.items():
        if not (value.double() - expected[name].double()).abs().max() <= bound:
            return f"{name} is not what torch computes"
    return ""


def _turned(heads: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    half, cos, sin = angle.shape[1], angle.cos()[:, None], angle.sin()[:, None]
    a, b = heads[..., :half], heads[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, heads[..., 2 * half :]], -1)


# --- attention


@triton.jit
def _attend(
    query, keys, values, table, lengths, out, logs, scaling, window,
    query_row, table_row, block_step, head_step,
    SHARED: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Part `s` of the attention of the SHARED query heads of key head `k` to sequence `i`, and the log of its sum."""
    i, k, s = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    end = tl.load(lengths + i).to(tl.int32)
    first = tl.maximum(end - window, 0).to(tl.int32)
    before = first // TILE
    each = tl.cdiv(tl.cdiv(end, TILE) - before, PARTS)
    begin = (before + s * each) * TILE
    stop = tl.minimum(begin + each * TILE, end)
    row, dim = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    own = (row < SHARED)[:, None] & (dim < SIZE)[None, :]
    heads = k * SHARED + row
    q = tl.load(query + i * query_row + heads[:, None] * SIZE + dim[None, :], mask=own, other=0.0)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    found = tl.zeros([ROWS, WIDTH], tl.float32)
    for token in range(begin, stop, TILE):
        place = token + tl.arange(0, TILE)
        seen = (place >= first) & (place < end)  # at least one of each tile
        block = tl.load(table + i * table_row + place // BLOCK, mask=place < end, other=0).to(tl.int64)
        at = block * block_step + k * head_step + (place % BLOCK) * SIZE
        there = seen[:, None] & (dim < SIZE)[None, :]
        key = tl.load(keys + at[:, None] + dim[None, :], mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scaling
        scores = tl.where(seen[None, :], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        kept = tl.exp(top - higher)
        value = tl.load(values + at[:, None] + dim[None, :], mask=there, other=0.0)
        found = found * kept[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * kept + tl.sum(weights, 1)
        top = higher
    found = found / tl.where(total > 0, total, 1.0)[:, None]
    place = (i * PARTS + s) * HEADS + heads
    tl.store(out + place[:, None] * SIZE + dim[None, :], found.to(out.dtype.element_ty), mask=own)
    if PARTS > 1:
        log = tl.where(total > 0, top + tl.log(tl.where(total > 0, total, 1.0)), -float("inf"))
        tl.store(logs + place, log, mask=row < SHARED)


@triton.jit
def _join(
    parts, logs, out, SIZE: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, PARTS: tl.constexpr,
    COUNT: tl.constexpr,
):  # fmt: skip
    """The parts of a row and head, each weighing as the exponentials in it."""
    i, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    s, dim = tl.arange(0, COUNT), tl.arange(0, WIDTH)
    place = (i * PARTS + s) * HEADS + h
    log = tl.load(logs + place, mask=s < PARTS, other=-float("inf"))
    weights = tl.exp(log - tl.max(log, 0))
    weights = weights / tl.sum(weights, 0)
    there = (s < PARTS)[:, None] & (dim < SIZE)[None, :]
    part = tl.load(parts + place[:, None] * SIZE + dim[None, :], mask=there, other=0.0)
    found = tl.sum(part * weights[:, None], 0)
    tl.store(out + (i * HEADS + h) * SIZE + dim, found.to(out.dtype.element_ty), mask=dim < SIZE)


def attend(
    turned: torch.Tensor,  # (n, H + K, D)
    keys: torch.Tensor,  # (blocks, K, BLOCK, D), one layer's
    values: torch.Tensor,
    table: torch.Tensor,  # (n, most) each sequence's blocks
    lengths: torch.Tensor,  # (n,) its tokens, the row's own among them
    scaling: float,
    window: int,
    parts: int,
) -> torch.Tensor:
    """(n, H, D)"""
    n, kinds, size = len(lengths), keys.shape[1], keys.shape[3]
    heads = turned.shape[1] - kinds
    shared = heads // kinds
    out = turned.new_empty(n, heads, size)
    pieces = turned.new_empty(n, parts, heads, size, dtype=torch.float32) if parts > 1 else out
    logs = turned.new_empty(n, parts, heads, dtype=torch.float32)
    _attend[(n, kinds, parts)](
        turned, keys, values, table, lengths, pieces, logs, scaling, min(window, 1 << 30),
        turned.stride(0), table.stride(0), keys.stride(0), keys.stride(1),
        SHARED=shared, SIZE=size, WIDTH=max(16, triton.next_power_of_2(size)), HEADS=heads, BLOCK=BLOCK,
        TILE=TILE if size * keys.itemsize <= TILE_BYTES else TILE // 2, ROWS=max(ROWS, triton.next_power_of_2(shared)),
        PARTS=parts, num_stages=2,
    )  # fmt: skip
    if parts > 1:
        width = triton.next_power_of_2(size)
        _join[(n, heads)](
            pieces, logs, out, SIZE=size, WIDTH=width, HEADS=heads, PARTS=parts, COUNT=triton.next_power_of_2(parts)
        )
    return out


def parts_for(rows: int, kinds: int, most: int, processors: int) -> int:
    """How many parts a sequence of up to `most` tokens is divided into: enough programs, and none without work."""
    return max(1, min(WAVES * processors // (rows * kinds), most // (2 * TILE), 64))


# --- writing to the cache


@triton.jit
def _store(
    turned, source, blocks, offsets, keys, values, first, turned_row, source_row, block_step, head_step,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Key and value of token `t` and key head `k`."""
    t, k = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, WIDTH)
    block, offset = tl.load(blocks + t).to(tl.int64), tl.load(offsets + t)
    at = block * block_step + k * head_step + offset * SIZE + dim
    key = tl.load(turned + t * turned_row + (HEADS + k) * SIZE + dim, mask=dim < SIZE)
    tl.store(keys + at, key, mask=dim < SIZE)
    value = tl.load(source + t * source_row + first + k * SIZE + dim, mask=dim < SIZE)
    tl.store(values + at, value, mask=dim < SIZE)


def store(
    turned: torch.Tensor,  # (T, H + K, D)
    source: torch.Tensor,  # (T, …) values from column `first` on
    first: int,
    blocks: torch.Tensor,  # (T,)
    offsets: torch.Tensor,  # (T,)
    keys: torch.Tensor,  # (blocks, K, BLOCK, D)
    values: torch.Tensor,
) -> None:
    kinds, size = keys.shape[1], keys.shape[3]
    _store[(len(blocks), kinds)](
        turned, source, blocks, offsets, keys, values, first,
        turned.stride(0), source.stride(0), keys.stride(0), keys.stride(1),
        HEADS=turned.shape[1] - kinds, SIZE=size, WIDTH=triton.next_power_of_2(size),
    )  # fmt: skip


# --- norms, rotation, gates


@triton.jit
def _norm(x, more, weight, out, eps, SIZE: tl.constexpr, WIDTH: tl.constexpr, ADDS: tl.constexpr):
    """Row `t`: x += more where it ADDS; out = its RMS norm."""
    t, dim = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    there = dim < SIZE
    own = tl.load(x + t * SIZE + dim, mask=there, other=0.0)
    if ADDS:
        own += tl.load(more + t * SIZE + dim, mask=there, other=0.0).to(tl.float32)
        tl.store(x + t * SIZE + dim, own, mask=there)
    scale = 1.0 / tl.sqrt(tl.sum(own * own, 0) / SIZE + eps)
    found = own * scale * tl.load(weight + dim, mask=there, other=0.0).to(tl.float32)
    tl.store(out + t * SIZE + dim, found.to(out.dtype.element_ty), mask=there)


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, more: torch.Tensor | None = None) -> torch.Tensor:
    """(T, C) in the weight's type, of the fp32 rows `x`, to which `more` is added first, where they lie."""
    out = torch.empty_like(x, dtype=weight.dtype)
    size = x.shape[1]
    _norm[(len(x),)](
        x, x if more is None else more, weight, out, eps,
        SIZE=size, WIDTH=triton.next_power_of_2(size), ADDS=more is not None, num_warps=8,
    )  # fmt: skip
    return out


@triton.jit
def _turn(
    joint, cos, sin, out, joint_row, COUNT: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr
):
    """Head `h` of token `t`: its first HALF numbers turn with the next HALF, the rest passes through."""
    t, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, WIDTH)
    there = dim < SIZE
    source = joint + t * joint_row + h * SIZE
    low, turns = dim < HALF, dim < 2 * HALF
    own = tl.load(source + dim, mask=there, other=0.0).to(tl.float32)
    other = tl.load(source + tl.where(low, dim + HALF, dim - HALF), mask=there & turns, other=0.0).to(tl.float32)
    angle = t * HALF + tl.where(low, dim, dim - HALF)
    c = tl.load(cos + angle, mask=turns, other=1.0)
    s = tl.load(sin + angle, mask=turns, other=0.0)
    found = own * c + tl.where(low, -other, other) * s
    tl.store(out + (t * COUNT + h) * SIZE + dim, found.to(out.dtype.element_ty), mask=there)


def turn(joint: torch.Tensor, count: int, size: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(T, count, size): the first heads of `joint`, turned by fp32 cosines and sines (T, half)."""
    out = joint.new_empty(len(joint), count, size)
    _turn[(len(joint), count)](
        joint, cos, sin, out, joint.stride(0),
        COUNT=count, SIZE=size, HALF=cos.shape[1], WIDTH=triton.next_power_of_2(size),
    )  # fmt: skip
    return out


@triton.jit
def _gate(both, out, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """SiLU of the first SIZE numbers of row `t` times the others."""
    t = tl.program_id(0).to(tl.int64)
    dim = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there = dim < SIZE
    gate = tl.load(both + t * 2 * SIZE + dim, mask=there, other=0.0).to(tl.float32)
    up = tl.load(both + t * 2 * SIZE + SIZE + dim, mask=there, other=0.0).to(tl.float32)
    tl.store(out + t * SIZE + dim, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=there)


def gate(both: torch.Tensor) -> torch.Tensor:
    """(T, 2 M) -> (T, M)"""
    size = both.shape[1] // 2
    out = both.new_empty(len(both), size)
    width = min(GATES, triton.next_power_of_2(size))
    _gate[(len(both), triton.cdiv(size, width))](both, out, SIZE=size, WIDTH=width)
    return out
