"""The shared tables of a recipe. Rooms declare their own stage settings at the top of their own files.

No torch here: reading a recipe is instant.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Operational:
    """Marks a field that no result depends on, as in `timeout: Annotated[float, Operational] = 600`: how a server is reached,
    how patiently it is asked. A change of such a field makes no stage stale."""


class Settings(BaseModel):
    """Frozen, unknown keys refused. The parent of every table in a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StageSettings(Settings):
    """What every `[[stage]]` has. A room's settings add a field of type `str | None` for each input that can be named."""

    kind: str
    name: str = ""  # default: the kind


class RunSettings(Settings):
    name: str  # the run folder is `folder/name`
    folder: Path = Path("runs")  # where run folders lie
    seed: int = 0  # of everything drawn at random
    threads: int = Field(default=0, ge=0)  # 0: all the cores this process may use
    keep_checkpoints: int = Field(default=2, gt=0)  # newest of a stage that stay, beside the best by validation
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()  # where each step's numbers go, too
    watchdog: float = Field(default=1800, ge=0)  # seconds a phase of a step may last before it is named; 0: any
    on_hang: Literal["say", "end"] = "say"  # whether such a process is ended as well (status 137)


class ModelSettings(Settings):
    """A Hugging Face folder to start from, or the shape of a tiny Phi-3-class model made from nothing."""

    path: str | None = None  # a folder or a hub name; the shape fields below then only serve `plan`, before a download
    layers: int = 3  # transformer blocks
    hidden: int = 128  # width
    mlp: int = 384  # inner width of the feed-forward part
    heads: int = 4  # of the queries; hidden / heads is the size of a head
    kv_heads: int = 2  # of keys and values; must divide heads
    partial_rotary: float = 0.5  # share of each head's dimensions that carry the position (Phi-4-mini: 0.75)
    rope_theta: float = 500.0  # Phi-4-mini's 10,000 is made for contexts of thousands of tokens
    vocabulary: int = 512  # upper bound for the tokenizer trained on the corpus
    context: int = 1024  # positions
    longest: int = Field(default=0, ge=0)  # tokens of the longest sequence, for LongRoPE; 0: what the stages ask for
    dtype: Literal["float32", "bfloat16"] = "float32"  # of stored weights; bfloat16 rounds small updates away


class ParallelSettings(Settings):
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    compute: Literal["float32", "bfloat16"] = "float32"  # of the matrix products in training
    samplers: int = Field(
        default=0, ge=0
    )  # processes that sample at once on CPU with threads = 1; 0: one a core, or `processes`
    replicas: int = Field(default=0, ge=0)  # processes that share a training step, likewise; 0: one a core
    processes: int = Field(
        default=1, ge=1
    )  # that train together, and sample in dpo and rl, each on a GPU or some cores
    shard: Literal["ddp", "fsdp"] = "ddp"  # of several: each has the whole model, or a share of weights and moments
    micro_batch_tokens: int = Field(default=8192, gt=0)  # tokens in one forward/backward; never changes the gradient
    activation_checkpointing: int = Field(default=0, ge=0)  # of each n-th layer, computed again; 0: all are kept
    compile: bool = False  # torch.compile for the layers: faster after a minute; the same numbers but for rounding
    accelerator: Literal[
        "", "A100", "H100 PCIe", "H100 NVL", "H100", "H200", "B200", "L40S", "L4", "RTX 3090", "RTX 4090"
    ] = ""  # for `plan`'s hours

    def sampling_dtype(self, device: str, dtype: str) -> str:
        """The type of a model that is sampled from, where weights are stored in `dtype`.

        On a GPU the type that is computed in, as decoding reads all weights for each token. On a CPU our kernels compute in
        fp32 whatever the type, and weights are shared.

        >>> halves = ParallelSettings(compute="bfloat16")
        >>> halves.sampling_dtype("cuda", "float32"), halves.sampling_dtype("cpu", "float32")
        ('bfloat16', 'float32')
        """
        return self.compute if device == "cuda" and self.compute != "float32" else dtype


class SpikeSettings(Settings):
    """A loss or gradient that is not finite, and a loss that jumps: above the median of the last steps' losses by so many of
    their deviations (1.4826 times the median absolute one, and at least 1 % of the median). Going back restores the newest
    checkpoint and leaves out the step at which it happened.
    """

    not_finite: Literal["stop", "go_back"] = "stop"  # a loss or gradient that is NaN or infinite
    spike: Literal["ignore", "warn", "stop", "go_back"] = "warn"  # a loss that jumps
    window: int = Field(default=64, ge=8)  # steps it is compared with; in the first eighth of them nothing is a spike
    deviations: float = Field(default=10.0, gt=0)  # above the median
    go_backs: int = Field(default=3, ge=0)  # at most so many in a stage, then it stops


class ScoreSettings(Settings):
    """How the pipeline scores the base and every training stage."""

    main: str = ""  # benchmark name of the headline problem set; default: the first
    samples: int = Field(default=8, ge=1)  # answers a problem
    base_samples: int = Field(default=0, ge=0)  # answers a problem of the base, which wanders on to the end; 0: as many
    temperature: float = Field(default=0.6, ge=0)  # of the answers; 0 is greedy
    max_tokens: int = Field(default=512, ge=1)  # longest answer; longer ones count as truncated
    problems: int = Field(default=0, ge=0)  # at most so many of each set; 0: all
