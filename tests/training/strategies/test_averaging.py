"""Averaging by product against the dense computation that it avoids."""

import numpy as np
import pytest
import torch

from pplr_audit import scenario
from pplr_audit.training.strategies.averaging import averaged, averaged_product, product_similarity, products
from pplr_audit.training.strategies.balance import mix, similarity
from pplr_audit.training.strategies.pplr import Pplr
from pplr_audit.training.strategies.protocol import Contribution

A, B = "q.lora_A.default.weight", "q.lora_B.default.weight"


def adapters(count: int, rank: int = 3, outputs: int = 7, inputs: int = 11) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(count)
    return [
        {
            A: torch.randn(rank, inputs, generator=generator),
            B: torch.randn(outputs, rank, generator=generator),
            "norm": torch.randn(4, generator=generator),
        }
        for _ in range(count)
    ]


def dense(adapter: dict[str, torch.Tensor]) -> torch.Tensor:
    return adapter[B].double() @ adapter[A].double()


@pytest.mark.parametrize(("outputs", "inputs", "count"), [(7, 11, 3), (11, 7, 3), (4, 5, 6), (30, 40, 2)])
def test_the_new_factors_are_the_truncated_svd_of_the_averaged_dense_product(
    outputs: int, inputs: int, count: int
) -> None:
    snapshot = adapters(count, 3, outputs, inputs)
    weights = np.random.default_rng(0).dirichlet(np.ones(count))
    (new,) = averaged(snapshot, weights[None, :], "product")
    whole = sum(float(w) * dense(adapter) for w, adapter in zip(weights, snapshot, strict=True))
    u, s, v = torch.linalg.svd(whole, full_matrices=False)
    best = u[:, :3] * s[:3] @ v[:3]
    assert torch.allclose(dense(new), best, atol=1e-5)
    assert new[A].shape == snapshot[0][A].shape
    assert new[A].dtype == torch.float32
    left_out = float((dense(new) - whole).norm())
    assert left_out == pytest.approx(float(s[3:].square().sum().sqrt()), abs=1e-5)
    (plain,) = mix(snapshot, weights[None, :])
    assert float((dense(plain) - whole).norm()) > left_out, "factors apart from each other are not the same average"
    assert torch.equal(new["norm"], plain["norm"])


def test_with_one_shared_a_the_average_of_products_is_exact() -> None:
    snapshot = adapters(3)
    for adapter in snapshot[1:]:
        adapter[A] = snapshot[0][A]
    (new,) = averaged(snapshot, np.array([[0.2, 0.3, 0.5]]), "product")
    expected = sum(w * dense(adapter) for w, adapter in zip((0.2, 0.3, 0.5), snapshot, strict=True))
    assert torch.allclose(dense(new), expected, atol=1e-6)


def test_an_adapter_that_has_learned_nothing_can_still_learn_afterwards() -> None:
    """At the start B = 0; if A became zero too, neither factor would ever get a gradient again."""
    snapshot = adapters(3)
    for adapter in snapshot:
        adapter[A], adapter[B] = snapshot[0][A], torch.zeros_like(adapter[B])
    new_a, new_b = averaged_product(
        [a[A].double() for a in snapshot], [a[B].double() for a in snapshot], np.ones(3) / 3
    )
    assert (new_b == 0).all()
    assert torch.allclose(new_a.norm(), snapshot[0][A].double().norm())
    assert torch.linalg.matrix_rank(new_a) == 3
    # The new A spans what the old one spanned.
    assert torch.linalg.matrix_rank(torch.cat([new_a, snapshot[0][A].double()]), rtol=1e-6) == 3


def test_who_takes_only_from_itself_keeps_its_own_factors_to_the_bit() -> None:
    snapshot = adapters(3)
    for own, new in zip(snapshot, averaged(snapshot, np.eye(3), "product"), strict=True):
        assert all(torch.equal(own[name], new[name]) for name in own)


def test_equal_products_in_other_factors_become_the_same_factors() -> None:
    snapshot = adapters(2)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]
    turned = [{**adapter, A: turn @ adapter[A], B: adapter[B] @ turn.T} for adapter in snapshot]
    weights = np.array([[0.4, 0.6]])
    (one,), (other,) = averaged(snapshot, weights, "product"), averaged(turned, weights, "product")
    assert torch.allclose(one[A], other[A], atol=1e-4)
    assert torch.allclose(one[B], other[B], atol=1e-4)


def test_the_similarity_of_products_is_that_of_the_dense_matrices() -> None:
    snapshot = adapters(4)
    flat = [{"w": dense(adapter), "norm": adapter["norm"]} for adapter in snapshot]
    assert np.allclose(product_similarity([products(adapter) for adapter in snapshot]), similarity(flat), atol=1e-9)
    updates = [{name: 0.1 * value.flip(0) for name, value in adapter.items()} for adapter in snapshot]
    before = [{n: a[n] + u[n] for n in a} for a, u in zip(snapshot, updates, strict=True)]
    change = [{"w": dense(b) - dense(a), "norm": b["norm"] - a["norm"]} for a, b in zip(snapshot, before, strict=True)]
    got = product_similarity([products(a, u) for a, u in zip(snapshot, updates, strict=True)])
    assert np.allclose(got, similarity(change), atol=1e-6)


@pytest.mark.parametrize("of", ["parameters", "update"])
def test_the_balance_of_products_does_not_depend_on_the_factors_they_are_written_in(of: str) -> None:
    snapshot = adapters(3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]

    def balanced(how: str, turns: list[torch.Tensor]) -> np.ndarray:
        got = []
        for i, (adapter, r) in enumerate(zip(snapshot, turns, strict=True)):
            after = {**adapter, A: r @ adapter[A], B: adapter[B] @ r.T}
            update = {name: 0.2 * value for name, value in after.items()}
            got.append(Contribution(f"c{i}", after, update, 1.0 + i / 10, 5))
        training = scenario.Training(averaging=how, similarity=of, tau=1.0)  # type: ignore[arg-type]
        similar = Pplr(training).mixing(got, 1).similarity
        assert similar is not None
        return similar

    plain, turned = [torch.eye(3)] * 3, [torch.eye(3), turn, turn @ turn]
    assert np.allclose(balanced("product", plain), balanced("product", turned), atol=1e-6)
    assert not np.allclose(balanced("factors", plain), balanced("factors", turned), atol=1e-2)
