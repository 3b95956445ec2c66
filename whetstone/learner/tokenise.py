"""Conversations -> rows of ids on disk. A corpus is tokenised once, as a stream, and then read by index (token_store.py).

The stores are in the stage's `tokens/`. They are written aside and published by one rename, with a fingerprint of everything
they were made from. A resumed stage reads them; after a kill in the middle they are made again. A conversation that cannot be
trained on is counted, and listed in `dropped/` with the reason.
"""

import errno
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.chat import Chat
from whetstone.learner.token_store import TokenStore, TokenWriter
from whetstone.run.folder import Stage, alone, hash_folder, read_json, sync_folder, write_json
from whetstone.run.progress import progress, say
from whetstone.run.tables import TableWriter, count_rows, read_rows

FORMAT = 1  # of the stores; stores of another format are made again
CHUNK = 1 << 18  # characters (or given ids) tokenised together: enough for all cores, in some 25 MB of memory
CHUNK_ROWS = 1000  # most rows tokenised together
MADE_FROM = "made_from.json"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question and its answer from a row of a table. Their types are not checked yet.

    If a student sampled the ids, they are given and used as they are; the text is not tokenised again.
    """

    problem_id: str | None
    question: Any
    answer: Any
    split: str = "train"
    prompt_ids: Sequence[int] = ()
    answer_ids: Sequence[int] = ()

    @property
    def size(self) -> int:
        """Its length in characters, or in ids if these are given. It must have no fault."""
        return len(self.prompt_ids or self.question) + len(self.answer_ids or self.answer)

    @property
    def fault(self) -> str:
        """Why it cannot be trained on; empty if it can."""
        for name, text, ids in (("question", self.question, self.prompt_ids), ("answer", self.answer, self.answer_ids)):
            if ids:
                continue
            if text is None or (isinstance(text, str) and not text.strip()):
                return f"no {name}"
            if not isinstance(text, str):
                return f"its {name} is not text"
        return ""


@dataclass(frozen=True)
class Tokenised:
    """A store per split, and the number of conversations left out for each reason.

    Conversations that are too long stay in the store, so that the order of the others does not depend on the limit.
    `store.at_most(longest)` leaves them out.
    """

    stores: Mapping[str, TokenStore]
    left_out: Counter[str]

    def __getitem__(self, split: str) -> TokenStore:
        return self.stores[split]


def tokenise(
    stage: Stage, source: Path, chat: Chat, read: Callable[[dict[str, Any]], Conversation], longest: int,
    responses_only: bool = True, splits: Sequence[str] = ("train",),
) -> Tokenised:  # fmt: skip
    """The conversations of a table as ids, from `stage.folder/tokens` if they were made before.

    `read` makes a conversation of a row. With `responses_only` only answers are scored, else all ids but the first. Rows of
    more than `longest` tokens count as left out. If several processes train, one makes the stores and the others wait.
    """
    folder = stage.folder / "tokens"
    made_from = {
        "format": FORMAT,
        "source": hash_folder(source),
        "tokenizer": chat.fingerprint(),
        "settings": stage.settings.model_dump(mode="json"),
        "seed": stage.seed,
    }
    with alone(stage.folder / "tokens.lock"):
        tokenised = _published(folder, made_from, splits)
        if tokenised is None:
            total = count_rows(source)
            with _published_by_rename(folder) as aside, _Writing(aside, stage, chat, splits, total) as writing:
                writing.add(map(read, read_rows(source)), longest, responses_only)
                write_json(aside / MADE_FROM, {"made_from": made_from, "left_out": writing.left_out})
            tokenised = _published(folder, made_from, splits)
            assert tokenised is not None, f"{folder} was written and cannot be read"
    for reason, count in tokenised.left_out.items():
        say(f"{stage.name}: {count:,} conversations left out, {reason} (listed in {stage.folder / 'dropped'})")
    return tokenised


def _published(folder: Path, made_from: Mapping[str, Any], splits: Sequence[str]) -> Tokenised | None:
    if not (folder / MADE_FROM).exists():
        return None
    known = read_json(folder / MADE_FROM)
    if known["made_from"] != made_from:
        return None
    try:
        return Tokenised({split: TokenStore.open(folder / split) for split in splits}, Counter(known["left_out"]))
    except (OSError, ValueError) as error:
        say(f"{folder} is damaged and is made again: {error}")
        return None


class _Writing:
    """One pass over a table: writes the stores of its splits, and lists what is left out."""

    def __init__(self, folder: Path, stage: Stage, chat: Chat, splits: Sequence[str], total: int):
        self.stage, self.chat, self.total = stage, chat, total
        self.stores = {split: TokenWriter(folder / split, chat.size) for split in splits}
        self.dropped = TableWriter(stage.output("dropped"))
        self.left_out: Counter[str] = Counter()

    def __enter__(self) -> "_Writing":
        with ExitStack() as stack:
            for writer in (*self.stores.values(), self.dropped):
                stack.enter_context(writer)
            self.bar = stack.enter_context(progress(self.total, f"{self.stage.name}: tokenising", unit="conversations"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, conversations: Iterable[Conversation], longest: int, responses_only: bool) -> None:
        for chunk in _chunks(self._sound(conversations)):
            rows = encode(self.chat, [conversation for _, conversation in chunk])
            for (number, conversation), (question, answer) in zip(chunk, rows, strict=True):
                ids = [*question, *answer]
                self.stores[conversation.split].add(ids, len(question) if responses_only else 1)
                if len(ids) > longest:
                    self._drop(number, conversation, f"longer than {longest:,} tokens", f"{len(ids):,} tokens")
            self.bar.advance(len(chunk))

    def _sound(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, Conversation]]:
        for number, conversation in enumerate(conversations):
            fault, detail = conversation.fault, ""
            if not fault and conversation.split not in self.stores:
                fault, detail = f"its split is not {' or '.join(self.stores)}", f"split = {conversation.split!r}"
            if fault:
                self._drop(number, conversation, fault, detail)
                self.bar.advance(1)
            else:
                yield number, conversation

    def _drop(self, number: int, conversation: Conversation, reason: str, detail: str = "") -> None:
        """List a conversation as left out; `number` is the index of its row in the table."""
        self.left_out[reason] += 1
        self.dropped.add({"problem_id": conversation.problem_id, "row": number, "reason": reason, "detail": detail})


def _chunks(numbered: Iterable[tuple[int, Conversation]]) -> Iterator[list[tuple[int, Conversation]]]:
    chunk, size = [], 0
    for number, conversation in numbered:
        chunk.append((number, conversation))
        size += conversation.size
        if size >= CHUNK or len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def encode(chat: Chat, conversations: Sequence[Conversation]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """(question ids, answer ids) of each conversation: given ids as they are, all texts tokenised together."""
    questions = iter(chat.many_question_ids([c.question for c in conversations if not c.prompt_ids]))
    answers = iter(chat.completion_ids([c.answer for c in conversations if not c.answer_ids]))
    for c in conversations:
        yield c.prompt_ids or next(questions), c.answer_ids or next(answers)


@contextmanager
def _published_by_rename(folder: Path) -> Iterator[Path]:
    """A folder to write to, renamed to `folder` at the end. Raises OSError with the remedy if the disk is full."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            words = "no room left on the disk for the tokenised data: free some and run again, nothing else is lost"
            raise OSError(errno.ENOSPC, words, str(folder)) from error
        raise
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)
    sync_folder(folder.parent)
