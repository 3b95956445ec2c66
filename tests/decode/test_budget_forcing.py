"""A thinking budget: too long a thought is closed, too short a one goes on after "Wait", and removed text leaves no trace."""

import pytest
import torch

from tests.tiny_models import random_model, tiny
from whetstone.chat import ask
from whetstone.decode.budget_forcing import BudgetForcing
from whetstone.decode.decoding import Piece
from whetstone.decode.engine import Engine
from whetstone.decode.sequence import Edit
from whetstone.records import Sampling


@pytest.fixture(scope="module")
def engine():
    _, tokenizer = tiny()
    return Engine(random_model("phi3", len(tokenizer)), tokenizer)


PROMPTS = [ask(f"p{i}", f"Compute {i} + 5.", 0) for i in range(4)]


class Scripted:
    """Forces the text of a script, one token per step, on top of another control."""

    def __init__(self, ids, inner):
        self.ids, self.inner, self.removable = list(ids), inner, inner.removable

    def __call__(self, ids):
        if self.ids:  # the sampled token is replaced by the script's next
            ids[-1] = self.ids.pop(0)
        return self.inner(ids)


def thinks(engine, text: str, forcing: BudgetForcing, max_tokens: int = 80):
    """A model that writes `text` and then its own."""
    script = engine.chat.ids(text)
    return engine.generate(PROMPTS[:1], Sampling(max_tokens=max_tokens), lambda p: Scripted(script, forcing(p)))


def test_thinking_that_is_too_long_is_closed_and_the_model_answers(engine):
    forcing = BudgetForcing(engine.chat, most=12, answer="\nFinal Answer:")
    closing = engine.chat.ids("</think>\nFinal Answer:")
    long = [c for c in engine.generate(PROMPTS, Sampling(max_tokens=60), forcing) if len(c.ids) > 12]
    assert long, "all ended their turn before the budget was used up"
    for done in long:
        assert done.ids[12 : 12 + len(closing)] == closing
        assert len(done.ids) == 60 or done.stop == "end"
        assert done.logprobs[12 : 12 + len(closing)] == [0.0] * len(closing)
        assert all(logprob < 0 for logprob in (*done.logprobs[:12], *done.logprobs[12 + len(closing) :]))


def test_thinking_that_ends_too_early_goes_on_after_wait(engine):
    (done,) = thinks(engine, "12+5</think>", BudgetForcing(engine.chat, least=30, waits=1))
    assert done.text.startswith("12+5Wait")
    assert "</think>" not in done.text[: len("12+5Wait")]
    assert len(done.logprobs) == len(done.ids)


def test_only_so_many_waits_are_forced_and_a_long_enough_thought_may_end(engine):
    (done,) = thinks(engine, "1</think>2</think>3</think>4", BudgetForcing(engine.chat, least=40, waits=2))
    assert done.text.startswith("1Wait2Wait3</think>4")
    (done,) = thinks(engine, "1+1+1</think>2", BudgetForcing(engine.chat, least=3))
    assert done.text.startswith("1+1+1</think>2")


def test_the_end_of_the_turn_while_thinking_is_removed_too(engine):
    script = [*engine.chat.ids("1+"), engine.chat.end]
    forcing = BudgetForcing(engine.chat, least=20, waits=1)
    (done,) = engine.generate(PROMPTS[:1], Sampling(max_tokens=40), lambda p: Scripted(script, forcing(p)))
    assert done.text.startswith("1+Wait")


def test_what_follows_a_forced_text_is_what_follows_the_same_text_run_anew(engine):
    (done,) = thinks(engine, "12+5</think>", BudgetForcing(engine.chat, least=30, waits=1), max_tokens=30)
    ids = torch.tensor([[*done.prompt_ids, *done.ids]])
    with torch.no_grad():
        logits = engine.model(input_ids=ids, use_cache=False).logits[0, len(done.prompt_ids) - 1 : -1]
    recomputed = logits[:, : engine.chat.size].log_softmax(-1).gather(-1, torch.tensor(done.ids)[:, None])[:, 0]
    drawn = torch.tensor(done.logprobs)
    forced = drawn == 0
    assert 0 < forced.sum() < 8
    script = len(engine.chat.ids("12+5"))  # their log-probabilities are those of the tokens sampled in their place
    torch.testing.assert_close(
        drawn[script:][~forced[script:]], recomputed[script:][~forced[script:]], atol=1e-5, rtol=1e-5
    )


def test_a_stream_never_shows_removed_text(engine):
    forcing = BudgetForcing(engine.chat, least=30, waits=1)
    script = engine.chat.ids("12+5</think>")
    events = list(engine.stream(PROMPTS[:1], Sampling(max_tokens=40), lambda p: Scripted(script, forcing(p))))
    assert "".join(e.text for e in events if isinstance(e, Piece)) == events[-1].text


def test_appending_stops_at_max_tokens(engine):
    class Long:
        removable = ()

        def __call__(self, ids):
            return Edit(append=[5] * 50) if len(ids) == 3 else None

    (done,) = engine.generate(PROMPTS[:1], Sampling(max_tokens=10), lambda p: Long())
    assert done.ids[3:] == [5] * 7 and done.stop == "length"


def test_impossible_budgets_are_refused(engine):
    with pytest.raises(ValueError, match="least = 9 and most = 3"):
        BudgetForcing(engine.chat, most=3, least=9)
