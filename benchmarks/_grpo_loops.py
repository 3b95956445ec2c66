"""The two loops of grpo_vs_trl: our RL stage as `whetstone run` calls it, and TRL's GRPOTrainer, on the same prompts in the
same steps, with answers whose lengths a script sets.

The peer's first step trains on the rollouts that ours sampled in its first, so that the two gradients can be compared.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _ragged as ragged
from benchmarks._paced import Gate
from benchmarks._scripted import Script

if TYPE_CHECKING:
    from whetstone.records import Completion, Prompt, Sampling
    from whetstone.run.folder import Stage

QUESTIONS = 64
STEPS = 1000
RATE = 1e-6
REWARD = """def reward(problem, completion, rollout):
    return 1.0 if rollout.index % 2 else -1.0
"""


@dataclass(frozen=True)
class Step:
    """A step's prompts, answers to each, and the bounds of an answer's tokens."""

    prompts: int = 16
    samples: int = 8
    shortest: int = 16
    longest: int = 256

    @property
    def answers(self) -> int:
        return self.prompts * self.samples

    def lengths(self, number: int) -> list[int]:
        """Of the rollouts of step `number`, in the order of the requests."""
        return ragged.lengths(self.answers, number, self.shortest, self.longest)


STEP = Step()


def stage(folder: Path, compute: str, micro_batch_tokens: int, work: Any = ragged, size: Step = STEP) -> "Stage":
    from whetstone.rl import loop
    from whetstone.run.folder import Stage
    from whetstone.run.prompt_settings import PromptSettings
    from whetstone.run.settings import ModelSettings, OptimizerSettings, ParallelSettings, RunSettings, ScoreSettings

    settings = loop.Settings(
        kind="rl",
        algorithm="grpo",
        stabilisers=(),
        steps=STEPS,
        prompts_per_step=size.prompts,
        samples=size.samples,
        max_tokens=size.longest,
        reward=f"{folder / 'reward.py'}:reward",
        optimizer=OptimizerSettings(learning_rate=RATE),
        pool={"prompts": QUESTIONS, "samples": 0},
        checkpoint_every=10**6,
    )
    parallel = ParallelSettings(device="cpu", compute=compute, forks=1, micro_batch_tokens=micro_batch_tokens)
    inputs = {"model": work.write_folder(folder / "model"), "prompts": folder / "prompts"}
    run = RunSettings(name="run", folder=folder)
    bare = PromptSettings(after="")  # the peer asks for no form of the answer
    model, scores = ModelSettings(), ScoreSettings()
    return Stage("rl", "rl", folder / "rl", settings, inputs, run, model, parallel, scores, prompt=bare)


def written(our_stage: "Stage", work: Any) -> "Stage":
    """The same, with its prompts."""
    from whetstone.records import Problem
    from whetstone.run.tables import write_records

    our_stage.folder.mkdir()
    asked = work.questions(QUESTIONS)
    write_records(our_stage.inputs["prompts"], [Problem(str(i), text, "1") for i, text in enumerate(asked)])
    return our_stage


class Phases:
    """CPU and wall seconds of each phase of a step."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.begin("log")

    def begin(self, name: str) -> None:
        now = time.process_time(), time.perf_counter()
        if self.spent:
            for what, before, after in zip(("cpu", "wall"), self.since, now, strict=True):
                key = f"{self.name}_{what}"
                self.spent[key] = self.spent.get(key, 0.0) + after - before
        self.spent.setdefault(f"{name}_cpu", 0.0)
        self.name, self.since = name, now

    def add(self, name: str, seconds: float) -> None:
        self.spent[name] = self.spent.get(name, 0.0) + seconds

    def step_done(self, gate: Gate, done: int, norm: float) -> None:
        """Tell the gate, and leave out the time for which it holds the loop."""
        self.begin(self.name)
        spent, self.spent = self.spent, {}
        gate.step_done(done, gradient_norm=norm, **spent)
        self.begin(self.name)


class Scripted:
    """The stage's sampler with a script. The first call is the start-up probe, of perhaps more answers than a step, each
    further one a step."""

    def __init__(self, sampler: Any, first: Path, size: Step):
        self.sampler, self.calls, self.first, self.size = sampler, 0, first, size

    def generate(self, prompts: "Iterable[Prompt]", sampling: "Sampling") -> "Iterator[Completion]":
        prompts = list(prompts)
        places = {(prompt.problem_id, prompt.index): i for i, prompt in enumerate(prompts)}
        lengths, self.calls = self.size.lengths(max(0, self.calls - 1)), self.calls + 1
        sampled_ids: dict[int, tuple[list[int], list[int]]] = {}
        for done in self.sampler.generate(
            prompts, sampling, lambda p: Script(lengths[places[p.problem_id, p.index] % len(lengths)], "end")
        ):
            sampled_ids[places[done.problem_id, done.index]] = done.prompt_ids, done.ids
            yield done
        if self.calls == 2:
            self.first.write_text(json.dumps([sampled_ids[i] for i in range(len(prompts))]))


def ours(
    gate: Gate, folder: Path, compute: str, micro_batch_tokens: int, work: Any = ragged, size: Step = STEP
) -> None:
    """The whole stage: drawing, sampling, grading, credit, micro-batches, clipping, metrics.jsonl, progress.

    `work` has the model and the questions: `_ragged`, or `Gsm8k`.
    """
    from whetstone.decode import forked_generator
    from whetstone.learner.steps import Steps
    from whetstone.rl import groups, loop
    from whetstone.verify import MathVerifier

    our_stage = written(stage(folder, compute, micro_batch_tokens, work, size), work)
    (folder / "reward.py").write_text(REWARD)
    phases = Phases()
    said, logged, checked = Steps.phase, Steps.log, MathVerifier.check
    sampled, sampler = groups.sample_step, forked_generator.sampler

    def phase(self: Steps, name: str) -> None:
        said(self, name)
        name = {"grade": "wait", "forward": "update", "backward": "update", "step": "update"}.get(name, name)
        if name != phases.name:
            phases.begin(name)

    def sample_step(*arguments: Any) -> Any:
        result = sampled(*arguments)
        phases.begin("credit")
        return result

    def check(self: MathVerifier, *arguments: Any) -> Any:
        start = time.thread_time()
        verdict = checked(self, *arguments)
        phases.add("grade_cpu", time.thread_time() - start)  # in a thread beside the sampling: its time is in that, too
        return verdict

    def log(self: Steps, step: int, tokens: int, **values: Any) -> None:
        phases.begin("log")
        logged(self, step, tokens, **values)
        phases.step_done(gate, sum(size.lengths(step)), values["gradient_norm"])

    Steps.phase, Steps.log, MathVerifier.check = phase, log, check  # type: ignore[method-assign]
    groups.sample_step = sample_step
    forked_generator.sampler = lambda *them: Scripted(sampler(*them), folder / "first.json", size)  # type: ignore
    loop.run(our_stage)


def trl(
    gate: Gate, folder: Path, compute: str, first: Path, settings: dict[str, Any], work: Any = ragged, size: Step = STEP
) -> None:
    """`settings` are GRPOConfig's; `first` holds the rollouts of our first step."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from whetstone.pool import pool_of
    from whetstone.rl.draw import window

    class Ends(transformers.LogitsProcessor):
        """Ends each row's answer at its own length."""

        def __init__(self, width: int, lengths: Sequence[int], end: int):
            self.width, self.lengths, self.end = width, torch.tensor(lengths), end

        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores[:, self.end] = float("-inf")
            last = self.lengths == ids.shape[1] - self.width + 1
            if last.any():
                scores[last] = float("-inf")
                scores[last, self.end] = 0.0
            return scores

    phases = Phases()
    our_stage = written(stage(folder, compute, 1, work, size), work)
    pool, _ = pool_of(our_stage.inputs["prompts"], our_stage.settings.pool, f"{our_stage.seed}/candidates")
    asked = [pool[i].question for step in range(STEPS) for i in window(len(pool), size.prompts, step, our_stage.seed)]

    class Paced(GRPOTrainer):
        generated = 0

        def _generate_single_turn(self, prompt_ids: Any, *rest: Any, **more: Any) -> Any:
            phases.begin("generate")
            step, self.generated = self.generated, self.generated + 1
            known = json.loads(first.read_text()) if step == 0 else []
            if known and [ids for ids, _ in known] != prompt_ids:
                raise ValueError("the two loops do not ask the same in their first step: nothing can be compared.")
            plain = self.model.generate

            def scripted(input_ids: torch.Tensor, **given: Any) -> Any:
                ends = Ends(input_ids.shape[1], size.lengths(step), self.eos_token_ids[0])
                return plain(input_ids=input_ids, logits_processor=transformers.LogitsProcessorList([ends]), **given)

            self.model.generate = scripted
            answers = (
                super()._generate_single_turn(prompt_ids, *rest, **more) if not known else ([a for _, a in known], None)
            )
            self.model.generate = plain
            if [len(answer) for answer in answers[0]] != size.lengths(step):
                raise ValueError("answers do not have the lengths of the script: the script was passed by.")
            phases.begin("prepare")
            return answers

        def _calculate_rewards(self, *arguments: Any) -> Any:
            phases.begin("grade")
            result = super()._calculate_rewards(*arguments)
            phases.begin("prepare")
            return result

        def _generate_and_score_completions(self, *arguments: Any) -> Any:
            phases.begin("prepare")
            result = super()._generate_and_score_completions(*arguments)
            phases.begin("update")
            return result

    class Step(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            phases.step_done(gate, sum(size.lengths(state.global_step - 1)), trainer.norm)

    def reward(completions: Sequence[Any], **_: Any) -> list[float]:
        return [1.0 if i % 2 else -1.0 for i in range(len(completions))]

    tokenizer = transformers.AutoTokenizer.from_pretrained(our_stage.inputs["model"])
    tokenizer.padding_side = "left"
    trainer = Paced(
        model=transformers.AutoModelForCausalLM.from_pretrained(our_stage.inputs["model"], dtype="float32"),
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=STEPS,
            num_generations=size.samples,
            max_completion_length=size.longest,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            loss_type="grpo",
            scale_rewards="none",  # rewards are +1 and -1, half of each group's: their deviation, by which we divide, is 1
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=compute == "bfloat16",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in asked]}),
        processing_class=tokenizer,
        reward_funcs=reward,
        callbacks=[Step()],
    )
    clip = trainer.accelerator.clip_grad_norm_

    def clipped(*arguments: Any, **more: Any) -> Any:
        norm = clip(*arguments, **more)
        trainer.norm = float(norm)
        return norm

    trainer.accelerator.clip_grad_norm_ = clipped
    trainer.train()
