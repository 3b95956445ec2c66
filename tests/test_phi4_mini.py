"""recipes/phi4_mini.toml itself, every stage of it, with a shrunken random model in the place of the real one. It is of the
same class: LongRoPE, tied head, three queries a key, partial rotary, unused slots, bos = eos = pad."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_models import ORIGINAL, TEXTS, phi4_mini
from tests.tiny_world import logged
from whetstone import model as models
from whetstone.chat import Chat
from whetstone.pipeline.running import estimate, run_recipe
from whetstone.recipe import read_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "phi4_mini.toml"
PROBLEMS = (
    '[{ kind = "procedural", families = ["chain"], level = 1, digits = [1, 1], operators = "+", train = 12, '
    'validation = 2, test = 4, benchmark = "aime24" }]'
)
SHRUNKEN = {
    "questions.source": PROBLEMS, "rollouts.teacher": '"procedural"',
    "model.longest": 0, "prompt.after": '""',  # its answers are as long as without a request
    "parallel.device": '"cpu"', "parallel.compute": '"float32"', "parallel.processes": 1, "parallel.shard": '"ddp"',
    "parallel.compile": "false",  # a minute for layers this small
    "parallel.micro_batch_tokens": 1024, "parallel.accelerator": '""',
    "scores.samples": 4, "scores.base_samples": 1, "scores.max_tokens": 96,
    "corpus.subset.problems": 12, "corpus.validation_problems": 2,
    "midtrain.optimizer.learning_rate": 8e-3, "midtrain.max_length": 256, "midtrain.batch_tokens": 512,
    "midtrain.epochs": 100, "midtrain.validate_every": 60, "midtrain.patience": 0,
    "sft.optimizer.learning_rate": 1e-3, "sft.max_length": 256, "sft.batch_tokens": 1024, "sft.epochs": 2,
    "dpo.batch_pairs": 4, "dpo.max_tokens": 96,
    "rl.steps": 2, "rl.prompts_per_step": 4, "rl.samples": 4, "rl.max_tokens": 96,
    "rl.pool.prompts": 12, "rl.pool.samples": 8, "rl.checkpoint_every": 1,
    # of so few prompts, all that are solved are kept
    "rl.stabilisers": '[{ name = "reward_rebalancing", threshold = 1.0, oversample = 8 }, "temperature_annealing"]',
}  # fmt: skip


TRAINED = ("midtrain", "sft", "dpo", "rl")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phi4_mini")
    models.save(*phi4_mini(TEXTS), folder / "base")
    sets = {**SHRUNKEN, "run.folder": f'"{folder}"', "run.threads": 1, "model.path": f'"{folder / "base"}"'}
    recipe = read_recipe(RECIPE, [f"{name}={value}" for name, value in sets.items()])
    run_recipe(recipe)
    return recipe.folder


@pytest.mark.slow
def test_every_stage_trains(run):
    losses = logged(run / "04-midtrain", "loss")
    assert losses[-1] < 0.3 * losses[0]
    manifests = {path.parent.name[3:]: json.loads(path.read_text()) for path in run.glob("[0-9]*/manifest.json")}
    assert manifests["dpo"]["summary"]["steps"] > 0 and manifests["rl"]["summary"]["updates"] > 0
    assert manifests["rl"]["summary"]["probe_gap"] < 1e-4 and max(logged(run / "07-rl", "sampler_gap")) < 1e-4
    scores = json.loads((run / "scores.json").read_text())["scores"]
    assert [score["stage"] for score in scores] == ["base", *TRAINED] and all(score["main"] for score in scores)
    assert (run / "report.html").exists()


@pytest.mark.slow
def test_it_learns_to_stop(run):
    """The base's answers are cut off; after training, answers end with the end of the turn."""
    truncated = {s["stage"]: s["truncated"] for s in json.loads((run / "scores.json").read_text())["scores"]}
    assert truncated["base"] > 0.9 and truncated["sft"] < 0.5


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("stage", ["04-midtrain", "07-rl"])
def test_each_folder_is_read_by_plain_transformers_with_the_same_logits_on_both_sides_of_the_limit(run, stage):
    ours, tokenizer = models.load(run / stage / "model")
    plain = AutoModelForCausalLM.from_pretrained(run / stage / "model", attn_implementation="sdpa")
    rope = plain.config.rope_parameters
    assert rope["short_factor"] == rope["long_factor"] != [1.0] * len(rope["long_factor"])
    assert plain.config.tie_word_embeddings and plain.lm_head.weight is plain.model.embed_tokens.weight
    for length in (ORIGINAL // 2, 3 * ORIGINAL):
        ids = torch.arange(length)[None] % Chat(tokenizer).size
        torch.testing.assert_close(plain(ids).logits, ours(ids).logits, rtol=0, atol=1e-4)
    assert plain.generation_config.eos_token_id == list(Chat(tokenizer).stops)
    turn = [{"role": "user", "content": "1 + 1?"}]
    prompt = AutoTokenizer.from_pretrained(run / stage / "model").apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|user|>1 + 1?<|end|><|assistant|>"


def test_the_recipe_is_estimated_before_any_input_exists(capsys):
    """The paper's 150 B tokens in steps of 128 rows of 16,384, for 3.8 B parameters."""
    recipe = read_recipe(RECIPE)
    estimates = {stage.name: estimate(recipe, stage) for stage in recipe.stages}
    assert recipe.longest == 32768
    assert estimates["midtrain"].tokens == 150_000_000_000 and estimates["midtrain"].steps == 71_526
    assert estimates["midtrain"].lines["model"] == "3,836,021,760 parameters"
    for name in TRAINED:
        assert (
            20e9 < estimates[name].memory < 141e9 and estimates[name].disk > 100e9 and estimates[name].seconds > 3600
        ), name
        assert "does not fit" not in estimates[name].lines
