"""One prompt for training and inference; titles are cut first, then the oldest items go, never the template."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pplr_audit.data.bigrec_prompts import title_prompts
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import SHORTEST_CUT, TARGET, TEMPLATE, Pieces, Prompts, collate, ragged
from pplr_audit.errors import InputError
from tests.conftest import prompt_text


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(llama_folder)


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerBase, small_market: Dataset) -> Prompts:
    return title_prompts(tokenizer, small_market.catalogue.titles, max_tokens=256, history=4)


def test_a_prompt_reads_as_its_text(
    prompts: Prompts, tokenizer: PreTrainedTokenizerBase, small_market: Dataset
) -> None:
    titles = small_market.catalogue.titles
    built = prompts.build(np.array([3, 1, 7]), 9)
    expected = prompt_text([titles[3], titles[1], titles[7]], titles[9])
    assert tokenizer.decode(built.tokens, skip_special_tokens=True) == expected
    assert built.tokens[0] == tokenizer.bos_token_id
    assert built.tokens[-1] == tokenizer.eos_token_id


def test_inference_sees_what_training_saw_up_to_the_answer(prompts: Prompts) -> None:
    trained, served = prompts.build(np.array([3, 1, 7]), 9), prompts.build(np.array([3, 1, 7]))
    assert (trained.tokens[: trained.answer] == served.tokens).all()
    assert served.answer == len(served)


def test_every_position_is_known_to_be_template_target_or_a_slot(prompts: Prompts) -> None:
    built = prompts.build(np.array([3, 1, 7]), 9)
    for slot, item in enumerate([3, 1, 7]):
        assert (built.tokens[built.slots == slot] == prompts.titles[item]).all()
    assert (built.tokens[built.slots == TARGET] == prompts.titles[9]).all()
    assert (built.slots[built.answer :] != TEMPLATE).sum() == len(prompts.titles[9])


def test_only_the_answer_is_learned_unless_all_is_asked_for(prompts: Prompts) -> None:
    built = [prompts.build(np.array([3, 1]), 9), prompts.build(np.array([5]), 2)]
    title, whole = collate(built, prompts.pad), collate(built, prompts.pad, loss_on="all")
    for row, prompt in enumerate(built):
        assert title.learned[row].sum() == len(prompt) - prompt.answer
        assert whole.learned[row].sum() == len(prompt) - 1
        assert (title.tokens[row][title.mask[row] == 1] == prompt.tokens).all()
    left = collate(built, prompts.pad, side="left")
    assert (left.mask[1][-len(built[1]) :] == 1).all()
    assert (left.tokens[1][left.learned[1] == 1] == title.tokens[1][title.learned[1] == 1]).all()


def test_long_titles_are_cut_before_an_item_goes(tokenizer: PreTrainedTokenizerBase) -> None:
    titles = [("word " * 60).strip(), "short one", "another short one"]
    roomy = title_prompts(tokenizer, titles, max_tokens=1000, history=2)
    assert roomy.titles_cut_share == 0
    tight = title_prompts(tokenizer, titles, max_tokens=200, history=2)
    assert tight.titles_cut_share == pytest.approx(1 / 3)
    built = tight.build(np.array([0, 1]), 2)
    assert len(built.items) == 2
    assert len(built) <= 200


def test_then_the_oldest_items_go_and_the_share_is_reported(tokenizer: PreTrainedTokenizerBase) -> None:
    titles = [f"{'word ' * 12}{i}" for i in range(8)]
    least = len(title_prompts(tokenizer, titles, max_tokens=1000, history=1).prefix)
    prompts = title_prompts(tokenizer, titles, max_tokens=least + 70, history=6)
    assert prompts.title_cap == SHORTEST_CUT
    built = prompts.build(np.arange(6), 7)
    assert 1 <= len(built.items) < 6
    assert built.items.tolist() == list(range(6 - len(built.items), 6))
    from pplr_audit.data.dataset import Ragged

    history = Ragged(np.array([0, 6]), np.arange(6))
    assert prompts.items_dropped_share(history) == pytest.approx(1 - len(built.items) / 6)


def test_no_room_for_the_template_and_one_item_is_refused_with_what_would_do(
    tokenizer: PreTrainedTokenizerBase, small_market: Dataset
) -> None:
    with pytest.raises(InputError, match=r"model\.max_tokens: 30 has no room .* accepted: (\d+) or more") as refused:
        title_prompts(tokenizer, small_market.catalogue.titles, max_tokens=30, history=4)
    enough = int(str(refused.value).split("accepted: ")[1].split()[0])
    assert len(
        title_prompts(tokenizer, small_market.catalogue.titles, max_tokens=enough, history=4)
        .build(np.array([0]), 1)
        .items
    )


def test_equal_titles_share_a_class(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = title_prompts(tokenizer, ["one", "two", "one"], max_tokens=200, history=2)
    assert prompts.title_classes().tolist() == [0, 1, 0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    titles=st.lists(st.text(min_size=1, max_size=60).filter(lambda t: t.strip() != ""), min_size=2, max_size=6),
    max_tokens=st.integers(110, 400),
    history=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_no_sequence_is_longer_than_it_may_be_and_the_template_is_whole(
    tokenizer: PreTrainedTokenizerBase, titles: list[str], max_tokens: int, history: int, seed: int
) -> None:
    prompts = title_prompts(tokenizer, titles, max_tokens=max_tokens, history=history)
    items = np.random.default_rng(seed).integers(len(titles), size=history)
    built = prompts.build(items, 0)
    assert len(built) <= max_tokens
    assert (built.tokens[: len(prompts.prefix)] == prompts.prefix).all()
    assert (built.tokens[built.answer - len(prompts.suffix) : built.answer] == prompts.suffix).all()
    assert built.items.tolist() == items[len(items) - len(built.items) :].tolist()
    assert len(built.items) >= 1


@settings(deadline=None, max_examples=100)
@given(data=st.data(), answers=st.booleans(), newest_first=st.booleans())
def test_lengths_are_told_without_building(data: st.DataObject, answers: bool, newest_first: bool) -> None:
    texts = ragged(data.draw(st.lists(st.lists(st.just(5), min_size=1, max_size=12), min_size=1, max_size=6)))
    size = st.integers(0, 3)
    prefix, separator, suffix = (np.full(data.draw(size), 6) for _ in range(3))
    pieces = Pieces(prefix, separator, suffix, np.full(data.draw(st.integers(1, 2)) if answers else 0, 7))
    prompts = Prompts(
        SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=0), pieces, texts,
        np.ones(len(texts.values), dtype=bool), max_tokens=data.draw(st.integers(32, 60)), history=4,
        newest_first=newest_first,
    )  # fmt: skip
    item = st.integers(0, len(texts) - 1)
    histories = ragged(data.draw(st.lists(st.lists(item, max_size=12), min_size=1, max_size=4)))
    targets = np.array([data.draw(st.integers(-1, len(texts) - 1)) for _ in range(len(histories))], dtype=np.int64)
    built = [prompts.build(histories[row], int(targets[row])) for row in range(len(histories))]
    assert prompts.lengths(histories, targets).tolist() == [len(prompt) for prompt in built]
    untold = [len(prompts.build(histories[row])) for row in range(len(histories))]
    assert prompts.lengths(histories).tolist() == untold
    held = sum(len(prompt.items) for prompt in built)
    assert prompts.items_dropped_share(histories) == 1 - held / max(1, len(histories.values)) or not held
