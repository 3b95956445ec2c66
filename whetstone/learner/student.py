"""The model of a training stage: a room loads, copies and saves it only here.

    student = load(stage)
    learner = student.learner()
    …
    student.save(learner)

Its source is the stage's input, or `[model] path`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whetstone import model as models
from whetstone.chat import Chat
from whetstone.learner.learner import Learner
from whetstone.learner.micro_batch import with_micro_batches
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.settings import ParallelSettings


@dataclass(frozen=True)
class Student:
    stage: Stage
    source: Path | str  # what `find_model` finds
    model: Any  # a transformers causal model, on the stage's device
    tokenizer: Any
    chat: Chat
    bits: int = field(init=False)  # `bits_of` the weights as they were loaded

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", bits_of(self.model))

    @property
    def context(self) -> int:
        """The longest sequence in tokens that the model was made for."""
        return self.model.config.get_text_config().max_position_embeddings

    def learner(self) -> Learner:
        """A learner of the model, with the stage's optimizer.

        With shard = "fsdp" the process keeps only its share of the model from here on.
        """
        return Learner(self.model, self.chat.size, self._parallel(), self.stage.settings.optimizer)

    def sampler(self, copied: bool = False) -> Any:
        """The model that samples: the student's own, or a copy of what was loaded.

        A copy is made if it is asked for, or if sampling uses another type than training (`ParallelSettings.sampling_dtype`).
        """
        device, dtype = self.model.device.type, str(self.model.dtype).removeprefix("torch.")
        sampled = self.stage.parallel.sampling_dtype(device, dtype)
        if sampled == dtype and not copied:
            return self.model
        return _load(self.stage, self.source, sampled, "sampler")[0]

    def reference(self) -> Learner:
        """A learner of the model as it was loaded, for its log-probabilities. It is never updated."""
        model, _ = _load(self.stage, self.source, self.stage.model.dtype, "reference")
        return Learner(model.requires_grad_(False), self.chat.size, self._parallel())

    def _parallel(self) -> ParallelSettings:
        return with_micro_batches(self.stage, self.model.device.type)

    def save(self, learner: Learner) -> None:
        """Write the trained model to the stage's output. Every process of a group must call it.

        Raises ValueError if no weight has changed.
        """
        if not learner.process_group.sharded and bits_of(self.model) == self.bits:
            raise ValueError(
                f"{self.stage.name} has trained nothing: each weight is the one it started from, to the bit. The updates are "
                'too small for the type of the weights: raise optimizer.learning_rate, or set [model] dtype = "float32".'
            )
        learner.save_model(self.tokenizer, self.stage.output("model"), self.stage.scores.temperature)


def load(stage: Stage, source: Path | str | None = None) -> Student:
    """The model from `source`; default: the stage's. Raises ValueError if the stage has none."""
    source = source or stage.model_source
    if source is None:
        raise ValueError(f"{stage.name} has no model to train: put a midtrain stage above it, or set [model] path.")
    model, tokenizer = _load(stage, source, stage.model.dtype, "model")
    chat = Chat(tokenizer, model.generation_config.eos_token_id)
    if chat.closed:
        say(
            f"{stage.name}: the chat template of {source} tells the model not to think. If it shall, put "
            '"{%- set enable_thinking = true %}" at the top of its chat_template.jinja.'
        )
    return Student(stage, source, model, tokenizer, chat)


def bits_of(model: Any) -> int:
    """A sum over the bits of all weights, which tells two models apart."""
    import torch

    views = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    weights = (p.detach() for p in model.parameters())
    return sum(int(w.view(views[w.element_size()]).sum(dtype=torch.int64)) for w in weights)


def _load(stage: Stage, source: Path | str, dtype: str, role: str) -> tuple[Any, Any]:
    device = models.choose_device(stage.parallel.device)
    model, tokenizer = models.load(source, device, dtype, stage.longest)
    say(f"{stage.name}: {role} from {source}: {models.parameters(model):,} parameters, {dtype} on {device}")
    return model, tokenizer
