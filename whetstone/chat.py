"""Text <-> ids, and which ids the model itself wrote: the one place that knows the chat template.

A training row is prompt ids (template, generation prompt included), completion ids, and the end-of-turn id. What a student
sampled is never tokenised again: `Rollout.ids` go into rows as they are.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from whetstone.records import Message, Prompt
from whetstone.run.folder import hash_folder

END_OF_TURN = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def stops(tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a completion: the one that closes the assistant's turn, and the end of text."""
    known = tokenizer.get_vocab()
    turn = next((known[t] for t in END_OF_TURN if t in known), tokenizer.eos_token_id)
    return tuple(dict.fromkeys((turn, tokenizer.eos_token_id)))


class Chat:
    """A tokenizer with its chat template.

    `end` is the id that closes the assistant's turn; `stops` are all ids that end a completion. Ids from `size` on are
    unused slots of the embedding: neither sampled nor counted. `size` is the highest id and one, not the number of tokens:
    Phi-4-mini's special tokens lie behind a gap.
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
        self._prompts: dict[tuple[Message, ...], list[int]] = {}

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to and including the generation prompt."""
        key = tuple(messages)
        if key not in self._prompts:
            if len(self._prompts) > 20_000:
                self._prompts.clear()
            (self._prompts[key],) = self._encode_prompts([key])
        return list(self._prompts[key])

    def question_ids(self, question: str) -> list[int]:
        return self.prompt_ids((Message("user", question),))

    def many_question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """`question_ids` of each, encoded together: for a corpus. Rollouts of one question follow each other there."""
        once = list(dict.fromkeys(questions))
        known = dict(zip(once, self._encode_prompts([(Message("user", q),) for q in once]), strict=True))
        return [known[question] for question in questions]

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
        """Ids of whole completions, each closed with the end of turn: a model learns to stop from that id."""
        if not texts:
            return []
        return [[*ids, self.end] for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def fingerprint(self) -> str:
        """A hash of all that ids depend on: the tokenizer, its special tokens and template."""
        with TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            return hash_folder(Path(folder))

    def ids(self, text: str) -> list[int]:
        """Of a piece of a completion, for instance one that is forced upon it."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def text(self, ids: Sequence[int]) -> str:
        """What was written, without the end of turn."""
        return self.tokenizer.decode([i for i in ids if i not in self.stops], skip_special_tokens=False)


def ask(problem_id: str, question: str, index: int) -> Prompt:
    """A question as the one user turn of a prompt."""
    return Prompt(problem_id, index, (Message("user", question),))
