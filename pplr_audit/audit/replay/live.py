"""What crosses in audited rounds, recorded while they are trained: then no round runs a second time for it.

It is the same, to the bit, as what `records.training_records` finds when it runs such a round again.
"""

from collections.abc import Mapping
from pathlib import Path

from pplr_audit.audit.plan import Plan
from pplr_audit.audit.replay.catalogue import key_of, taps_of
from pplr_audit.audit.replay.records import AT_ONCE, Watch, bytes_of, train_watched
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.threat_model.view import Record
from pplr_audit.training.client import Client
from pplr_audit.training.job import Job
from pplr_audit.training.link import Link

Seen = list[tuple[Trace, Record]]


class LiveRecords:
    """Looks on in a training's audited rounds and keeps what crosses of the victims.

    A round of which more crosses than is handed from one process to another is left out, and so is every round that a
    defense acts in.

    Args:
        plan: of this training's cells.
        folder: where there is room.
    """

    def __init__(self, job: Job, plan: Plan, folder: Path) -> None:
        self._job, self._plan, self._folder = job, plan, folder
        self._rows = Rows(job, job.federation.state)
        self._spools: dict[int, Spool] = {}
        self._watches: dict[int, Mapping[str, Watch]] = {}

    @property
    def rounds(self) -> Mapping[int, Spool]:
        """What crossed, by round, of the rounds that were trained with this onlooker from their start to their end."""
        return self._spools

    def train(self, client: Client, link: Link, round_: int) -> tuple[float, Seen]:
        """Train a client's round; return its loss, and what crossed of its victims."""
        seen: Seen = []
        watch = self._watched(round_).get(client.name)
        if watch is None:
            return client.train_round(link, round_), seen
        loss = train_watched(client, link, self._job.model.parts, watch, lambda *each: seen.append(each))
        return loss, seen

    def keep(self, round_: int, seen: Seen) -> None:
        """Put away what crossed of a client."""
        if not self._watched(round_):
            return
        spool = self._spools.setdefault(round_, Spool(self._folder))
        for trace, record in seen:
            spool.put(key_of(trace, record, self._rows.colluder), record)

    def _watched(self, round_: int) -> Mapping[str, Watch]:
        """Return what is recorded of a round, by client; empty where nothing is."""
        if round_ not in self._watches:
            self._watches[round_] = self._watch(round_)
        return self._watches[round_]

    def _watch(self, round_: int) -> dict[str, Watch]:
        federation = self._job.federation
        wanted = taps_of(self._plan, round_, federation.task.catalogue)
        if not wanted or federation.guards.composed.defenses:
            return {}
        samples = self._rows.recorded("training", round_).watched
        chosen = [client for client in federation.clients if samples.get(client.name)]
        if bytes_of(federation, self._job.model.parts, chosen, samples, wanted, round_) > AT_ONCE:
            return {}
        every, catalogue = self._plan.every_crossing, federation.task.catalogue
        return {
            client.name: Watch(round_, samples[client.name], wanted, every, catalogue=catalogue) for client in chosen
        }
