"""Rollouts from vLLM servers: the published weights and no others, every prompt answered once, whatever a server does."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny_models import tiny
from tests.vllm_like import dies, sleeps, vllm
from whetstone import model as models
from whetstone.batch import answer_row
from whetstone.chat import Chat
from whetstone.decode.published import Published, digests, untie
from whetstone.decode.server_sampler import Cancelled, SamplerLost, VllmSampler
from whetstone.learner.adapter import add_adapter, own_weights, save_adapter
from whetstone.learner.learner import Learner
from whetstone.records import Message, Prompt, Sampling
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.settings import AdapterSettings, ParallelSettings

PROMPTS = [Prompt(f"p{n}", i, (Message("user", f"Compute {n} + 1."),)) for n in range(4) for i in range(3)]
SAMPLING = Sampling(temperature=0.8, max_tokens=6, seed=3)
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model's folder, and one of the same model after training: both with a head of their own."""
    made = []
    for name in ("old", "new"):
        model, tokenizer = tiny()
        folder = tmp_path_factory.mktemp(name)
        if name == "new":
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        models.save(model, tokenizer, folder)
        untie(folder, EMBEDDING)
        made.append(folder)
    return made


def sampler(published, *addresses, **settings) -> VllmSampler:
    chosen = SamplerSettings(servers=addresses, **({"in_flight": 3, "wait": 0.0} | settings))
    made = VllmSampler(chosen, addresses, Chat(models.load(published, "cpu")[1]))
    made.give = lambda: made.publish(Published("v1", published))
    return made


def asked(completions) -> Counter:
    return Counter((c.problem_id, c.index) for c in completions)


ONCE = Counter((p.problem_id, p.index) for p in PROMPTS)


def test_rollouts_are_of_the_published_weights_as_the_learner_computes_them(folders):
    old, new = folders
    model, _ = models.load(new, "cpu")
    with vllm(old) as (one, first), vllm(old) as (two, second):
        servers = sampler(new, one, two)
        servers.give()
        probes = servers.probes()
        completions = list(servers.generate(PROMPTS, SAMPLING))
    assert len(probes) == 2 and asked(completions) == ONCE
    learner = Learner(model, servers.chat.size, ParallelSettings(device="cpu"))
    scored = learner.row_logprobs([answer_row(c.prompt_ids, c.ids) for c in completions], SAMPLING.temperature)
    for completion, logprobs in zip(completions, scored, strict=True):
        # its weights are large, and the two add up products in another order
        assert completion.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)
        assert completion.stop == ("end" if completion.ids[-1] in servers.chat.stops else "length")
        assert completion.text == servers.chat.completion(completion.ids)
    together = [Counter(map(tuple, server.asked[1:])) for server in (first, second)]
    assert all(together) and not together[0].keys() & together[1].keys(), "a problem's samples go to one server"


def test_a_folder_gets_a_head_of_its_own_with_the_embeddings_numbers(tmp_path):
    model, tokenizer = tiny()
    models.save(model, tokenizer, tmp_path)
    untie(tmp_path, EMBEDDING)
    untied = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert torch.equal(untied.lm_head.weight, model.lm_head.weight)
    assert all(torch.equal(weight, untied.state_dict()[name]) for name, weight in model.state_dict().items())
    assert set(digests(tmp_path)) == {name for name, weight in untied.named_parameters() if weight.ndim == 1}


@pytest.mark.parametrize(
    "fault, message",
    [({"reloads": False}, "norm.* is not what was published"), ({"tied": True}, "head and embedding are one tensor")],
)
def test_a_server_that_does_not_take_the_weights_is_refused(folders, fault, message):
    with vllm(folders[0], **fault) as (address, _), pytest.raises(ValueError, match=message):
        sampler(folders[1], address).give()


def lies(**wrong):
    return lambda choice, count: choice if count < 3 else choice | wrong


FAULTS = {
    "is killed": dies(3),
    "answers for another prompt": lies(prompt_token_ids=[1]),
    "gives ids without log-probabilities": lies(logprobs=None),
    "gives log-probabilities that are none": lies(logprobs={"token_logprobs": [float("nan")]}),
    "gives unknown ids": lies(token_ids=[10**6], logprobs={"token_logprobs": [-1.0]}),
    "gives too many ids": lies(token_ids=[5] * 99, logprobs={"token_logprobs": [-1.0] * 99}),
    "stops without an end": lies(token_ids=[5], logprobs={"token_logprobs": [-1.0]}, finish_reason="stop"),
    "is aborted": lies(finish_reason="abort"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_what_a_lost_server_has_not_answered_the_others_answer(folders, fault, capfd):
    old, new = folders
    with vllm(old, answer=fault) as (bad, _), vllm(old) as (good, _):
        servers = sampler(new, bad, good, in_flight=1)
        servers.give()
        assert asked(servers.generate(PROMPTS, SAMPLING)) == ONCE
    assert "is lost" in capfd.readouterr().err and [s.lost for s in servers.servers] == [1, 0]


def test_a_server_that_is_too_slow_is_lost(folders):
    old, new = folders
    with vllm(old, answer=sleeps(3)) as (slow, _), vllm(old) as (good, _):
        servers = sampler(
            new, slow, good, in_flight=1, timeout=0.5, wait=600.0
        )  # the good one may be slow too, at times
        servers.give()
        for server in servers.servers:
            server.ready = True  # also if this machine is so slow that a probe took half a second
        assert asked(servers.generate(PROMPTS[:6], SAMPLING)) == Counter(asked(PROMPTS[:6]))


def test_a_server_that_was_started_again_samples_only_after_it_got_the_weights(folders, capfd):
    old, new = folders
    with vllm(old) as (address, served):
        servers = sampler(new, address)
        servers.give()
        served.start()
        assert asked(servers.generate(PROMPTS, SAMPLING)) == ONCE
        assert served.version == "v1" and served.calls["/collective_rpc"] == 2
    assert "it was started again" in capfd.readouterr().err


def test_a_server_that_comes_back_within_the_wait_goes_on(folders):
    with vllm(folders[0], answer=dies(4, 7)) as (address, served):
        servers = sampler(folders[1], address, in_flight=1, wait=600.0)
        servers.give()
        assert asked(servers.generate(PROMPTS, SAMPLING)) == ONCE
    assert served.calls["/collective_rpc"] >= 2


def test_without_a_server_the_run_ends_and_says_what_to_do(folders):
    with vllm(folders[0], answer=dies(3)) as (address, _):
        servers = sampler(folders[1], address)
        servers.give()
    with pytest.raises(SamplerLost, match=r"no server can sample: http.*finished steps are kept"):
        list(servers.generate(PROMPTS, SAMPLING))


def test_a_server_without_the_endpoints_is_refused_with_the_way_to_start_it(folders):
    lacks = vllm(folders[0], lacks="/collective_rpc")
    with lacks as (address, _), pytest.raises(ValueError, match=r"knows no /collective_rpc.* VLLM_SERVER_DEV_MODE=1"):
        sampler(folders[1], address).give()


def test_only_a_temperature_can_be_asked_for(folders):
    with pytest.raises(ValueError, match="more than a temperature"):
        list(sampler(folders[1], "http://127.0.0.1:9").generate(PROMPTS, Sampling(top_p=0.9)))


def test_a_secret_in_an_address_stands_in_no_message(folders, monkeypatch):
    monkeypatch.setenv("STUDENT_KEY", "swordfish")
    servers = sampler(folders[1], "http://me:${STUDENT_KEY}@127.0.0.1:9/v1")
    assert servers.servers[0].address == "http://me:swordfish@127.0.0.1:9"
    with pytest.raises(SamplerLost, match="no server can sample") as lost:
        servers.give()
    assert "swordfish" not in str(lost.value)


def adapters(folder, base, count: int) -> list[Published]:
    """Random adapters of a model, each with the log-probabilities that the model computes with it."""
    model, _ = models.load(base, "cpu")
    add_adapter(model, AdapterSettings(rank=2), seed=0)
    learner, made = Learner(model, 300, ParallelSettings(device="cpu")), []
    for number in range(count):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
        save_adapter(model, own_weights(model), folder / str(number), base)
        ids = [3, 9, 27, 81, 60, 43]
        (logprobs,) = learner.row_logprobs([answer_row(ids[:2], ids[2:])])
        made.append(Published(f"v{number}", folder / str(number), number, ids, logprobs.tolist(), adapter=True))
    return made


def test_an_adapter_is_loaded_in_the_place_of_the_one_before(folders, tmp_path):
    first, second = adapters(tmp_path, folders[0], 2)
    with vllm(folders[0]) as (address, served):
        servers = sampler(folders[0], address)
        for published in (first, second):
            servers.publish(published)
            assert servers.gap < 1e-4 and asked(servers.generate(PROMPTS, SAMPLING)) == ONCE
        assert list(served.adapters) == ["v1"]
        with pytest.raises(ValueError, match=r"loaded v2, and its log-probabilities differ from the learner's by"):
            servers.publish(replace(first, version="v2", logprobs=second.logprobs))


def test_a_server_that_was_started_again_gets_the_adapter_again(folders, tmp_path, capfd):
    (published,) = adapters(tmp_path, folders[0], 1)

    def starts_again(choice, count):
        if count == 5:
            served.start()
        return choice

    with vllm(folders[0], answer=starts_again) as (address, served):
        servers = sampler(folders[0], address, in_flight=1, wait=600.0)
        servers.publish(published)
        assert asked(servers.generate(PROMPTS, SAMPLING)) == ONCE
    assert "no longer has the adapter" in capfd.readouterr().err and served.calls["/v1/load_lora_adapter"] == 2


@pytest.mark.parametrize(("answer", "said"), [({}, "knows no"), ({"error": "rank 2 > 1"}, "does not load")])
def test_a_server_that_does_not_load_an_adapter_is_refused_with_the_way_to_start_it(folders, tmp_path, answer, said):
    (published,) = adapters(tmp_path, folders[0], 1)
    path = "/v1/load_lora_adapter"
    with (
        vllm(folders[0], lacks=path, answer_404=answer) as (address, _),
        pytest.raises(ValueError, match="--enable-lora") as refused,
    ):
        sampler(folders[0], address).publish(published)
    assert said in str(refused.value) and answer.get("error", path) in str(refused.value)


def test_generation_that_is_called_off_ends_and_leaves_nothing_behind(folders):
    with vllm(folders[0]) as (address, _):
        servers = sampler(folders[1], address, in_flight=1)
        servers.give()
        started = servers.generate(PROMPTS, SAMPLING)
        next(started)
        servers.cancelled.set()
        with pytest.raises(Cancelled):
            list(started)
        servers.cancelled.clear()
        assert asked(servers.generate(PROMPTS[3:6], SAMPLING)) == Counter(asked(PROMPTS[3:6]))
