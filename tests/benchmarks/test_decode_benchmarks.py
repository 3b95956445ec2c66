"""Both sides of the decoding benchmark do the same work, and the agreement's parts say what they found."""

import pytest

from benchmarks import decode_agreement, decode_vs_generate
from whetstone.attention import ATTENTION
from whetstone.decode.engine import Engine


@pytest.mark.slow
def test_both_sides_write_the_scripted_number_of_tokens(monkeypatch):
    monkeypatch.setattr(decode_vs_generate, "PROMPT", (5, 12))
    monkeypatch.setattr(decode_vs_generate, "ANSWER", (2, 5))
    words = decode_vs_generate.tokenizer()
    name = "Phi-3 0.65 M"
    engine = Engine(decode_vs_generate.build(name, words, ATTENTION), words, max_batch=2)
    peer = decode_vs_generate.Generate(name, words, engine.chat)
    prompts, lengths = decode_vs_generate.work(3, seed=0)
    assert all(5 <= len(engine.chat.prompt_ids(prompt.messages)) <= 12 for prompt in prompts)
    assert all(2 <= n <= 5 for n in lengths)
    rows = []
    plain = peer.models["float32"].generate

    def watched(**words):
        rows.append(plain(**words))
        return rows[-1]

    monkeypatch.setattr(peer.models["float32"], "generate", watched)
    assert decode_vs_generate.ours(engine, prompts, lengths)() == sum(lengths)
    assert peer.run(prompts, lengths, ("float32", "static"), 2)() == sum(lengths)
    width = max(len(engine.chat.prompt_ids(prompt.messages)) for prompt in prompts[:2])
    assert rows[0].shape == (2, width + max(lengths[:2])), "the peer goes on until its longest is done"


@pytest.mark.slow
def test_the_agreement_is_complete_on_a_few(capsys):
    found = decode_agreement.greedy(3)
    assert {kind: part["same"] for kind, part in found.items()} == dict.fromkeys(("Phi3", "Qwen2", "Llama"), 1.0)
    beams = decode_agreement.beams(3)
    assert all(part["same"] == 1.0 for part in beams.values())
    assert beams["float64"]["largest_difference"] < 1e-5
    assert beams["float64"]["largest_from_one_pass"] < 1e-5
    groups = decode_agreement.groups(3)
    assert groups["one"]["tokens_run"] == groups["eight"]["tokens_run"] == groups["eight"]["prompt_tokens"]
    budget = decode_agreement.budget(80)
    assert (budget["answered"], budget["answered_twice"]) == (80, 0)
    assert budget["most_used_bytes"] <= budget["budget_bytes"]
    assert decode_agreement.neighbours(16)["differ_in_row_blocks"] == 0
    assert "16 samples" in capsys.readouterr().out
