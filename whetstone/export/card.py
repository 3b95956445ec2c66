"""The model card of an exported folder: what it is, how it is asked, its scores with intervals and how they were measured, the
data and its licences, what it was trained with.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from whetstone.model_folder import local_model
from whetstone.model_hub import hub_name
from whetstone.problems.published import is_non_commercial
from whetstone.prompting import in_words, stored_prompt
from whetstone.report.numbers import TITLES
from whetstone.report.read import RunRecord, StageRecord, model_facts
from whetstone.run.folder import write_text
from whetstone.run.progress import clock
from whetstone.run.visible import visible

QUESTION = "What is 12 + 30 - 7?"


@dataclass(frozen=True)
class Card:
    run: RunRecord
    stage: StageRecord
    model: Path  # its plain folder
    name: str
    licence: str  # as the user chose it; "": none chosen
    gguf: tuple[str, ...]
    generation: dict[str, Any]
    repository: str = ""  # on the Hub, if it is published there

    @cached_property
    def trained(self) -> list[StageRecord]:
        """The stages from the base to this model."""
        by_name = {stage.name: stage for stage in self.run.training}
        way = [self.stage]
        while (before := by_name.get(way[0].start)) and before not in way:
            way.insert(0, before)
        return way

    @cached_property
    def scores(self) -> list[dict[str, Any]]:
        """Of the base and of the stages on the way."""
        names = ["base", *(stage.name for stage in self.trained)]
        return [score for name in names for score in self.run.scores if score["stage"] == name]

    @property
    def base(self) -> str:
        """`[model] path`: a name on the Hub, or the last part of a path; "" for a model that began with random weights."""
        path = self.run.run.get("recipe", {}).get("model", {}).get("path") or ""
        return path if path and hub_name(path) and not Path(path).exists() else Path(path).name

    @property
    def on_hub(self) -> bool:
        path = self.run.run.get("recipe", {}).get("model", {}).get("path") or ""
        return bool(path) and hub_name(path) is not None and not Path(path).exists()

    @cached_property
    def base_folder(self) -> Path | None:
        path = self.run.run.get("recipe", {}).get("model", {}).get("path")
        return local_model(path) if path else None

    @cached_property
    def base_licence(self) -> str:
        """As the base's own card states it; "" if it does not."""
        card = self.base_folder / "README.md" if self.base_folder else None
        if card is None or not card.is_file():
            return ""
        from huggingface_hub import ModelCard

        try:
            stated = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
        except (ValueError, TypeError):  # no front matter, or none that can be read
            return ""
        return stated if isinstance(stated, str) else ""

    def licence_files(self, patterns: Sequence[str]) -> Iterator[Path]:
        for pattern in patterns:
            yield from sorted(self.base_folder.glob(pattern)) if self.base_folder else ()

    @property
    def data_card(self) -> Path | None:
        cards = [stage.folder / "card.md" for stage in self.run.stages if (stage.folder / "card.md").is_file()]
        return cards[-1] if cards else None


def write_card(folder: Path, card: Card) -> None:
    parts = [_head(card), _what(card), _use(card, folder), _scores(card), _training(card), _data(card), _licences(card)]
    write_text(folder / "README.md", visible("\n\n".join(filter(None, parts)) + "\n"))


def _head(card: Card) -> str:
    """The table that the Hub reads, with the scores as results of an evaluation."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation", dataset_type=score["benchmark"], dataset_name=score["benchmark"],
            metric_type="accuracy", metric_name=f"mean@{score['samples']}", metric_value=round(100 * score["mean"], 2),
        )
        for score in card.scores
        if score["stage"] == card.stage.name
    ]  # fmt: skip
    licence = card.licence or card.base_licence
    data = ModelCardData(
        model_name=card.name, library_name="transformers", pipeline_tag="text-generation", tags=["whetstone", "reasoning"],
        license=licence or None, base_model=card.base if card.on_hub else None, eval_results=results or None,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n# {card.name}"


def _what(card: Card) -> str:
    facts = model_facts(card.model)
    began = f"Its base is {_code(card.base)}." if card.base else "It began with random weights."
    way = ", ".join(TITLES.get(stage.kind, stage.name) for stage in card.trained)
    versions = card.run.run.get("versions") or card.stage.manifest.get("versions", {})
    files = f" GGUF files for llama.cpp are beside it ({', '.join(card.gguf)})." if card.gguf else ""
    return (
        f"A language model that was trained to reason about mathematics, by Whetstone {versions.get('whetstone', '')}".rstrip()
        + f": {way}. It has {facts['parameters']:,} parameters ({facts['class']}). {began}{files}"
    )


def _use(card: Card, folder: Path) -> str:
    prompting = stored_prompt(card.stage.folder)
    turns = [{"role": turn.role, "content": turn.content} for turn in prompting.messages(QUESTION)]
    thinking = "" if prompting.thinking is None else f", enable_thinking={prompting.thinking}"
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {json.dumps(card.repository or card.name)}
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name)
messages = {turns!r}
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{thinking})
print(tokenizer.decode(model.generate(**prompt)[0, prompt["input_ids"].shape[1] :]))
```

It was trained and scored with these turns around a question: {_code(in_words(prompting.summary()))}. The generation config
holds what it was scored with: {_sampling(card)}."""


def _sampling(card: Card) -> str:
    config = card.generation
    cuts = {"top-k": config.get("top_k") or None, "top-p": None if config.get("top_p") == 1.0 else config.get("top_p")}
    cut = ", ".join(f"{name} {value}" for name, value in cuts.items() if value is not None) or "no top-k and top-p"
    how = f"temperature {config['temperature']:g}, {cut}" if config.get("do_sample") else "greedy decoding"
    return how + (f", at most {config['max_new_tokens']:,} tokens" if "max_new_tokens" in config else "")


def _scores(card: Card) -> str:
    if not card.scores:
        return "## Scores\n\nThe run scored no problems."
    lines = [
        "| after | problem set | mean, % | 95 % interval | pass@k, % | majority, % | cut off, % | problems × samples |"
    ]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for score in card.scores:
        k = max(map(int, score["pass_at_k"]), default=1)
        passed = f"{_percent(score['pass_at_k'][str(k)])} (k = {k})" if score["pass_at_k"] else "–"
        cells = [score["stage"], score["benchmark"], _percent(score["mean"])]
        cells += [f"{_percent(score['low'])} to {_percent(score['high'])}", passed]
        cells += [_percent(score[key]) for key in ("majority", "truncated")]
        size = f"{score['problems']:,} × {score['samples']}"
        lines.append(f"| {' | '.join([*map(_cell, cells), size])} |")
    last = next(score for score in reversed(card.scores))
    prompt = f" Prompt: {_code(in_words(last['prompt']))}." if last.get("prompt") else ""
    return (
        "## Scores\n\n"
        + "\n".join(lines)
        + f"\n\nProtocol: the mean over samples at temperature {last['temperature']:g}"
        f"{_longest(card)}; the interval is over problems. Answers are compared by Whetstone's verifier; an answer that it "
        f"cannot decide counts as wrong.{prompt} `scores.json` has all numbers. Scores of other evaluations compare "
        "only if problems, prompt, sampling and verifier are the same."
    )


def _longest(card: Card) -> str:
    longest = card.generation.get("max_new_tokens")
    return f" with at most {longest:,} tokens" if longest else ""


def _training(card: Card) -> str:
    lines = ["| stage | what | steps | wall time | CPU time |", "| --- | --- | ---: | ---: | ---: |"]
    for stage in card.trained:
        used = stage.manifest
        steps = used.get("summary", {}).get("steps")
        cells = [stage.name, TITLES.get(stage.kind, stage.kind), "–" if steps is None else f"{steps:,}"]
        lines.append(f"| {' | '.join([*map(_cell, cells), clock(used['wall_seconds']), clock(used['cpu_seconds'])])} |")
    machine = card.run.run.get("hardware", {})
    cpu = machine.get("cpu")
    on = f"\n\nOn {_cell(str(cpu))}, {machine.get('cores')} cores." if cpu else ""
    return "## Training\n\n" + "\n".join(lines) + on + " `recipe.json` has every setting."


def _data(card: Card) -> str:
    known = card.run.card()
    if not known:
        return "## Data\n\nThe run has no corpus stage, so there is no data card."
    rows = ", ".join(
        f"{count:,} {_cell(name)}" for name, count in sorted(known["rows"].items(), key=lambda item: -item[1])
    )
    matches = known.get("contamination", {}).get("matches", {})
    found = ", ".join(f"{count:,} {_cell(rule)}" for rule, count in matches.items()) or "no match"
    sources = ", ".join(f"{_cell(name)} ({count:,})" for name, count in known.get("sources", {}).items())
    return (
        f"## Data\n\nRows by table: {rows}. Sources: {sources}. `data_card.md` has levels, domains, lengths and what was left "
        f"out, by reason.\n\nContamination: training questions were compared with every test question of the run: {found}. "
        "Equal questions, and long passages in common with the same numbers, are left out of the training data."
    )


def _licences(card: Card) -> str:
    given = card.run.card().get("licences", {})
    lines = [f"- data: {_cell(name)}, {count:,} rows" for name, count in given.items()]
    if card.base:
        stated = card.base_licence or "not stated in its folder: look it up before you publish"
        lines.insert(0, f"- base {_code(card.base)}: {_cell(stated)}")
    lines.append(
        f"- this model: {_cell(card.licence)}" if card.licence else "- this model: none was chosen beside these"
    )
    forbidding = [name for name in given if is_non_commercial(name)]
    note = "\n\n**Some of the data is under a licence that forbids commercial use.**" if forbidding else ""
    return "## Licences\n\n" + "\n".join(lines) + note


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _cell(text: str) -> str:
    """Text of recipes and data is no markup."""
    return "".join(f"\\{sign}" if sign in "\\|<>[]*_`#!" else sign for sign in " ".join(text.split()))


def _code(text: str) -> str:
    return "`" + " ".join(text.split()).replace("`", "'") + "`"
