"""Mid-training learns, keeps its best weights, reports what it leaves out, and resumes after a kill to the same bits."""

import random

import pytest
import torch
from safetensors.torch import load_file

from tests.scripted import Killed, kill_after, stage
from tests.tiny_world import SUMS, answer, logged
from whetstone import midtrain
from whetstone.batch import pack_in_order
from whetstone.chat import Chat
from whetstone.learner.order import short_first
from whetstone.learner.question_dropout import QuestionDropout
from whetstone.learner.tokenise import tokenise
from whetstone.model import load
from whetstone.run.folder import hash_folder
from whetstone.run.tables import read_rows, write_rows


def room(folder, world, model=True, **settings):
    known = {"batch_tokens": 256, "max_length": 128, "patience": 0} | settings
    inputs = {"corpus": world["corpus"]} | ({"model": world["model"]} if model else {})
    return stage(folder, midtrain.Settings(kind="midtrain", **known), **inputs)


def test_a_few_steps_lower_the_loss(tmp_path, world):
    told = midtrain.run(room(tmp_path / "m", world, epochs=6, validate_every=5))
    losses = logged(tmp_path / "m", "loss")
    assert losses[-1] < 0.6 * losses[0]
    assert told["conversations"] == len(SUMS) and told["left_out"] == 0 and told["steps"] == len(losses)
    assert told["tokens"] == sum(logged(tmp_path / "m", "tokens"))
    assert told["validation_loss"] == min(logged(tmp_path / "m", "validation_loss"))


def test_a_tiny_model_with_random_weights_is_kept_as_the_base(tmp_path, world):
    midtrain.run(room(tmp_path / "m", world, model=False, epochs=1))
    base, _ = load(tmp_path / "m" / "base")
    trained, _ = load(tmp_path / "m" / "model")
    first, last = (next(m.parameters()) for m in (base, trained))
    assert first.shape == last.shape and not torch.equal(first, last)


def test_with_an_input_model_there_is_no_base(tmp_path, world):
    midtrain.run(room(tmp_path / "m", world, epochs=1))
    assert not (tmp_path / "m" / "base").exists()


@pytest.mark.parametrize("killed_in_step", [2, 5, 6])
def test_after_a_kill_the_model_is_that_of_an_undisturbed_run_to_the_bit(tmp_path, world, monkeypatch, killed_in_step):
    settings = {"epochs": 3, "checkpoint_every": 2, "validate_every": 2, "model": False}
    told = midtrain.run(room(tmp_path / "one", world, **settings))
    # The stage's name seeds it, so the second folder has the same name
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, killed_in_step)
        midtrain.run(room(tmp_path / "two" / "one", world, **settings))
    assert midtrain.run(room(tmp_path / "two" / "one", world, **settings)) == told
    for made in ("model", "base"):
        assert hash_folder(tmp_path / "two" / "one" / made) == hash_folder(tmp_path / "one" / made)
    for name in ("loss", "validation_loss", "tokens"):
        assert logged(tmp_path / "two" / "one", name) == logged(tmp_path / "one", name)


def validations(monkeypatch, losses) -> list[torch.Tensor]:
    """Scripted held-out losses; returns the first weight at each validation."""
    seen: list[torch.Tensor] = []

    def mean_loss(learner, rows):
        assert len(rows) == 2, "the two validation conversations"
        seen.append(next(learner.model.parameters()).detach().clone())
        return losses[len(seen) - 1]

    monkeypatch.setattr("whetstone.learner.next_token.mean_loss", mean_loss)
    return seen


@pytest.mark.parametrize(
    ("patience", "losses", "steps", "best"),
    [
        (2, [3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 0.5], 6, 4),  # 1.0 again is no improvement
        (0, [3.0, 2.0, 2.5, 1.0, 1.5, 1.2, 1.1], 7, 4),
        (2, [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 7, 7),
    ],
)
def test_patience_ends_the_stage_and_the_best_weights_are_kept(
    tmp_path, world, monkeypatch, patience, losses, steps, best
):
    seen = validations(monkeypatch, losses)
    told = midtrain.run(room(tmp_path / "m", world, epochs=4, validate_every=1, patience=patience))
    assert (told["steps"], told["best_step"], told["validation_loss"]) == (steps, best, losses[best - 1])
    kept = next(load(tmp_path / "m" / "model")[0].parameters())
    assert torch.equal(kept, seen[best - 1])
    assert len({float(weight.sum()) for weight in seen}) == steps, "every step changes the weights"


def test_conversations_that_are_too_long_are_counted_and_reported(tmp_path, world, capsys):
    rows = list(read_rows(world["corpus"]))
    rows[0] = rows[0] | {"text": answer(1, 1) * 20}
    write_rows(tmp_path / "corpus", rows)
    told = midtrain.run(room(tmp_path / "m", world | {"corpus": tmp_path / "corpus"}, epochs=1))
    assert (told["conversations"], told["left_out"]) == (len(SUMS) - 1, 1)
    assert "1 conversations left out, longer than 128 tokens" in capsys.readouterr().err
    ((row, reason),) = [(row["row"], row["reason"]) for row in read_rows(tmp_path / "m" / "dropped")]
    assert (row, reason) == (0, "longer than 128 tokens")


def test_a_corpus_without_a_fitting_conversation_is_an_error(tmp_path, world):
    with pytest.raises(ValueError, match=r"longer than 8 tokens .* Raise max_length: the shortest has"):
        midtrain.run(room(tmp_path / "m", world, max_length=8))


def test_the_curriculum_brings_short_conversations_first():
    lengths = [1 + (37 * i) % 200 for i in range(1000)]
    order, again, other = (short_first(lengths, seed, 1.0).tolist() for seed in (1, 1, 2))
    assert sorted(order) == list(range(1000)) and order == again != other
    quarter = [sum(lengths[i] for i in order[at : at + 250]) / 250 for at in range(0, 1000, 250)]
    assert quarter == sorted(quarter) and quarter[0] < 0.4 * quarter[-1]
    rooms = pack_in_order(lengths, order, 128)
    assert [i for room in rooms for i in room] == [i for i in order if lengths[i] <= 128]
    assert all(sum(lengths[i] for i in room) <= 128 for room in rooms)


def test_the_end_of_a_curriculum_is_like_the_whole_corpus():
    lengths = [1 + (37 * i) % 200 for i in range(1000)]
    order = short_first(lengths, 1, 0.4)
    assert sorted(order) == list(range(1000))
    first, last = [lengths[i] for i in order[:400]], [lengths[i] for i in order[400:]]
    assert sum(first[:100]) < 0.4 * sum(first[300:])
    assert abs(sum(last) / 600 - sum(lengths) / 1000) < 8  # the standard error of a mean of 600 is 2.4


def test_only_the_first_epoch_of_a_curriculum_is_in_order(tmp_path, world, monkeypatch):
    seen = []
    from whetstone.learner import order

    plain = order.plan_steps

    def plan(sizes, *more):
        seen.append((plain(sizes, *more), len(sizes)))
        return seen[-1][0]

    monkeypatch.setattr(order, "plan_steps", plan)
    midtrain.run(room(tmp_path / "m", world, epochs=2, curriculum=1.0))
    ((steps, rooms),) = seen
    walked = [room for step in steps for room in step]
    assert walked[:rooms] == list(range(rooms)) and sorted(walked[rooms:]) == list(range(rooms))
    assert walked[rooms:] != list(range(rooms))


def tokenised(made, chat):
    read = midtrain.reader(made.settings, made.inputs["corpus"], made.seed)
    only = made.settings.loss_on == "response"
    return tokenise(made, made.inputs["corpus"], chat, read, only, ("train", "validation"))


def test_loss_on_the_response_leaves_the_question_out(tmp_path, world):
    _, tokenizer = load(world["model"])
    chat = Chat(tokenizer)
    corpora = [tokenised(room(tmp_path / on, world, loss_on=on), chat) for on in ("all", "response")]
    whole, response = (corpus["train"][SUMS.index((0, 1))] for corpus in corpora)
    assert whole.ids == response.ids and whole.prompt == 1
    assert chat.text(response.ids[response.prompt :]) == answer(0, 1) and response.ids[-1] == chat.end


def test_the_saved_model_is_plain_hugging_face(tmp_path, world):
    midtrain.run(room(tmp_path / "m", world, epochs=1))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (tmp_path / "m/model").iterdir()}
    assert all(not t.isnan().any() for t in load_file(tmp_path / "m/model/model.safetensors").values())


def test_word_dropout_spares_numbers_and_the_validation_problems(tmp_path, world):
    question = "Ann has 12 red pens and buys 3.5 more of them today"
    rng = random.Random(0)
    drop = QuestionDropout(0.3)
    seen = [drop(question, rng).split() for _ in range(300)]
    assert all("12" in words and "3.5" in words for words in seen)
    words = question.split()
    assert all(words == sorted(words, key=words.index) for words in seen) and len({tuple(words) for words in seen}) > 50
    assert sum(map(len, seen)) / len(seen) == pytest.approx(2 + 0.7 * (len(words) - 2), abs=0.4)
    plain = midtrain.run(room(tmp_path / "plain", world, epochs=1))
    dropped = midtrain.run(room(tmp_path / "dropped", world, epochs=1, word_dropout=0.5, loss_on="all"))
    assert dropped["conversations"] == plain["conversations"] and dropped["tokens"] < plain["tokens"]
