"""Ids of prompts and rows are those that transformers' own template writes, for the templates of well-known models."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from tests.chat_templates import (
    CHATML,
    ENDS,
    SPACING,
    TOKENS,
    byte_level,
    chat_of,
    generation_eos,
    spacing_tokenizer,
    taught,
    tokenizer_of,
)
from tests.tiny_models import random_model
from whetstone import model as models_
from whetstone.chat import Chat, Exchange, Taught, with_opening
from whetstone.decode.engine import Engine
from whetstone.records import Message, Prompt, Sampling
from whetstone.template import TemplateError

QUESTION = "1 + 1?"
THOUGHT = "<think>\nOne and one.\n</think>\n\nIt is \\boxed{2}."
WITHOUT_TOKENS = ("glm-4", "alpaca", "chatml without its tokens")  # their templates write no token after an answer


def rendered(tokenizer, *turns: tuple[str, str], prompt: bool = False) -> str:
    """What transformers writes."""
    turns = [{"role": role, "content": content} for role, content in turns]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)


def names(tokenizer, ids) -> tuple[str, ...]:
    return tuple(tokenizer.convert_ids_to_tokens(list(ids)))


@pytest.mark.parametrize("kind", TOKENS)
def test_a_prompt_is_what_transformers_makes_of_it(kind):
    chat = chat_of(kind)
    for messages in ((Message("user", QUESTION),), *_longer(kind)):
        turns = [{"role": m.role, "content": m.content} for m in messages]
        if kind == "llama-3":  # which asks for the date
            expected = chat.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
            )
        else:
            expected = chat.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert chat.prompt_ids(messages) == expected


def _longer(kind):
    said = Message("user", QUESTION), Message("assistant", "2"), Message("user", "And 2 + 2?")
    system = (Message("system", "Be brief."), Message("user", QUESTION))
    return (said,) if kind == "mistral" else (said, system)


@pytest.mark.parametrize("kind", TOKENS)
def test_a_turn_ends_as_the_template_ends_it_and_a_completion_with_any_eos_of_the_model(kind):
    tokenizer = tokenizer_of(kind)
    chat = Chat(tokenizer, generation_eos(kind, tokenizer))
    assert names(tokenizer, chat.stops) == ENDS[kind] and chat.end == chat.stops[0]


def test_the_eos_of_generation_config_may_be_one_several_or_none():
    tokenizer = tokenizer_of("qwen2")
    end, eos = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert Chat(tokenizer).stops == Chat(tokenizer, end).stops == (end,)
    assert Chat(tokenizer, eos).stops == Chat(tokenizer, [eos, end, 10**6]).stops == (end, eos)
    for wrong in ("<|im_end|>", [str(eos)], 1.5, True, {"id": 1}):
        with pytest.raises(ValueError, match=r"eos_token_id = .* is neither an id nor a list of ids"):
            Chat(tokenizer, wrong)


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("answer", [THOUGHT, "It is 2."], ids=["thinking", "plain"])
def test_a_row_is_the_conversation_as_transformers_renders_it_up_to_the_end_of_the_turn(kind, answer):
    """Of R1, which drops the thinking of every turn, the answer is taught whole."""
    chat = chat_of(kind)
    row = taught(chat, answer, QUESTION)
    text = chat.tokenizer.decode([*row.prompt_ids, *row.answer_ids])
    full = rendered(chat.tokenizer, ("user", QUESTION), ("assistant", answer))
    if kind == "r1-distill" and answer == THOUGHT:
        full = rendered(chat.tokenizer, ("user", QUESTION), prompt=True) + THOUGHT.removeprefix("<think>\n")
        full += chat.tokenizer.eos_token
    if kind == "llama-3":
        full = chat.template.render(
            [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}], False
        )
    if kind in WITHOUT_TOKENS:
        assert text == full.rstrip().removesuffix("<|im_end|>") + chat.tokenizer.eos_token
    else:
        assert full.startswith(text) and not full.removeprefix(text).strip("\n").replace("<|endoftext|>", "")
    assert text.count("<think>") == text.count("</think>") <= 1
    assert row.answer_ids[-1] == chat.end and answer.rpartition("\n")[2] in chat.text(row.answer_ids)


@pytest.mark.parametrize("kind", SPACING)
def test_white_space_around_turns_is_where_transformers_has_it(kind):
    tokenizer = spacing_tokenizer(kind)
    answer = " <think>\na\n</think>\nb \n"
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    row = taught(Chat(tokenizer), answer, QUESTION)
    taught_ids = [*row.prompt_ids, *row.answer_ids]
    assert taught_ids == ids[: len(taught_ids)]
    assert tokenizer.decode(ids[len(taught_ids) :]).strip() in ("", tokenizer.eos_token)


GENERATION = CHATML.replace(
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
    "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{message['content'] + '<|im_end|>'}}{% endgeneration %}{% else %}"
    "{{message['content'] + '<|im_end|>'}}{% endif %}{{'\n'}}",
)


def test_what_is_taught_is_what_a_template_marks_as_the_assistants():
    tokenizer = tokenizer_of("smollm2")
    tokenizer.chat_template = GENERATION
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": THOUGHT}]
    marked = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    ids = [i for i, own in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if own]
    assert taught(Chat(tokenizer), THOUGHT, QUESTION).answer_ids == ids


# --- thinking that the prompt opens


@pytest.mark.parametrize(("kind", "opening"), [("r1-distill", "<think>\n"), ("qwen3.5", "<think>\n"), ("qwen3", "")])
def test_the_opening_of_the_thinking_is_the_prompts_and_is_not_taught_again(kind, opening):
    chat = chat_of(kind)
    assert chat.opening == opening and not chat.closed
    row = taught(chat, THOUGHT)
    assert row.prompt_ids == chat.question_ids("1 + 1?")
    assert chat.completion(row.answer_ids) == THOUGHT
    closing_alone = THOUGHT.removeprefix("<think>\n")  # as a model behind such a prompt writes
    assert taught(chat, closing_alone) == row


def test_an_answer_without_thinking_is_taught_as_the_template_has_it():
    """R1 writes it without <think>; Qwen 3.5 closes an empty thought."""
    r1, qwen = chat_of("r1-distill"), chat_of("qwen3.5")
    assert r1.tokenizer.decode(taught(r1, "2").prompt_ids).endswith("1 + 1?<｜Assistant｜>")
    assert r1.text(taught(r1, "2").answer_ids) == "2"
    assert qwen.text(taught(qwen, "2").answer_ids) == "\n</think>\n\n2"


def test_a_switch_for_thinking_has_the_templates_own_default():
    """Qwen 3.5's small models do not think unless told: the prompt closes the thought, and there is nothing to hide."""
    chat = chat_of("qwen3.5-small")
    assert chat.closed and not chat.opening
    assert taught(chat, "2").prompt_ids == chat.question_ids("1 + 1?")
    chat.tokenizer.chat_template = "{%- set enable_thinking = true %}\n" + chat.tokenizer.chat_template
    switched = Chat(chat.tokenizer)
    assert switched.opening == "<think>\n" and taught(switched, THOUGHT).prompt_ids == switched.question_ids("1 + 1?")


DEEPSEEK31 = (  # its prompt opens the thinking without a new line, or says that it is over
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}<｜Assistant｜></think>"
    "{{ m.content.split('</think>', 1)[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)


def test_a_prompt_may_say_that_thinking_is_over_or_open_it_without_a_new_line():
    tokenizer = tokenizer_of("r1-distill")
    tokenizer.chat_template = DEEPSEEK31
    over = Chat(tokenizer)
    assert over.closed and not over.opening
    assert over.text(taught(over, "2").prompt_ids).endswith("<｜Assistant｜></think>")
    assert over.text(taught(over, "2").answer_ids) == "2"
    assert over.text(taught(over, THOUGHT).answer_ids) == THOUGHT
    assert over.text(taught(over, THOUGHT).prompt_ids).endswith("<｜Assistant｜>")
    tokenizer.chat_template = "{% set thinking = true %}" + DEEPSEEK31
    thinks = Chat(tokenizer)
    assert thinks.opening == "<think>" and thinks.text(taught(thinks, THOUGHT).answer_ids) == THOUGHT[len("<think>") :]


def test_a_question_that_ends_with_the_tag_is_left_as_it_is():
    tokenizer = tokenizer_of("qwen2")
    tokenizer.chat_template = None
    assert tokenizer.decode(taught(Chat(tokenizer), "2", "Why <think>").prompt_ids) == "Why <think>\n"


def test_a_completion_begins_with_what_its_prompt_opened_also_when_it_is_streamed():
    tokenizer = tokenizer_of("r1-distill")
    engine = Engine(random_model("qwen2", len(tokenizer)), tokenizer)
    prompts = [Prompt("p", 0, (Message("user", QUESTION),))]
    for sampling in (Sampling(max_tokens=9), Sampling(max_tokens=9, stop=("\n", "<think>"))):
        (done,) = engine.generate(prompts, sampling)
        *pieces, again = engine.stream(prompts, sampling)
        assert done.text.startswith("<think>\n") and len(done.ids) > 0
        assert "".join(piece.text for piece in pieces) == again.text == done.text
        assert done.text.removeprefix("<think>\n") == engine.chat.text(done.ids)[: len(done.text) - 8]


# --- control tokens as text

CONTROL = "<|im_end|> <|end|> <|endoftext|> <bos> <eos> </s> [INST] <|user|> <|eot_id|> <｜Assistant｜> <end_of_turn>"


@pytest.mark.parametrize("kind", TOKENS)
def test_control_tokens_in_data_are_text_and_those_of_the_template_are_ids(kind):
    chat = chat_of(kind)
    special = set(chat.tokenizer.added_tokens_decoder) - set(chat.tokenizer.convert_tokens_to_ids(["\n"]))
    plain, asked = (taught(chat, f"a {text} b", f"c {text} d") for text in ("x", CONTROL))
    for clean, ids in zip(plain, asked, strict=True):
        assert [i for i in ids if i in special] == [i for i in clean if i in special]
        assert CONTROL in chat.tokenizer.decode(ids)
    assert chat.question_ids(f"c {CONTROL} d") == asked.prompt_ids or chat.opening


def test_the_thinkings_tokens_are_ids_in_an_answer_and_text_in_a_question():
    chat = chat_of("qwen3")
    opened, closed = chat.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    row = taught(chat, THOUGHT, "What is <think>?")
    assert opened in row.answer_ids and closed in row.answer_ids and opened not in row.prompt_ids


def sentencepiece_like(prepend: str) -> PreTrainedTokenizerFast:
    """Puts a space before a text, as Llama 2's and Mistral's tokenizers do."""
    alphabet = sorted(set("▁<|>/[]_?+\n12abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\\{}"))
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {letter: i + 3 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in ("<s>", "</s>", "[INST]", "[/INST]")]
    )
    template = TOKENS["mistral"][0]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=template
    )


@pytest.mark.parametrize("prepend", ["first", "always", "never"])
def test_a_tokenizer_that_writes_spaces_itself_gives_the_ids_of_the_whole_text(prepend):
    tokenizer = sentencepiece_like(prepend)
    turns = [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two"}]
    row = taught(Chat(tokenizer), "two", "one?")
    assert [*row.prompt_ids, *row.answer_ids] == tokenizer.apply_chat_template(turns, return_dict=False)
    written = taught(Chat(tokenizer), "a </s> b", "c [INST] d")
    assert sum(map(list(written.answer_ids).count, (1, 2))) == 1 and written.prompt_ids.count(3 + 0) >= 0
    assert "".join(tokenizer.convert_ids_to_tokens(written.answer_ids)).endswith("a▁</s>▁b</s>")
    assert "".join(tokenizer.convert_ids_to_tokens(written.prompt_ids)).endswith("c▁[INST]▁d[/INST]")


def test_a_tokenizer_without_a_fast_version_encodes_alike():
    tokenizer = ByT5Tokenizer(extra_ids=0, chat_template=CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    turns = [{"role": "user", "content": "1 + 1?"}]
    chat = Chat(tokenizer)
    row = taught(chat, "<think>a</think>2")
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert row.prompt_ids == expected and row.answer_ids[-1] == chat.end == chat.stops[0]
    written = taught(chat, "a <|im_end|></s> b", "c <|im_start|> d")
    assert written.answer_ids.count(chat.end) == 1 and tokenizer.eos_token_id not in written.answer_ids
    assert tokenizer.decode(written.answer_ids) == "a <|im_end|></s> b<|im_end|>"
    assert [i for i in written.prompt_ids if i > 258] == [i for i in row.prompt_ids if i > 258]


def test_a_row_whose_control_token_cannot_be_written_as_text_is_refused_with_the_reason():
    """The parts of `<<` are `<` and `<`, and this tokenizer's `<` is a control token itself."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(("<", "<|im_end|>")), eos_token="<|im_end|>", chat_template=CHATML
    )
    assert taught(Chat(tokenizer), "1 < 2") == "a control token that this tokenizer cannot write as text: '<'"
    with pytest.raises(ValueError, match=r"a prompt cannot be encoded: a control token .* cannot write as text: '<'"):
        Chat(tokenizer).question_ids("1 < 2?")


# --- without a template, and by name


def test_a_base_model_gets_plain_prompts_that_begin_as_its_tokenizer_begins_and_its_eos_ends_an_answer():
    for kind, first in (("llama-3", "<|begin_of_text|>"), ("qwen2", "")):
        tokenizer = tokenizer_of(kind)
        tokenizer.chat_template = None
        if first:
            from tokenizers.processors import TemplateProcessing

            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)]
            )
        row = taught(Chat(tokenizer), "It is 2.")
        assert tokenizer.decode(row.prompt_ids) == f"{first}1 + 1?\n"
        assert tokenizer.decode(row.answer_ids) == f"It is 2.{tokenizer.eos_token}"


def test_without_a_template_and_an_eos_nothing_ends_a_turn_and_that_is_said():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(()))
    with pytest.raises(ValueError, match=r"nothing ends a turn.*Set eos_token in tokenizer_config.json"):
        Chat(tokenizer)


def test_of_several_templates_that_named_default_is_used(tmp_path):
    tokenizer = tokenizer_of("qwen2")
    expected = Chat(tokenizer).question_ids(QUESTION)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "{{ 1 / 0 }}"}
    for folder, files in (
        ("beside", True),
        ("inside", False),
    ):  # chat_template.jinja, or a list in tokenizer_config.json
        tokenizer.save_pretrained(tmp_path / folder, save_jinja_files=files)
        assert (tmp_path / folder / "chat_template.jinja").exists() == files
        assert Chat(AutoTokenizer.from_pretrained(tmp_path / folder)).question_ids(QUESTION) == expected
    tokenizer.chat_template = {"rag": "", "tool_use": ""}
    with pytest.raises(TemplateError, match=r"one of several \(rag, tool_use\), and none of them is named default"):
        Chat(tokenizer)
    for wrong in (5, {"default": None}, ["{{ messages }}"]):
        tokenizer.chat_template = wrong
        with pytest.raises(TemplateError, match="is not text, but of type"):
            Chat(tokenizer)


def test_an_exported_folder_stops_where_training_ends_a_turn(tmp_path):
    from transformers import GenerationConfig

    tokenizer = tokenizer_of("newline before end")
    model = random_model("qwen2", len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    models_.save(model, tokenizer, tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == list(Chat(tokenizer).stops)


def test_rows_of_many_kinds_are_encoded_together_as_each_alone():
    chat = chat_of("gemma")
    conversations = [
        Exchange((Message("user", "1?"),), "1"),
        Exchange((Message("user", "2 <eos>?"),), "2"),
        Exchange((Message("user", "1?"), Message("user", "2?")), "3"),  # gemma wants turns to alternate
        Exchange((Message("system", "Be brief."), Message("user", "1?")), THOUGHT),
    ]
    rows = chat.rows(conversations)
    assert rows == [chat.rows([one])[0] for one in conversations]
    assert [type(row) for row in rows] == [Taught, Taught, str, Taught]
    assert rows[2].startswith("the chat template refuses it: ") and "must alternate" in rows[2]


def test_a_closing_tag_alone_is_thinking_that_was_open_from_the_start():
    assert with_opening("1+1</think>2") == "<think>\n1+1</think>2"
    for whole in (THOUGHT, "2", "<think>1+1"):
        assert with_opening(whole) == whole


def test_what_ids_depend_on_has_a_fingerprint():
    tokenizer = tokenizer_of("qwen2")
    before = Chat(tokenizer).fingerprint()
    assert before == Chat(tokenizer).fingerprint() and "on 2024-07-26" in before
    assert Chat(tokenizer, tokenizer.convert_tokens_to_ids("<|endoftext|>")).fingerprint() != before
