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
from whetstone.batch import Row
from whetstone.chat import Chat
from whetstone.learner.adapter import (
    VALUE_HEAD,
    add_adapter,
    has_adapter,
    own_weights,
    plain_weights,
    publish,
    save_adapter,
    without_adapter,
)
from whetstone.learner.four_bit import is_rounded
from whetstone.learner.learner import Learner
from whetstone.learner.roots import PolicyAndValue
from whetstone.model_folder import local_model
from whetstone.prompting import Prompting, prompting_of
from whetstone.records import Sampling
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.template import set_thinking


@dataclass(frozen=True)
class Base:
    """The learner's model as it is without its adapter: a reference that costs no memory."""

    learner: Learner

    def row_logprobs(self, rows: list[Row], temperature: float = 1.0) -> list[Any]:
        with without_adapter(self.learner.model):
            return self.learner.row_logprobs(rows, temperature)


@dataclass(frozen=True)
class Student:
    stage: Stage
    source: Path | str  # what `find_model` finds
    model: Any  # a transformers causal model, on the stage's device
    tokenizer: Any
    chat: Chat
    prompting: Prompting  # how it is asked, in training and wherever it is used later
    bits: int = field(init=False)  # `bits_of` the weights as they were loaded

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", bits_of(self.model))

    @property
    def context(self) -> int:
        """The longest sequence in tokens that the model was made for."""
        return self.model.config.get_text_config().max_position_embeddings

    def learner(self, values: bool = False) -> Learner:
        """A learner of the model, or of an adapter beside it, with the stage's optimizer; with a head for `values` on request.

        With shard = "fsdp" the process keeps only its share of the model from here on.
        """
        root = PolicyAndValue(self.model, self.chat.size) if values else None
        return Learner(self.model, self.chat.size, self.stage.parallel, self.stage.settings.optimizer, root)

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained, and not the model's own weights."""
        return has_adapter(self.model)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def sampling_dtype(self) -> str:
        """The type that its rollouts are sampled in."""
        return self.stage.parallel.sampling_dtype(self.model.device.type, self.dtype)

    def sampler(self, copied: bool = False) -> Any:
        """The model that samples: the student's own, or a copy of what was loaded.

        A copy is made if it is asked for, if sampling uses another type than training (`ParallelSettings.sampling_dtype`), or
        if an adapter is trained: samplers know none, and get merged weights.
        """
        if self.sampling_dtype == self.dtype and not copied and not self.adapts:
            return self.model
        copy = _load(self.stage, self.source, self.sampling_dtype, "sampler")[0]
        if is_rounded(self.model):  # and so is what the learner computes
            publish(plain_weights(self.model), copy)
        return copy

    def again(self, role: str) -> Any:
        """The model as it was loaded, with weights of its own."""
        return _load(self.stage, self.source, self.stage.model.dtype, role)[0]

    def reference(self, learner: Learner) -> Learner | Base:
        """The model as it was loaded, for its log-probabilities. It is never updated."""
        if self.adapts:
            return Base(learner)
        return Learner(self.again("reference").requires_grad_(False), self.chat.size, self.stage.parallel)

    def save(self, learner: Learner) -> None:
        """Write the trained model to the stage's output. Every process of a group must call it.

        Raises ValueError if no weight has changed.
        """
        if not learner.process_group.sharded and bits_of(self.model) == self.bits:
            raise ValueError(
                f"{self.stage.name} has trained nothing: each weight is the one it started from, to the bit. The updates are "
                'too small for the type of the weights: raise optimizer.learning_rate, or set [model] dtype = "float32".'
            )
        scores = self.stage.scores
        scored = Sampling(scores.temperature, top_k=scores.top_k, top_p=scores.top_p)
        learner.save_model(self.tokenizer, self.stage.output("model"), scored)
        if self.adapts:
            folder = self.stage.output("adapter")
            self.save_adapter(learner, folder)
            if learner.process_group.main:
                self.tokenizer.save_pretrained(folder)
                self.prompting.save(folder)

    def save_adapter(self, learner: Learner, folder: Path) -> None:
        """Write the adapter alone, as peft reads it. Every process of a group must call it."""
        weights = own_weights(self.model, learner.process_group.whole)
        if learner.process_group.main:
            save_adapter(self.model, weights, folder, local_model(self.source) or self.source)


def load(stage: Stage, source: Path | str | None = None) -> Student:
    """The model from `source`; default: the stage's. Raises ValueError if the stage has none."""
    source = source or stage.model_source
    if source is None:
        raise ValueError(f"{stage.name} has no model to train: put a midtrain stage above it, or set [model] path.")
    model, tokenizer = _load(stage, source, stage.model.dtype, "model")
    prompting = model.prompting = prompting_of(stage.prompt, source)
    set_thinking(tokenizer, prompting.thinking)
    chat = Chat(tokenizer, model.generation_config.eos_token_id)
    if stage.adapter.rank:
        add_adapter(model, stage.adapter, stage.seed)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = ", beside frozen layers in 4 bits" if stage.adapter.weights == "nf4" else ""
        say(f"{stage.name}: an adapter of rank {stage.adapter.rank}: {trained:,} parameters are trained{frozen}")
    if chat.closed:
        say(
            f"{stage.name}: the chat template of {source} tells the model not to think. If it shall, set [prompt] thinking = "
            "true."
        )
    if not prompting.bare:
        say(f"{stage.name}: prompt: {prompting.in_words()}")
    return Student(stage, source, model, tokenizer, chat, prompting)


def bits_of(model: Any) -> int:
    """A sum over the bits of all weights, which tells two models apart."""
    import torch

    views = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    weights = (p.detach() for name, p in model.named_parameters() if not name.startswith(VALUE_HEAD))
    return sum(int(w.view(views[w.element_size()]).sum(dtype=torch.int64)) for w in weights)


def _load(stage: Stage, source: Path | str, dtype: str, role: str) -> tuple[Any, Any]:
    device = models.choose_device(stage.parallel.device)
    model, tokenizer = models.load(source, device, dtype, stage.longest)
    say(f"{stage.name}: {role} from {source}: {models.parameters(model):,} parameters, {dtype} on {device}")
    return model, tokenizer
