"""Token rows: what was read and what was answered, from rows of words, of the head and of items, whole and as LoRA."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.update.bag_of_tokens import Titles
from pplr_audit.attacks.update.row_moves import answered_by, read_by
from pplr_audit.attacks.update.token_rows import TokenRows
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.prompts import Prompt
from pplr_audit.data.synthetic import market
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.uncut import UncutModel
from pplr_audit.report.findings.series import above_baseline
from pplr_audit.scoring.sets import average_precision, recall_at
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.recipe import LocalSteps, Recipe
from pplr_audit.threat_model.view import Aggregate, Update, View

STEPS = 4
KINDS = {"words": ["embed_tokens"], "head": ["lm_head"], "words, LoRA": ["embed_tokens"], "head, LoRA": ["lm_head"]}


def recipe(optimizer: str, decay: float = 0.0) -> Recipe:
    rate = 0.5 if optimizer == "sgd" else 1e-3
    return Recipe("fedavg", 1, 1, 2, optimizer, rate, decay, "constant", 0.0, "factors")


class Setting:
    """A client that trains some rows of a small Llama on prompts of its own, and what its server has."""

    def __init__(self, model: Recommender, kind: str, optimizer: str, decay: float = 0.0) -> None:
        inner = model.whole.model
        self.recipe, self.prompts = recipe(optimizer, decay), model.prompts
        whole = UncutModel(trained_rows(inner, kind), model.whole.task)
        self.whole, self.start = whole, whole.initial
        steps = {(f"client-{place}", 1): LocalSteps(8, (1.0,) * STEPS) for place in range(3)}
        self.knowledge = Knowledge(
            "base", model.prompts, whole.embeddings, KnownModel(whole, None), {}, (), 3, model.layers,
            clients=("client-0", "client-1", "client-2"), recipe=self.recipe, steps=steps,
        )  # fmt: skip

    def drawn(self, seed: int) -> list[Prompt]:
        generator = np.random.default_rng(seed)
        return [self.prompts.random(2, generator) for _ in range(2 * STEPS)]

    def update(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        kind = torch.optim.AdamW if self.recipe.optimizer == "adamw" else torch.optim.SGD
        optimizer = partial(kind, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay)
        batches = [prompts[place : place + 2] for place in range(0, len(prompts), 2)]
        return self.whole.trained(batches, self.start, {}, optimizer, [1.0] * STEPS)

    def answer(self, *updates: dict[str, Tensor]) -> Guess:
        seen = tuple(Update(row, f"client-{row}", 1, own, self.start) for row, own in enumerate(updates))
        view = View("server", Channel.CLIENT_UPDATE, 1, 1, "none", seen)
        return TokenRows().run(view, self.knowledge, Budget(60))


def trained_rows(inner: Any, kind: str) -> Any:
    """A copy of a Llama of which certain rows are trained, and nothing else; the head is not tied."""
    model = deepcopy(inner)
    vars(model).pop("peft_config", None)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if kind.endswith("LoRA"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            inject_adapter_in_model(LoraConfig(r=4, target_modules=KINDS[kind]), model)
        for name, parameter in model.named_parameters():
            own = any(target in name for target in KINDS[kind])
            parameter.requires_grad_("lora_" in name and own)
    else:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(target in name for target in KINDS[kind]))
    return model


def ranked(guess: Guess, name: str, offsets: str) -> list[list[int]]:
    bounds = guess.arrays[offsets].tolist()
    return [guess.arrays[name][start:stop].tolist() for start, stop in pairwise(bounds)]


def tokens_of(prompts: Sequence[Prompt], kind: str, titles: Titles) -> set[int]:
    """The tokens of titles that were read, or that were answers."""
    parts = [p.tokens if kind.startswith("words") else p.tokens[p.answer :] for p in prompts]
    return set(np.concatenate(parts).tolist()) & set(titles.tokens.tolist())


@pytest.fixture(scope="module")
def llama(small_scenario: scenario.Scenario) -> Recommender:
    wide = market(scenario.Market(users=60, items=160, tastes=8), 1)
    return build(small_scenario.model, wide.catalogue, history=2, seed=1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_read_off_every_tensor_that_has_rows_of_them(llama: Recommender, kind: str, optimizer: str) -> None:
    setting = Setting(llama, kind, optimizer, decay=0.1)
    titles = Titles(setting.prompts)
    own, others = setting.drawn(1), setting.drawn(2)
    first, second = ranked(
        setting.answer(setting.update(own), setting.update(others)), "ranked_tokens", "token_offsets"
    )
    assert sorted(first) == titles.tokens.tolist(), "every token of a title has its place"
    for found, right, wrong in ((first, own, others), (second, others, own)):
        coarse = kind == "head, LoRA" and optimizer == "adamw"  # four numbers a row, of which all move about as far
        assert average_precision(found, tokens_of(right, kind, titles)) > (0.9 if coarse else 0.99)
        alone = tokens_of(wrong, kind, titles) - tokens_of(right, kind, titles)
        assert average_precision(found, alone) < 0.4, "what another client has alone is not found"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_items_are_those_whose_titles_are_made_of_what_moved(llama: Recommender, optimizer: str) -> None:
    setting = Setting(llama, "words", optimizer)
    titles, own = Titles(setting.prompts), setting.drawn(1)[:2]
    (first,) = ranked(setting.answer(setting.update(own * STEPS)), "ranked_items", "item_offsets")
    classes, bag = setting.prompts.title_classes(), tokens_of(own, "words", titles)
    right = {int(classes[item]) for p in own for item in p.held}
    made = [{*setting.prompts.titles[item].tolist()} <= bag for item in first]
    assert made == sorted(made, reverse=True), "no title with a token that did not move stands above one without"
    assert recall_at(classes[first].tolist(), right, len(right)) > 0.6
    assert recall_at(classes[first].tolist(), right, sum(made)) == 1, (
        "all that is above them is made of the same tokens"
    )
    assert sum(made) < 0.2 * len(first)


def test_under_adamw_size_tells_the_opposite_of_what_the_distance_from_the_drift_tells(llama: Recommender) -> None:
    setting = Setting(llama, "head", "adamw")
    titles, own = Titles(setting.prompts), setting.drawn(1)
    (rows,) = setting.update(own).values()
    answers = tokens_of(own, "head", titles)
    by_size, by_drift = (
        average_precision(titles.tokens[np.argsort(-told.numpy()[titles.tokens])].tolist(), answers)
        for told in (read_by(rows.double()), answered_by(rows.double(), "adamw"))
    )
    assert by_size < 0.5 < 0.99 < by_drift


def test_weight_decay_would_hide_rows_and_is_undone_for_one_client_and_for_the_sum(llama: Recommender) -> None:
    setting = Setting(llama, "words", "adamw", decay=40.0)
    titles, own, others = Titles(setting.prompts), setting.drawn(1), setting.drawn(2)
    blind = replace(setting.knowledge, recipe=replace(setting.recipe, weight_decay=0.0))
    updates = [setting.update(own), setting.update(others)]
    one = Update(0, "client-0", 1, updates[0], setting.start)
    summed = {name: 8 * (value.double() + updates[1][name].double()) for name, value in updates[0].items()}
    both = Aggregate(0, ("client-0", "client-1"), 1, summed)
    for seen, channel, true in ((one, Channel.CLIENT_UPDATE, own), (both, Channel.AGGREGATE, [*own, *others])):
        view: View[Any] = View("server", channel, 1, 1, "none", (seen,))
        found = [
            average_precision(*ranked(guess, "ranked_tokens", "token_offsets"), tokens_of(true, "words", titles))
            for guess in (TokenRows().run(view, each, Budget(60)) for each in (setting.knowledge, blind))
        ]
        assert found[1] < 0.99 < 0.999 < found[0], channel


def test_a_new_model_is_compared_with_the_one_that_the_round_started_from(llama: Recommender) -> None:
    setting = Setting(llama, "words", "sgd")
    titles, own = Titles(setting.prompts), setting.drawn(1)
    new = {name: setting.start[name] - value for name, value in setting.update(own).items()}
    view: View[Any] = View("server", Channel.PERSONAL_MODEL, 1, 1, "none", (Update(0, "client-0", 1, new),))
    (found,) = ranked(TokenRows().run(view, setting.knowledge, Budget(60)), "ranked_tokens", "token_offsets")
    assert average_precision(found, tokens_of(own, "words", titles)) > 0.99


def test_moments_of_earlier_rounds_move_rows_less_than_what_is_trained_now(llama: Recommender) -> None:
    setting = Setting(llama, "words", "adamw")
    titles, before, now = Titles(setting.prompts), setting.drawn(2), setting.drawn(1)[:2] * STEPS
    whole, (parameter,) = setting.whole, setting.whole._parameters.values()
    whole.set(None)
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.0)
    for place, prompts in enumerate((before, now)):
        start = {name: value.detach().clone() for name, value in whole._parameters.items()}
        for first in range(0, len(prompts), 2):
            whole.task.loss(whole.model, prompts[first : first + 2], {}).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if place:
            moved = {name: value - whole._parameters[name].detach() for name, value in start.items()}
    (name,) = moved
    held = tokens_of(before, "words", titles) - tokens_of(now, "words", titles)
    assert bool((moved[name][sorted(held)] != 0).all()), "rows of the round before moved, too"
    (found,) = ranked(setting.answer(moved), "ranked_tokens", "token_offsets")
    order = np.random.default_rng(0).permutation(sorted(held | tokens_of(now, "words", titles))).tolist()
    alike, right = (average_precision(each, tokens_of(now, "words", titles)) for each in (order, found))
    assert alike < 0.85 < 0.9 < right, "rows that moved, in any order, and by how much"


def test_where_there_is_nothing_to_read_the_reason_is_told(llama: Recommender) -> None:
    setting = Setting(llama, "words", "sgd")
    update = setting.update(setting.drawn(1))
    blocks = {"model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(4, 32)}
    with pytest.raises(NotApplicable, match=r"no tensor of the update has a row for each .* 1 tensors, such as model"):
        setting.answer(blocks)
    with pytest.raises(NotApplicable, match=r"all of model\.embed_tokens\.weight is zero"):
        setting.answer({name: torch.zeros_like(value) for name, value in update.items()})
    seen = (Update(0, "client-0", 1, update),)
    still = Update(1, "client-1", 1, {name: torch.zeros_like(value) for name, value in update.items()})
    view = View("server", Channel.CLIENT_UPDATE, 1, 1, "none", (*seen, still))
    answered = TokenRows().run(view, setting.knowledge, Budget(60)).arrays["rows"].tolist()
    assert answered == [0], "a client that learned nothing has no answer, not one by chance"
    with pytest.raises(NotApplicable, match="a peer is sent its own model"):
        TokenRows().run(View("peer", Channel.PERSONAL_MODEL, 1, 1, "none", seen), setting.knowledge, Budget(60))
    with pytest.raises(BudgetExhausted):
        TokenRows().run(View("server", Channel.CLIENT_UPDATE, 1, 1, "none", seen), setting.knowledge, Budget(-1))


@pytest.mark.parametrize(("train", "ids", "optimizer"), [("all", False, "adamw"), ("embeddings", True, "adamw"),
                                                         ("embeddings", True, "sgd")])  # fmt: skip
def test_items_of_single_users_are_read_from_one_round_of_recformer_and_none_from_shuffled_updates(
    recformer_scenario: scenario.Scenario, tmp_path: Path, train: str, ids: bool,
    optimizer: str,
) -> None:  # fmt: skip
    changed = recformer_scenario.model_dump()
    changed["data"] |= {"partition": "per_user", "users": 40, "audit_users": 20, "reserve": 0.3}
    changed["data"]["market"] |= {"users": 60, "items": 160, "tastes": 8}
    changed["model"]["recformer"] |= {"train": train, "ids": ids, "refresh_rounds": 0}
    changed["training"] |= {"optimizer": optimizer, "learning_rate": 1e-3 if optimizer == "adamw" else 0.3, "rounds": 1}
    changed["audit"] |= {"attacks": ["token_rows"], "victims": 40, "cuts": [[1, 1]], "adversaries": ["server"]}
    document = audit.run(scenario.Scenario.model_validate(changed), tmp_path / "run").document
    found = {row["metric"]: row for row in document["findings"] if row["channel"] == "client_update"}
    items = found["item_recall"]
    against = {each["name"]: each["p"] for each in items["comparisons"]}
    assert against.keys() == {"popularity", "control", "reserve"}
    assert max(against["control"], against["reserve"]) < 0.025
    assert next(each["value"] for each in items["comparisons"] if each["name"] == "control") < 0.1
    if train == "all":
        assert above_baseline(items)
        assert above_baseline(found["token_ap"])
        assert found["token_ap"]["value"] > 0.95
    else:  # of the four items that a user has, one is the answer that the vectors are trained by
        assert items["value"] >= 0.24
        assert "token_ap" not in found
