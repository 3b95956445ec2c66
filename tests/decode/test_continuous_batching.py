"""Each completion is the one it would be alone, whatever enters, grows, is preempted or is cancelled beside it."""

import random

import pytest
import torch

from tests.tiny_models import random_model, tiny
from whetstone.chat import ask
from whetstone.decode.block_manager import BlockManager
from whetstone.decode.continuous_batching import Scheduler
from whetstone.decode.decoding import Piece
from whetstone.decode.engine import Engine
from whetstone.decode.kv_cache import BLOCK, KVCache
from whetstone.decode.sequence import Edit, Sequence
from whetstone.records import Prompt, Sampling


def sequence(prompt_ids=(), index: int = 0) -> Sequence:
    return Sequence(ask("p", "", index), list(prompt_ids), Sampling(max_tokens=9))


@pytest.mark.parametrize("seed", range(20))
def test_tables_list_their_blocks_through_any_allocation_sharing_and_truncation(seed):
    draw = random.Random(seed)
    blocks = BlockManager(40, cache=None)
    owners: dict[Sequence, list[int]] = {}  # the table that each should have
    for _ in range(200):
        action = draw.choice(["allocate", "allocate", "allocate", "share", "truncate", "leave"])
        owner = draw.choice(list(owners)) if owners else None
        if action == "allocate" and blocks.free > 4:
            new = sequence() if owner is None or draw.random() < 0.5 else owner
            held = {block for table in owners.values() for block in table}
            blocks.allocate(new, count := draw.randint(1, 3))
            owners[new] = [*owners.get(new, []), *new.block_table[-count:]]
            assert len(held | set(new.block_table[-count:])) == len(held) + count, (
                "a block that another table lists was allocated"
            )
        elif action == "share" and owner is not None:
            other = sequence()
            count = draw.randint(0, len(owner.block_table))
            blocks.share(owner.block_table[:count], other)
            owners[other] = owners[owner][:count]
        elif action in ("truncate", "leave") and owner is not None:
            count = draw.randint(0, len(owner.block_table)) if action == "truncate" else 0
            blocks.truncate(owner, count)
            del owners[owner][count:]
            if action == "leave":
                del owners[owner]
        assert all(owner.block_table == table for owner, table in owners.items())
        assert len({block for table in owners.values() for block in table}) == 40 - blocks.free


@pytest.fixture(scope="module")
def world():
    _, tokenizer = tiny()
    return random_model("qwen2", len(tokenizer)), tokenizer


def prompts(count: int, samples: int = 1) -> list[Prompt]:
    draw = random.Random(5)
    return [
        ask(f"p{i}", " ".join(str(draw.randint(0, 99)) for _ in range(draw.randint(1, 14))), g)
        for i in range(count)
        for g in range(samples)
    ]


def ids(engine, asked, sampling, **more):
    return {(c.problem_id, c.index): (c.ids, c.stop) for c in engine.generate(asked, sampling, **more)}


def budget(blocks: int) -> int:
    return blocks * KVCache.bytes_per_block(2, 2, 16, torch.float32)


def test_a_cache_too_small_for_all_preempts_the_last_and_changes_nothing(world):
    asked, sampling = prompts(10, 3), Sampling(max_tokens=90, seed=2)
    plenty = ids(Engine(*world), asked, sampling)
    small = Engine(*world, cache_bytes=budget(16))
    decoding = small.decode(asked, sampling)
    results = {}
    while decoding.busy:
        results |= {(c.problem_id, c.index): (c.ids, c.stop) for c in decoding.step()}
        scheduler = decoding.scheduler
        listed = {block for running in scheduler.running for block in running.block_table}
        assert len(listed) == 16 - scheduler.blocks.free, "a block is neither free nor in a running sequence's table"
    assert decoding.scheduler.preemptions > 1, "nothing was preempted: the test would not see it"
    assert small.runner._cache.capacity == 16
    assert results == plenty


@pytest.mark.parametrize("seed", range(12))
def test_however_tight_the_cache_groups_are_answered_as_with_plenty(world, seed):
    """Sequences are preempted in every state, also while they wait for a sibling."""
    draw = random.Random(seed)

    class Script:
        removable = ()

        def __init__(self, prompt):
            self.length = 1 + (7 * prompt.index + len(prompt.problem_id) + seed) % 80

        def __call__(self, ids):
            return Edit(ends="length" if len(ids) >= self.length else "")

    asked = prompts(8, 10)
    sampling = Sampling(max_tokens=80, seed=seed)
    plenty = ids(Engine(*world), asked, sampling, control=Script)
    tight = {"cache_bytes": budget(draw.randint(6, 60)), "max_batch": draw.randint(2, 40)}
    engine = Engine(*world, **tight, prefill_tokens=draw.choice([7, 40, 8192]))
    assert ids(engine, asked, sampling, control=Script) == plenty


def test_no_sibling_waits_for_the_prefill_of_a_preempted_sequence_that_also_runs_its_completion():
    prompt = list(range(BLOCK + 1))
    preempted, new = sequence(prompt, 0), sequence(prompt, 1)
    preempted.ids, preempted.logprobs = [5] * BLOCK, [0.0] * BLOCK
    scheduler = Scheduler(BlockManager(20, cache=None), max_batch=4, prefill_tokens=1000)
    scheduler.waiting += [preempted, new]
    prefills, _ = scheduler.schedule()
    assert prefills == [(preempted, 2 * BLOCK + 1)]
    assert scheduler.advance(*prefills[0]) == [preempted]
    preempted.ids.append(5)
    assert scheduler.schedule() == ([], [preempted, new]), "it shares the whole block and runs the last token itself"


def test_a_prompt_that_can_never_fit_is_refused_with_the_numbers(world):
    with pytest.raises(ValueError, match=r"needs 0\.1 MiB of cache"):
        list(Engine(*world, cache_bytes=budget(3)).generate(prompts(1), Sampling(max_tokens=90)))


@pytest.mark.parametrize("prefill_tokens", [5, 31, 64])
def test_a_prompt_run_in_parts_while_others_decode_gives_the_same(world, prefill_tokens):
    asked, sampling = prompts(8, 2), Sampling(max_tokens=40, seed=1)
    unsplit = ids(Engine(*world), asked, sampling)
    assert ids(Engine(*world, max_batch=5, prefill_tokens=prefill_tokens), asked, sampling) == unsplit


@pytest.mark.parametrize("max_batch", [8, 3])
def test_the_prompt_of_a_group_is_run_once_and_its_blocks_are_shared(world, max_batch, monkeypatch):
    """Rollouts that enter later run the prompt's last token and nothing else of it."""

    class Script:
        removable = ()

        def __init__(self, prompt):
            self.length = 2 + prompt.index  # one leaves after the other

        def __call__(self, ids):
            return Edit(ends="length" if len(ids) >= self.length else "")

    engine = Engine(*world, max_batch=max_batch)
    asked = [ask("p", "1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14 + 15", g) for g in range(8)]
    sampling = Sampling(max_tokens=10)
    decoding = engine.decode(asked, sampling, Script)
    length = len(decoding.scheduler.waiting[0].prompt_ids)
    run, most = [], 0
    schedule = decoding.scheduler.schedule

    def watched():
        prefills, decodes = schedule()
        run.append(sum(n for _, n in prefills) + len(decodes))
        return prefills, decodes

    monkeypatch.setattr(decoding.scheduler, "schedule", watched)
    results = {}
    while decoding.busy:
        results |= {c.index: c.ids for c in decoding.step()}
        most = max(most, decoding.scheduler.blocks.capacity - decoding.scheduler.blocks.free)
    written = sum(map(len, results.values()))
    assert sum(run) <= length + written, "a prompt was run twice"
    assert most <= length // BLOCK + max_batch, "a block of the prompt is in the cache twice"
    assert length // BLOCK > 0 and len(results) == 8
    alone = {}
    for prompt in asked:
        alone |= {c.index: c.ids for c in Engine(*world).generate([prompt], sampling, Script)}
    assert results == alone


EXAMPLES = " ".join(f"{i} + {i} = {2 * i};" for i in range(40, 54))


# With three at once, all may end in one step, and with them what they hold
@pytest.mark.parametrize(
    ("max_batch", "prefill_tokens", "blocks", "times"), [(8, 8192, 400, 1), (3, 40, 400, 3), (8, 64, 24, 1)]
)
def test_a_common_beginning_of_different_prompts_is_run_once_and_changes_nothing(
    world, max_batch, prefill_tokens, blocks, times
):
    engine = Engine(*world, max_batch=max_batch, prefill_tokens=prefill_tokens, cache_bytes=budget(blocks))
    asked = [ask(f"p{i}", f"{EXAMPLES} {i} + 1 =", g, "Add.") for i in range(6) for g in range(2)]
    sampling = Sampling(max_tokens=12, seed=3)
    decoding = engine.decode(asked, sampling)
    prompts = [sequence.prompt_ids for sequence in decoding.scheduler.waiting]
    common = next(i for i in range(len(prompts[0])) if len({prompt[i] for prompt in prompts}) > 1) // BLOCK * BLOCK
    assert common >= 2 * BLOCK
    run, results = 0, {}
    schedule = decoding.scheduler.schedule

    def watched():
        nonlocal run
        prefills, decodes = schedule()
        run += sum(count for _, count in prefills) + len(decodes)
        return prefills, decodes

    decoding.scheduler.schedule = watched
    while decoding.busy:
        results |= {(c.problem_id, c.index): c.ids for c in decoding.step()}
    if not decoding.scheduler.preemptions:
        own = sum(len(prompt) - common for prompt in prompts)
        assert run <= times * common + own + sum(map(len, results.values())), "the beginning was run too often"
    alone = {}
    for prompt in asked:
        alone |= {(c.problem_id, c.index): c.ids for c in Engine(*world).generate([prompt], sampling)}
    assert results == alone
    assert decoding.scheduler.blocks.prefix(prompts[0]) == [], "a block that nobody holds can still be found"


def test_a_beginning_can_be_shared_once_it_is_written_and_while_a_table_lists_it():
    blocks = BlockManager(9, cache=None)
    ids = list(range(2 * BLOCK + 1))
    first = sequence(ids)
    blocks.allocate(first, 3)
    blocks.announce(first)
    found = blocks.prefix(ids)
    assert found == first.block_table[:2] and not blocks.written(found)
    first.cached = BLOCK
    blocks.wrote(first)
    assert blocks.written(found[:1]) and not blocks.written(found)
    assert blocks.prefix(ids[: 2 * BLOCK]) == found[:1], "the last token of a prompt must be run"
    assert blocks.prefix([7, *ids[1:]]) == [] and blocks.prefix([*ids[:BLOCK], *ids]) == found[:1]
    second = sequence(ids)
    blocks.share(found, second)
    blocks.truncate(first, 0)
    assert blocks.prefix(ids) == found
    blocks.truncate(second, 0)
    assert blocks.prefix(ids) == [] and blocks.free == 9


def test_a_cancelled_completion_leaves_at_once_and_the_others_stay_the_same(world):
    asked, sampling = prompts(4, 4), Sampling(max_tokens=30, seed=4)
    engine = Engine(*world, max_batch=9)
    undisturbed = ids(engine, asked, sampling)
    decoding = engine.decode(asked, sampling)
    results = {}
    for step in range(1000):
        if step == 0:
            assert decoding.cancel("p3", 3).ids == [], "it had not entered yet"
            decoding.cancel("p0", 0)  # the first of its group, before its prompt was run
        if step == 7:
            gone = decoding.cancel("p0", 1)
            assert gone.stop == "cancelled" and gone.ids == undisturbed["p0", 1][0][: len(gone.ids)] and gone.ids
            assert decoding.cancel("p0", 1) is None
        if not decoding.busy:
            break
        results |= {(c.problem_id, c.index): (c.ids, c.stop) for c in decoding.step()}
    kept = {key: value for key, value in undisturbed.items() if key not in {("p0", 0), ("p0", 1), ("p3", 3)}}
    assert results == kept


@pytest.mark.slow
def test_ten_thousand_queued_requests_stay_in_the_budget_and_each_is_answered_once(world):
    engine = Engine(*world, cache_bytes=budget(100))

    class Script:
        removable = ()

        def __init__(self, prompt):
            self.length = 1 + 40 * (int(prompt.problem_id) % 1000 == 0)

        def __call__(self, ids):
            return Edit(ends="length") if len(ids) >= self.length else None

    asked = [ask(str(i), "7", 0) for i in range(10_000)]
    decoding = engine.decode(asked, Sampling(max_tokens=70), Script)
    answered, most = [], 0
    while decoding.busy:
        answered += [int(c.problem_id) for c in decoding.step()]
        most = max(most, 100 - decoding.scheduler.blocks.free)
    assert sorted(answered) == list(range(10_000))
    cache = engine.runner._cache
    assert most <= cache.capacity == 100
    assert cache.keys.nbytes + cache.values.nbytes <= engine.runner.cache_bytes


def test_two_decodings_of_one_engine_are_independent(world):
    engine, sampling = Engine(*world), Sampling(max_tokens=20, seed=3)
    alone = ids(engine, prompts(6), sampling)
    first, second = engine.decode(prompts(6), sampling), engine.decode(prompts(6)[::-1], sampling)
    results: list[dict] = [{}, {}]
    while first.busy or second.busy:
        for decoding, into in zip((first, second), results, strict=True):
            if decoding.busy:
                into |= {(c.problem_id, c.index): (c.ids, c.stop) for c in decoding.step()}
    assert results == [alone, alone]


def test_streamed_pieces_join_to_the_text(world):
    asked, sampling = prompts(5), Sampling(max_tokens=40, seed=1)
    texts = {c.problem_id: c.text for c in Engine(*world).generate(asked, sampling)}
    written: dict[str, str] = {}
    done = {}
    count = 0
    for event in Engine(*world, max_batch=3).stream(asked, sampling):
        if isinstance(event, Piece):
            count += 1
            assert event.problem_id not in done
            written[event.problem_id] = written.get(event.problem_id, "") + event.text
        else:
            done[event.problem_id] = event.text
    assert written == done == texts
    assert count > 50


def test_a_stop_string_ends_the_text_before_it_and_is_never_shown(world):
    engine = Engine(*world)
    asked, sampling = prompts(6), Sampling(max_tokens=60, seed=1)
    texts = {c.problem_id: c.text for c in engine.generate(asked, sampling)}
    stop = max((t[i : i + 3] for t in texts.values() for i in range(len(t) - 3)), key="".join(texts.values()).count)
    stopping = Sampling(max_tokens=60, seed=1, stop=(stop,))
    shown: dict[str, str] = dict.fromkeys(texts, "")
    ended = 0
    for event in engine.stream(asked, stopping):
        if isinstance(event, Piece):
            shown[event.problem_id] += event.text
            continue
        expected = texts[event.problem_id].partition(stop)[0]
        assert event.text == expected == shown[event.problem_id]
        ended += event.stop == "stop"
    assert ended
    for done in engine.generate(asked, stopping):
        assert stop not in done.text


def test_a_stop_id_ends_a_completion_and_is_among_its_ids(world):
    engine = Engine(*world)
    asked = prompts(6)
    plain = ids(engine, asked, Sampling(max_tokens=60, seed=1))
    wanted = plain["p0", 0][0][10]
    for done in engine.generate(asked, Sampling(max_tokens=60, seed=1, stop_ids=(wanted,))):
        expected = plain[done.problem_id, 0][0]
        if wanted in expected:
            assert done.stop == "stop" and done.ids == expected[: expected.index(wanted) + 1]
        else:
            assert done.ids == expected
