"""The synthetic market: readable, learnable, and with a best recommender that is known."""

from itertools import combinations

import numpy as np
import pytest

from pplr_audit import scenario
from pplr_audit.data.synthetic import FOLLOWS, drawn, market
from pplr_audit.data.synthetic_titles import GENRES, titles

SIZES = [
    scenario.Market(),
    scenario.Market(users=20, items=40, tastes=8),
    scenario.Market(users=50, items=2000, tastes=2),
]


def before_last(dataset):
    users = range(len(dataset.users))
    return [dataset.items[user][:-1] for user in users], np.array([dataset.items[user][-1] for user in users])


def recall(scores, histories, truth, k=10):
    for row, history in zip(scores, histories, strict=True):
        row[history] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == truth[:, None]).any(axis=1).mean())


def oracle(law, histories):
    """The law written down once more, one user at a time."""
    scores = np.zeros(law.base.shape)
    for user, history in enumerate(histories):
        scores[user] = FOLLOWS * law.follows[history[-1]] + (1 - FOLLOWS) * law.base[user]
        scores[user, history] = 0
        scores[user] /= scores[user].sum()
    return scores


@pytest.mark.parametrize("size", SIZES)
def test_a_market_has_the_size_asked_for_and_unique_short_titles(size):
    dataset = market(size, 3)
    assert len(dataset.users) == size.users
    assert len(dataset.catalogue) == size.items
    assert len(set(dataset.catalogue.titles)) == size.items
    assert all(2 <= len(title.split()) <= 4 for title in dataset.catalogue.titles)
    assert len(set(dataset.catalogue.categories)) == size.tastes
    assert dataset.items.lengths.min() >= 6
    assert dataset.items.lengths.max() <= 20
    assert all(len(set(dataset.items[user].tolist())) == dataset.items.lengths[user] for user in range(size.users))


def test_the_seed_decides_everything():
    one, same, other = market(SIZES[0], 1), market(SIZES[0], 1), market(SIZES[0], 2)
    assert one.digest == same.digest != other.digest
    assert one.catalogue == same.catalogue
    assert one.attributes == same.attributes
    assert np.array_equal(one.items.values, same.items.values)
    assert one.best_recall == same.best_recall


def test_the_best_recall_is_what_the_law_gives_when_the_last_item_is_drawn_again():
    dataset, law = drawn(scenario.Market(), 0)
    histories, _ = before_last(dataset)
    chance = oracle(law, histories)
    rng = np.random.default_rng(0)
    again = np.stack([rng.choice(chance.shape[1], 200, p=row) for row in chance])
    order = np.argsort(-chance, axis=1)
    for k, best in dataset.best_recall.items():
        hits = (again[:, :, None] == order[:, None, :k]).any(axis=2)
        # 120,000 draws: the standard error is at most 0.0015.
        assert abs(hits.mean() - best) < 0.006


@pytest.mark.parametrize("seed", range(3))
def test_popularity_is_beaten_by_a_markov_chain_and_that_by_the_law(seed):
    dataset, law = drawn(scenario.Market(), seed)
    histories, truth = before_last(dataset)
    popularity = np.bincount(np.concatenate(histories), minlength=len(dataset.catalogue)).astype(float)
    counts = np.zeros((len(popularity), len(popularity)))
    for history in histories:
        np.add.at(counts, (history[:-1], history[1:]), 1)
    pop = recall(np.tile(popularity, (len(truth), 1)), histories, truth)
    markov = recall(np.stack([counts[h[-1]] + 1e-3 * popularity for h in histories]), histories, truth)
    best = recall(oracle(law, histories), histories, truth)
    assert 0.10 < pop < 0.25
    assert markov > pop + 0.25
    assert best > markov + 0.03
    assert 0.70 < dataset.best_recall[10] < 0.80
    assert abs(best - dataset.best_recall[10]) < 4 * np.sqrt(0.25 / len(truth))


def test_attributes_can_be_told_from_tastes():
    dataset, law = drawn(scenario.Market(users=2000), 0)
    gender = np.array(dataset.attributes["gender"]) == "F"
    age = np.array(dataset.attributes["age_group"])
    tastes = np.arange(law.taste.shape[1])
    lean = law.taste @ np.where(tastes % 2, 1.0, -1.0)
    assert 0.35 < gender.mean() < 0.65
    assert lean[gender].mean() > lean[~gender].mean() + 0.3
    years = law.taste @ np.linspace(-1, 1, len(tastes))
    assert years[age == "45 and over"].mean() > years[age == "25 to 44"].mean() > years[age == "under 25"].mean()
    assert set(age) == {"under 25", "25 to 44", "45 and over"}


def test_what_follows_an_item_is_of_its_genre_and_mostly_of_its_series():
    _, law = drawn(scenario.Market(), 0)
    genre = law.genre[:, None] == law.genre
    series = genre & (law.series[:, None] == law.series)
    assert np.allclose((law.follows * genre).sum(axis=1), 1)
    assert (law.follows * series).sum(axis=1).mean() > 0.6
    assert not law.follows.diagonal().any()


@pytest.mark.parametrize("size", SIZES)
def test_the_titles_of_a_series_share_a_noun_that_no_other_title_has(size):
    dataset, law = drawn(size, 0)
    by_series = {}
    for title, genre, series in zip(dataset.catalogue.titles, law.genre, law.series, strict=True):
        by_series.setdefault((genre, series), []).append({*title.split()} & {*GENRES[genre].nouns})
    nouns = [set.intersection(*titles) for titles in by_series.values()]
    assert all(len(noun) == 1 for noun in nouns)
    assert len(set.union(*nouns)) == len(by_series)


def test_no_word_belongs_to_two_genres_and_each_names_a_thousand_items():
    words = [{*genre.adjectives, *genre.nouns, *genre.places} for genre in GENRES]
    assert all(one.isdisjoint(other) for one, other in combinations(words, 2))
    for genre in GENRES:
        assert len(set(titles(genre, np.arange(1000) % 16, np.random.default_rng(0)))) == 1000
