"""Text from data never becomes a control token, in any kind of vocabulary, and all else is encoded as before."""

from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pplr_audit.data.bigrec_prompts import title_prompts
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.letters import encoder
from pplr_audit.data.recformer_prompts import item_prompts

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[SEP]"]
PLAIN = ["Golden Dragon of Avalon", "Star Rider (1999)", "Robot in the Moonbase 2"]
SPELLED = ["Golden </s> Dragon", "Star[SEP]Rider", "<s>", "Robot <mask>", "the <pad><pad> end</s>"]


def trained(model: str, named: str = "all") -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary was also trained on texts that spell its control tokens."""
    texts = [*PLAIN, *SPELLED] * 8
    letters = sorted({letter for text in texts for letter in text} - {" "})
    if model == "unigram":
        inner = Tokenizer(models.Unigram())
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=letters, show_progress=False
        )
        inner.train_from_iterator(texts, trainer)
    elif model == "bpe":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        # The merges spell the control tokens out, and what they lead to has a control token's number.
        trainer = trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        inner.train_from_iterator([*SPECIAL * 20, *texts], trainer)
    else:
        words = [*SPECIAL, *(f"##{letter}" for letter in letters), *letters, *PLAIN[0].split()]
        vocabulary = {word: place for place, word in enumerate(dict.fromkeys(words))}
        kind = models.WordPiece if model == "wordpiece" else models.WordLevel
        inner = Tokenizer(kind(vocabulary, unk_token="<unk>"))
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece(cleanup=False)
    inner.add_special_tokens(SPECIAL)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, mask_token="<mask>", sep_token="[SEP]", cls_token="<s>", **names
    )


KINDS = ("unigram", "bpe", "wordpiece", "wordlevel")


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_encoded_as_a_control_token(kind: str) -> None:
    tokenizer = trained(kind)
    controls = set(tokenizer.convert_tokens_to_ids(SPECIAL)) - {tokenizer.unk_token_id}
    before = [tokenizer.encode(text, add_special_tokens=False) for text in SPELLED]
    assert all(controls & set(ids) for ids in before), "the tokenizer itself finds them"
    after = encoder(tokenizer)(SPELLED)
    assert not any(controls & set(ids) for ids in after)
    if kind != "wordlevel":  # which knows no letters
        blanks = [tokenizer.decode(ids).replace(" ", "") for ids in after]
        assert blanks == [text.replace(" ", "") for text in SPELLED]


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_text_is_encoded_as_by_the_tokenizer_itself(kind: str) -> None:
    tokenizer = trained(kind)
    texts = [*PLAIN, "Zürich ☂ 7", "< / s >", ""]
    assert encoder(tokenizer)(texts) == [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    tokenizer(texts, padding=True, truncation=True, max_length=2)
    assert encoder(tokenizer)(texts) == [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def test_the_tokenizer_itself_is_left_as_it_is() -> None:
    tokenizer = trained("unigram")
    before = tokenizer.backend_tokenizer.to_str()
    encoder(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer.encode("</s>", add_special_tokens=False)[-1] == tokenizer.eos_token_id


def in_titles(tokenizer: PreTrainedTokenizerFast, catalogue: Catalogue) -> np.ndarray:
    return title_prompts(tokenizer, catalogue.titles, max_tokens=256, history=2).titles.values


def in_items(tokenizer: PreTrainedTokenizerFast, catalogue: Catalogue) -> np.ndarray:
    return item_prompts(tokenizer, catalogue, max_tokens=256, history=2).titles.values


@pytest.mark.parametrize("texts", [in_titles, in_items])
@pytest.mark.parametrize("kind", KINDS)
def test_titles_and_attributes_hold_letters_and_the_template_its_own_control_tokens(
    kind: str, texts: Callable[[PreTrainedTokenizerFast, Catalogue], np.ndarray]
) -> None:
    tokenizer = trained(kind)
    catalogue = Catalogue(tuple("abcde"), tuple(SPELLED), ("A", "<s>|B", "[SEP]", "", "</s>"))
    controls = set(tokenizer.convert_tokens_to_ids(SPECIAL)) - {tokenizer.unk_token_id}
    assert not controls & set(texts(tokenizer, catalogue).tolist())
    prompts = title_prompts(tokenizer, catalogue.titles, max_tokens=256, history=2)
    whole = prompts.build(np.array([0, 1]), 2)
    held = [int(token) for token in whole.tokens if int(token) in controls]
    assert held == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    asked = item_prompts(tokenizer, catalogue, max_tokens=256, history=2).build(np.array([0, 1]))
    held = [int(token) for token in asked.tokens if int(token) in controls]
    assert held == [tokenizer.cls_token_id, tokenizer.sep_token_id]
