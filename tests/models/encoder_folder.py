"""A small encoder with its tokenizer in a folder, as transformers writes it."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertModel, PreTrainedTokenizerFast

from pplr_audit.data.dataset import Catalogue
from pplr_audit.models.backbones.load import Backbone, load_backbone
from tests.models.architectures import build, config

CATALOGUE = Catalogue(("1", "2", "3"), ("Amber Road", "Birch Garden", "Copper Storm"), ("A", "A", "B"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Amber", "Road", "Birch", "Garden", "Copper", "Storm"]


def load(name: Path | str) -> Backbone:
    return load_backbone(str(name), CATALOGUE, seed=0)


def save(folder: Path, library: Any = BertModel, name: str = "bert") -> Path:
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    build(library, config(name, pad_token_id=0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
