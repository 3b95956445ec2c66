"""The small operations of a decoding step on a CPU, each fused into one pass: compiled by numba when first used, then kept.

With one token a sequence, matrix products are short and calls are the cost: a norm is six calls in torch, an attention of
ragged sequences a dozen, and each reads memory again. Here a norm, a rotation, a gate, an attention and a choice of a token
are one call each. Every row is computed by itself and in one order, so that its numbers do not depend on its neighbours.
Nor do they depend on where arrays lie: of a loop that writes, the compiler makes a second version for arrays that may
overlap, so no such loop adds up; and estimates of a quotient, which it takes in one version only, are not allowed.

Numbers are fp32 throughout; bf16 is read and written as its upper half, in arrays of uint16. Arrays are contiguous: parts
that lie side by side in one (queries, keys and values; gate and up) are taken from there.

Letters: n rows, H query heads, K key/value heads, D head size, BLOCK tokens a block of the cache.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from whetstone.decode.lanes import LANES, add_product, load, prefetch, put, zeros

BLOCK = 2 * LANES  # tokens of a block of the cache

TYPES = {torch.float32: np.float32, torch.bfloat16: np.uint16}


def compiled(function: Any) -> Any:
    """Compiled for this machine at the first call, and kept on disk where that can be written to."""
    options = {"fastmath": {"nnan", "ninf", "nsz", "reassoc", "contract"}, "nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in
        return njit(**options)(function)


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's own memory. It must be contiguous, on the CPU, of a type in TYPES."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.numpy()


# --- what numba has no word for


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


def _wide(number):  # an element of an array -> fp32
    raise NotImplementedError


@overload(_wide, inline="always")
def _wide_code(number):
    if number == types.uint16:
        return lambda number: _float_of_bits(np.int32(number) << np.int32(16))
    return lambda number: number


def _narrow(number, array):  # fp32 -> an element of an array, to the nearest, ties to even
    raise NotImplementedError


@overload(_narrow, inline="always")
def _narrow_code(number, array):
    if array.dtype == types.uint16:

        def code(number, array):
            bits = _bits_of_float(number)
            return np.uint16((bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16))

        return code
    return lambda number, array: number


@compiled
def _exp(x):
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


# --- between the products


@compiled
def norm(x, weight, eps, out):
    """RMS norm of the rows of x (n, C)."""
    width = np.float32(x.shape[1])
    for i in range(x.shape[0]):
        total = np.float32(0)
        for c in range(x.shape[1]):
            total += x[i, c] * x[i, c]
        scale = np.float32(1) / np.sqrt(total / width + eps)
        for c in range(x.shape[1]):
            out[i, c] = _narrow(x[i, c] * scale * _wide(weight[c]), out)


@compiled
def add_and_norm(x, more, weight, eps, out):
    """x (n, C) += more, then its norm."""
    width = np.float32(x.shape[1])
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            x[i, c] += _wide(more[i, c])
        total = np.float32(0)
        for c in range(x.shape[1]):
            total += x[i, c] * x[i, c]
        scale = np.float32(1) / np.sqrt(total / width + eps)
        for c in range(x.shape[1]):
            out[i, c] = _narrow(x[i, c] * scale * _wide(weight[c]), out)


@compiled
def turn(x, size, cos, sin, positions, out):
    """Rotary embedding of the first heads of x (n, …), as many as out (n, heads, size) has.

    cos, sin (P, half of what is turned); the rest of each head passes through.
    """
    half = cos.shape[1]
    for i in range(x.shape[0]):
        p = positions[i]
        for h in range(out.shape[1]):
            at = h * size
            for d in range(half):
                a, b = _wide(x[i, at + d]), _wide(x[i, at + half + d])
                out[i, h, d] = _narrow(a * cos[p, d] - b * sin[p, d], out)
                out[i, h, half + d] = _narrow(b * cos[p, d] + a * sin[p, d], out)
            for d in range(2 * half, size):
                out[i, h, d] = x[i, at + d]


@compiled
def gate(both, out):
    """silu(gate) * up of both (n, 2 I), gates first: out (n, I)."""
    width = out.shape[1]
    for i in range(out.shape[0]):
        for c in range(width):
            g = _wide(both[i, c])
            sigmoid = np.float32(1) / (np.float32(1) + _exp(min(-g, np.float32(87))))
            out[i, c] = _narrow(g * sigmoid * _wide(both[i, width + c]), out)


# --- the cache


@compiled
def store(turned, source, first, blocks, offsets, keys, values):
    """Write keys and values of T tokens to their places in one layer's blocks.

    The keys are the last K heads of turned (T, …, D), the values lie in source (T, …) from column `first` on. In the cache
    keys (N, K, D, BLOCK) lie transposed, as the scores want them; values (N, K, BLOCK, D).
    """
    heads, size = keys.shape[1], keys.shape[2]
    skipped = turned.shape[1] - heads
    for t in range(len(blocks)):
        block, offset = blocks[t], offsets[t]
        for k in range(heads):
            at = first + k * size
            for d in range(size):
                keys[block, k, d, offset] = turned[t, skipped + k, d]
                values[block, k, offset, d] = source[t, at + d]


@compiled
def attend(query, keys, values, tables, starts, at, window, scaling, scores, out):
    """One token of each sequence attends to its blocks: the first H heads of query (n, …, D) -> out (n, H, D).

    keys (N, K, D, BLOCK), values (N, K, BLOCK, D): one layer's. `tables[starts[i]:]` are the blocks of sequence i, `at[i]`
    is its token's own position, and it sees itself and the `window` - 1 tokens before. `scores` (H, tokens of the longest,
    in whole blocks) is room to work in. D must be a multiple of LANES.
    """
    n, heads, size = out.shape
    kinds = keys.shape[1]
    shared = heads // kinds  # query heads of a key/value head
    chunk = size * BLOCK
    room = scores.shape[1]
    flat_keys, flat_values, flat_scores = keys.reshape(-1), values.reshape(-1), scores.reshape(-1)
    scaled, total = np.empty((heads, size), np.float32), np.empty(heads * size, np.float32)
    for i in range(n):
        for h in range(heads):
            for d in range(size):
                scaled[h, d] = _wide(query[i, h, d]) * scaling
                total[h * size + d] = np.float32(0)
        end = at[i] + 1
        first = max(0, end - window)
        begin, count = first // BLOCK, (end + BLOCK - 1) // BLOCK
        following = tables[starts[i + 1]] if i + 1 < n else tables[starts[i]]
        for b in range(begin, count):
            block = tables[starts[i] + b]
            after = tables[starts[i] + b + 1] if b + 1 < count else following
            for k in range(kinds):
                base = (block * kinds + k) * chunk
                ahead = (base + chunk if k + 1 < kinds else after * kinds * chunk) - base  # what is read next
                for h in range(k * shared, (k + 1) * shared):
                    low, high = zeros(), zeros()
                    for d in range(size):
                        prefetch(flat_keys, base + ahead + d * BLOCK)
                        prefetch(flat_keys, base + ahead + d * BLOCK + LANES)
                        low = add_product(low, scaled[h, d], load(flat_keys, base + d * BLOCK))
                        high = add_product(high, scaled[h, d], load(flat_keys, base + d * BLOCK + LANES))
                    put(flat_scores, h * room + b * BLOCK, low)
                    put(flat_scores, h * room + b * BLOCK + LANES, high)
        for h in range(heads):
            _softmax(scores[h, first:end])
        for b in range(begin, count):
            block = tables[starts[i] + b]
            after = tables[starts[i] + b + 1] if b + 1 < count else following
            low_t, high_t = max(first - b * BLOCK, 0), min(end - b * BLOCK, BLOCK)
            for k in range(kinds):
                base = (block * kinds + k) * chunk
                ahead = (base + chunk if k + 1 < kinds else after * kinds * chunk) - base  # what is read next
                for h in range(k * shared, (k + 1) * shared):
                    for d in range(0, size, LANES):
                        even, odd = load(total, h * size + d), zeros()
                        for t in range(low_t, high_t - 1, 2):
                            prefetch(flat_values, base + ahead + t * size + d)
                            prefetch(flat_values, base + ahead + (t + 1) * size + d)
                            even = add_product(even, scores[h, b * BLOCK + t], load(flat_values, base + t * size + d))
                            odd = add_product(
                                odd, scores[h, b * BLOCK + t + 1], load(flat_values, base + (t + 1) * size + d)
                            )
                        if (high_t - low_t) % 2:
                            t = high_t - 1
                            even = add_product(even, scores[h, b * BLOCK + t], load(flat_values, base + t * size + d))
                        put(total, h * size + d, add_product(even, np.float32(1), odd))
        for h in range(heads):
            for d in range(size):
                out[i, h, d] = _narrow(total[h * size + d], out)


@compiled
def _softmax(x):
    highest = x[0]
    for t in range(1, len(x)):
        highest = max(highest, x[t])
    for t in range(len(x)):
        x[t] = _exp(x[t] - highest)
    total = np.float32(0)
    for t in range(len(x)):
        total += x[t]
    scale = np.float32(1) / total
    for t in range(len(x)):
        x[t] *= scale


# --- the choice of a token


@compiled
def draw(logits, temperature, numbers, tokens, logprobs):
    """One token of each row of logits (n, V) by its number in [0, 1), and its log-probability, at a temperature above 0."""
    size = logits.shape[1]
    mass = np.empty((size + BLOCK - 1) // BLOCK, np.float64)  # of each stretch of BLOCK tokens
    weights = np.empty(size, np.float32)
    inverse = np.float32(1) / temperature
    for i in range(logits.shape[0]):
        row = logits[i]
        highest = row[0]
        for v in range(1, size):
            highest = max(highest, row[v])
        for v in range(size):
            weights[v] = _exp((row[v] - highest) * inverse)
        total = 0.0
        for b in range(len(mass)):
            part = np.float32(0)
            for v in range(b * BLOCK, min(size, (b + 1) * BLOCK)):
                part += weights[v]
            total += part
            mass[b] = total
        wanted = numbers[i] * total
        b = 0
        while b + 1 < len(mass) and mass[b] <= wanted:
            b += 1
        reached = mass[b - 1] if b else 0.0
        token = b * BLOCK
        last = min(size, token + BLOCK) - 1
        reached += weights[token]
        while token < last and reached <= wanted:
            token += 1
            reached += weights[token]
        tokens[i] = token
        logprobs[i] = (row[token] - highest) * inverse - np.float32(np.log(total))


@compiled
def likeliest(logits, tokens, logprobs):
    """The first of the likeliest tokens of each row, and its log-probability at temperature 1."""
    for i in range(logits.shape[0]):
        row = logits[i]
        token, highest = 0, row[0]
        for v in range(1, logits.shape[1]):
            if row[v] > highest:
                token, highest = v, row[v]
        total = np.float32(0)
        for v in range(logits.shape[1]):
            total += _exp(row[v] - highest)
        tokens[i] = token
        logprobs[i] = -np.float32(np.log(np.float64(total)))
