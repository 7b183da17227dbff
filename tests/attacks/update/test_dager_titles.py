"""The attack as an audit runs it: titles and items of a recommender's update, within the public template."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.attacks.update.dager import Dager
from pplr_audit.attacks.update.language import Language
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.truth.sets import SetTruth
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.prompts import TEMPLATE, Prompt
from pplr_audit.data.synthetic import market
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted, NotApplicable
from pplr_audit.threat_model.recipe import LocalSteps
from pplr_audit.threat_model.view import Aggregate, Update, View
from tests.attacks.test_every_family import MARKET, folder, small

CLIENT = "client-0"


TARGETS = {"llama": ["q_proj", "k_proj", "v_proj"], "bert": ["query", "key", "value"]}


class Setting:
    """A recommender 256 wide with LoRA of rank 96 whose B is not zero, and the gradient of a few users' prompts."""

    def __init__(self, kind: str, place: Path, catalogue: Dataset, blocks: int = 3) -> None:
        backbone = folder(kind, catalogue, place, hidden_size=256, num_hidden_layers=blocks)
        chosen = small(kind, backbone).model
        lora = scenario.Lora(rank=96, targets=TARGETS[kind])
        self.model: Recommender = build(
            chosen.model_copy(update={"lora": lora}), catalogue.catalogue, history=2, seed=1
        )
        generator = torch.Generator().manual_seed(5)
        self.adapter = {n: v + torch.randn(v.shape, generator=generator) * 0.05 for n, v in self.model.initial.items()}
        self.copy = KnownModel(self.model.whole, self.adapter)
        self.knowledge = Knowledge(
            "front", self.model.prompts, self.model.whole.embeddings, KnownModel(self.model.whole, None),
            {(CLIENT, 1): self.copy}, (0, 1), 2, 2, clients=(CLIENT,),
        )  # fmt: skip
        drawn = np.random.default_rng(99)
        self.prompts = [self.model.prompts.random(2, drawn) for _ in range(2)]

    def update(self, prompts: list[Prompt]) -> dict[str, Tensor]:
        return {name: 0.1 * value for name, value in self.copy.gradients(prompts).items()}

    def view(self, update: dict[str, Tensor]) -> View[Update]:
        return View("server", Channel.CLIENT_UPDATE, 2, 0, "none", (Update(0, CLIENT, 1, update, self.adapter),))

    def scores(self, guess: Guess) -> dict[str, float]:
        items = frozenset(int(item) for prompt in self.prompts for item in prompt.held)
        texts = [prompt.tokens[prompt.slots != TEMPLATE].tolist() for prompt in self.prompts]
        prompts = self.model.prompts
        titles = [prompts.titles[item] for item in range(len(prompts.titles))]
        truth = SetTruth({0: 0}, {0: (items, texts)}, prompts.title_classes(), np.ones(len(titles)), titles)
        return {score.metric: score.estimate.value for score in truth.score(guess, seed=0)}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting("llama", tmp_path_factory.mktemp("llama"), market(scenario.Market(**MARKET), 1))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting("bert", tmp_path_factory.mktemp("bert"), market(scenario.Market(**MARKET), 1))


@pytest.mark.parametrize("over", ["titles", "tokens"])
def test_histories_and_answers_are_read_from_an_update(setting: Setting, over: str) -> None:
    guess = Dager(over).run(setting.view(setting.update(setting.prompts)), setting.knowledge, Budget(60))  # type: ignore[arg-type]
    found = setting.scores(guess)
    assert found["exact_sequences"] == found["rougeL"] == 1.0
    assert found["item_recall"] == 1.0
    assert found["token_ap"] > 0.6


def test_histories_are_read_from_an_encoders_update(encoder: Setting) -> None:
    guess = Dager().run(encoder.view(encoder.update(encoder.prompts)), encoder.knowledge, Budget(60))
    found = encoder.scores(guess)
    assert found["exact_sequences"] == found["rougeL"] == 1.0
    assert found["item_recall"] == 1.0


def test_a_last_block_that_sees_some_places_only_is_no_test_of_sequences(tmp_path: Path) -> None:
    """With the loss on one token, the second of two blocks has a direction for each head, and not for each token."""
    setting = Setting("bert", tmp_path, market(scenario.Market(**MARKET), 1), blocks=2)
    guess = Dager().run(setting.view(setting.update(setting.prompts)), setting.knowledge, Budget(60))
    assert guess.facts["read"] == [{"ranks": guess.facts["read"][0]["ranks"], "searched": False}]
    assert setting.scores(guess)["item_recall"] == 1.0, "the first block's span has the tokens"


def test_an_encoders_update_of_others_gives_none_of_these_sequences(encoder: Setting) -> None:
    others = [encoder.model.prompts.random(2, np.random.default_rng(7)) for _ in range(2)]
    guess = Dager().run(encoder.view(encoder.update(others)), encoder.knowledge, Budget(60))
    assert encoder.scores(guess)["exact_sequences"] == 0.0


def test_an_update_of_others_gives_none_of_these_sequences(setting: Setting) -> None:
    others = [setting.model.prompts.random(2, np.random.default_rng(7)) for _ in range(2)]
    guess = Dager().run(setting.view(setting.update(others)), setting.knowledge, Budget(60))
    found = setting.scores(guess)
    assert found["exact_sequences"] == 0.0
    assert found["item_recall"] < 0.5


def test_the_sum_of_updates_is_read_as_one(setting: Setting) -> None:
    total = Aggregate(0, (CLIENT, "client-1"), 1, setting.update(setting.prompts))
    view = View("server", Channel.AGGREGATE, 2, 0, "none", (total,))
    assert setting.scores(Dager().run(view, setting.knowledge, Budget(60)))["exact_sequences"] == 1.0


def test_with_more_tokens_than_the_model_is_wide_it_does_not_apply(setting: Setting) -> None:
    many = [setting.model.prompts.random(2, np.random.default_rng(seed)) for seed in range(12)]
    view = setting.view(setting.update(many))
    guess = Dager(candidates=512).run(view, setting.knowledge, Budget(60))
    assert not len(guess.arrays["sequence_tokens"])


def test_of_more_inputs_than_an_encoder_is_wide_a_floor_of_noise_is_not_believed(encoder: Setting) -> None:
    """The server knows that the client had 40 samples: as many prompts have more inputs than the 256 of the width."""
    many = [encoder.model.prompts.random(2, np.random.default_rng(seed)) for seed in range(40)]
    drawn, update = torch.Generator().manual_seed(1), encoder.update(many)
    noisy = {name: each + 0.02 * each.std() * torch.randn(each.shape, generator=drawn) for name, each in update.items()}
    knowledge = replace(encoder.knowledge, steps={(CLIENT, 1): LocalSteps(40, (1.0,))})
    with pytest.raises(NotApplicable, match=r"about \d+ inputs differ, and .* is 256 wide: \d+ of 256 directions"):
        Dager().run(encoder.view(noisy), knowledge, Budget(60))
    assert Dager().run(encoder.view(update), knowledge, Budget(60)).facts["unread"] == 0, "here the floor is rounding"


def test_an_update_of_zeros_is_refused_with_the_reason(setting: Setting) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in setting.adapter.items()}
    with pytest.raises(NotApplicable, match="all of the update is zero"):
        Dager().run(setting.view(zeros), setting.knowledge, Budget(60))


def test_it_stops_at_its_budget(setting: Setting) -> None:
    with pytest.raises(BudgetExhausted):
        Dager().run(setting.view(setting.update(setting.prompts)), setting.knowledge, Budget(-1.0))


def test_settings_are_whole_numbers_and_known_words() -> None:
    with pytest.raises(InputError, match=r"dager: over is 'words' \(accepted: titles, tokens\)"):
        Dager("words")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dager: beam is 0"):
        Dager(beam=0)


def test_the_language_takes_every_prompt_and_reads_its_items(setting: Setting) -> None:
    language = Language(setting.model.prompts, 2)
    for prompt in setting.prompts:
        tokens = prompt.tokens.tolist()
        for length in range(len(tokens)):
            assert tokens[length] in language.after(tokens[:length]).tolist()
        assert not len(language.after(tokens))
        classes = setting.model.prompts.title_classes()
        read, true = language.items(tokens), [*prompt.items.tolist(), prompt.target]
        assert classes[[*read]].tolist() == classes[true].tolist()
        assert language.titles(read) == prompt.tokens[prompt.slots != TEMPLATE].tolist()
        assert language.items(tokens[:-2]) == read, "the last token is in no gradient"
    assert not len(language.after([int(setting.model.prompts.suffix[-1])]))
