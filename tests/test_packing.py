"""Packing and the plan of steps equal plain Python references, for any input."""

import bisect
import random
from itertools import islice, zip_longest

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whetstone.batch import Row, micro_batches, pack, pack_in_order
from whetstone.learner.order import order, plan_steps, short_first
from whetstone.learner.replicas import divide

LENGTHS = st.lists(st.integers(1, 40), max_size=120)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=40)


def best_fit_decreasing(lengths, room):
    """Reference: one sequence after the other."""
    open_rows, rows = [], []  # (room left, row), sorted
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > room:
            continue
        at = bisect.bisect_left(open_rows, (lengths[i], 0))
        if at < len(open_rows):
            left, row = open_rows.pop(at)
            rows[row].append(i)
        else:
            left, row = room, len(rows)
            rows.append([i])
        if left > lengths[i]:
            bisect.insort(open_rows, (left - lengths[i], row))
    return rows


def next_fit(lengths, indices, room):
    rows, left = [], 0
    for i in indices:
        if lengths[i] > room:
            continue
        if lengths[i] > left:
            rows.append([])
            left = room
        rows[-1].append(i)
        left -= lengths[i]
    return rows


def walk(sizes, budget, seed, epochs, tokens, first):
    """Reference: step after step, item after item."""
    limit = min(int(epochs * sum(sizes)), tokens or int(epochs * sum(sizes)))
    steps, step, used, spent, epoch = [], [], 0, 0, 0
    while spent < limit:
        indices = list(range(len(sizes)))
        random.Random(f"{seed}/{epoch}").shuffle(indices)
        for i in first if first is not None and epoch == 0 else indices:
            step.append(i)
            used += sizes[i]
            spent += sizes[i]
            if used >= budget:
                steps.append(step)
                step, used = [], 0
            if spent >= limit:
                break
        epoch += 1
    return [*steps, step] if step else steps


@given(LENGTHS, st.integers(1, 60))
def test_best_fit_decreasing_equals_placing_one_sequence_after_the_other(lengths, room):
    packed = pack(lengths, room)
    assert list(packed) == best_fit_decreasing(lengths, room)
    assert sorted(i for row in packed for i in row) == [i for i, n in enumerate(lengths) if n <= room]
    assert packed.sizes(lengths).tolist() == [sum(lengths[i] for i in row) for row in packed]
    assert max(packed.sizes(lengths), default=0) <= room


@given(LENGTHS, st.integers(1, 60), st.randoms(use_true_random=False))
def test_rows_filled_in_order_keep_the_order(lengths, room, rng):
    indices = list(range(len(lengths)))
    rng.shuffle(indices)
    assert list(pack_in_order(lengths, indices, room)) == next_fit(lengths, indices, room)


def test_twenty_thousand_lengths_are_packed_tightly_and_as_by_the_reference():
    rng = random.Random(0)
    lengths = [min(4096, int(rng.lognormvariate(6.5, 0.8)) + 1) for _ in range(20_000)]
    packed = pack(lengths, 4096)
    assert list(packed) == best_fit_decreasing(lengths, 4096)
    assert sum(lengths) > 0.999 * 4096 * len(packed)


def test_devices_with_equal_shares_of_a_step_wait_little_for_each_other():
    """Turn by turn all wait for the slowest. A 3.8B model's cost of n tokens is about n (1 + n / 40,000); n is 64 times that
    of the rows here, which are long chains of thought in micro-batches of 16,384 tokens."""
    rng = random.Random(0)
    devices, budget, spent, ideal = 8, 256, 0.0, 0.0
    for _ in range(10):
        lengths = [max(3, min(budget, int(rng.lognormvariate(8.3, 0.8) / 64))) for _ in range(90)]
        shares = [[[Row([1] * lengths[i])] for i in part] for part in divide(lengths, devices)]
        costs = [
            [sum(n * (1 + 64 * n / 40_000) for n in batch.lengths) for batch in micro_batches(share, budget)]
            for share in shares
        ]
        spent += devices * sum(map(max, zip_longest(*costs, fillvalue=0.0)))
        ideal += sum(map(sum, costs))
    assert spent < 1.15 * ideal


@given(
    SIZES,
    st.integers(1, 80),
    st.integers(0, 3),
    st.sampled_from([0.01, 0.3, 1.0, 1.5, 3.0]),
    st.sampled_from([0, 1, 50, 500]),
    st.booleans(),
)
def test_the_plan_equals_the_reference_for_every_step(sizes, budget, seed, epochs, tokens, ordered):
    assume(int(epochs * sum(sizes)) >= 1)  # less is refused
    first = range(len(sizes)) if ordered else None
    plan, steps = (
        plan_steps(sizes, budget, seed, epochs, tokens, first),
        walk(sizes, budget, seed, epochs, tokens, first),
    )
    assert len(plan) == len(steps)
    for step in random.Random(seed).sample(range(len(steps)), len(steps)):
        assert plan[step] == steps[step]
    assert list(plan) == steps


@given(SIZES, st.integers(1, 80), st.integers(1, 3))
def test_every_item_comes_once_per_epoch(sizes, budget, epochs):
    walked = (i for step in plan_steps(sizes, budget, 0, epochs) for i in step)
    for _ in range(epochs):
        assert sorted(islice(walked, len(sizes))) == list(range(len(sizes)))
    assert next(walked, None) is None


def test_no_items_make_no_steps():
    assert list(plan_steps([], 8, 0, 1.0)) == [] == list(pack([], 8)) == list(pack_in_order([], [], 8))
    with pytest.raises(IndexError, match="step 0 of 0"):
        plan_steps([], 8, 0, 1.0)[0]


@pytest.mark.parametrize(("count", "largest", "steps", "tokens"), [(50, 9, 7, 400), (8, 9, 20, 1000), (9, 1, 9, 9)])
def test_steps_share_the_tokens_evenly_and_without_drift(count, largest, steps, tokens):
    """By the definition: step k ends with the first item with which k / steps of the tokens are spent."""
    rng = random.Random(1)
    sizes = [rng.randint(1, largest) for _ in range(count)]
    plan = plan_steps(sizes, 8, 0, 10**6, tokens, steps=steps)
    assert len(plan) == steps
    spent = 0
    for k, step in enumerate(plan, 1):
        before = spent + sum(sizes[i] for i in step[:-1])
        spent += sum(sizes[i] for i in step)
        assert before < k * tokens / steps <= spent
    assert tokens <= spent < tokens + largest
    assert len(plan_steps([10, 10], 8, 0, 1.0, steps=5)) == 2, "a step has one item at least"


@given(st.integers(1, 300), st.integers(0, 3), st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=30)
def test_orders_equal_those_of_python_lists(count, seed, share):
    indices = list(range(count))
    random.Random(f"{seed}/2").shuffle(indices)
    assert order(count, seed, 2).tolist() == indices
    lengths = [1 + 37 * i % 90 for i in range(count)]
    rng = random.Random(f"{seed}/short first")
    shuffled = list(range(count))
    rng.shuffle(shuffled)
    keys = [length * (1 + rng.random()) for length in lengths]
    upto = round(share * count)
    expected = sorted(shuffled[:upto], key=keys.__getitem__) + shuffled[upto:]
    assert short_first(lengths, seed, share).tolist() == expected
