"""The benchmarks on a pretrained model: what is kept, what is refused, and that all sides do the same work."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import _real, gpu_all, real_decode
from benchmarks._measure import beside, in_turns
from benchmarks._piped import Piped
from benchmarks._real_work import Gsm8k, answer_share, products
from benchmarks.real_evaluate import agreement
from benchmarks.sft_vs_trl import flops
from benchmarks.verdicts_beside_lm_eval import differences
from whetstone.decode.engine import Engine
from whetstone.model import load

SMALLER = {
    "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 32, "vocab_size": 700,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WHETSTONE_DATA", raising=False)
        return _real.write_random(tmp_path_factory.mktemp("random"), **SMALLER)


def test_the_random_model_has_smollm2s_size_and_products():
    """134,515,008 parameters with a tied head; 0.64 GFLOP a trained token without the head, 0.17 in it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**_real.SHAPE))
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    layers, head = products(_real.SHAPE)
    matrices = sum(w.numel() for n, w in model.named_parameters() if w.dim() == 2 and "embed" not in n)
    assert flops(layers) == 6 * matrices == 637_009_920
    assert flops([head]) == 6 * 576 * 49_152


def row(case, ratio):
    return beside(case, "tokens", [(2.0 * ratio, 1.0), (3.0 * ratio, 1.0)], [(2.0, 1.0), (3.0, 1.0)])


def cases(path, again=False, name="x"):
    return _real.Cases("real_decode", path, {"name": name}, ["torch"], again)


def test_a_case_is_kept_at_once_and_not_measured_again_with_the_same_settings(tmp_path):
    file = tmp_path / "out.json"
    first = cases(file)
    first.add(row("a", 2.0), {"tokens": 5}, 2)
    first.add(row("b", 0.5), {"tokens": 5}, 2)
    second = cases(file)
    assert second.has("a", {"tokens": 5}) and not second.has("a", {"tokens": 6}) and not second.has("c", {"tokens": 5})
    assert not cases(file, again=True).has("a", {"tokens": 5})
    second.add(row("b", 3.0), {"tokens": 6}, 1)
    kept = json.loads(file.read_text())
    assert [(case["case"], case["ratio"]) for case in kept["cases"]] == [("a", 2.0), ("b", 3.0)]
    assert (kept["ratio"], kept["repeats"]) == (2.0, 1)
    assert "features" in kept["hardware"] and kept["machine_speed"]["before"] > 0


def test_results_of_another_model_are_not_mixed(tmp_path):
    cases(tmp_path / "out.json").add(row("a", 2.0), {}, 1)
    with pytest.raises(ValueError, match=r"out\.json is of the model .*'x'.*name another file"):
        cases(tmp_path / "out.json", name="y")


def test_turns_go_back_and_forth_over_all_sides():
    order = []

    def side(name):
        return lambda: lambda: order.append(name) or 1

    in_turns({name: side(name) for name in "abc"}, 2)
    assert order == list("abccba")


def test_every_side_of_a_repeat_gets_the_same_work_and_the_next_other_work(folder):
    with torch.no_grad():
        engine = Engine(*load(folder, "cpu"))
        turns = real_decode.Turns(engine, "ragged", 3, 24)
        asked = []

        class Peer:
            def ask(self, work):
                asked.append(work)
                return {"tokens": sum(work["lengths"])}

        theirs = turns.theirs("peer", Peer())
        done = [theirs()() for _ in range(2)]
        assert [turns.ours()() for _ in range(2)] == done
    first, second = asked
    assert first["prompts"] != second["prompts"] and first["lengths"] != second["lengths"]
    assert all(2 <= n <= 48 for n in first["lengths"]) and first["temperature"] == real_decode.TEMPERATURE
    with pytest.raises(RuntimeError, match="3 tokens were written where 4 were asked for"):
        turns.checked(3, [2, 2])


def test_one_prompt_is_measured_with_one_length_only():
    assert list(real_decode.groups((1, 32), ("even", "ragged"))) == [(1, "even"), (32, "even"), (32, "ragged")]
    assert real_decode.lengths_of("even", 2, 9, seed=0) == [9, 9]


def test_a_peer_that_dies_is_an_error_with_its_last_words(tmp_path):
    script = tmp_path / "_odd_peer.py"
    script.write_text("import sys\nprint('{}', flush=True)\ninput()\nsys.exit('no more memory')\n")
    peer = Piped([sys.executable, str(script)])
    with pytest.raises(RuntimeError, match=r"(?s)odd_peer ended with status 1\..*no more memory"):
        peer.ask({})
    peer.close()


def test_rows_are_the_models_own_and_the_head_is_needed_for_their_answers_only(folder, monkeypatch):
    monkeypatch.delenv("WHETSTONE_DATA", raising=False)
    work = Gsm8k(folder)
    (prompt, answer), *_ = rows = work.conversations(3)
    tokenizer = work.tokenizer()
    question = _real.made_up(0)["question"]
    turn = [{"role": "user", "content": question}]
    assert prompt == tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(answer) == _real.made_up(0)["answer"] + "<|im_end|>"
    assert work.pairs(3)[2] == (rows[2][0], rows[2][1], rows[0][1])
    assert answer_share(work, 1) == len(answer) / len(prompt + answer)


def test_verdicts_are_compared_on_the_same_texts():
    ours = [{"text": "4 ", "correct": True}, {"text": "5", "correct": None}, {"text": "6", "correct": False}]
    theirs = [{"text": "4", "correct": True}, {"text": "5", "correct": True}, {"text": "7", "correct": True}]
    told = agreement(ours, {"by_filter": {"strict": {str(i): one for i, one in enumerate(theirs)}}})
    assert told == {
        "problems": 3, "right_ours": 1, "same_text": 2, "right_strict": 3, "same_verdict_on_same_text_strict": 1,
    }  # fmt: skip


def test_a_part_that_hangs_is_stopped_at_its_limit_and_what_it_kept_is_read(tmp_path):
    (tmp_path / "odd.json").write_text('{"kept": 1}')
    told = gpu_all.run_part(gpu_all.Part("odd", 1.0, ("-c", "import time; time.sleep(600)")), 0.2, [], tmp_path)
    assert told["status"] == "stopped after 0 s" and told["result"] == {"kept": 1}


def test_time_that_a_part_leaves_goes_to_those_after_it():
    parts = [SimpleNamespace(name="a", share=0.5), SimpleNamespace(name="b", share=0.25)]
    assert gpu_all.limits(parts, 60) == {"a": 40, "b": 20}
    assert gpu_all.limits(parts[1:], 55) == {"b": 55}


def test_a_verdict_that_differs_from_lm_evals_on_the_same_text_is_kept_with_its_reason():
    def row(text: str, answer: str, correct: bool, reason: str) -> dict:
        return {"question": "?", "gold": "7", "text": text, "answer": answer, "correct": correct, "reason": reason}

    ours = [
        row("The answer is 7.", "7", True, "equal"),
        row("7", "", False, "no answer"),
        row("8", "8", False, "different"),
    ]
    strict = {str(i): {"text": r["text"], "correct": False} for i, r in enumerate(ours)}
    flexible = strict | {"1": {"text": "7", "correct": True}, "2": {"text": "another text", "correct": True}}
    found = list(differences(ours, {"by_filter": {"strict-match": strict, "flexible-extract": flexible}}))
    assert [(d["filter"], d["ours"], d["theirs"]) for d in found] == [
        ("strict-match", True, False), ("flexible-extract", True, False), ("flexible-extract", False, True),
    ]  # fmt: skip
    assert "no ####" in found[0]["why"] and found[2]["why"].startswith("ours: no answer")
