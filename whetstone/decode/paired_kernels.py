"""The key/value cache in bf16 on a CPU with AVX512-BF16: two numbers that are multiplied together lie side by side.

A vector of sixteen pairs is multiplied with a pair of the query's numbers in one instruction, and each vector of keys is read
once for all query heads that share it. Scores and sums are in fp32; the weights of the values are rounded to bf16, as the
attention of torch does it.

uint16 arrays hold bf16. Letters: B rows, T tokens, H query heads, K key/value heads, D head size, N blocks of the cache.
"""

import numpy as np

from whetstone.decode.cpu_kernels import BLOCK, compiled, from_fp32, to_fp32, weigh
from whetstone.decode.simd import LANES, tile

HEADS = 4  # query heads of one key/value head that a pass multiplies
KEYS = BLOCK // LANES  # vectors of keys that it multiplies
VALUES = 4  # vectors of values that it multiplies


def key_shape(size: int) -> tuple[int, ...]:
    """Of a block: (D / 2, BLOCK, 2)."""
    return size // 2, BLOCK, 2


def value_shape(size: int) -> tuple[int, ...]:
    """Of a block: (BLOCK / 2, D, 2)."""
    return BLOCK // 2, size, 2


@compiled
def store_kv(query_key, source, value_column, blocks, offsets, keys, values):
    """Write keys and values of T tokens to places blocks (T,), offsets (T,) of one layer's cache.

    The keys are the last K heads of query_key (T, H + K, D). The values are in source (T, …) from `value_column` on. The
    value beside a token's own is set to zero until its token comes: what memory held before may be no number.
    """
    kv_heads, half = keys.shape[1], keys.shape[2]
    heads = query_key.shape[1] - kv_heads
    for t in range(len(blocks)):
        block, offset = blocks[t], offsets[t]
        for k in range(kv_heads):
            at, key = value_column + k * 2 * half, query_key[t, heads + k]
            value, own, pair = source[t, at : at + 2 * half], keys[block, k], values[block, k, offset // 2]
            for d in range(half):
                own[d, offset, 0], own[d, offset, 1] = key[2 * d], key[2 * d + 1]
            for d in range(2 * half):
                pair[d, offset % 2] = from_fp32(to_fp32(value[d]), values)
            if offset % 2 == 0:
                for d in range(2 * half):
                    pair[d, 1] = 0


def attend(query, keys, values, *others):
    """Paged attention of one token of each of B sequences, as cpu_kernels.attend: the first H heads of query (B, …, D) ->
    out (B, H, D), over keys (N, K, D / 2, BLOCK, 2) and values (N, K, BLOCK / 2, D, 2) of one layer."""
    attend_pairs(query.view(np.uint32), keys.view(np.uint32)[..., 0], values.view(np.uint32)[..., 0], *others)


@compiled
def attend_pairs(query, keys, values, tables, starts, positions, window, scaling, scores, out):
    """The same with two bf16 in each number of the first three arrays.

    The blocks of sequence i are `tables[starts[i]:]`, and its token at positions[i] attends to itself and the `window` - 1
    tokens before. `scores` (H, tokens of the longest sequence in whole blocks) is a buffer. D must be a multiple of LANES.
    """
    n, heads, size = out.shape
    kv_heads, room = keys.shape[1], scores.shape[1]
    group, width, whole = heads // kv_heads, query.shape[1] * query.shape[2], kv_heads * size // 2 * BLOCK
    flat_query, flat_keys, flat_values = query.reshape(-1), keys.reshape(-1), values.reshape(-1)
    flat_scores, weights = scores.reshape(-1), np.empty(heads * room // 2, np.uint32)
    total, sums = np.empty(heads * size, np.float32), np.empty(heads, np.float32)
    for i in range(n):
        end = positions[i] + 1
        first = max(0, end - window)
        begin, count = first // BLOCK, (end + BLOCK - 1) // BLOCK
        for b in range(begin, count):
            at = starts[i] + b
            block, after = tables[at] * whole, tables[min(at + 1, len(tables) - 1)] * whole
            _score_block(
                flat_query, i * width, flat_keys, block, after, kv_heads, group, size, flat_scores, b * BLOCK, room
            )
        for h in range(heads):
            low, high = begin * BLOCK, count * BLOCK
            _, sums[h] = weigh(scores[h, first:end], scaling)
            scores[h, low:first] = np.float32(0)
            scores[h, end:high] = np.float32(0)
            _pair(scores[h, low:high], weights[(h * room + low) // 2 : (h * room + high) // 2], out)
        total[:] = np.float32(0)
        for b in range(begin, count):
            at = starts[i] + b
            block, after = tables[at] * whole, tables[min(at + 1, len(tables) - 1)] * whole
            low, high = max(first - b * BLOCK, 0) // 2, (min(end - b * BLOCK, BLOCK) + 1) // 2
            _add_values(
                weights, b * BLOCK // 2, room // 2, flat_values, block, after, kv_heads, group, size, low, high, total
            )
        for h in range(heads):
            for d in range(size):
                out[i, h, d] = from_fp32(total[h * size + d] / sums[h], out)


@compiled
def _score_block(query, at, keys, block, after, kv_heads, group, size, scores, column, room):
    """Write the scores of a query (H, D / 2) with a block's keys to columns from `column` on of scores (H * room,).

    Meanwhile the block at `after`, which is read next, is prefetched.
    """
    half = size // 2
    for k in range(kv_heads):
        base = block + k * half * BLOCK
        ahead = half * BLOCK if k + 1 < kv_heads else after - base  # what is read next
        for h in range(k * group, (k + 1) * group, HEADS):
            tile(
                query, at + h * half, half, keys, base, LANES, BLOCK, ahead, half,
                scores, h * room + column, room, min(HEADS, (k + 1) * group - h), HEADS, KEYS, 0, 1,
            )  # fmt: skip


@compiled
def _add_values(weights, column, width, values, block, after, kv_heads, group, size, low, high, total):
    """total (H * D,) += the values of a block's pairs of tokens `low` to `high` - 1, weighted by weights (H, width), in which
    the block begins at `column`; prefetches likewise."""
    chunk, column, count = size * BLOCK // 2, column + low, high - low
    for k in range(kv_heads):
        base = block + k * chunk
        ahead = chunk if k + 1 < kv_heads else after - base  # what is read next
        for h in range(k * group, (k + 1) * group, HEADS):
            rows, at = min(HEADS, (k + 1) * group - h), base + low * size
            if size % (VALUES * LANES) == 0:
                for d in range(0, size, VALUES * LANES):
                    tile(
                        weights, h * width + column, width, values, at + d, LANES, size, ahead, count,
                        total, h * size + d, size, rows, HEADS, VALUES, 1, 1,
                    )  # fmt: skip
            else:
                for d in range(0, size, LANES):
                    tile(
                        weights, h * width + column, width, values, at + d, LANES, size, ahead, count,
                        total, h * size + d, size, rows, HEADS, 1, 1, 1,
                    )  # fmt: skip


@compiled
def _pair(x, pairs, like):
    """x rounded to bf16, two numbers in each of `pairs`."""
    for t in range(len(pairs)):
        first, second = from_fp32(x[2 * t], like), from_fp32(x[2 * t + 1], like)
        pairs[t] = np.uint32(first) | (np.uint32(second) << np.uint32(16))
