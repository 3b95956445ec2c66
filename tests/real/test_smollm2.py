"""SmolLM2-135M-Instruct, as `make real` fetches it, against transformers' own reading of it. Run by `make test-real`."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from whetstone import model as models
from whetstone.chat import Chat
from whetstone.decode.engine import Engine
from whetstone.records import Message, Prompt, Sampling

FOLDER = Path(os.environ.get("WHETSTONE_REAL_MODEL") or "models/smollm2")
QUESTIONS = ("What is 12 + 30?", "Tom has 3 boxes of 4 pens. How many pens has he?", "Name three colours.")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (FOLDER / "config.json").is_file(), reason=f"the real model {FOLDER} is not there"),
]


@pytest.fixture(scope="module")
def loaded():
    return models.load(FOLDER)


def test_the_dequantised_weights_are_transformers_own_to_the_bit(loaded):
    gguf = next(FOLDER.parent.glob("SmolLM2*.gguf"), None)
    if gguf is None:
        pytest.skip(f"the GGUF file is not beside {FOLDER}, which make real leaves there")
    theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).state_dict()
    ours = loaded[0].state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_what_a_stage_exports_answers_the_same_in_plain_transformers(loaded, tmp_path):
    model, tokenizer = loaded
    engine = Engine(model, tokenizer)
    asked = [Prompt(str(n), 0, (Message("user", question),)) for n, question in enumerate(QUESTIONS)]
    ours = {done.problem_id: done.ids for done in engine.generate(asked, Sampling(0.0, 48))}
    models.save(model, tokenizer, tmp_path)
    plain, reader = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for number, question in enumerate(QUESTIONS):
        turns = [{"role": "user", "content": question}]
        ids = reader.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        theirs = plain.generate(ids, do_sample=False, temperature=None, max_new_tokens=48)[0, ids.shape[1] :]
        assert ours[str(number)] == theirs.tolist()


def test_every_digit_is_a_token_and_the_template_is_chatml(loaded):
    chat = Chat(loaded[1], loaded[0].generation_config.eos_token_id)
    assert [chat.text([i]) for i in chat.ids("12,345")] == ["1", "2", ",", "3", "4", "5"]
    assert loaded[1].convert_ids_to_tokens(chat.end) == "<|im_end|>"


def test_it_says_what_it_was_converted_from():
    if (source := json.loads((FOLDER / "config.json").read_text()).get("converted_from")) is None:
        pytest.skip("this folder of the real model was not made by make real")
    assert source["quantisation"] == "Q4_1" and source["weights"]["Q4_1"] == 106_168_320
