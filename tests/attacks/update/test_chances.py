"""Probabilities of items from powers: calibrated on other clients, and the same for all where powers say nothing."""

import numpy as np
from jaxtyping import Bool, Float

from pplr_audit.attacks.update.chances import PowerCurve

ITEMS, HELD = 400, 20


def drawn(
    clients: int, seed: int, tells: float
) -> tuple[Float[np.ndarray, "clients items"], Bool[np.ndarray, "clients items"]]:
    """Return powers of clients' items, larger by ``tells`` (in logarithms) where a client has an item."""
    generator = np.random.default_rng(seed)
    true = np.zeros((clients, ITEMS), dtype=bool)
    true[:, :HELD] = True
    powers = np.exp(generator.normal(tells * true, 1.0))
    powers[:, HELD + 60 :] = 0.0
    return powers, true


def test_as_many_items_are_there_as_is_stated_at_each_level() -> None:
    curve = PowerCurve(*drawn(16, 0, 3.0))
    powers, true = drawn(60, 1, 3.0)
    told = np.stack([curve.chances(own) for own in powers])
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        inside = (told >= low) & (told < high)
        assert inside.sum() > 50
        assert abs(told[inside].mean() - true[inside].mean()) < 0.1
    assert told[powers == 0].max() < 0.01


def test_powers_that_say_nothing_or_the_opposite_leave_all_named_items_alike() -> None:
    for tells in (0.0, -3.0):
        curve = PowerCurve(*drawn(4, 0, tells))
        (own,), _ = drawn(1, 1, tells)
        told = curve.chances(own)[own > 0]
        assert np.ptp(told) < 0.2
        assert abs(told.mean() - HELD / (HELD + 60)) < 0.1


def test_a_simulation_in_which_all_are_told_apart_states_no_certainty() -> None:
    curve = PowerCurve(np.array([[1.0] * 5 + [0.0] * 95]), np.arange(100)[None] < 5)
    told = curve.chances(np.array([1.0] * 5 + [0.0] * 95))
    assert 0.7 < told[0] < 0.95
    assert 0 < told[-1] < 0.02
    assert curve.chances(np.zeros(100)).max() < 0.02, "nothing has power"
