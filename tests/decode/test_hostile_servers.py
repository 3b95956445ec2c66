"""Servers that answer wrongly, in every way we know: an answer is read, dropped with its reason, or ends the run in words.

Every server is a real one. Prompt 0 gets the odd answer, prompt 1 a good one, which must arrive in any case.
"""

import gzip
import json
import re
import resource
import threading
import zlib

import pytest

from tests.decode.test_server_generator import client, prompts, texts
from tests.servers import Answer, echo, said, send, server
from whetstone.decode.server_answer import LARGEST
from whetstone.decode.server_generator import Server, ServerError
from whetstone.records import Message, Prompt, Sampling

OTHERS = {"p1": "answer to question 1"}
SAMPLING = Sampling(max_tokens=64)


def odd(answer: Answer) -> Answer:
    """The answer for question 0; others are echoed."""
    return lambda handler, body, attempt: (answer if "question 0" in str(body) else echo)(handler, body, attempt)


def raw(*parts: bytes) -> Answer:
    """These bytes, then the end of the connection."""

    def answer(handler, body, attempt):
        handler.close_connection = True
        for part in parts:
            handler.wfile.write(part)

    return answer


def with_body(body: bytes | dict, head: str = "", length: int | None = None, status: str = "200 OK") -> Answer:
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    size = len(body) if length is None else length
    return raw(f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{head}\r\n".encode() + body)


def choice(**fields) -> Answer:
    """A choice with other fields than the usual ones; a message's are set with `message`."""
    answer = said("good")
    answer["choices"][0] |= fields
    return with_body(answer)


def message(**fields) -> Answer:
    return choice(message={"role": "assistant", "content": "good"} | fields)


GOOD = json.dumps(said("good")).encode()
BOMB = zlib.compressobj(9, wbits=31)
BOMB = BOMB.compress(bytes(LARGEST)) + BOMB.compress(bytes(2)) + BOMB.flush()

DROPPED = {
    "deeply nested JSON": (with_body(b"[" * 300_000), "nested too deeply"),
    "JSON cut off": (with_body(GOOD[:40]), "no JSON"),
    "a list": (with_body(b"[1, 2]"), "no choices"),
    "null": (with_body(b"null"), "no choices"),
    "a number": (with_body(b"7"), "no choices"),
    "a number with a million digits": (with_body(b"7" * 1_000_000), "no JSON"),
    "a page": (with_body(b"<html><body>Welcome</body></html>", "Content-Type: text/html\r\n"), "no JSON: <html>"),
    "nothing": (with_body(b""), "no JSON"),
    "an error with status 200": (with_body({"error": {"message": "overloaded"}}), "no choices: .*overloaded"),
    "no choices": (with_body({"choices": []}), "no choices"),
    "choices that are a table": (with_body({"choices": {"0": 1}}), "no choices"),
    "two choices": (with_body({"choices": said("a")["choices"] * 2}), "2 choices, though one was asked for"),
    "a choice that is null": (with_body({"choices": [None]}), "without a message"),
    "a message that is a text": (choice(message="good"), "without a message"),
    "content that is a number": (message(content=7), "content that is no text but of type int"),
    "content with a picture": (message(content=[{"type": "image_url", "image_url": {}}]), "part that is no text .*image"),
    "content parts that are numbers": (message(content=[1]), "part that is no text"),
    "thinking that is a table": (message(reasoning_content={"a": 1}), "reasoning_content that is no text"),
    "nothing at all": (choice(message={"content": None}, finish_reason=None), "neither content nor reasoning_content"),
    "an unknown end": (choice(finish_reason="banana"), "finish_reason = 'banana'"),
    "filtered": (choice(finish_reason="content_filter"), "finish_reason = 'content_filter'"),
    "an end that is a list": (choice(finish_reason=["stop"]), "finish_reason"),
    "a stream of events": (with_body(b'data: {"choices": []}\n\ndata: [DONE]\n\n'), "a stream of events"),
    "latin-1": (with_body('{"a": "é"}'.encode("latin-1"), "Content-Type: a/json; charset=latin-1\r\n"), "encoding"),
    "gzip that is none": (with_body(GOOD, "Content-Encoding: gzip\r\n"), "not gzip"),
    "gzip cut off": (with_body(gzip.compress(GOOD)[:-12], "Content-Encoding: gzip\r\n"), "gzip is cut off"),
    "deflate that is none": (with_body(b"\x78" + GOOD, "Content-Encoding: deflate\r\n"), "not deflate"),
    "an unknown coding": (with_body(GOOD, "Content-Encoding: br\r\n"), "Content-Encoding 'br'"),
    "a gzip bomb": (with_body(BOMB, "Content-Encoding: gzip\r\n"), "more than 16 MiB"),
    "a bomb in a bomb": (with_body(gzip.compress(BOMB), "Content-Encoding: gzip, gzip\r\n"), "more than 16 MiB"),
    "too large": (with_body(bytes(LARGEST + 1)), "more than 16 MiB"),
    "a body shorter than its length": (with_body(GOOD, length=len(GOOD) + 9), "connection: RemoteProtocolError"),
    "a body longer than its length": (with_body(GOOD, length=len(GOOD) - 9), "no JSON"),
    "a length that is no number": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}"), "connection: RemoteProtocol"),
    "chunks broken half-way": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"),
        "connection: RemoteProtocolError",
    ),
    "chunks that are none": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "connection: Remote"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "connection: RemoteProtocolError"),
    "a closed connection": (raw(), "connection: RemoteProtocolError"),
    "a head without an end": (raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000), "connection: RemoteProtocolError"),
    "no content": (with_body(b"", status="204 No Content"), "status 204"),
    "500 with a page": (with_body(b"<h1>oops</h1>", status="500 x"), "status 500: <h1>oops</h1>"),
    "500 with escape sequences": (with_body(b"\x1b[2J\x07 oops", status="500 x"), r"^status 500: \[2J oops$"),
    "429 without a body": (with_body(b"", status="429 x"), "status 429"),
    "503 in UTF-16": (
        with_body("oops".encode("utf-16"), "Content-Type: a; charset=utf-16\r\n", status="503 x"),
        "status 503",
    ),
    "500 with a bomb": (with_body(BOMB, "Content-Encoding: gzip\r\n", status="500 x"), "status 500: .*16 MiB"),
    "500 with an unreadable pause": (with_body(b"", "Retry-After: never\r\n", status="500 x"), "status 500"),
    "a pause in the year 1": (
        with_body(b"", "Retry-After: Mon, 01 Jan 0001 00:00:00 -0000\r\n", status="500 x"),
        "status 500",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_an_answer_that_holds_no_completion_is_dropped_with_its_reason(name):
    answer, reason = DROPPED[name]
    with server(odd(answer)) as (address, _):
        generator = client(address, retries=0)
        assert texts(generator, 2) == OTHERS
    ((prompt, why),) = generator.failed
    assert prompt.problem_id == "p0"
    assert re.search(reason, why), why
    assert why.isprintable() and len(why) < 500


READ = {
    "UTF-16": (with_body(GOOD.decode().encode("utf-16")), "good"),
    "UTF-8 with a byte order mark": (with_body(b"\xef\xbb\xbf" + GOOD), "good"),
    "a charset that nobody knows": (with_body(GOOD, "Content-Type: application/json; charset=klingon\r\n"), "good"),
    "another charset than it says": (with_body(GOOD, "Content-Type: application/json; charset=utf-16\r\n"), "good"),
    "gzip": (with_body(gzip.compress(GOOD), "Content-Encoding: gzip\r\n"), "good"),
    "deflate": (with_body(zlib.compress(GOOD), "Content-Encoding: deflate\r\n"), "good"),
    "deflate without a header": (with_body(zlib.compress(GOOD, wbits=-15), "Content-Encoding: deflate\r\n"), "good"),
    "HTTP/1.0": (raw(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD), "good"),
    "chunks": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n"),
        "good",
    ),
    "a lone surrogate": (with_body(b'{"choices": [{"message": {"content": "a\\ud800b"}}]}'), "a\ufffdb"),
    "a pair of surrogates": (with_body(b'{"choices": [{"message": {"content": "\\ud83d\\ude00"}}]}'), "\U0001f600"),
    "text in parts": (message(content=[{"type": "text", "text": "go"}, {"type": "text", "text": "od"}]), "good"),
    "thinking in parts": (message(reasoning_content=[{"text": "hm"}]), "<think>\nhm\n</think>\n\ngood"),
    "thinking alone": (message(content=None, reasoning_content="hm"), "<think>\nhm\n</think>\n\n"),
    "thinking twice": (message(content="<think>hm</think>good", reasoning_content="hm"), "<think>hm</think>good"),
    "thinking that the prompt opened": (message(content="hm</think>good"), "<think>\nhm</think>good"),
    "thinking that was cut off": (
        choice(message={"content": None, "reasoning_content": "hm"}, finish_reason="length"),
        "<think>\nhm",
    ),
    "log-probabilities of nonsense": (choice(logprobs={"content": [{"logprob": float("nan")}] * 3}), "good"),
    "another id and model": (with_body(said("good") | {"id": 7, "model": [], "object": None}), "good"),
}


@pytest.mark.parametrize("name", READ)
def test_an_answer_that_holds_a_completion_is_read(name):
    answer, text = READ[name]
    with server(odd(answer)) as (address, _):
        generator = client(address, retries=0)
        assert texts(generator, 2) == OTHERS | {"p0": text}
    assert generator.failed == []


def test_thinking_that_the_servers_template_opens_has_its_tag_in_every_answer():
    with server(lambda handler, body, attempt: send(handler, said(f"hm{body['messages'][0]['content'][-1]}"))) as (
        at,
        _,
    ):
        assert texts(client(at, opens_thinking=True), 2) == {"p0": "<think>\nhm0", "p1": "<think>\nhm1"}
    with server(lambda handler, body, attempt: send(handler, said("<think>hm</think>5"))) as (at, _):
        assert texts(client(at, opens_thinking=True), 1) == {"p0": "<think>hm</think>5"}


ENDED = {
    "401": (with_body(b"", status="401 x"), "answered 401: the key is not accepted. It says: nothing. Check"),
    "402": (with_body(b"pay", status="402 x"), "answered 402: there is no credit left. It says: pay"),
    "403": (with_body(b"<p>no</p>", status="403 x"), "answered 403: the key may not do this. It says: <p>no</p>"),
    "404": (with_body(b"<p>no</p>", status="404 x"), "answered 404: there is no such model or address"),
    "redirect": (
        with_body(b"", "Location: http://127.0.0.1:1/\x1b[2J\r\n".replace("\x1b", ""), status="302 x"),
        "answered 302, a redirect to 'http://127.0.0.1:1/.*Redirects are not followed",
    ),
}


@pytest.mark.parametrize("name", ENDED)
def test_a_status_that_another_try_cannot_change_ends_the_run_in_one_line(name):
    answer, words = ENDED[name]
    with server(answer) as (address, world), pytest.raises(ServerError, match=words) as raised:
        texts(client(address, in_flight=1), 5)
    assert len(world.bodies) == 1 and "\n" not in str(raised.value)


def test_an_address_without_v1_is_told_what_to_try():
    def only_below_v1(handler, body, attempt):
        if handler.path.startswith("/v1/"):
            echo(handler, body, attempt)
        else:
            send(handler, "<html>not here</html>", 404)

    with server(only_below_v1) as (address, _):
        root = address.removesuffix("/v1")
        with pytest.raises(ServerError) as raised:
            texts(client(root + "/"), 1)
        assert f'Most servers answer below /v1: try server = "{root}/v1".' in str(raised.value)
        assert texts(client(address + "/"), 1) == {"p0": "answer to question 0"}


def test_an_address_that_shows_a_page_is_told_what_to_try():
    with server(with_body(b"<html>Welcome</html>")) as (address, _):
        generator = client(address.removesuffix("/v1"), retries=0)
        texts(generator, 1)
    assert "no JSON: <html>Welcome</html> Most servers answer below /v1" in generator.failed[0][1]


@pytest.mark.parametrize("address", ["https://127.0.0.1:{port}/v1", "http://no-such-host.invalid/v1"])
def test_a_server_that_cannot_be_talked_to_ends_the_run(address):
    with server(echo) as (plain, _):
        port = plain.rpartition(":")[2].partition("/")[0]
        with pytest.raises(ServerError, match=r"connection: ConnectError.*What was answered is kept: .* run again"):
            texts(client(address.format(port=port), retries=1), 2)


def test_a_trickle_ends_at_the_deadline():
    """The server sends a byte and waits until the test is over: no reading can take longer than the deadline of the answer."""
    over = threading.Event()

    def trickle(handler, body, attempt):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.02):
            handler.wfile.write(b" ")

    with server(trickle) as (address, world):
        generator = client(address, timeout=0.3, retries=1)
        assert texts(generator, 1) == {}
        over.set()
    assert [why for _, why in generator.failed] == ["no whole answer after 0.3 s"]
    assert world.tries["question 0"] <= 2


def test_large_answers_do_not_fill_the_memory():
    """Four answers of 400 MB are read up to the limit; whole they would take 1.6 GB."""

    def endless(handler, body, attempt):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n\r\n")
        for _ in range(400):
            handler.wfile.write(bytes(1_000_000))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with server(endless) as (address, _):
        generator = client(address, retries=0)
        assert texts(generator, 4) == {}
    assert {why for _, why in generator.failed} == {"an answer of more than 16 MiB"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB


USAGES = {
    "negative": {"prompt_tokens": -5, "completion_tokens": -1_000_000},
    "NaN": {"prompt_tokens": float("nan"), "completion_tokens": 3},
    "infinite": {"prompt_tokens": 1, "completion_tokens": float("inf")},
    "huge": {"prompt_tokens": 1, "completion_tokens": 10**30},
    "text": {"prompt_tokens": "1", "completion_tokens": "2"},
    "true": {"prompt_tokens": True, "completion_tokens": True},
    "none for a text": {"prompt_tokens": 10, "completion_tokens": 0},
    "half": {"completion_tokens": 3},
    "a list": [1, 2],
    "absent": None,
}


@pytest.mark.parametrize("name", USAGES)
def test_a_usage_that_cannot_be_right_is_estimated_so_that_a_budget_ends(name):
    """ "question 7" has 10 bytes and "answer to question 7" 20: 4 and 7 tokens of 3 bytes, 11 together."""
    answer = said("") | {"usage": USAGES[name]}

    def speaks(handler, body, attempt):
        answer["choices"][0]["message"]["content"] = f"answer to {body['messages'][-1]['content']}"
        send(handler, answer)

    with server(speaks) as (address, _):
        generator = client(address, in_flight=1, budget=30)
        assert len(texts(generator, 9)) == 3
    assert (generator.spent.tokens_in, generator.spent.tokens_out, generator.spent.estimated) == (12, 21, 3)
    assert generator.stopped == "budget = 30 is spent"


def test_whole_floats_are_numbers_of_tokens():
    answer = said("good") | {"usage": {"prompt_tokens": 12.0, "completion_tokens": 3.0}}
    with server(with_body(answer)) as (address, _):
        generator = client(address)
        texts(generator, 1)
    assert (generator.spent.tokens_in, generator.spent.tokens_out, generator.spent.estimated) == (12, 3, 0)


def test_empty_answers_are_counted_each_time_they_are_paid_for():
    with server(with_body(said(""))) as (address, _):
        generator = client(address, retries=2)
        texts(generator, 1)
    assert (generator.spent.tokens_in, generator.spent.tokens_out) == (30, 60)


def test_answers_on_their_way_arrive_before_the_run_ends():
    """Question 0 ends the run while question 1 is being answered: its answer is paid for and arrives."""
    ended = threading.Event()

    def answer(handler, body, attempt):
        if "question 0" in body["messages"][0]["content"]:
            send(handler, "no", 401)
            ended.set()
        else:
            ended.wait()
            echo(handler, body, attempt)

    came = {}
    with server(answer) as (address, world), pytest.raises(ServerError, match="401"):
        for completion in client(address, in_flight=2).generate(prompts(9), SAMPLING):
            came[completion.problem_id] = completion.text
    assert came == OTHERS and len(world.bodies) == 2


def test_a_question_with_a_lone_surrogate_is_sent():
    prompt = Prompt("p\ud800", 0, (Message("user", "a\ud800b"),))
    with server(echo) as (address, _):
        (done,) = client(address).generate([prompt], SAMPLING)
    assert done.text == "answer to a\ufffdb"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"server": "127.0.0.1:8000/v1"}, "is not an address: write it as in http"),
        ({"server": "http://"}, "is not an address"),
        ({"server": "http://[::1/v1"}, "is not an address"),
        ({"server": "http://host:99999/v1"}, "is not an address"),
        ({"server": "http://ho st/v1\x1b[2J"}, "is not an address"),
        ({"server": "http://host/v1/chat/completions"}, "leave out /chat/completions"),
        ({"timeout": float("inf")}, "finite number"),
        ({"longest_pause": 1e300}, "less than or equal to 1000000"),
        ({"prices": (float("inf"), 0)}, "finite number"),
        ({"extra": {"stream": True}}, "stream is not for you to set"),
        ({"extra": {"n": 4}}, "n is not for you to set"),
        ({"extra": {"x": float("nan")}}, "sent as JSON, which cannot hold it"),
        ({"extra": {"x": {1, 2}}}, "sent as JSON, which cannot hold it"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(settings, words):
    with pytest.raises(ValueError, match=words):
        Server(**{"server": "http://host/v1", "model": "m"} | settings)
