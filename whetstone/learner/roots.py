"""The root modules: what a learner calls. Each gives numbers per token, never logits.

The head is used inside the root's forward, so that a wrapper around the root (FSDP2) sees one call. The root of a student with
a teacher is in divergence.py.

Letters: T tokens of a micro-batch, N of them scored, C hidden width, V vocabulary.
"""

from typing import Any

import torch

from whetstone.attention import Segments, half_precision
from whetstone.batch import Batch
from whetstone.learner.head import chunked_logprobs
from whetstone.model import hidden_states
from whetstone.run.cpu import has_bf16_vectors


class Policy(torch.nn.Module):
    """The root module: a causal model whose forward returns log-probabilities of given tokens, never logits.

    The head is used inside this forward, chunk by chunk, so that a wrapper around the root (FSDP2) sees one call.
    """

    def __init__(self, model: Any, vocabulary: int):
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary  # ids from here on are unused slots: neither sampled nor counted

    def forward(self, batch: Batch, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each scored token, (N,) each, at the temperature it is or was sampled with.

        The temperature is one number, or (N,).
        """
        return self.of_hidden(last_hidden(self.model, batch)[batch.scored], batch, temperature)

    def of_hidden(
        self, hidden: torch.Tensor, batch: Batch, temperature: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the scored tokens' hidden states (N, C)."""
        if not torch.is_tensor(temperature):
            temperature = torch.full_like(batch.weights, temperature)
        products = head_products(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            weight = self.model.get_output_embeddings().weight
            if self.vocabulary < len(weight):  # a slice's gradient costs a copy
                weight = weight[: self.vocabulary]  # (V, C)
            return chunked_logprobs(hidden, weight, batch.targets, temperature, products=products)


def head_products(hidden: torch.Tensor) -> torch.dtype | None:
    """bfloat16 if the head's products are computed in it; float16's range would lose gradients."""
    if hidden.is_cuda:
        return torch.bfloat16 if half_precision(hidden) is torch.bfloat16 else None
    wanted = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return torch.bfloat16 if wanted and has_bf16_vectors() else None


class Critic(torch.nn.Module):
    """The root module with a scalar head: a transformers model for sequence classification with one label.

    It gives a value per position, of the text up to and including that token. `values[batch.scored]` are the values of the
    states in which scored tokens were chosen (PPO's critic); `values[batch.ends]` judge whole texts (a reward model).
    """

    def __init__(self, model: Any, vocabulary: int = 0):
        super().__init__()
        if getattr(model, "score", None) is None or model.score.weight.shape[0] != 1:
            name = type(model).__name__
            raise ValueError(f"{name} has no scalar head: use a model for sequence classification with num_labels = 1.")
        self.model = model

    def forward(self, batch: Batch, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor]:
        """The value at each position, in fp32 at least: (T,). The temperature is not used."""
        hidden = last_hidden(self.model, batch)  # (T, C)
        with torch.autocast(hidden.device.type, enabled=False):
            wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
            return (hidden.to(wide) @ self.model.score.weight[0].to(wide),)


class PolicyAndValue(Policy):
    """The root module of a policy that is its own critic: a second head gives the values of states, from the same layers.

    The head `value_head` is trained and in checkpoints with the model, and is no part of what is published or saved as a model.
    It begins at 0: so does every value, and no gradient of values reaches the layers before the head has learnt.
    """

    def __init__(self, model: Any, vocabulary: int):
        super().__init__(model, vocabulary)
        weight = model.get_output_embeddings().weight
        model.value_head = torch.nn.Linear(weight.shape[1], 1, bias=False).to(weight.device, weight.dtype)
        torch.nn.init.zeros_(model.value_head.weight)

    def forward(self, batch: Batch, temperature: float | torch.Tensor = 1.0) -> tuple[torch.Tensor, ...]:
        """Log-probability and entropy of each scored token, and the value of the state it was chosen in: (N,) each."""
        hidden = last_hidden(self.model, batch)[batch.scored]  # (N, C)
        logprobs, entropy = self.of_hidden(hidden, batch, temperature)
        with torch.autocast(hidden.device.type, enabled=False):
            values = hidden.to(logprobs.dtype) @ self.model.value_head.weight[0].to(logprobs.dtype)
        return logprobs, entropy, values


def last_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """The hidden states below the head: (T, C)."""
    segments = Segments(batch.lengths, batch.ids.device, batch.shared)
    return hidden_states(model, batch.ids, batch.positions, lengths=segments)[0]
