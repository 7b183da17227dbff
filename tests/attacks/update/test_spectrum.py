"""Rank, noise and distances are told from a gradient's spectrum alone, for every family and size of batch."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pplr_audit.attacks.update.spectrum import Span, span
from tests.models.architectures import build, config

SINGLE = torch.finfo(torch.float32).eps
TOKENS = torch.tensor([[5, 9, 11, 30, 7, 8, 60, 21, 14, 3, 44, 18, 29, 33, 52, 41, 6, 10, 25, 37]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ranks(name: str, block: int, *, last: bool) -> tuple[int, ...]:
    """Ranks of the gradients of q, k and v, in float32, of a sequence of 20 different tokens."""
    model = build(AutoModelForCausalLM, config(name, dropout=False, **WIDE[name])).requires_grad_(True).eval()
    logits = model(TOKENS).logits
    learned = logits[:, -1:] if last else logits
    (learned * torch.linspace(-1, 1, logits.shape[-1])).tanh().square().sum().backward()
    if name == "gpt2":
        parts = model.transformer.h[block].attn.c_attn.weight.grad.T.chunk(3)
    else:
        attention = model.model.layers[block].self_attn
        parts = (attention.q_proj.weight.grad, attention.k_proj.weight.grad, attention.v_proj.weight.grad)
    return tuple(span(part).rank for part in parts)


WIDE = {"gpt2": {"n_embd": 64}, "llama": {"hidden_size": 64, "num_key_value_heads": 4}}


@pytest.mark.parametrize(
    ("name", "all_tokens", "last_token"), [("gpt2", (19, 19, 20), (1, 4, 4)), ("llama", (19, 20, 20), (1, 20, 4))]
)
def test_ranks_of_queries_keys_and_values_are_those_that_were_measured(
    name: str, all_tokens: tuple[int, ...], last_token: tuple[int, ...]
) -> None:
    """With 20 tokens and 4 heads; rotary positions break the null direction of the softmax, so keys tell one more."""
    assert ranks(name, 0, last=False) == all_tokens
    assert ranks(name, 2, last=True) == last_token


@pytest.mark.parametrize("rank", [1, 17, 120])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3])
def test_rank_and_noise_are_told_for_every_batch_by_one_rule(rank: int, noise: float) -> None:
    signal = drawn(300, rank) @ drawn(rank, 200, seed=1)
    found = span((signal + noise * drawn(300, 200, seed=2)).to(torch.float64 if noise else torch.float32))
    assert found.rank == rank
    if noise:
        assert found.noise == pytest.approx(noise, rel=0.02)
    else:
        assert 0 < found.noise < 1e-5 * float(found.values[0])


def test_noise_of_rows_and_columns_of_very_different_size_is_no_signal() -> None:
    sizes = torch.logspace(-2, 0, 300, dtype=torch.float64)[:, None] * torch.logspace(-1, 0, 200, dtype=torch.float64)
    assert span(50 * drawn(300, 5) @ drawn(5, 200, seed=1) + sizes * drawn(300, 200, seed=2)).rank == 5


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.3])
def test_distance_of_a_vector_of_the_span_is_as_expected_under_noise(noise: float) -> None:
    """The known value is what numbers drawn at random give; one threshold would be wrong for two of these."""
    inputs = drawn(20, 200)
    found = span(drawn(300, 20, seed=1) @ inputs + noise * drawn(300, 200, seed=2))
    along = inputs @ found.basis.T
    expected = (180 / 200 * (along.square() @ found.turned)).sqrt() / inputs.norm(dim=1)
    assert torch.allclose(found.distances(inputs), expected, rtol=0.2)
    assert bool((found.log_odds(inputs) > 0).all())
    assert bool((found.log_odds(drawn(500, 200, seed=3)) < -3).all())


def test_near_misses_are_outside_where_there_is_no_noise_and_inside_where_there_is() -> None:
    inputs = drawn(20, 200)
    near = inputs + 1e-3 * drawn(20, 200, seed=5)
    signal = drawn(300, 20, seed=1) @ inputs
    assert bool((span(signal.float()).log_odds(near) < 0).all())
    assert bool((span(signal + 0.02 * drawn(300, 200, seed=2)).log_odds(near) > 0).all())


def test_of_fewer_rows_than_tokens_the_true_ones_still_rank_first() -> None:
    inputs = drawn(12, 200)
    found = span(drawn(8, 12, seed=1) @ inputs)
    assert found.rank == 8
    assert not found.whole
    assert found.noise == 0
    assert found.log_odds(inputs).median() > found.log_odds(drawn(500, 200, seed=3)).max()


def test_a_sketch_estimates_squared_distances() -> None:
    found, vectors = span(drawn(300, 150, seed=1) @ drawn(150, 200)), drawn(50, 200, seed=3)
    estimate = (vectors @ found.sketch(4000).T).square().mean(1).sqrt() / vectors.norm(dim=1)
    assert torch.allclose(estimate, found.distances(vectors), rtol=0.1)


def test_a_matrix_of_zeros_spans_nothing() -> None:
    found = span(torch.zeros(30, 20))
    assert (found.rank, found.noise) == (0, 0.0)
    assert isinstance(found, Span)
    assert float(found.distances(torch.ones(20))) == pytest.approx(1.0)
