# ruff: noqa: F811  (a fixture that is imported)
"""A teacher behind a server: a real one on localhost that lists the most likely tokens of a real model; and bad ones."""

import math
import time

import pytest
import torch

from tests.scripted import Killed, kill_after
from tests.servers import send, server
from tests.test_distill import pupil, room  # noqa: F401
from tests.tiny_world import logged
from whetstone.batch import Row
from whetstone.decode.server_generator import ServerError
from whetstone.decode.server_scorer import ServerScorer
from whetstone.decode.server_settings import ScoringServer
from whetstone.distill import train as distill
from whetstone.model import load

ALL = 300  # more tokens than the tiny vocabulary has


class Served:
    """A model as vLLM serves it: `prompt_logprobs` or `echo` of token ids; chat answers are fixed."""

    def __init__(self, folder):
        self.model, self.tokenizer = load(folder)
        self.names = [self.tokenizer.decode([i]) for i in range(len(self.tokenizer))]

    @torch.no_grad()
    def logprobs(self, ids: list[int]) -> torch.Tensor:
        """(T, V): those of the token after each prefix, over the ids in use."""
        return self.model(torch.tensor([ids])).logits[0, :, : len(self.names)].log_softmax(-1)

    def __call__(self, handler, body, attempt):
        send(handler, self.answer(body))

    def answer(self, body: dict) -> dict:
        if "messages" in body:
            message = {"role": "assistant", "content": "<think>\n\n</think>\n\n\\boxed{3}"}
            choice = {"message": message, "finish_reason": "stop"}
            return {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
        ids = body["prompt"]
        rows = [None, *self.logprobs(ids)[:-1]]
        if "prompt_logprobs" in body:
            lists = [self.entries(token, row, body["prompt_logprobs"]) for token, row in zip(ids, rows, strict=True)]
            return {"choices": [{"text": "x", "prompt_logprobs": lists}]}
        own = [None if row is None else float(row[i]) for i, row in zip(ids, rows, strict=True)]
        listed = [
            row if row is None else {f"token_id:{i}": float(row[i]) for i in self.top(row, body["logprobs"])}
            for row in rows
        ]
        table = {"tokens": [f"token_id:{i}" for i in ids], "token_logprobs": own, "top_logprobs": listed}
        return {"choices": [{"logprobs": table}]}

    @staticmethod
    def top(row: torch.Tensor, count: int) -> list[int]:
        return row.topk(min(count, len(row))).indices.tolist()

    def entries(self, token: int, row: torch.Tensor | None, count: int) -> dict | None:
        if row is None:
            return None
        likely = {token, *self.top(row, count)}
        return {str(i): {"logprob": float(row[i]), "rank": 1, "decoded_token": self.names[i]} for i in likely}


@pytest.fixture(scope="module")
def served(adder):
    return Served(adder)


def asks(address: str, **more) -> dict:
    return {"server": address, "model": "adder", "retries": 0, "timeout": 5, "key_variable": ""} | more


def of_server(tmp_path, world, student, address, **settings):
    known = {"teacher_model": "", "teacher_server": asks(address, **settings.pop("server", {}))} | settings
    return room(tmp_path / "d", world, student, "", **known)


@pytest.mark.parametrize("form", ["prompt_logprobs", "echo"])
def test_a_server_that_lists_all_tokens_teaches_as_a_local_model_does(tmp_path, world, adder, pupil, served, form):
    distill.run(room(tmp_path / "here" / "d", world, pupil, adder, steps=1))
    with server(served) as (address, seen):
        table = {"top_logprobs": ALL, "scores_by": form}
        summary = distill.run(of_server(tmp_path, world, pupil, address, steps=1, server=table))
    for name in ("loss", "gradient_norm", "accuracy"):
        assert logged(tmp_path / "d", name) == pytest.approx(logged(tmp_path / "here" / "d", name), abs=2e-5)
    assert max(logged(tmp_path / "d", "teacher_tail")) < 1e-4
    assert summary["teacher_tokens"] == sum(len(body["prompt"]) for body in seen.bodies)


def test_of_a_short_list_the_tail_is_logged_and_the_divergence_is_a_lower_bound(tmp_path, world, adder, pupil, served):
    distill.run(room(tmp_path / "here" / "d", world, pupil, adder, steps=1))
    with server(served) as (address, _):
        distill.run(of_server(tmp_path, world, pupil, address, steps=1, server={"top_logprobs": 2}))
    (loss,), (whole,), (tail,) = (
        logged(tmp_path / f, n) for f, n in (("d", "loss"), ("here/d", "loss"), ("d", "teacher_tail"))
    )
    assert 0 < loss < whole and 0 < tail < 0.5


def test_after_a_kill_the_steps_go_on_and_what_was_spent_is_counted_on(tmp_path, world, pupil, served, monkeypatch):
    with server(served) as (address, seen):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, 3)
            distill.run(of_server(tmp_path, world, pupil, address))
        summary = distill.run(of_server(tmp_path, world, pupil, address))
    assert len(logged(tmp_path / "d", "loss")) == 4
    assert 0 < summary["teacher_tokens"] <= sum(len(body["prompt"]) for body in seen.bodies)


def test_the_teacher_writes_the_text_of_the_other_steps(tmp_path, world, adder, pupil, served):
    with server(served) as (address, seen):
        distill.run(of_server(tmp_path, world, pupil, address, on_policy=0.5, text="teacher", steps=2))
    asked = [body["messages"][-1]["content"] for body in seen.bodies if "messages" in body]
    assert (
        len(asked) == 8 and logged(tmp_path / "d", "unwritten") == [0] and len(logged(tmp_path / "d", "accuracy")) == 1
    )
    distill.run(room(tmp_path / "here" / "d", world, pupil, adder, on_policy=0.5, text="teacher", steps=2))
    assert len(logged(tmp_path / "here" / "d", "loss")) == 2 and len(logged(tmp_path / "here" / "d", "accuracy")) == 1


def test_another_vocabulary_is_refused_before_anything_is_sampled(tmp_path, world, pupil, served):
    def other(handler, body, attempt):
        answer = served.answer(body)
        for entries in answer["choices"][0]["prompt_logprobs"][1:]:
            for entry in entries.values():
                entry["decoded_token"] = entry["decoded_token"] + "x"
        send(handler, answer)

    with server(other) as (address, seen), pytest.raises(ServerError, match=r"another vocabulary .* then sft"):
        distill.run(of_server(tmp_path, world, pupil, address))
    assert len(seen.bodies) == 1


def test_a_dead_server_ends_the_stage_and_says_so(tmp_path, world, pupil):
    with server(send) as (address, _):
        pass
    with pytest.raises(ServerError, match="repair the server and run again"):
        distill.run(of_server(tmp_path, world, pupil, address))


def one(settings: ScoringServer, served) -> list[Row]:
    return ServerScorer(settings, served.names).listed([Row([1, 5, 6, 7], 2), Row([1, 9, 6], 2)])


def test_a_slow_answer_leaves_its_text_out_and_the_others_are_used(served):
    def slow(handler, body, attempt):
        if len(body["prompt"]) == 4:
            time.sleep(0.6)
        served(handler, body, attempt)

    with server(slow) as (address, _):
        rows = one(ScoringServer(**asks(address, timeout=0.3)), served)
    assert [row.ids for row in rows] == [[1, 9, 6]]


def change(answer, what):
    lists = answer["choices"][0]["prompt_logprobs"]
    entries = lists[-1]
    first = next(iter(entries.values()))
    if what == "positive":
        first["logprob"] = 0.5
    elif what == "nan":
        first["logprob"] = math.nan
    elif what == "text":
        first["logprob"] = "-1"
    elif what == "short":
        lists.pop()
    elif what == "none":
        answer["choices"][0].pop("prompt_logprobs")
    elif what == "null":
        lists[-1] = None
    elif what == "sum":
        for entry in entries.values():
            entry["logprob"] = -0.1
    elif what == "key":
        entries["9" * 5000] = first
    elif what == "other":
        answer["choices"][0]["prompt_logprobs"][-1] = {i: entries[i] for i in entries.keys() - {"6", "7"}}
    return answer


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("positive", "above 0"), ("nan", "no number"), ("text", "no number"), ("short", "of length"), ("none", "length none"),
        ("null", "has none"), ("sum", "add up to"), ("key", "no id"), ("other", "reads ids otherwise"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_true_is_not_used(served, what, why):
    def lying(handler, body, attempt):
        send(handler, change(served.answer(body), what))

    with server(lying) as (address, _), pytest.raises(ServerError, match=why):
        one(ScoringServer(**asks(address)), served)


def test_a_token_below_the_list_is_kept_and_lists_have_one_length(served):
    with server(served) as (address, _):
        rows = one(ScoringServer(**asks(address, top_logprobs=3)), served)
    for row in rows:
        lists = row.token["teacher_ids"], row.token["teacher_logprobs"]
        for token, ids, logprobs in zip(row.ids[row.prompt :], *lists, strict=True):
            assert ids[0] == token and len(ids) == len(logprobs) == 4 and len(set(ids) - {-1.0}) >= 3


def test_a_spent_budget_ends_the_stage_with_the_remedy(served):
    with server(served) as (address, _), pytest.raises(ServerError, match=r"budget = 3 is spent.* Raise it"):
        scorer = ServerScorer(ScoringServer(**asks(address, budget=3, in_flight=1)), served.names)
        scorer.listed([Row([1, 5, 6, 7], 2)] * 4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"temperature": 0.7}, "log-probabilities at temperature 1"),
        ({"teacher_model": "m"}, "two teachers"),
        ({"text": "teacher"}, "set on_policy below 1"),
        ({"target": "majority", "samples": 8}, 'teacher_server belongs to target = "teacher"'),
    ],
)
def test_settings_that_cannot_be_met_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        distill.Settings(kind="distill", teacher_server=asks("http://127.0.0.1:1/v1"), **table)
