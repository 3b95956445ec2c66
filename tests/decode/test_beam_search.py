"""Beam search gives transformers' answers, with its scores."""

import random

import pytest
import torch

from tests.tiny_models import random_model, tiny
from whetstone import model as models
from whetstone.chat import ask
from whetstone.decode.beam_search import Beams, beam_search
from whetstone.decode.engine import Engine
from whetstone.decode.kv_cache import KVCache

WORDS = ["Compute", "the", "sum", "of", "3", "12", "45", "7", "apples", "and", "then", "+", "what", "is", "Ada", "has"]


def questions(count: int) -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(count)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An engine and transformers' own model with the same weights, and so many end tokens that beams finish by themselves."""
    _, tokenizer = tiny()
    model = random_model("qwen2", len(tokenizer))
    engine = Engine(model, tokenizer)
    engine.chat.stops += tuple(range(7, len(tokenizer), 12))
    folder = tmp_path_factory.mktemp("model")
    models.save(model, tokenizer, folder)
    return engine, type(model).from_pretrained(folder)


def theirs(engine, plain, question, settings):
    ids = torch.tensor([engine.chat.question_ids(question)])
    out = plain.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=settings.max_tokens, do_sample=False,
        num_beams=settings.beams, num_return_sequences=settings.best, length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping, eos_token_id=list(engine.chat.stops), pad_token_id=299,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    sequences = []
    for row in out.sequences[:, ids.shape[1] :].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in engine.chat.stops), len(row))
        sequences.append(row[:end])
    return sequences, out.sequences_scores.tolist()


CASES = [
    Beams(4, 12, 1.0, False, 4),
    Beams(3, 40, 0.0, "never", 2),
    Beams(4, 12, 2.0, "never", 1),
    Beams(2, 70, -0.5, True, 2),
    Beams(5, 9, 0.7, True, 3),
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_answers_and_scores_are_those_of_transformers(world, settings):
    engine, plain = world
    asked = questions(20)
    results = list(beam_search(engine, [ask(str(i), q, 0) for i, q in enumerate(asked)], settings))
    ended = 0
    for question, answers in zip(asked, results, strict=True):
        ids, scores = theirs(engine, plain, question, settings)
        assert [a.completion.ids for a in answers] == ids
        # transformers adds up to 70 log-probabilities in fp32, we in float64
        assert [a.score for a in answers] == pytest.approx(scores, abs=1e-5, rel=1e-6)
        ended += sum(a.completion.stop == "end" for a in answers)
    assert ended or settings.length_penalty > 1, "no beam ended by itself: the test would not see how they finish"


def test_a_score_is_the_sum_of_the_logprobs_over_the_penalised_length(world):
    engine, _ = world
    (answers,) = beam_search(engine, [ask("p", "Compute 1 + 2.", 0)], Beams(3, 20, 0.8, "never", 3))
    for answer in answers:
        logprobs = answer.completion.logprobs
        assert answer.score == pytest.approx(sum(logprobs) / len(logprobs) ** 0.8, abs=1e-5)
        assert len(answer.completion.ids) == len(logprobs)


def test_prompts_searched_together_or_alone_and_in_a_small_cache_give_the_same(world):
    engine, _ = world
    asked = [ask(str(i), q, 0) for i, q in enumerate(questions(6))]
    settings = Beams(4, 70, 1.0, False, 2)
    together = [[a.completion.ids for a in answers] for answers in beam_search(engine, asked, settings)]
    blocks = 60 * KVCache.bytes_per_block(2, 2, 16, torch.float32)  # for two prompts with four beams
    for limit in ({"max_batch": 4}, {"cache_bytes": blocks}):
        limited = Engine(engine.model, engine.chat.tokenizer, **limit)
        limited.chat.stops = engine.chat.stops
        again = [[a.completion.ids for a in answers] for answers in beam_search(limited, asked, settings)]
        assert again == together


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="best = 5 of beams = 4"):
        Beams(beams=4, best=5)
    with pytest.raises(ValueError, match="early_stopping"):
        Beams(early_stopping="always")
