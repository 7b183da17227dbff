"""Traffic: whatever crossed of a client, and not of the victims alone, for attacks that learn without a label.

It is recorded in a pass of its own, and for attacks that ask for it alone, so that what is recorded of the victims
stays as it is. No sequence says whose it is.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pplr_audit.audit.replay.records import Watched, received_records, serving_records, training_records
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.audit.victims.rows import Rows
from pplr_audit.data.samples import serving_samples
from pplr_audit.scenario.seeds import derive
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState

MOST = 512
"""Sequences of a client that are recorded of a round, at most; of more so many are drawn."""


class Traffic:
    """Sequences that crossed at a front, by client and round.

    Args:
        rows: who holds which user.
        state: what a round starts from.
        layers: every front that may be asked about.
        rounds: how many rounds may be asked about.
        scratch: a folder with room for what crossed, while it is looked at.
    """

    def __init__(
        self, job: Job, rows: Rows, state: Callable[[int], RoundState], layers: Sequence[int], scratch: Path,
        rounds: int = 1,
    ) -> None:  # fmt: skip
        self._job, self._rows, self._state = job, rows, state
        self._layers, self._scratch = layers, scratch
        self.recorded = lru_cache(maxsize=1 + rounds)(self._record)

    def of(self, training: bool, layer: int, client: str, round_: int) -> Iterator[Float[Tensor, "length hidden"]]:
        """Yield what crossed of a client at ``layer`` in a round of training, or in serving after it, one by one."""
        for record in self.recorded(training, round_).each((client, Trace("activation", layer))):
            yield record.tensor

    def _record(self, training: bool, round_: int) -> Spool:
        """Record a round of training, or what is served after it, of everyone but the reserve."""
        spool = Spool(self._scratch)

        def keep(trace: Trace, record: Record) -> None:
            spool.put((record.client, trace), record)

        federation, model, state = self._job.federation, self._job.model, self._state(round_)
        if training:
            samples = self._job.private.samples
            watched = {client: self._watched(client, round_) for client in samples}
            wanted = {Trace("activation", layer) for layer in self._layers}
            training_records(federation, model.parts, state, watched, wanted, keep)
            return spool
        private, history = self._job.private, self._job.scenario.data.history
        requests = {}
        for client in private.samples:
            audience = np.flatnonzero(private.population.reserve == 0).tolist()
            users = [user for user in audience if self._rows.holder_of(user) == client]
            asked = serving_samples(private.split, np.array(users, dtype=np.int64), history)
            drawn = [row for row in self._drawn(client, round_, len(asked)) if len(asked.history[row])]
            requests[client] = [(row, model.prompts.build(asked.history[row])) for row in drawn]
        if federation.guards.on(Channel.INFERENCE_ACTIVATIONS):
            received_records(federation, model.parts, state, requests, keep)
        else:
            serving_records(model.whole, state, requests, self._layers, keep)
        return spool

    def _watched(self, client: str, round_: int) -> list[Watched]:
        samples = self._job.private.samples[client]
        lengths = self._job.model.prompts.lengths(samples.history, samples.targets)
        return [Watched(place, place, int(lengths[place])) for place in self._drawn(client, round_, len(samples))]

    def _drawn(self, client: str, round_: int, count: int) -> list[int]:
        """Return the places that are recorded, in order."""
        generator = np.random.default_rng(derive(self._job.scenario.seed, "traffic", client, round_))
        return [int(place) for place in sorted(generator.permutation(count)[:MOST])]
