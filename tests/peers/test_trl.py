"""A step's loss and gradient are those of TRL's SFTTrainer on the same rows where TRL is right, and where it is not, how far.

Run by `make test-peers`, which has TRL in an environment of its own. The peer does the whole of its step itself: its data
preparation, its packing, its collator, its accumulation. docs/compared_with_trl.md says what the differences mean.
"""

import random
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("trl", reason="TRL is not installed here: `make test-peers` runs this where it is")

from datasets import Dataset, disable_progress_bars
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from tests.tiny_models import ORIGINAL, TEXTS, phi4_mini, random_model
from whetstone.batch import Row, collate, micro_batches
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import mean_loss, next_token_loss, token_mean
from whetstone.longrope import fix_table
from whetstone.model import initialise, train_tokenizer
from whetstone.run.settings import ParallelSettings

V = 50
LONGEST = 48
# Of the gradient's largest entry, and of the loss. The peer's head rounds log-probabilities to float32 whatever the model's
# type, so in float64 the formula is put into its place (`whole_loss`); all else is the peer's.
BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5}
PACKED = {"packing": True, "max_length": LONGEST, "per_device_train_batch_size": 100}

disable_progress_bars()


def ragged(count: int = 11, completion_only: bool = False) -> list[Row]:
    rng = random.Random(0)
    return [
        Row([rng.randrange(1, V) for _ in range(length)], prompt=rng.randint(2, length - 1) if completion_only else 1)
        for length in (rng.randint(4, 40) for _ in range(count))
    ]


class Caught(TrainerCallback):
    """What a step of the peer's came to, before its update."""

    def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        self.gradient = torch.cat([p.grad.flatten() for p in model.parameters()])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        self.logs = getattr(self, "logs", {}) | {name: float(value) for name, value in logs.items()}


def whole_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in the logits' own type over the number of tokens that the peer counted in the step."""
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / num_items_in_batch


def peer(
    folder: Any, rows: list[Row], dtype: torch.dtype = torch.float32, model: Any = None, **settings: Any
) -> tuple[SFTTrainer, Caught]:
    """The peer's trainer, to make one step of all rows with transformers' own attention."""
    model = model or random_model("qwen2", V, dtype)
    model.set_attn_implementation("sdpa")
    found = Caught()
    data = {
        "input_ids": [row.ids for row in rows],
        "completion_mask": [[0] * row.prompt + [1] * row.scored for row in rows],
    }
    plain = {
        "per_device_train_batch_size": len(rows),
        "bf16": False,
        "gradient_checkpointing": False,
        "max_grad_norm": 1e9,
        "logging_steps": 1,
        "max_steps": 1,
        "completion_only_loss": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(folder), **plain | settings),
        train_dataset=Dataset.from_dict(data),
        eval_dataset=Dataset.from_dict(data),
        processing_class=train_tokenizer(TEXTS, 300),
        callbacks=[found],
        compute_loss_func=whole_loss if dtype == torch.float64 else None,
    )
    return trainer, found


def step_of(folder: Any, rows: list[Row], *rest: Any, **settings: Any) -> Caught:
    trainer, found = peer(folder, rows, *rest, **settings)
    trainer.train()
    return found


def ours(rows: list[Row], dtype: torch.dtype = torch.float32, compute: str = "float32") -> tuple[float, torch.Tensor]:
    learner = Learner(random_model("qwen2", V, dtype), V, ParallelSettings(device="cpu", compute=compute))
    loss = learner.forward_backward([collate(token_mean(rows), dtype)], next_token_loss)["loss"]
    return loss, torch.cat([p.grad.flatten() for p in learner.model.parameters()])


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("completion_only", [False, True], ids=["whole", "completion"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        PACKED,
        PACKED | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 100},
        {"padding_free": True, "max_length": None},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 11},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4},
        {"gradient_checkpointing": True},
    ],
    ids=["padded", "packed", "packed_accumulated", "padding_free", "row_by_row", "three_by_three", "checkpointed"],
)
def test_loss_and_gradient_of_a_step_are_the_peers(tmp_path, settings, completion_only, dtype):
    rows = ragged(completion_only=completion_only)
    found = step_of(tmp_path, rows, dtype, **settings)
    loss, gradient = ours(rows, dtype)
    assert found.logs["loss"] == pytest.approx(loss, rel=1e-6)  # it is logged in float32
    assert (found.gradient - gradient).abs().max() <= BOUNDS[dtype] * gradient.abs().max()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two gradients, in units of the second's largest entry."""
    return float((a - b).abs().max() / b.abs().max())


# --- where the peer is not right: each test holds the peer's number and ours against what both mean


class HeldOut(list[Row]):
    """Rows as validation reads them."""

    @property
    def scored(self) -> int:
        return sum(row.scored for row in self)


def test_the_peers_validation_loss_depends_on_its_batch_size_and_ours_is_the_mean_of_all_tokens(tmp_path):
    """It averages the batches' means, so that a short row's tokens weigh more."""
    rows = ragged()
    seen = [peer(tmp_path, rows, per_device_eval_batch_size=size)[0].evaluate()["eval_loss"] for size in (1, 3, 11)]
    learner = Learner(random_model("qwen2", V), V, ParallelSettings(device="cpu", micro_batch_tokens=50))
    told, exact = mean_loss(learner, HeldOut(rows)), ours(rows)[0]
    assert told == pytest.approx(exact, rel=1e-6)
    assert seen[2] == pytest.approx(exact, rel=1e-6)  # all rows in one batch
    assert abs(seen[0] - exact) > 4e-3 and abs(seen[1] - exact) > 3e-2


def test_the_peers_entropy_depends_on_the_accumulation_and_ours_is_the_mean_of_all_tokens(tmp_path):
    rows = ragged()
    together = step_of(tmp_path, rows).logs["entropy"]
    one_by_one = step_of(tmp_path, rows, per_device_train_batch_size=1, gradient_accumulation_steps=11).logs["entropy"]
    learner = Learner(random_model("qwen2", V), V, ParallelSettings(device="cpu"))
    batches = [collate([row]) for row in token_mean(rows)]
    told = learner.forward_backward(batches, next_token_loss)["entropy"]
    assert told == pytest.approx(together, rel=1e-6)
    assert abs(one_by_one - told) > 2e-3


def test_under_bfloat16_the_peers_loss_is_rounded_by_its_head_and_ours_is_not(tmp_path):
    """Its head multiplies in bfloat16, where a logit of 5 has steps of 1/32; ours multiplies in float32."""
    rows = ragged()
    exact, _ = ours(rows)
    off = abs(step_of(tmp_path, rows, bf16=True).logs["loss"] - exact)
    assert abs(ours(rows, compute="bfloat16")[0] - exact) < 1e-4 < 3e-4 < off


def test_packing_in_the_peer_cuts_a_row_that_is_too_long(tmp_path):
    """52 of 316 tokens go, and with them the answer's end; ours leaves the row out, whole, and counts it."""
    rows = [*ragged(), Row([7] * 100)]
    data = peer(tmp_path, rows, **PACKED)[0].train_dataset
    assert sum(len(row.ids) for row in rows) == 316
    assert sum(len(packed) for packed in data["input_ids"]) == 316 - (100 - LONGEST)


def test_the_peer_ignores_a_completion_mask_unless_asked(tmp_path):
    """Of rows that come as ids with a `completion_mask`; the default of `completion_only_loss` trains on the prompts too."""
    rows = ragged(completion_only=True)
    for asked, hidden in ((None, 0), (True, rows[0].prompt)):
        data = peer(tmp_path, rows, completion_only_loss=asked)[0].train_dataset
        assert data[0]["labels"].count(-100) == hidden


def test_longrope_in_the_peer_makes_a_rows_gradient_depend_on_its_neighbours(tmp_path):
    """transformers picks the table by the largest position of the batch. Ours is one for the run: any split is the same."""
    rng = random.Random(1)
    rows = [Row([rng.randrange(1, 200) for _ in range(length)]) for length in (10, 20, ORIGINAL + 20)]
    one_by_one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
    whole = step_of(tmp_path, rows, model=phi4_mini(TEXTS)[0], max_length=None).gradient
    split = step_of(tmp_path, rows, model=phi4_mini(TEXTS)[0], max_length=None, **one_by_one).gradient
    assert distance(split, whole) > 1e-2
    assert distance(our_phi4_gradient(rows, 1), our_phi4_gradient(rows, 1000)) < 1e-5


def our_phi4_gradient(rows: list[Row], budget: int) -> torch.Tensor:
    model, tokenizer = phi4_mini(TEXTS)
    fix_table(model.config, longest=ORIGINAL + 20)
    model = type(model)(model.config)
    torch.manual_seed(0)
    initialise(model, model.config.num_hidden_layers)
    learner = Learner(model, len(tokenizer), ParallelSettings(device="cpu"))
    learner.forward_backward(micro_batches([[row] for row in token_mean(rows)], budget), next_token_loss)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
def test_on_two_devices_the_peers_gradient_is_that_of_one_unless_tokens_are_not_averaged(tmp_path):
    """Rows of unequal lengths, six to each device one after the other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, "-m", "tests.peers.two_devices", str(tmp_path)], check=True, capture_output=True)
    _, gradient = ours(ragged(12))
    found = {name: distance(there, gradient) for name, there in load_file(tmp_path / "found.safetensors").items()}
    assert found["tokens averaged"] < 1e-5 < 0.05 < found["each device by itself"]
