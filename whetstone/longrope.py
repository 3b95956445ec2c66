"""LongRoPE (Ding et al. 2024, arXiv 2402.13753): one table of factors for a whole run.

A LongRoPE model (Phi-3 with 128k, Phi-4-mini) has two tables that stretch its rotary embedding: `short_factor` up to the
context it was first trained with (4,096 tokens), `long_factor` beyond. transformers chooses anew in every call, by the
largest position of the row: a short sequence packed beside a long one gets other logits, and a cache that grows past the
limit is that of another model. So the table is chosen once, from the longest sequence the run can see, and written into
both places of the configuration: whatever transformers, vLLM or llama.cpp choose then, they choose the same.

The factor on the attention's logits (sqrt(1 + ln(s) / ln(original)), s = context / original) is the same for both tables
in Phi's classes; where a class has one for each (`short_mscale`, `long_mscale`), it goes with its table.
"""

from collections.abc import Iterator
from typing import Any

CHOSEN_FOR = "longrope_longest"  # kept in config.json: the sequence length that the table was chosen for


def fix_table(config: Any, longest: int = 0) -> None:
    """Write the table for sequences of up to `longest` tokens into both places; 0: as it was trained, or the whole context.

    Raises ValueError when another was written before, by which the weights were trained.
    """
    config = config.get_text_config()
    before = getattr(config, CHOSEN_FOR, None)
    longest = longest or before or config.max_position_embeddings
    for rope in tables(config):
        limit = rope["original_max_position_embeddings"]
        if before is not None and (before > limit) != (longest > limit):
            raise ValueError(
                f"the model was trained with the LongRoPE table for sequences of up to {before:,} tokens, and this run has "
                f"up to {longest:,}: they lie on two sides of {limit:,}, where the table changes. Train it again from the "
                f"base with [model] longest = {longest}, or keep [model] longest = {before}."
            )
        wanted, other = ("long_", "short_") if longest > limit else ("short_", "long_")
        for key in [key for key in rope if key.startswith(wanted)]:
            rope[key.replace(wanted, other)] = rope[key]
        setattr(config, CHOSEN_FOR, longest)


def tables(config: Any) -> Iterator[dict[str, Any]]:
    """The LongRoPE parameters of a configuration: none, one set, or one for each type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    for one in (rope, *(inner for inner in rope.values() if isinstance(inner, dict))):
        if one.get("rope_type") == "longrope":
            yield one
