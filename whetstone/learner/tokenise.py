"""Conversations -> rows of ids on disk. A corpus is tokenised once, as a stream, and then read by index (token_store.py).

The stores are in the stage's `tokens/`. They are written aside and published by one rename, with a fingerprint of everything
they were made from. A resumed stage reads them; after a kill in the middle they are made again. A conversation that cannot be
trained on is counted, and listed in `dropped/` with the reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whetstone.chat import Chat, Exchange, Taught
from whetstone.learner.conversation import Conversation, read_conversation
from whetstone.learner.token_store import TokenStore, TokenWriter
from whetstone.prompting import BARE, Prompting
from whetstone.run.disk import disk_full_explained
from whetstone.run.folder import Stage, alone, hash_folder, published, read_json, write_json
from whetstone.run.progress import progress, say
from whetstone.run.tables import TableWriter, count_rows, read_rows

FORMAT = 2  # of the stores; stores of another format are made again
CHUNK = 1 << 18  # characters (or given ids) tokenised together: enough for all cores, in some 25 MB of memory
CHUNK_ROWS = 1000  # most rows tokenised together
MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class Tokenised:
    """A store per split, the number of conversations left out for each reason, and the longest that is used.

    Conversations that are too long stay in the store, so that the order of the others does not depend on the limit.
    `store.at_most(longest)` leaves them out.
    """

    stores: Mapping[str, TokenStore]
    left_out: Counter[str]
    longest: int  # tokens

    def __getitem__(self, split: str) -> TokenStore:
        return self.stores[split]

    def refuse_empty(self, stage: Stage, source: Path) -> None:
        """Raises ValueError if no conversation for training is left."""
        store = self.stores["train"]
        if len(store.at_most(self.longest)):
            return
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.most_common())
        reasons = reasons or "nothing; it has no row for training"
        longer = f" Raise max_length: the shortest has {store.lengths.min():,} tokens." if len(store) else ""
        if self.longest < stage.settings.max_length:
            longer = longer.replace("Raise max_length", "Take a model with a longer context")
        raise ValueError(
            f"{stage.name} has nothing to train on: no conversation of {source} can be used. Left out: "
            f"{reasons} (listed in {stage.folder / 'dropped'}).{longer} See also what the "
            f"stage that wrote {source} left out, and why: its dropped/."
        )


def tokenise(
    stage: Stage, source: Path, chat: Chat, read: Callable[[dict[str, Any]], Conversation] = read_conversation,
    responses_only: bool = True, splits: Sequence[str] = ("train",), context: int | None = None, prompting: Prompting = BARE,
) -> Tokenised:  # fmt: skip
    """The conversations of a table as ids, from `stage.folder/tokens` if they were made before.

    `read` makes a conversation of a row. With `responses_only` only answers are scored, else all ids but the first, and but the
    system text and examples of `prompting`, which all rows begin with. Rows of
    more tokens than the stage's `max_length`, or than the model's `context`, count as left out. If several processes train, one
    makes the stores and the others wait.
    """
    folder = stage.folder / "tokens"
    most = stage.settings.max_length
    longest = min(most, context or most)
    made_from = {
        "format": FORMAT,
        "source": hash_folder(source),
        "tokenizer": chat.fingerprint(),
        "settings": stage.settings.model_dump(mode="json"),
        "seed": stage.seed,
        "longest": longest,
        "prompt": prompting.to_json(),
    }
    with alone(stage.folder / "tokens.lock"):
        tokenised = _published(folder, made_from, splits)
        if tokenised is None:
            with (
                disk_full_explained("the tokenised data", stage.folder),
                published(folder) as aside,
                ExitStack() as open_files,
            ):
                stores = {s: open_files.enter_context(TokenWriter(aside / s, chat.size)) for s in splits}
                dropped = open_files.enter_context(TableWriter(stage.output("dropped")))
                bar = progress(count_rows(source), f"{stage.name}: tokenising", unit="conversations")
                writing = _Writing(longest, chat, prompting, stores, dropped, open_files.enter_context(bar))
                writing.add(map(read, read_rows(source)), responses_only)
                write_json(aside / MADE_FROM, {"made_from": made_from, "left_out": writing.left_out})
            tokenised = _published(folder, made_from, splits)
            assert tokenised is not None, f"{folder} was written and cannot be read"
    for reason, count in tokenised.left_out.items():
        say(f"{stage.name}: {count:,} conversations left out, {reason} (listed in {stage.folder / 'dropped'})")
    return tokenised


def _published(folder: Path, made_from: Mapping[str, Any], splits: Sequence[str]) -> Tokenised | None:
    if not (folder / MADE_FROM).exists():
        return None
    try:
        known = read_json(folder / MADE_FROM, needed=["made_from", "left_out"])
        if known["made_from"] != made_from:
            return None
        stores = {split: TokenStore.open(folder / split) for split in splits}
        return Tokenised(stores, Counter(known["left_out"]), made_from["longest"])
    except (OSError, ValueError) as error:
        say(f"{folder} is damaged and is made again: {error}")
        return None


@dataclass
class _Writing:
    """One pass over a table: writes the stores of its splits, and lists what is left out."""

    longest: int  # tokens of a row
    chat: Chat
    prompting: Prompting
    stores: Mapping[str, TokenWriter]
    dropped: TableWriter
    bar: Any
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, conversations: Iterable[Conversation], responses_only: bool) -> None:
        shared = len(shared_start(self.chat, self.prompting))
        for chunk in _chunks(self._sound(conversations)):
            rows = encode(self.chat, [conversation for _, conversation in chunk], self.prompting)
            for (number, conversation), row in zip(chunk, rows, strict=True):
                if isinstance(row, str):
                    reason, _, detail = row.partition(": ")
                    self._drop(number, conversation, reason, detail)
                    continue
                question, answer = row
                ids = [*question, *answer]
                scored = len(question) if responses_only else max(1, min(shared, len(question)))  # from this id on
                self.stores[conversation.split].add(ids, scored)
                if len(ids) > self.longest:
                    self._drop(number, conversation, f"longer than {self.longest:,} tokens", f"{len(ids):,} tokens")
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


def shared_start(chat: Chat, prompting: Prompting) -> list[int]:
    """The ids that all prompts begin with because of a system text or examples; [] without these."""
    if not (prompting.system or prompting.examples):
        return []
    one, other = (chat.prompt_ids(prompting.messages(question)) for question in ("1", "2"))
    return one[: next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)]


def encode(chat: Chat, conversations: Sequence[Conversation], prompting: Prompting = BARE) -> Iterator[Taught | str]:
    """The ids of each conversation: given ids as they are, all texts tokenised together. A text: why it has none."""
    texts = iter(chat.rows([Exchange(c.turns(prompting), c.answer) for c in conversations if not c.answer_ids]))
    for c in conversations:
        yield Taught(list(c.prompt_ids), list(c.answer_ids)) if c.answer_ids else next(texts)
