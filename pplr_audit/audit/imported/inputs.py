"""Views, knowledge and truths of a recording: the same that the harness gives of a training of ours."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from pplr_audit.audit.artifacts import StoredArtifacts
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.imported.recording import Recording
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.knowledge.recipe import recipe
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.audit.truth.owner import OwnerTruth
from pplr_audit.audit.truth.protocol import Truth
from pplr_audit.audit.truth.sets import SetTruth, answered_by, held_by
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.attack import Attack
from pplr_audit.threat_model.channels import OF_ADAPTERS
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable, Unscored
from pplr_audit.threat_model.view import Record, Update, View

UNSCORED = "the recording has no truth.json; the answer is sealed, and nothing is scored"


class RecordedInputs:
    """Source of what the cells of one recording need.

    Args:
        attacks: by name and settings.
        store: where fits that cells share are kept.
    """

    def __init__(self, recording: Recording, attacks: Mapping[tuple[str, str], Attack], store: Store) -> None:
        self._recording, self._attacks = recording, attacks
        self._artifacts = StoredArtifacts(store)

    def view(self, cell: Cell) -> View[Any]:
        """Return what was recorded, in the order of the rows."""
        seen = sorted(self._recording.manifest.observations, key=lambda each: each.row)
        place = (cell.adversary, cell.channel, cell.front, cell.back, cell.defense)
        if self._recording.sequences:
            held = self._recording.sequences
            return View(*place, tuple(Record(e.row, e.client, e.round, e.step, held[e.row]) for e in seen))
        hidden, newest = self._secret(cell) == "owner", self._recording.newest
        found, asked = list[Update](), dict[int, str]()
        for each in seen:
            tensors = self._recording.updates[each.row]
            if each.round != newest:
                if each.round in (*cell.also_rounds, newest):
                    found.append(Update(each.row, each.client, each.round, tensors))
                continue
            asked[each.row] = shown = "" if hidden else each.client  # as it was recorded, and never as the truth has it
            start = {} if cell.knowledge == "base" else self._recording.adapters.get(shown, {})
            found.append(Update(each.row, shown, each.round, tensors, start))
        return View(*place, tuple(found), asked)

    def reserve_view(self, cell: Cell) -> None:
        """Nobody recorded what the clients would have sent if they had trained on others."""
        del cell

    def knowledge(self, cell: Cell) -> Sequence[Knowledge]:
        """Return the knowledge of whoever recorded: public weights, and the adapters that it had, if any."""
        recording, manifest = self._recording, self._recording.manifest
        whole, initial = recording.model.whole, recording.model.initial
        adapters = {} if cell.knowledge == "base" else recording.adapters
        return (
            Knowledge(
                level=cell.knowledge,
                prompts=deepcopy(recording.model.prompts),
                embeddings=whole.embeddings.clone(),
                base=KnownModel(whole, None),
                copies={
                    (client, recording.newest): KnownModel(whole, {**initial, **own})
                    for client, own in adapters.items()
                },
                layers=() if cell.front is None or cell.channel in OF_ADAPTERS else (cell.front,),
                history=manifest.history,
                depth=recording.model.layers,
                clients=tuple(sorted(manifest.clients)),
                recipe=recipe(manifest.training) if manifest.training is not None else None,
                loss_on=manifest.training.loss_on if manifest.training is not None else "title",
                auxiliary="catalogue",
                artifacts=self._artifacts,
            ),
        )

    def truths(self, cell: Cell) -> Mapping[str, Truth]:
        """Return the truth about the rows, by secret. Raises Unscored where the recording has none."""
        recording = self._recording
        if recording.truth is None:
            raise Unscored(UNSCORED)
        users = {row: true.user for row, true in recording.truth.items()}
        clients = {row: recording.clients[row] for row in users}
        if recording.updates:
            return {self._secret(cell): self._of_updates(cell, users, clients)}
        prompts = {row: own for row, (own,) in recording.prompts.items()}
        found: dict[str, Truth] = {
            "history": HistoryTruth(users, prompts, self._classes, self._popularity, self._titles, clients)
        }
        targets = {row: prompt.target for row, prompt in prompts.items()}
        if min(targets.values()) >= 0:
            found["label"] = LabelTruth(users, targets, self._classes, self._popularity, clients)
        return found

    def client_of(self, user: int) -> str:
        """Return the client of a user whose row is attacked."""
        return self._holders[user]

    @cached_property
    def _holders(self) -> dict[int, str]:
        return {true.user: self._recording.clients[row] for row, true in (self._recording.truth or {}).items()}

    def _of_updates(self, cell: Cell, users: Mapping[int, int], clients: Mapping[int, str]) -> Truth:
        if self._secret(cell) == "owner":
            if not all(clients.values()) or len(set(clients.values())) < len(clients):
                raise NotApplicable("the recording does not say of which client each update is, or one has several")
            return OwnerTruth(users, clients, sorted(self._recording.manifest.clients))
        if self._secret(cell) == "targets":
            sets = {row: answered_by(own, self._titles) for row, own in self._recording.prompts.items()}
            if not all(items for items, _ in sets.values()):
                raise NotApplicable("the recording does not say which items the samples were trained to answer with")
        else:
            sets = {row: held_by(own) for row, own in self._recording.prompts.items()}
        return SetTruth(users, sets, self._classes, self._popularity, self._titles)

    def _secret(self, cell: Cell) -> str:
        return self._attacks[cell.attack, cell.settings].secret

    @cached_property
    def _classes(self) -> np.ndarray:
        return self._recording.model.prompts.title_classes()

    @cached_property
    def _popularity(self) -> Float[np.ndarray, "items"]:
        """Popularity among those who are attacked, as no others are known: a baseline that is rather too good."""
        counts = np.zeros(len(self._recording.manifest.catalogue))
        for true in (self._recording.truth or {}).values():
            for sample in true.samples:
                np.add.at(counts, [*sample.items], 1.0)
        return counts

    @cached_property
    def _titles(self) -> list[np.ndarray]:
        prompts = self._recording.model.prompts
        return [prompts.titles[item][prompts.content[item] == 1] for item in range(len(prompts.titles))]
