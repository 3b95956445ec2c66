"""The server that fails sends each kind of failure, and a client gets the good answer in the end."""

import asyncio
import threading
from collections import Counter

from benchmarks._failing_server import FAILURES, GOOD, ODD_USAGE, RARE, TRIES, FailingServer, answer_to, outcome
from whetstone.decode.server_generator import ServerGenerator
from whetstone.decode.server_settings import Server, request_seed
from whetstone.records import Message, Prompt, Sampling
from whetstone.verify import verify

ASKED = "Ada has {} pens and buys 4 more. How many has she?"


def test_answers_are_right_or_wrong_and_follow_from_the_request():
    verdicts = {verify(answer_to(ASKED.format(3), seed), "7").correct for seed in range(20)}
    assert verdicts == {True, False}
    assert answer_to(ASKED.format(3), 5) == answer_to(ASKED.format(3), 5) != answer_to(ASKED.format(3), 6)
    kinds = {outcome(ASKED.format(n), 0, attempt, 0.5) for n in range(2000) for attempt in (1, 2)}
    assert kinds == {*FAILURES, *RARE, GOOD, ODD_USAGE}
    assert {outcome(ASKED.format(n), 0, TRIES, 1.0) for n in range(50)} <= {GOOD, ODD_USAGE}
    assert {outcome(ASKED.format(n), 0, 1, 0.0) for n in range(50)} == {GOOD}


def test_every_way_of_failing_is_survived(monkeypatch):
    monkeypatch.setattr("whetstone.decode.server_generator.FIRST_PAUSE", 0.001)
    sent: Counter[str] = Counter()
    failing = FailingServer(0.7, lambda name, kind: sent.update([kind]))
    monkeypatch.setattr("benchmarks._failing_server.RARITY", 10**9)  # large and late answers take long
    ready, loop = threading.Event(), asyncio.new_event_loop()
    port = []

    async def serve() -> None:
        server = await asyncio.start_server(failing.serve, "127.0.0.1", 0, limit=1 << 20)
        port.append(server.sockets[0].getsockname()[1])
        ready.set()

    thread = threading.Thread(target=lambda: (loop.create_task(serve()), loop.run_forever()), daemon=True)
    thread.start()
    ready.wait()
    address = f"http://127.0.0.1:{port[0]}/v1"
    client = ServerGenerator(Server(server=address, model="m", key_variable="", in_flight=4, longest_pause=0.02))
    prompts = [Prompt(f"p{n}", 0, (Message("user", ASKED.format(n)),)) for n in range(80)]
    try:
        found = {done.problem_id: done.text for done in client.generate(prompts, Sampling(max_tokens=64))}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert found == {f"p{n}": answer_to(ASKED.format(n), request_seed(0, f"p{n}", 0)) for n in range(80)}
    assert client.failed == [] and len(set(sent) & set(FAILURES)) > 20
