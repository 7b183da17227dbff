"""A small Llama trained on the spot from the public catalogue: a backbone that needs no download.

It knows the prompt, the titles and the categories, as a pretrained model would, and nothing about any user: the
catalogue is all it is given. Trained once a catalogue and seed, then read from the cache.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pplr_audit.data.bigrec_prompts import END, PREFIX, SEPARATOR, SUFFIX, title_prompts
from pplr_audit.data.dataset import Catalogue
from pplr_audit.data.letters import encoder
from pplr_audit.scenario.paths import cache_root
from pplr_audit.scenario.seeds import derive

FORMAT = 3
"""Raised when what is trained changes in a way that the fields of the recipe do not show."""

Progress = Callable[[int, int], None]
"""Called after every training step with the steps done and the steps in all."""


@dataclass(frozen=True)
class Recipe:
    """Settings by which the model is built and trained. The tokens are capped, not the epochs, so that time stays
    bounded.
    """

    layers: int = 6
    hidden: int = 96
    intermediate: int = 256
    heads: int = 4
    positions: int = 1024
    vocabulary: int = 2000
    """Tokens at most; a small catalogue gets fewer."""
    history: int = 10
    """Titles in one prompt, at most."""
    sequence: int = 384
    """Tokens of one training sequence, at most."""
    batch: int = 8
    """Prompts in one step; lines are shorter, and come four times as many."""
    lines: float = 0.3
    """Share of steps on "title categories" lines; the others are on prompts."""
    alike: float = 0.5
    """Share of titles in a prompt that share a word with the one before."""
    tokens: int = 200_000
    """Tokens to train on for the template, padding included ..."""
    tokens_per_title: int = 300
    """... and for every title in the catalogue."""
    steps: int | None = None
    """Train so many steps instead of what the tokens allow."""
    learning_rate: float = 5e-3
    warmup: int = 20


def train(
    catalogue: Catalogue,
    *,
    seed: int,
    cache: Path | None = None,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The tiny Llama of this catalogue and seed: float32, eval mode, no parameter requires grad.

    It is read from ``cache`` (default: the environment's ``PPLR_AUDIT_CACHE``, else the user's cache folder) where a
    former call left it whole, else trained and left there. The same arguments give the same bytes on one machine with
    one number of threads. No random state outside is read or changed.
    """
    recipe = recipe or Recipe()
    folder = (cache or cache_root()) / "tiny-llama" / _key(catalogue, seed, recipe)
    cached = _read(folder)
    if cached is not None:
        return cached
    tokenizer = train_tokenizer(catalogue, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "tiny-llama", "weights") % 2**63)
        model = LlamaForCausalLM(_config(tokenizer, recipe))
    _fit(model, list(_batches(catalogue, tokenizer, seed, recipe)), recipe, progress)
    model.requires_grad_(False).train(False)
    _write(folder, model, tokenizer)
    return model, tokenizer


def train_tokenizer(catalogue: Catalogue, recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE over titles, categories and the prompt's pieces; every text can be encoded and decoded back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        # Two merges a title keep a small catalogue's titles longer than one token a word.
        vocab_size=min(recipe.vocabulary, 400 + 8 * len(catalogue)),
        min_frequency=2,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The template is in every prompt, so its words earn their tokens first.
    template = [PREFIX, SEPARATOR, SUFFIX, END] * len(catalogue)
    tokenizer.train_from_iterator([*catalogue.titles, *map(_category_text, catalogue.categories), *template], trainer)
    return _wrap(tokenizer)


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    library: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = library(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def largest_config() -> LlamaConfig:
    """The shape of the model for a catalogue whose titles fill the vocabulary."""
    return _shape(Recipe().vocabulary, Recipe())


def _config(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaConfig:
    return _shape(
        len(tokenizer),
        recipe,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _shape(vocabulary: int, recipe: Recipe, **special: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        dtype="float32",
        **special,
    )


def _category_text(categories: str) -> str:
    """Return the text behind the title in a line."""
    return " " + ", ".join(filter(None, categories.split("|")))


def _shelves(catalogue: Catalogue) -> list[list[int]]:
    """The items of each category with at least two; all items on one shelf where there are no categories."""
    shelves = _together([set(filter(None, categories.split("|"))) for categories in catalogue.categories])
    return shelves or [list(range(len(catalogue)))]


def _kin(catalogue: Catalogue) -> list[set[int]]:
    """Return for each item those whose titles share a word with it that at most 1 title in 20 holds."""
    words = [set(title.lower().split()) for title in catalogue.titles]
    kin: list[set[int]] = [set() for _ in words]
    for items in _together(words):
        if len(items) <= max(2, len(words) // 20):
            for item in items:
                kin[item].update(items)
    return kin


def _together(marks: Sequence[set[str]]) -> list[list[int]]:
    """The items that bear each mark, of the marks that at least two bear."""
    bearers: dict[str, list[int]] = {}
    for item, own in enumerate(marks):
        for mark in sorted(own):
            bearers.setdefault(mark, []).append(item)
    return [bearers[mark] for mark in sorted(bearers) if len(bearers[mark]) > 1]


def _batches(
    catalogue: Catalogue, tokenizer: PreTrainedTokenizerFast, seed: int, recipe: Recipe
) -> Iterator[Int[Tensor, "batch seq"]]:
    """Training sequences, -1 behind the end of each, until the tokens (or the steps) are spent.

    The titles of one prompt, the answer too, are of one category, and many share a word with the one before: things
    that go together read alike, as any pretrained model knows. A line has the category straight behind the title, so
    that the state at a title's last token, which grounding ranks by, has to know it.
    """
    draw = np.random.default_rng(derive(seed, "tiny-llama", "batches"))
    prompts = title_prompts(tokenizer, catalogue.titles, max_tokens=recipe.sequence, history=recipe.history)
    categories = encoder(tokenizer)([_category_text(text) for text in catalogue.categories])
    shelves, kin = _shelves(catalogue), _kin(catalogue)
    weights = np.array([len(shelf) for shelf in shelves]) / sum(map(len, shelves))

    def line() -> Int[np.ndarray, "length"]:
        item = int(draw.integers(len(catalogue)))
        return np.concatenate([prompts.bos, prompts.titles[item], categories[item], [prompts.eos]])

    def prompt(length: int) -> Int[np.ndarray, "length"]:
        shelf = shelves[int(draw.choice(len(shelves), p=weights))]
        stock = draw.permutation(shelf).tolist()
        items = [stock.pop()]
        while len(items) <= length and len(items) < len(shelf):
            near = sorted((kin[items[-1]] & set(shelf)) - set(items))
            if near and draw.random() < recipe.alike:
                items.append(near[int(draw.integers(len(near)))])
            else:
                items.append(next(item for item in iter(stock.pop, None) if item not in items))
        return prompts.build(np.array(items[:-1]), items[-1]).tokens

    spent = step = 0
    budget = recipe.tokens + recipe.tokens_per_title * len(catalogue)
    while spent < budget if recipe.steps is None else step < recipe.steps:
        if draw.random() < recipe.lines:
            rows = [line() for _ in range(4 * recipe.batch)]
        else:
            # One length a batch: little padding, so the tokens are spent on text.
            length = int(draw.integers(1, recipe.history + 1))
            rows = [prompt(length) for _ in range(recipe.batch)]
        sequences = [torch.from_numpy(row[: recipe.sequence]) for row in rows]
        batch = pad_sequence(sequences, batch_first=True, padding_value=-1).long()
        spent += batch.numel()
        step += 1
        yield batch


def _fit(
    model: LlamaForCausalLM, batches: list[Int[Tensor, "batch seq"]], recipe: Recipe, progress: Progress | None
) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / recipe.warmup, max(0.05, 1 - step / len(batches))),
    )
    model.train()
    for step, batch in enumerate(batches):
        # No attention mask: the padding is on the right, where a causal model's real tokens never look.
        logits = model(input_ids=batch.clamp(min=0), use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if progress is not None:
            progress(step + 1, len(batches))


def _key(catalogue: Catalogue, seed: int, recipe: Recipe) -> str:
    """Hash of everything that determines the weights."""
    parts = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "seed": seed,
        "titles": catalogue.titles,
        "categories": catalogue.categories,
        "prompt": [PREFIX, SEPARATOR, SUFFIX, END],
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _file_digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != "digests.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _read(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast] | None:
    """Read what a former call wrote; None unless the files are exactly as they were written."""
    try:
        if json.loads((folder / "digests.json").read_text()) != _file_digests(folder):
            return None
        tokenizer = _wrap(Tokenizer.from_file(str(folder / "tokenizer.json")))
        with torch.random.fork_rng(devices=[]):
            model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, SafetensorError):
        return None
    model.requires_grad_(False).train(False)
    return model, tokenizer


def _write(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Leave the model in the cache, whole or not at all; a cache that cannot be written costs time, not the run."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as new:
            fresh = Path(new) / "model"
            # Not model.save_pretrained: it draws a progress bar.
            model.config.save_pretrained(fresh)
            save_file(model.state_dict(), fresh / "model.safetensors", {"format": "pt"})
            tokenizer.save_pretrained(fresh)
            (fresh / "digests.json").write_text(json.dumps(_file_digests(fresh)))
            if folder.exists() and _read(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                fresh.rename(folder)
    except (OSError, SafetensorError) as error:  # a full disk is either, depending on who wrote
        warnings.warn(f"tiny-llama could not be cached and will be trained again: {error}", stacklevel=3)
