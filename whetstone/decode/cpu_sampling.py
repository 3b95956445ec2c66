"""The choice of a token from logits on a CPU, compiled by numba: one or a few passes over a row, and never a full sort.

Top-k and top-p need to know which token is the last that stays. Tokens are counted, or their mass summed, in BUCKETS buckets
by how far their logit is below the highest. The bucket in which the limit is reached is found by that, and only its tokens are
sorted: some hundreds of a vocabulary of 262,144.

Letters: B rows, V vocabulary.
"""

import numpy as np

from whetstone.decode.cpu_kernels import BLOCK, compiled, exp

BUCKETS = 2048
WIDTH = np.float32(1 / 64)  # nats; farther tokens than BUCKETS * WIDTH are in the last one


@compiled
def sample(logits, temperature, top_k, top_p, min_p, draws, tokens, logprobs):
    """A token of each row of finite logits (B, V) by its draw from [0, 1): tokens (B,), logprobs (B,).

    The temperature is above 0. Top-k (0: off), top-p (1: off) and min-p (0: off) as in `sampling.truncate_logprobs`; of equal
    tokens at the limit those with the lowest ids stay.
    """
    size = logits.shape[1]
    mass = np.empty((size + BLOCK - 1) // BLOCK, np.float64)  # cumulative, after each BLOCK tokens
    weights = np.empty(size, np.float32)
    inverse = np.float32(1) / temperature
    for i in range(logits.shape[0]):
        row = logits[i]
        highest = row[0]
        for v in range(1, size):
            highest = max(highest, row[v])
        for v in range(size):
            weights[v] = exp((row[v] - highest) * inverse)
        if 0 < top_k < size:
            _keep(row, highest, inverse, weights, float(top_k), True)
        if top_p < 1:
            _keep(row, highest, inverse, weights, top_p, False)
        if min_p > 0:
            for v in range(size):
                weights[v] = weights[v] if weights[v] >= min_p else np.float32(0)
        token, total = _drawn(weights, draws[i], mass)
        tokens[i] = token
        logprobs[i] = (row[token] - highest) * inverse - np.float32(np.log(total))


@compiled
def _drawn(weights, draw, mass):
    """(the token that a draw from [0, 1) falls on, the sum of the weights). `mass` is a buffer."""
    size = len(weights)
    total = 0.0
    for b in range(len(mass)):
        part = np.float32(0)
        for v in range(b * BLOCK, min(size, (b + 1) * BLOCK)):
            part += weights[v]
        total += part
        mass[b] = total
    wanted = draw * total
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
    while token and weights[token] == 0:  # rounding led beyond the last token that stays
        token -= 1
    return token, total


@compiled
def _keep(row, highest, inverse, weights, limit, counting):
    """Set the weight of all tokens to 0 but for the likeliest: `limit` of them if `counting`, otherwise the fewest whose
    share of the weights is `limit` or more. One stays at least. Tokens with weight 0 are gone already."""
    amounts = np.zeros(BUCKETS, np.float64)
    for v in range(len(row)):
        if weights[v] > 0:
            amounts[_bucket(row[v], highest, inverse)] += 1.0 if counting else weights[v]
    if not counting:
        limit *= amounts.sum()
    reached, last = 0.0, 0
    while last + 1 < BUCKETS and reached + amounts[last] < limit:
        reached += amounts[last]
        last += 1
    members = np.empty(len(row), np.int64)
    count = 0
    for v in range(len(row)):
        bucket = _bucket(row[v], highest, inverse)
        if bucket > last:
            weights[v] = np.float32(0)
        elif bucket == last and weights[v] > 0:
            members[count] = v
            count += 1
    members = members[:count]
    for v in members[np.argsort(-row[members], kind="mergesort")]:  # stable: of equal ones the lowest id comes first
        if reached >= limit:
            weights[v] = np.float32(0)
        reached += 1.0 if counting else weights[v]


@compiled
def _bucket(logit, highest, inverse):
    number = np.int64(min((highest - logit) * inverse / WIDTH, np.float32(BUCKETS - 1)))
    return min(max(number, 0), BUCKETS - 1)  # also for a logit that is not a number


@compiled
def greedy(logits, tokens, logprobs):
    """The first of the most probable tokens of each row of logits (B, V), and its log-probability at temperature 1."""
    for i in range(logits.shape[0]):
        row = logits[i]
        token, highest = 0, row[0]
        for v in range(1, logits.shape[1]):
            if row[v] > highest:
                token, highest = v, row[v]
        total = np.float32(0)
        for v in range(logits.shape[1]):
            total += exp(row[v] - highest)
        tokens[i] = token
        logprobs[i] = -np.float32(np.log(np.float64(total)))
