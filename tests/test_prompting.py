"""How a problem is put to a model: the same turns in training rows, rollouts, scores, DPO, RL and commands."""

import ast
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import whetstone
from tests.chat_templates import tokenizer_of
from tests.scripted import Grader, Scripted, problem, stage
from tests.servers import said, send, server
from tests.tiny_models import tiny
from whetstone import model as models
from whetstone import sft
from whetstone.chat import Chat
from whetstone.decode.engine import Engine
from whetstone.dpo import rollout_dpo
from whetstone.evaluate.any_model import ModelOptions, Task, evaluate_model
from whetstone.evaluate.problem_sets import read_problems
from whetstone.measure import summarise, with_flexible
from whetstone.pipeline.checks import check_stages
from whetstone.pipeline.staleness import fingerprint
from whetstone.prompting import (
    BARE,
    BOX_REQUEST,
    LETTER_REQUEST,
    REQUESTING,
    Prompting,
    Shot,
    facts_of,
    prompting_of,
    read_examples,
    refuse_leaks,
)
from whetstone.recipe import read_recipe
from whetstone.records import PROGRAM_REQUEST, Pair, Sampling
from whetstone.rl import loop as rl
from whetstone.rollouts import collect
from whetstone.run.folder import DamagedFile, read_json
from whetstone.run.prompt_settings import AS_TRAINED, ExampleFile, PromptSettings
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_rows
from whetstone.sample import sample_groups
from whetstone.template import TemplateError, set_thinking
from whetstone.verify import MathVerifier, get_policy
from whetstone.verify.flexible import last_answer
from whetstone.window import Window

SHOTS = (Shot("1 + 2?", "\\boxed{3}"), Shot("2 + 2?", "\\boxed{4}"))
WHOLE = Prompting("Be brief.", "Q: ", "\nA:", SHOTS)
TURNS = [
    ("system", "Be brief."),
    ("user", "Q: 1 + 2?\nA:"),
    ("assistant", "\\boxed{3}"),
    ("user", "Q: 2 + 2?\nA:"),
    ("assistant", "\\boxed{4}"),
]


def turns(messages) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


# --- the turns


def test_a_prompt_is_the_system_text_then_the_examples_then_the_question_between_its_two_texts():
    asked = WHOLE.prompt(problem("3 + 3", system="Say why."), 2)
    system = ("system", "Be brief.\n\nSay why.")
    assert turns(asked.messages) == [system, *TURNS[1:], ("user", "Q: 3 + 3?\nA:")]
    assert (asked.problem_id, asked.index) == ("3 + 3", 2)


def test_without_settings_a_question_is_asked_as_it_stands():
    chat = Chat(tiny()[1])
    assert chat.prompt_ids(BARE.messages("1 + 1?")) == chat.question_ids("1 + 1?")
    assert turns(BARE.messages("1 + 1?", "Be brief.")) == [("system", "Be brief."), ("user", "1 + 1?")]


def last(prompting: Prompting, question: str, policy: str = "math", **more) -> str:
    return prompting.messages(question, policy=policy, **more)[-1].content


@pytest.mark.parametrize("policy, asked", [("math", BOX_REQUEST), ("aime", BOX_REQUEST), ("choice", LETTER_REQUEST)])
def test_a_model_from_elsewhere_is_asked_for_the_form_of_answer_that_is_read(policy, asked):
    assert last(REQUESTING, "1 + 1?", policy) == f"1 + 1?\n\n{asked}"


@pytest.mark.parametrize(
    "question", ["Put it in \\boxed{}.", "Write it in \\boxed.", "End with <answer>.", "#### last"]
)
def test_a_form_that_something_else_asks_for_or_shows_is_not_asked_for_again(question):
    assert last(REQUESTING, question) == question
    assert last(replace(REQUESTING, before=f"{question} "), "1 + 1?") == f"{question} 1 + 1?"
    assert last(REQUESTING, "1 + 1?", system=question) == "1 + 1?"
    assert last(replace(REQUESTING, examples=(Shot("0?", "It is 0."),)), "1 + 1?") == "1 + 1?"
    assert last(replace(REQUESTING, examples=SHOTS), "1 + 1?").endswith(BOX_REQUEST)


def test_a_score_says_what_was_asked_for():
    assert REQUESTING.summary("choice")["after"] == f"\n\n{LETTER_REQUEST}" and REQUESTING.summary()["after"] is None
    shown = replace(REQUESTING, examples=(Shot("0?", "It is 0."),))
    assert shown.summary()["after"] == "" and shown.in_words() == "1 example"


def test_a_box_is_not_asked_for_with_an_answer_that_has_none_nor_with_a_program():
    assert last(REQUESTING, "1 + 1?", answer="It is 2.") == "1 + 1?"
    assert last(REQUESTING, "1 + 1?", answer="\\boxed{2}").endswith(BOX_REQUEST)
    assert last(WHOLE, "1 + 1?" + PROGRAM_REQUEST) == "Q: 1 + 1?" + PROGRAM_REQUEST
    given = "Part 1 gave $\\boxed{3}$. And part 2?"  # an earlier result is no request
    assert last(REQUESTING, given).endswith(BOX_REQUEST)


@pytest.mark.parametrize("name, asked", [("gsm8k", BOX_REQUEST), ("aqua_rat", LETTER_REQUEST), ("aime24", BOX_REQUEST)])
def test_a_published_set_is_asked_for_what_its_policy_reads(name, asked):
    if not os.environ.get("WHETSTONE_DATA"):
        pytest.skip("WHETSTONE_DATA is not set")
    first = read_problems(name)[0]
    assert REQUESTING.prompt(first, 0).messages[-1].content.endswith(asked)


def test_a_teacher_is_asked_for_a_box_unless_something_else_is_set():
    assert last(BARE.for_teacher(), "1 + 1?") == f"1 + 1?\n\n{BOX_REQUEST}"
    assert last(BARE.for_teacher(), "1 + 1?", "choice") == f"1 + 1?\n\n{LETTER_REQUEST}"
    assert last(BARE.for_teacher("Be slow."), "1 + 1?") == "1 + 1?\n\nBe slow."
    assert last(BARE.for_teacher(""), "1 + 1?") == "1 + 1?"
    assert last(WHOLE.for_teacher(), "1 + 1?") == "Q: 1 + 1?\nA:"


# --- whose prompt it is


def test_a_trained_model_keeps_its_prompt_and_options_replace_parts_of_it(tmp_path):
    model, tokenizer = tiny()
    model.prompting = replace(WHOLE, after=None)
    models.save(model, tokenizer, tmp_path / "m")
    assert prompting_of(AS_TRAINED, tmp_path / "m") == model.prompting
    given = PromptSettings(system="", after="!", examples=())
    assert prompting_of(given, tmp_path / "m") == Prompting(before="Q: ", after="!")
    (tmp_path / "m" / "prompt.json").write_text('{"after": 3}')
    with pytest.raises(DamagedFile, match=r"prompt\.json is damaged: after"):
        prompting_of(AS_TRAINED, tmp_path / "m")


def test_a_model_made_from_nothing_is_asked_the_question_alone_and_one_from_elsewhere_for_a_box(tmp_path):
    models.save(*tiny(), tmp_path / "tiny")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert prompting_of(AS_TRAINED, None) == prompting_of(AS_TRAINED, tmp_path / "tiny") == BARE
    assert prompting_of(AS_TRAINED, tmp_path / "other") == prompting_of(AS_TRAINED, "some/model") == REQUESTING
    (tmp_path / "manifest.json").touch()  # a stage of a version that asked the question alone
    assert prompting_of(AS_TRAINED, tmp_path / "other") == BARE


def test_a_result_depends_on_what_is_given_and_on_the_examples_of_a_file(tmp_path):
    assert facts_of(AS_TRAINED, None) == {}
    assert facts_of(PromptSettings(system="S"), None) == {"prompt.system": "S"}
    assert "prompt.after" in facts_of(AS_TRAINED, "some/model")
    assert facts_of(PromptSettings(after="A"), "some/model") == {"prompt.after": "A"}
    facts = []
    for answer in ("2", "3"):
        (tmp_path / "shots.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": answer}))
        facts.append(facts_of(PromptSettings(examples={"file": str(tmp_path / "shots.jsonl")}), None))
    assert facts[0] != facts[1]


def test_a_changed_prompt_makes_stale_what_asks_a_model_and_without_one_nothing_is_new():
    smoke = Path(whetstone.__file__).parents[1] / "recipes" / "smoke.toml"

    def depends(*sets: str) -> list[str]:
        recipe = read_recipe(smoke, sets)
        return [s.name for s in recipe.stages if any("prompt." in name for name in fingerprint(recipe, s)["shared"])]

    trained = ["midtrain", "sft", "dpo", "rl"]
    assert depends() == []
    assert depends('prompt.system="S"') == trained
    served = 'rollouts.teacher={ server = "http://localhost:1/v1", model = "m" }'
    assert depends('prompt.system="S"', served) == ["rollouts", *trained]


def test_what_is_wrong_with_a_prompt_is_said_before_anything_runs(tmp_path):
    smoke = Path(whetstone.__file__).parents[1] / "recipes" / "smoke.toml"
    for given, words in (
        ("thinking=true", "a model made from nothing has no switch for thinking"),
        (f'examples={{ file = "{tmp_path}/none.jsonl" }}', "none.jsonl is missing"),
    ):
        recipe = read_recipe(smoke, [f"prompt.{given}"])
        with pytest.raises((ValueError, OSError), match=words):
            check_stages(recipe, recipe.stages)


# --- examples


def write(folder: Path, rows: list[dict]) -> str:
    (folder / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "shots.jsonl")


def test_examples_are_the_first_rows_of_a_file_or_of_a_published_set(tmp_path):
    path = write(tmp_path, [{"question": f"{i} + 1?", "answer": f"#### {i + 1}"} for i in range(5)])
    assert read_examples(ExampleFile(file=path, count=2)) == (("0 + 1?", "#### 1"), ("1 + 1?", "#### 2"))
    assert len(read_examples(ExampleFile(file=path))) == 5
    assert "\\boxed{1}" in read_examples(ExampleFile(file=path, count=1, set="gsm8k"))[0].answer


@pytest.mark.parametrize(
    "rows, count, words",
    [
        ([{"question": "1?", "answer": "1"}], 2, "holds 1 rows, and 2 examples are wanted"),
        ([{"question": "1?"}], 1, "line 1: no example, missing column"),
        ([{"question": "1?", "answer": "1"}] * 101, 0, "more than 100 rows. Say how many"),
        ([], 0, "holds 0 rows"),
    ],
)
def test_a_file_that_does_not_hold_the_examples_is_named(tmp_path, rows, count, words):
    path = write(tmp_path, rows)
    with pytest.raises(ValueError, match=words) as caught:
        read_examples(ExampleFile(file=path, count=count))
    assert "shots.jsonl" in str(caught.value)


def test_an_example_that_is_a_test_problem_is_refused_by_name_and_other_numbers_are_said(capsys):
    text = "Tom has 3 apples and buys 4 more at the market. How many apples does Tom have now?"
    scored = [replace(problem("gsm-7"), question=text), replace(problem("p"), question="5 + 5?")]
    for leaking in (Shot(text.upper(), "7"), Shot("Solve both", f"{text} So 7."), Shot("5 + 5 ?", "10")):
        with pytest.raises(ValueError, match=r"example 2 holds (gsm-7|p), a problem that is scored"):
            refuse_leaks([Shot("1 + 1?", "2"), leaking], scored)
    refuse_leaks([Shot("5 - 5?", "0")], scored)
    assert capsys.readouterr().err == ""
    refuse_leaks([Shot(text.replace("3", "30"), "34")], scored)
    assert "example 1 and gsm-7" in capsys.readouterr().err


def test_a_problem_that_the_examples_push_out_of_the_window_cannot_be_asked():
    window = Window(Chat(tiny()[1]), 128, 16, Prompting(examples=SHOTS * 10))
    with pytest.raises(ValueError, match=r"none of its 1 problems can be asked: .* or give fewer examples"):
        window.report("set", [problem("1 + 1")], "are left out")
    assert not Window(window.chat, 128, 16).unaskable([problem("1 + 1")])


# --- thinking


def test_thinking_sets_the_templates_own_switch_in_prompts_and_in_the_exported_folder(tmp_path):
    plain, tokenizer = tokenizer_of("qwen3"), tokenizer_of("qwen3")
    chat = [{"role": "user", "content": "1 + 1?"}]
    for thinking in (False, True, False):  # what was written before is replaced
        set_thinking(tokenizer, thinking)
        wanted = plain.apply_chat_template(
            chat, add_generation_prompt=True, enable_thinking=thinking, return_dict=False
        )
        assert Chat(tokenizer).question_ids("1 + 1?") == wanted
        assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == wanted
    assert tokenizer.chat_template.count("is not defined") == 1
    still = tokenizer.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=True, return_dict=False)
    assert still == plain.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def test_a_template_without_a_switch_cannot_be_told_to_think():
    for tokenizer in (tiny()[1], tokenizer_of("llama-3")):
        with pytest.raises(TemplateError, match="has no switch for thinking"):
            set_thinking(tokenizer, True)


# --- every crossing


@pytest.fixture
def asked(monkeypatch) -> list:
    """The turns of all prompts that engines are given."""
    seen = []
    plain = Engine.sequence

    def sequence(self, prompt, *more):
        seen.append(turns(prompt.messages))
        return plain(self, prompt, *more)

    monkeypatch.setattr(Engine, "sequence", sequence)
    return seen


GIVEN = PromptSettings(
    system=WHOLE.system, before=WHOLE.before, after=WHOLE.after, examples=[shot._asdict() for shot in SHOTS]
)


def prompted(folder: Path, settings, **inputs):
    made = stage(folder, settings, **inputs)
    return replace(made, prompt=GIVEN, parallel=made.parallel.model_copy(update={"forks": 1}))


def test_dpo_and_rl_ask_as_the_prompt_says_for_candidates_and_in_every_step(tmp_path, adder, world, asked):
    of = {"max_tokens": 4, "pool": {"prompts": 3, "samples": 2}}
    inputs = {"model": adder, "prompts": world["prompts"]}
    with suppress(ValueError):  # four tokens are no answer
        rollout_dpo.run(prompted(tmp_path / "dpo", rollout_dpo.Settings(kind="dpo", **of), **inputs))
    pairs = len(asked)
    of |= {"pool": {"prompts": 3, "samples": 0}, "steps": 1, "prompts_per_step": 2, "samples": 2}
    with suppress(ValueError):
        rl.run(prompted(tmp_path / "rl", rl.Settings(kind="rl", **of), **inputs))
    assert pairs == 6 and len(asked) > 10
    assert all(turn[:-1] == TURNS and turn[-1][1].startswith("Q: Compute ") for turn in asked)


def test_training_rows_have_the_prompt_and_the_model_its_folder_and_card(tmp_path, adder, world):
    made = prompted(tmp_path / "sft", sft.Settings(kind="sft", max_length=256), model=adder, data=world["subset"])
    sft.run(made)
    model = tmp_path / "sft" / "model"
    chat = models.load_chat(model)[0]
    row = next(iter(read_rows(world["subset"])))
    start = chat.prompt_ids(WHOLE.messages(row["question"]))
    ids = (tmp_path / "sft" / "tokens").rglob("*")
    assert any(path.is_file() for path in ids)
    store = read_json(tmp_path / "sft" / "tokens" / "made_from.json")["made_from"]
    assert store["prompt"] == WHOLE.to_json() == read_json(model / "prompt.json") | {"thinking": None}
    assert prompting_of(AS_TRAINED, model) == WHOLE
    card = (model / "README.md").read_text()
    assert "system 'Be brief.'" in card and "Q: What is 12 + 30 - 7?" in card
    from whetstone.learner.tokenise import encode, read_conversation

    (taught,) = encode(chat, [read_conversation(row)], WHOLE)
    assert taught.prompt_ids == start
    pair = Pair("p", row["question"], row["text"], "wrong")
    assert rollout_dpo.ids_of(chat, pair, WHOLE)[0] == start


def test_scores_say_their_prompt_and_an_evaluated_model_is_asked_as_it_was_trained(tmp_path, asked, capsys):
    model, tokenizer = tiny()
    model.prompting = WHOLE
    models.save(model, tokenizer, tmp_path / "m")
    rows = [{"question": "3 + 3?", "answer": "6"}]
    greedy = ScoreSettings(samples=1, temperature=0.0, max_tokens=3)
    asked_for = Task(read_problems(write(tmp_path, rows)), greedy)
    (score,) = evaluate_model(ModelOptions(str(tmp_path / "m")), [asked_for], output=tmp_path / "out")
    assert asked == [[*TURNS, ("user", "Q: 3 + 3?\nA:")]]
    assert score.prompt["system"] == "Be brief." and score.prompt["examples"] == 2
    said_so = capsys.readouterr().err
    assert "prompt: system 'Be brief.'" in said_so and "from the model's prompt.json" in said_so
    assert read_json(tmp_path / "out" / "scores.json")["scores"][0]["prompt"] == score.prompt
    assert read_json(tmp_path / "out" / "shots" / "prompt.json") == WHOLE.to_json()
    with pytest.raises(ValueError, match="example 1 holds"):
        leaking = PromptSettings(examples={"file": str(tmp_path / "shots.jsonl")})
        told = Task(read_problems(str(tmp_path / "shots.jsonl")), greedy)
        evaluate_model(ModelOptions(str(tmp_path / "m"), leaking), [told])


def test_a_teacher_behind_a_server_is_asked_as_the_prompt_says(tmp_path, world):
    bodies = []

    def answer(handler, body, attempt):
        bodies.append([(m["role"], m["content"]) for m in body["messages"]])
        send(handler, said("\\boxed{3}"))

    with server(answer) as (url, _):
        teacher = {"server": url, "model": "m"}
        settings = collect.Settings(kind="rollouts", teacher=teacher, samples=1)
        collect.run(replace(stage(tmp_path / "rollouts", settings, problems=world["problems"]), prompt=GIVEN))
    assert bodies and all(body[:-1] == TURNS and body[-1][1].endswith(".\nA:") for body in bodies)


def test_groups_are_sampled_with_the_prompt_that_is_given():
    seen = []
    generator = Scripted(lambda prompt, sampling: seen.append(turns(prompt.messages)) or "1")
    sample_groups(generator, [problem("p0")], 2, Sampling(), Grader(), prompting=WHOLE)
    assert seen == [[*TURNS, ("user", "Q: p0?\nA:")]] * 2


def test_only_the_prompt_puts_problems_into_turns():
    """Others that write turns: the chat's probes, a conversation that goes on, prompts about problems (judge, rephrase), the
    dialogues of preference files, which are data, and the requests of a served model's clients.
    """
    makers = set()
    for path in Path(whetstone.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Message"
            imported = isinstance(node, ast.ImportFrom) and "ask" in [alias.name for alias in node.names]
            if called or (imported and node.module == "whetstone.chat"):
                makers.add(path.name)
    assert makers == {"prompting.py", "chat.py", "judge.py", "ask.py", "rephrase.py", "preferences.py", "requests.py"}


# --- the form of the answer


@pytest.mark.parametrize(
    "text, policy, taken",
    [
        ("So 12 + 30 = 42, minus 7 is 35 apples.", "number", "35"),
        ("It costs $1,250.50 in all", "number", "1,250.50"),
        ("Hence $x = \\frac{1}{2}$, and that is all of it.", "math", "x = \\frac{1}{2}"),
        ("we get \\(2\\) and then 3 more", "math", "3"),
        ("the least is 7 - 12 = -5", "aime", "-5"),
        ("(A) is wrong, so I take (C)", "choice", "C"),
        ("A train leaves, thus B", "choice", "B"),
        ("<think>7</think> then 8", "math", "8"),
        ("I do not know", "math", None),
        ("42", "word", None),
    ],
)
def test_flexible_extraction_takes_the_last_number_expression_or_letter(text, policy, taken):
    assert last_answer(text, get_policy(policy)) == taken


def test_a_score_tells_a_gain_in_format_from_a_gain_in_answers():
    """Of four answers to 35 one is in a box, one stated; one gives the number alone, one another number in a box."""
    texts = ["so \\boxed{35}", "The answer is 35.", "12 + 30 - 7\nmakes 35 apples\nin all", "35, so \\boxed{36}"]
    with MathVerifier() as verifier:
        verdicts = [verifier.check(text, "35", "number") for text in texts]
        rows = [
            {
                "problem_id": f"p{i}",
                "gold": "35",
                "policy": "number",
                "text": text,
                "answer": verdict.answer,
                "tokens": 5,
            }
            | {"correct": verdict.correct, "stop": "end", "form": form}
            for i, (text, verdict, form) in enumerate(zip(texts, verdicts, ("box", "stated", "", "box"), strict=True))
        ]
        score = summarise(with_flexible(rows, verifier), verifier, "s", "b", True, 0.0)
    assert (score.mean, score.flexible, score.boxed, score.stated) == (0.5, 0.75, 0.5, 0.25)
    assert score.flexible_low < 0.75 < score.flexible_high
