"""Rows on disk equal the rows that were written; a corpus is tokenised once, even if that is killed in the middle."""

import errno
import os
import random
import signal
import time
import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scripted import stage
from tests.tiny_models import random_model
from whetstone import midtrain
from whetstone.chat import Chat
from whetstone.learner import next_token
from whetstone.learner import tokenise as tokenising
from whetstone.learner.conversation import Conversation
from whetstone.learner.learner import Learner
from whetstone.learner.token_store import TokenStore, TokenWriter
from whetstone.learner.tokenise import tokenise
from whetstone.model import load
from whetstone.run.processes import fork
from whetstone.run.settings import ParallelSettings
from whetstone.run.tables import count_rows, read_rows, write_rows


def rows_of(vocabulary):
    ids = st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=30)
    return st.lists(ids.flatmap(lambda ids: st.tuples(st.just(ids), st.integers(1, len(ids)))), max_size=20)


@pytest.mark.parametrize("vocabulary", [300, 1 << 16, 200_064])
def test_rows_are_read_as_they_were_written(tmp_path_factory, vocabulary):
    @given(rows_of(vocabulary), st.integers(1, 30))
    @settings(max_examples=40, deadline=None)
    def come_back(rows, longest):
        folder = tmp_path_factory.mktemp("store")
        with TokenWriter(folder, vocabulary) as writer:
            for ids, prompt in rows:
                writer.add(ids, prompt)
        store = TokenStore.open(folder)
        assert [(row.ids, row.prompt) for row in store] == rows
        assert store.lengths.tolist() == [len(ids) for ids, _ in rows]
        assert store.scored == sum(row.scored for row in store)
        short = [(ids, prompt) for ids, prompt in rows if len(ids) <= longest]
        assert [(row.ids, row.prompt) for row in store.at_most(longest)] == short

    come_back()


def test_ids_take_two_bytes_where_the_vocabulary_allows(tmp_path):
    for vocabulary, size in ((1 << 16, 2), ((1 << 16) + 1, 4)):
        with TokenWriter(tmp_path / str(vocabulary), vocabulary) as writer:
            writer.add([1, 2, 65535], 1)
        assert (tmp_path / str(vocabulary) / "ids.bin").stat().st_size == 3 * size


@pytest.mark.parametrize(
    ("ids", "prompt", "words"),
    [
        ([1, 300], 1, "id 300.*ids up to 299"),
        ([], 0, "row of 0 ids"),
        ([1, 2], 0, "prompt = 0"),
        ([1, 2], 3, "prompt = 3"),
    ],
)
def test_rows_that_could_not_be_trained_on_are_refused(tmp_path, ids, prompt, words):
    with pytest.raises(ValueError, match=words), TokenWriter(tmp_path, 300) as writer:
        writer.add(ids, prompt)
    assert not (tmp_path / "store.json").exists()


@pytest.mark.parametrize("name", ["ids", "starts", "prompts"])
def test_a_file_of_another_length_is_refused(tmp_path, name):
    with TokenWriter(tmp_path, 300) as writer:
        writer.add([1, 2, 3], 1)
    os.truncate(tmp_path / f"{name}.bin", 3)
    with pytest.raises(ValueError, match=f"{name}.bin holds 3 bytes"):
        TokenStore.open(tmp_path)


BROKEN = [
    ({"text": None}, "no answer"),
    ({"text": " \n"}, "no answer"),
    ({"question": None}, "no question"),
    ({"question": ""}, "no question"),
    ({"split": "test"}, "its split is not train or validation"),
    ({"text": "1 + 2 = 3\n" * 60}, "longer than 128 tokens"),
]


@pytest.fixture
def chat(world):
    return Chat(load(world["model"])[1])


def prepare(folder, source, chat, **changes):
    given = stage(folder, midtrain.Settings(kind="midtrain", max_length=128, **changes), corpus=source)
    read = midtrain.reader(given.settings, given.inputs["corpus"], given.seed)
    return tokenise(given, source, chat, read, False, ("train", "validation"))


def test_conversations_that_cannot_be_trained_on_are_counted_and_listed_with_the_reason(tmp_path, world, chat, capsys):
    sound = list(read_rows(world["corpus"]))
    rows = [sound[0], *(sound[i] | broken for i, (broken, _) in enumerate(BROKEN, 1)), *sound[7:]]
    write_rows(tmp_path / "corpus", rows)
    tokenised = prepare(tmp_path / "m", tmp_path / "corpus", chat)
    reasons = [reason for _, reason in BROKEN]
    assert tokenised.left_out == {reason: reasons.count(reason) for reason in reasons}
    listed = {row["row"]: (row["problem_id"], row["reason"]) for row in read_rows(tmp_path / "m" / "dropped")}
    assert listed == {i: (rows[i]["problem_id"], reason) for i, reason in enumerate(reasons, 1)}
    taught = [row for i, row in enumerate(rows) if i not in listed]
    for split in ("train", "validation"):
        store, split_rows = tokenised[split].at_most(128), [row for row in taught if row["split"] == split]
        assert len(store) == len(split_rows)
        for stored, row in zip(store, split_rows, strict=True):
            assert stored.ids == [*chat.question_ids(row["question"]), *chat.ids(row["text"]), chat.end]
    assert "2 conversations left out, no answer" in capsys.readouterr().err


def test_a_missing_text_and_a_value_that_is_no_text_have_different_reasons():
    assert Conversation("p", 5, "a").fault == "its question is not text"
    assert Conversation("p", "q", b"a").fault == "its answer is not text"
    assert Conversation("p", None, "", prompt_ids=[1], answer_ids=[2]).fault == ""


def count_encodings(monkeypatch):
    chunks = []
    plain = tokenising.encode
    monkeypatch.setattr(tokenising, "encode", lambda *given: chunks.append(len(given[1])) or plain(*given))
    return chunks


def test_a_finished_store_is_reused_and_made_again_for_other_settings_or_data(tmp_path, world, chat, monkeypatch):
    chunks = count_encodings(monkeypatch)
    first = prepare(tmp_path / "m", world["corpus"], chat)
    again = prepare(tmp_path / "m", world["corpus"], chat)
    assert len(chunks) == 1 and [row.ids for row in again["train"]] == [row.ids for row in first["train"]]
    prepare(tmp_path / "m", world["corpus"], chat, word_dropout=0.5)
    assert len(chunks) == 2
    write_rows(tmp_path / "corpus", islice(read_rows(world["corpus"]), 5))
    assert len(prepare(tmp_path / "m", tmp_path / "corpus", chat)["train"]) == 5 and len(chunks) == 3
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("'|>'", "'|>\\n'")
    prepare(tmp_path / "m", tmp_path / "corpus", Chat(chat.tokenizer))
    assert len(chunks) == 4


def test_a_damaged_store_is_made_again(tmp_path, world, chat, monkeypatch, capsys):
    chunks = count_encodings(monkeypatch)
    prepare(tmp_path / "m", world["corpus"], chat)
    os.truncate(tmp_path / "m" / "tokens" / "train" / "ids.bin", 10)
    assert len(prepare(tmp_path / "m", world["corpus"], chat)["train"][3].ids) > 10
    assert len(chunks) == 2 and "is damaged and is made again" in capsys.readouterr().err


def test_a_failure_in_the_middle_leaves_nothing_that_looks_finished(tmp_path, world, chat, monkeypatch):
    chunks = []

    def fails_once(chat, some, *more, plain=tokenising.encode):
        chunks.append(len(some))
        if len(chunks) == 3:
            raise KeyboardInterrupt
        return plain(chat, some, *more)

    monkeypatch.setattr(tokenising, "encode", fails_once)
    monkeypatch.setattr(tokenising, "CHUNK", 200)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "m", world["corpus"], chat)
    assert not (tmp_path / "m" / "tokens").exists()
    tokenised = prepare(tmp_path / "m", world["corpus"], chat)
    expected = prepare(tmp_path / "n" / "m", world["corpus"], chat)
    assert [row.ids for row in tokenised["train"]] == [row.ids for row in expected["train"]]
    assert count_rows(world["corpus"]) == sum(len(tokenised[split]) for split in ("train", "validation"))


def test_a_full_disk_is_reported_and_the_partial_store_removed(tmp_path, world, chat, monkeypatch):
    def full(self, ids, prompt):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TokenWriter, "add", full)
    with pytest.raises(OSError, match="no room for the tokenised data"):
        prepare(tmp_path / "m", world["corpus"], chat)
    assert not list((tmp_path / "m").glob("tokens*/"))


def forked(folder, source, chat, wait, said):
    """A process that prepares the store, waiting before each chunk, and then writes the sum of its ids."""

    def work():
        plain = tokenising.encode
        tokenising.CHUNK = 200
        tokenising.encode = lambda *given: time.sleep(wait) or plain(*given)
        tokenised = prepare(folder, source, chat)
        said.write_text(str(sum(sum(row.ids) for row in tokenised["train"])))

    return fork("test", work)


def test_after_a_kill_the_next_process_makes_the_store_and_two_at_once_make_one(tmp_path, world, chat):
    killed = forked(tmp_path / "m", world["corpus"], chat, 600, tmp_path / "never")
    while not (tmp_path / "m" / ".writing-tokens" / "train").exists():
        time.sleep(0.01)
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    assert not (tmp_path / "m" / "tokens").exists()
    said = [tmp_path / "first", tmp_path / "second"]
    both = [forked(tmp_path / "m", world["corpus"], chat, 0.02, file) for file in said]
    assert [os.waitpid(one, 0)[1] for one in both] == [0, 0]
    expected = prepare(tmp_path / "n" / "m", world["corpus"], chat)
    assert [int(file.read_text()) for file in said] == [sum(sum(row.ids) for row in expected["train"])] * 2
    assert not (tmp_path / "m" / ".writing-tokens").exists()


def test_tokenising_takes_no_memory_that_grows_with_the_corpus(tmp_path, world, chat, monkeypatch):
    """1,600 more rows have 130,000 more ids, which would take over 1 MB as Python lists."""
    text = " ".join(f"{n}+{n}" for n in range(16))
    monkeypatch.setattr(tokenising, "CHUNK", 10_000)

    def prepared(count):
        rows = ({"problem_id": "p", "question": f"Compute {i}.", "text": text, "split": "train"} for i in range(count))
        write_rows(tmp_path / f"corpus{count}", rows, shard_rows=200)
        tracemalloc.start()
        tokenised = prepare(tmp_path / f"m{count}", tmp_path / f"corpus{count}", chat)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(tokenised["train"]) == count
        return most, int(tokenised["train"].lengths.sum())

    prepared(10)  # what is loaded and cached once
    (small, few), (large, many) = prepared(400), prepared(2000)
    assert many - few > 130_000
    assert large - small < 200_000, f"{large - small:,} bytes more for {many - few:,} ids more"


def test_the_loss_on_held_out_rows_is_the_mean_of_their_scored_tokens_however_they_are_read(tmp_path, monkeypatch):
    learner = Learner(random_model("phi3", 50), 50, ParallelSettings(device="cpu", micro_batch_tokens=40))
    rng = random.Random(0)
    with TokenWriter(tmp_path, 50) as writer:
        for _ in range(9):
            writer.add([rng.randrange(50) for _ in range(rng.randint(3, 30))], rng.randint(1, 3))
    store = TokenStore.open(tmp_path)
    alone = torch.cat(learner.row_logprobs(list(store)))
    assert len(alone) == store.scored
    for at_once in (1, 4, 1024):
        monkeypatch.setattr(next_token, "ROWS_AT_ONCE", at_once)
        assert next_token.mean_loss(learner, store) == pytest.approx(-float(alone.mean()), rel=1e-5)


def test_reading_rows_maps_the_files(tmp_path):
    with TokenWriter(tmp_path, 300) as writer:
        for _ in range(10):
            writer.add([1, 2, 3], 1)
    assert isinstance(TokenStore.open(tmp_path)._ids, np.memmap)
