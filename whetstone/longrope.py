"""LongRoPE (Ding et al. 2024, arXiv 2402.13753): one table of factors for a whole run.

A LongRoPE model (Phi-3 with 128k, Phi-4-mini) has two tables that scale its rotary embedding: `short_factor` up to the
context of its first training (4,096 tokens), `long_factor` beyond. transformers chooses one in every call, by the largest
position in the row. A short sequence that is packed beside a long one would get other logits, and a cache that grows past the
limit would be one of another model. So the table is chosen once, by the longest sequence of the run, and written into both
places of the configuration: transformers, vLLM and llama.cpp then use this table, whichever they choose.

The factor on the attention's logits (sqrt(1 + ln(s) / ln(original)), s = context / original) is the same for both tables in
Phi's classes. If a class has one per table (`short_mscale`, `long_mscale`), it goes with its table.
"""

from collections.abc import Iterator
from typing import Any

CHOSEN_FOR = "longrope_longest"  # key in config.json: the sequence length for which the table was chosen


def fix_table(config: Any, longest: int = 0) -> None:
    """Write the table for sequences of up to `longest` tokens into both places of the configuration.

    0 stands for the length that the model was trained with here, or else for its whole context. Raises ValueError if the
    weights were trained with the other table.
    """
    config = config.get_text_config()
    before = getattr(config, CHOSEN_FOR, None)
    longest = longest or before or config.max_position_embeddings
    for rope in tables(config):
        limit = rope.get("original_max_position_embeddings")
        if not isinstance(limit, int):
            raise ValueError(
                f"config.json: original_max_position_embeddings = {limit!r} of rope_parameters: LongRoPE needs a number of "
                "tokens. Take config.json from where the model came from."
            )
        if before is not None and (before > limit) != (longest > limit):
            raise ValueError(
                f"the model was trained with the LongRoPE table for sequences of up to {before:,} tokens, and this run has "
                f"sequences of up to {longest:,}: the table changes at {limit:,}. Train it again from the base with [model] "
                f"longest = {longest}, or keep [model] longest = {before}."
            )
        wanted, other = ("long_", "short_") if longest > limit else ("short_", "long_")
        for key in [key for key in rope if key.startswith(wanted)]:
            rope[key.replace(wanted, other)] = rope[key]
        setattr(config, CHOSEN_FOR, longest)


def tables(config: Any) -> Iterator[dict[str, Any]]:
    """The LongRoPE parameters of a configuration: none, one set, or one per type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in (rope, *(inner for inner in rope.values() if isinstance(inner, dict))):
        if parameters.get("rope_type") == "longrope":
            yield parameters
