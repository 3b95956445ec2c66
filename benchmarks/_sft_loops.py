"""The two loops of sft_vs_trl: our fine-tuning stage as `whetstone run` calls it, and TRL's SFTTrainer."""

from pathlib import Path
from typing import Any

from benchmarks import _ragged as ragged
from benchmarks._paced import Gate

ROWS = 2000
STEP_TOKENS = 2048  # two packed rows of the peer; the same for us
RATE = 1e-4
BY_SEGMENT = "by_segment"


def ours(
    gate: Gate, folder: Path, compute: str, micro_batch_tokens: int, work: Any = ragged, step_tokens: int = STEP_TOKENS,
    adapter: Any = None,
) -> None:  # fmt: skip
    """The whole stage: rows from disk, micro-batches, clipping, schedule, entropy, metrics.jsonl, progress.

    `work` has the model and the rows: `_ragged`, or `Gsm8k`. `adapter` is an AdapterSettings; None: all weights are trained.
    """
    from dataclasses import replace

    from whetstone import sft
    from whetstone.learner.steps import Steps
    from whetstone.run.folder import Stage
    from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
    from whetstone.run.tables import write_rows

    model, data = work.write_folder(folder / "model"), folder / "data"
    (folder / "sft").mkdir()
    # Ids as they were sampled; the prompt is not trained on, as in the peer
    write_rows(
        data,
        [
            {"problem_id": str(i), "question": "", "chosen": "", "prompt_ids": prompt, "chosen_ids": answer}
            for i, (prompt, answer) in enumerate(work.conversations(ROWS))
        ],
    )
    logged = Steps.log

    def log(self: Steps, step: int, tokens: int, **values: Any) -> None:
        logged(self, step, tokens, **values)
        gate.step_done(tokens)

    Steps.log = log  # type: ignore[method-assign]
    settings = sft.Settings(
        kind="sft",
        optimizer={"learning_rate": RATE},
        batch_tokens=step_tokens,
        max_length=work.LONGEST,
        checkpoint_every=10**6,
    )
    parallel = ParallelSettings(device="cpu", compute=compute, forks=1, micro_batch_tokens=micro_batch_tokens)
    inputs = {"model": model, "data": data}
    run = RunSettings(name="run", folder=folder)
    stage = Stage("sft", "sft", folder / "sft", settings, inputs, run, ModelSettings(), parallel, ScoreSettings())
    sft.run(replace(stage, adapter=adapter) if adapter else stage)


def trl(gate: Gate, folder: Path, attention: str, settings: dict[str, Any], work: Any = ragged) -> None:
    """`settings` are SFTConfig's; `attention` is one of transformers', or `BY_SEGMENT`."""
    import transformers
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if attention == BY_SEGMENT:
        transformers.AttentionInterface.register(BY_SEGMENT, by_segment)

    class Paced(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            self.real = getattr(self, "real", 0) + int(
                inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
            )
            return super().training_step(model, inputs, *rest)

    class Step(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            real, trainer.real = trainer.real, 0
            gate.step_done(real)

    rows = work.conversations(ROWS)
    columns = {
        "input_ids": [prompt + answer for prompt, answer in rows],
        "completion_mask": [[0] * len(prompt) + [1] * len(answer) for prompt, answer in rows],
    }
    trainer = Paced(
        model=work.model(attention),
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=10**4,
            max_length=work.LONGEST,
            learning_rate=RATE,
            completion_only_loss=True,  # else the mask is ignored
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=work.tokenizer(),
        callbacks=[Step()],
    )
    trainer.train()


def by_segment(module: Any, query: Any, key: Any, value: Any, mask: Any, cu_seq_lens_q: Any, **rest: Any) -> Any:
    """Our packed attention with the peer's arguments, which its users could register in one call."""
    from whetstone.attention import attend

    return attend(module, query, key, value, mask, **rest | {"lengths": cu_seq_lens_q.diff().tolist()})
