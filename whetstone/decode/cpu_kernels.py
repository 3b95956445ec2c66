"""The small operations of a decoding step on a CPU, each fused into one pass and compiled by numba at its first use.

With one token per sequence the matrix products are short, and calls dominate: torch needs six for a norm and a dozen for an
attention over ragged sequences, and each reads memory again. Here each operation is one call.

Each row is computed by itself, in a fixed order, so its result does not depend on the other rows. Nor does it depend on the
addresses of arrays: for a loop that writes, the compiler makes a second version for the case that arrays overlap, so no such
loop computes a sum; and approximate quotients, which it uses in one version only, are not allowed.

All arithmetic is in fp32. bf16 is read and written as the upper half of an fp32 number, in arrays of uint16. Arrays are
contiguous; parts that lie side by side in one array (queries, keys and values; gate and up) are read from there.

Letters: B rows, T tokens, H query heads, K key/value heads, D head size, N blocks of the cache with BLOCK tokens each.
"""

from functools import partial

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from whetstone.decode.simd import LANES, fma, load, prefetch, store, zeros
from whetstone.run.compiled import compiled as compile_by_numba

BLOCK = 2 * LANES  # tokens per block of the cache

TYPES = {torch.float32: np.float32, torch.bfloat16: np.uint16}


compiled = partial(compile_by_numba, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract"})
# Part of its caller's code. A function that is called is compiled by itself and once more with its caller, and the two may add
# up or round differently; which one runs depends on whether the caller comes from numba's cache
inlined = partial(compiled, inline="always")


def array(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous CPU tensor as an array; bf16 as uint16."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.numpy()


def uninitialised(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor in numpy's memory, which asks the system for large pages: these are taken and read faster."""
    return torch.from_numpy(np.empty((*shape[:-1], shape[-1] * dtype.itemsize), np.uint8)).view(dtype)


# --- conversions that numba lacks


@intrinsic
def _float_of_bits(context, bits):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code


@intrinsic
def _bits_of_float(context, number):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), code


def to_fp32(number):  # from an element of an array
    raise NotImplementedError


@overload(to_fp32, inline="always")
def _to_fp32_code(number):
    if number == types.uint16:
        return lambda number: _float_of_bits(np.int32(number) << np.int32(16))
    return lambda number: number


def from_fp32(number, array):  # to an element of `array`, rounded to the nearest, ties to even
    raise NotImplementedError


@overload(from_fp32, inline="always")
def _from_fp32_code(number, array):
    if array.dtype == types.uint16:

        def code(number, array):
            bits = _bits_of_float(number)
            return np.uint16((bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16))

        return code
    return lambda number, array: number


@compiled
def exp(x):
    """e^x within two units in the last place for x <= 87, and e^-87 below -87 (polynomial of the Cephes library)."""
    x = max(x, np.float32(-87.0))
    n = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * _float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))


# --- between the matrix products


@compiled
def norm(x, delta, weight, eps, out):
    """x (B, C) += delta (B, C) unless that is None; then the RMS norm of its rows: out (B, C)."""
    width = np.float32(x.shape[1])
    for i in range(x.shape[0]):
        if delta is not None:
            for c in range(x.shape[1]):
                x[i, c] += to_fp32(delta[i, c])
        total = np.float32(0)
        for c in range(x.shape[1]):
            total += x[i, c] * x[i, c]
        scale = np.float32(1) / np.sqrt(total / width + eps)
        for c in range(x.shape[1]):
            out[i, c] = from_fp32(x[i, c] * scale * to_fp32(weight[c]), out)


@compiled
def rotary(x, size, cos, sin, positions, out):
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864) of the first heads of x (T, …): out (T, heads, size).

    cos, sin (P, R/2), indexed by positions (T,). The first R dimensions of each head are rotated, the rest is copied.
    """
    half = cos.shape[1]
    for i in range(x.shape[0]):
        p = positions[i]
        for h in range(out.shape[1]):
            head, rotated = x[i, h * size : (h + 1) * size], out[i, h]
            first, second = head[:half], head[half : 2 * half]
            for d in range(half):
                rotated[d] = from_fp32(to_fp32(first[d]) * cos[p, d] - to_fp32(second[d]) * sin[p, d], out)
            for d in range(half):
                rotated[half + d] = from_fp32(to_fp32(second[d]) * cos[p, d] + to_fp32(first[d]) * sin[p, d], out)
            for d in range(2 * half, size):
                rotated[d] = from_fp32(to_fp32(head[d]), out)


@compiled
def gate(gate_up, out):
    """silu(gate) * up of gate_up (B, 2 I), which has the gates first: out (B, I)."""
    width = out.shape[1]
    for i in range(out.shape[0]):
        for c in range(width):
            g = to_fp32(gate_up[i, c])
            sigmoid = np.float32(1) / (np.float32(1) + exp(min(-g, np.float32(87))))
            out[i, c] = from_fp32(g * sigmoid * to_fp32(gate_up[i, width + c]), out)


# --- the key/value cache


@compiled
def store_kv(query_key, source, value_column, blocks, offsets, keys, values):
    """Write keys and values of T tokens to places blocks (T,), offsets (T,) of one layer's cache.

    The keys are the last K heads of query_key (T, H + K, D). The values are in source (T, …) from `value_column` on. In the
    cache, keys (N, K, D, BLOCK) lie transposed, as the scores read them; values are (N, K, BLOCK, D).
    """
    kv_heads, size = keys.shape[1], keys.shape[2]
    heads = query_key.shape[1] - kv_heads
    for t in range(len(blocks)):
        block, offset = blocks[t], offsets[t]
        for k in range(kv_heads):
            at = value_column + k * size
            for d in range(size):
                keys[block, k, d, offset] = query_key[t, heads + k, d]
                values[block, k, offset, d] = source[t, at + d]


@compiled
def attend(query, keys, values, tables, starts, positions, window, scaling, scores, out):
    """Paged attention of one token of each of B sequences: the first H heads of query (B, …, D) -> out (B, H, D).

    keys (N, K, D, BLOCK), values (N, K, BLOCK, D) of one layer. The blocks of sequence i are `tables[starts[i]:]`, and its
    token at positions[i] attends to itself and the `window` - 1 tokens before. `scores` (H, tokens of the longest sequence in
    whole blocks) is a buffer. D must be a multiple of LANES.
    """
    n, heads, size = out.shape
    kv_heads = keys.shape[1]
    group, room = heads // kv_heads, scores.shape[1]
    flat_keys, flat_values, flat_scores = keys.reshape(-1), values.reshape(-1), scores.reshape(-1)
    scaled, total = np.empty((heads, size), np.float32), np.empty(heads * size, np.float32)
    for i in range(n):
        for h in range(heads):
            for d in range(size):
                scaled[h, d] = to_fp32(query[i, h, d]) * scaling
                total[h * size + d] = np.float32(0)
        end = positions[i] + 1
        first = max(0, end - window)
        begin, count = first // BLOCK, (end + BLOCK - 1) // BLOCK
        for b in range(begin, count):
            at = starts[i] + b
            block, after = tables[at], tables[min(at + 1, len(tables) - 1)]
            _score_block(scaled, flat_keys, block, after, kv_heads, group, size, flat_scores, b * BLOCK, room)
        for h in range(heads):
            _softmax(scores[h, first:end])
        for b in range(begin, count):
            at = starts[i] + b
            block, after = tables[at], tables[min(at + 1, len(tables) - 1)]
            low, high = max(first - b * BLOCK, 0), min(end - b * BLOCK, BLOCK)
            _add_values(scores, flat_values, block, after, kv_heads, group, size, b * BLOCK, low, high, total)
        for h in range(heads):
            for d in range(size):
                out[i, h, d] = from_fp32(total[h * size + d], out)


@inlined
def _score_block(scaled, flat_keys, block, after, kv_heads, group, size, flat_scores, column, room):
    """Write the scores of scaled (H, D) with a block's keys to columns from `column` on of flat_scores (H * room,).

    Meanwhile block `after`, which is read next, is prefetched.
    """
    chunk = size * BLOCK
    for k in range(kv_heads):
        base = (block * kv_heads + k) * chunk
        ahead = (base + chunk if k + 1 < kv_heads else after * kv_heads * chunk) - base  # what is read next
        for h in range(k * group, (k + 1) * group):
            low, high = zeros(), zeros()
            for d in range(size):
                prefetch(flat_keys, base + ahead + d * BLOCK)
                prefetch(flat_keys, base + ahead + d * BLOCK + LANES)
                low = fma(low, scaled[h, d], load(flat_keys, base + d * BLOCK))
                high = fma(high, scaled[h, d], load(flat_keys, base + d * BLOCK + LANES))
            store(flat_scores, h * room + column, low)
            store(flat_scores, h * room + column + LANES, high)


@inlined
def _add_values(scores, flat_values, block, after, kv_heads, group, size, column, low, high, total):
    """total (H * D,) += the values of a block's tokens `low` to `high` - 1, weighted by their scores; prefetches likewise."""
    chunk = size * BLOCK
    for k in range(kv_heads):
        base = (block * kv_heads + k) * chunk
        ahead = (base + chunk if k + 1 < kv_heads else after * kv_heads * chunk) - base  # what is read next
        for h in range(k * group, (k + 1) * group):
            for d in range(0, size, LANES):
                even, odd = load(total, h * size + d), zeros()
                for t in range(low, high - 1, 2):
                    prefetch(flat_values, base + ahead + t * size + d)
                    prefetch(flat_values, base + ahead + (t + 1) * size + d)
                    even = fma(even, scores[h, column + t], load(flat_values, base + t * size + d))
                    odd = fma(odd, scores[h, column + t + 1], load(flat_values, base + (t + 1) * size + d))
                if (high - low) % 2:
                    t = high - 1
                    even = fma(even, scores[h, column + t], load(flat_values, base + t * size + d))
                store(total, h * size + d, fma(even, np.float32(1), odd))


@compiled
def _softmax(x):
    _, total = weigh(x, np.float32(1))
    scale = np.float32(1) / total
    for t in range(len(x)):
        x[t] *= scale


@inlined
def weigh(x, scaling):
    """x becomes e^(scaling * (x - its largest)). Returns the largest, and the sum of what it has become."""
    highest = x[0]
    for t in range(1, len(x)):
        highest = max(highest, x[t])
    for t in range(len(x)):
        x[t] = exp((x[t] - highest) * scaling)
    total = np.float32(0)
    for t in range(len(x)):
        total += x[t]
    return highest, total
