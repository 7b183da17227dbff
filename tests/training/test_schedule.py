"""Which samples a local step holds, how fast it learns, and that sequences of one length go together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pplr_audit import scenario
from pplr_audit.training.optimizer import Stretch, rate_factor
from pplr_audit.training.schedule import batches, steps_per_round, stretch


def plan(lengths: np.ndarray, seed: int = 0, round_: int = 1, **changes: int) -> list[np.ndarray]:
    return batches(lengths, scenario.Training(**changes), seed=seed, client="client-0", round_=round_)  # type: ignore[arg-type]


def padding(lengths: np.ndarray, steps: list[np.ndarray]) -> float:
    """Share of all positions."""
    return 1 - lengths.sum() / sum(int(lengths[rows].max()) * len(rows) for rows in steps)


@given(count=st.integers(1, 3000), batch_size=st.integers(1, 40), epochs=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_every_epoch_holds_every_sample_once_in_as_many_steps_as_are_counted(
    count: int, batch_size: int, epochs: int, seed: int
) -> None:
    lengths = np.random.default_rng(seed).integers(5, 200, size=count)
    steps = plan(lengths, seed, batch_size=batch_size, local_epochs=epochs)
    assert len(steps) == steps_per_round(count, scenario.Training(batch_size=batch_size, local_epochs=epochs))
    each = len(steps) // epochs
    for epoch in range(epochs):
        part = steps[epoch * each : (epoch + 1) * each]
        assert sorted(np.concatenate(part).tolist()) == list(range(count))
        assert sorted(len(rows) for rows in part)[1:] == [batch_size] * (each - 1), "at most one is not full"


def test_the_order_is_another_one_each_epoch_round_and_seed_and_the_same_every_time() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, size=400)
    steps = plan(lengths, local_epochs=2)
    first, second = (np.concatenate(part).tolist() for part in (steps[:25], steps[25:]))
    others = [np.concatenate(plan(lengths, **changes)).tolist() for changes in ({"round_": 2}, {"seed": 1})]
    assert len({tuple(order) for order in (first, second, *others)}) == 4
    assert np.concatenate(plan(lengths)).tolist() == first


def test_with_many_samples_little_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, size=20_000)
    assert padding(lengths, plan(lengths)) < 0.1
    mixed = np.split(np.random.default_rng(1).permutation(20_000), 1250)
    assert padding(lengths, mixed) > 0.4, "in random batches much is"


def test_short_sequences_do_not_all_come_before_long_ones() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, size=20_000)
    means = np.array([lengths[rows].mean() for rows in plan(lengths)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.1
    assert abs(means[: len(means) // 2].mean() - means[len(means) // 2 :].mean()) < 30


def histories(count: int, seed: int = 0) -> np.ndarray:
    """Lengths of one to four titles of 2 to 40 tokens, as the histories of a shop are."""
    generator = np.random.default_rng(seed)
    titles = np.clip(generator.lognormal(2, 0.5, size=(count, 4)), 2, 40)
    held = np.arange(4) < generator.choice([1, 2, 3, 4], size=(count, 1), p=[0.1, 0.1, 0.1, 0.7])
    return 2 + (titles * held).sum(axis=1).astype(np.int64)


def together(steps: list[np.ndarray]) -> set[tuple[int, int]]:
    """The pairs of samples that share a batch."""
    return {(int(a), int(b)) for rows in steps for a in rows for b in rows if a < b}


def test_with_few_samples_little_is_padding_too() -> None:
    """Five clients of a few-shot training: of all their positions together, and of pooled samples."""
    for seed in range(5):
        for counts in ([308, 220, 183, 117, 196], [1024]):
            clients = [histories(count, seed) for count in counts]
            real = sum(int(lengths.sum()) for lengths in clients)
            steps = [(lengths, rows) for lengths in clients for rows in plan(lengths, seed)]
            assert 1 - real / sum(int(lengths[rows].max()) * len(rows) for lengths, rows in steps) < 0.1
        mixed = np.array_split(np.random.default_rng(seed).permutation(1024), 64)
        assert padding(clients[0], mixed) > 0.4, "in random batches much is"


@pytest.mark.parametrize(("spread", "again"), [(0, 0.15), (1, 0.15), (2, 0.3), (5, 0.4), (15, 0.8)])
def test_with_few_samples_batches_are_as_mixed_as_their_lengths_allow(spread: int, again: float) -> None:
    """Lengths that hardly differ are no reason to keep the same samples together; those that differ widely are."""
    lengths = 30 + (np.random.default_rng(0).normal(size=208) * spread).astype(np.int64).clip(-25, 100)
    kept = []
    for seed in range(5):
        first, second = (together(plan(lengths, seed, round_=round_)) for round_ in (1, 2))
        kept.append(len(first & second) / len(first))
    assert np.mean(kept) < again


def test_even_widely_differing_lengths_do_not_give_the_same_batches_again() -> None:
    lengths = np.arange(1, 209) ** 2
    first, second = (together(plan(lengths, round_=round_)) for round_ in (1, 2))
    assert first != second


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_less_than_a_few_batches_are_cut_without_complaint(count: int) -> None:
    """Where no order keeps padding low, the one with least of it is near."""
    lengths = np.arange(1, count + 1)
    steps = plan(lengths)
    assert sorted(np.concatenate(steps).tolist()) == list(range(count))
    at_random = np.split(np.random.default_rng(1).permutation(count), range(16, count, 16))
    assert padding(lengths, steps) <= padding(lengths, at_random) + 1e-9


def test_batches_of_few_samples_come_in_random_order() -> None:
    lengths = histories(208)
    ranks = [np.argsort([lengths[rows].mean() for rows in plan(lengths, seed)]).tolist() for seed in range(20)]
    firsts = {order[0] for order in ranks}
    assert len(firsts) > 5


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_evenly_through_the_warmup_and_then_follows_its_schedule(schedule: str) -> None:
    factors = [rate_factor(schedule, step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:] == pytest.approx([rate_factor(schedule, step, 90) for step in range(90)])
    assert max(factors) == 1.0
    assert min(factors) > 0


def test_without_a_warmup_the_first_step_is_at_the_full_rate() -> None:
    assert rate_factor("linear", 0, 4, 0.0) == 1.0
    assert rate_factor("constant", 0, 5, 0.1) == 1.0, "half a step of warmup is none"


def test_the_schedule_spans_all_rounds_and_epochs() -> None:
    training = scenario.Training(rounds=4, local_epochs=2, batch_size=16)
    assert [stretch(33, training, round_) for round_ in (1, 2, 4)] == [Stretch(0, 24), Stretch(6, 24), Stretch(18, 24)]
