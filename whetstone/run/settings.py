"""The settings that several kinds of stage share. Each room declares the settings of its own stage in its own file.

A setting's description is its documentation: the reference in docs/recipes.md is made from it. This file imports no torch, so
that reading a recipe takes no time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from whetstone.base_templates import CHOICE
from whetstone.run.cpu import has_bf16_products
from whetstone.run.names import Name
from whetstone.run.refused_keys import refused_keys
from whetstone.run.secrets import redacted

MOST_EPOCHS = 10**6
LARGEST = 10**12  # of any number in a recipe that has no bound of its own


class Operational:
    """Marks a field that no result depends on, as in `timeout: Annotated[float, Operational] = 600`.

    Examples are the address of a server and its timeout. A change of such a field makes no stage stale.
    """


def _numbers_are_numbers(schema: Any) -> None:
    """In a class's validation: `true` and "3" are no numbers, 1 is not `true`, and a number without bounds gets some."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _numbers_are_numbers(part)
    elif isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            schema["strict"] = True
        if schema.get("type") in ("int", "float") and not {"le", "lt"} & schema.keys():
            schema["le"] = LARGEST
            if not {"ge", "gt"} & schema.keys():
                schema["ge"] = -LARGEST
        for part in schema.values():
            _numbers_are_numbers(part)


class Settings(BaseModel):
    """The parent of every table in a recipe. Tables are frozen and refuse unknown keys. As JSON and as text they are without
    secrets (`run/secrets.py`).

    A nested table that is given in part keeps the other values of the field's default, and a plain string sets its `name`:

    >>> class Stage(Settings):
    ...     optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-5, schedule="linear")
    >>> Stage.model_validate({"optimizer": {"learning_rate": 0.1}}).optimizer.schedule
    'linear'
    >>> Stage.model_validate({"optimizer": "muon"}).optimizer.learning_rate
    3e-05
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    MOVED: ClassVar[Mapping[str, str]] = {}  # key of an earlier version -> what it is called now
    ARGUMENTS: ClassVar[frozenset[str]] = frozenset()  # keys of lists of texts that may be there several times

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _numbers_are_numbers(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _refused_keys_and_partial_tables(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if refused := list(refused_keys(values, cls.MOVED, cls.ARGUMENTS)):
            raise ValidationError.from_exception_data(cls.__name__, refused)
        defaults = {name: field.default for name, field in cls.model_fields.items() if name in values}
        return values | {name: _completed(values[name], default) for name, default in defaults.items()}

    @model_serializer(mode="wrap")
    def _without_secrets(self, serialise: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        values = serialise(self)
        return redacted(values) if info.mode == "json" else values

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, redacted(value, name or "")) for name, value in super().__repr_args__())


def _completed(value: Any, default: Any) -> Any:
    """A table as written, with the values of `default` for the keys that it leaves out."""
    if not isinstance(default, Settings):
        return value
    if isinstance(value, str) and "name" in type(default).model_fields:
        value = {"name": value}
    if not isinstance(value, dict):
        return value
    written = {key: _completed(inner, getattr(default, key, None)) for key, inner in value.items()}
    return dict(default) | written


@dataclass(frozen=True)
class Registered:
    """Marks a field whose table belongs to one of several classes, as in `Annotated[Algorithm, Registered("name", classes)]`.

    `classes()` maps the value of the table's key `by` to a class. A plain string is allowed if that key is `name`.
    """

    by: str
    classes: Callable[[], Mapping[str, type[Settings]]]

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """For editors: any of the tables, or a string."""
        tables, classes = [], self.classes()
        for table in dict.fromkeys(classes.values()):
            schema = handler(table.__pydantic_core_schema__)
            names = [name for name, other in classes.items() if other is table]
            handler.resolve_ref_schema(schema)["properties"][self.by] = {"enum": names}
            tables.append(schema)
        own = {"type": "string"} if self.by == "name" else {"properties": {self.by: {"pattern": r"\.py:\w+$"}}}
        return {"anyOf": [*tables, own]}


def changed(settings: Settings) -> list[str]:
    """The keys whose values are not the defaults, in their order."""
    fields = type(settings).model_fields.items()
    return [name for name, field in fields if getattr(settings, name) != field.default]


class StageSettings(Settings):
    """What every `[[stage]]` has."""

    kind: str
    name: str = Field("", description="of the stage and its folder; default: the kind")


class RunSettings(Settings):
    name: Name = Field("", description="the run folder is `folder/name`; default: the recipe's file name")
    folder: Path = Field(Path("runs"), description="where run folders lie")
    seed: int = Field(0, ge=-(2**63), lt=2**63, description="of everything that is drawn at random")
    threads: int = Field(0, ge=0, le=4096, description="of this process; 0: as many as there are cores it may use")
    keep_checkpoints: int = Field(2, gt=0, description="newest checkpoints kept per stage, besides the best")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description="get each step's metrics too"
    )
    copy_to: str = Field(
        "",
        description="an address as s3://BUCKET/RUNS, or a folder: the run's folder is copied there while it goes on; see "
        "docs/your_data.md for credentials",
    )
    watchdog: float = Field(
        1800,
        ge=0,
        description="seconds until a phase of a step is reported as hanging, and half of those until one of several processes "
        "that gives no sign of life is named; 0: never",
    )
    on_hang: Literal["say", "end"] = Field("say", description="only report it, or end the run too (status 137 or 2)")


class ModelSettings(Settings):
    """A Hugging Face folder to start from, or the shape of a tiny Phi-3-class model with random weights. With `path`, the
    shape only serves `plan`, before the model is downloaded.
    """

    path: str | None = Field(
        None,
        description="a folder, a run, a GGUF file, or OWNER/NAME@REVISION on the Hub (@REVISION may be left out); "
        "left out: a tiny model is made",
    )
    chat_template: str | None = Field(
        None,
        description=f"for a base model without one, or instead of the model's own: {CHOICE}; is trained in and exported",
    )
    template_tokens: Literal["new", "text"] = Field(
        "new",
        description="control tokens of `chat_template` that the tokenizer lacks: added to it and trained, or written as text",
    )
    layers: int = Field(3, ge=1, le=1000, description="transformer blocks")
    hidden: int = Field(128, ge=1, le=2**20, description="width")
    mlp: int = Field(384, ge=1, le=2**22, description="inner width of the feed-forward part")
    heads: int = Field(4, ge=1, le=2**16, description="query heads; the size of a head is hidden / heads")
    kv_heads: int = Field(2, ge=1, le=2**16, description="key and value heads; must divide heads")
    vocabulary: int = Field(
        512,
        ge=256,
        le=2**24,
        description="upper bound for the tokenizer that is trained on the corpus; 256: the bytes alone",
    )
    context: int = Field(1024, ge=1, le=2**30, description="positions")
    longest: int = Field(
        0, ge=0, le=2**30, description="tokens of the longest sequence, for LongRoPE; 0: as the stages need"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of stored weights; bfloat16 loses small updates"
    )

    MOVED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("partial_rotary", "rope_theta"), "gone: a tiny model has fixed values, and a folder has its own"
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "ModelSettings":
        if self.path is None and (self.hidden % self.heads or self.heads % self.kv_heads):
            raise ValueError(
                f"hidden = {self.hidden}, heads = {self.heads}, kv_heads = {self.kv_heads}: heads must divide hidden, and "
                "kv_heads must divide heads. Change one of them"
            )
        if self.path is None and self.hidden // self.heads % 4:
            raise ValueError(
                f"hidden / heads = {self.hidden // self.heads}: the size of a head must be a multiple of 4, because half of it "
                "is rotated in pairs. Change one of them"
            )
        if self.path is not None and not self.path.strip():
            raise ValueError("path is empty. Name a folder or a hub name, or leave it out for a tiny model")
        if self.chat_template is not None and self.path is None:
            raise ValueError(
                "chat_template is for the model of `path`: a tiny model has its own. Name a path, or leave it out"
            )
        return self


class ParallelSettings(Settings):
    """Devices and processes. Only `compute` changes what is learnt, the others up to rounding. `forks` are copies
    of a process on a CPU, which share its sampling and, with `threads = 1`, its training steps. `processes` train together, and
    sample in dpo, rl and scores, each on its own GPU or cores.
    """

    ARGUMENTS: ClassVar[frozenset[str]] = frozenset(("launch",))

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    compute: Literal["float32", "bfloat16"] = Field("float32", description="type of the matrix products in training")
    forks: int = Field(
        0, ge=0, le=4096, description="processes on a CPU; 0: one per core, or 1 if several `processes` train"
    )
    processes: int = Field(1, ge=1, le=4096, description="processes that train together")
    shard: Literal["ddp", "fsdp"] = Field("ddp", description="each process holds the whole model, or a share of it")
    launch: Annotated[tuple[str, ...], Operational] = Field(
        (), description="command that starts the `processes`, as of several machines; default: torchrun on this machine"
    )
    data: Annotated[Literal["processes", "ray"], Operational] = Field(
        "processes",
        description="what shares rollouts and corpus: `forks` processes of this machine, or Ray (docs/data.md)",
    )
    micro_batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        8192,
        description="tokens per forward pass: a number, or as many as the free memory holds; never changes the gradient",
    )
    activation_checkpointing: int = Field(0, ge=0, description="recompute activations of every n-th layer; 0: of none")
    compile: bool = Field(False, description="torch.compile for layers: faster after a minute, equal up to rounding")
    accelerator: Literal[
        "", "A100", "H100 PCIe", "H100 NVL", "H100", "H200", "B200", "L40S", "L4", "RTX 3090", "RTX 4090"
    ] = Field("", description="for the hours that `plan` estimates")

    MOVED: ClassVar[Mapping[str, str]] = {"samplers": "forks", "replicas": "forks"}

    @model_validator(mode="after")
    def only_several_processes_are_launched(self) -> "ParallelSettings":
        if self.launch and self.processes == 1:
            raise ValueError(
                "launch starts the processes that train together, and processes = 1. Set processes to the number on all "
                "machines, or leave launch out"
            )
        return self

    def sampling_dtype(self, device: str, dtype: str) -> str:
        """The type of the model that samples if the stored weights are of type `dtype`.

        On a GPU, and on a CPU that multiplies bf16 in instructions of its own, it is the type of the matrix products, because
        decoding reads all weights for each token. On other CPUs it is `dtype`: products in bf16 would be emulated, and the
        sampler shares the learner's weights.

        >>> ParallelSettings(compute="bfloat16").sampling_dtype("cuda", "float32")
        'bfloat16'
        """
        half = self.compute != "float32" and (device == "cuda" or has_bf16_products())
        return self.compute if half else dtype


Weights = Annotated[
    Literal["stored", "int8"],
    Field(description="of the model that answers; int8: rounded to 8 bits, for speed on a CPU"),
]


class ScoreSettings(Settings):
    """How the pipeline scores the base and every training stage."""

    main: Name = Field("", description="name of the headline problem set; default: the first")
    samples: int = Field(8, ge=1, le=10**6, description="answers per problem")
    base_samples: int = Field(
        0, ge=0, le=10**6, description="answers per problem of the untrained base; 0: as many as `samples`"
    )
    temperature: float = Field(0.6, ge=0, le=100, description="of the answers; 0: greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="share of the probability from which tokens are sampled")
    top_k: int = Field(0, ge=0, le=2**30, description="sample from so many of the likeliest tokens; 0: from all")
    max_tokens: int = Field(512, ge=1, le=2**30, description="longest answer; a longer one counts as truncated")
    problems: int = Field(0, ge=0, description="problems of each set, at most; 0: all")
    sets: tuple[Name, ...] = Field(
        (), description="the problem sets that are scored; default: all. Training data is kept apart from all of them"
    )
    weights: Weights = "stored"


class AdapterSettings(Settings):
    """An adapter that training stages train instead of all weights (LoRA, by peft; learner/adapter.py)."""

    rank: int = Field(0, ge=0, le=65_536, description="of the two matrices of each layer; 0: all weights are trained")
    alpha: float = Field(0.0, ge=0, description="the adapter counts alpha / rank; 0: 2 * rank")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear",
        description="layers that get one: all linear ones below the head, or those of these names (q_proj, …)",
    )
    dora: bool = Field(False, description="the length of each row is learnt apart from its direction")
    weights: Literal["stored", "nf4"] = Field(
        "stored", description="of the frozen layers; nf4: rounded to 4 bits (QLoRA, by bitsandbytes)"
    )

    @model_validator(mode="after")
    def _only_an_adapter_learns_beside_rounded_weights(self) -> "AdapterSettings":
        if self.weights == "nf4" and not self.rank:
            raise ValueError(
                'weights = "nf4" is for a model that an adapter is trained beside. Set rank, or leave it out'
            )
        return self


class OptimizerSettings(Settings):
    """The optimizer of a training stage and its learning rate. A plain string sets `name` and keeps the other values. Muon is
    for the hidden layers' matrices, with AdamW for the other parameters. The rate rises to its peak during `warmup`, then stays
    there or falls to the floor.
    """

    name: Literal["adamw", "muon"] = Field("adamw", description="docs/muon.md compares them")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the peak")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="of the rate after warm-up")
    warmup: float = Field(0.0, ge=0, le=1, description="share of the steps")
    floor: float = Field(0.0, ge=0, le=1, description="the last rate, as a share of the peak; not used if constant")
    weight_decay: float = Field(
        0.0, ge=0, le=1000, description="share of a weight lost per step, times the learning rate"
    )
    clip: float = Field(1.0, gt=0, description="a gradient with a larger norm is scaled down to this norm")
    moments: Literal["weights", "bfloat16"] = Field(
        "weights",
        description="type of AdamW's two moments: the weights', or bfloat16, which saves 4 bytes per fp32 weight",
    )


class SpikeSettings(Settings):
    """What to do if a loss or gradient is not finite, or a loss jumps: exceeds the median of the last losses by ten
    times their deviation (1.4826 times the median absolute deviation, and at least 1 % of the median). Going back restores
    the newest checkpoint and leaves out the step at which it happened; after three times the stage stops.
    """

    not_finite: Literal["stop", "go_back"] = Field("stop", description="if a loss or gradient is NaN or infinite")
    spike: Literal["ignore", "warn", "stop", "go_back"] = Field("warn", description="if a loss jumps")
    window: int = Field(
        64, ge=8, le=10**6, description="steps a loss is compared with; the first eighth of them only fills it"
    )

    MOVED: ClassVar[Mapping[str, str]] = {"deviations": "gone: it is 10", "go_backs": "gone: it is 3"}


# The stages have their own defaults; meaning and bounds are declared here.
Optimizer = Annotated[OptimizerSettings, Field(description="learning rate, schedule, weight decay")]
CheckpointEvery = Annotated[int, Field(gt=0, description="steps between two checkpoints")]
Spikes = Annotated[SpikeSettings, Field(description="what to do if the loss jumps or is not finite")]


class TrainingSettings(StageSettings):
    """What every stage that trains a model has."""

    adapter: Annotated[
        AdapterSettings | None, Field(description="of this stage, in place of [adapter]; rank 0: all weights")
    ] = None
    optimizer: Optimizer = OptimizerSettings()
    checkpoint_every: CheckpointEvery = 50
    spikes: Spikes = SpikeSettings()

    MOVED: ClassVar[Mapping[str, str]] = {
        "learning_rate": "optimizer.learning_rate",
        "schedule": "optimizer.schedule",
        "warmup": "optimizer.warmup",
        "floor": "optimizer.floor",
        "weight_decay": "optimizer.weight_decay",
    }


class EpochSettings(TrainingSettings):
    """What a stage has that goes over its data several times."""

    epochs: float = Field(1.0, gt=0, le=MOST_EPOCHS, description="passes over the data")


class NextTokenSettings(EpochSettings):
    """What mid-training and supervised fine-tuning have."""

    tokens: int = Field(0, ge=0, description="stop once this many tokens are spent; 0: after the epochs")
    batch_tokens: int = Field(4096, gt=0, le=10**10, description="tokens per optimizer step")
    steps: int = Field(
        0,
        ge=0,
        le=10**8,
        description="optimizer steps that share the tokens evenly; 0: as many as `batch_tokens` gives",
    )
    max_length: int = Field(
        1024,
        gt=1,
        le=2**30,
        description="tokens of a conversation or packed row; longer ones, or longer than the context, are left out",
    )
