"""GSM8K as the work of the training benchmarks on a pretrained model, in place of `_ragged`'s rows and random model."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks._real import problems

Ids = list[int]


@dataclass(frozen=True)
class Gsm8k:
    """The model in `folder` and GSM8K's training problems in its own template. It has the functions of `_ragged`."""

    folder: Path
    LONGEST = 1024

    def write_folder(self, folder: Path) -> Path:
        """The model's folder, which is there already."""
        return self.folder

    def model(self, attention: str) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.folder, dtype="float32", attn_implementation=attention)

    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    def conversations(self, count: int) -> list[tuple[Ids, Ids]]:
        """(ids of the prompt, ids of the answer), the answer's end of turn included."""
        from whetstone.chat import Exchange
        from whetstone.records import Message

        rows = problems(count, "train")
        taught = self._chat.rows([Exchange((Message("user", row["question"]),), row["answer"]) for row in rows])
        return [(list(row.prompt_ids), list(row.answer_ids)) for row in taught if not isinstance(row, str)]

    def pairs(self, count: int) -> list[tuple[Ids, Ids, Ids]]:
        """(prompt, chosen, rejected): the problem's own solution, and the next problem's."""
        rows = self.conversations(count)
        return [(*row, rows[(i + 1) % len(rows)][1]) for i, row in enumerate(rows)]

    def questions(self, count: int) -> list[str]:
        return [row["question"] for row in problems(count, "train")]

    @cached_property
    def _chat(self) -> Any:
        from whetstone.model import load_chat

        return load_chat(self.folder)[0]


def answer_share(work: Gsm8k, count: int = 400) -> float:
    """The share of a row's tokens that the head is needed for: those of the answer."""
    rows = work.conversations(count)
    return sum(len(answer) for _, answer in rows) / sum(len(prompt) + len(answer) for prompt, answer in rows)


def products(config: dict[str, Any]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """(inputs, outputs) of a Llama-class model's matrix products in the forward pass of a token: all layers', the head's."""
    hidden, mlp, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    keys = config["num_key_value_heads"] * size
    layer = [
        (hidden, heads * size), (hidden, keys), (hidden, keys), (heads * size, hidden),
        (hidden, mlp), (hidden, mlp), (mlp, hidden),
    ]  # fmt: skip
    return layer * config["num_hidden_layers"], (hidden, config["vocab_size"])
