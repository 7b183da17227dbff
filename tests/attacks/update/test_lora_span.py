"""lora_span: items from the span of an update, with fewer directions than words, under SGD and AdamW."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from pplr_audit import scenario
from pplr_audit.attacks.update.candidates import TitleInputs, covering
from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.attacks.update.row_reader import RowReader
from pplr_audit.attacks.update.sparse import powers
from pplr_audit.audit.truth.sets import SetTruth, held_by
from pplr_audit.data.dataset import Dataset
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model import Budget, Channel, Guess, NotApplicable
from tests.attacks.update.clients import SGD, Clients, moved
from tests.conftest import LAYERS

WIDTH, HISTORY, USERS = 192, 3, 4
ONE_STEP = replace(SGD, batch_size=1)
ADAMW = replace(ONE_STEP, optimizer="adamw", learning_rate=0.003, weight_decay=0.1)


@pytest.fixture(scope="module", params=["bigrec", "recformer"])
def wide(
    request: pytest.FixtureRequest, small_scenario: scenario.Scenario, recformer_scenario: scenario.Scenario,
    small_market: Dataset, tmp_path_factory: pytest.TempPathFactory,
) -> Recommender:  # fmt: skip
    """Small models whose layers are wider than a prompt has words."""
    causal = request.param == "bigrec"
    chosen = small_scenario if causal else recformer_scenario
    tokenizer, folder = AutoTokenizer.from_pretrained(chosen.model.backbone), tmp_path_factory.mktemp(request.param)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.05,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = LlamaForCausalLM(LlamaConfig(**sizes)) if causal else BertModel(BertConfig(**sizes, pad_token_id=0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    targets = ("q_proj", "k_proj", "v_proj") if causal else ("query", "key", "value")
    settings = chosen.model.model_copy(
        update={"backbone": str(folder), "lora": scenario.Lora(rank=4, targets=targets), "max_tokens": 256}
    )
    return build(settings, small_market.catalogue, history=HISTORY, seed=1)


def users(model: Recommender, count: int = USERS, samples: int = 1) -> Clients:
    generator = np.random.default_rng(3)
    own = {
        f"user-{place}": [
            model.prompts.build(*_drawn(model, generator))
            for _ in range(samples)
        ]
        for place in range(count)
    }  # fmt: skip
    return Clients(model, own, ONE_STEP)


def _drawn(model: Recommender, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    items = generator.permutation(len(model.prompts.titles))[: HISTORY + 1]
    return items[:-1], int(items[-1])


def item_recall(guess: Guess, clients: Clients) -> float:
    """Share of each user's items among as many named, as `SetTruth` counts it."""
    classes, found = clients.model.prompts.title_classes(), []
    bounds, names = guess.arrays["item_offsets"], [*clients.samples]
    for place, row in enumerate(guess.arrays["rows"].tolist()):
        true = {int(classes[item]) for prompt in clients.samples[names[row]] for item in prompt.held}
        ranked = dict.fromkeys(classes[guess.arrays["ranked_items"][bounds[place] : bounds[place + 1]]].tolist())
        found.append(len(set([*ranked][: len(true)]) & true) / len(true))
    return float(np.mean(found))


@pytest.mark.parametrize(("recipe", "least"), [(ONE_STEP, 0.9), (ADAMW, 0.5)])
def test_items_of_a_user_are_read_off_one_update_and_not_off_another_users(
    wide: Recommender, recipe: object, least: float
) -> None:
    clients = replace(users(wide), recipe=recipe, start=moved(wide))
    view, attack = clients.view(), LoraSpan(shortlist=40, iterations=40)
    guess = attack.run(view, clients.knowledge(), Budget(300))
    found = item_recall(guess, clients)
    dealt = attack.run(view.shuffled(np.random.default_rng(1)), clients.knowledge(), Budget(300))
    assert found >= least
    assert item_recall(dealt, clients) < found / 2
    assert guess.facts["directions"] == 12, "fewer than a prompt has words"
    assert guess.facts["width"] == WIDTH
    assert len(guess.arrays["ranked_items"]) == USERS * len(wide.prompts.titles), "all of the catalogue is ranked"


def test_rows_in_view_at_several_cuts_and_in_controls_are_read_once(
    wide: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = replace(users(wide, 2), start=moved(wide))
    knowledge, view, attack = clients.knowledge(), clients.view(), LoraSpan(shortlist=5, iterations=2, simulated=0)
    first = attack.run(view, knowledge, Budget(300))
    monkeypatch.setattr(RowReader, "read", None)
    again = attack.run(view, knowledge, Budget(300))
    assert all((again.arrays[name] == values).all() for name, values in first.arrays.items())
    assert again.facts == first.facts
    attack.run(view.shuffled(np.random.default_rng(1)), knowledge, Budget(300))
    with pytest.raises(TypeError, match="not callable"):
        LoraSpan(shortlist=5, iterations=3, simulated=0).run(view, knowledge, Budget(300))


def test_the_precision_that_probabilities_state_is_about_what_is_found(wide: Recommender) -> None:
    clients = replace(users(wide), recipe=ADAMW, start=moved(wide))
    guess = LoraSpan(shortlist=40, iterations=40, simulated=2).run(clients.view(), clients.knowledge(), Budget(300))
    chances, bounds = guess.arrays["item_chances"], guess.arrays["item_offsets"]
    assert len(chances) == len(guess.arrays["ranked_items"])
    assert all((np.diff(chances[start:stop]) <= 1e-12).all() for start, stop in pairwise(bounds)), "as they are ranked"
    held = {row: held_by(clients.samples[f"user-{row}"]) for row in range(USERS)}
    titles = [wide.prompts.titles[item] for item in range(len(wide.prompts.titles))]
    users_of = {row: row for row in held}
    truth = SetTruth(users_of, held, wide.prompts.title_classes(), np.ones(len(titles)), titles)
    of_half = truth.score(guess, seed=0)[0].detail["chances"]
    assert of_half["precision_stated"] == pytest.approx(of_half["precision_found"], abs=0.3)
    assert of_half["brier"] < 0.8 * np.mean([len(own) for own, _ in held.values()]) / len(titles), "better than none"
    none = LoraSpan(shortlist=5, iterations=2, simulated=0).run(clients.view(), clients.knowledge(), Budget(300))
    unknown = LoraSpan(shortlist=5, iterations=2).run(clients.view(), clients.knowledge(steps={}), Budget(300))
    assert not {"item_chances"} & {*none.arrays, *unknown.arrays}, "a client whose steps are not known is not simulated"


def test_a_client_that_sends_deeper_layers_alone_is_read_too(wide: Recommender) -> None:
    clients = users(wide)
    view = clients.view()
    deep = tuple(
        replace(seen, tensors={name: t for name, t in seen.tensors.items() if f".{LAYERS - 1}." in name})
        for seen in view.records
    )
    guess = LoraSpan(shortlist=40, iterations=30).run(replace(view, records=deep), clients.knowledge(), Budget(300))
    assert f".{LAYERS - 1}." in guess.facts["layer"]
    assert item_recall(guess, clients) > 0.2, "by chance .08"


def test_a_sum_of_updates_names_items_of_all(wide: Recommender) -> None:
    clients = users(wide, count=2)
    guess = LoraSpan(shortlist=40, iterations=40).run(clients.view(Channel.AGGREGATE), clients.knowledge(), Budget(300))
    together = Clients(wide, {"all": [p for own in clients.samples.values() for p in own]}, ONE_STEP)
    assert item_recall(guess, together) > 0.5


def test_more_words_than_the_layer_is_wide_are_told_with_the_numbers(wide: Recommender) -> None:
    clients = users(wide, count=1, samples=60)
    if wide.whole.causal:  # of a word, one input enters wherever it stands, and the catalogue has fewer words
        assert LoraSpan(shortlist=5, iterations=2).run(clients.view(), clients.knowledge(), Budget(300))
        return
    with pytest.raises(NotApplicable, match=r"about [\d,]+ different inputs enter .* in 60 samples") as reason:
        LoraSpan().run(clients.view(), clients.knowledge(), Budget(300))
    assert f"{WIDTH} dimensions" in str(reason.value)


def test_titles_come_in_their_order_where_positions_are_added_before_the_first_layer(wide: Recommender) -> None:
    clients = users(wide)
    guess = LoraSpan(shortlist=40, iterations=40).run(clients.view(), clients.knowledge(), Budget(300))
    if wide.whole.causal:
        assert "sequence_tokens" not in guess.arrays, "rotary positions enter behind the projections"
        return
    bounds, right = guess.arrays["sequence_offsets"], 0
    for place, row in enumerate(guess.arrays["sequence_places"].tolist()):
        (prompt,) = clients.samples[f"user-{row}"]
        own = guess.arrays["sequence_tokens"][bounds[place] : bounds[place + 1]].tolist()
        right += own == prompt.tokens[prompt.slots >= 0].tolist()
    assert right >= USERS // 2, "whole histories, in order"


def test_candidates_are_what_enters_for_real_prompts(wide: Recommender) -> None:
    clients = users(wide)
    usual = covering(wide.prompts, 4, HISTORY, np.random.default_rng(0))
    layer = next(iter(wide.whole.linears))
    first = TitleInputs(clients.known, layer, wide.prompts, usual)
    assert first.placed != wide.whole.causal
    (prompt,) = clients.samples["user-0"]
    ((_, seen),) = clients.known.entering([prompt], [layer])
    start = int(np.flatnonzero(prompt.slots == 0)[0])
    words, groups, found = first.of([(int(prompt.items[0]), start)])
    assert not groups.any()
    assert np.array_equal(words, first.title(int(prompt.items[0])))
    assert torch.allclose(found, seen[layer][start : start + len(words)].double(), atol=1e-5)
    rows = torch.cat([table for _, table in first.table()])
    assert rows.shape == (len(first.words), first.places, WIDTH)
    assert torch.allclose(rows[words[0], start if first.placed else 0].double(), found[0], atol=1e-5)


def test_more_true_candidates_than_measurements_are_found() -> None:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    candidates, true = normal(300, 64), torch.arange(0, 300, 20)
    noise = 0.05 * normal(8, 64)
    measured = normal(8, len(true)) @ candidates[true] + noise
    power, noises = powers(measured, candidates, torch.arange(300), torch.eye(64, dtype=torch.double)[None], 100)
    basis = torch.linalg.qr(measured.T).Q
    shares = (candidates @ basis).square().sum(1) / candidates.square().sum(1)
    best = [set(each.argsort(descending=True)[: len(true)].tolist()) & set(true.tolist()) for each in (power, shares)]
    assert len(best[0]) >= len(true) - 1
    assert len(best[0]) > len(best[1]), "a test of the span alone finds fewer"
    assert int((power > 1e-3 * power.max()).sum()) < 30
    assert float(noises[0]) < 0.5


def test_settings_are_whole_numbers() -> None:
    with pytest.raises(InputError, match="shortlist is 0"):
        LoraSpan(shortlist=0)
