"""Text <-> ids, with the chat template.

A training row consists of prompt ids (with the template and its generation prompt) and answer ids, which end with the id that
ends the turn. Both are what transformers' `apply_chat_template` writes for the conversation, up to that id. If the template
leaves a part of the answer out, as those do that drop the thinking of past turns, the answer is taught as it stands.
Ids that a student sampled are never made from text again: `Rollout.ids` go into rows as they are.

**Ends.** What ends a turn is read off the template: the first of the tokenizer's own tokens after an assistant's answer. A
completion ends with that id, with the tokenizer's eos, or with one of the eos of generation_config.

**Thinking.** The prompts of some templates end with `<think>`. The text of a completion then begins with it,
so that whoever reads it sees whole thoughts; its ids are those that were sampled.

**Control tokens in data** (`<|end|>` in a question) are text, and are encoded as text. Only the template writes control ids.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from whetstone.base_templates import PLAIN
from whetstone.records import Message, Prompt
from whetstone.run.folder import hash_folder
from whetstone.template import DATE, Template, TemplateError, excerpt

OPEN, CLOSE = "<think>", "</think>"
OPENED = re.compile(rf"{OPEN}\s*\Z")
BEGUN = re.compile(rf"(?:{OPEN}\s*(?:{CLOSE}\s*)?|{CLOSE}\s*)\Z")  # what a prompt says of thinking: it is open, or over
THOUGHT = re.compile(rf"\s*{OPEN}(.*?){CLOSE}(.*)", re.DOTALL)

# The template has written bos. `model_max_length` is often wrong, and not what limits a text here: no warning
AS_RENDERED = {"add_special_tokens": False, "verbose": False}

# around a control token that stands in data; Unicode reserves these characters for such use inside a program
MARK, UNMARK = "\U0010fffe", "\U0010ffff"
MARKS = re.compile(f"[{MARK}{UNMARK}]")
SURROGATE = re.compile("[\ud800-\udfff]")
MARKED = re.compile(f"{MARK}([^{MARK}{UNMARK}]*){UNMARK}|{MARKS.pattern}")


class Exchange(NamedTuple):
    """Turns and the assistant's answer to them."""

    messages: Sequence[Message]
    answer: str


class Taught(NamedTuple):
    """The ids of an exchange. The answer's ids end with the end of the turn."""

    prompt_ids: list[int]
    answer_ids: list[int]


class Chat:
    """A tokenizer with its chat template.

    `end` is the id that ends a turn; `stops` are all ids that end a completion, `end` first. `opening` is the thinking that the
    generation prompt opens, "" if it opens none; `closed` says that it closes it too. Ids from `size` on are unused slots of
    the embedding, neither sampled nor counted. `size` is the highest id plus one, not the number of tokens: Phi-4-mini has a
    gap before its special tokens.

    `eos` is the model's own (generation_config): an id, several, or None. A tokenizer without a template gets a plain one:
    its own first tokens (bos), then each turn on a line.

    Raises TemplateError for a template that cannot be used, ValueError if nothing ends a turn.
    """

    def __init__(self, tokenizer: Any, eos: int | Sequence[int] | None = None):
        if not tokenizer.chat_template:
            tokenizer.chat_template = first_tokens(tokenizer) + PLAIN
        self.tokenizer = tokenizer
        self.template = Template(tokenizer)
        self.size = max(tokenizer.get_vocab().values()) + 1
        known = [i for i in (tokenizer.eos_token_id, *_ids_of(eos)) if i is not None and 0 <= i < self.size]
        self.end, self._before_end, self._after = self._end_of_turn(known)
        self.stops = tuple(dict.fromkeys((self.end, *known)))
        self._asked, self._answered = self._controls()
        prompt = self._rendered((Message("user", PROBE),))
        opened = OPENED.search(prompt)
        self.opening = opened[0] if opened else ""
        self.closed = not opened and BEGUN.search(prompt) is not None
        self._reasoning = self._takes_reasoning()
        # as an array: prompts with examples are long, and many are kept
        self._prompt_ids = lru_cache(20_000)(lambda messages: array("i", self._encode([self._rendered(messages)])[0]))

    # --- prompts

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to and including the generation prompt. Raises TemplateError."""
        return list(self._prompt_ids(tuple(messages)))

    def question_ids(self, question: str) -> list[int]:
        return self.prompt_ids((Message("user", question),))

    def _rendered(self, messages: Sequence[Message]) -> str:
        """The text of a prompt, with control tokens of the data marked."""
        return self._prompt([self._turn(message) for message in messages])

    def _prompt(self, turns: Sequence[dict[str, str]]) -> str:
        """Raises TemplateError, also if the template leaves out what is asked. It may leave out thoughts of past answers."""
        text = self.template.render(turns, prompt=True)
        written = _squashed(text)
        for turn in turns:
            if turn["role"] != "assistant" and _squashed(turn["content"]) not in written:
                role, content = turn["role"], excerpt(turn["content"])
                raise self.template.error(f"leaves out or changes what a turn of {role} says: {content!r}")
        return text

    def _turn(self, message: Message) -> dict[str, str]:
        controls = self._answered if message.role == "assistant" else self._asked
        content = MARKS.sub("", message.content)
        if half := SURROGATE.search(content):  # a terminal that is not UTF-8
            raise ValueError(f"a turn of {message.role} is not UTF-8: it holds {half[0]!a}. Write it again in UTF-8.")
        return {"role": message.role, "content": controls.sub(f"{MARK}\\g<0>{UNMARK}", content)}

    # --- rows

    def rows(self, exchanges: Sequence[Exchange]) -> list[Taught | str]:
        """The ids of each exchange, or why there are none: "reason: detail"."""
        parts = [self._parts(*exchange) for exchange in exchanges]
        texts = [text for part in parts if isinstance(part, tuple) for text in (part[0], "".join(part))]
        ids = dict(zip(unique := list(dict.fromkeys(texts)), self._encode(unique, strict=False), strict=True))
        return [part if isinstance(part, str) else self._taught(*part, ids) for part in parts]

    def _taught(self, prompt: str, answer: str, ids: dict[str, list[int] | str]) -> Taught | str:
        before, both = ids[prompt], ids[prompt + answer]
        if isinstance(before, str) or isinstance(both, str):
            return before if isinstance(before, str) else both
        apart = both[: len(before)] != before  # the last characters of the prompt would join the first of the answer
        return Taught(before, [*(self._encode([answer])[0] if apart else both[len(before) :]), self.end])

    def _parts(self, messages: Sequence[Message], answer: str) -> tuple[str, str] | str:
        """(prompt, answer) as texts, the answer up to the id that ends the turn; or why the template refuses them."""
        whole = self._turn(Message("assistant", with_opening(answer)))
        thought = THOUGHT.fullmatch(whole["content"]) if self._reasoning else None
        final = whole | {"reasoning_content": thought[1], "content": thought[2]} if thought else whole
        turns = [self._turn(message) for message in messages]
        try:
            prompt = self._prompt(turns)
            full = self.template.render([*turns, final], prompt=False)
        except TemplateError as error:
            return f"the chat template refuses it: {error}"
        prompt, body = self._as_rendered(prompt, full, whole["content"]) or self._as_it_stands(prompt, whole["content"])
        return prompt, body + self._before_end

    def _as_rendered(self, prompt: str, full: str, answer: str) -> tuple[str, str] | None:
        """The template's own text of the answer; None if that is not whole, or does not follow the prompt."""
        for before in (prompt, self._before_thinking(prompt)):
            if full.startswith(before) and full.endswith(self._after):
                body = full[len(before) : len(full) - len(self._after)]
                said = (self.opening if before is prompt else "") + body
                if _squashed(answer) in _squashed(said):
                    return before, body
        return None

    def _as_it_stands(self, prompt: str, answer: str) -> tuple[str, str]:
        thinks = answer.lstrip().startswith(OPEN)
        if thinks and self.opening:
            answer = answer.lstrip()
            rest = answer.removeprefix(self.opening)
            return prompt, rest if rest != answer else answer[len(OPEN) :].lstrip()
        return self._before_thinking(prompt) if thinks or self.opening else prompt, answer

    def _before_thinking(self, prompt: str) -> str:
        return BEGUN.sub("", prompt) if self.opening or self.closed else prompt

    # --- completions

    def ids(self, text: str) -> list[int]:
        """The ids of a part of a completion, for instance one that is inserted during decoding."""
        return self.tokenizer.encode(text, **AS_RENDERED)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without the ids that end a completion."""
        kept = [i for i in ids if i not in self.stops]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def completion(self, ids: Sequence[int]) -> str:
        """The text of a whole completion, with the thinking that its prompt opened."""
        return self.opening + self.text(ids)

    def fingerprint(self) -> str:
        """A hash of everything that ids depend on: the tokenizer, its special tokens, its template, its ends, the date."""
        with TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            return f"{hash_folder(Path(folder))}, ends {list(self.stops)}, on {DATE:%Y-%m-%d}"

    # --- encoding

    def _encode(self, texts: Sequence[str], strict: bool = True) -> list[Any]:
        """The ids of each rendered text, in which control tokens of the data are marked.

        If one cannot be written as text, raises ValueError; if not `strict`, gives the reason in its place.
        """
        plain = [text for text in texts if not MARKS.search(text)]
        encoded = iter(self.tokenizer(plain, **AS_RENDERED)["input_ids"] if plain else [])
        ids = [self._encode_marked(text) if MARKS.search(text) else next(encoded) for text in texts]
        if strict and (why := next((i for i in ids if isinstance(i, str)), "")):
            raise ValueError(f"a prompt cannot be encoded: {why}")
        return ids

    def _encode_marked(self, text: str) -> list[int] | str:
        """Part by part: a marked token in two parts, of which neither is the token."""
        ids: list[int] = []
        at = 0
        for match in MARKED.finditer(text):
            part = text[at : match.start()]
            ids += self._following(part) if at else self.ids(part)
            token = match[1] or ""
            written = [*self._following(token[:1]), *self._following(token[1:])]
            if set(written) & self.tokenizer.added_tokens_decoder.keys():
                return f"a control token that this tokenizer cannot write as text: {token!r}"
            ids += written
            at = match.end()
        return ids + self._following(text[at:])

    def _following(self, text: str) -> list[int]:
        """The ids of a text in the middle of another: SentencePiece puts a space before a text that is alone."""
        newline, both = self.ids("\n"), self.ids("\n" + text)
        return both[len(newline) :] if both[: len(newline)] == newline else self.ids(text)

    # --- what the template and the tokenizer say

    def _controls(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """What finds control tokens in what a model is asked, and in what it answers.

        Those are the special tokens, and added tokens that the template writes or that look like `<|end|>`. An answer may
        have the thinking's tokens, and those for tools.
        """
        asked, answered = [], []
        known = {*self.tokenizer.all_special_ids, *self.stops}
        for number, token in self.tokenizer.added_tokens_decoder.items():
            name = token.content
            control = token.special or number in known or re.fullmatch(r"<[|｜].*[|｜]>", name) is not None
            written = not name[:1].isalnum() and name in self.template.source
            if (control or written) and not name.isspace():
                asked.append(name)
                if control and name not in (OPEN, CLOSE):
                    answered.append(name)
        return _any_of(asked), _any_of(answered)

    def _end_of_turn(self, known: Sequence[int]) -> tuple[int, str, str]:
        """(the id that ends a turn, what the template writes between an answer and it, all that it writes after an answer).

        A token that also stands between two turns is preferred (gpt-oss and Phi-4-mini end the last one in another way), and
        one of the `known` ids that end a text. If a turn ends with no token, the tokenizer's eos ends it.
        """
        user, answer = ({"role": role, "content": PROBE} for role in ("user", "assistant"))
        after = self._after_answer([user, answer])
        try:
            between = self._after_answer([user, answer, user | {"content": "2"}])
        except TemplateError:
            between = after
        common = next((i for i, (a, b) in enumerate(zip(after, between, strict=False)) if a != b), len(after))
        for text in (after[:common], after):
            found = list(self._tokens_in(text))
            for number, start in [*(f for f in found if f[0] in known), *found]:
                return number, text[:start], after
        if not known:
            raise ValueError(
                f"nothing ends a turn of {self.template.name}: its template writes no token after an answer, and the "
                "tokenizer has no eos token. Set eos_token in tokenizer_config.json."
            )
        return known[0], "", after

    def _after_answer(self, turns: Sequence[dict[str, str]]) -> str:
        text = self.template.render(turns, prompt=False)
        places = [match.end() for match in re.finditer(re.escape(PROBE), text)]
        if len(places) != 2:
            raise self.template.error(f"does not write a question and its answer once each, but {excerpt(text)!r}")
        return text[places[1] :]

    def _tokens_in(self, text: str) -> Iterator[tuple[int, int]]:
        """(id, place) of the added tokens in a text, except white space."""
        names = {token.content: number for number, token in self.tokenizer.added_tokens_decoder.items()}
        pattern = _any_of([name for name in names if not name.isspace()])
        return ((names[match[0]], match.start()) for match in pattern.finditer(text))

    def _takes_reasoning(self) -> bool:
        """Whether the template writes a turn's `reasoning_content`."""
        answer = {"role": "assistant", "content": PROBE, "reasoning_content": THINKING_PROBE}
        try:
            return THINKING_PROBE in self.template.render([{"role": "user", "content": PROBE}, answer], prompt=False)
        except TemplateError:
            return False


PROBE, THINKING_PROBE = "How many 7s?", "Count them."  # text that no template writes itself


def _ids_of(eos: Any) -> list[int]:
    """The eos of a generation_config: an id, several, or None. Raises ValueError for another value."""
    ids = list(eos) if isinstance(eos, list | tuple) else [] if eos is None else [eos]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ValueError(f"generation_config: eos_token_id = {eos!r} is neither an id nor a list of ids. Correct it.")
    return ids


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    """Finds any of these strings, of several at one place the longest."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def _squashed(text: str) -> str:
    return "".join(text.split())


def first_tokens(tokenizer: Any) -> str:
    """What the tokenizer itself writes before a text, as the beginning of a template."""
    bos = tokenizer.bos_token
    return "{{ bos_token }}" if bos and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else ""


def with_opening(completion: str) -> str:
    """A completion whose thinking only closes, because its prompt opened it, with the opening.

    >>> with_opening("2 + 3 = 5</think>5")
    '<think>\\n2 + 3 = 5</think>5'
    """
    before, closed, _ = completion.partition(CLOSE)
    return f"{OPEN}\n{completion.lstrip()}" if closed and OPEN not in before else completion


def ask(problem_id: str, question: str, index: int, system: str = "") -> Prompt:
    """A prompt with the question as its only turn, after the system's if there is one."""
    start = (Message("system", system),) if system else ()
    return Prompt(problem_id, index, (*start, Message("user", question)))
