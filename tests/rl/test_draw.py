"""What is drawn is a function of seed and step, or of the state; every problem has its turn."""

from hypothesis import given
from hypothesis import strategies as st

from tests.rl.worlds import group, setup
from whetstone.rl.algorithm import Draw
from whetstone.rl.draw import once, walk, window


def test_a_step_draws_once():
    draw = once(setup(count=6, prompts=4, samples=8, temperature=0.9))
    first = draw({}, 0, [])
    assert len(first.problems) == 4 and first.counts == [8] * 4 and first.temperature == 0.9
    assert draw({}, 0, [group("p0", "+-")]) == Draw()


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_of_steps_meets_every_prompt(count, size, seed, epoch):
    steps = [s for s in range((epoch + 1) * count) if epoch * count < (s + 1) * size and s * size < (epoch + 1) * count]
    drawn = [window(count, size, step, seed) for step in steps]
    assert {i for step in drawn for i in step} == set(range(count))
    assert all(len(step) == len(set(step)) == min(size, count) for step in drawn)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 3))
def test_if_the_step_size_divides_the_prompts_each_is_drawn_once_per_epoch(steps, size, seed):
    epochs = [[i for s in range(steps) for i in window(steps * size, size, e * steps + s, seed)] for e in range(2)]
    assert all(sorted(epoch) == list(range(steps * size)) for epoch in epochs)


def test_the_draw_is_a_function_of_seed_and_step():
    assert window(50, 8, 3, 1) == window(50, 8, 3, 1)
    assert window(50, 8, 3, 1) != window(50, 8, 3, 2) and window(50, 8, 3, 1) != window(50, 8, 4, 1)


@given(st.integers(1, 20), st.integers(0, 60), st.integers(1, 25), st.sets(st.integers(0, 19)))
def test_a_walk_has_no_index_twice_and_none_that_is_left_out(count, start, size, without):
    without = {i for i in without if i < count}
    chosen, at = walk(count, start, size, 0, without)
    assert len(chosen) == len(set(chosen)) == min(size, count - len(without))
    assert not set(chosen) & without and at >= start + len(chosen)
