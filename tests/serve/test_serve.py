"""`whetstone serve`, asked by the official client. What it answers is compared with the engine and with transformers."""

import asyncio
import json
import shutil
import threading

import pytest
import torch
import transformers

from tests.serve.served import PATIENCE, exact, openai, served, until
from tests.tiny_models import TEXTS
from whetstone import model as models
from whetstone.decode.beam_search import Beams, beam_search
from whetstone.decode.server_generator import ServerGenerator
from whetstone.decode.server_settings import Server
from whetstone.records import Message, Prompt, Sampling
from whetstone.run.settings import ModelSettings
from whetstone.serve.thoughts import apart

ASKED = [{"role": "user", "content": "Compute 1 + 2."}]
LONG = {
    "max_tokens": 4000,
    "extra_body": {"logit_bias": {"0": -100, "1": -100, "2": -100, "3": -100}},
}  # never ends by itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with random weights, which writes long nonsense."""
    settings = ModelSettings(layers=2, hidden=32, mlp=48, heads=2, kv_heads=1, vocabulary=300, context=4096)
    model, tokenizer = models.build_tiny(settings, TEXTS, seed=0)
    for p in model.parameters():
        if p.dim() > 1:
            p.data.mul_(3.0)
    model.get_output_embeddings().weight.data[:4] *= (
        0.01  # the head's rows of the tokens that end a turn: answers are long
    )
    path = tmp_path_factory.mktemp("served") / "tiny"
    models.save(model, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def world(folder):
    with served(folder, batch=8, queue=100) as running:
        yield running


@pytest.fixture(scope="module")
def client(world):
    return world.client()


@pytest.fixture(scope="module")
def engine(folder):
    return exact(None, str(folder))


def chat(client, messages=ASKED, **more):
    return client.chat.completions.create(
        **{"model": "tiny", "messages": messages, "max_tokens": 24, "temperature": 0} | more
    )


def test_a_greedy_answer_is_the_engines(client, engine):
    prompt = Prompt("p", 0, (Message("user", "Compute 1 + 2."),))
    (own,) = engine.generate([prompt], Sampling(0, 24))
    assert len(own.ids) > 10
    answer = chat(client)
    choice = answer.choices[0]
    assert (getattr(choice.message, "reasoning_content", ""), choice.message.content) == tuple(apart(own.text))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(own.prompt_ids), len(own.ids))
    assert choice.finish_reason == {"end": "stop", "length": "length"}[own.stop]


def test_a_stream_joins_to_the_whole_answer_in_text_logprobs_and_usage(client):
    asked = {"n": 3, "seed": 7, "temperature": 1, "logprobs": True, "top_logprobs": 2, "max_tokens": 40}
    whole = chat(client, **asked)
    parts = {index: ["", "", [], None] for index in range(3)}
    usage = None
    for chunk in chat(client, **asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            own = parts[choice.index]
            own[0] += getattr(choice.delta, "reasoning_content", None) or ""
            own[1] += choice.delta.content or ""
            own[2] += choice.logprobs.content if choice.logprobs else []
            own[3] = choice.finish_reason or own[3]
    for choice in whole.choices:
        said = getattr(choice.message, "reasoning_content", ""), choice.message.content
        assert parts[choice.index] == [*said, choice.logprobs.content, choice.finish_reason]
    assert usage == whole.usage
    assert len({choice.message.content for choice in whole.choices}) == 3, "choices of one request are alike"


def test_log_probabilities_are_those_of_transformers(folder, client, engine):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    entries = chat(client, temperature=0.5, seed=1, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    text = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = client.completions.create(model="tiny", prompt=prompt, max_tokens=24, temperature=0.5, seed=1, logprobs=3)
    assert ids.choices[0].logprobs.tokens == [entry.token for entry in entries], "ids as a prompt are the chat's"
    (own,) = engine.generate([Prompt("", 0, (Message("user", "Compute 1 + 2."),))], Sampling(0.5, 24, seed=1))
    said = own.ids[: len(entries)]  # without the end of the turn
    with torch.no_grad():
        logits = model.double()(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    for place, entry in enumerate(entries):
        assert entry.logprob == pytest.approx(expected[place, said[place]].item(), abs=1e-4)
        best = expected[place].topk(3).values.tolist()
        assert [other.logprob for other in entry.top_logprobs] == pytest.approx(best, abs=1e-4)


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(client):
    whole = client.completions.create(model="tiny", prompt="Compute", max_tokens=30, temperature=0).choices[0].text
    stop = whole[10:13]
    cut = client.completions.create(model="tiny", prompt="Compute", max_tokens=30, temperature=0, stop=[stop]).choices[
        0
    ]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_completions_of_several_prompts_stand_in_order_and_repeat_them_if_asked(client):
    asked = {"model": "tiny", "max_tokens": 6, "temperature": 0}
    alone = [client.completions.create(prompt=prompt, **asked).choices[0].text for prompt in ("1 + 2", "What is")]
    both = client.completions.create(prompt=["1 + 2", "What is"], n=2, echo=True, **asked)
    assert [(c.index, c.text) for c in both.choices] == list(
        enumerate([f"1 + 2{alone[0]}"] * 2 + [f"What is{alone[1]}"] * 2)
    )


def test_log_probabilities_of_a_prompt_are_those_of_transformers(folder, client):
    """As lm-eval asks for the likelihood of an answer: the prompt is repeated, one token follows."""
    from transformers import AutoModelForCausalLM

    ids = [5, 3, 9, 2, 40, 7]  # 2 ends a turn
    asked = {"model": "tiny", "prompt": [ids, ids[:3]], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    whole = client.completions.create(**asked)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder).double()(torch.tensor([ids])).logits[0].log_softmax(-1)
    for choice, count in zip(whole.choices, (6, 3), strict=True):
        noted = choice.logprobs
        assert len(noted.tokens) in (count, count + 1) and noted.token_logprobs[0] is None is noted.top_logprobs[0]
        own = [expected[place, ids[place + 1]].item() for place in range(count - 1)]
        assert noted.token_logprobs[1:count] == pytest.approx(own, abs=1e-4)
        best = expected[: count - 1].amax(-1).tolist()
        assert [max(top.values()) for top in noted.top_logprobs[1:count]] == pytest.approx(best, abs=1e-4)
        assert choice.text.startswith("".join(noted.tokens[:count]))
    parts = [part.choices[0] for part in client.completions.create(**asked, stream=True)]
    for choice in whole.choices:
        own = [part for part in parts if part.index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [
            x for part in own if part.logprobs for x in part.logprobs.token_logprobs
        ] == choice.logprobs.token_logprobs


def test_beams_are_the_beam_search(client, engine):
    prompt = Prompt("p", 0, (Message("user", "Compute 1 + 2."),))
    (found,) = beam_search(engine, [prompt], Beams(3, 12, best=2))
    answer = chat(client, max_tokens=12, n=2, extra_body={"beams": 3})
    assert [c.message.content for c in answer.choices] == [apart(scored.completion.text).answer for scored in found]


def test_thinking_ends_at_its_budget(client):
    """The model never ends it by itself; the forced end is part of the answer."""
    answer = chat(client, max_tokens=60, seed=3, logprobs=True, extra_body=LONG["extra_body"] | {"think_most": 10})
    before, end, after = answer.choices[0].message.content.partition("</think>")
    assert before and end and after and answer.usage.completion_tokens == 60
    assert len(answer.choices[0].logprobs.content) == 60, "tokens that were not sampled are noted, too"


def test_a_request_switches_thinking_as_transformers_renders_it(folder, tmp_path):
    """Its prompt is transformers' with `enable_thinking`, and thinking that the prompt opens is not in the answer."""
    shutil.copytree(folder, path := tmp_path / "tiny")
    switch = "{% if add_generation_prompt and enable_thinking %}{{ '<think>\\n' }}{% endif %}"
    with (path / "chat_template.jinja").open("a") as template:
        template.write(switch)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    with served(path, batch=8, queue=9) as running:
        client, thought = running.client(), {}
        for thinking in (None, True, False):
            kwargs = {} if thinking is None else {"enable_thinking": thinking}
            for more in ({}, {"beams": 2}):
                answer = chat(client, max_tokens=6, extra_body={"chat_template_kwargs": kwargs} | more)
                ids = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, **kwargs)["input_ids"]
                assert answer.usage.prompt_tokens == len(ids)
                thought[thinking] = bool(getattr(answer.choices[0].message, "reasoning_content", None))
    assert thought == {None: False, True: True, False: False}


REFUSED = [
    ({"chat_template_kwargs": {"enable_thinking": True}}, 400, "chat_template_kwargs", "has no switch for thinking"),
    ({"chat_template_kwargs": {"enable_thinking": 1}}, 400, "chat_template_kwargs", "true or false"),
    ({"chat_template_kwargs": {"date": True}}, 400, "chat_template_kwargs", "date"),
    ({"temprature": 1}, 400, "temprature", "did you mean 'temperature'"),
    ({"temperature": -1}, 400, "temperature", "greater than or equal to 0"),
    ({"temperature": "hot"}, 400, "temperature", "'hot'"),
    ({"repetition_penalty": 1e-39}, 400, "repetition_penalty", "greater than or equal to 0.01"),
    ({"n": 0}, 400, "n", "greater than or equal to 1"),
    ({"n": 65}, 400, "n", "64"),
    ({"messages": []}, 400, "messages", "at least 1"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages", "tools are not supported"),
    ({"messages": [{"role": "user"}]}, 400, "messages", "content is missing"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "image_url"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, None, "UTF-8"),
    ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "messages", "context of 4096"),
    ({"max_tokens": 5000}, 400, "messages", "lower max_tokens"),
    ({"top_logprobs": 3}, 400, "top_logprobs", "set logprobs"),
    ({"tools": [{"type": "function"}]}, 400, "tools", "not supported"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format", "not supported"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "repetition_penalty"),
    ({"logit_bias": {"99999": 1}}, 400, "logit_bias", "no id of the model"),
    ({"logit_bias": {"one": 1}}, 400, "logit_bias", "not the id"),
    ({"beams": 2, "logprobs": True}, 400, "logprobs", "beam search"),
    ({"think_least": 9, "think_most": 3}, 400, None, "raise most"),
    ({"model": "tinny"}, 404, "model", "did you mean 'tiny'"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("change", "status", "param", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_request_that_cannot_be_answered_is_refused_in_words(world, change, status, param, words, stream):
    import httpx2

    body = {"model": "tiny", "messages": ASKED, "max_tokens": 3, "stream": stream} | change
    answer = httpx2.post(f"{world.url}/v1/chat/completions", content=json.dumps(body).encode())
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert words in error["message"]


def test_what_asks_for_nothing_special_is_accepted(client):
    more = {"tools": [], "response_format": {"type": "text"}, "presence_penalty": 0, "user": "me", "store": False}
    assert chat(client, max_tokens=2, **more).choices[0].finish_reason == "length"


def test_numbers_that_no_model_reaches_are_those_it_reaches(client):
    assert chat(client, max_tokens=4, extra_body={"top_k": 2**63}).choices[0].message.content
    greedy = chat(client, max_tokens=4, temperature=0)
    assert (
        chat(client, max_tokens=4, temperature=1e-300).choices[0].message.content == greedy.choices[0].message.content
    )


def test_a_message_of_an_answer_can_be_sent_back(client):
    first = chat(client, max_tokens=4).choices[0].message
    again = chat(client, [*ASKED, first.model_dump(), *ASKED], max_tokens=2)
    assert again.usage.completion_tokens == 2


def test_bodies_that_are_no_requests_are_refused(world):
    import httpx2

    bodies = (
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"\\ud800": 1}', "be read"),
    )
    for content, words in bodies:
        answer = httpx2.post(f"{world.url}/v1/completions", content=content)
        assert answer.status_code == 400 and words in answer.json()["error"]["message"]
    assert httpx2.post(f"{world.url}/v1/completions", content=bytes(9 << 20)).status_code == 413
    assert httpx2.get(f"{world.url}/v1/nothing").json()["error"]["message"].startswith("there is no GET /v1/nothing")


def test_a_client_that_goes_away_cancels_its_answer(world, client):
    """The answer would have 4,000 tokens."""
    chat(client, max_tokens=1)
    for leave in ("stream", "whole"):
        if leave == "stream":
            stream = chat(client, stream=True, **LONG)
            next(iter(stream))
        else:
            impatient = world.client(timeout=0.2)
            threading.Thread(target=_fails, args=(impatient,)).start()
            until(lambda: world.decoder.busy)
        (lane,) = world.decoder.lanes.values()
        sequences = [sequence for job in list(lane.jobs.values()) for sequence in job.sequences.values()]
        assert sequences
        if leave == "stream":
            stream.close()
        until(lambda: world.decoder.in_flight == 0)
        assert all(len(sequence.ids) < 4000 for sequence in sequences) and not lane.jobs


def _fails(client):
    with pytest.raises(openai.APITimeoutError):
        chat(client, **LONG)


def test_fifty_clients_at_once_lose_nothing(world, engine):
    questions = [f"Compute {a} + {b}." for a in range(10) for b in range(5)]
    prompts = [Prompt(str(i), 0, (Message("user", question),)) for i, question in enumerate(questions)]
    expected = {int(c.problem_id): c.text for c in engine.generate(prompts, Sampling(0, 16))}

    assert len(set(expected.values())) > 25 and min(map(len, expected.values())) > 10

    async def ask(client, number):
        asked = [{"role": "user", "content": questions[number]}]
        more = {"model": "tiny", "messages": asked, "max_tokens": 16, "temperature": 0}
        if number % 2:
            whole = (await client.chat.completions.create(**more)).choices[0].message
            return getattr(whole, "reasoning_content", ""), whole.content
        said = ["", ""]
        async for chunk in await client.chat.completions.create(**more, stream=True):
            said[0] += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
            said[1] += chunk.choices[0].delta.content or ""
        return tuple(said)

    async def everybody():
        url = f"{world.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(50)))

    assert asyncio.run(everybody()) == [tuple(apart(expected[number])) for number in range(50)]
    assert world.decoder.in_flight == 0


def test_more_than_the_queue_holds_is_refused_and_asked_again_later(folder):
    with served(folder, batch=1, queue=1) as small:
        client = small.client()
        streams = [chat(client, stream=True, **LONG)]
        next(iter(streams[0]))
        waiting = threading.Thread(target=chat, args=(client,), kwargs={"max_tokens": 1})
        waiting.start()
        until(lambda: small.decoder.in_flight == 2)
        with pytest.raises(openai.RateLimitError) as refused:
            chat(client, max_tokens=1)
        assert refused.value.response.headers["Retry-After"] == "2" and refused.value.code == "queue_full"
        streams[0].close()
        waiting.join()
        assert chat(client, max_tokens=1).usage.completion_tokens == 1


def test_only_who_has_the_key_may_ask_and_no_page_of_another_site(folder):
    import httpx2

    with served(folder, key="s3cret") as locked:
        with pytest.raises(openai.AuthenticationError):
            chat(locked.client("wrong"))
        assert [model.id for model in locked.client("s3cret").models.list()] == ["tiny"]
        assert httpx2.get(f"{locked.url}/health").json()["status"] == "ok"
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example:80"}):
            assert httpx2.get(f"{locked.url}/health", headers=headers).status_code == 403


def test_a_failure_of_the_model_ends_its_requests_and_the_next_is_answered(folder):
    broken = []

    def load(serving, name):
        engine = exact(serving, name)
        if not broken:
            broken.append(name)
            engine.runner.logits = lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory"))
        return engine

    with served(folder, load=load) as running:
        client = running.client()
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            chat(client, max_tokens=2)
        assert chat(client, max_tokens=2).usage.completion_tokens == 2
        assert running.decoder.in_flight == 0


def test_a_server_that_stops_says_so_to_who_waits_and_to_who_comes(folder):
    with served(folder) as running:
        client = running.client()
        stream = chat(client, stream=True, **LONG)
        next(iter(stream))
        running.decoder.shut()
        with pytest.raises(openai.APIError, match="the server stops"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="the server stops"):
            chat(client)
        assert running.decoder.in_flight == 0


def test_our_own_generator_reads_it_as_any_server(world, engine):
    prompt = Prompt("p", 0, (Message("user", "Compute 1 + 2."),))
    (own,) = engine.generate([prompt], Sampling(0, 24))
    (read,) = ServerGenerator(Server(server=f"{world.url}/v1", model="tiny")).generate([prompt], Sampling(0, 24))
    assert apart(read.text) == apart(own.text) and read.usage == (len(own.prompt_ids), len(own.ids))


def test_all_stages_of_a_run_are_asked_by_name_and_two_at_once(folder, tmp_path):
    run = tmp_path / "run"
    for stage in ("04-sft", "05-rl"):
        shutil.copytree(folder, run / stage / "model")
        (run / stage / "manifest.json").write_text("{}")
    with served(run, kept=2) as running:
        client = running.client()
        assert [model.id for model in client.models.list()] == ["rl", "sft"]
        streams = [chat(client, model=name, stream=True, **LONG) for name in ("rl", "sft")]
        for stream in streams:
            assert next(iter(stream)).model in ("rl", "sft")
        assert len(running.decoder.lanes) == 2 and running.decoder.in_flight == 2
        for stream in streams:
            stream.close()
        shutil.copytree(folder, run / "06-dpo" / "model")  # a stage that is not finished
        assert [model.id for model in client.models.list()] == ["rl", "sft"]
        (run / "06-dpo" / "manifest.json").write_text("{}")
        assert chat(client, model="dpo", max_tokens=1).model == "dpo"
        assert len(running.decoder.lanes) == 2, "one of the idle models is given up"
