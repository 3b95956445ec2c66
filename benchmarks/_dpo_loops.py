"""The two loops of dpo_vs_trl: our DPO stage as `whetstone run` calls it, and TRL's DPOTrainer, on the same pairs in the
same steps."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _ragged as ragged
from benchmarks._paced import Gate

if TYPE_CHECKING:
    from whetstone.run.folder import Stage

PAIRS = 32
STEP_PAIRS = 8
EPOCHS = 1000
RATE = 1e-5
BETA = 0.1


def stage(folder: Path, compute: str, micro_batch_tokens: int, work: Any = ragged, pairs: int = STEP_PAIRS) -> "Stage":
    from whetstone.dpo import rollout_dpo
    from whetstone.run.folder import Stage
    from whetstone.run.settings import ModelSettings, OptimizerSettings, ParallelSettings, RunSettings, ScoreSettings

    settings = rollout_dpo.Settings(
        kind="dpo",
        source="teacher",  # pairs from disk; with the ids that they hold
        beta=BETA,
        optimizer=OptimizerSettings(learning_rate=RATE),
        epochs=EPOCHS,
        batch_pairs=pairs,
        checkpoint_every=10**6,
    )
    parallel = ParallelSettings(device="cpu", compute=compute, forks=1, micro_batch_tokens=micro_batch_tokens)
    inputs = {"model": work.write_folder(folder / "model"), "pairs": folder / "data"}
    run = RunSettings(name="run", folder=folder)
    return Stage("dpo", "dpo", folder / "dpo", settings, inputs, run, ModelSettings(), parallel, ScoreSettings())


def ours(
    gate: Gate, folder: Path, compute: str, micro_batch_tokens: int, cached: bool,
    work: Any = ragged, pairs: int = STEP_PAIRS,
) -> None:  # fmt: skip
    """The whole stage: pairs from disk, the reference once per pair, micro-batches, clipping, schedule, metrics, progress.

    Without `cached`, each step runs the reference on its pairs again, which a run of one epoch does once. `work` has the model
    and the pairs: `_ragged`, or `Gsm8k`; a step is so many `pairs`.
    """
    from whetstone.dpo import rollout_dpo
    from whetstone.learner.learner import Learner
    from whetstone.learner.steps import Steps
    from whetstone.records import Pair
    from whetstone.run.tables import write_records

    our_stage = stage(folder, compute, micro_batch_tokens, work, pairs)
    our_stage.folder.mkdir()
    write_records(
        our_stage.inputs["pairs"],
        [Pair(str(i), "", "", "", *sides, source="student") for i, sides in enumerate(work.pairs(PAIRS))],
    )
    logged, gradient = Steps.log, Learner.gradient

    def log(self: Steps, step: int, tokens: int, **values: Any) -> None:
        logged(self, step, tokens, **values)
        gate.step_done(tokens, loss=values["loss"], gradient_norm=values["gradient_norm"])

    def with_reference(self: Learner, groups: Any, *rest: Any) -> dict[str, float]:
        self.row_logprobs([row for pair in groups for row in pair])
        return gradient(self, groups, *rest)

    Steps.log = log  # type: ignore[method-assign]
    if not cached:
        Learner.gradient = with_reference  # type: ignore[method-assign]
    rollout_dpo.run(our_stage)


def trl(
    gate: Gate, folder: Path, compute: str, cached: bool, settings: dict[str, Any],
    work: Any = ragged, pairs: int = STEP_PAIRS,
) -> None:  # fmt: skip
    """`settings` are DPOConfig's."""
    import transformers
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from whetstone.learner.order import plan_steps

    our_stage = stage(folder, compute, 1, work, pairs)
    plan = plan_steps([1] * PAIRS, pairs, our_stage.seed, EPOCHS)
    order = [i for step in plan for i in step]

    class Paced(DPOTrainer):
        real, loss = 0, 0.0

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # the data are tokenised already

        def _get_train_sampler(self, *_: Any) -> Any:
            return order

        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            self.real += int(inputs["attention_mask"].sum())
            loss = super().training_step(model, inputs, *rest)
            self.loss += float(loss)
            return loss

    class Step(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            real, loss, trainer.real, trainer.loss = trainer.real, trainer.loss, 0, 0.0
            gate.step_done(real, loss=loss, gradient_norm=trainer.norm)

    rows = work.pairs(PAIRS)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("prompt_ids", "chosen_ids", "rejected_ids"))}
    trainer = Paced(
        # of a folder, from which the peer also loads its reference
        model=transformers.AutoModelForCausalLM.from_pretrained(our_stage.inputs["model"], dtype="float32"),
        args=DPOConfig(
            output_dir=str(folder),
            max_steps=10**4,
            max_length=work.LONGEST,
            beta=BETA,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            precompute_ref_log_probs=cached,
            bf16=compute == "bfloat16",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_dict(columns | dict.fromkeys(("prompt", "chosen", "rejected"), [""] * PAIRS)),
        processing_class=work.tokenizer(),
        callbacks=[Step()],
    )
    clip = trainer.accelerator.clip_grad_norm_

    def clipped(*arguments: Any, **more: Any) -> Any:
        norm = clip(*arguments, **more)
        trainer.norm = float(norm)
        return norm

    trainer.accelerator.clip_grad_norm_ = clipped
    trainer.train()
