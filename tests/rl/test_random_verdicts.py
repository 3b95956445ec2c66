"""Verdicts drawn at random: they know nothing of the answers, and a run with them resumes to the bit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rl.test_loop import room
from tests.scripted import Killed, Scripted, kill_after, problem, rollout
from tests.tiny_world import logged
from whetstone.records import Verdict
from whetstone.rl import groups, loop
from whetstone.rl.build import build
from whetstone.rl.kept_rollouts import ROLLOUTS, KeptRollouts
from whetstone.rl.random_verdicts import random_verdicts
from whetstone.run.folder import hash_folder
from whetstone.run.tables import read_rows
from whetstone.sample import RIGHT_ROLLOUTS


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["", "4", "\\boxed{4}"]),
    st.sampled_from([True, False, None]),
    st.integers(0, 3),
    st.sampled_from(["end", "length"]),
)
def test_a_verdict_depends_on_seed_step_problem_and_number_alone(text, correct, index, stop):
    judge, plain = random_verdicts(0.5, seed=1), rollout("a", index)
    other = replace(plain, text=text, correct=correct, stop=stop, answer=text, ids=[1], logprobs=[-9.0])
    assert judge(3, other).correct is judge(3, plain).correct is not None


def test_the_share_of_right_verdicts_is_the_one_asked_for_and_steps_differ():
    judge = random_verdicts(0.3, seed=0)
    draws = [[judge(step, rollout("a", i)).correct for i in range(500)] for step in range(4)]
    assert sum(map(sum, draws)) / 2000 == pytest.approx(0.3, abs=0.04)  # four standard deviations
    assert len({tuple(row) for row in draws}) == 4
    assert draws[0] != [random_verdicts(0.3, seed=9)(0, rollout("a", i)).correct for i in range(500)]


class Verifier:
    """Always of one opinion."""

    def __init__(self, correct):
        self.correct = correct

    def check(self, text, gold, policy="math"):
        return Verdict(self.correct, "timeout" if self.correct is None else "")


@pytest.mark.parametrize(
    "settings",
    [{}, {"stabilisers": []}, {"algorithm": "dapo"}, {"algorithm": "srpo"}, {"reward": "zero_one"}],
    ids=["the paper's", "plain", "dapo", "srpo", "zero_one"],
)
def test_what_is_drawn_kept_and_rewarded_is_the_same_whatever_the_verifier_says(settings):
    problems = [problem(name) for name in "abcdef"]
    seen = []
    for correct in (True, False, None):
        chosen = loop.Settings(kind="rl", prompts_per_step=3, samples=4, random_verdicts=0.4, **settings)
        algorithm, judge = build(chosen, problems, seed=5), random_verdicts(0.4, 5)
        state: dict = {}
        drawn, _ = groups.sample_step(Scripted(), Verifier(correct), algorithm, state, 0, 40, 0, judge=judge)
        kept = algorithm.keep(state, 0, drawn)
        seen.append([[(r.problem_id, r.index, r.correct, r.reward) for r in g.rollouts] for g in (*drawn, *kept)])
        right = sum(g.sampled for g in drawn) if correct else 0
        assert groups.describe(drawn, kept, 1.0)["verified_accuracy"] == right / sum(g.sampled for g in drawn)
    assert seen[0] == seen[1] == seen[2]
    assert {reward for group in seen[0] for *_, reward in group} == ({0, 1} if "reward" in settings else {-1, 1})


def test_a_reward_that_reads_the_answer_is_refused():
    with pytest.raises(
        ValueError, match=r"random_verdicts = 0\.5 with reward = 'format': other rewards read the answer"
    ):
        loop.Settings(kind="rl", random_verdicts=0.5, reward="format")


def test_after_a_kill_the_model_and_the_kept_right_rollouts_are_those_of_an_undisturbed_run(
    tmp_path, world, adder, monkeypatch
):
    def prepared(folder):
        return replace(room(folder, world, adder, random_verdicts=0.3, steps=3), wanted=(RIGHT_ROLLOUTS,))

    summary = loop.run(prepared(tmp_path / "one"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        loop.run(prepared(tmp_path / "two" / "one"))
    assert loop.run(prepared(tmp_path / "two" / "one")) == summary
    for artifact in ("model", RIGHT_ROLLOUTS):
        assert hash_folder(tmp_path / "two" / "one" / artifact) == hash_folder(tmp_path / "one" / artifact)
    rewards = logged(tmp_path / "one", "reward")
    assert summary["right"] == pytest.approx(0.3, abs=0.25) and rewards == logged(tmp_path / "two" / "one", "reward")
    assert logged(tmp_path / "one", "verified_accuracy") != logged(tmp_path / "one", "accuracy")


def test_a_step_that_is_done_again_replaces_what_it_kept(tmp_path, world, adder):
    stage = replace(room(tmp_path / "r", world, adder), wanted=(RIGHT_ROLLOUTS,))

    class Alone:
        main = True

    def of(name: str, count: int, step: int = 0) -> list[groups.Group]:
        return [groups.Group(problem(name), [rollout(name, i) for i in range(count)], step=step)]

    kept = KeptRollouts(stage, Alone())
    kept.add(0, of("a", 1), [])
    kept.add(1, of("b", 3), [])
    for step in (2, 3):
        kept.add(step, of("b", 1), [])  # training goes back, and then ends before step 3
    unsure = replace(rollout("e", 2, None), reward=None)
    unfit = groups.Group(
        problem("e"), [rollout("e", 0, False), rollout("e", 1, True, 3, "length")], undecided=[unsure], step=2
    )
    kept = KeptRollouts(stage, Alone())
    kept.add(1, of("c", 2), of("c", 1, 1))
    kept.add(2, [*of("d", 1), unfit], [unfit])
    kept.finish(3)
    rows = list(read_rows(stage.folder / RIGHT_ROLLOUTS))
    assert [(row["problem_id"], row["index"]) for row in rows] == [("a", 0), ("c", 0), ("c", 1), ("d", 0)]
    rows = [
        (r["step"], r["problem_id"], r["index"], r["correct"], r["trained"]) for r in read_rows(stage.folder / ROLLOUTS)
    ]
    assert rows == [
        (1, "a", 0, True, False),
        (2, "c", 0, True, True),
        (2, "c", 1, True, False),
        (3, "d", 0, True, False),
        (3, "e", 0, False, True),
        (3, "e", 1, True, True),
        (3, "e", 2, None, False),
    ]
    begun_without = replace(room(tmp_path / "t", world, adder), wanted=(RIGHT_ROLLOUTS,))
    with pytest.raises(
        ValueError, match=r"t was begun without keeping .* first 4 steps are not there\. Leave the control out"
    ):
        KeptRollouts(begun_without, Alone()).add(4, of("a", 1), [])
    unwanted = room(tmp_path / "s", world, adder)
    for keep in (True, False):
        kept = KeptRollouts(unwanted, Alone(), keep)
        kept.add(0, of("a", 1), [])
        kept.finish(1)
        assert [path.name for path in (tmp_path / "s").iterdir()] == [ROLLOUTS], (
            "the right ones apart only for a control"
        )
