"""Mid-training learns, keeps its best weights, leaves out nothing unsaid, and goes on after a kill to the same bits."""

import pytest
import torch
from safetensors.torch import load_file

from tests.scripted import Killed, kill_after, stage
from tests.tiny_world import SUMS, answer, logged
from whetstone import midtrain
from whetstone.batch import pack_in_order
from whetstone.chat import Chat
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import mean_loss, short_first
from whetstone.model import load
from whetstone.run.folder import hash_folder
from whetstone.run.settings import ParallelSettings
from whetstone.run.tables import read_rows, write_rows


def room(folder, world, model=True, **settings):
    known = {"batch_tokens": 256, "sequence_length": 128, "patience": 0} | settings
    inputs = {"corpus": world["corpus"]} | ({"model": world["model"]} if model else {})
    return stage(folder, midtrain.Settings(kind="midtrain", **known), **inputs)


def test_a_few_steps_lower_the_loss(tmp_path, world):
    told = midtrain.run(room(tmp_path / "m", world, epochs=6, validate_every=5))
    losses = logged(tmp_path / "m", "loss")
    assert losses[-1] < 0.6 * losses[0]
    assert told["conversations"] == len(SUMS) and told["left_out"] == 0 and told["steps"] == len(losses)
    assert told["tokens"] == sum(logged(tmp_path / "m", "tokens"))
    assert told["validation_loss"] == min(logged(tmp_path / "m", "validation_loss"))


def test_a_model_made_from_nothing_is_kept_as_the_base(tmp_path, world):
    midtrain.run(room(tmp_path / "m", world, model=False, epochs=1))
    base, _ = load(tmp_path / "m" / "base")
    trained, _ = load(tmp_path / "m" / "model")
    first, last = (next(m.parameters()) for m in (base, trained))
    assert first.shape == last.shape and not torch.equal(first, last)


def test_with_a_model_above_there_is_no_base(tmp_path, world):
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


def validation_loss(model_folder, world) -> float:
    model, tokenizer = load(model_folder)
    chat = Chat(tokenizer)
    held_out = [row for row in read_rows(world["corpus"]) if row["split"] == "validation"]
    rows = midtrain.conversations(chat, held_out, False)
    return mean_loss(Learner(model, chat.size, ParallelSettings(device="cpu")), rows)


def test_patience_ends_the_stage_and_the_best_weights_are_kept(tmp_path, world):
    """A learning rate that is far too high soon makes the held-out loss worse."""
    settings = {"learning_rate": 0.1, "warmup": 0.3, "epochs": 20, "validate_every": 1, "patience": 2}
    told = midtrain.run(room(tmp_path / "m", world, **settings, schedule="constant"))
    seen = logged(tmp_path / "m", "validation_loss")
    assert told["steps"] == len(seen) < 40, "20 epochs are 40 steps"
    assert told["best_step"] == 1 + seen.index(min(seen)) == len(seen) - 2
    assert validation_loss(tmp_path / "m" / "model", world) == pytest.approx(min(seen), rel=1e-5)


def test_without_patience_the_best_weights_are_kept_all_the_same(tmp_path, world):
    settings = {"learning_rate": 0.1, "warmup": 0.3, "epochs": 4, "validate_every": 1, "schedule": "constant"}
    told = midtrain.run(room(tmp_path / "m", world, **settings))
    seen = logged(tmp_path / "m", "validation_loss")
    assert told["steps"] == len(seen) > told["best_step"]
    assert validation_loss(tmp_path / "m" / "model", world) == pytest.approx(min(seen), rel=1e-5)


def test_conversations_that_are_too_long_are_counted_and_said(tmp_path, world, capsys):
    rows = list(read_rows(world["corpus"]))
    rows[0] = rows[0] | {"text": answer(1, 1) * 20}
    write_rows(tmp_path / "corpus", rows)
    told = midtrain.run(room(tmp_path / "m", world | {"corpus": tmp_path / "corpus"}, epochs=1))
    assert told["left_out"] == 1
    assert "1 conversations are longer than sequence_length = 128, left out" in capsys.readouterr().err


def test_nothing_that_fits_is_an_error(tmp_path, world):
    with pytest.raises(ValueError, match="no training conversation that fits"):
        midtrain.run(room(tmp_path / "m", world, sequence_length=8))


def test_the_curriculum_brings_short_conversations_first():
    lengths = [1 + (37 * i) % 200 for i in range(1000)]
    order = short_first(lengths, seed=1)
    assert sorted(order) == list(range(1000)) and order == short_first(lengths, seed=1) != short_first(lengths, seed=2)
    quarter = [sum(lengths[i] for i in order[at : at + 250]) / 250 for at in range(0, 1000, 250)]
    assert quarter == sorted(quarter) and quarter[0] < 0.4 * quarter[-1]
    rooms = pack_in_order(lengths, order, 128)
    assert [i for room in rooms for i in room] == [i for i in order if lengths[i] <= 128]
    assert all(sum(lengths[i] for i in room) <= 128 for room in rooms)


def test_only_the_first_epoch_of_a_curriculum_is_in_order(tmp_path, world, monkeypatch):
    seen = []
    from whetstone.learner import next_token

    plain = next_token.plan_steps

    def plan(sizes, *more):
        seen.append((plain(sizes, *more), len(sizes)))
        return seen[-1][0]

    monkeypatch.setattr(next_token, "plan_steps", plan)
    midtrain.run(room(tmp_path / "m", world, epochs=2, curriculum=True))
    ((steps, rooms),) = seen
    walked = [room for step in steps for room in step]
    assert walked[:rooms] == list(range(rooms)) and sorted(walked[rooms:]) == list(range(rooms))
    assert walked[rooms:] != list(range(rooms))


def test_loss_on_the_response_leaves_the_question_out(world):
    _, tokenizer = load(world["model"])
    chat = Chat(tokenizer)
    (row,) = [r for r in read_rows(world["corpus"]) if r["problem_id"] == "0+1"]
    (whole,), (response,) = (midtrain.conversations(chat, [row], only) for only in (False, True))
    assert whole.ids == response.ids and whole.prompt == 1
    assert chat.text(response.ids[response.prompt :]) == answer(0, 1) and response.ids[-1] == chat.end


def test_the_saved_model_is_plain_hugging_face(tmp_path, world):
    midtrain.run(room(tmp_path / "m", world, epochs=1))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (tmp_path / "m/model").iterdir()}
    assert all(not t.isnan().any() for t in load_file(tmp_path / "m/model/model.safetensors").values())
