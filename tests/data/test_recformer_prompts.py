"""RecFormer's sequences: flattened attributes, the newest item first, and it is known which item each token is of."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pplr_audit.data.dataset import Catalogue, Dataset, Ragged
from pplr_audit.data.prompts import SHORTEST_CUT, TARGET, TEMPLATE, Prompts
from pplr_audit.data.recformer_prompts import item_prompts
from pplr_audit.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(bert_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(bert_folder)


@pytest.fixture(scope="module")
def catalogue(small_market: Dataset) -> Catalogue:
    """The small market's, whose item 2 has categories of two levels and whose item 5 has none."""
    known = small_market.catalogue
    categories = list(known.categories)
    categories[2], categories[5] = f"{categories[0]}|{categories[1]}", ""
    return Catalogue(known.ids, known.titles, tuple(categories))


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue) -> Prompts:
    return item_prompts(tokenizer, catalogue, max_tokens=256, history=4)


def words(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_sequence_is_the_items_as_flattened_attributes_the_newest_first(
    prompts: Prompts, tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue
) -> None:
    built = prompts.build(np.array([3, 2, 7]), 9)
    expected = [tokenizer.cls_token_id]
    for item in (7, 2, 3):
        levels = catalogue.categories[item].replace("|", " ")
        expected += words(tokenizer, f"title {catalogue.titles[item]} categories {levels}")
    assert built.tokens.tolist() == [*expected, tokenizer.sep_token_id]
    assert built.items.tolist() == [7, 2, 3]


def test_the_target_is_known_and_stands_nowhere_in_the_sequence(prompts: Prompts) -> None:
    trained, served = prompts.build(np.array([3, 1, 7]), 9), prompts.build(np.array([3, 1, 7]))
    assert (trained.target, served.target) == (9, -1)
    assert trained.tokens.tolist() == served.tokens.tolist()
    assert trained.answer == len(trained)
    assert TARGET not in trained.slots


def test_only_values_are_of_a_slot_and_keys_are_template(
    prompts: Prompts, tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue
) -> None:
    built = prompts.build(np.array([3, 2, 7]))
    for slot, item in enumerate([7, 2, 3]):
        values = words(tokenizer, catalogue.titles[item])
        values += words(tokenizer, catalogue.categories[item].replace("|", " "))
        assert built.tokens[built.slots == slot].tolist() == values
    keys = words(tokenizer, "title") + words(tokenizer, "categories")
    template = [tokenizer.cls_token_id, *keys * 3, tokenizer.sep_token_id]
    assert built.tokens[built.slots == TEMPLATE].tolist() == template


def test_order_numbers_the_items_as_they_are_read_keys_included_and_the_special_tokens_are_of_none(
    prompts: Prompts,
) -> None:
    built = prompts.build(np.array([3, 2, 7]))
    assert built.order[0] == built.order[-1] == 0
    inside = built.order[1:-1]
    assert (np.diff(inside) >= 0).all()
    opening = len(prompts.separator)
    for number, item in enumerate([7, 2, 3], 1):
        assert (inside == number).sum() == opening + len(prompts.titles[item])
    read = built.slots >= 0
    assert (built.order[read] == built.slots[read] + 1).all()


def test_an_item_without_categories_is_its_title_alone(
    prompts: Prompts, tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue
) -> None:
    assert prompts.titles[5].tolist() == words(tokenizer, catalogue.titles[5])
    assert prompts.content[5].all()


def test_each_attribute_is_cut_to_32_tokens_and_to_fewer_where_asked(tokenizer: PreTrainedTokenizerBase) -> None:
    long = " ".join(["title"] * 40)
    told = Catalogue(("a", "b"), (long, "title"), (long, "title"))
    built = item_prompts(tokenizer, told, max_tokens=256, history=2)
    assert built.content[0].sum() == 64
    assert len(built.titles[0]) == 64 + len(words(tokenizer, "categories"))
    fewer = item_prompts(tokenizer, told, max_tokens=256, history=2, attribute_tokens=5)
    assert fewer.content[0].sum() == 10
    assert fewer.content[1].sum() == built.content[1].sum() == 2


def test_attributes_are_those_asked_for_in_their_order(
    tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue
) -> None:
    built = item_prompts(tokenizer, catalogue, attributes=("title",), max_tokens=256, history=2).build(np.array([1]))
    assert built.tokens[1:-1].tolist() == words(tokenizer, f"title {catalogue.titles[1]}")
    full = Catalogue(catalogue.ids, catalogue.titles, tuple(c or "none" for c in catalogue.categories))
    turned = item_prompts(tokenizer, full, attributes=("categories", "title"), max_tokens=256, history=2)
    expected = f"categories {full.categories[1]} title {full.titles[1]}"
    assert turned.build(np.array([1])).tokens[1:-1].tolist() == words(tokenizer, expected)


def test_where_there_is_no_room_the_oldest_items_go_first_and_the_share_is_reported(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = " ".join(["title"] * 11)
    prompts = item_prompts(
        tokenizer, Catalogue(tuple("abcdefgh"), (text,) * 8, ("",) * 8), max_tokens=32, history=6
    )  # fmt: skip
    assert prompts.title_cap == SHORTEST_CUT
    assert prompts.titles_cut_share == 1.0
    built = prompts.build(np.arange(6))
    fits = (32 - 1) // (SHORTEST_CUT + len(prompts.separator))
    assert 1 < fits < 6
    assert built.items.tolist() == list(range(6))[::-1][:fits]
    assert len(built) <= 32
    assert prompts.items_dropped_share(Ragged(np.array([0, 6]), np.arange(6))) == pytest.approx(1 - fits / 6)


def test_roberta_s_special_tokens_stand_where_bert_s_do(roberta_folder: Path, small_market: Dataset) -> None:
    tokenizer = AutoTokenizer.from_pretrained(roberta_folder)
    built = item_prompts(tokenizer, small_market.catalogue, max_tokens=256, history=4).build(np.array([3, 1]))
    assert [built.tokens[0], built.tokens[-1]] == tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    assert not {0, 1, 2} & set(built.tokens[1:-1].tolist())


@pytest.mark.parametrize("name", ["cls_token", "sep_token"])
def test_a_tokenizer_without_the_special_tokens_is_refused_by_name(
    bert_folder: Path, small_market: Dataset, name: str
) -> None:
    poor = AutoTokenizer.from_pretrained(bert_folder)
    setattr(poor, name, None)
    with pytest.raises(InputError, match=rf"^model\.backbone: its tokenizer has no {name}, which recformer"):
        item_prompts(poor, small_market.catalogue, max_tokens=128, history=2)


def test_a_first_attribute_without_a_token_is_refused_with_the_text(tokenizer: PreTrainedTokenizerBase) -> None:
    for titles, categories, attributes, said in (
        (("one", " "), ("a", "b"), ("title", "categories"), r"model\.backbone: .* no token for the title ' '"),
        (
            ("one", "two"),
            ("a", ""),
            ("categories", "title"),
            r"model\.recformer\.attributes: item 'b' has no categories",
        ),
    ):
        with pytest.raises(InputError, match=f"^{said}"):
            item_prompts(
                tokenizer, Catalogue(("a", "b"), titles, categories), attributes=attributes, max_tokens=128, history=2
            )


def test_too_few_tokens_for_one_item_are_refused_with_what_would_do(
    tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue
) -> None:
    with pytest.raises(InputError, match=r"model\.max_tokens: 6 has no room .* accepted: (\d+) or more") as refused:
        item_prompts(tokenizer, catalogue, max_tokens=6, history=3)
    enough = int(str(refused.value).split("accepted: ")[1].split()[0])
    assert len(item_prompts(tokenizer, catalogue, max_tokens=enough, history=3).build(np.array([0])).items) == 1
    with pytest.raises(InputError, match="no room"):
        item_prompts(tokenizer, catalogue, max_tokens=enough - 1, history=3)


@given(
    history=st.lists(st.integers(0, 47), min_size=1, max_size=9),
    max_tokens=st.integers(20, 120),
    asked=st.integers(1, 9),
    target=st.integers(-1, 47),
)
def test_any_history_gives_whole_items_newest_first_in_no_more_tokens_than_allowed(
    tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue, history: list[int], max_tokens: int, asked: int,
    target: int,
) -> None:  # fmt: skip
    prompts = item_prompts(tokenizer, catalogue, max_tokens=max_tokens, history=asked)
    built = prompts.build(np.array(history), target)
    assert len(built) == len(built.slots) == len(built.order) == built.answer <= max_tokens
    assert built.items.tolist() == history[::-1][: len(built.items)]
    assert len(built.items) >= 1
    pieces = [prompts.prefix]
    for place, item in enumerate(built.items):
        pieces += [prompts.separator] * (place > 0) + [prompts.titles[item]]
        own = prompts.titles[item][prompts.content[item] == 1]
        assert built.tokens[built.slots == place].tolist() == own.tolist()
    assert built.tokens.tolist() == np.concatenate([*pieces, prompts.suffix]).tolist()
    assert set(built.order[1:-1].tolist()) == set(range(1, len(built.items) + 1))
    if len(built.items) < len(history):
        more = prompts.titles.lengths[history[::-1][len(built.items)]] + len(prompts.separator)
        assert len(built) + more > max_tokens, "an item goes only where it does not fit"
