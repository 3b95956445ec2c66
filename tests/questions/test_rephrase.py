"""Rephrasing by a model: kept where every number is, journalled, and never paid for twice."""

import doctest

import pytest

from tests.scripted import Scripted, stage
from tests.servers import said, send, server
from whetstone.decode.server_generator import Server, ServerError, ServerGenerator
from whetstone.questions import rephrase
from whetstone.questions.gather import Settings, run
from whetstone.questions.metamath import MetamathSettings
from whetstone.questions.rephrase import rephrased, why_not
from whetstone.records import Problem, Sampling
from whetstone.run.tables import read_records, read_rows

QUESTION = "Tom has 2 pens and buys 3 more. How many has he?"
PROBLEM = Problem("p", QUESTION, "5", formula="2+3")


def test_docstring_examples_are_true():
    assert doctest.testmod(rephrase).failed == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Tom, who has two pens, buys 3. What is their number?", ""),
        ("<think>2 pens, 3 pens, 5 pens</think>\nTom owns 2 pens, then gets 3. How many?", ""),
        ("", "empty"),
        ("<think>no end", "other numbers"),
        ("tom has 2 pens and buys 3 more. How many has he ?", "repeats"),
        ("Tom has 2 pens and buys 4. How many?", "other numbers"),
        ("He has 5.", "other numbers"),
        ("Tom has 2 pens and buys 3. " * 40, "on and on"),
    ],
)
def test_a_rephrasing_keeps_every_number(text, why):
    assert (why in why_not(QUESTION, text)) if why else why_not(QUESTION, text) == ""


def test_what_the_model_said_is_journalled_and_not_asked_for_again(tmp_path):
    wise = Scripted(lambda prompt, sampling: "Tom, with 2 pens, buys 3. How many?" if prompt.index else "Five 5")
    problems = [PROBLEM, Problem("q", "Ann has 7 cats. How many?", "7")]
    first = list(rephrased(problems, wise, 2, Sampling(), tmp_path / "journal.jsonl"))
    assert [getattr(one, "reason", "") for one in first] == [
        "metamath: a rephrasing with other numbers",
        "",
        "metamath: a rephrasing with other numbers",
        "metamath: a rephrasing with other numbers",
    ]
    assert (first[1].id, first[1].answer, first[1].origin, first[1].formula) == ("p/rephrased-2", "5", "p", "")
    assert len(wise.asked) == 4
    assert list(rephrased(problems, wise, 2, Sampling(), tmp_path / "journal.jsonl")) == first
    assert len(wise.asked) == 4


def test_the_questions_stage_rephrases_training_problems_through_a_server(tmp_path):
    def wise(handler, body, attempt):
        question = body["messages"][-1]["content"].rpartition("Question: ")[2].partition("\n")[0]
        send(handler, said(f"In other words: {question}"))

    made = {"kind": "procedural", "families": ["word"], "level": 1, "train": 3, "test": 2, "benchmark": "b"}
    with server(wise) as (address, world):
        settings = {"rephrase": 1, "fobar": 1, "model": {"server": address, "model": "wise"}}
        of = stage(tmp_path / "s", Settings(kind="questions", source=[made], metamath=settings))
        summary = run(of)
    problems = list(read_records(Problem, of.folder / "problems"))
    new = [p for p in problems if "/rephrased-" in p.id]
    assert summary["augmented"]["rephrased"] == len(new) == len(world.bodies) == 3
    assert all(p.question.startswith("In other words: ") and p.split == "train" and p.origin for p in new)
    assert not [row for row in read_rows(of.folder / "dropped") if "rephras" in row["reason"]]


def test_completions_before_the_server_failed_are_kept_and_its_failures_are_named(tmp_path):
    def dies(handler, body, attempt):
        if len(world.bodies) > 2:
            send(handler, "gone", 401)
        else:
            send(handler, said("In other words"))

    problems = [Problem(f"p{n}", f"Who is {name}?", "x") for n, name in enumerate(("Ada", "Ben", "Mia"))]
    with server(dies) as (address, world):
        generator = ServerGenerator(Server(server=address, model="m", in_flight=1))
        with pytest.raises(ServerError):
            list(rephrased(problems, generator, 1, Sampling(), tmp_path / "journal.jsonl"))
    with server(lambda handler, body, attempt: send(handler, "too long", 400)) as (address, world):
        generator = ServerGenerator(Server(server=address, model="m"))
        *kept, dropped = rephrased(problems, generator, 1, Sampling(), tmp_path / "journal.jsonl")
    assert [one.question for one in kept] == ["In other words"] * 2 and len(world.bodies) == 1
    assert (dropped.reason, dropped.detail) == ("metamath: the model gave no answer", "status 400: too long")


def test_rephrasing_without_a_model_is_refused():
    with pytest.raises(ValueError, match=r"rephrase = 2 without a model.*server"):
        MetamathSettings(rephrase=2)
