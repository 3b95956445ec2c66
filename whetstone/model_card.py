"""The model card of a folder that is written here: what a stranger must know to use it as it was scored."""

from typing import TYPE_CHECKING, Any

from whetstone.chat import Chat
from whetstone.model_gguf import ORIGIN
from whetstone.prompting import PROMPT, Prompting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CARD = "README.md"
QUESTION = "What is 12 + 30 - 7?"
HEAD = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- whetstone\n---\n\n"


def model_card(model: "PreTrainedModel", tokenizer: Any) -> str:
    """Markdown, with the table at its head that the Hub reads."""
    facts = "".join(f"- {fact}.\n" for fact in _facts(model, tokenizer))
    return HEAD + "# A model written by Whetstone\n\n" + facts + _prompt(model, tokenizer)


def _prompt(model: "PreTrainedModel", tokenizer: Any) -> str:
    """How it was asked, if that is known, with an example."""
    prompting = getattr(model, "prompting", None)
    if not isinstance(prompting, Prompting):
        return ""
    chat = Chat(tokenizer, getattr(model, "generation_config", model.config).eos_token_id)  # a reward model has none
    example = tokenizer.decode(chat.prompt_ids(prompting.messages(QUESTION)))
    lines = "".join(f"    {line}\n" for line in example.split("\n"))
    return (
        f"\n## Prompt\n\nAsked in training and in every score as `{PROMPT}` says: {prompting.in_words()}. A whole prompt, "
        f"as the chat template writes it:\n\n{lines}"
    )


def _facts(model: "PreTrainedModel", tokenizer: Any) -> list[str]:
    count = sum(p.numel() for p in model.parameters())
    facts = [f"{type(model).__name__}, {count:,} parameters"]
    if model.can_generate():  # a reward model does not
        facts += _sampling(model.generation_config, tokenizer)
    if source := getattr(model.config, ORIGIN, None):
        facts.append(
            f"Its first weights were converted from the GGUF file {source['file']} (SHA-256 {source['sha256']}), which was "
            f"quantised as {source['quantisation']}: they were rounded to that before the training"
        )
    return facts


def _sampling(settings: Any, tokenizer: Any) -> list[str]:
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    tokens = ", ".join(f"`{token}`" for token in tokenizer.convert_ids_to_tokens(ends))
    sampled = f"at temperature {settings.temperature}" if settings.do_sample else "greedily"
    return [
        f"A conversation is written with the chat template of this folder; an answer ends with {tokens}",
        f"It was scored {sampled}, without top-k and top-p",
    ]
