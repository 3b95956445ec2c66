"""How a problem is put to a model: the one way from a problem, or a row of training data, to the messages of a chat.

    prompting = prompting_of(stage.prompt, model)
    ids = chat.prompt_ids(prompting.prompt(problem, 0).messages)

    system            `system`, then what the problem's own row says
    user, assistant   each example
    user              `before`, the question, `after`

A model that was trained here keeps its prompt in `prompt.json` of its folder, and is asked in the same way wherever it is used,
unless another prompt is given. A model from elsewhere is asked for the form of the answer that the verifier reads.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from whetstone.model_files import PROMPT
from whetstone.model_folder import local_model
from whetstone.problems.columns import Columns
from whetstone.problems.files import find_files
from whetstone.problems.reading import Drop, Shipped, read_problem
from whetstone.problems.sets import find_set
from whetstone.problems.table import read_tables
from whetstone.records import PROGRAM_REQUEST, Message, Problem, Prompt
from whetstone.run.folder import MANIFEST, DamagedFile, read_json, write_json
from whetstone.run.mistakes import first_few
from whetstone.run.progress import say
from whetstone.run.prompt_settings import MOST_EXAMPLES, Example, ExampleFile, PromptSettings
from whetstone.verify.policy import get_policy

BOX_REQUEST = "Please reason step by step, and put your final answer within \\boxed{}."
LETTER_REQUEST = "Please reason step by step, and put the letter of your choice within \\boxed{}."
# A text that says itself how to answer. A box with something in it is an answer, not a request.
REQUESTED = re.compile(r"\\(?:boxed|fbox)(?!\s*\{\s*[^{}\s.…])|<answer>|####|[\"“'*]Answer:")
BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
SHOWN = 60  # characters of a text in a message


class Shot(NamedTuple):
    """An example."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompting:
    """What stands around a question. If `after` is None, the form of the answer that the problem's policy reads is asked for,
    unless the question, or what stands around it, asks for one itself or shows another.

    >>> [m.content for m in Prompting(system="Be brief.", before="Q: ", after="\\nA:").messages("1 + 1?")]
    ['Be brief.', 'Q: 1 + 1?\\nA:']
    """

    system: str = ""
    before: str = ""
    after: str | None = ""
    examples: tuple[Shot, ...] = ()
    thinking: bool | None = None  # the template's switch; None: its default

    def prompt(self, problem: Problem, index: int, request: str = "") -> Prompt:
        """For the problem's completion of this index. `request` follows the question, as PROGRAM_REQUEST."""
        messages = self.messages(problem.question + request, problem.system, problem.policy)
        return Prompt(problem.id, index, messages)

    def messages(
        self, question: str, system: str = "", policy: str = "math", answer: str | None = None
    ) -> tuple[Message, ...]:
        """The turns up to the question. `answer` is the one that is taught: without a box, none is asked for."""
        request = self._request(policy)
        start = "\n\n".join(filter(None, (self.system, system)))
        turns = [Message("system", start)] if start else []
        for shot in self.examples:
            turns += Message("user", self._around(shot.question, request)), Message("assistant", shot.answer)
        if question.endswith(PROGRAM_REQUEST):
            request = ""  # it asks for another form
        elif self.after is None:
            unfit = REQUESTED.search(f"{system}\0{question}") or not (answer is None or BOXED.search(answer))
            request = "" if unfit else request
        return (*turns, Message("user", self._around(question, request)))

    def _request(self, policy: str) -> str:
        """What follows a question that says nothing about the form of its answer."""
        if not self.requests:
            return self.after or ""
        return "\n\n" + (LETTER_REQUEST if get_policy(policy).kind == "choice" else BOX_REQUEST)

    @property
    def requests(self) -> bool:
        """Whether the form of an answer is asked for because nothing around the question asks for one or shows another."""
        said = REQUESTED.search(f"{self.system}\0{self.before}")
        return self.after is None and not said and all(BOXED.search(shot.answer) for shot in self.examples)

    def _around(self, question: str, after: str) -> str:
        return joined(joined(self.before, question), after)

    @property
    def bare(self) -> bool:
        """Whether a question is asked as it stands."""
        return self == Prompting()

    def for_teacher(self, instruction: str = BOX_REQUEST) -> "Prompting":
        """The prompt of a teacher. Its answers are verified, so it is asked for a box or a letter if nothing else is set."""
        if instruction == BOX_REQUEST:
            return replace(self, after=self.after or None)
        return replace(self, after=instruction and f"\n\n{instruction}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"examples": [shot._asdict() for shot in self.examples]}

    def summary(self, policy: str = "") -> dict[str, Any]:
        """`to_json` with the number and a hash of the examples in their place, for scores. With the policy of a problem set,
        `after` is the text that follows its questions.
        """
        shots = json.dumps(self.to_json()["examples"], sort_keys=True).encode()
        digest = {"examples_sha256": hashlib.sha256(shots).hexdigest()} if self.examples else {}
        after = self._request(policy) if policy or not self.requests else None
        return self.to_json() | {"after": after, "examples": len(self.examples)} | digest

    def in_words(self) -> str:
        """
        >>> Prompting(after=None, thinking=False).in_words()
        'a box or letter is asked for; thinking off'
        """
        return in_words(self.summary())

    def save(self, folder: Path) -> None:
        write_json(folder / PROMPT, self.to_json())


BARE, REQUESTING = Prompting(), Prompting(after=None)


def in_words(summary: Mapping[str, Any]) -> str:
    """What `Prompting.summary` says, in one line."""
    texts = {name: summary[name] for name in ("system", "before", "after")}
    words = [f"{name} {_short(text)!r}" for name, text in texts.items() if text]
    words += ["a box or letter is asked for"] * (summary["after"] is None)
    words += [f"{summary['examples']} example{'s' * (summary['examples'] > 1)}"] * (summary["examples"] > 0)
    words += [f"thinking {'on' if summary['thinking'] else 'off'}"] * (summary["thinking"] is not None)
    return "; ".join(words) or "the question alone"


def joined(one: str, other: str) -> str:
    """
    >>> joined("Solve:", "1 + 1?"), joined("Q: ", "1 + 1?"), joined("1 + 1?", "\\nA:")
    ('Solve:\\n1 + 1?', 'Q: 1 + 1?', '1 + 1?\\nA:')
    """
    apart = not one or not other or one[-1].isspace() or other[0].isspace()
    return one + ("" if apart else "\n") + other


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


# --- whose prompt it is


def prompting_of(given: PromptSettings, model: Path | str | None, unknown: Prompting = REQUESTING) -> Prompting:
    """The prompt for a model: what is given, and for the rest what the model was trained with, or `unknown` for a model from
    elsewhere. None is a model made from nothing.

    Raises ValueError or FileNotFoundError for examples that cannot be used, DamagedFile for a `prompt.json` that is no prompt.
    """
    prompting = stored_prompt(model, unknown)
    own = {name: getattr(given, name) for name in ("system", "before", "after", "thinking")}
    if given.examples is not None:
        own["examples"] = read_examples(given.examples)
    return replace(prompting, **{name: value for name, value in own.items() if value is not None})


def say_prompt(given: PromptSettings, model: Path | str, unknown: Prompting = REQUESTING) -> Prompting:
    """`prompting_of`, and says how the model is asked and where that comes from, unless it is asked the question alone."""
    prompting = prompting_of(given, model, unknown)
    stored = stored_prompt(model, BARE)
    origin = f" (from the model's {PROMPT}{' and the options' * bool(given.given())})" if not stored.bare else ""
    if not prompting.bare or not stored.bare:
        say(f"prompt: {prompting.in_words()}{origin}")
    return prompting


def stored_prompt(model: Path | str | None, unknown: Prompting = REQUESTING) -> Prompting:
    """The prompt that a model was trained with. Nothing is downloaded."""
    if model is None:
        return BARE
    folder = local_model(model)
    if folder is None:
        return unknown
    if (folder / PROMPT).is_file():
        return read_prompt(folder / PROMPT)
    older = (folder.parent / MANIFEST).exists()  # trained by a version that asked the question alone
    return BARE if older else unknown


def facts_of(given: PromptSettings, model: str | None) -> dict[str, Any]:
    """What the result of a stage depends on, by name: the settings that are given, the examples themselves, and that a model
    from elsewhere, `[model] path`, is asked for the form of its answers. Empty if a question is asked alone.
    """
    facts = {f"prompt.{name}": value for name, value in given.given().items()}
    if isinstance(given.examples, ExampleFile):
        try:
            shots = [shot._asdict() for shot in read_examples(given.examples)]
        except (OSError, ValueError):  # which is said before a stage runs
            shots = []
        facts["prompt.examples"] |= {"content": hashlib.sha256(json.dumps(shots).encode()).hexdigest()}
    if given.after is None and stored_prompt(model).after is None:
        facts["prompt.after"] = "a box or letter, by default"
    return facts


def read_prompt(path: Path) -> Prompting:
    """What `Prompting.save` wrote. Raises DamagedFile."""
    try:
        read = PromptSettings.model_validate(read_json(path, needed=["after"]))
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedFile(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if isinstance(read.examples, ExampleFile):
        raise DamagedFile(path, "its examples are a file, and a model's own are written out")
    shots = tuple(Shot(shot.question, shot.answer) for shot in read.examples or ())
    return Prompting(read.system or "", read.before or "", read.after, shots, read.thinking)


def read_examples(given: Sequence[Example] | ExampleFile) -> tuple[Shot, ...]:
    """Raises ValueError or FileNotFoundError for a file that does not hold them."""
    if not isinstance(given, ExampleFile):
        return tuple(Shot(example.question, example.answer) for example in given)
    layout = find_set(given.set) if given.set else Columns().layout()
    rows = list(islice(read_tables(find_files(given.file)), given.count or MOST_EXAMPLES + 1))
    if len(rows) > MOST_EXAMPLES:
        raise ValueError(f"{given.file}: an example file with more than {MOST_EXAMPLES} rows. Say how many: count = 4.")
    if len(rows) < max(given.count, 1):
        raise ValueError(f"{given.file} holds {len(rows)} rows, and {max(given.count, 1)} examples are wanted from it.")
    shots = []
    for name, line, row in rows:
        read = read_problem(row, line, layout, given.file, file=name)
        if isinstance(read, Drop):
            why = f"{read.reason}{read.detail and ': '}{read.detail}"
            raise ValueError(f"{given.file}, line {line}: no example, {why}. Mend the row, or name another file.")
        problem = read.problem if isinstance(read, Shipped) else read
        shots.append(Shot(problem.question, read.traces[0] if isinstance(read, Shipped) else problem.answer))
    return tuple(shots)


# --- examples and test problems

SIGNS = re.compile(r"[^\W_]+|[-+*/^=<>%×÷]")
NUMBER = re.compile(r"\d+")
LONG = 8  # words and signs from which a passage is a problem's own


def refuse_leaks(examples: Sequence[Shot], problems: Iterable[Problem]) -> None:
    """Raises ValueError if an example holds a test problem, and warns if it is one with other numbers."""
    if not examples:
        return
    found, alike = [], []
    texts = [(_signs(shot.question), f" {_signs(f'{shot.question} {shot.answer}')} ") for shot in examples]
    masked = {_masked(question): number for number, (question, _) in enumerate(texts, 1) if _is_long(question)}
    for problem in problems:
        asked = _signs(problem.question)
        found += [f"example {number} holds {problem.id}" for number in _holding(asked, texts)]
        if not found and _masked(asked) in masked:
            alike.append(f"example {masked[_masked(asked)]} and {problem.id}")
    if found:
        raise ValueError(
            f"[prompt] examples: {first_few(found, 3)}, a problem that is scored: its answer would be told. Take other "
            "examples, from training problems."
        )
    if alike:
        say(f"warning: [prompt] examples differ from problems that are scored in numbers only: {first_few(alike, 3)}")


def _holding(asked: str, texts: Sequence[tuple[str, str]]) -> Iterator[int]:
    """The numbers of the examples that hold the question, or that are a passage of it."""
    for number, (question, text) in enumerate(texts, 1):
        within = (_is_long(asked) and f" {asked} " in text) or (_is_long(question) and f" {question} " in f" {asked} ")
        if asked == question or within:
            yield number


def _signs(text: str) -> str:
    """Its words, numbers and operators, without case and punctuation."""
    return " ".join(SIGNS.findall(text.casefold()))


def _is_long(signs: str) -> bool:
    return signs.count(" ") + 1 >= LONG


def _masked(signs: str) -> str:
    return NUMBER.sub("0", signs)
