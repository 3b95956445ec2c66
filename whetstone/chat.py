"""Text <-> ids, with the chat template.

A training row consists of prompt ids (with the template and its generation prompt), completion ids, and the end-of-turn id.
Ids that a student sampled are never made from text again: `Rollout.ids` go into rows as they are.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from whetstone.records import Message, Prompt
from whetstone.run.folder import hash_folder

END_OF_TURN = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def stops(tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a completion: end of turn, end of text."""
    known = tokenizer.get_vocab()
    turn = next((known[t] for t in END_OF_TURN if t in known), tokenizer.eos_token_id)
    return tuple(dict.fromkeys((turn, tokenizer.eos_token_id)))


class Chat:
    """A tokenizer with its chat template.

    `end` is the end-of-turn id; `stops` are all ids that end a completion. Ids from `size` on are unused slots of the
    embedding, neither sampled nor counted. `size` is the highest id plus one, not the number of tokens: Phi-4-mini has a gap
    before its special tokens.

    Raises ValueError if the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any):
        if not tokenizer.chat_template:
            raise ValueError(
                "the tokenizer has no chat template: take an instruct model, or add chat_template.jinja to its folder."
            )
        self.tokenizer = tokenizer
        self.stops = stops(tokenizer)
        self.end = self.stops[0]
        self.size = max(tokenizer.get_vocab().values()) + 1
        self._prompt_ids = lru_cache(20_000)(lambda messages: self._encode_prompts([messages])[0])

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to and including the generation prompt."""
        return list(self._prompt_ids(tuple(messages)))

    def question_ids(self, question: str) -> list[int]:
        return self.prompt_ids((Message("user", question),))

    def many_question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """`question_ids` of each question. They are encoded together, each different one once."""
        unique = list(dict.fromkeys(questions))
        ids = dict(zip(unique, self._encode_prompts([(Message("user", q),) for q in unique]), strict=True))
        return [ids[question] for question in questions]

    def _encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        if not prompts:
            return []
        texts = self.tokenizer.apply_chat_template(
            [[{"role": m.role, "content": m.content} for m in messages] for messages in prompts],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def completion_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of whole completions, each with the end-of-turn id, from which a model learns to stop."""
        if not texts:
            return []
        return [[*ids, self.end] for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def fingerprint(self) -> str:
        """A hash of everything that ids depend on: the tokenizer, its special tokens, its template."""
        with TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            return hash_folder(Path(folder))

    def ids(self, text: str) -> list[int]:
        """The ids of a part of a completion, for instance one that is inserted during decoding."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without the ids that end a completion."""
        return self.tokenizer.decode([i for i in ids if i not in self.stops], skip_special_tokens=False)


def ask(problem_id: str, question: str, index: int) -> Prompt:
    """A prompt with the question as its only turn."""
    return Prompt(problem_id, index, (Message("user", question),))
