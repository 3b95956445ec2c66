"""Supervised fine-tuning: whole samples, loss on the response only, the end of turn learnt even if it is also the padding."""

import shutil

import pytest

from tests.scripted import Killed, kill_after, stage
from tests.tiny_world import answer, logged
from whetstone import sft
from whetstone.batch import Row, collate
from whetstone.chat import Chat
from whetstone.learner.conversation import read_conversation
from whetstone.learner.tokenise import encode
from whetstone.model import load
from whetstone.records import Pair
from whetstone.run.folder import hash_folder
from whetstone.run.tables import read_rows, write_records, write_rows


def room(folder, world, data="subset", **settings):
    known = {"batch_tokens": 100, "epochs": 3} | settings
    return stage(folder, sft.Settings(kind="sft", **known), data=world[data], model=world["model"])


def test_a_few_steps_lower_the_loss(tmp_path, world):
    told = sft.run(room(tmp_path / "s", world, optimizer={"learning_rate": 4e-3}))
    losses = logged(tmp_path / "s", "loss")
    assert losses[-1] < 0.7 * losses[0]
    assert told == {"samples": 8, "left_out": 0, "steps": len(losses), "tokens": sum(logged(tmp_path / "s", "tokens"))}


@pytest.mark.parametrize("killed_in_step", [1, 4, 6])
def test_after_a_kill_the_model_is_that_of_an_undisturbed_run_to_the_bit(tmp_path, world, monkeypatch, killed_in_step):
    told = sft.run(room(tmp_path / "one", world, checkpoint_every=3))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, killed_in_step)
        sft.run(room(tmp_path / "two" / "one", world, checkpoint_every=3))
    assert sft.run(room(tmp_path / "two" / "one", world, checkpoint_every=3)) == told
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")
    assert logged(tmp_path / "two" / "one", "loss") == logged(tmp_path / "one", "loss")


def chat_of(world, **special) -> Chat:
    _, tokenizer = load(world["model"])
    for name, token in special.items():
        setattr(tokenizer, name, token)
    return Chat(tokenizer)


def row_of(chat, of_table) -> Row:
    ((question, response),) = encode(chat, [read_conversation(of_table)])
    return Row([*question, *response], prompt=len(question))


@pytest.mark.parametrize("special", [{}, dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|end|>")])
def test_the_response_and_its_end_of_turn_are_scored_and_nothing_else(world, special):
    """Masked by length: if bos, eos and padding are one id, a mask by id would hide the end from the loss."""
    chat = chat_of(world, **special)
    row = row_of(chat, {"question": "Compute 1 + 2.", "text": answer(1, 2)})
    batch = collate([row])
    assert chat.text(batch.targets.tolist()) == answer(1, 2)
    assert batch.targets[-1] == chat.end == chat.tokenizer.convert_tokens_to_ids("<|end|>")
    assert chat.tokenizer.decode(row.ids[: row.prompt]) == "<|user|>Compute 1 + 2.<|end|><|assistant|>"
    assert len(batch.targets) == len(row.ids) - row.prompt


def test_a_system_turn_is_taught_with_its_question_and_left_out_where_the_template_refuses_it(tmp_path, world):
    rows = list(read_rows(world["subset"]))
    rows[0]["system"], rows[1]["question"] = "Be brief.", "What is <|end|>?"
    write_rows(tmp_path / "subset", rows)
    chat = chat_of(world)
    assert chat.tokenizer.decode(row_of(chat, rows[0]).ids).startswith(
        "<|system|>Be brief.<|end|><|user|>Compute 0 + 0."
    )
    shutil.copytree(world["model"], tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    changed = world | {"subset": tmp_path / "subset", "model": tmp_path / "model"}
    told = sft.run(room(tmp_path / "s", changed, epochs=1))
    assert (told["samples"], told["left_out"]) == (7, 1)
    (dropped,) = read_rows(tmp_path / "s" / "dropped")
    assert (dropped["row"], dropped["reason"]) == (0, "the chat template refuses it")
    assert "no system role" in dropped["detail"]


def with_a_long_row(folder, world):
    """The world with a third row that is longer than its model's context."""
    rows = list(read_rows(world["subset"]))
    rows[2] = rows[2] | {"text": answer(1, 1) * 20}
    write_rows(folder / "subset", rows)
    return world | {"subset": folder / "subset"}


def test_samples_are_whole_and_those_too_long_are_counted(tmp_path, world):
    told = sft.run(room(tmp_path / "s", with_a_long_row(tmp_path, world), epochs=1, max_length=128))
    assert (told["samples"], told["left_out"]) == (7, 1)
    with pytest.raises(ValueError, match=r"longer than 5 tokens .* Raise max_length: the shortest has"):
        sft.run(room(tmp_path / "t", world, max_length=5))


def test_conversations_longer_than_the_models_context_are_left_out_whatever_max_length_says(tmp_path, world):
    told = sft.run(room(tmp_path / "s", with_a_long_row(tmp_path, world), epochs=1, max_length=10_000))
    assert (told["samples"], told["left_out"]) == (7, 1)
    (dropped,) = read_rows(tmp_path / "s" / "dropped")
    assert (dropped["row"], dropped["reason"]) == (2, "longer than 256 tokens")
    write_rows(tmp_path / "subset", list(read_rows(tmp_path / "subset"))[2:3])
    with pytest.raises(ValueError, match="Take a model with a longer context: the shortest has"):
        sft.run(room(tmp_path / "t", world | {"subset": tmp_path / "subset"}, max_length=10_000))


def test_the_chosen_side_of_a_pair_is_trained_on_as_its_sampled_ids(world):
    chat = chat_of(world)
    pair = {"question": "Compute 1 + 2.", "chosen": "a", "rejected": "b", "prompt_ids": [], "chosen_ids": []}
    assert chat.text(row_of(chat, pair).ids[-2:]) == "a"
    sampled = row_of(chat, pair | {"prompt_ids": [9, 8], "chosen_ids": [7, 6, chat.end]})
    assert sampled.ids == [9, 8, 7, 6, chat.end] and sampled.prompt == 2


def test_the_chosen_side_of_pairs_trains(tmp_path, world):
    write_records(
        tmp_path / "pairs", [Pair("p", "Compute 1 + 2.", answer(1, 2), answer(1, 2, slip=1), source="teacher")]
    )
    assert sft.run(room(tmp_path / "s", world | {"subset": tmp_path / "pairs"}, epochs=1))["samples"] == 1


def test_without_a_model_it_says_how_to_get_one(tmp_path, world):
    with pytest.raises(ValueError, match="has no model to train: put a midtrain stage above it"):
        sft.run(stage(tmp_path / "s", sft.Settings(kind="sft"), data=world["subset"]))
