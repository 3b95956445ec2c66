"""A run that is killed with `kill -9` at random moments and started again ends with the bits of an undisturbed one."""

import random
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import after, bits, finish, kill_when, start

SMOKE = Path(__file__).parent.parent / "recipes" / "smoke.toml"


# The others train all weights
ADAPTERS = ("--set", "sft.adapter={rank = 4}", "--set", "rl.adapter={rank = 4, dora = true}")


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_bits_of_an_undisturbed_one(tmp_path):
    wall = finish(SMOKE, tmp_path / "undisturbed", *ADAPTERS)
    expected = bits(tmp_path / "undisturbed" / "smoke")
    assert {f"{number}/model" for number in ("04-midtrain", "05-sft", "06-dpo", "07-rl")} <= set(expected)
    rng = random.Random(2)
    kills = sum(
        kill_when(start(SMOKE, tmp_path / "killed", *ADAPTERS), after(rng.uniform(0.3, 0.6) * wall)) for _ in range(2)
    )
    assert kills, "the run ended before the first kill"
    finish(SMOKE, tmp_path / "killed", *ADAPTERS)
    assert bits(tmp_path / "killed" / "smoke") == expected
