"""The in-process engine: continuous batching over a slot cache, for any model that `model.load` gives.

A step is: admit waiting prompts into free slots, run the model on one token of every live slot, pick tokens, finish.
Finished rows leave at once; when nobody waits, the last live slot moves into the hole, so that a step never computes a
row that is done. The prompt of a group is prefilled once and copied into the group's other slots.

The engine shares the module it is given: after a training step it samples from the new weights.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from whetstone import model as models
from whetstone.chat import Chat
from whetstone.decode.kv_cache import KVCache
from whetstone.decode.sampling import pick, uniforms
from whetstone.records import Completion, Prompt, Sampling

CACHE_BYTES = 1 << 30  # what the key/value cache may take; fewer slots when sequences are long


@dataclass(slots=True)
class _Sequence:
    prompt: Prompt
    prompt_ids: list[int]


class Engine:
    """A Generator over a transformers model in this process.

    `max_batch` sequences are decoded at once, fewer when their cache would take more than `cache_bytes`.
    """

    def __init__(self, model: Any, tokenizer: Any, max_batch: int = 256, cache_bytes: int = CACHE_BYTES):
        self.model = model
        self.chat = Chat(tokenizer)
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        config = model.config
        self._heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._cache: KVCache | None = None

    def _cache_for(self, slots: int, length: int) -> KVCache:
        weight = next(self.model.parameters())
        layers = self.model.config.num_hidden_layers
        room = self.cache_bytes // (KVCache.bytes_per_token(layers, self._heads, self._size, weight.dtype) * length)
        if room < 1:
            raise ValueError(
                f"one sequence of {length} tokens needs more than the cache's {self.cache_bytes >> 20} MiB: "
                "lower max_tokens, or give the engine more cache_bytes."
            )
        slots = min(slots, room)
        kept = self._cache
        if kept is None or kept.keys[0].shape[0] < slots or kept.length < length or kept.keys[0].dtype != weight.dtype:
            self._cache = KVCache(layers, slots, self._heads, length, self._size, weight.dtype, weight.device.type)
        return self._cache

    @torch.no_grad()
    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions as they finish. Prompts are taken in groups of the same problem, as they come.

        Raises ValueError when a prompt leaves no room in the model's context for `max_tokens`.
        """
        self.model.eval()
        waiting = [_Sequence(p, self.chat.prompt_ids(p.messages)) for p in prompts]
        if not waiting:
            return
        context = self.model.config.max_position_embeddings
        longest = max(len(s.prompt_ids) for s in waiting)
        if longest + sampling.max_tokens > context:
            raise ValueError(
                f"a prompt of {longest} tokens and max_tokens = {sampling.max_tokens} exceed the model's context of "
                f"{context}: lower max_tokens, or drop the prompt."
            )
        slots = min(self.max_batch, len(waiting))
        cache = self._cache_for(slots, longest + sampling.max_tokens)
        slots = min(slots, cache.keys[0].shape[0])
        device = next(self.model.parameters()).device
        waiting.reverse()
        live: list[_Sequence] = []
        n = sampling.max_tokens
        tokens = torch.zeros(slots, n, dtype=torch.long, device=device)
        logprobs = torch.zeros(slots, n, device=device)
        draws = torch.zeros(slots, n, device=device)
        made = torch.zeros(slots, dtype=torch.long, device=device)  # tokens sampled so far
        start = torch.zeros(slots, dtype=torch.long, device=device)  # prompt tokens
        stops = torch.tensor(self.chat.stops, device=device)
        while waiting or live:
            if waiting and len(live) < slots:
                first = len(live)
                logits = self._admit(cache, waiting, live, slots, draws, start, sampling)  # (new, V)
                rows = torch.arange(first, len(live), device=device)
                made[rows] = 0
            else:
                rows = torch.arange(len(live), device=device)
                at = start[rows] + made[rows] - 1  # where the last sampled token goes
                cache.extend(at)
                logits = self._logits(tokens[rows, made[rows] - 1], at, cache=cache)
            new, seen = pick(logits, draws[rows, made[rows]], sampling)
            tokens[rows, made[rows]], logprobs[rows, made[rows]] = new, seen
            made[rows] += 1
            ended = torch.isin(new, stops)
            over = (ended | (made[rows] == n)).nonzero()[:, 0]
            for i in reversed(over.tolist()):
                slot = int(rows[i])
                count = int(made[slot])
                ids = tokens[slot, :count].tolist()
                sequence = live[slot]
                yield Completion(
                    sequence.prompt.problem_id,
                    sequence.prompt.index,
                    self.chat.text(ids),
                    "end" if bool(ended[i]) else "length",
                    sequence.prompt_ids,
                    ids,
                    logprobs[slot, :count].tolist(),
                )
                last = len(live) - 1
                if slot != last:
                    cache.copy(last, slot, int(start[last] + made[last]))
                    for store in (tokens, logprobs, draws, made, start):
                        store[slot] = store[last]
                    live[slot] = live[last]
                live.pop()

    def _admit(
        self,
        cache: KVCache,
        waiting: list[_Sequence],
        live: list[_Sequence],
        slots: int,
        draws: torch.Tensor,
        start: torch.Tensor,
        sampling: Sampling,
    ) -> torch.Tensor:
        """Move waiting prompts into free slots: each distinct prompt is run once. Returns (new, V) logits of their ends."""
        first = len(live)
        while waiting and len(live) < slots:
            live.append(waiting.pop())
        groups = [list(g) for _, g in groupby(range(first, len(live)), key=lambda slot: live[slot].prompt_ids)]
        ids = [i for g in groups for i in live[g[0]].prompt_ids]
        lengths = [len(live[g[0]].prompt_ids) for g in groups]
        cache.fill([(g[0], length) for g, length in zip(groups, lengths, strict=True)])
        positions = torch.cat([torch.arange(length) for length in lengths])
        device = start.device
        ends = torch.tensor(lengths, device=device).cumsum(0) - 1
        logits = self._logits(
            torch.tensor(ids, device=device), positions.to(device), cache=cache, keep=ends
        )  # (groups, V)
        for group, length in zip(groups, lengths, strict=True):
            for slot in group:
                if slot != group[0]:
                    cache.copy(group[0], slot, length)
                start[slot] = length
                prompt = live[slot].prompt
                stream = uniforms(sampling.seed, prompt.problem_id, prompt.index, sampling.max_tokens)
                draws[slot] = torch.from_numpy(stream).to(device)
        which = torch.tensor([g for g, group in enumerate(groups) for _ in group], device=device)
        return logits[which]

    def _logits(
        self, ids: torch.Tensor, positions: torch.Tensor, cache: KVCache, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        hidden = models.hidden_states(self.model, ids[None], positions[None], cache=cache)[0]  # (T, C)
        if keep is not None:
            hidden = hidden[keep]
        weight = self.model.get_output_embeddings().weight[: self.chat.size]
        return hidden.float() @ weight.float().T


def load_engine(model: str | Path, device: str = "auto", max_batch: int = 256) -> Engine:
    """An engine over a model folder or hub name."""
    return Engine(*models.load(model, models.choose_device(device)), max_batch=max_batch)
