"""Causal attention of packed sequences to themselves on a CPU with AVX-512: of prompts, and in training with its gradient.

Queries, keys and values are rows of bf16, a token each, which training rotates on the way; all arithmetic is in fp32. A
sequence's scores are computed for CHUNK queries at once and never leave the processor's cache; the backward pass computes them
again (FlashAttention, Dao et al. 2022, arXiv 2205.14135).

Letters: T tokens, H query heads, K key/value heads, D head size, R rotated dimensions, n tokens of a sequence.
"""

import numpy as np

from whetstone.decode.cpu_kernels import BLOCK, compiled, exp, from_fp32, inlined, to_fp32, weigh
from whetstone.decode.simd import LANES, tile

CHUNK = 24  # queries whose scores are held at once
ROWS = 6  # that a pass multiplies: with four vectors each their sums fill the registers
VECTORS = 4
WIDE = VECTORS * LANES


@compiled
def attend_prompts(queries, keys, values, tables, table_starts, cached, counts, window, scaling, heads, size, out):
    """Tokens of prompts attend to what paired_kernels.py has cached of their sequences, themselves included.

    queries (T, …): H query heads first; `counts` tokens of each sequence, after `cached` others. keys (N, K, D / 2, BLOCK, 2)
    and values (N, K, BLOCK / 2, D, 2) of one layer; the blocks of sequence s are `tables[table_starts[s]:]`. out (T, H D).
    """
    kv_heads = keys.shape[1]
    room = room_for(np.max(cached + counts))
    _, turned, value, query = buffers(room, room, size)
    scores, sums = np.empty(CHUNK * room, np.float32), np.empty(CHUNK * size, np.float32)
    totals = np.empty(room, np.float32)
    first, group = 0, heads // kv_heads
    for s in range(len(counts)):
        for k in range(kv_heads):
            for b in range((cached[s] + counts[s] + BLOCK - 1) // BLOCK):
                block = tables[table_starts[s] + b]
                turned_block(keys[block, k], b * BLOCK, room, turned)
                block_values(values[block, k], b * BLOCK, size, value)
            for h in range(k * group, (k + 1) * group):
                copy(queries, first, counts[s], h * size, size, query)
                attend_head(
                    query, counts[s], cached[s], turned, value, room, size, window, scaling, scores, sums, totals,
                    out, first, h * size,
                )  # fmt: skip
        first += counts[s]


@compiled
def attend(qkv, cos, sin, starts, window, scaling, heads, kv_heads, size, out, totals):
    """qkv (T, (H + 2 K) D), cos and sin (T, R / 2) -> out (T, H D), and totals (H, T): log-sum-exps of the scaled scores.

    The sequences begin at starts (sequences + 1,). A token attends to itself and the `window` - 1 tokens before it.
    """
    longest = np.max(starts[1:] - starts[:-1])
    room = room_for(longest)
    key, turned, value, query = buffers(longest, room, size)
    scores, sums = np.empty(CHUNK * room, np.float32), np.empty(CHUNK * size, np.float32)
    group = heads // kv_heads
    for s in range(len(starts) - 1):
        first, n = starts[s], starts[s + 1] - starts[s]
        for k in range(kv_heads):
            rotate(qkv, first, n, (heads + k) * size, cos, sin, size, key)
            turn(key, n, size, room, turned)
            copy(qkv, first, n, (heads + kv_heads + k) * size, size, value)
            for h in range(k * group, (k + 1) * group):
                rotate(qkv, first, n, h * size, cos, sin, size, query)
                attend_head(
                    query, n, 0, turned, value, room, size, window, scaling, scores, sums, totals[h, first : first + n],
                    out, first, h * size,
                )  # fmt: skip


@inlined
def attend_head(query, n, before, turned, value, room, size, window, scaling, scores, sums, totals, out, first, column):
    """One head of n tokens, `before` others before them: to rows from `first` on of out, at `column`, and totals (n,)."""
    for begin in range(0, n, CHUNK):
        end = min(begin + CHUNK, n)
        columns = before + end
        against_panels(query, begin, end, size, turned, room, columns, scores)
        for row in range(begin, end):
            own, last = scores[(row - begin) * room : (row - begin) * room + columns], before + row + 1
            totals[row] = normalise(own, max(0, last - window), last, scaling)
        against_rows(scores, room, end - begin, columns, value, size, sums, False)
        for row in range(begin, end):
            given = sums[(row - begin) * size : (row - begin + 1) * size]
            own_out = out[first + row, column : column + size]
            for d in range(size):
                own_out[d] = from_fp32(given[d], out)


@compiled
def attend_backward(qkv, cos, sin, starts, window, scaling, heads, kv_heads, size, out, totals, d_out, d_qkv):
    """The gradient d_qkv of qkv (T, (H + 2 K) D), from d_out (T, H D) and what `attend` gave."""
    longest = np.max(starts[1:] - starts[:-1])
    room = room_for(longest)
    keys, turned, values, queries = buffers(longest, room, size)
    d_keys, turned_values, d_values, d_queries = buffers(longest, room, size)
    given = np.empty(longest * size, np.float32)  # d_out of a head
    scores, d_scores = np.empty(CHUNK * room, np.float32), np.empty(CHUNK * room, np.float32)
    across, d_across = np.empty(room * CHUNK, np.float32), np.empty(room * CHUNK, np.float32)
    group = heads // kv_heads
    for s in range(len(starts) - 1):
        first, n = starts[s], starts[s + 1] - starts[s]
        for k in range(kv_heads):
            rotate(qkv, first, n, (heads + k) * size, cos, sin, size, keys)
            turn(keys, n, size, room, turned)
            copy(qkv, first, n, (heads + kv_heads + k) * size, size, values)
            turn(values, n, size, room, turned_values)
            d_keys[: n * size] = np.float32(0)
            d_values[: n * size] = np.float32(0)
            for h in range(k * group, (k + 1) * group):
                rotate(qkv, first, n, h * size, cos, sin, size, queries)
                copy(d_out, first, n, h * size, size, given)
                for begin in range(0, n, CHUNK):
                    end = min(begin + CHUNK, n)
                    against_panels(queries, begin, end, size, turned, room, end, scores)
                    against_panels(given, begin, end, size, turned_values, room, end, d_scores)
                    for row in range(begin, end):
                        at = (row - begin) * room
                        mean = np.float32(0)
                        for d in range(size):
                            mean += given[row * size + d] * to_fp32(out[first + row, h * size + d])
                        differentiate(
                            scores[at : at + end], d_scores[at : at + end], max(0, row + 1 - window), row + 1,
                            scaling, totals[h, first + row], mean,
                        )  # fmt: skip
                    against_rows(d_scores, room, end - begin, end, keys, size, d_queries[begin * size :], False)
                    transpose(scores, room, end - begin, end, across)
                    transpose(d_scores, room, end - begin, end, d_across)
                    against_rows(across, CHUNK, end, end - begin, given[begin * size :], size, d_values, True)
                    against_rows(d_across, CHUNK, end, end - begin, queries[begin * size :], size, d_keys, True)
                rotate_back(d_queries, first, n, h * size, cos, sin, size, d_qkv)
            rotate_back(d_keys, first, n, (heads + k) * size, cos, sin, size, d_qkv)
            for row in range(n):
                for d in range(size):
                    at = (heads + kv_heads + k) * size + d
                    d_qkv[first + row, at] = from_fp32(d_values[row * size + d], d_qkv)


# --- one head of one sequence: flat arrays (n, D), and turned ones (D, room)


@compiled
def room_for(tokens):
    """Columns that so many tokens' scores take."""
    return (tokens + WIDE - 1) // WIDE * WIDE


@compiled
def turned_block(block, column, room, out):
    """Keys of a block (D / 2, BLOCK, 2) to columns of out (D, room)."""
    for d in range(len(block)):
        pairs = block[d]
        for part in range(2):
            row = out[(2 * d + part) * room + column : (2 * d + part) * room + column + BLOCK]
            for t in range(BLOCK):
                row[t] = to_fp32(pairs[t, part])


@compiled
def block_values(block, row, size, out):
    """Values of a block (BLOCK / 2, D, 2) to rows of out (n, D)."""
    for t in range(len(block)):
        pairs = block[t]
        for part in range(2):
            own = out[(row + 2 * t + part) * size : (row + 2 * t + part + 1) * size]
            for d in range(size):
                own[d] = to_fp32(pairs[d, part])


@compiled
def buffers(longest, room, size):
    whole = (longest + CHUNK) * size
    return (
        np.empty(whole, np.float32), np.zeros(size * room, np.float32), np.empty(whole, np.float32), np.empty(whole, np.float32)
    )  # fmt: skip


@inlined
def rotate(x, first, n, column, cos, sin, size, out):
    """The tokens' head at `column` of x, rotated."""
    half = cos.shape[1]
    for i in range(n):
        row = x[first + i, column : column + size]
        own = out[i * size : (i + 1) * size]
        for d in range(half):
            a, b = to_fp32(row[d]), to_fp32(row[half + d])
            own[d] = a * cos[first + i, d] - b * sin[first + i, d]
            own[half + d] = b * cos[first + i, d] + a * sin[first + i, d]
        for d in range(2 * half, size):
            own[d] = to_fp32(row[d])


@inlined
def rotate_back(x, first, n, column, cos, sin, size, out):
    """The gradient of what `rotate` was given: to `column` of out."""
    half = cos.shape[1]
    for i in range(n):
        own = x[i * size : (i + 1) * size]
        row = out[first + i, column : column + size]
        for d in range(half):
            a, b = own[d], own[half + d]
            row[d] = from_fp32(a * cos[first + i, d] + b * sin[first + i, d], out)
            row[half + d] = from_fp32(b * cos[first + i, d] - a * sin[first + i, d], out)
        for d in range(2 * half, size):
            row[d] = from_fp32(own[d], out)


@compiled
def copy(x, first, n, column, size, out):
    """The tokens' head at `column` of x."""
    for i in range(n):
        row = x[first + i, column : column + size]
        own = out[i * size : (i + 1) * size]
        for d in range(size):
            own[d] = to_fp32(row[d])


@compiled
def turn(x, n, size, room, out):
    """x (n, D) -> out (D, room), of which columns after n are of no account but finite."""
    for d in range(size):
        row = out[d * room : d * room + n]
        for i in range(n):
            row[i] = x[i * size + d]


@compiled
def transpose(x, room, rows, columns, out):
    """x (rows, room) -> out (columns, CHUNK)."""
    for row in range(rows):
        own = x[row * room : row * room + columns]
        for column in range(columns):
            out[column * CHUNK + row] = own[column]


@compiled
def against_panels(x, begin, end, size, turned, room, columns, out):
    """Rows `begin` to `end` - 1 of x (n, D) times turned (D, room): the first `columns` of out (rows, room), and up to WIDE - 1
    more."""
    for row in range(begin, end, ROWS):
        count = min(ROWS, end - row)
        for column in range(0, columns, WIDE):
            tile(
                x, row * size, size, turned, column, LANES, room, None, size,
                out, (row - begin) * room + column, room, count, ROWS, VECTORS, 0, 1,
            )  # fmt: skip


@compiled
def against_rows(x, width, rows, count, weights, size, out, add):
    """x (rows, width), of which `count` columns count, times weights (count, D): out (rows, D), or added to it if `add`."""
    if not add:
        out[: rows * size] = np.float32(0)
    for row in range(0, rows, ROWS):
        at, left = row * width, min(ROWS, rows - row)
        if size % WIDE == 0:
            for d in range(0, size, WIDE):
                tile(
                    x, at, width, weights, d, LANES, size, None, count, out, row * size + d, size, left, ROWS, VECTORS, 1, 1
                )  # fmt: skip
        else:
            for d in range(0, size, LANES):
                tile(x, at, width, weights, d, LANES, size, None, count, out, row * size + d, size, left, ROWS, 1, 1, 1)


@inlined
def normalise(scores, first, end, scaling):
    """Scores become weights from `first` to `end` - 1, and zero elsewhere. Returns the log-sum-exp."""
    own = scores[first:end]
    highest, total = weigh(own, scaling)
    share = np.float32(1) / total
    for i in range(len(own)):
        own[i] *= share
    scores[:first] = np.float32(0)
    scores[end:] = np.float32(0)
    return highest * scaling + np.log(total)


@inlined
def differentiate(scores, d_weights, first, end, scaling, total, mean):
    """Scores become weights, and the gradients of weights those of the scores, from `first` to `end` - 1; zero elsewhere."""
    own, given = scores[first:end], d_weights[first:end]
    for i in range(len(own)):
        own[i] = exp(own[i] * scaling - total)
    for i in range(len(own)):
        given[i] = own[i] * (given[i] - mean) * scaling
    scores[:first] = np.float32(0)
    scores[end:] = np.float32(0)
    d_weights[:first] = np.float32(0)
    d_weights[end:] = np.float32(0)
