"""The way to part a prompt is the best there is, by trying all of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pplr_audit.attacks.decoding.titles import TitleReader
from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import Prompts

TITLES = ([7], [8], [7, 8], [8, 9, 7], [9], [9, 9])


@pytest.fixture(params=[True, False], ids=["answered", "without an answer"])
def prompts(request: pytest.FixtureRequest) -> Prompts:
    """A template of one-word pieces around titles of one to three words."""

    class Template:
        prefix, separator, suffix = np.array([1, 2]), np.array([3]), np.array([4, 5])
        end = np.array([6] if request.param else [], dtype=np.int64)
        titles = Ragged(np.cumsum([0, *map(len, TITLES)]), np.concatenate(TITLES))
        content = Ragged(titles.offsets, np.ones(len(titles.values), dtype=np.int64))

        def title_classes(self) -> np.ndarray:
            return np.arange(len(TITLES))

    found: Any = Template()
    return found


def ways(at: int, length: int, end: int) -> Iterator[tuple[list[int], int | None]]:
    """Every list of titles from ``at`` on with the suffix behind them, and the answer, where there is one."""
    for item, title in enumerate(TITLES):
        behind = at + len(title)
        if behind + 2 == length:
            yield [item], None
        if end:
            yield from (
                ([item], answer) for answer, words in enumerate(TITLES) if behind + 2 + len(words) + end == length
            )
        if behind + 1 < length:
            yield from (([item, *rest], answer) for rest, answer in ways(behind + 1, length, end))


def words(items: list[int], answer: int | None) -> list[int]:
    parted = [word for item in items for word in (*TITLES[item], 3)][:-1]
    return [1, 2, *parted, 4, 5, *([] if answer is None else [*TITLES[answer], 6])]


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_best_of_all_ways(prompts: Prompts, seed: int) -> None:
    generator = np.random.default_rng(seed)
    length, reader = int(generator.integers(8, 16)), TitleReader(prompts)
    fit = generator.normal(size=(length, len(reader.vocabulary)))
    fit[:, 0] = -1e6  # a word that is nowhere: to leave a place unexplained costs more than any way
    every = list(ways(2, length, len(prompts.end)))
    spelled = [np.searchsorted(reader.vocabulary, words(*way)) for way in every]
    best = every[int(np.argmax([fit[np.arange(2, length), way[2:]].sum() for way in spelled]))]
    items, label, claimed = reader.read(fit)
    assert (items[:, 0].tolist(), int(label[0]) if len(label) else None) == best
    answer = [False] * (length - 2 - len(words(best[0], None)[2:]))
    titles = [word for item in best[0] for word in (*[True] * len(TITLES[item]), False)][:-1]
    assert claimed.tolist() == [False, False, *titles, False, False, *answer]


def test_what_no_way_explains_is_left(prompts: Prompts) -> None:
    """Behind the first title nothing that was seen is of the template."""
    reader = TitleReader(prompts)
    fit = np.zeros((12, len(reader.vocabulary)))
    fit[[2, 3, 4], np.searchsorted(reader.vocabulary, [8, 9, 7])] = 1.0
    fit[5:, 1:] = -5.0
    items, label, claimed = reader.read(fit)
    assert items[:, 0].tolist() == [3]
    assert len(label) == 0
    assert np.flatnonzero(claimed).tolist() == [2, 3, 4], "it claims no word where it read no title"


def test_a_long_history_is_read_to_its_end_from_wherever_it_is_asked_for(prompts: Prompts) -> None:
    generator, reader = np.random.default_rng(0), TitleReader(prompts)
    truth = generator.integers(len(TITLES), size=80).tolist()
    spelled = np.searchsorted(reader.vocabulary, words(truth, 2 if len(prompts.end) else None))
    fit = generator.normal(0, 0.2, size=(len(spelled), len(reader.vocabulary)))
    fit[np.arange(len(spelled)), spelled] += 1.0
    items, label, _ = reader.read(fit)
    assert items[:, 0].tolist() == truth
    assert label[:1].tolist() == ([2] if len(prompts.end) else [])
    readings = reader.readings(fit)
    for start in range(len(spelled) - 1, 1, -7):
        assert np.array_equal(readings(start)[0], reader.read(fit, start)[0])


def test_titles_that_fit_equally_well_are_named_in_no_order_of_the_catalogue() -> None:
    """Of forty titles of one word one fits, and all others are level behind it; so are all at the next place."""
    count, rows = 40, 400

    class Template:
        prefix, separator, suffix, end = np.array([1, 2]), np.array([3]), np.array([4, 5]), np.array([6])
        titles = Ragged(np.arange(count + 1), 10 + np.arange(count))
        content = Ragged(titles.offsets, np.ones(count, dtype=np.int64))

        def title_classes(self) -> np.ndarray:
            return np.arange(count)

    template: Any = Template()
    reader = TitleReader(template)
    fit = np.zeros((9, len(reader.vocabulary)))
    fit[np.arange(9), np.searchsorted(reader.vocabulary, [1, 2, 47, 3, 11, 4, 5, 12, 6])] = 1.0
    fit[4] = fit[7] = 0.0  # what stands at the second place, and what is the answer, nothing tells
    read = [reader.read(fit, row=row) for row in range(rows)]
    assert all(found.items[0, 0] == 37 for found in read)
    second, at_two, answers = (
        np.bincount(named, minlength=count)
        for named in (
            [int(found.items[0, 1]) for found in read], [int(found.items[1, 0]) for found in read],
            [int(found.labels[0]) for found in read],
        )
    )  # fmt: skip
    for counts in (second, at_two, answers):
        assert counts.max() < 30, "ten are expected of each"
        assert (counts > 0).sum() > 35
