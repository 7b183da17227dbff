"""crafted_adapter: what a server plants parts the update of a client with many samples, so that its items are read."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.attacks.active.attention_trap import projections, traps
from pplr_audit.attacks.active.crafted_adapter import CraftedAdapter
from pplr_audit.attacks.update.lora_span import LoraSpan
from pplr_audit.audit.own_trainings.crafted_round import crafted
from pplr_audit.audit.plan import make_plan
from pplr_audit.data.dataset import Catalogue
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.scenario import plugins
from pplr_audit.threat_model import Budget, BudgetExhausted, Failed, Guess, Knowledge, NotApplicable, Update, View
from pplr_audit.training.rounds import RoundState
from tests.attacks.update.clients import ADAMW, SGD, Clients, moved
from tests.attacks.update.test_lora_span import item_recall
from tests.conftest import LAYERS, prompt_text

ITEMS, HISTORY, SAMPLES, WIDTH = 120, 5, 30, 128


def catalogue() -> Catalogue:
    """Titles as films have them: two words of their own around a common one."""
    names = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "dgklmnrst"]
    order = np.random.default_rng(11).permutation(len(names))
    common = ("the", "of", "and", "in")
    titles = [f"{names[order[2 * i]]} {common[i % 4]} {names[order[2 * i + 1]]}" for i in range(ITEMS)]
    return Catalogue(tuple(map(str, range(ITEMS))), tuple(titles), ("",) * ITEMS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """RecFormer on a small BERT of random weights, whose catalogue has more words than the layers are wide."""
    items, folder = catalogue(), tmp_path_factory.mktemp("bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for title in items.titles for word in title.split()})
    vocabulary = {token: place for place, token in enumerate([*special, ":", "title", "categories", *words])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", **names)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 8}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        BertModel(
            BertConfig(vocab_size=len(vocabulary), pad_token_id=0, initializer_range=0.05, **sizes)
        ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = scenario.Model.model_validate(
        {"backbone": str(folder), "recommender": "recformer", "lora": {"rank": 8, "targets": ["query", "key", "value"]}}
    )
    return build(settings, items, history=HISTORY, seed=1)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """BIGRec on a small Llama of random weights over the same catalogue, without LoRA on its keys."""
    items, folder = catalogue(), tmp_path_factory.mktemp("llama")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator([*items.titles * 3, *[prompt_text(["x"], "y")] * 300], trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 8}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=512, **names)
    made = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, initializer_range=0.05, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        LlamaForCausalLM(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lora = {"rank": 8, "targets": ["q_proj", "v_proj"]}
    settings = {"backbone": str(folder), "recommender": "bigrec", "max_tokens": 256, "lora": lora}
    return build(scenario.Model.model_validate(settings), items, history=HISTORY, seed=1)


def test_behind_a_template_and_without_lora_on_keys_a_decoders_silo_is_read_too(decoder: Recommender) -> None:
    honest, attack = silos(decoder), CraftedAdapter(prompts=16, iterations=40)
    planted = sent(honest, attack)
    found, _ = read(planted, planted.view(), attack, honest)
    dealt, _ = read(planted, planted.view().shuffled(np.random.default_rng(1)), attack, honest)
    without, _ = read(honest, honest.view(), attack, honest)
    assert found > without + 0.05
    assert found > dealt + 0.05


def silos(model: Recommender, count: int = 2) -> Clients:
    """Clients of many samples over a half of the catalogue each."""
    generator = np.random.default_rng(3)
    own = {}
    for place in range(count):
        half = generator.permutation(ITEMS)[: ITEMS // 2]
        drawn = (generator.choice(half, HISTORY + 1, replace=False) for _ in range(SAMPLES))
        own[f"user-{place}"] = [model.prompts.build(items[:-1], int(items[-1])) for items in drawn]
    return Clients(model, own, SGD, moved(model))


def knowledge_of(clients: Clients) -> Knowledge:
    return replace(clients.knowledge(), history=HISTORY)


def sent(clients: Clients, attack: CraftedAdapter) -> Clients:
    """The same clients, who begin the round with what the server made."""
    start = attack.craft_start("user-0", 1, clients.start, knowledge_of(clients), Budget(60))
    return replace(clients, start=dict(start))


def read(clients: Clients, view: View[Update], attack: CraftedAdapter, honest: Clients) -> tuple[float, Guess]:
    guess = attack.run(view, knowledge_of(honest), Budget(300))
    return item_recall(guess, clients), guess


@pytest.mark.parametrize("recipe", [SGD, replace(ADAMW, batch_size=8, learning_rate=0.001)])
def test_a_silo_is_read_from_what_was_planted_more_than_from_an_honest_round_and_not_from_anothers_update(
    encoder: Recommender, recipe: object
) -> None:
    honest = replace(silos(encoder), recipe=recipe)
    with pytest.raises(NotApplicable, match="every word lies in their span"):
        LoraSpan().run(honest.view(), knowledge_of(honest), Budget(300))
    attack = CraftedAdapter(prompts=16, iterations=40)
    planted = sent(honest, attack)
    view = planted.view()
    found, guess = read(planted, view, attack, honest)
    dealt, _ = read(planted, view.shuffled(np.random.default_rng(1)), attack, honest)
    without, _ = read(honest, honest.view(), attack, honest)
    assert found > without + 0.05
    assert found > dealt + 0.15
    assert guess.facts["heads"] == 8
    assert guess.facts["words"] > WIDTH == guess.facts["width"]
    assert len(guess.arrays["ranked_items"]) == 2 * ITEMS, "all of the catalogue is ranked"


def test_what_is_sent_has_the_same_shape_and_changes_the_first_block_alone(encoder: Recommender) -> None:
    honest = silos(encoder)
    planted = sent(honest, CraftedAdapter(prompts=4))
    changed = {name for name, value in planted.start.items() if not torch.equal(value, honest.start[name])}
    assert changed
    assert all(".layer.0.attention.self." in name for name in changed)
    assert {n: v.shape for n, v in planted.start.items()} == {n: v.shape for n, v in honest.start.items()}
    again = sent(honest, CraftedAdapter(prompts=4))
    assert all(torch.equal(value, again.start[name]) for name, value in planted.start.items()), "drawn by the seed"


def test_a_head_lets_one_word_of_a_sequence_into_the_gradient_of_its_values(encoder: Recommender) -> None:
    planted = sent(silos(encoder), CraftedAdapter(prompts=4))
    parts = projections(planted.known)
    values = parts["values"]
    assert traps(parts) == 8
    prompt = planted.samples["user-0"][0]
    gradient = planted.known.under(planted.start).gradients([prompt])[values.linear.lora_a].double()
    ((_, entered),) = planted.known.entering([prompt], [values.linear.name])
    inputs = entered[values.linear.name].double()
    along = torch.nn.functional.cosine_similarity(gradient[:, None], inputs[None], dim=2).abs().amax(1)
    assert (along > 0.999).sum() >= 6, "two words may score alike"


def test_a_cut_without_the_first_block_and_a_model_without_a_trap_are_told(encoder: Recommender) -> None:
    honest = silos(encoder)
    behind = {name: value for name, value in honest.start.items() if ".layer.0." not in name}
    with pytest.raises(NotApplicable, match="at this cut the client does not hold the first block"):
        CraftedAdapter().craft_start("user-0", 1, behind, knowledge_of(honest), Budget(60))
    values = projections(honest.known)["values"].linear.lora_b
    plain = replace(honest, start={**honest.start, values: torch.zeros_like(honest.start[values])})
    with pytest.raises(NotApplicable, match="no trap was set"):
        CraftedAdapter().run(plain.view(), knowledge_of(honest), Budget(60))
    with pytest.raises(BudgetExhausted):
        CraftedAdapter().run(honest.view(), knowledge_of(honest), Budget(-1))
    with pytest.raises(InputError, match="crafted_adapter: prompts is 0"):
        CraftedAdapter(prompts=0)


def test_without_lora_on_values_and_queries_or_keys_it_does_not_apply(model: Recommender) -> None:
    clients = Clients(model, {"user-0": [model.prompts.random(3, np.random.default_rng(0))]})
    linears = {n: each for n, each in clients.known.linears.items() if each.gives != ("queries",)}

    class Without:
        heads, adapter = clients.known.heads, clients.known.adapter

    Without.linears = linears  # type: ignore[attr-defined]
    with pytest.raises(NotApplicable, match=r"on its queries or keys, .*trained there: values$"):
        projections(Without())  # type: ignore[arg-type]


@dataclass
class Sends:
    """Sends what it is told to."""

    changes: dict[str, torch.Tensor]
    left_out: str = ""

    def craft_start(self, client: str, round_: int, start: dict[str, torch.Tensor], *_: object) -> object:
        return {name: value for name, value in {**start, **self.changes}.items() if name != self.left_out}


def test_what_no_client_could_begin_with_fails_and_clients_who_are_not_asked_get_their_own_model() -> None:
    adapter = {"a": torch.zeros(2), "b": torch.zeros(3)}
    state = RoundState(2, {"one": dict(adapter), "two": dict(adapter)}, {})
    sending = partial(crafted, knowledge=None, state=state, held=["a"], clients=["one"], budget=Budget(60))
    found = sending(Sends({"a": torch.ones(2)})).adapters
    assert found["one"]["a"].tolist() == [1, 1]
    assert found["one"]["b"].tolist() == [0, 0, 0], "the trunk's is the server's own"
    assert found["two"]["a"].tolist() == [0, 0]
    for wrong in (torch.ones(3), torch.ones(2).double(), torch.tensor([1.0, float("nan")])):
        with pytest.raises(Failed, match="sends as a is not of shape"):
            sending(Sends({"a": wrong}))
    with pytest.raises(Failed, match="other tensors than a client's"):
        sending(Sends({"b": torch.ones(3)}))
    with pytest.raises(Failed, match="other tensors than a client's"):
        sending(Sends({}, left_out="a"))


def asked(small_scenario: scenario.Scenario, **audit: object) -> scenario.Scenario:
    changed = small_scenario.model_dump()
    changed["data"] |= {"users": 60, "audit_users": 20, "reserve": 0.3, "test_users": 4}
    changed["audit"] |= {"cuts": [[1, 1], [0, 1]], "adversaries": ["server", "malicious_server"], **audit}
    return scenario.Scenario.model_validate(changed)


def test_an_audit_trains_the_round_from_what_was_sent_and_says_what_a_client_could_have_noticed(
    small_scenario: scenario.Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda kind, name: CraftedAdapter if name == "crafted_adapter" else load(kind, name)
    )
    chosen = asked(small_scenario, attacks=[{"crafted_adapter": {"prompts": 4, "iterations": 10}}])
    planned = audit.plan(chosen, tmp_path / "run")
    own = [row for row in planned["trainings"] if "-crafted_adapter-" in row["name"]]
    assert [(row["rounds"], row["done"], row["seconds"] > 0) for row in own] == [(1, 0, True)] * 2, "one a cut"
    controls = [row for row in planned["replays"] if row["of"] == "reserve"]
    assert {row["training"] for row in controls} == {row["name"] for row in own}

    document = audit.run(chosen, tmp_path / "run").document
    found = {
        (row["adversary"], row["cut"]["front"] if row["cut"] else None): row
        for row in document["findings"]
        if row["metric"] == "item_recall"
    }
    row = found["malicious_server", 1]
    assert row["status"] == "ok", row["detail"]
    assert row["channel"] == "client_update"
    assert {each["name"] for each in row["comparisons"]} == {"control", "reserve", "popularity"}
    detail = row["detail"]
    assert detail["sent_norm"] > 2 * detail["honest_norm"]
    assert detail["loss"] != detail["honest_loss"]
    assert found["malicious_server", 0]["status"] == "not_applicable"
    assert "does not hold the first block" in found["malicious_server", 0]["detail"]["reason"]
    others = [each for (who, _), each in found.items() if who == "server"]
    assert all("chooses what is sent, and server does not" in each["detail"]["reason"] for each in others)
    (folder,) = (tmp_path / "run" / "trainings").glob("pplr-crafted_adapter-*/rounds")
    assert {path.name for path in (folder / "002").iterdir()} == {"state.safetensors", "crossings.safetensors"}
    left = audit.plan(chosen, tmp_path / "run")
    assert not any(row["seconds"] for row in left["trainings"])
    assert len(make_plan(chosen, LAYERS).hijacked_trainings(chosen)) == 2
