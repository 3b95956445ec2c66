"""A sequence that grows past LongRoPE's original context: token by token as in one forward pass, alone and packed."""

import pytest
import torch

from tests.tiny_models import ORIGINAL, TEXTS, phi4_mini
from whetstone import model as models
from whetstone.batch import Row
from whetstone.chat import ask
from whetstone.decode import runner
from whetstone.decode.engine import Engine
from whetstone.learner.learner import Learner
from whetstone.records import Sampling
from whetstone.run.settings import ParallelSettings


@pytest.mark.parametrize("shortcut", [True, False])
def test_logprobs_past_the_limit_are_those_of_the_learner_packed_and_of_transformers_alone(
    shortcut, tmp_path, monkeypatch
):
    models.save(*phi4_mini(TEXTS), tmp_path)
    model, tokenizer = models.load(tmp_path)
    assert runner.fits(model)
    monkeypatch.setattr(runner, "fits", lambda model: shortcut)
    engine = Engine(model, tokenizer)
    asked = [ask(f"p{i}", "1 + 2 " * (i + 1), 0) for i in range(6)]
    done = list(engine.generate(asked, Sampling(max_tokens=ORIGINAL + 10, seed=1)))
    rows = [Row([*c.prompt_ids, *c.ids], prompt=len(c.prompt_ids)) for c in done]
    assert sum(len(c.prompt_ids) < ORIGINAL < len(row.ids) for c, row in zip(done, rows, strict=True)) >= 2
    packed = Learner(model, engine.chat.size, ParallelSettings()).row_logprobs(rows, 1.0)
    for c, row, recomputed in zip(done, rows, packed, strict=True):
        drawn = torch.tensor(c.logprobs)
        torch.testing.assert_close(drawn, recomputed, rtol=0, atol=5e-5)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, row.prompt - 1 : -1]
        alone = logits[:, : engine.chat.size].log_softmax(-1).gather(-1, torch.tensor(c.ids)[:, None])[:, 0]
        torch.testing.assert_close(drawn, alone, rtol=0, atol=5e-5)
