"""The reward room: what it learns from, what it holds out, its folder, its use as a scorer, and resuming to the bit."""

import gzip
import json

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.scripted import Killed, kill_after, stage
from tests.tiny_world import answer, problem
from whetstone.answer import best_of
from whetstone.batch import Row
from whetstone.chat import Chat
from whetstone.dpo import rollout_dpo
from whetstone.model import load
from whetstone.model_files import Unfit
from whetstone.records import Completion, Pair, Rollout, Trace
from whetstone.reward import train
from whetstone.reward_model import RewardModel, with_scalar_head
from whetstone.rl import loop
from whetstone.run.folder import hash_folder, read_json
from whetstone.run.settings import ParallelSettings
from whetstone.run.tables import read_records, read_rows, write_records

CPU = ParallelSettings(device="cpu")


def room(folder, world, adder, **settings):
    known = {
        "source": "pairs",
        "pool": {"samples": 6},
        "max_tokens": 40,
        "batch_pairs": 4,
        "held_out": 0.25,
        "optimizer": {"learning_rate": 2e-3, "warmup": 0},
        "epochs": 4,
    } | settings
    inputs = {name: world[name] for name in ("prompts", "problems", "pairs")} | {"model": adder}
    inputs |= {"rollouts": world["traces"]} if "traces" in world else {}
    return stage(folder, train.Settings(kind="reward", **known), **inputs)


def test_a_model_learns_which_side_is_right_and_says_so_of_held_out_pairs(tmp_path, world, adder):
    summary = train.run(room(tmp_path / "r", world, adder, epochs=12))
    figures = read_json(tmp_path / "r" / "assessment.json")
    assert summary["pairs"] + summary["held_out"] == 8 and summary["held_out"] == figures["after"]["judged"] > 0
    score = RewardModel.load(tmp_path / "r" / "reward_model", CPU)
    right = [
        score(problem(a, b), answer(a, b)) > score(problem(a, b), answer(a, b, slip=1)) for a, b in [(0, 1), (0, 3)]
    ]
    assert all(right)


def test_its_folder_is_read_by_transformers_with_the_same_numbers(tmp_path, world, adder):
    train.run(room(tmp_path / "r", world, adder))
    folder = tmp_path / "r" / "reward_model"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "Compute 1 + 2."}, {"role": "assistant", "content": answer(1, 2)}]
    text = tokenizer.apply_chat_template(turns, tokenize=False).removesuffix(tokenizer.eos_token)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    ours = RewardModel.load(folder, CPU)(problem(1, 2), answer(1, 2))
    assert ours == pytest.approx(theirs(**ids).logits.item(), abs=1e-5)
    assert theirs.config.pad_token_id != Chat(tokenizer).end


def test_rollouts_are_scored_as_their_ids_and_text_alike(tmp_path, world, adder):
    train.run(room(tmp_path / "r", world, adder))
    score = RewardModel.load(tmp_path / "r" / "reward_model", CPU)
    prompt = score.chat.question_ids("Compute 1 + 2.")
    ids = [*score.chat.ids(answer(1, 2)), score.chat.end]
    one = Rollout("1+2", 0, prompt, ids, [0.0] * len(ids), 1.0, "end", answer(1, 2))
    assert score.of_rollouts([one, one]) == pytest.approx([score(problem(1, 2), answer(1, 2))] * 2, abs=1e-6)


def test_an_outcome_verifier_learns_single_answers_of_the_students_own(tmp_path, world, adder):
    summary = train.run(room(tmp_path / "r", world, adder, source="student", loss="logistic"))
    assert summary["answers"] + summary["held_out"] == summary["rollouts"] == 96
    assert 0 <= read_json(tmp_path / "r" / "assessment.json")["after"]["calibration_error"] < 1
    best = best_of(
        problem(1, 2),
        [Completion("1+2", i, answer(1, 2, slip=i), "end") for i in range(2)],
        RewardModel.load(tmp_path / "r" / "reward_model", CPU),
    )
    assert best.index in (0, 1)


def test_a_teachers_right_and_wrong_traces_are_paired_within_their_problem(tmp_path, world, adder):
    traces = [
        Trace(f"{a}+{b}", index, answer(a, b, slip), "t", correct=not slip)
        for a in range(4)
        for b in range(4)
        for index, slip in enumerate((0, 1))
    ]
    write_records(tmp_path / "traces", traces)
    summary = train.run(room(tmp_path / "r", world | {"traces": tmp_path / "traces"}, adder, source="rollouts"))
    assert summary["pairs"] + summary["held_out"] == 16


def test_preference_files_of_several_turns_are_read_and_what_is_no_pair_is_kept_with_its_reason(tmp_path, world, adder):
    rows = [
        {"chosen": f"\n\nHuman: hi\n\nAssistant: yes\n\nHuman: {i}?\n\nAssistant: a", "rejected":
         f"\n\nHuman: hi\n\nAssistant: yes\n\nHuman: {i}?\n\nAssistant: b c"} for i in range(12)
    ]  # fmt: skip
    rows += [{"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"}, {"prompt": "p"}]
    with gzip.open(tmp_path / "hh.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    files = [{"path": str(tmp_path / "hh.jsonl.gz"), "name": "hh"}]
    summary = train.run(room(tmp_path / "r", world, adder, source="files", preferences=files))
    assert summary["pairs"] + summary["held_out"] == 12 and summary["dropped"] == 2
    reasons = sorted(row["reason"] for row in read_rows(tmp_path / "r" / "dropped"))
    assert reasons == ["not a pair", "not one question"]
    assert read_json(tmp_path / "r" / "assessment.json")["after"]["length_only"]["mean"] == 1.0


def test_after_a_kill_the_model_is_that_of_an_undisturbed_run_to_the_bit(tmp_path, world, adder, monkeypatch):
    settings = {"checkpoint_every": 2}
    summary = train.run(room(tmp_path / "one", world, adder, **settings))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        train.run(room(tmp_path / "two" / "one", world, adder, **settings))
    assert train.run(room(tmp_path / "two" / "one", world, adder, **settings)) == summary
    for artifact in ("reward_model", "assessment.json"):
        one, two = tmp_path / "one" / artifact, tmp_path / "two" / "one" / artifact
        assert (hash_folder(one) == hash_folder(two)) if one.is_dir() else one.read_bytes() == two.read_bytes()


def test_the_head_of_a_pair_sees_what_separate_rows_see(world, adder):
    """Rows of a pair share their prompt's computation; the values are those of each row alone."""
    from whetstone.learner.learner import Learner

    model, tokenizer = load(adder)
    chat = Chat(tokenizer)
    learner = Learner(with_scalar_head(model, chat, 0), chat.size, CPU)
    prompt = chat.question_ids("Compute 1 + 2.")
    rows = [Row([*prompt, *chat.ids(text), chat.end], len(prompt)) for text in ("3", "a longer answer")]
    together, alone = learner.row_values(rows), [learner.row_values([row])[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-6) and together[0] != together[1]


def test_nothing_to_train_on_is_an_error_with_counts(tmp_path, world, adder):
    with pytest.raises(ValueError, match=r"has nothing to train on: 8 too long"):
        train.run(room(tmp_path / "r", world, adder, max_length=4))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "files"}, "has no file: name one"),
        ({"preferences": [{"path": "x"}]}, 'read with source = "files" only'),
        ({"loss": "logistic", "margin": 1.0}, "belongs to loss"),
        ({"source": "student", "pool": {"samples": 1}}, "Set 2 or more"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        train.Settings(kind="reward", **settings)


def test_a_causal_model_is_no_reward_model(adder):
    with pytest.raises(Unfit, match="is no model for sequence classification"):
        RewardModel.load(adder, CPU)


def test_rl_takes_the_number_of_a_reward_model_and_resumes_to_the_bit(tmp_path, world, adder, monkeypatch):
    train.run(room(tmp_path / "r", world, adder))

    def rl(folder):
        known = {"steps": 3, "prompts_per_step": 2, "samples": 4, "max_tokens": 40, "pool": {"samples": 0}}
        known |= {"reward": "reward_model", "stabilisers": [], "checkpoint_every": 1}
        inputs = {"model": adder, "prompts": world["prompts"], "reward_model": tmp_path / "r" / "reward_model"}
        return stage(folder, loop.Settings(kind="rl", **known), **inputs)

    summary = loop.run(rl(tmp_path / "one"))
    assert summary["updates"] == 3
    rewards = [json.loads(line)["reward"] for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert len(set(rewards)) == 3 and all(reward == reward for reward in rewards)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        loop.run(rl(tmp_path / "two" / "one"))
    assert loop.run(rl(tmp_path / "two" / "one")) == summary
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")


def test_dpo_learns_which_of_its_rollouts_a_reward_model_likes(tmp_path, world, adder):
    train.run(room(tmp_path / "r", world, adder))
    known = {"pairing": "reward_model", "pool": {"samples": 4}, "max_tokens": 40, "pairs_per_problem": 1}
    inputs = {"model": adder, "prompts": world["prompts"], "reward_model": tmp_path / "r" / "reward_model"}
    rollout_dpo.run(stage(tmp_path / "d", rollout_dpo.Settings(kind="dpo", **known), **inputs))
    model = RewardModel.load(tmp_path / "r" / "reward_model", CPU)
    pairs = list(read_records(Pair, tmp_path / "d" / "pairs"))
    sides = [Row([*p.prompt_ids, *ids], len(p.prompt_ids)) for p in pairs for ids in (p.chosen_ids, p.rejected_ids)]
    rewards = model.of_rows(sides)
    assert len(pairs) > 4 and all(best > worst for best, worst in zip(rewards[0::2], rewards[1::2], strict=True))


def test_pairs_are_two_rows_of_one_problem():
    from whetstone.reward.examples import _of_pair

    example = _of_pair(Pair("p", "q", "a", "b"))
    assert [one.right for one in example.answers] == [True, False]
