"""Verdicts of several graders counted by hand, and weights rounded as a GGUF file holds them."""

import pytest
import torch

from benchmarks.exported_folder import rounded
from benchmarks.verdicts_of_three import Row, numbers_only, table
from tests.tiny_models import tiny
from whetstone import model as models


def row(text: str, label: bool | None) -> Row:
    return Row(text, "7", "number", label, text)


def test_graders_are_counted_against_labels_and_against_ours_with_reasons():
    rows = [row("#### 7", True), row("so 7 cut", False), row("7, no 8", False), row("8", False)]
    ours = [(True, "7"), (False, "nothing (no answer)"), (False, "8"), (False, "8")]
    theirs = {"them": [(False, "[invalid]"), (True, "7"), (True, "7"), (False, "8")]}
    told = table(rows, ours, theirs, shown=1)
    assert (told["texts"], told["labelled_right"], told["labelled_wrong"]) == (4, 1, 3)
    assert told["graders"]["ours"] == {"right": 1, "false_positives": 0, "false_negatives": 0}
    other = told["graders"]["them"]
    assert (other["right"], other["false_positives"], other["false_negatives"], other["as_ours"]) == (2, 2, 1, 1)
    reasons = {name: (each["texts"], each["label_is_ours"]) for name, each in other["differences"].items()}
    assert reasons == {
        "the other reads nothing": (1, 1),
        "ours reads no stated answer; the other takes a number or formula from the text all the same": (1, 1),
        "both read an answer, and ours calls its own wrong": (1, 1),
    }
    assert numbers_only(rows) and not numbers_only([Row("", "x^2", "math", None, "")])


def test_matrices_are_rounded_to_the_type_of_a_file_and_vectors_stay(tmp_path):
    pytest.importorskip("gguf")
    model, tokenizer = tiny()
    models.save(model, tokenizer, tmp_path)
    near = rounded(tmp_path, "F16", inputs=True).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(near[name], weight if weight.dim() == 1 else weight.half().float()), name
