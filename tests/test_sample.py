"""Sampling: the order asked for, each graded while the others decode, and a kill costs nothing but time."""

import threading

import pytest

from tests.scripted import Grader, Killed, Scripted, problem
from whetstone.learner.parallel import ProcessGroup
from whetstone.records import Sampling, Verdict
from whetstone.sample import sample_groups, sample_journalled, share_of, share_right

PROBLEMS = [problem(f"p{i}", answer="1") for i in range(5)]


def backwards(prompts):
    return prompts[::-1]


def test_rollouts_come_in_the_order_asked_whatever_finishes_first():
    groups = sample_groups(Scripted(order=backwards), PROBLEMS, [1, 2, 3, 0, 1], Sampling(0.7), Grader())
    asked = [("p0", 0), ("p1", 0), ("p1", 1), ("p2", 0), ("p2", 1), ("p2", 2), ("p4", 0)]
    assert [(r.problem_id, r.index) for group in groups for r in group] == asked
    assert [len(group) for group in groups] == [1, 2, 3, 0, 1]
    assert groups[2][1].correct is True and groups[2][0].correct is False  # "p2/1" holds the answer 1
    assert {r.temperature for group in groups for r in group} == {0.7}


def test_the_system_turn_of_a_problem_comes_before_its_question():
    said = []
    generator = Scripted(lambda prompt, sampling: said.append([(m.role, m.content) for m in prompt.messages]) or "1")
    sample_groups(generator, [problem("p0", system="Be brief."), PROBLEMS[1]], 1, Sampling(), Grader())
    assert said == [[("system", "Be brief."), ("user", "p0?")], [("user", "p1?")]]


def test_more_rollouts_of_a_problem_go_on_after_those_it_has():
    generator = Scripted()
    (group,) = sample_groups(generator, PROBLEMS[:1], 2, Sampling(), Grader(), first=4)
    assert [r.index for r in group] == [4, 5] and generator.asked == [("p0", 4), ("p0", 5)]


def test_a_verdict_is_asked_for_while_the_others_decode():
    graded = threading.Event()

    class Watching(Grader):
        def check(self, text, gold, policy="math"):
            graded.set()
            return Verdict(True, "equal")

    def text(prompt, sampling):
        if prompt.index == 1:
            assert graded.wait(10), "the first answer was not graded before the second was decoded"
        return "1"

    sample_groups(Scripted(text), PROBLEMS[:1], 2, Sampling(), Watching())


def journalled(tmp_path, generator):
    return sample_journalled(generator, PROBLEMS, 3, Sampling(), Grader(), tmp_path / "journal.jsonl", "test", block=6)


@pytest.mark.parametrize("dies_after", range(15))
def test_after_a_kill_the_result_is_that_of_an_undisturbed_run(tmp_path, dies_after):
    undisturbed = journalled(tmp_path / "one", Scripted())
    dying, second = Scripted(order=backwards), Scripted()
    dying.dies_after = dies_after
    with pytest.raises(Killed):
        journalled(tmp_path, dying)
    assert journalled(tmp_path, second) == undisturbed
    finished_blocks = dies_after // 6
    assert len(second.asked) == 15 - 6 * finished_blocks


@pytest.mark.parametrize("cut", [1, 40, 400, 900])
def test_a_block_of_which_a_kill_left_a_part_is_sampled_again_whole(tmp_path, cut):
    undisturbed = journalled(tmp_path, Scripted())
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes()
    for _ in range(2):  # and once more, over what the first repair appended
        journal.write_bytes(journal.read_bytes()[:-cut])
        assert journalled(tmp_path, Scripted()) == undisturbed
    assert len(lines.splitlines()) == 15


def test_a_finished_journal_asks_for_nothing(tmp_path):
    journalled(tmp_path, Scripted())
    again = Scripted()
    journalled(tmp_path, again)
    assert again.asked == []


def test_undecided_rollouts_are_not_in_the_share_of_right_ones():
    (group,) = sample_groups(Scripted(lambda p, s: ["1", "?", "2"][p.index]), PROBLEMS[:1], 3, Sampling(), Grader())
    assert [r.correct for r in group] == [True, None, False]
    assert share_right(group) == 0.5 and share_right(group[1:2]) == 0


class Interrupted(Scripted):
    """Ctrl-C after so many answers; once."""

    def __init__(self, after: int, **more):
        super().__init__(**more)
        self.after = after

    def generate(self, prompts, sampling):
        for done in super().generate(prompts, sampling):
            if self.after == 0:
                self.after = -1
                self.asked.pop()
                raise KeyboardInterrupt
            self.after -= 1
            yield done


@pytest.mark.parametrize("after", range(15))
def test_what_is_finished_at_ctrl_c_is_kept_and_nothing_is_sampled_twice(tmp_path, after):
    undisturbed = journalled(tmp_path / "one", Scripted())
    first, second = Interrupted(after, order=backwards), Scripted()
    with pytest.raises(KeyboardInterrupt):
        journalled(tmp_path, first)
    assert len(first.asked) == after
    assert journalled(tmp_path, second) == undisturbed
    assert sorted([*first.asked, *second.asked]) == sorted((r.problem_id, r.index) for g in undisturbed for r in g)


def test_ctrl_c_twice_in_one_block_keeps_both_parts(tmp_path):
    undisturbed = journalled(tmp_path / "one", Scripted())
    runs = [Interrupted(2, order=backwards), Interrupted(3), Scripted()]
    for generator in runs[:2]:
        with pytest.raises(KeyboardInterrupt):
            journalled(tmp_path, generator)
    assert journalled(tmp_path, runs[2]) == undisturbed
    assert sum(len(generator.asked) for generator in runs) == 15


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_processes_share_what_is_asked_evenly_and_in_order_some_may_have_nothing(count):
    shares = []
    for rank in range(count):
        process_group = ProcessGroup()
        process_group.rank, process_group.count = rank, count
        shares.append(share_of(PROBLEMS, process_group))
    assert [one for share in shares for one in share] == PROBLEMS
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert share_of(PROBLEMS, None) == PROBLEMS
