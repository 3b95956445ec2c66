"""A model that is scored: where its answers come from, in this process or from a server, and how it is asked.

candidate = local_candidate(LocalModel(folder, ParallelSettings()))
candidate = served_candidate(Server(server="http://127.0.0.1:8000/v1", model="mine"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetstone.prompting import Prompting, prompting_of
from whetstone.records import Generator, Problem, Rollout, Sampling, Verifier
from whetstone.run.prompt_settings import AS_TRAINED, PromptSettings
from whetstone.run.settings import ParallelSettings
from whetstone.sample import Key, sample_journalled, sample_one_by_one
from whetstone.template import set_thinking
from whetstone.window import Window

if TYPE_CHECKING:
    from whetstone.chat import Chat
    from whetstone.decode.server_settings import Server
    from whetstone.learner.parallel import ProcessGroup


@dataclass(frozen=True)
class Answers:
    """The graded samples of problems: P lists of G. `tokens` are a server's own counts; without any, the ids are counted."""

    groups_PG: list[list[Rollout]]
    tokens: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    generator: Generator | None  # None: others sample (sampling_worker.py)
    prompting: Prompting
    chat: "Chat | None" = None  # None: a server, whose tokenizer and context are not known
    context: int = 0
    weights: str = "stored"
    process_group: "ProcessGroup | None" = None  # of the processes that sample it together

    def unaskable(self, problems: Sequence[Problem], max_tokens: int, label: str) -> Mapping[str, str]:
        """Problem id -> why it does not fit into the model's context, which is said too. Raises ValueError if none fits."""
        if self.chat is None:
            return {}
        window = Window(self.chat, self.context, max_tokens, self.prompting)
        return window.report(label, problems, "count as not solved")

    def answers(
        self, problems: Sequence[Problem], samples: int, sampling: Sampling, verifier: Verifier, journal: Path, label: str
    ) -> Answers:  # fmt: skip
        """The graded samples. What a killed call finished is in the journal, and is not sampled again.

        Raises ServerError if a server leaves some unanswered.
        """
        given: Any = self.generator, problems, samples, sampling, verifier, journal, label
        if self.chat is None:
            return Answers(*sample_one_by_one(*given, prompting=self.prompting))
        group = self.process_group
        return Answers(sample_journalled(*given, block=2048, process_group=group, prompting=self.prompting))


@dataclass(frozen=True)
class LocalModel:
    """A model folder, and how it is asked and computed."""

    folder: Path
    parallel: ParallelSettings
    longest: int = 0  # tokens of the run's longest sequence; 0: of the model's context (`model.load`)
    prompt: PromptSettings = AS_TRAINED
    weights: str = "stored"
    dtype: str = ""  # of the matrix products; "": as `parallel` says
    batch: int = 256  # sequences that are decoded at once


def local_candidate(model: LocalModel) -> Candidate:
    """A model folder, sampled by the engine of this process."""
    from whetstone import model as models
    from whetstone.decode.forked_generator import sampler

    parallel, prompting = model.parallel, prompting_of(model.prompt, model.folder)
    device = models.choose_device(parallel.device)
    dtype = model.dtype or parallel.sampling_dtype(device, "float32")
    loaded, tokenizer = models.load(model.folder, device, dtype, model.longest)
    set_thinking(tokenizer, prompting.thinking)
    int8 = model.weights == "int8"
    engine = sampler(loaded, tokenizer, parallel, parallel.processes, int8=int8, max_batch=model.batch)
    return Candidate(engine, prompting, engine.engine.chat, loaded.config.max_position_embeddings, model.weights)


def served_candidate(server: "Server", prompt: PromptSettings = AS_TRAINED) -> Candidate:
    """A model behind an OpenAI-compatible server, which is asked for the form of the answer like any model from elsewhere."""
    from whetstone.decode.server_generator import ServerGenerator

    return Candidate(ServerGenerator(server), prompting_of(prompt, server.server))
