"""A teacher behind a server: adaptive numbers of rollouts, shipped solutions first, nothing paid for twice."""

import doctest
import json
from collections import Counter

import pytest

from tests.servers import said, send, server
from whetstone.decode.server_generator import ServerError
from whetstone.decode.server_settings import request_seed
from whetstone.records import Problem, Trace, from_row
from whetstone.rollouts import collect, rounds
from whetstone.run.folder import Stage
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import Journal, read_rows, write_records

PROBLEMS = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(9)]


def build_stage(folder, address: str, problems=PROBLEMS, traces=(), teacher=None, **settings) -> Stage:
    write_records(folder / "problems", problems)
    write_records(folder / "traces", traces)
    asked = {
        "server": address,
        "model": "wise",
        "longest_pause": 0.02,
        "in_flight": 3,
        "retries": 0,
    }
    return Stage(
        name="rollouts",
        kind="rollouts",
        folder=folder / "02-rollouts",
        settings=collect.Settings(kind="rollouts", teacher=teacher or asked, block=4, **settings),
        inputs={"problems": folder / "problems", "traces": folder / "traces"},
        run=RunSettings(name="t"),
        model=ModelSettings(),
        parallel=ParallelSettings(),
        scores=ScoreSettings(),
    )


def rollouts(of: Stage) -> list[Trace]:
    return [from_row(Trace, row) for row in read_rows(of.folder / "rollouts")]


def dropped(of: Stage) -> dict[str, str]:
    return {row["problem_id"]: row["reason"] for row in read_rows(of.folder / "dropped")}


def number(body: dict) -> int:
    return int(body["messages"][-1]["content"].split()[2])


def knows(handler, body, attempt):
    """Right from the third time on for question 5, never for question 7, always for the others."""
    asked = number(body)
    right = asked != 7 and (asked != 5 or attempt >= 3)
    send(handler, said(f"\\boxed{{{asked + 1 if right else 99}}}", reasoning_content="hm"))


def test_docstring_examples_are_true():
    assert doctest.testmod(rounds).failed == 0


def test_more_is_asked_where_too_little_is_right_and_no_more_than_the_most(tmp_path):
    with server(knows) as (address, world):
        stage = build_stage(tmp_path, address, samples=2, enough=1, most=7)
        summary = collect.run(stage)
    answers = rollouts(stage)
    asked = {problem.id: [t.index for t in answers if t.problem_id == problem.id] for problem in PROBLEMS}
    assert asked == {p.id: [0, 1] for p in PROBLEMS} | {"p5": [0, 1, 2, 3], "p7": [0, 1, 2, 3, 4, 5, 6]}
    assert [t.problem_id for t in answers] == sorted(t.problem_id for t in answers), "in the order of the problems"
    assert {t.text for t in answers if t.problem_id == "p0"} == {"<think>\nhm\n</think>\n\n\\boxed{1}"}
    assert {t.teacher for t in answers} == {"wise"}
    assert (summary["right"], summary["wrong"]) == (7 * 2 + 2, 2 + 7)
    assert (summary["tokens_in"], summary["tokens_out"]) == (25 * 10, 25 * 20)
    assert all(body["messages"][-1]["content"].endswith("within \\boxed{}.") for body in world.bodies)


def test_shipped_solutions_are_verified_and_nobody_is_asked_for_them(tmp_path):
    traces = [
        Trace("p3", 0, "So it is \\boxed{4}.", "set"),
        Trace("p1", 0, "\\boxed{3}", "set"),
        Trace("p3", 1, "\\boxed{4}", "set"),
    ]
    with server(knows) as (address, world):
        stage = build_stage(tmp_path, address, traces=traces, samples=1)
        collect.run(stage)
    answers = {(t.problem_id, t.index): (t.teacher, t.correct) for t in rollouts(stage)}
    assert answers["p3", 0] == answers["p3", 1] == ("set", True)
    assert answers["p1", 0] == ("set", False)
    assert answers["p2", 0] == ("wise", True)
    assert sorted(map(number, world.bodies)) == [0, 2, 4, 5, 6, 7, 8]
    assert not list(stage.folder.glob("*.sqlite"))


def test_without_a_teacher_only_shipped_solutions_are_kept(tmp_path):
    problems = [*PROBLEMS[:2], Problem("chat", "Hello?", "")]
    traces = [Trace("p1", 0, "\\boxed{2}", "set"), Trace("chat", 0, "Hello!", "set")]
    stage = build_stage(tmp_path, "", problems, traces, teacher="none")
    collect.run(stage)
    assert [(t.problem_id, t.correct, t.reason) for t in rollouts(stage)] == [
        ("p1", True, "equal"),
        ("chat", None, "no reference answer"),
    ]
    assert "ships no worked solution" in dropped(stage)["p0"]


@pytest.mark.parametrize("writes", [1, 3, 4])
def test_a_killed_stage_pays_for_nothing_twice(tmp_path, monkeypatch, writes):
    class Killed(BaseException):
        pass

    appended = collect.Journal.append
    calls = 0

    def dies(self, rows):
        nonlocal calls
        appended(self, rows)
        calls += 1
        if calls == writes:
            raise Killed

    with server(knows) as (address, world):
        undisturbed = build_stage(tmp_path / "undisturbed", address, samples=4, enough=1, most=8)
        collect.run(undisturbed)
        world.tries.clear()
        asked_whole = len(world.bodies)
        world.bodies.clear()

        stage = build_stage(tmp_path / "killed", address, samples=4, enough=1, most=8)
        monkeypatch.setattr(collect.Journal, "append", dies)
        with pytest.raises(Killed):
            collect.run(stage)
        monkeypatch.setattr(collect.Journal, "append", appended)
        kept = [json.loads(line) for line in (stage.folder / "journal.jsonl").read_text().splitlines()]
        assert 0 < len(kept) < asked_whole
        collect.run(stage)
    again = {(t.problem_id, t.index) for t in rollouts(stage)}
    assert again == {(t.problem_id, t.index) for t in rollouts(undisturbed)}
    assert len(rollouts(stage)) == len(again), "nothing doubled"
    asked = Counter(body["seed"] for body in world.bodies)
    answers = [(trace["problem_id"], trace["index"]) for row in kept for trace in row["traces"]]
    paid = {request_seed(stage.seed, *answer) for answer in answers}
    assert {asked[seed] for seed in paid} == {1}, "what is journalled is not asked again"


def test_a_prompt_that_fails_to_the_end_is_dropped_with_its_reason(tmp_path):
    def fails(handler, body, attempt):
        if number(body) == 2:
            send(handler, "oops", 500)
        else:
            knows(handler, body, attempt)

    with server(fails) as (address, _):
        stage = build_stage(tmp_path, address, samples=2)
        collect.run(stage)
    assert dropped(stage) == {"p2": "the server failed: status 500: oops"}
    assert len(rollouts(stage)) == 16


def test_what_was_answered_before_the_server_failed_is_kept(tmp_path):
    """The server is gone after the fifth answer: five are journalled, fewer than are synced together."""

    def dies(handler, body, attempt):
        if len(world.bodies) > 5:
            send(handler, "gone", 401)
        else:
            knows(handler, body, attempt)

    with server(dies) as (address, world):
        teacher = {"server": address, "model": "wise", "in_flight": 1}
        stage = build_stage(tmp_path, address, samples=1, teacher=teacher)
        with pytest.raises(ServerError):
            collect.run(stage)
        world.bodies.clear()
        collect.run(stage)
    assert sorted(map(number, world.bodies)) == [5, 6, 7, 8]
    assert len(rollouts(stage)) == 9


def test_a_journal_keeps_every_row_though_a_text_is_none_that_a_file_can_hold(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.append([{"text": "a\ud800b"}, {"text": "c"}])
    with Journal(tmp_path / "j.jsonl") as again:
        assert again.rows == [{"text": "a?b"}, {"text": "c"}]


def test_an_answer_with_half_a_surrogate_pair_is_kept_like_the_others(tmp_path):
    """JSON can say "\\ud800", which is no character and cannot be written to a file."""

    def speaks(handler, body, attempt):
        send(handler, said(f"\ud800 \\boxed{{{number(body) + 1}}}"))

    with server(speaks) as (address, _):
        stage = build_stage(tmp_path, address, samples=1)
        summary = collect.run(stage)
    assert summary["right"] == 9
    assert {trace.text[0] for trace in rollouts(stage)} == {"\ufffd"}


def test_answers_whose_tokens_the_server_does_not_count_are_counted(tmp_path):
    def speaks(handler, body, attempt):
        answer = said(f"\\boxed{{{number(body) + 1}}}")
        del answer["usage"]
        send(handler, answer)

    with server(speaks) as (address, _):
        summary = collect.run(build_stage(tmp_path, address, samples=1))
    assert summary["answers whose tokens are estimated"] == 9 and summary["tokens_out"] > 9


def test_rollouts_that_failed_beside_others_are_counted(tmp_path):
    def half(handler, body, attempt):
        if number(body) == 2 and body["seed"] % 2:
            send(handler, "oops", 500)
        else:
            knows(handler, body, attempt)

    with server(half) as (address, _):
        stage = build_stage(tmp_path, address, samples=4)
        summary = collect.run(stage)
    assert summary["rollouts"] + summary["rollouts that failed"] == 36
    assert 0 < summary["rollouts that failed"] < 4 and dropped(stage) == {}


def test_answers_wait_for_a_judge_on_disk(tmp_path):
    """The judge is down: the teacher's answers are kept, and judged when it is up, without being asked for again."""
    up = False

    def speaks(handler, body, attempt):
        if body["model"] != "judge":
            send(handler, said("\\boxed{?}"))
        elif not up:
            send(handler, "no", 401)
        else:
            code = body["messages"][-1]["content"].rpartition("Verdict ")[2].partition(":")[0]
            send(handler, said(f"Verdict {code}: same"))

    with server(speaks) as (address, world):
        judge = {"server": address, "model": "judge"}
        stage = build_stage(tmp_path, address, [Problem("p", "How many?", "8")], samples=5, judge=judge)
        with pytest.raises(ServerError):
            collect.run(stage)
        up, before = True, len(world.bodies)
        summary = collect.run(stage)
    assert {body["model"] for body in world.bodies[before:]} == {"judge"}
    assert summary["judge"] == {"asked": 5, "same": 5, "disagreed": 5}
    assert [trace.reason for trace in rollouts(stage)] == ["judge: same"] * 5, "equal cases are one"
    assert (summary["tokens_in"], summary["tokens_out"]) == (5 * 10, 5 * 20)
    assert not list(stage.folder.glob("*answers*"))


def test_a_spent_budget_ends_the_stage_with_what_there_is(tmp_path):
    with server(knows) as (address, _):
        teacher = {"server": address, "model": "wise", "in_flight": 1, "budget": 120}
        stage = build_stage(tmp_path, address, samples=1, teacher=teacher)
        summary = collect.run(stage)
    assert summary["stopped"] == "budget = 120 is spent"
    assert [t.problem_id for t in rollouts(stage)] == ["p0", "p1", "p2", "p3"]
    assert dropped(stage) == {f"p{n}": summary["stopped"] for n in range(4, 9)}


def test_an_answer_cut_off_at_the_limit_says_so(tmp_path):
    with server(lambda handler, body, attempt: send(handler, said("so far", "length"))) as (address, _):
        stage = build_stage(tmp_path, address, PROBLEMS[:1], samples=1)
        collect.run(stage)
    (only,) = rollouts(stage)
    assert only.correct is False and only.reason.endswith("; cut off at the token limit")


def test_a_judge_is_asked_about_what_no_rule_can_read(tmp_path):
    def speaks(handler, body, attempt):
        asked = body["messages"][-1]["content"]
        if "compare two answers" in asked:
            code = asked.rpartition("Verdict ")[2].partition(":")[0]
            send(handler, said(f"The same.\nVerdict {code}: same"))
        else:
            send(handler, said("\\boxed{?}"))

    with server(speaks) as (address, world):
        judge = {"server": address, "model": "judge"}
        stage = build_stage(tmp_path, address, [Problem("p", "How many?", "8")], samples=1, judge=judge)
        collect.run(stage)
    (only,) = rollouts(stage)
    judged = [body for body in world.bodies if body["model"] == "judge"]
    assert len(judged) == 1 and (only.correct, only.reason) == (True, "judge: same")
