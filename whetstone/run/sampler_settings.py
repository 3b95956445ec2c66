"""The settings of the `[sampler]` table."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from whetstone.run.settings import AdapterSettings, Operational, Settings

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank can be, above 1


class SamplerSettings(Settings):
    """vLLM servers that sample RL's rollouts instead of this process (docs/rollout_servers.md): named or launched. Other kinds
    of stage sample in their own process.
    """

    ARGUMENTS: ClassVar[frozenset[str]] = frozenset(("command", "options"))

    servers: Annotated[tuple[str, ...], Operational] = Field(
        (), description="their addresses, up to and including /v1; all must read the run's folder under the same path"
    )
    launch: Annotated[int, Operational] = Field(
        0, ge=0, le=1024, description="servers to start and to end: one for each GPU that is seen, or on a CPU"
    )
    command: Annotated[tuple[str, ...], Operational] = Field(
        ("vllm", "serve"), min_length=1, description="what starts a server; the model's folder follows"
    )
    options: Annotated[tuple[str, ...], Operational] = Field((), description="further arguments of the command")
    adapter: Annotated[bool, Operational] = Field(
        False, description="with [adapter]: load the adapter beside the servers' own weights, instead of merged weights"
    )
    in_flight: Annotated[int, Operational] = Field(
        64, ge=1, le=4096, description="requests at once, of each server; each is for one completion"
    )
    timeout: Annotated[float, Operational] = Field(
        600, gt=0, le=1e6, description="seconds without a byte until a server counts as lost"
    )
    wait: Annotated[float, Operational] = Field(
        600, ge=0, le=1e6, description="seconds that a server is waited for when none is left, or one starts"
    )

    MOVED: ClassVar[Mapping[str, str]] = {"staleness": "staleness of the rl stage: what is learnt depends on it"}

    @model_validator(mode="after")
    def _named_or_launched(self) -> "SamplerSettings":
        if self.servers and self.launch:
            raise ValueError(
                "servers and launch are both set: name the servers that run, or have them started, not both"
            )
        if self.adapter and not (self.servers or self.launch):
            raise ValueError("adapter = true has no effect without servers: set servers or launch, or leave it out")
        return self

    def check_adapter(self, trained: AdapterSettings) -> None:
        """Raises ValueError if servers are to load adapters, and the one that is trained is none that vLLM loads."""
        if not self.adapter:
            return
        if not trained.rank:
            raise ValueError("[sampler] adapter = true: no adapter is trained. Set [adapter] rank, or leave it out.")
        if trained.dora:
            raise ValueError("[sampler] adapter = true with [adapter] dora: vLLM loads no DoRA. Leave one of them out.")
        if trained.rank > LORA_RANKS[-1]:
            raise ValueError(
                f"[adapter] rank = {trained.rank}: the largest that vLLM loads is {LORA_RANKS[-1]}. Lower it, or leave out "
                "[sampler] adapter."
            )

    @property
    def used(self) -> bool:
        return bool(self.servers or self.launch)
