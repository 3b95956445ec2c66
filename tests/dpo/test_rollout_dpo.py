"""The DPO room: whose rollouts are paired, what a step does, the warning, and resuming to the bit."""

import json

import pytest

from tests.scripted import Killed, kill_after, stage
from tests.tiny_world import logged
from whetstone.chat import Chat
from whetstone.dpo import rollout_dpo
from whetstone.learner.learner import Learner
from whetstone.model import load
from whetstone.records import Pair
from whetstone.run.folder import hash_folder
from whetstone.run.tables import read_records, read_rows


def room(folder, world, adder, **settings):
    known = {"pool": {"samples": 6}, "max_tokens": 40, "batch_pairs": 4, "epochs": 2} | settings
    inputs = {"model": adder, "prompts": world["prompts"], "pairs": world["pairs"]}
    return stage(folder, rollout_dpo.Settings(kind="dpo", **known), **inputs)


def test_student_pairs_hold_the_ids_that_were_sampled(tmp_path, world, adder):
    summary = rollout_dpo.run(room(tmp_path / "d", world, adder))
    chat = Chat(load(adder)[1])
    pairs = list(read_records(Pair, tmp_path / "d" / "pairs"))
    assert summary["pairs"] == len(pairs) > 4 and summary["rollouts"] == 6 * summary["problems"] == 96
    assert 0 < summary["right"] < 1
    for pair in pairs:
        gold = str(sum(map(int, pair.problem_id.split("+"))))
        assert pair.source == "student" and pair.question == f"Compute {pair.problem_id.replace('+', ' + ')}."
        assert chat.text(pair.chosen_ids) == pair.chosen and chat.text(pair.rejected_ids) == pair.rejected
        assert f"\\boxed{{{gold}}}" in pair.chosen and f"\\boxed{{{gold}}}" not in pair.rejected
        assert pair.chosen_ids[-1] in chat.stops and pair.prompt_ids == chat.question_ids(pair.question)
    sampled = map(json.loads, (tmp_path / "d" / "rollouts.jsonl").read_text().splitlines())
    right = [r["ids"] for r in sampled if r["correct"] and r["stop"] == "end"]
    assert [row["ids"] for row in read_rows(tmp_path / "d" / "right_rollouts")] == right, "for a control"


def test_teacher_pairs_come_from_the_corpus_and_nothing_is_sampled(tmp_path, world, adder, monkeypatch):
    monkeypatch.setattr("whetstone.decode.engine.Engine.generate", lambda *_: pytest.fail("sampled"))
    summary = rollout_dpo.run(room(tmp_path / "d", world, adder, source="teacher"))
    assert list(read_records(Pair, tmp_path / "d" / "pairs")) == list(read_records(Pair, world["pairs"]))
    assert summary["pairs"] == 8
    chosen = rollout_dpo.run(room(tmp_path / "e", world, adder, source="teacher", max_pairs=3))
    assert chosen["pairs"] == 3


def test_a_teachers_text_is_tokenised_and_closed_a_students_ids_are_taken_as_they_are(world, adder):
    chat = Chat(load(adder)[1])
    pair = Pair("p", "Compute 1 + 2.", "a", "bb", source="teacher")
    prompt, chosen, rejected = rollout_dpo.ids_of(chat, pair)
    assert prompt == chat.question_ids("Compute 1 + 2.")
    assert chosen[-1] == rejected[-1] == chat.end and chat.text(rejected) == "bb"
    sampled = Pair("p", "q", "a", "b", [9], [8, 7], [6], "student")
    assert rollout_dpo.ids_of(chat, sampled) == ([9], [8, 7], [6])


def test_the_first_step_starts_at_no_margin_and_later_ones_prefer_the_right_side(tmp_path, world, adder):
    rollout_dpo.run(
        room(
            tmp_path / "d",
            world,
            adder,
            source="teacher",
            optimizer={"learning_rate": 1e-3, "warmup": 0},
            epochs=6,
        )
    )
    margins, losses = logged(tmp_path / "d", "margin"), logged(tmp_path / "d", "loss")
    assert abs(margins[0]) < 1e-4 and losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert margins[-1] > 0.05 and losses[-1] < losses[0]
    assert {"chosen_logprob", "rejected_logprob", "chosen_log_ratio", "accuracy"} <= set(first_row(tmp_path / "d"))
    assert abs(logged(tmp_path / "d", "chosen_log_ratio")[0]) < 1e-4
    lengths = logged(tmp_path / "d", "chosen_length") + logged(tmp_path / "d", "rejected_length")
    assert all(10 < length < 40 for length in lengths)


def first_row(folder):
    import json

    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


def test_a_falling_chosen_side_is_warned_of_once(tmp_path, world, adder, capsys, monkeypatch):
    summary = rollout_dpo.run(
        room(tmp_path / "d", world, adder, source="teacher", optimizer={"learning_rate": 1e-2}, epochs=6)
    )
    assert summary["chosen_logprob_fell"] > 0.05
    assert capsys.readouterr().err.count("warning: d makes its own chosen side less likely") == 1


def test_a_chosen_side_that_rises_is_not_warned_of(tmp_path, world, adder, capsys):
    settings = {"source": "teacher", "optimizer": {"learning_rate": 1e-3}, "epochs": 6, "chosen_nll": 1.0}
    assert rollout_dpo.run(room(tmp_path / "d", world, adder, **settings))["chosen_logprob_fell"] < 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("killed_in_step", [1, 4])
def test_after_a_kill_in_training_the_model_is_that_of_an_undisturbed_run(
    tmp_path, world, adder, monkeypatch, killed_in_step
):
    settings = {"checkpoint_every": 3, "chosen_nll": 0.5}
    summary = rollout_dpo.run(room(tmp_path / "one", world, adder, **settings))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, killed_in_step)
        rollout_dpo.run(room(tmp_path / "two" / "one", world, adder, **settings))
    assert rollout_dpo.run(room(tmp_path / "two" / "one", world, adder, **settings)) == summary
    for artifact in ("model", "pairs"):
        assert hash_folder(tmp_path / "two" / "one" / artifact) == hash_folder(tmp_path / "one" / artifact)


def test_after_a_kill_between_rollouts_and_training_the_rollouts_are_not_sampled_again(
    tmp_path, world, adder, monkeypatch
):
    rollout_dpo.run(room(tmp_path / "one", world, adder))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Learner, "row_logprobs", dies)
        rollout_dpo.run(room(tmp_path / "two" / "one", world, adder))
    monkeypatch.setattr("whetstone.decode.engine.Engine.generate", lambda *_: pytest.fail("sampled again"))
    rollout_dpo.run(room(tmp_path / "two" / "one", world, adder))
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")


def test_the_reference_is_computed_once_for_all_epochs_and_resumed_runs(tmp_path, world, adder, monkeypatch):
    settings = {"source": "teacher", "epochs": 3, "checkpoint_every": 1}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        rollout_dpo.run(room(tmp_path / "d", world, adder, **settings))
    monkeypatch.setattr(Learner, "row_logprobs", lambda *_: pytest.fail("the reference was asked again"))
    assert rollout_dpo.run(room(tmp_path / "d", world, adder, **settings))["steps"] == 6


LOSSES = [
    {"loss": "robust", "label_smoothing": 0.2},
    {"loss": "ipo", "beta": 0.5},
    {"loss": "simpo", "beta": 2.0, "target_margin": 0.5},
    {"loss": "sigmoid", "label_smoothing": 0.1, "pairing": "hardest", "source": "student"},
    {"loss": "sigmoid", "pairing": "all", "pairs_per_problem": 4, "source": "student"},
]


@pytest.mark.parametrize("settings", LOSSES, ids=lambda s: "-".join(map(str, s.values())))
def test_every_loss_and_rule_trains_and_resumes_to_the_bit(tmp_path, world, adder, monkeypatch, settings):
    settings = {
        "source": "teacher",
        "epochs": 1,
        "optimizer": {"learning_rate": 1e-3},
        "checkpoint_every": 1,
    } | settings
    rollout_dpo.run(room(tmp_path / "one", world, adder, **settings))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        rollout_dpo.run(room(tmp_path / "two" / "one", world, adder, **settings))
    rollout_dpo.run(room(tmp_path / "two" / "one", world, adder, **settings))
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")
    assert hash_folder(tmp_path / "one" / "model") != hash_folder(adder)


def test_simpo_computes_no_reference(tmp_path, world, adder, monkeypatch):
    monkeypatch.setattr(Learner, "row_logprobs", lambda *_: pytest.fail("asked"))
    rollout_dpo.run(room(tmp_path / "d", world, adder, source="teacher", loss="simpo"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "robust"}, "label_smoothing = 0 says there is none"),
        (
            {"loss": "ipo", "label_smoothing": 0.1},
            'belongs to the losses sigmoid, sigmoid_norm and robust, not to "ipo"',
        ),
        ({"target_margin": 0.5}, 'belongs to loss = "simpo"'),
        ({"length_normalised": True}, 'loss = "sigmoid_norm"'),
        ({"pool": {"samples": 1}}, r"pool\.samples = 1: a pair is a right and a wrong rollout of one prompt"),
        ({"sample_levels": [1]}, r"this key is now pool\.levels"),
    ],
)
def test_settings_that_a_loss_does_not_have_are_errors(settings, words):
    with pytest.raises(ValueError, match=words):
        rollout_dpo.Settings(kind="dpo", **settings)


def dies(*_):
    raise Killed


def test_no_pair_is_an_error_that_says_what_to_change(tmp_path, world):
    with pytest.raises(ValueError, match=r"has no pair: .* Sample more \(pool\.samples, pool\.prompts\)"):
        rollout_dpo.run(room(tmp_path / "d", world, world["model"], pool={"samples": 2, "prompts": 2}))
