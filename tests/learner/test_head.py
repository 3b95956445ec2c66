"""The chunked head equals the full head in log-probabilities, entropy and gradients, and holds no logits of a sequence."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForSequenceClassification

from tests.tiny_models import CLASSES, random_model
from whetstone.batch import Row, collate
from whetstone.learner import paired_head
from whetstone.learner.head import CHUNK, chunked_logprobs
from whetstone.learner.learner import Learner
from whetstone.learner.roots import Critic, Policy
from whetstone.run.cpu import has_bf16_vectors
from whetstone.run.settings import ParallelSettings

V, USED, C, N = 50, 43, 8, 17
BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}


def reference(hidden, weight, targets, temperature):
    """The whole logits in float64, by autograd: log-probabilities and entropy, (N,) each."""
    z = hidden.double() @ weight.double().T
    full = (z / temperature.double()[:, None]).log_softmax(-1)
    return full.gather(-1, targets[:, None])[:, 0], -(full.exp() * full).sum(-1)


def use_blocks(monkeypatch):
    """Blocks of 16 ids, the last of 2, for this small vocabulary too."""
    monkeypatch.setattr("whetstone.learner.head.FROM", 1)
    monkeypatch.setattr("whetstone.learner.wide_head.BLOCK", 0)
    monkeypatch.setattr("whetstone.learner.wide_head.LEAST", 16)


@pytest.mark.parametrize("asked", ["logprobs", "entropy", "both"])
@pytest.mark.parametrize("chunk", [3, 1000, "blocks"])
@pytest.mark.parametrize("dtype", BOUND)
def test_the_chunked_head_equals_the_full_head_forward_and_backward(dtype, chunk, asked, monkeypatch):
    """In chunks of tokens or in blocks of ids; with a temperature per token; gradients of hidden states and weight."""
    if chunk == "blocks":
        use_blocks(monkeypatch)
        chunk = None
    torch.manual_seed(0)
    hidden = torch.randn(N, C, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, C, dtype=dtype, requires_grad=True)
    targets, heat = torch.randint(V, (N,)), torch.rand(N, dtype=dtype) + 0.4
    of_logprobs, of_entropy = torch.randn(2, N, dtype=dtype)

    def loss(logprobs, entropy):
        return (of_logprobs * logprobs).sum() * (asked != "entropy") + (of_entropy * entropy).sum() * (
            asked != "logprobs"
        )

    expected = reference(hidden, weight, targets, heat)
    expected_gradients = torch.autograd.grad(loss(*expected), (hidden, weight))
    results = chunked_logprobs(hidden, weight, targets, heat, chunk)
    if asked == "logprobs":  # nobody asks for the entropy's gradient: not even with a weight of zero
        gradients = torch.autograd.grad((of_logprobs * results[0]).sum(), (hidden, weight))
    else:
        gradients = torch.autograd.grad(loss(*results), (hidden, weight))
    for a, b in zip((*results, *gradients), (*expected, *expected_gradients), strict=True):
        assert (a - b).abs().max() <= BOUND[dtype] * b.abs().max().clamp(min=1)


def test_hidden_states_in_bfloat16_are_multiplied_in_fp32():
    torch.manual_seed(0)
    hidden = torch.randn(N, C).bfloat16().requires_grad_()
    weight = torch.randn(V, C).bfloat16().requires_grad_()
    targets, heat = torch.randint(V, (N,)), torch.ones(N)
    logprobs, entropy = chunked_logprobs(hidden, weight, targets, heat, chunk=5)
    expected = reference(hidden, weight, targets, heat)
    assert logprobs.dtype == entropy.dtype == torch.float32
    for a, b in zip((logprobs, entropy), expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5)
    results = torch.autograd.grad(logprobs.sum(), (hidden, weight))
    for a, b in zip(results, torch.autograd.grad(expected[0].sum(), (hidden, weight)), strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)  # rounded once, at the end


@pytest.mark.skipif(not has_bf16_vectors(), reason="needs a CPU with AVX512-BF16")
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_in_blocks_products_in_bf16_round_their_factors_only(temperature, monkeypatch):
    """Of bf16 numbers, log-probabilities and entropies are exact to fp32; gradients differ by roundings to 8 bits."""
    use_blocks(monkeypatch)
    monkeypatch.setattr(paired_head, "LEAST", 7)
    monkeypatch.setattr(paired_head, "BLOCK", 0)
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, C).bfloat16().float().requires_grad_() for n in (N, V))
    targets, heat = torch.randint(V, (N,)), torch.full((N,), temperature)
    rounded = chunked_logprobs(hidden, weight, targets, heat, products=torch.bfloat16)
    exact = chunked_logprobs(*(x.double() for x in (hidden, weight)), targets, heat.double())
    along = torch.randn(2, N)
    gradients = []
    for found in (rounded, exact):
        total = (found[0] * along[0]).sum() + (found[1] * along[1]).sum()
        gradients.append(torch.autograd.grad(total, (hidden, weight)))
    for a, b in zip(rounded, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert a.dtype == torch.float32 and 0 < (a - b).norm() <= 0.006 * b.norm()


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_policy_is_the_model_with_its_own_logits(kind, tied, dtype):
    """Packed rows, prompts skipped, unused slots of the vocabulary masked; gradients of every weight."""
    rows = [Row([5, 6, 7, 8, 9], prompt=3), Row([1, 2, 3, 4], prompt=1), Row([9, 9], prompt=2)]
    batch, heat = collate(rows, dtype), 0.7
    model = random_model(kind, V, dtype, tie_word_embeddings=tied)
    logprobs, entropy = Policy(model, USED)(batch, heat)
    assert len(logprobs) == sum(row.scored for row in rows) == 5
    (logprobs.sum() + 0.3 * entropy.sum()).backward()
    results = [p.grad for p in model.parameters()]
    other = random_model(kind, V, dtype, tie_word_embeddings=tied)
    expected, spread = [], []
    for row in rows[:2]:
        logits = other(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, row.prompt - 1 : -1, :USED]
        full = (logits.double() / heat).log_softmax(-1)
        expected.append(full.gather(-1, torch.tensor(row.ids[row.prompt :])[:, None])[:, 0])
        spread.append(-(full.exp() * full).sum(-1))
    expected, spread = torch.cat(expected), torch.cat(spread)
    (expected.sum() + 0.3 * spread.sum()).backward()
    torch.testing.assert_close(logprobs.double(), expected, rtol=0, atol=BOUND[dtype])
    torch.testing.assert_close(entropy.double(), spread, rtol=0, atol=BOUND[dtype])
    largest = max(float(p.grad.abs().max()) for p in other.parameters())
    for a, b in zip(results, other.parameters(), strict=True):
        assert (a - b.grad).abs().max() <= BOUND[dtype] * largest


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor."""

    numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        out = function(*arguments, **(more or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("entropy_too", [False, True])
def test_no_tensor_ever_holds_the_logits_of_all_tokens(entropy_too):
    tokens, vocabulary, chunk = 400, 300, 20
    hidden = torch.randn(tokens, C, requires_grad=True)
    weight = torch.randn(vocabulary, C, requires_grad=True)
    with Largest() as largest:
        logprobs, entropy = chunked_logprobs(
            hidden, weight, torch.randint(vocabulary, (tokens,)), torch.ones(tokens), chunk
        )
        (logprobs.sum() + (entropy.sum() if entropy_too else 0)).backward()
    assert largest.numbers == chunk * vocabulary < tokens * vocabulary


def test_a_learner_never_holds_the_logits_of_all_tokens():
    model = random_model("phi3", 2000)
    rows = [Row([i % 50 for i in range(CHUNK + 1)], weights=1 / CHUNK) for _ in range(3)]
    learner = Learner(model, 2000, ParallelSettings(device="cpu", forks=1, micro_batch_tokens=10_000))
    with Largest() as largest:
        learner.forward_backward([collate(rows)], lambda lp, h, b: (-(b.weights * lp).sum(), {}))
    assert largest.numbers == CHUNK * 2000 < 3 * CHUNK * 2000


# --- the scalar head


def critic_model(dtype: torch.dtype) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    config = random_model("llama", V).config
    config.num_labels = 1
    return LlamaForSequenceClassification(config).to(dtype).eval()


def bradley_terry(values, batch):
    """Bradley-Terry: rows come in pairs, and the value at a row's last token is its score."""
    good, bad = values[batch.ends][0::2], values[batch.ends][1::2]
    return -(batch.segment["share"][0::2] * torch.nn.functional.logsigmoid(good - bad)).sum(), {}


@pytest.mark.parametrize("dtype", BOUND)
def test_values_and_their_gradient_are_those_of_the_classifier(dtype):
    rows = [Row([1 + i, 2, 3, 4 + i][: 4 - i % 2], segment={"share": 0.5}) for i in range(4)]
    pairs = [rows[:2], rows[2:]]
    learner = Learner(critic_model(dtype), V, ParallelSettings(device="cpu", forks=1, micro_batch_tokens=8))
    loss = learner.gradient(pairs, bradley_terry)["loss"]
    other = critic_model(dtype)
    judged = [other(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, 0] for row in rows]
    expected = -sum(0.5 * torch.nn.functional.logsigmoid(judged[i] - judged[i + 1]) for i in (0, 2))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=BOUND[dtype])
    for (name, p), q in zip(learner.model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=BOUND[dtype], msg=name)
    (values,) = learner.values([collate(rows, dtype)])
    assert values.shape == (sum(len(row.ids) for row in rows),)
    for at, value in zip(torch.tensor([len(r.ids) for r in rows]).cumsum(0) - 1, judged, strict=True):
        torch.testing.assert_close(values[at], value.detach(), rtol=0, atol=BOUND[dtype])


def test_a_classifier_with_several_labels_is_refused_as_a_critic():
    config = random_model("llama", V).config
    config.num_labels = 3
    with pytest.raises(ValueError, match=r"has no scalar head: use .* num_labels = 1"):
        Critic(LlamaForSequenceClassification(config))
