"""Who teaches: a model in this process, or a server that lists its most likely tokens. Both may also write text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from whetstone.decode.server_scorer import ServerScorer
from whetstone.records import Problem, Sampling
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.sample import gathered, share_of

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.distill.settings import Settings
    from whetstone.learner.parallel import ProcessGroup
    from whetstone.learner.student import Student


class Teacher(Protocol):
    model: Any  # a causal model whose head is compared with the student's; None if rows carry the teacher's list

    def begin(self, state: dict[str, Any], problem: Problem) -> None:
        """Before the first step, or the first that is left; `state` is that of the steps. Raises if it cannot teach."""
        ...

    def scored(self, rows: "list[Row]", state: dict[str, Any]) -> "tuple[list[Row], dict[str, float]]":
        """The rows with what the learner needs of the teacher, and metrics."""
        ...

    def written(self, problems: Sequence[Problem], seed: int) -> "tuple[list[Row], dict[str, float]]":
        """Rows of the teacher's own answers to these problems, and metrics."""
        ...


def teacher_of(stage: Stage, student: "Student", process_group: "ProcessGroup") -> Teacher:
    """Raises ValueError if there is none, or if its vocabulary is not the student's."""
    if stage.settings.teacher_server:
        return ServedTeacher(stage, student, process_group)
    return LocalTeacher(stage, student, process_group)


class LocalTeacher:
    """In the type of the weights. Its text is sampled as the student's is."""

    def __init__(self, stage: Stage, student: "Student", process_group: "ProcessGroup"):
        self.stage, self.student, self.process_group = stage, student, process_group
        self.model = _load(stage, student)
        self._engine: Any = None

    def begin(self, state: dict[str, Any], problem: Problem) -> None:
        pass

    def scored(self, rows: "list[Row]", state: dict[str, Any]) -> "tuple[list[Row], dict[str, float]]":
        return rows, {}

    def written(self, problems: Sequence[Problem], seed: int) -> "tuple[list[Row], dict[str, float]]":
        from whetstone.batch import answer_row
        from whetstone.decode.forked_generator import sampler

        settings: Settings = self.stage.settings
        if self._engine is None:
            self._engine = sampler(self.model, self.student.tokenizer, self.stage.parallel, self.process_group.count)
        asked = [self.student.prompting.prompt(p, i) for p in problems for i in range(settings.samples)]
        sampling = Sampling(settings.temperature, settings.max_tokens, seed=seed)
        own = list(self._engine.generate(share_of(asked, self.process_group), sampling))
        answers = [answer for answer in gathered(own, self.process_group) if answer.ids]
        answers.sort(key=lambda answer: (answer.problem_id, answer.index))
        return [answer_row(answer.prompt_ids, answer.ids) for answer in answers], {}


class ServedTeacher:
    """The main process asks it. Tokens spent are in the state of the steps, so that a resumed stage goes on counting."""

    model = None

    def __init__(self, stage: Stage, student: "Student", process_group: "ProcessGroup"):
        self.stage, self.student, self.process_group = stage, student, process_group
        self.settings = stage.settings.teacher_server
        names = [student.tokenizer.decode([i]) for i in range(student.chat.size)]
        self.scorer = ServerScorer(self.settings, names)
        count = self.settings.top_logprobs
        say(f"{stage.name}: teacher from {self.scorer.name}: its {count} most likely tokens at each position")

    def begin(self, state: dict[str, Any], problem: Problem) -> None:
        """One text is scored before anything is sampled for the server."""
        from whetstone.batch import Row

        self.scorer.spent.tokens_in = state.get("teacher_tokens", 0)
        ids = self.student.chat.prompt_ids(self.student.prompting.prompt(problem, 0).messages)
        self.scored([Row(ids)], state)

    def scored(self, rows: "list[Row]", state: dict[str, Any]) -> "tuple[list[Row], dict[str, float]]":
        found = self.process_group.first(self.scorer.listed(rows) if self.process_group.main else None)
        state["teacher_tokens"] = self.scorer.spent.tokens_in
        return found, {"unscored": float(len(rows) - len(found)), "teacher_tail": _tail(found)}

    def written(self, problems: Sequence[Problem], seed: int) -> "tuple[list[Row], dict[str, float]]":
        from whetstone.chat import Exchange
        from whetstone.decode.server_generator import ServerGenerator
        from whetstone.reward_model import answer_rows

        prompting, settings = self.student.prompting, self.settings
        by_id = {problem.id: problem for problem in problems}
        sampling = Sampling(settings.temperature, settings.max_tokens, top_p=settings.top_p, seed=seed)
        asked = [prompting.prompt(p, i) for p in problems for i in range(self.stage.settings.samples)]
        generator = ServerGenerator(settings, self.scorer.spent)
        found = list(generator.generate(asked, sampling)) if self.process_group.main else []
        answers = sorted(self.process_group.first(found), key=lambda answer: (answer.problem_id, answer.index))
        texts = [
            Exchange(prompting.prompt(by_id[a.problem_id], 0).messages, a.text) for a in answers if a.stop == "end"
        ]
        longest = self.stage.settings.max_length
        rows = [
            row for row in answer_rows(self.student.chat, texts) if not isinstance(row, str) and len(row.ids) <= longest
        ]
        return rows, {"unwritten": float(len(asked) - len(rows))}


def _tail(rows: "Sequence[Row]") -> float:
    """The mean probability that the teacher gives to tokens that it does not list."""
    from math import exp

    tails = [
        1 - sum(exp(value) for i, value in zip(ids, values, strict=True) if i >= 0)
        for row in rows
        for ids, values in zip(row.token["teacher_ids"], row.token["teacher_logprobs"], strict=True)
    ]
    return max(0.0, sum(tails) / max(1, len(tails)))


def _load(stage: Stage, student: "Student") -> Any:
    from whetstone import model as models
    from whetstone.chat import Chat

    settings: Settings = stage.settings
    source = settings.teacher_model or stage.inputs.get("teacher")
    if source is None:
        raise ValueError(
            f'{stage.name} has no teacher: set teacher_model = "FOLDER", teacher = "STAGE" for a stage above, or '
            'teacher_server = { server = "http://localhost:8000/v1", model = "NAME" }.'
        )
    model, tokenizer = models.load(source, student.model.device.type, stage.model.dtype, stage.longest)
    ours, theirs = student.tokenizer.get_vocab(), tokenizer.get_vocab()
    if ours != theirs:
        other = next((token for token in ours if theirs.get(token) != ours[token]), None)
        where = f"{other!r} is {ours[other]} here and {theirs.get(other)} there" if other else "it has more tokens"
        raise ValueError(
            f"{stage.name}: the teacher {source} has another vocabulary than the student ({where}), and its probabilities "
            "are compared token by token. Take a teacher of the same family; with another one, let it write text instead: a "
            'rollouts stage with teacher = "server", then sft.'
        )
    chat = Chat(tokenizer, model.generation_config.eos_token_id)
    if chat.fingerprint() != student.chat.fingerprint():
        say(f"{stage.name}: the teacher's chat template or ends differ; it reads the student's prompts as they are")
    say(f"{stage.name}: teacher from {source}: {models.parameters(model):,} parameters")
    return model
