"""Length finds what the number of tokens gives away, as much as Bayes says, and nothing where it says nothing."""

from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pplr_audit.attacks.metadata.length import Length, TitleLengths
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.data.prompts import Pieces, Prompt, Prompts, ragged
from pplr_audit.errors import InputError
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.view import Record, View

ANSWERED, PLAIN = [90, 91], []
"""The end of BIGRec's template; RecFormer's has none."""


def prompts_over(lengths: Sequence[int], history: int, end: Sequence[int], *, twins: bool = False) -> Prompts:
    """Titles of these lengths, all different; with ``twins`` the first two are the same."""
    titles = [[100 * (item + 1) + place for place in range(size)] for item, size in enumerate(lengths)]
    if twins:
        titles[1] = titles[0]
    pieces = Pieces(*(np.array(piece, dtype=np.int64) for piece in ([1, 2, 3], [4, 5], [6, 7], end)))
    tokenizer = SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    content = np.ones(sum(map(len, titles)), dtype=bool)
    return Prompts(tokenizer, pieces, ragged(titles), content, max_tokens=512, history=history, newest_first=not end)


def known(prompts: Prompts, history: int) -> Knowledge:
    nothing: Any = None
    return Knowledge("base", prompts, torch.zeros(1, 1), nothing, {}, (), history, 3)


def view_of(lengths: Sequence[int]) -> View:
    records = tuple(Record(row, "a", 1, 0, torch.ones(length)) for row, length in enumerate(lengths))
    return View("server", Channel.METADATA, None, None, "none", records)


def attacked(prompts: Prompts, sequences: Sequence[Prompt], history: int) -> Guess:
    return Length().run(view_of([len(each) for each in sequences]), known(prompts, history), Budget(60))


def hits(prompts: Prompts, sequences: Sequence[Prompt], guess: Guess) -> dict[str, float]:
    """Every metric of the history and of the label."""
    rows = range(len(sequences))
    users, classes, popular = {row: row for row in rows}, prompts.title_classes(), np.ones(len(prompts.titles))
    titles = [prompts.titles[item] for item in range(len(prompts.titles))]
    scores = HistoryTruth(users, dict(enumerate(sequences)), classes, popular, titles).score(guess, seed=0)
    if "labels" in guess.arrays:
        targets = {row: each.target for row, each in enumerate(sequences)}
        scores += LabelTruth(users, targets, classes, popular).score(guess, seed=0)
    return {score.metric: score.estimate.value for score in scores}


@pytest.mark.parametrize("end", [ANSWERED, PLAIN])
def test_what_a_length_says_is_what_counting_all_sequences_says(end: list[int]) -> None:
    sizes = [1, 1, 2, 3, 3]
    prompts = prompts_over(sizes, 2, end)
    lengths = TitleLengths(prompts, history=2)
    weights: dict[int, float] = {}
    slots: dict[int, np.ndarray] = {}
    answers: dict[int, np.ndarray] = {}
    for count in (1, 2):
        for items in product(range(5), repeat=count + len(end[:1])):
            history = items[: len(items) - len(end[:1])]
            total = len(prompts.build(np.array(history), items[-1]))
            weight = 0.5 * 0.2 ** len(items)
            weights[total] = weights.get(total, 0.0) + weight
            for slot, item in enumerate(history):
                slots.setdefault(total, np.zeros((2, 4)))[slot, sizes[item]] += weight
            answers.setdefault(total, np.zeros(4))[sizes[items[-1]]] += weight
    assert lengths.told(max(weights) + 1) is None
    for total, weight in weights.items():
        told = lengths.told(total)
        assert told is not None
        found = np.zeros((2, 4))
        found[: len(told.slots)] = told.slots
        np.testing.assert_allclose(found, slots[total] / weight, atol=1e-12)
        if end:
            np.testing.assert_allclose(told.answer, answers[total] / weight, atol=1e-12)
        assert told.count.sum() == pytest.approx(1.0)


def test_titles_of_lengths_of_their_own_are_read_exactly() -> None:
    """The positive control: one item a history, each title of another length."""
    prompts = prompts_over([3, 5, 8, 13, 21], 1, PLAIN)
    sequences = [prompts.build(np.array([item]), 0) for item in range(5)]
    guess = attacked(prompts, sequences, 1)
    assert guess.arrays["items"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert hits(prompts, sequences, guess)["exact_history"] == 1.0
    assert hits(prompts, sequences, guess)["token_accuracy"] == 1.0
    assert guess.facts["bits_told_of_an_item"] == pytest.approx(np.log2(5))


def test_of_two_titles_that_a_sum_tells_only_the_order_is_open() -> None:
    """BIGRec's sequence holds the answer too: 1, 2, 4, 8, 16 add up to every number in one way."""
    prompts = prompts_over([1, 2, 4, 8, 16], 1, ANSWERED)
    sequences = [prompts.build(np.array([one]), other) for one, other in product(range(5), repeat=2) if one != other]
    guess = attacked(prompts, sequences, 1)
    for each, items, labels in zip(sequences, guess.arrays["items"], guess.arrays["labels"], strict=True):
        assert set(items[:2]) == set(labels[:2]) == {each.items[0], each.target}
    assert 0.2 < hits(prompts, sequences, guess)["label_hit@1"] < 0.8


@pytest.mark.parametrize("end", [ANSWERED, PLAIN])
def test_titles_of_one_length_are_guessed_no_better_than_by_chance(end: list[int]) -> None:
    """The negative control."""
    prompts = prompts_over([4] * 40, 3, end)
    generator = np.random.default_rng(3)
    drawn = generator.integers(40, size=(400, 4))
    sequences = [prompts.build(items[: 1 + row % 3], int(items[3])) for row, items in enumerate(drawn)]
    guess = attacked(prompts, sequences, 3)
    assert guess.facts["bits_told_of_an_item"] == pytest.approx(0.0, abs=1e-9)
    found = hits(prompts, sequences, guess)
    assert found["item_hit@1"] == pytest.approx(1 / 40, abs=0.02)
    assert found["item_hit@5"] == pytest.approx(5 / 40, abs=0.04)
    assert found.get("label_hit@10", 0.25) == pytest.approx(10 / 40, abs=0.07)


def test_lengths_of_other_rows_say_nothing() -> None:
    prompts = prompts_over(range(1, 31), 1, PLAIN)
    sequences = [prompts.build(np.array([row % 30]), 0) for row in range(120)]
    shuffled = view_of([len(each) for each in sequences]).shuffled(np.random.default_rng(0))
    guess = Length().run(shuffled, known(prompts, 1), Budget(60))
    assert hits(prompts, sequences, guess)["item_hit@1"] < 0.1
    assert hits(prompts, sequences, attacked(prompts, sequences, 1))["item_hit@1"] == 1.0


def test_equal_titles_count_as_one_and_are_the_likelier_for_it() -> None:
    prompts = prompts_over([4, 4, 4], 1, PLAIN, twins=True)
    (items,) = attacked(prompts, [prompts.build(np.array([2]), 0)], 1).arrays["items"]
    assert items[:3].tolist() == [0, 2, -1]


@pytest.mark.parametrize("end", [ANSWERED, PLAIN])
def test_the_tokens_it_answers_with_are_a_sequence_of_that_length(end: list[int]) -> None:
    prompts = prompts_over([2, 3, 3, 5, 7, 7, 11], 4, end)
    generator = np.random.default_rng(0)
    sequences = [
        prompts.build(generator.integers(7, size=1 + row % 4), int(generator.integers(7))) for row in range(40)
    ]
    guess = attacked(prompts, sequences, 4)
    offsets = guess.arrays["token_offsets"]
    for place, each in enumerate(sequences):
        read = guess.arrays["tokens"][offsets[place] : offsets[place + 1]]
        assert len(read) == len(each)
        items = [token // 100 - 1 for token in read if token >= 100 and token % 100 == 0]
        titles = items[:-1] if end else items
        built = prompts.build(np.array(titles[:: 1 if end else -1]), items[-1])
        assert (built.tokens == read).all()
        claimed = guess.arrays["claimed"][offsets[place] : offsets[place + 1]]
        assert np.array_equal(claimed, built.slots >= 0)


def test_it_says_when_it_cannot_answer() -> None:
    prompts = prompts_over([4] * 5, 2, PLAIN)
    with pytest.raises(NotApplicable, match="nothing crossed"):
        Length().run(view_of([]), known(prompts, 2), Budget(60))
    with pytest.raises(NotApplicable, match="as long as a sequence over this catalogue"):
        Length().run(view_of([64, 128]), known(prompts, 2), Budget(60))  # as if padded to a power of two
    guess = Length().run(view_of([9, 64, 15]), known(prompts, 2), Budget(60))
    assert guess.arrays["rows"].tolist() == [0, 2]
    with pytest.raises(BudgetExhausted):
        Length().run(view_of([9]), known(prompts, 2), Budget(-1.0))


@pytest.mark.parametrize("value", [-1, 1.5, True, "8"])
def test_settings_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="length: seed is"):
        Length(value)  # type: ignore[arg-type]
