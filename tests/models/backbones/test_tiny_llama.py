"""The backbone that is trained on the spot: reproducible, cached whole or not at all, and of public text only."""

import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pplr_audit.data.bigrec_prompts import END, PREFIX, SEPARATOR, SUFFIX, title_prompts
from pplr_audit.data.dataset import Catalogue
from pplr_audit.models.backbones import tiny_llama
from pplr_audit.models.backbones.load import digest
from pplr_audit.models.backbones.tiny_llama import Recipe, train

QUICK = Recipe(layers=2, hidden=32, intermediate=64, steps=6)


def catalogue(items: int = 60) -> Catalogue:
    names = ["Amber", "Birch", "Copper", "Delta", "Ember", "Fjord", "Garnet", "Harbor", "Indigo", "Juniper"]
    nouns = ["Road", "Garden", "Storm", "Letter", "Ship", "Mirror", "Winter", "Orchard"]
    titles = tuple(f"{names[i % 10]} {nouns[i // 10 % 8]}" for i in range(items))
    return Catalogue(tuple(map(str, range(items))), titles, tuple(("Drama|Sea", "Noir")[i % 2] for i in range(items)))


def entries(cache: Path) -> list[Path]:
    return list((cache / "tiny-llama").iterdir())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = digest(*train(catalogue(), seed=3, cache=tmp_path / "a", recipe=QUICK))
    assert digest(*train(catalogue(), seed=3, cache=tmp_path / "b", recipe=QUICK)) == first
    assert digest(*train(catalogue(), seed=4, cache=tmp_path / "b", recipe=QUICK)) != first


def test_what_comes_from_the_cache_is_what_was_trained(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    model, tokenizer = train(catalogue(), seed=0, cache=tmp_path, recipe=QUICK, progress=lambda *at: steps.append(at))
    assert steps == [(i + 1, 6) for i in range(6)]
    again, same = train(catalogue(), seed=0, cache=tmp_path, recipe=QUICK, progress=lambda *at: steps.append(at))
    assert len(steps) == 6
    assert digest(again, same) == digest(model, tokenizer)
    for each in (model, again):
        assert not each.training
        assert not any(p.requires_grad for p in each.parameters())
        assert {p.dtype for p in each.parameters()} == {torch.float32}
        assert each.config._attn_implementation == "sdpa"
    assert same("Amber Road", add_special_tokens=False) == tokenizer("Amber Road", add_special_tokens=False)


@pytest.mark.parametrize("damage", ["truncate", "swap", "no digests", "digests", "tokenizer", "extra file"])
def test_a_damaged_cache_is_trained_again_and_mended(tmp_path: Path, damage: str) -> None:
    wanted = digest(*train(catalogue(), seed=0, cache=tmp_path, recipe=QUICK))
    (folder,) = entries(tmp_path)
    weights = folder / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "swap":  # whole, of the right shapes, and wrong: only the digest tells
        save_file({n: t + 1 for n, t in load_file(weights).items()}, weights)
    elif damage == "no digests":
        (folder / "digests.json").unlink()
    elif damage == "digests":
        (folder / "digests.json").write_text("[")
    elif damage == "tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    else:
        (folder / "more.json").write_text("{}")
    steps: list[int] = []
    for _ in range(2):
        model, tokenizer = train(
            catalogue(), seed=0, cache=tmp_path, recipe=QUICK, progress=lambda step, _: steps.append(step)
        )
        assert digest(model, tokenizer) == wanted
    assert len(steps) == 6
    assert len(entries(tmp_path)) == 1


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "tiny-llama").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be cached"):
        train(catalogue(), seed=0, cache=tmp_path, recipe=QUICK)


CHILD = """
import sys
from pathlib import Path
from pplr_audit.data.dataset import Catalogue
from pplr_audit.models.backbones.load import digest
from pplr_audit.models.backbones.tiny_llama import Recipe, train
titles = tuple(f"Title {i} of {i * i}" for i in range(30))
recipe = Recipe(layers=2, hidden=32, intermediate=64, steps=6)
print(digest(*train(Catalogue(titles, titles, ("",) * 30), seed=0, cache=Path(sys.argv[1]), recipe=recipe)))
"""


def test_two_processes_can_fill_one_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = [child.communicate(timeout=120)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert len(set(digests)) == 1
    assert len(digests[0]) == 64
    (folder,) = entries(tmp_path)
    assert tiny_llama._read(folder) is not None


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"recipe": Recipe(layers=2, hidden=32, intermediate=64, steps=7)}, {"catalogue": catalogue(59)}],
)
def test_what_determines_the_model_names_its_folder(tmp_path: Path, change: dict[str, object]) -> None:
    arguments: dict[str, object] = {"catalogue": catalogue(), "seed": 0, "recipe": QUICK}
    for each in (arguments, arguments | change):
        kept = dict(each)
        train(kept.pop("catalogue"), cache=tmp_path, **kept)  # type: ignore[arg-type]
    assert len(entries(tmp_path)) == 2


def test_the_environment_says_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPLR_AUDIT_CACHE", str(tmp_path / "here"))
    train(catalogue(), seed=0, recipe=QUICK)
    assert len(entries(tmp_path / "here")) == 1


def test_training_is_silent_and_leaves_random_state_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            train(catalogue(), seed=0, cache=tmp_path, recipe=QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


def test_every_text_survives_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = tiny_llama.train_tokenizer(catalogue(), QUICK)
    for text in ["Amber Road", "Amélie — 天 (2001)\t'x'", PREFIX, SEPARATOR, SUFFIX, END, "  two  spaces  "]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert len(tokenizer) <= 400 + 8 * 60


def test_training_sequences_are_prompts_of_one_category_and_lines(tmp_path: Path) -> None:
    items = catalogue()
    tokenizer = tiny_llama.train_tokenizer(items, QUICK)
    prompts = title_prompts(tokenizer, items.titles, max_tokens=QUICK.sequence, history=10)
    kinds = dict(zip(items.titles, items.categories, strict=True))
    seen = set()
    for batch in tiny_llama._batches(items, tokenizer, 0, Recipe(steps=12)):
        for row in batch:
            tokens = row[row >= 0]
            assert tokens[0] == tokenizer.bos_token_id
            assert tokens[-1] == tokenizer.eos_token_id
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            if text.startswith(PREFIX):
                history, answer = text.removeprefix(PREFIX).removesuffix(END).split(SUFFIX)
                named = [*history.split(SEPARATOR), answer]
                assert len({kinds[title] for title in named}) == 1
                assert len(set(named)) == len(named)
                index = [items.titles.index(title) for title in named]
                assert prompts.build(index[:-1], index[-1]).tokens.tolist() == tokens.tolist()
                seen.add("prompt")
            else:
                assert text in {f"{title} {kind.replace('|', ', ')}" for title, kind in kinds.items()}
                seen.add("line")
    assert seen == {"prompt", "line"}


def test_titles_that_share_a_word_stand_side_by_side_more_often() -> None:
    names = [f"{color} Animal{number}" for number in range(25) for color in ("Red", "Blue", "Green", "Grey")]
    items = Catalogue(tuple(map(str, range(100))), tuple(names), ("",) * 100)
    tokenizer = tiny_llama.train_tokenizer(items, QUICK)

    def share(alike: float) -> float:
        recipe = Recipe(steps=60, lines=0.0, alike=alike)
        pairs = []
        for row in (row for batch in tiny_llama._batches(items, tokenizer, 0, recipe) for row in batch):
            text = tokenizer.decode(row[row >= 0], skip_special_tokens=True)
            named = text.removeprefix(PREFIX).removesuffix(END).replace(SUFFIX, SEPARATOR).split(SEPARATOR)
            pairs += [one.split()[1] == other.split()[1] for one, other in pairwise(named)]
        return sum(pairs) / len(pairs)

    # 3 of the 99 others are of the same animal, and 25 of the same color, which is no rare word.
    assert share(0.0) < 0.06
    assert 0.4 < share(0.5) < 0.55


@pytest.mark.parametrize("categories", [("",) * 3, ("A", "B", "C")])
def test_a_catalogue_without_usable_categories_is_one_shelf(tmp_path: Path, categories: tuple[str, ...]) -> None:
    items = Catalogue(("1", "2", "3"), ("One", "Two", "Three"), categories)
    train(items, seed=0, cache=tmp_path, recipe=QUICK)
    assert tiny_llama._shelves(items) == [[0, 1, 2]]


def test_a_trained_model_answers_with_titles_of_the_catalogue(tmp_path: Path) -> None:
    items = catalogue(24)
    recipe = Recipe(layers=2, hidden=64, intermediate=128, steps=120)
    model, tokenizer = train(items, seed=0, cache=tmp_path, recipe=recipe)
    prompts = title_prompts(tokenizer, items.titles, max_tokens=256, history=5)
    answers = []
    for first in range(12):
        tokens = torch.from_numpy(prompts.build([first, first + 2, first + 4]).tokens)[None]
        out = model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False
        )
        answers.append(tokenizer.decode(out[0, tokens.shape[1] :], skip_special_tokens=True))
    well_formed = [a.endswith(END) and a.removesuffix(END) in items.titles for a in answers]
    assert sum(well_formed) > 0.9 * len(answers), answers
