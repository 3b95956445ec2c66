"""Decoding on a GPU, as far as a CPU can test it: torch's path, replayed steps, the kernels in Triton's interpreter."""

import pytest
import torch

from tests.interpreted import needs_triton, run_interpreted
from tests.tiny_models import random_model, tiny, windowed_model
from whetstone.batch import Row
from whetstone.chat import ask
from whetstone.decode import cpu_kernels
from whetstone.decode.cuda_graphs import GraphedStep, pack_plan
from whetstone.decode.engine import Engine
from whetstone.decode.kv_cache import KVCache
from whetstone.decode.paged_attention import padded_tables
from whetstone.decode.runner import CACHE_BYTES, CACHE_SHARE, ModelRunner, gpu_kernels
from whetstone.learner.learner import Learner
from whetstone.records import Sampling
from whetstone.run.settings import ParallelSettings

PROMPTS = [ask(f"p{i}", f"Compute {i} + {i * 37}" + " + 1" * (4 * i), g) for i in range(3) for g in range(2)]
SAMPLING = Sampling(max_tokens=14, seed=2)


def capture(run, plan):
    """Like a CUDA graph: a replay reads and writes the same tensors again."""
    out = run(plan)
    return plan, lambda: out.copy_(run(plan)), out


def completions(model, **settings):
    done = Engine(model, tiny()[1], **settings).generate(PROMPTS, SAMPLING)
    return {(c.problem_id, c.index): (c.ids, c.logprobs) for c in done}


def alike(first, second):
    assert {key: ids for key, (ids, _) in first.items()} == {key: ids for key, (ids, _) in second.items()}
    assert all(logprobs == pytest.approx(second[key][1], abs=1e-5) for key, (_, logprobs) in first.items())


@pytest.fixture
def without_cpu_kernels(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "TYPES", ())


@pytest.fixture
def replayed(monkeypatch, without_cpu_kernels):
    """Engines replay steps as on a GPU. Gives a list of the shapes that were captured."""
    plain, shapes = ModelRunner.allocate, []

    def allocate(self, wanted, least):
        blocks = plain(self, wanted, least)
        blocks.graphs = self._graphed_step(blocks.cache)
        blocks.graphs.capture = lambda run, plan: (shapes.append(plan.shape), capture(run, plan))[1]
        return blocks

    monkeypatch.setattr(ModelRunner, "allocate", allocate)
    return shapes


@pytest.mark.parametrize("settings", [{}, {"prefill_tokens": 20}, {"row_block": 4}], ids=str)
def test_torchs_path_gives_the_tokens_of_the_compiled_one(settings, monkeypatch):
    model = windowed_model("qwen2", len(tiny()[1]))
    compiled = completions(model, **settings)
    monkeypatch.setattr(cpu_kernels, "TYPES", ())
    alike(completions(model, **settings), compiled)


def test_replayed_steps_give_the_same_tokens_while_rows_come_and_go(replayed, monkeypatch):
    """Of six rollouts three or five run at once: steps of five rows are padded to six."""
    model = random_model("phi3", len(tiny()[1]))
    alike(completions(model, max_batch=3), completions(model, max_batch=5))
    assert replayed, "no step was captured: the test would not see it"
    plain = completions(model)
    monkeypatch.undo()
    alike(plain, completions(model))


def test_a_plan_is_padded_with_its_last_row_worked_out_by_hand():
    tables = padded_tables([[7, 9], [4]])
    assert tables.tolist() == [[7, 9], [4, 0]]
    plan = pack_plan([50, 60], [40, 3], tables, rows=3, width=4)
    assert plan.tolist() == [50, 60, 60, 40, 3, 3, 7, 9, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0]


def test_graphs_are_void_when_the_table_of_angles_is_replaced():
    """The third step of a shape is captured; the first after the table of angles grew is captured anew."""
    runs, captured = [], []

    def step(ids, positions, tables):
        runs.append(len(ids))
        return ids[:, None].float()

    def counted(run, plan):
        captured.append(plan.clone())
        return capture(run, plan)

    steps = GraphedStep(step, lambda length: 64 if length > 5 else 32, torch.device("cpu"))
    steps.capture = counted
    rows = [[0], [1], [2]]
    for number in range(4):
        assert steps([number, 5, 6], [1, 1, 1], rows).tolist() == [[number], [5], [6]]
    assert len(captured) == 1 and runs == [3] * 5
    steps([1, 2, 3], [9, 1, 1], rows)
    assert len(captured) == 2, "a replay would have read the angles that are gone"


def test_a_step_that_cannot_be_captured_runs_without_graphs_which_is_said_once(capsys):
    def refuses(run, plan):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    steps = GraphedStep(lambda ids, positions, tables: ids[:, None].float(), lambda length: 1, torch.device("cpu"))
    steps.capture = refuses
    for number in range(9):
        assert steps([number], [3], [[0]]).tolist() == [[number]]
    output = capsys.readouterr()
    assert (output.out + output.err).count("without CUDA graphs, which is slower: operation not permitted") == 1


def test_on_a_gpu_the_cache_may_take_a_share_of_what_is_free(monkeypatch):
    model, tokenizer = tiny()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40, 80))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    gpu = torch.device("cuda")
    assert Engine(model, tokenizer).runner._budget(gpu) == int(CACHE_SHARE * 40)
    assert Engine(model, tokenizer, cache_bytes=7).runner._budget(gpu) == 7
    assert Engine(model, tokenizer).runner._budget(torch.device("cpu")) == CACHE_BYTES


KERNELS = """
import torch
from tests.tiny_models import random_model, tiny
from whetstone.chat import ask
from whetstone.decode import engine, gpu_kernels, runner
from whetstone.records import Sampling

assert not (wrong := [
    (dtype, shape, fault)
    for dtype in (torch.float32, torch.float16)
    for shape in ((2, 3, 32), (1, 1, 16), (3, 2, 80), (1, 17, 96))
    if (fault := gpu_kernels.wrong(torch.device("cpu"), dtype, *shape))
]), wrong
tokenizer = tiny()[1]
model = random_model("phi3", len(tokenizer))
prompts, sampling = [ask(f"p{i}", "7 + 1" * (20 * i), 0) for i in range(2)], Sampling(max_tokens=3)
def completions(**settings):
    done = engine.Engine(model, tokenizer, **settings).generate(prompts, sampling)
    return {c.problem_id: (c.ids, c.logprobs) for c in done}
compiled = completions()
runner.gpu_kernels = lambda *_: gpu_kernels
for settings in ({}, {"row_block": 2}):
    for key, (ids, logprobs) in completions(**settings).items():
        assert ids == compiled[key][0], (settings, key)
        assert max(abs(a - b) for a, b in zip(logprobs, compiled[key][1])) < 1e-5
"""


@pytest.mark.slow
@needs_triton
def test_the_kernels_compute_what_torch_does():
    run_interpreted(KERNELS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_sampled_logprobs_are_those_the_learner_recomputes(dtype):
    tokenizer = tiny()[1]
    model = random_model("phi3", len(tokenizer), dtype).cuda()
    engine = Engine(model, tokenizer)
    done = list(engine.generate(PROMPTS, Sampling(max_tokens=60)))
    assert gpu_kernels(torch.device("cuda", 0), dtype, 2, 2, 16) is not None
    learner = Learner(model, len(tokenizer), ParallelSettings(device="cuda"))
    rows = [Row([*c.prompt_ids, *c.ids], prompt=len(c.prompt_ids)) for c in done]
    for c, recomputed in zip(done, learner.row_logprobs(rows), strict=True):
        assert (recomputed - torch.tensor(c.logprobs)).abs().mean() < (1e-4 if dtype == torch.float32 else 5e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("family", ["phi3", "qwen2", "llama"])
def test_on_a_gpu_answers_are_those_of_a_cpu_and_steps_are_replayed(family, monkeypatch):
    captured, plain = [], GraphedStep.capture
    monkeypatch.setattr(GraphedStep, "capture", lambda self, run, plan: (captured.append(1), plain(self, run, plan))[1])
    model = random_model(family, len(tiny()[1]))
    expected = completions(model)
    alike(completions(model.cuda()), expected)
    assert captured
    alike(completions(model, max_batch=3), expected)


def test_without_a_gpu_no_kernels_for_it_are_used():
    assert gpu_kernels(torch.device("cpu"), torch.float32, 2, 2, 16) is None
    cache = KVCache(1, 2, 2, 16, torch.float64, "cpu")
    assert cache.kernels is None and not cache.compiled
