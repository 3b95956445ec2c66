"""The client of OpenAI-compatible servers, against a small real server that fails in many ways."""

import html
import json
import threading
import urllib.parse

import pytest

from tests.servers import Answer, echo, said, send, server
from whetstone.decode import server_generator
from whetstone.decode.server_generator import Server, ServerError, ServerGenerator, Spent
from whetstone.records import Message, Prompt, Sampling

SAMPLING = Sampling(temperature=0.5, max_tokens=64)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"p{n}", 0, (Message("user", f"question {n}"),)) for n in range(count)]


def client(address: str, **settings) -> ServerGenerator:
    quick = {"longest_pause": 0.02, "in_flight": 4, "timeout": 60.0}
    return ServerGenerator(Server(server=address, model="m", **quick | settings))


def texts(generator: ServerGenerator, count: int = 6) -> dict[str, str]:
    return {done.problem_id: done.text for done in generator.generate(prompts(count), SAMPLING)}


def test_every_prompt_is_answered_once_with_its_settings():
    with server(echo) as (address, world):
        generator = client(address, extra={"top_k": 7})
        assert texts(generator, 20) == {f"p{n}": f"answer to question {n}" for n in range(20)}
    assert len(world.bodies) == 20
    body = world.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["top_k"]) == ("m", 0.5, 64, 7)
    assert len({body["seed"] for body in world.bodies}) == 20
    assert (generator.spent.tokens_in, generator.spent.tokens_out) == (200, 400)


def test_requests_are_in_flight_together_and_never_more_than_set():
    five = threading.Barrier(5)

    def waits_for_four_others(handler, body, attempt):
        five.wait()
        echo(handler, body, attempt)

    with server(waits_for_four_others) as (address, world):
        assert len(texts(client(address, in_flight=5), 20)) == 20
    assert world.most == 5


def test_prompts_are_taken_only_when_they_can_be_sent():
    taken = []

    def source():
        for prompt in prompts(100):
            taken.append(prompt.problem_id)
            yield prompt

    with server(echo) as (address, _):
        completions = client(address, in_flight=3).generate(source(), SAMPLING)
        next(completions)
        completions.close()
    assert len(taken) < 100


def test_nothing_is_sent_once_the_caller_has_stopped():
    with server(echo) as (address, world):
        completions = client(address, in_flight=3).generate(prompts(10_000), SAMPLING)
        next(completions)
        completions.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "server requests"]
    assert len(world.bodies) < 10_000


def test_thinking_is_kept_and_a_cut_off_answer_is_marked():
    def think(handler, body, attempt):
        name = "reasoning_content" if "0" in body["messages"][0]["content"] else "reasoning"
        send(handler, said("It is 5.", "length", **{name: "2 + 3 is 5"}))

    with server(think) as (address, _):
        done = list(client(address).generate(prompts(2), SAMPLING))
    assert {completion.text for completion in done} == {"<think>\n2 + 3 is 5\n</think>\n\nIt is 5."}
    assert {completion.stop for completion in done} == {"length"}


def fails_first(failure: Answer, times: int = 2) -> Answer:
    def answer(handler, body, attempt):
        (failure if attempt <= times else echo)(handler, body, attempt)

    return answer


def drop(handler, body, attempt):
    handler.close_connection = True
    handler.connection.close()


FAILURES = {
    "500": lambda handler, body, attempt: send(handler, "oops", 500),
    "503": lambda handler, body, attempt: send(handler, {"error": "busy"}, 503),
    "429": lambda handler, body, attempt: send(handler, {"error": "slow down"}, 429),
    "broken JSON": lambda handler, body, attempt: send(handler, '{"choices": [{"mess'),
    "no choices": lambda handler, body, attempt: send(handler, {"choices": []}),
    "empty text": lambda handler, body, attempt: send(handler, said("")),
    "not an object": lambda handler, body, attempt: send(handler, "[1, 2]"),
    "dropped connection": drop,
    "too slow": lambda handler, body, attempt: handler.rfile.read(1),  # until the client has gone
}


@pytest.mark.parametrize("name", FAILURES)
def test_transient_failures_are_retried(name):
    with server(fails_first(FAILURES[name], times=1)) as (address, world):
        late = {"timeout": 0.3, "retries": 100} if name == "too slow" else {}
        generator = client(address, **late)
        assert len(texts(generator, 3)) == 3
    assert generator.failed == []
    assert set(world.tries.values()) == {2} or late  # on a busy machine a good answer may be late too


def test_a_prompt_that_fails_to_the_end_is_left_out_with_its_reason_and_the_others_go_on():
    def answer(handler, body, attempt):
        (FAILURES["500"] if "3" in body["messages"][0]["content"] else echo)(handler, body, attempt)

    with server(answer) as (address, world):
        generator = client(address, retries=2)
        assert sorted(texts(generator)) == ["p0", "p1", "p2", "p4", "p5"]
    assert [(prompt.problem_id, reason) for prompt, reason in generator.failed] == [("p3", "status 500: oops")]
    assert world.tries["question 3"] == 3


def test_a_server_that_only_fails_is_given_up(monkeypatch):
    monkeypatch.setattr(server_generator, "PATIENCE", 3)
    with (
        server(FAILURES["500"]) as (address, world),
        pytest.raises(ServerError, match=r"failed 3 prompts in a row, each 2 times; last: status 500: oops.*kept"),
    ):
        texts(client(address, retries=1, in_flight=1), 50)
    assert len(world.bodies) == 6


def test_a_prompt_that_the_server_refuses_is_not_sent_again():
    with server(lambda handler, body, attempt: send(handler, "too long", 400)) as (address, world):
        generator = client(address)
        assert texts(generator, 3) == {}
    assert {reason for _, reason in generator.failed} == {"status 400: too long"}
    assert len(world.bodies) == 3


def test_a_server_that_refuses_everything_in_the_same_words_is_given_up(monkeypatch):
    monkeypatch.setattr(server_generator, "PATIENCE", 3)
    with (
        server(lambda handler, body, attempt: send(handler, "unexpected fields", 422)) as (address, world),
        pytest.raises(ServerError, match=r"refused 3 prompts in the same words.*unexpected fields.*model \('m'\)"),
    ):
        texts(client(address, in_flight=1), 50)
    assert len(world.bodies) == 3


def test_a_server_that_has_answered_may_refuse_prompts():
    def picky(handler, body, attempt):
        if body["messages"][0]["content"] == "question 0":
            echo(handler, body, attempt)
        else:
            send(handler, "too long", 400)

    with server(picky) as (address, _):
        assert list(texts(client(address, in_flight=1), 12)) == ["p0"]


def test_an_answer_that_stays_empty_is_an_empty_answer(monkeypatch):
    monkeypatch.setattr(server_generator, "PATIENCE", 1)
    with server(FAILURES["empty text"]) as (address, world):
        generator = client(address, retries=2)
        assert texts(generator, 3) == {f"p{n}": "" for n in range(3)}
    assert set(world.tries.values()) == {3} and generator.failed == []


def test_a_server_that_does_not_listen_ends_the_run_however_few_prompts_are_left():
    with pytest.raises(ServerError, match=r"failed 1 prompts in a row, each 2 times.*connection: ConnectError"):
        texts(client("http://127.0.0.1:9/v1", retries=1), 1)


@pytest.mark.parametrize(("status", "why"), [(401, "key is not accepted"), (404, "no such model")])
def test_permanent_failures_end_the_run_at_once(status, why):
    with (
        server(lambda handler, body, attempt: send(handler, "no", status)) as (address, world),
        pytest.raises(ServerError, match=why),
    ):
        texts(client(address, in_flight=1), 50)
    assert len(world.bodies) == 1


def test_a_server_that_cannot_be_reached_is_named():
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9/v1 failed 1 prompts in a row.*connection"):
        texts(client("http://127.0.0.1:9/v1", retries=0, in_flight=1), 1)


def test_retry_after_holds_for_all_requests():
    def answer(handler, body, attempt):
        if attempt == 1 and body["messages"][0]["content"] == "question 0":
            send(handler, "later", 429, Retry_After="0.3")
        else:
            echo(handler, body, attempt)

    with server(answer) as (address, world):
        assert len(texts(client(address, in_flight=1, longest_pause=2.0), 3)) == 3
    assert world.times[1] - world.times[0] >= 0.29


ESCAPED = {
    "PHP's JSON": lambda key: json.dumps(key).replace("/", "\\/"),
    "JSON in JSON": lambda key: json.dumps(json.dumps({"said": key})),
    "code points": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "an address": lambda key: urllib.parse.quote(key, safe=""),
    "HTML": lambda key: f"<p>{html.escape(key)}</p>",
}


@pytest.mark.parametrize("how", ESCAPED)
def test_a_key_that_a_server_repeats_in_another_spelling_is_in_no_message(how, monkeypatch):
    key = 'ab/cd+"ef&12=='
    monkeypatch.setenv("MY_KEY", key)
    with (
        server(lambda h, b, a: send(h, f"bad key {ESCAPED[how](key)}!", 401)) as (address, _),
        pytest.raises(ServerError, match=r"bad key .*\[key\].*!") as error,
    ):
        texts(client(address, key_variable="MY_KEY"), 2)
    assert "12" not in str(error.value).replace(address, "")


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", "sk-secret-123")

    def tattles(handler, body, attempt):
        send(handler, f"bad key {handler.headers['Authorization']}", 401)

    with server(tattles) as (address, world), pytest.raises(ServerError) as error:
        texts(client(address, key_variable="MY_KEY"), 2)
    assert world.headers[0]["Authorization"] == "Bearer sk-secret-123"
    assert "[key]" in str(error.value) and "secret" not in str(error.value)
    with server(lambda h, b, a: send(h, f"no {h.headers['Authorization']}", 400)) as (address, _):
        generator = client(address, key_variable="MY_KEY")
        texts(generator, 1)
    assert "secret" not in generator.failed[0][1] + repr(generator.settings) + "".join(capsys.readouterr())


def test_no_key_no_header(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with server(echo) as (address, world):
        texts(client(address), 1)
        monkeypatch.setenv("OPENAI_API_KEY", "for another server")
        texts(client(address, key_variable=""), 1)
    assert not any("Authorization" in headers for headers in world.headers)


def test_nothing_more_is_asked_when_the_budget_is_spent():
    with server(echo) as (address, world):
        generator = client(address, in_flight=1, budget=100)  # 30 a completion
        assert len(texts(generator, 50)) == len(world.bodies) == 4
    assert generator.stopped == "budget = 100 is spent"


def test_money_counts_what_was_spent_before():
    settings = {"budget": 0.001, "prices": (10, 20), "in_flight": 1}  # 0.0005 a completion
    with server(echo) as (address, _):
        assert len(texts(client(address, **settings), 50)) == 2
        resumed = ServerGenerator(Server(server=address, model="m", **settings), Spent(tokens_in=0, tokens_out=25))
        assert len(texts(resumed, 50)) == 1
        assert resumed.spent.money(resumed.settings) == pytest.approx(0.001)


def test_an_error_in_the_prompts_reaches_the_caller():
    def broken():
        yield prompts(1)[0]
        raise KeyError("mine")

    with server(echo) as (address, _), pytest.raises(KeyError, match="mine"):
        list(client(address).generate(broken(), SAMPLING))


def test_the_removed_key_for_the_first_pause_is_answered_with_the_one_that_is_left():
    with pytest.raises(ValueError, match="this key is now longest_pause"):
        client("http://127.0.0.1:9/v1", first_pause=1)
