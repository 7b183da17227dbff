"""What crosses once a round is stored in kept rounds, as the server got it, and nobody listens in others."""

import json
from pathlib import Path

import pytest
import torch

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.data.prepare import PrivateData, prepare
from pplr_audit.errors import InputError
from pplr_audit.models.build import Recommender, build
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.channels import ONCE_A_ROUND, Channel, Crossing
from pplr_audit.training import resume
from pplr_audit.training.checkpoints import CROSSINGS, TrainingFiles
from pplr_audit.training.crossings import crossings_of
from pplr_audit.training.job import Job, on_samples
from pplr_audit.training.link import PLAIN, Wire
from pplr_audit.training.rounds import Federation, assemble
from pplr_audit.training.spec import own_training
from pplr_audit.training.strategies.pplr import Pplr


@pytest.fixture(scope="module")
def private(small_scenario: scenario.Scenario) -> PrivateData:
    return prepare(small_scenario.data, small_scenario.seed)


@pytest.fixture(scope="module")
def model(small_scenario: scenario.Scenario, private: PrivateData) -> Recommender:
    history = small_scenario.data.history
    return build(small_scenario.model, private.dataset.catalogue, history=history, seed=small_scenario.seed)


def federation_of(
    model: Recommender, private: PrivateData, training: scenario.Training, wire: Wire = PLAIN
) -> Federation:
    return assemble(private.samples, model, training, Pplr(training), seed=1, wire=wire)


def trained(federation: Federation, folder: Path, kept: list[int], rounds: int = 3) -> tuple[Store, TrainingFiles]:
    store = Store.open(folder, "name: x\n", "0" * 64)
    files = TrainingFiles(store, kept, federation)
    resume.train(federation, files, rounds, lambda steps, note="": None)
    return store, files


def test_a_kept_round_holds_what_a_live_link_recorded(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, tmp_path: Path
) -> None:
    live: list[Crossing] = []

    def keep(crossing: Crossing) -> None:
        if crossing.channel in ONCE_A_ROUND and crossing.step < 0 and crossing.round == 2:
            copied = {name: tensor.clone() for name, tensor in crossing.tensors.items()}
            live.append(Crossing(crossing.channel, crossing.client, 2, -1, copied))

    heard = federation_of(model, private, small_scenario.training, Wire(recorder=keep))
    trained(heard, tmp_path / "heard", [2])
    federation = federation_of(model, private, small_scenario.training)
    store, files = trained(federation, tmp_path / "run", [2])
    stored = files.crossings(2)
    assert [(c.channel, c.client, c.round) for c in stored] == [(c.channel, c.client, c.round) for c in live]
    assert {c.channel for c in stored} == ONCE_A_ROUND - {Channel.AGGREGATE}
    for ours, theirs in zip(stored, live, strict=True):
        assert ours.tensors.keys() == theirs.tensors.keys()
        assert all(torch.equal(tensor, theirs.tensors[name]) for name, tensor in ours.tensors.items())
    updates = [c for c in stored if c.channel == Channel.CLIENT_UPDATE]
    assert {c.client for c in updates} == set(private.samples)
    start = files.state(2).adapters
    trunk = {c.client: c.tensors for c in stored if c.channel == Channel.TRUNK_UPDATE}
    for each in updates:
        assert {*each.tensors, *trunk[each.client]} == set(start[each.client]), "together they span the adapter"
    assert [path for path in store.paths() if path.endswith(CROSSINGS)] == [f"rounds/002/{CROSSINGS}"]
    store.close()


def test_nobody_listens_in_a_round_that_is_not_kept(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    federation = federation_of(model, private, small_scenario.training)
    listening: dict[int, bool] = {}
    client = federation.clients[0]
    inner = client.train_round

    def watched(link: object, round_: int) -> float:
        listening[round_] = federation.link.of_rounds is not None
        return inner(federation.link, round_)

    monkeypatch.setattr(client, "train_round", watched)
    store, _ = trained(federation, tmp_path / "run", [2])
    store.close()
    assert listening == {1: False, 2: True, 3: False}
    assert federation.link.of_rounds is None, "serving is not recorded"


def test_the_hook_that_trains_on_other_samples_gives_the_same_bits_on_the_same_samples(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, tmp_path: Path
) -> None:
    """All clients together, and one by itself from the stored start of the round; other samples give another update."""
    federation = federation_of(model, private, small_scenario.training)
    store, files = trained(federation, tmp_path / "run", [2])
    stored, state = files.crossings(2), files.state(2)
    store.close()
    job = Job(small_scenario, private, model, federation, own_training(small_scenario))
    again = crossings_of(on_samples(job, private.samples), state)
    assert [(c.channel, c.client) for c in again] == [(c.channel, c.client) for c in stored]
    assert all(torch.equal(a.tensors[n], s.tensors[n]) for a, s in zip(again, stored, strict=True) for n in s.tensors)
    client, other = sorted(private.samples)[:2]
    (update,) = [c.tensors for c in stored if (c.channel, c.client) == (Channel.CLIENT_UPDATE, client)]
    alone = crossings_of(on_samples(job, {client: private.samples[client]}), state)
    (same,) = [c.tensors for c in alone if c.channel == Channel.CLIENT_UPDATE]
    assert all(torch.equal(same[name], value) for name, value in update.items())
    swapped = crossings_of(on_samples(job, {client: private.samples[other]}), state)
    (another,) = [c.tensors for c in swapped if c.channel == Channel.CLIENT_UPDATE]
    assert not any(torch.equal(another[name], value) for name, value in update.items())


def test_crossings_that_do_not_fit_the_federation_are_refused_by_file(
    small_scenario: scenario.Scenario, private: PrivateData, model: Recommender, tmp_path: Path
) -> None:
    """A run may come from a stranger."""
    federation = federation_of(model, private, small_scenario.training)
    store, files = trained(federation, tmp_path / "run", [1], rounds=1)
    path = f"rounds/001/{CROSSINGS}"
    path = next(each for each in store.paths() if each.endswith(path))
    tensors, metadata = store.read_tensors(path), store.read_metadata(path)
    listed = json.loads(metadata["crossings"])["crossings"]
    place = next(at for at, (channel, _) in enumerate(listed) if channel == "client_update")
    first = min(name for name in tensors if name.startswith(f"{place}/"))
    missing = {name: tensor for name, tensor in tensors.items() if name != first}

    def renamed(at: int, channel: str, client: str) -> dict[str, str]:
        changed = [[channel, client] if number == at else each for number, each in enumerate(listed)]
        return {"crossings": json.dumps({"crossings": changed})}

    for given, told, said in (
        ({**tensors, first: tensors[first][:1]}, metadata, "and not float32"),
        (missing, metadata, "client_update of client-0: tensors: "),
        ({**tensors, f"{place}/other": tensors[first]}, metadata, "client_update of client-0: tensors: "),
        ({**tensors, "999/other": tensors[first]}, metadata, "list index out of range"),
        (tensors, renamed(place, "client_update", "nobody"), "that is no client"),
        (tensors, renamed(place, "client_update", "all"), "that is no client"),
        (tensors, renamed(place, "front_activations", "client-0"), "in every step"),
        (tensors, renamed(place, "gossip", "client-0"), "gossip"),
        (tensors, {"crossings": "{}"}, "crossings"),
    ):
        store.write_tensors(path, given, told)
        with pytest.raises(InputError, match=rf"{CROSSINGS}\b.*{said}"):
            files.crossings(1)
    store.close()


def test_a_run_leaves_the_crossings_of_its_audited_rounds_alone(trained_run: audit.AuditResult) -> None:
    found = sorted(path.parent.name for path in trained_run.directory.rglob(CROSSINGS))
    assert found == ["002"]


@pytest.fixture
def trained_run(request: pytest.FixtureRequest) -> audit.AuditResult:
    result: audit.AuditResult = request.getfixturevalue("trained")
    return result
