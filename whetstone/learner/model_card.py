"""The model card: README.md of a trained model's folder, with the prompt that it was trained with."""

from pathlib import Path

from whetstone.chat import Chat
from whetstone.model_folder import local_model
from whetstone.prompting import PROMPT, Prompting
from whetstone.run.folder import Stage, write_text

CARD = "README.md"
QUESTION = "What is 12 + 30 - 7?"


def write_card(folder: Path, stage: Stage, source: Path | str, prompting: Prompting, chat: Chat) -> None:
    base = _name(stage, source)
    on_hub = f"base_model: {base}\n" if not Path(source).exists() and local_model(source) is not None else ""
    example = chat.tokenizer.decode(chat.prompt_ids(prompting.messages(QUESTION)))
    parts = [
        f"---\nlibrary_name: transformers\npipeline_tag: text-generation\n{on_hub}tags:\n- whetstone\n---",
        f"# {stage.run.name}: {stage.name}",
        f"Trained by Whetstone's stage `{stage.kind}` from {base}. The scores of the run are in its scores.json, each with the "
        "prompt that was used.",
        "## Prompt",
        f"Asked in training and in every score as `{PROMPT}` says: {prompting.in_words()}. The whole prompt of one question, "
        "as the chat template writes it:",
        "\n".join(f"    {line}" for line in example.split("\n")),
    ]
    write_text(folder / CARD, "\n\n".join(parts) + "\n")


def _name(stage: Stage, source: Path | str) -> str:
    """Of the model that it started from: its stage, its name on the Hub, or its folder's name."""
    path = Path(source)
    if not path.exists():
        return str(source)
    return f"{path.parent.name}/{path.name}" if path.is_relative_to(stage.folder.parent) else path.resolve().name
