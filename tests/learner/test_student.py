"""The model of a stage: what is loaded and reported, and which copies share memory."""

from dataclasses import replace

import pytest
import torch

from tests.scripted import stage
from whetstone.learner.micro_batch import with_micro_batches
from whetstone.learner.student import load
from whetstone.model import load as load_model
from whetstone.run.settings import ParallelSettings, TrainingSettings


@pytest.fixture
def student(tmp_path, world):
    return load(stage(tmp_path / "walk", TrainingSettings(kind="walk"), model=world["model"]))


def test_loading_says_the_source_the_size_the_type_and_the_device(student, world, capsys):
    again = load(student.stage)
    size = sum(p.numel() for p in again.model.parameters())
    assert capsys.readouterr().err == f"walk: model from {world['model']}: {size:,} parameters, float32 on cpu\n"


def test_a_stage_without_a_model_is_told_what_to_do(tmp_path):
    with pytest.raises(
        ValueError, match=r"walk has no model to train: put a midtrain stage above it, or set \[model\]"
    ):
        load(stage(tmp_path / "walk", TrainingSettings(kind="walk")))


def test_the_sampler_shares_the_weights_unless_a_copy_or_another_type_is_wanted(student, monkeypatch):
    assert student.sampler() is student.model
    assert student.sampler(copied=True) is not student.model
    monkeypatch.setattr(ParallelSettings, "sampling_dtype", lambda self, device, dtype: "bfloat16")
    assert student.sampler().dtype is torch.bfloat16


def test_the_reference_stays_as_the_model_was_loaded(student):
    learner = student.learner()
    reference = student.reference(learner)
    with torch.no_grad():
        for weight in learner.model.parameters():
            weight.add_(1.0)
    student.save(learner)
    saved, loaded = load_model(student.stage.output("model"))[0], load_model(student.source)[0]
    for trained, frozen, before in zip(
        saved.parameters(), reference.model.parameters(), loaded.parameters(), strict=True
    ):
        assert torch.equal(frozen, before) and torch.equal(trained, before + 1.0)
        assert not frozen.requires_grad


def test_micro_batches_left_open_are_chosen_once_by_memory_and_kept(student, monkeypatch):
    """A tiny model fits with the largest. When the stage goes on with less free memory, it takes the same."""
    given = replace(student.stage, parallel=ParallelSettings(device="cpu", micro_batch_tokens=77))
    assert with_micro_batches(given, "cpu") is given
    left_open = replace(student.stage, parallel=ParallelSettings(device="cpu", micro_batch_tokens="auto"))
    assert with_micro_batches(left_open, "cpu").parallel.micro_batch_tokens == 8192
    monkeypatch.setattr("whetstone.learner.micro_batch.free_memory", lambda: 0.0)
    assert with_micro_batches(left_open, "cpu").parallel.micro_batch_tokens == 8192
    (student.stage.folder / "micro_batch.json").unlink()
    assert with_micro_batches(left_open, "cpu").parallel.micro_batch_tokens == 512
