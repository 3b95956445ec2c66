"""Packed = each sequence alone, for every class; windows are kept; the GPU kernel is called by its signature."""

import inspect
import random

import pytest
import torch
import torch.nn.functional as F

from tests.tiny_models import CLASSES, WINDOWED, random_model, windowed_model
from whetstone.attention import Segments, _Share, _Unshare, attend, kernel_of, packed_attention
from whetstone.batch import Row, collate
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.model import hidden_states
from whetstone.run.settings import ParallelSettings

V = 50
RAGGED = [[4, 30, 9], [17, 17, 61, 5], [64, 8, 33, 12, 7, 21]]


def ids_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(V) for _ in range(n)] for n in lengths]


def rows_keep_their_bits(model: torch.nn.Module, lengths: list[int]) -> bool:
    """Whether this machine's products with the model's matrices give a row the same bits beside other rows as alone."""
    for linear in (module for module in model.modules() if isinstance(module, torch.nn.Linear)):
        torch.manual_seed(0)
        x, weight = torch.randn(sum(lengths), linear.in_features), linear.weight.detach()
        alone = torch.cat([F.linear(part, weight) for part in x.split(lengths)])
        if not torch.equal(F.linear(x, weight), alone):
            return False
    return True


@pytest.mark.parametrize("lengths", RAGGED, ids=str)
@pytest.mark.parametrize("kind", CLASSES)
def test_packed_logits_equal_those_of_each_sequence_alone_to_the_bit(kind, lengths):
    model = random_model(kind, V)
    sequences = ids_of(lengths)
    batch = collate([Row(ids) for ids in sequences])
    exact = rows_keep_their_bits(model, lengths)
    with torch.no_grad():
        packed = hidden_states(model, batch.ids, batch.positions, lengths=lengths)[0] @ model.lm_head.weight.T
        for ids, part in zip(sequences, packed.split(lengths), strict=True):
            alone = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            if exact:
                assert torch.equal(part, alone)
            torch.testing.assert_close(part, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
# afmoe: transformers' product of experts takes no float64
@pytest.mark.parametrize("kind", [*CLASSES, *(f"{kind} windowed" for kind in WINDOWED if kind != "afmoe")])
def test_packed_gradients_equal_those_of_plain_transformers(kind, tied):
    """The oracle is each sequence alone through transformers' own attention and head, in float64 and in float32."""
    name, _, windowed = kind.partition(" ")
    exact = 1e-7 if name == "gemma3" else 1e-10  # Gemma's norms always compute in float32
    for dtype, bound in ((torch.float64, exact), (torch.float32, 1e-5)):
        make = windowed_model if windowed else random_model
        model = make(name, V, dtype, tie_word_embeddings=tied)
        rows = token_mean([Row(ids, prompt=2) for ids in ids_of([4, 30, 9, 17])])
        loss = Learner(model, V, ParallelSettings()).forward_backward([collate(rows, dtype)], next_token_loss)["loss"]
        packed = {n: p.grad.clone() for n, p in model.named_parameters()}
        model.zero_grad()
        model.set_attn_implementation("sdpa")
        total = torch.zeros((), dtype=dtype)
        for row in rows:
            logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, 1:-1]
            total = total + row.weights * F.cross_entropy(logits, torch.tensor(row.ids[2:]), reduction="sum")
        total.backward()
        assert loss == pytest.approx(total.item(), rel=bound)
        most = max(p.grad.abs().max() for p in model.parameters())
        for n, p in model.named_parameters():
            assert (packed[n] - p.grad).abs().max() <= bound * most, n


def reference(query, key, value, lengths, scaling, window):
    """Everything masked by hand in one T x T matrix, float64: (1, H, T, D)."""
    query, key, value = (x.double() for x in (query, key, value))
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    segment = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    behind = torch.arange(len(segment))[:, None] - torch.arange(len(segment))
    visible = (segment[:, None] == segment) & (behind >= 0) & (behind < (window or len(segment)))
    scores = (query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)).masked_fill(~visible, float("-inf"))
    return scores.softmax(-1) @ value


def tensors(lengths, dtype=torch.float32):
    torch.manual_seed(0)
    n = sum(lengths)
    return tuple(torch.randn(1, heads, n, 16).to(dtype) for heads in (4, 2, 2))


@pytest.mark.parametrize("scaling", [None, 0.1])
@pytest.mark.parametrize("window", [None, 1, 3, 8, 22, 100])
def test_segments_and_windows_are_those_of_a_mask_made_by_hand(window, scaling):
    lengths = [7, 1, 22, 16]
    query, key, value = tensors(lengths)
    result = packed_attention(query, key, value, lengths, scaling, window)
    torch.testing.assert_close(
        result.double(), reference(query, key, value, lengths, scaling, window), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("window", [None, 3])
def test_packed_attention_equals_each_segment_alone_to_the_bit(window):
    lengths = [7, 1, 22]
    whole = tensors(lengths)
    packed = packed_attention(*whole, lengths, None, window).split(lengths, 2)
    for part, *alone in zip(packed, *(x.split(lengths, 2) for x in whole), strict=True):
        assert torch.equal(part, packed_attention(*alone, [part.shape[2]], None, window))


SHARED = ([7, 9, 22, 4, 5, 6, 6], [0, 3, 3, 0, 0, 2, 2])  # lengths, and what is shared: 3 by three, 2 by the last three


def unshared(x: torch.Tensor) -> torch.Tensor:
    """The whole sequences of a row that has shared prompts once, by hand."""
    parts = x.split([3, 4, 6, 19, 4, 2, 3, 4, 4], 2)
    return torch.cat([parts[i] for i in (0, 1, 0, 2, 0, 3, 4, 5, 6, 5, 7, 5, 8)], 2)


@pytest.mark.parametrize("window", [None, 4])
def test_sequences_that_share_a_prompt_attend_to_the_bit_as_if_each_had_its_own(window):
    lengths, shared = SHARED
    segments = Segments(lengths, shared=shared)
    query, key, value = tensors([sum(lengths) - sum(shared)])
    result = packed_attention(query, key, value, segments, 0.3, window)
    whole = packed_attention(*map(unshared, (query, key, value)), lengths, 0.3, window)
    assert torch.equal(result, whole[:, :, segments.make_indices().kept])
    torch.testing.assert_close(unshared(result), whole, rtol=0, atol=1e-6)


def test_the_indices_for_a_gpu_give_what_the_pieces_give():
    segments = Segments(SHARED[0], shared=SHARED[1])
    indices = segments.make_indices()
    row = torch.randn(1, 2, sum(segments.pieces), 4)
    whole = row[:, :, indices.unshared]
    assert torch.equal(whole, torch.cat(segments.unshare(row), 2)) and torch.equal(whole, unshared(row))
    assert torch.equal(whole[:, :, indices.kept], row)
    tokens = row[0].transpose(0, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _Unshare.apply(x, indices), tokens)
    sequences = _Unshare.apply(tokens, indices).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _Share.apply(x, indices), sequences)
    assert torch.equal(_Share.apply(sequences, indices), tokens)


def test_on_a_cpu_attention_is_in_fp32_even_under_autocast():
    """Under autocast the rotary embedding gives queries and keys in fp32, and values are in bf16."""
    query, key, value = tensors([7, 22])
    value = value.bfloat16()
    alone = packed_attention(query, key, value, [7, 22], None)
    with torch.autocast("cpu", torch.bfloat16):
        inside = packed_attention(query, key, value, [7, 22], None)
    assert inside.dtype == torch.float32 and torch.equal(alone, inside)
    torch.testing.assert_close(inside.double(), reference(query, key, value, [7, 22], None, None), rtol=0, atol=1e-6)


def test_what_is_not_supported_is_refused():
    query, key, value = tensors([5])
    with pytest.raises(ValueError, match="Linear asks for attention with a soft cap"):
        attend(torch.nn.Linear(1, 1), query, key, value, None, softcap=50.0)
    with pytest.raises(ValueError, match="with sinks"):
        attend(torch.nn.Linear(1, 1), query, key, value, None, s_aux=torch.zeros(4))
    with pytest.raises(ValueError, match="with dropout"):
        attend(torch.nn.Linear(1, 1), query, key, value, None, dropout=0.1)
    with pytest.raises(ValueError, match="a batch of 2 rows"):
        attend(torch.nn.Linear(1, 1), query.expand(2, -1, -1, -1), key, value, None)


# --- the GPU kernel, with the signatures of torch 2.11 and 2.13; computed here with a mask


def masked(query, key, value, ends, scale, window_size):
    lengths = ends.diff().tolist()
    window = None if window_size[0] < 0 else window_size[0] + 1
    out = reference(*(x.transpose(0, 1)[None] for x in (query, key, value)), lengths, scale, window)
    return out[0].transpose(0, 1).to(query.dtype)


def torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    assert query.shape == key.shape == value.shape, "heads must be as many"
    assert cu_seq_q is cu_seq_k and max_q == max_k == cu_seq_q.diff().max() and cu_seq_q.dtype == torch.int32
    assert window_size[1] == 0 and isinstance(window_size, tuple)
    return masked(query, key, value, cu_seq_q, scale, window_size)


def torch_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert window_size[1] == 0 and isinstance(window_size, tuple)
    return masked(query, key, value, cu_seq_q, scale, window_size)


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("kernel", [kernel_of(torch_2_11), kernel_of(torch_2_13)])
def test_the_gpu_kernel_is_asked_for_what_the_loop_computes(kernel, window):
    lengths = [7, 1, 22]
    query, key, value = tensors(lengths)
    segments = Segments(lengths, "meta")
    segments.cu_seqlens = torch.tensor([0, 7, 8, 30]).int()
    result = kernel(*(x[0].transpose(0, 1) for x in (query, key, value)), segments, 0.3, window)
    expected = packed_attention(query, key, value, lengths, 0.3, window)[0].transpose(0, 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_the_installed_signature_is_one_of_those():
    from torch.nn.attention.varlen import varlen_attn

    assert {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 5])
def test_on_a_gpu_the_kernel_gives_what_the_loop_gives(window):
    lengths = [7, 1, 22]
    query, key, value = (x.to("cuda", torch.bfloat16) for x in tensors(lengths))
    result, _ = attend(torch.nn.Identity(), query, key, value, None, lengths=lengths, sliding_window=window)
    expected = reference(*(x.cpu() for x in (query, key, value)), lengths, None, window).transpose(1, 2)
    torch.testing.assert_close(result.cpu().double(), expected, rtol=0, atol=2e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_shared_prompts_are_seen_by_all_that_share_them():
    lengths, shared = SHARED
    row = tensors([sum(lengths) - sum(shared)])
    on_gpu = [x.to("cuda", torch.bfloat16).requires_grad_() for x in row]
    result, _ = attend(torch.nn.Identity(), *on_gpu, None, lengths=Segments(lengths, "cuda", shared))
    result.float().square().sum().backward()
    on_cpu = [x.detach().cpu().double().requires_grad_() for x in on_gpu]
    expected = packed_attention(*on_cpu, Segments(lengths, shared=shared), None).transpose(1, 2)
    expected.square().sum().backward()
    torch.testing.assert_close(result.cpu().double(), expected, rtol=0, atol=2e-2)
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(gpu.grad.cpu().double(), cpu.grad, rtol=0.05, atol=0.05)
