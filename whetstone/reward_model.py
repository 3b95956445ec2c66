"""A reward model: a language model whose head gives one number for a whole answer.

    model = with_scalar_head(causal, seed)               # to be trained (reward/train.py)
    score = RewardModel.load("runs/rlhf/04-reward/reward_model")
    score(problem, "… so \\boxed{5}")                     # a Scorer: for RL, best of n, pairs

It is transformers' model for sequence classification with one label. The number is the head's value at the answer's last id,
the end of the turn (Stiennon et al. 2020, arXiv 2009.01325). An outcome verifier (Cobbe et al. 2021, arXiv 2110.14168) is the
same model: its number is the logarithm of the odds that the answer is right.

Letters: C hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForSequenceClassification

from whetstone import model as models
from whetstone.attention import ATTENTION
from whetstone.batch import Row
from whetstone.chat import Chat, Exchange
from whetstone.learner.learner import Learner
from whetstone.prompting import BARE, Prompting, stored_prompt
from whetstone.records import Problem, Rollout
from whetstone.run.settings import ParallelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_scalar_head(causal: "PreTrainedModel", chat: Chat, seed: int) -> "PreTrainedModel":
    """The causal model's layers below a head of one row, which starts at random: N(0, 1/(C + 1)).

    The layers are the causal model's own, not a copy. Raises ValueError if transformers has no such class for the model.
    """
    config = type(causal.config).from_dict(causal.config.to_dict())
    config.num_labels, config.pad_token_id = 1, _padding(chat)
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, attn_implementation=ATTENTION)
        weight = model.score.weight
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{type(causal).__name__} cannot be a reward model: transformers has no class of this kind for sequence "
            f"classification with a head `score`. Use {models.USUAL}."
        ) from error
    width = weight.shape[1]
    generator = torch.Generator().manual_seed(seed)
    model.score = torch.nn.Linear(width, 1, bias=False)
    with torch.no_grad():
        model.score.weight.normal_(std=(width + 1) ** -0.5, generator=generator)
    model.score.to(causal.device, causal.dtype)
    setattr(model, model.base_model_prefix, causal.base_model)
    return model


def _padding(chat: Chat) -> int | None:
    """An id for padding that does not end a turn: transformers reads the value at the last id that is no padding."""
    tokenizer = chat.tokenizer
    ids = [tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids]
    return next((i for i in ids if i is not None and i != chat.end), None)


@dataclass(frozen=True)
class RewardModel:
    """A Scorer, and a reward for rollouts. It is never updated."""

    learner: Learner
    chat: Chat
    source: str
    prompting: Prompting = BARE  # as it was trained

    @classmethod
    def load(cls, folder: Path | str, parallel: ParallelSettings, dtype: str = "float32") -> "RewardModel":
        """Raises FileNotFoundError or ValueError if the folder holds no whole reward model."""
        model, tokenizer = models.load_scalar(folder, models.choose_device(parallel.device), dtype)
        chat = Chat(tokenizer, model.config.eos_token_id)
        return cls(Learner(model.requires_grad_(False), chat.size, parallel), chat, str(folder), stored_prompt(folder))

    def __call__(self, problem: Problem, completion: str) -> float:
        return self.of_texts([(problem, completion)])[0]

    def of_texts(self, answers: Sequence[tuple[Problem, str]]) -> list[float]:
        """The number of each answer. Raises ValueError if the chat template refuses one."""
        exchanges = [Exchange(self.prompting.prompt(problem, 0).messages, text) for problem, text in answers]
        return self.of_rows([row for row in answer_rows(self.chat, exchanges, strict=True) if isinstance(row, Row)])

    def of_rollouts(self, rollouts: Sequence[Rollout]) -> list[float]:
        """The number of each rollout, from the ids that were sampled. They must be of this model's vocabulary."""
        return self.of_rows([Row([*r.prompt_ids, *r.ids], len(r.prompt_ids)) for r in rollouts])

    def of_group(self, problem: Problem, group: Sequence[Rollout], chat: Chat) -> list[float]:
        """The number of each rollout of a problem that was sampled in `chat`: from its ids where they are this model's."""
        if self.fits(chat):
            return self.of_rollouts(group)
        return self.of_texts([(problem, rollout.text) for rollout in group])

    def of_rows(self, rows: list[Row]) -> list[float]:
        return self.learner.row_values(rows)

    def fits(self, chat: Chat) -> bool:
        """Whether sampled ids of this chat can be scored as they are."""
        return self.chat.fingerprint() == chat.fingerprint()


def answer_rows(chat: Chat, exchanges: Sequence[Exchange], strict: bool = False) -> list[Row | str]:
    """A row of each exchange, or why there is none. If `strict`, raises ValueError instead."""
    rows = [
        taught if isinstance(taught, str) else Row([*taught.prompt_ids, *taught.answer_ids], len(taught.prompt_ids))
        for taught in chat.rows(exchanges)
    ]
    if strict and (why := next((row for row in rows if isinstance(row, str)), "")):
        raise ValueError(f"an answer cannot be scored: {why}")
    return rows
