"""The engine = transformers' generate; the sampler = the learner; a completion does not depend on its neighbours."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.chat_templates import taught
from tests.tiny_models import CLASSES, random_model, tiny
from whetstone import model as models
from whetstone.batch import Row
from whetstone.chat import Chat, ask
from whetstone.decode.engine import Engine
from whetstone.decode.sampling import draws, pick
from whetstone.learner.learner import Learner
from whetstone.records import Message, Prompt, Sampling
from whetstone.run.settings import ParallelSettings

QUESTIONS = ["Compute 1 + 2.", "What is 25 + 3?", "7", "Compute 11 + 12 + 13 + 14 + 15.", "Ada has 3 apples."]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny()[1]


def prompts(samples: int = 1) -> list[Prompt]:
    return [ask(f"p{i}", q, g) for i, q in enumerate(QUESTIONS) for g in range(samples)]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_greedy_tokens_are_those_of_transformers_generate(kind, slots, tokenizer, tmp_path):
    model = random_model(kind, len(tokenizer))
    engine = Engine(model, tokenizer, max_batch=slots)
    results = {c.problem_id: c for c in engine.generate(prompts(), Sampling(temperature=0, max_tokens=20))}
    models.save(model, tokenizer, tmp_path)
    plain = type(model).from_pretrained(tmp_path)  # transformers' own attention
    for i, question in enumerate(QUESTIONS):
        ids = torch.tensor([Chat(tokenizer).question_ids(question)])
        out = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False,
            eos_token_id=list(engine.chat.stops), pad_token_id=0,
        )  # fmt: skip
        assert results[f"p{i}"].ids == out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_sampled_logprobs_are_those_the_learner_recomputes(temperature):
    model, tokenizer = tiny()
    out = list(Engine(model, tokenizer).generate(prompts(4), Sampling(temperature=temperature, max_tokens=30)))
    learner = Learner(model, len(tokenizer), ParallelSettings())
    rows = [Row([*c.prompt_ids, *c.ids], prompt=len(c.prompt_ids)) for c in out]
    for c, recomputed in zip(out, learner.row_logprobs(rows, temperature), strict=True):
        assert (recomputed - torch.tensor(c.logprobs)).abs().max() < 1e-4
        assert (recomputed - torch.tensor(c.logprobs)).abs().mean() < 2e-6


def test_a_sample_does_not_depend_on_batch_size_or_arrival_order():
    model, tokenizer = tiny()
    sampling = Sampling(max_tokens=24, seed=3)
    asked = prompts(3)

    def ids(slots, order):
        done = Engine(model, tokenizer, max_batch=slots).generate(order, sampling)
        return {(c.problem_id, c.index): c.ids for c in done}

    assert ids(1, asked) == ids(4, asked) == ids(15, asked[::-1])


def test_streams_differ_by_seed_problem_and_rollout_and_repeat_otherwise():
    first, again, *others = (
        list(islice(draws(*key), 100)) for key in [(1, "p", 0), (1, "p", 0), (2, "p", 0), (1, "q", 0), (1, "p", 1)]
    )
    assert first == again and len(set(first)) > 90
    assert all(not set(first) & set(other) for other in others)


def test_sampled_frequencies_are_the_distribution():
    """Chi-square over 6 tokens, 20,000 draws; 20.5 is the 0.1 % point for 5 degrees of freedom: one failure in 1000 seeds."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, 0.5])
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    for temperature in (0.6, 1.0, 1.5):
        tokens, logprobs = pick(logits.expand(20_000, -1), draws, Sampling(temperature=temperature))
        p = (logits / temperature).softmax(-1)
        torch.testing.assert_close(logprobs, p.log()[tokens])
        expected = 20_000 * p
        assert (((tokens.bincount(minlength=6) - expected) ** 2) / expected).sum() < 20.5


def test_top_k_and_top_p_keep_the_likeliest_and_renormalise():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(1000, -1)
    draws = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = pick(logits, draws, Sampling(top_k=2))
    assert set(tokens.tolist()) == {0, 1}
    torch.testing.assert_close(logprobs[tokens == 0].exp(), torch.full(((tokens == 0).sum(),), 0.625))
    assert set(pick(logits, draws, Sampling(top_p=0.81))[0].tolist()) == {0, 1, 2}
    assert set(pick(logits, draws, Sampling(top_p=0.1))[0].tolist()) == {0}


def test_a_model_that_ends_its_turn_stops_and_the_end_is_among_its_ids():
    model, tokenizer = tiny()
    chat = Chat(tokenizer)
    model.eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        hot = model.get_output_embeddings().weight
        hot[chat.end] = (
            1.0  # the final norm of a zero state is zero: all tokens are equally probable, the end among them
        )
    done = list(Engine(model, tokenizer).generate(prompts(20), Sampling(max_tokens=200)))
    assert {c.stop for c in done} <= {"end", "length"}
    ended = [c for c in done if c.stop == "end"]
    assert ended
    assert all(c.ids[-1] in chat.stops and not set(c.ids[:-1]) & set(chat.stops) for c in ended)


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers():
    model, tokenizer = tiny()
    with pytest.raises(ValueError, match=r"max_tokens = 250 exceed the model's context of 256"):
        list(Engine(model, tokenizer).generate([ask("p", "Compute 1 + 2.", 0)], Sampling(max_tokens=250)))


def test_a_conversation_keeps_phi_4_minis_template():
    _, tokenizer = tiny()
    chat = Chat(tokenizer)
    ids = chat.prompt_ids((Message("system", "S"), Message("user", "Hi 12")))
    assert tokenizer.decode(ids) == "<|system|>S<|end|><|user|>Hi 12<|end|><|assistant|>"
    answer = taught(chat, "4 2").answer_ids
    assert tokenizer.decode(answer) == "4 2<|end|>"
    assert [tokenizer.decode([i]) for i in taught(chat, "1234").answer_ids] == ["1", "2", "3", "4", "<|end|>"]
    assert chat.text(answer) == "4 2"


def test_forked_sampling_gives_every_completion_once_and_the_same_ones_again():
    from whetstone.decode.forked_generator import ForkedGenerator

    model, tokenizer = tiny()
    engine = Engine(model, tokenizer)
    asked, sampling = prompts(20), Sampling(max_tokens=16, seed=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        two = ForkedGenerator(engine, 2)
        assert two.processes == 2
        first = {(c.problem_id, c.index): c for c in two.generate(asked, sampling)}
        assert len(first) == len(asked) and all(c.ids for c in first.values())
        assert first == {(c.problem_id, c.index): c for c in two.generate(asked, sampling)}
        alone = {(c.problem_id, c.index): c.ids for c in engine.generate(asked, sampling)}
        assert {key: c.ids for key, c in first.items()} == alone
    finally:
        torch.set_num_threads(threads)


def test_however_many_threads_sampling_forks_with_one_copy_of_the_packed_weights_and_gives_threads_back(monkeypatch):
    from whetstone.decode import forked_generator, fused_forward, packed_product

    model, tokenizer = tiny()
    monkeypatch.setattr(fused_forward, "TRANSPOSED_BYTES", 0)
    packed, panels = [], packed_product._panels
    monkeypatch.setattr(packed_product, "_panels", lambda *args: (packed.append(args), panels(*args))[1])
    fork, forked, threads = forked_generator.fork, [], torch.get_num_threads()
    monkeypatch.setattr(forked_generator, "fork", lambda *work: (forked.append(len(packed)), fork(*work))[1])
    torch.set_num_threads(2)
    try:
        engine = Engine(model, tokenizer)
        done = list(forked_generator.ForkedGenerator(engine, 2).generate(prompts(20), Sampling(max_tokens=8)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert len(done) == len(prompts(20)) and engine.runner._fused is None
    assert forked == [len(packed)] and packed, "the parent packs before it forks, and nobody again"


def test_a_sampling_process_that_dies_is_an_error_and_none_is_left_behind(monkeypatch):
    import os

    from whetstone.decode.forked_generator import ForkedGenerator

    model, tokenizer = tiny()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    parent = os.getpid()
    plain = Engine.generate

    def dies_in_a_child(self, asked, sampling, control=None):
        if os.getpid() != parent:
            os._exit(9)
        yield from plain(self, asked, sampling)

    def children() -> set[str]:
        """Of this process, zombies too."""
        return set(" ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split())

    monkeypatch.setattr(Engine, "generate", dies_in_a_child)
    before = children()
    try:
        with pytest.raises(RuntimeError, match=r"\[parallel\] forks = 1"):
            list(ForkedGenerator(Engine(model, tokenizer), 2).generate(prompts(20), Sampling(max_tokens=4)))
        assert children() <= before
    finally:
        torch.set_num_threads(threads)


def test_in_fixed_row_blocks_a_sample_is_the_same_to_the_bit_whatever_is_decoded_beside_it():
    model, tokenizer = tiny()
    asked = [ask(f"p{i}", f"Compute {i} + {i * 7}" + " + 3" * (i % 9), g) for i in range(40) for g in range(2)]
    sampling = Sampling(max_tokens=12, seed=5)

    def sampled(order, **engine):
        done = Engine(model, tokenizer, row_block=8, **engine).generate(order, sampling)
        return {(c.problem_id, c.index): (c.ids, c.logprobs) for c in done}

    alone = sampled(asked, max_batch=1)
    assert sampled(asked, max_batch=80) == alone
    assert sampled(asked[::-1], max_batch=11, cache_bytes=1 << 20) == alone
    assert sampled(asked[10:13], max_batch=3) == {
        (p.problem_id, p.index): alone[p.problem_id, p.index] for p in asked[10:13]
    }
